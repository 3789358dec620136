"""Time and memory of `icd_metrics` beside what it replaces, on the same invented scores.

    python benchmarks/metrics.py                 # MIMIC-III's test split in size: 3,372 notes, 8,921 codes
    python benchmarks/metrics.py --full          # the slow ways on all notes, too (many minutes, most of them scikit-learn's)
    python benchmarks/metrics.py --full --ways "icd_metrics, dense, float32" "CAML-style loop" "evaluate list path"

Each way runs in a process of its own, which first makes the data; seconds leave that out, peak memory includes it. The slow
ways run on a part of the notes unless `--full` is given; their seconds are then scaled up in proportion and marked `~`, an
estimate only. The list path computes nothing but the micro F1.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak


ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BATCH_SIZE = 8
BASELINE = "icd_metrics, dense, float32"
SLOW = ("evaluate list path", "CAML-style loop", "scikit-learn")
"""Run on a part of the notes by default."""


def make_data(num_notes: int, num_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float32) and multi-hot labels (uint8) with about 16 gold codes a note, code frequencies falling as 1 / rank."""
    random = np.random.default_rng(0)
    frequency = np.minimum(0.5, 16 / np.log(num_codes) / np.arange(1, num_codes + 1)).astype(np.float32)
    labels = np.empty((num_notes, num_codes), np.uint8)
    scores = np.empty((num_notes, num_codes), np.float32)
    for note in range(num_notes):
        labels[note] = random.random(num_codes, np.float32) < frequency
        logits = np.log(frequency) - 1 + random.standard_normal(num_codes, np.float32) + 3 * labels[note]
        scores[note] = 1 / (1 + np.exp(-logits))
    return scores, labels


def icd_metrics_batches(scores, labels, storage="float32", batch_size=BATCH_SIZE):
    from modeling_icd.evaluation.icd_metrics.accumulator import ICDMetricsAccumulator

    accumulator = ICDMetricsAccumulator(scores.shape[1], score_storage=storage)
    started = time.perf_counter()
    for first in range(0, len(scores), batch_size):
        accumulator.add_batch(scores[first : first + batch_size], labels[first : first + batch_size])
    return accumulator.compute(tune_threshold=True), time.perf_counter() - started


def icd_metrics_module(scores, labels):
    import evaluate

    metric = evaluate.load(str(ROOT / "modeling_icd" / "evaluation" / "icd_metrics"))
    started = time.perf_counter()
    return metric.compute(predictions=scores, references=labels), time.perf_counter() - started


def evaluate_list_path(scores, labels):
    """What a plain `evaluate` module costs before it computes anything: arrays through Arrow, back as Python lists."""
    import datasets
    import evaluate

    class MicroF1(evaluate.Metric):
        """Only the micro F1, so that the time is that of the path."""

        def _info(self):
            return evaluate.MetricInfo(
                description="",
                citation="",
                features=datasets.Features(
                    {
                        "predictions": datasets.Sequence(datasets.Value("float32")),
                        "references": datasets.Sequence(datasets.Value("int32")),
                    }
                ),
            )

        def _compute(self, predictions, references):
            predicted, gold = np.array(predictions) > 0.5, np.array(references) == 1
            return {"f1_micro": float(2 * (predicted & gold).sum() / (predicted.sum() + gold.sum()))}

    metric = MicroF1(keep_in_memory=True)
    started = time.perf_counter()
    return metric.compute(predictions=scores, references=labels), time.perf_counter() - started


def caml_style_loop(scores, labels):
    """The metrics of CAML's evaluation, after its definitions: a loop over notes for each k, a curve for each code."""
    from sklearn.metrics import auc, roc_curve

    started = time.perf_counter()
    predicted = (scores > 0.5).astype(np.int64)
    labels = labels.astype(np.int64)
    hits = predicted * labels
    results = {"f1_micro": 2 * hits.sum() / (predicted.sum() + labels.sum())}
    precision = (hits.sum(axis=0) / (predicted.sum(axis=0) + 1e-10)).mean()
    recall = (hits.sum(axis=0) / (labels.sum(axis=0) + 1e-10)).mean()
    results["f1_macro_caml"] = 2 * precision * recall / (precision + recall)
    order = np.argsort(scores, axis=1)[:, ::-1]
    for k in (5, 8, 15):
        precisions, recalls = [], []
        for note in range(len(scores)):
            num_true = labels[note, order[note, :k]].sum()
            precisions.append(num_true / k)
            recalls.append(num_true / labels[note].sum() if labels[note].any() else 0.0)
        results[f"precision_at_{k}"], results[f"recall_at_{k}"] = np.mean(precisions), np.mean(recalls)
    areas = []
    for code in range(scores.shape[1]):
        if 0 < labels[:, code].sum() < len(labels):
            fpr, tpr, _ = roc_curve(labels[:, code], scores[:, code])
            areas.append(auc(fpr, tpr))
    results["auc_macro"] = np.mean(areas)
    fpr, tpr, _ = roc_curve(labels.ravel(), scores.ravel())
    results["auc_micro"] = auc(fpr, tpr)
    return {name: float(value) for name, value in results.items()}, time.perf_counter() - started


def scikit_learn(scores, labels):
    """The metrics that scikit-learn has, each called as its documentation shows."""
    from sklearn import metrics as sk

    started = time.perf_counter()
    predicted = (scores > 0.5).astype(np.uint8)
    results: dict[str, float] = {}
    for name, average in (("micro", "micro"), ("macro", "macro"), ("instance", "samples")):
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        results |= {f"precision_{name}": precision, f"recall_{name}": recall}
        results["f1_instance_mean" if name == "instance" else f"f1_{name}"] = f1
        results[f"jaccard_{name}"] = sk.jaccard_score(labels, predicted, average=average, zero_division=0)
    results["exact_match"] = sk.accuracy_score(labels, predicted)
    support = labels.sum(axis=0, dtype=int)
    kept = (support > 0) & (support < len(labels))
    results["auc_macro"] = sk.roc_auc_score(labels[:, kept], scores[:, kept])
    results["auc_micro"] = sk.roc_auc_score(labels.ravel(), scores.ravel())
    results["average_precision_macro"] = sk.average_precision_score(labels[:, support > 0], scores[:, support > 0])
    results["average_precision_micro"] = sk.average_precision_score(labels.ravel(), scores.ravel())
    for k in (5, 8, 15):
        results[f"ndcg_at_{k}"] = sk.ndcg_score(labels, scores, k=k, ignore_ties=True)
    results["brier"] = sk.brier_score_loss(labels.ravel(), scores.ravel())
    return {name: float(value) for name, value in results.items()}, time.perf_counter() - started


WAYS = {
    "icd_metrics, evaluate.load, one call": icd_metrics_module,
    BASELINE: icd_metrics_batches,
    "icd_metrics, dense, uint16": lambda scores, labels: icd_metrics_batches(scores, labels, "uint16"),
    "scikit-learn": scikit_learn,
    "CAML-style loop": caml_style_loop,
    "evaluate list path": evaluate_list_path,
}


def measure(way: str, num_notes: int, num_codes: int) -> dict:
    """Run one way in this process; seconds and the rise of the peak memory over that with the data in place."""
    scores, labels = make_data(num_notes, num_codes)
    before = peak()
    results, seconds = WAYS[way](scores, labels)
    return {"seconds": seconds, "peak": peak() / 2**30, "data": before / 2**30, "metrics": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=3372)
    parser.add_argument("--codes", type=int, default=8921)
    parser.add_argument("--part", type=float, default=0.1, help="share of the notes for the slow ways")
    parser.add_argument("--full", action="store_true", help="all notes for the slow ways, too")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="which ways, by name"
    )
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.notes, args.codes)))
        return

    rows: dict[str, dict[str, Any]] = {}
    exact: dict[str, float] = {}
    for way in dict.fromkeys([BASELINE, *args.ways]):
        share = args.part if way in SLOW and not args.full else 1.0
        command = [sys.executable, __file__, "--only", way]
        command += ["--notes", str(round(args.notes * share)), "--codes", str(args.codes)]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        row["share"], row["seconds"] = share, row["seconds"] / share
        rows[way] = row
        exact = exact or row["metrics"]
    baseline = rows[BASELINE]["seconds"]
    print(f"{args.notes:,} notes x {args.codes:,} codes, batches of {BATCH_SIZE}; peak memory includes the data.\n")
    print("| way | seconds | times icd_metrics | peak GB | metrics | largest difference |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, row in rows.items():
        mark = "" if row["share"] == 1 else "~"
        common = [name for name in row["metrics"] if name in exact and row["share"] == 1]
        common = [name for name in common if row["metrics"][name] == row["metrics"][name]]  # not NaN
        differences = [abs(row["metrics"][name] - exact[name]) for name in common]
        difference = f"{max(differences):.1e}" if differences else "-"
        memory = f"{row['peak']:.2f}" if row["share"] == 1 else f"{row['peak']:.2f} at {row['share']:.0%}"
        print(
            f"| {way} | {mark}{row['seconds']:.2f} | {mark}{row['seconds'] / baseline:.1f} | {memory} "
            f"| {len(row['metrics'])} | {difference} |"
        )


if __name__ == "__main__":
    main()
