"""The coder by terms on CodiEsp's dev cases and on the five folds of CMC 2007, with and without reading what notes deny.

    python -m benchmarks.terms --codiesp_dir DIR --cmc_dir DIR

Its terms are titles and inclusion terms alone, or also weighed on, and where evidence is marked taken from, the training notes.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.tfidf import evaluate_terms
from dataset_scripts import load_builder
from dataset_scripts.command import run_command


METRICS = ("f1_micro", "precision_micro", "recall_micro", "map")
CODIESP, FOLDS = ("diagnoses_es", "diagnoses_en"), tuple(f"fold{fold}" for fold in range(5))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codiesp_dir")
    parser.add_argument("--cmc_dir")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as cache_dir:
        if args.cmc_dir:
            report("CMC 2007, mean of five folds", "cmc2007", FOLDS, args.cmc_dir, cache_dir)
        for config in CODIESP if args.codiesp_dir else ():
            report(f"CodiEsp {config}, dev", "codiesp", (config,), args.codiesp_dir, cache_dir)
    return 0


def report(title: str, dataset: str, configs: Sequence[str], data_dir: str, cache_dir: str) -> None:
    """Print a row of a table for each way to build the coder."""
    builders = [load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir) for config in configs]
    for use_notes in (False, True):
        for read_denials in (True, False):
            found = [evaluate_terms(builder, use_notes, read_denials) for builder in builders]
            means = [sum(figures[name] for figures in found) / len(found) for name in METRICS]
            terms = "weighed on training notes" if use_notes else "titles alone"
            denials = "reads denials" if read_denials else "ignores denials"
            print(f"| {title} | {terms}, {denials} |", " | ".join(f"{mean:.4f}" for mean in means), "|", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
