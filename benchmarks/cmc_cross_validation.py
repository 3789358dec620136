"""Five folds over the CMC 2007 reports: both models and TF-IDF + LinearSVC, on the same test folds.

    python -m benchmarks.cmc_cross_validation --data_dir DIR --output_dir runs/cmc

TF-IDF, plain and strong, is there twice: fitted on train and validation, with LinearSVC's own decision; and fitted on
train, with a threshold chosen on validation. No test fold is looked at before its figures are final. A fold that is done is not trained
again.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.runs import print_summary, train_and_score
from benchmarks.tfidf import evaluate_tfidf
from dataset_scripts import load_builder
from dataset_scripts.command import run_command


CONFIGS = ("cmc_multirescnn", "cmc_direct")
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "auc_micro")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/cmc"))
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="names of files in configs/")
    parser.add_argument("--folds", nargs="+", type=int, default=range(5))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    cache_dir = str(args.output_dir / "cache")
    figures: dict[str, list[dict]] = {}
    for fold in args.folds:
        builder = load_builder("cmc2007", f"fold{fold}", data_dir=args.data_dir, cache_dir=cache_dir)
        for name, strong in (("tfidf_linearsvc", False), ("tfidf_strong", True)):
            figures.setdefault(name, []).append(evaluate_tfidf(builder, False, strong))
            figures.setdefault(f"{name}_tuned", []).append(evaluate_tfidf(builder, True, strong))
        for config in args.configs:
            folder = args.output_dir / f"{config}-fold{fold}-seed{args.seed}"
            results = train_and_score(config, folder, args.data_dir, f"fold{fold}", args.seed)
            figures.setdefault(config, []).append(results["metrics"])
    print_summary(
        figures,
        METRICS,
        f"CMC 2007, test folds {list(args.folds)}, seed {args.seed}",
        args.output_dir / f"summary-seed{args.seed}.json",
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
