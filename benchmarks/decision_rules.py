"""What each way to decide makes of one trained model: threshold rules, calibration, review band, audit.

    python -m benchmarks.decision_rules runs/synthetic/synthetic_direct --data_dir runs/synthetic/corpus-1000-short-0

Each decision is fitted on validation by `modeling_icd.evaluation.decide` and measured on the test split; the model's own stays
as it is. The built data and the hidden states of a frozen backbone lie beside the model's folder, as `make synthetic` leaves
them.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from dataset_scripts.command import run_command
from dataset_scripts.files import write_json
from modeling_icd.evaluation.decide import refit_decision
from modeling_icd.evaluation.decisions import DecisionArguments
from modeling_icd.evaluation.results import summarize
from modeling_icd.evaluation.scoring import score_split
from modeling_icd.inference.hidden_states import HiddenStates


WAYS = {
    "global": DecisionArguments(),
    "per_code": DecisionArguments(threshold_rule="per_code"),
    "top_k": DecisionArguments(threshold_rule="top_k"),
    "fixed": DecisionArguments(threshold_rule="fixed"),
    "conformal, recall 0.9": DecisionArguments(threshold_rule="conformal", target_recall=0.9),
    "temperature": DecisionArguments(calibration="temperature"),
    "platt, review 0.8": DecisionArguments(calibration="platt", review_precision=0.8),
}
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro")
PARTS = ("threshold", "calibration", "review", "recall_promise", "audit")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the `output_dir` of a training run")
    parser.add_argument("--data_dir", required=True, help="the files of the data set that it was trained on")
    args = parser.parse_args(arguments)
    dataset = AutoConfig.from_pretrained(args.model).training_data["dataset"]
    cache_dir = str(args.model.parent / "cache")

    def make_store(model) -> HiddenStates:
        return HiddenStates(args.model.parent / "hidden_states", model)

    summary = {}
    with tempfile.TemporaryDirectory() as name:
        # Files that are written replace their links: the model's own are only read.
        folder = Path(shutil.copytree(args.model.resolve(), Path(name, "model"), copy_function=os.symlink))
        for way, decision in WAYS.items():
            refit_decision(folder, args.data_dir, decision, cache_dir=cache_dir, make_store=make_store)
            scored = score_split(
                str(folder), dataset, args.data_dir, "test", cache_dir=cache_dir, make_store=make_store
            )
            results, _ = summarize(scored)
            summary[way] = {name: results["metrics"][name] for name in METRICS} | {
                part: results[part] for part in PARTS
            }
    table = Table(title=f"{args.model}: {results['num_notes']} notes of the test split")
    for column in ("decision", *METRICS, "threshold"):
        table.add_column(column.replace("_", "\n"), no_wrap=column == "decision")
    for way, row in summary.items():
        threshold = row["threshold"]
        shown = threshold if isinstance(threshold, str) else f"{threshold:.4f}"
        table.add_row(way, *(f"{row[metric]:.4f}" for metric in METRICS), shown)
    Console().print(table)
    path = args.model.parent / "decision_rules.json"
    write_json(summary, path)
    print(f"{path}: what came of calibration, review band, promised recall and audit")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
