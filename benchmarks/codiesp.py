"""Both models and TF-IDF + LinearSVC on the diagnoses of CodiEsp, scored on its dev cases: the 50 most frequent ones, and all.

    python -m benchmarks.codiesp --data_dir DIR --output_dir runs/codiesp

Everything is fitted on train, and each threshold is chosen on cases held out from it. A row "NAME x 3" is the mean of the
logits of the three seeds. A seed that is done is not trained again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs import print_summary, score_ensemble, train_and_score
from benchmarks.tfidf import evaluate_tfidf
from dataset_scripts import load_builder
from dataset_scripts.command import run_command


TOP50, ALL = ("codiesp_multirescnn", "codiesp_direct"), ("codiesp_all_multirescnn", "codiesp_all_direct")
# Of each task: the data set's configuration, those of the models, and what differs from these.
TASKS: dict[str, tuple[str, tuple[str, ...], dict[str, object]]] = {
    "top50_en": ("diagnoses_en_top50", TOP50, {}),
    "top50_es": ("diagnoses_es_top50", TOP50, {"start_evidence": False}),
    "all_es": ("diagnoses_es", ALL, {}),
    "all_es_without_evidence": ("diagnoses_es", ALL, {"start_evidence": False, "evidence_weight": 0}),
    "all_en": ("diagnoses_en", ALL, {"evidence_weight": 0}),
}
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "auc_micro", "map")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/codiesp"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(3))
    args = parser.parse_args(arguments)
    for task in args.tasks:
        run_task(task, args.data_dir, args.output_dir, args.seeds)
    return 0


def run_task(task: str, data_dir: str, output_dir: Path, seeds: Sequence[int]) -> None:
    """Train and score the models of a task with every seed, and print and write their figures."""
    data_config, configs, options = TASKS[task]
    builder = load_builder("codiesp", data_config, data_dir=data_dir, cache_dir=str(output_dir / "cache"))
    figures = {  # which no seed changes
        "tfidf_linearsvc": [evaluate_tfidf(builder, tune_threshold=True)],
        "tfidf_strong": [evaluate_tfidf(builder, tune_threshold=True, strong=True)],
    }
    for seed in seeds:
        for config in configs:
            folder = output_dir / f"{config}-{task}-seed{seed}"
            results = train_and_score(config, folder, data_dir, data_config, seed, **options)
            figures.setdefault(config, []).append({**results["metrics"], "seconds": results["training_seconds"]})
    for config in configs if len(seeds) > 1 else ():
        folders = [output_dir / f"{config}-{task}-seed{seed}" for seed in seeds]
        figures[f"{config} x {len(seeds)}"] = [score_ensemble(folders, config, data_dir)]
    title = f"CodiEsp, {task}, dev, seeds {list(seeds)}"
    print_summary(figures, METRICS, title, output_dir / f"summary-{task}.json")


if __name__ == "__main__":
    sys.exit(run_command(main))
