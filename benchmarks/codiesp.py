"""Both models and TF-IDF + LinearSVC on the 50 most frequent diagnoses of CodiEsp, scored on its dev cases.

    python -m benchmarks.codiesp --data_dir DIR --output_dir runs/codiesp

Everything is fitted on train, and each threshold is chosen on cases held out from it. A seed that is done is not trained again.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.runs import print_summary, train_and_score
from benchmarks.tfidf import evaluate_tfidf
from dataset_scripts import load_builder
from dataset_scripts.command import run_command


CONFIGS = ("codiesp_multirescnn", "codiesp_direct")
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "auc_micro", "map")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/codiesp"))
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="names of files in configs/")
    parser.add_argument("--language", choices=("en", "es"), default="en", help="of the cases")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(3))
    args = parser.parse_args(arguments)
    data_config = f"diagnoses_{args.language}_top50"
    cache_dir = str(args.output_dir / "cache")
    builder = load_builder("codiesp", data_config, data_dir=args.data_dir, cache_dir=cache_dir)
    figures = {  # which no seed changes
        "tfidf_linearsvc": [evaluate_tfidf(builder, tune_threshold=True)],
        "tfidf_strong": [evaluate_tfidf(builder, tune_threshold=True, strong=True)],
    }
    for seed in args.seeds:
        for config in args.configs:
            folder = args.output_dir / f"{config}-{args.language}-seed{seed}"
            results = train_and_score(config, folder, args.data_dir, data_config, seed)
            figures.setdefault(config, []).append(results["metrics"])
    print_summary(
        figures,
        METRICS,
        f"CodiEsp, {data_config}, dev, seeds {list(args.seeds)}",
        args.output_dir / f"summary-{args.language}.json",
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
