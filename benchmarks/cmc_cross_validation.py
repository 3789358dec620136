"""Five folds over the CMC 2007 reports: both models and TF-IDF + LinearSVC, on the same test folds.

    python -m benchmarks.cmc_cross_validation --data_dir DIR --output_dir runs/cmc

TF-IDF, plain and strong, is there twice: fitted on train and validation, with LinearSVC's own decision; and fitted on
train, with a threshold chosen on validation. No test fold is looked at before its figures are final. A row "NAME x 3" is the mean of
the logits of the three seeds. What is done is not trained again.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.runs import print_summary, score_ensemble, train_and_score
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
    parser.add_argument("--seeds", nargs="+", type=int, default=range(3))
    args = parser.parse_args(arguments)
    cache_dir = str(args.output_dir / "cache")
    figures: dict[str, list[dict]] = {}
    for fold in args.folds:
        builder = load_builder("cmc2007", f"fold{fold}", data_dir=args.data_dir, cache_dir=cache_dir)
        for name, strong in (("tfidf_linearsvc", False), ("tfidf_strong", True)):
            figures.setdefault(name, []).append(evaluate_tfidf(builder, False, strong))
            figures.setdefault(f"{name}_tuned", []).append(evaluate_tfidf(builder, True, strong))
        for config in args.configs:
            folders = [args.output_dir / f"{config}-fold{fold}-seed{seed}" for seed in args.seeds]
            for folder, seed in zip(folders, args.seeds, strict=True):
                results = train_and_score(config, folder, args.data_dir, f"fold{fold}", seed)
                figures.setdefault(config, []).append({**results["metrics"], "seconds": results["training_seconds"]})
            if len(folders) > 1:
                ensemble = score_ensemble(folders, config, args.data_dir)
                figures.setdefault(f"{config} x {len(folders)}", []).append(ensemble)
    print_summary(
        figures,
        METRICS,
        f"CMC 2007, test folds {list(args.folds)}, seeds {list(args.seeds)}",
        args.output_dir / "summary.json",
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
