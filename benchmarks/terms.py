"""The coder by terms on CodiEsp's dev cases and on the five folds of CMC 2007, with what it reads of denials and uncertainty;
and how often it is right about codes that no training case has.

    python -m benchmarks.terms --codiesp_dir DIR --cmc_dir DIR

Its terms are titles and inclusion terms alone, or also weighed on, and where evidence is marked taken from, the training notes.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from benchmarks.tfidf import evaluate_terms
from dataset_scripts import ICDBuilder, load_builder
from dataset_scripts.command import run_command
from modeling_icd.evaluation.scoring import score_notes
from modeling_icd.knowledge.build import CUES
from modeling_icd.knowledge.coder import build_coder


METRICS = ("f1_micro", "precision_micro", "recall_micro", "map")
CODIESP = ("diagnoses_es", "diagnoses_en", "diagnoses_es_top50", "diagnoses_en_top50")
FOLDS = tuple(f"fold{fold}" for fold in range(5))
READ: dict[str, dict[str, bool]] = {
    "no cue": dict.fromkeys(CUES.values(), False),
    "denials": {"read_denials": True},
    "denials, uncertain": {"read_denials": True, "read_uncertain": True},
}
BY_NOTES = "as training notes say"


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
        for config in CODIESP[:2] if args.codiesp_dir else ():
            report_unseen(config, args.codiesp_dir, cache_dir)
    return 0


def report(title: str, dataset: str, configs: Sequence[str], data_dir: str, cache_dir: str) -> None:
    """Print a row of a table for each way to build the coder."""
    builders = [load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir) for config in configs]
    for use_notes in (False, True):
        for cues, fields in {**READ, **({BY_NOTES: {}} if use_notes else {})}.items():
            found = [evaluate_terms(builder, use_notes, **fields) for builder in builders]
            means = [sum(figures[name] for figures in found) / len(found) for name in METRICS]
            terms = "weighed on training notes" if use_notes else "titles alone"
            print(f"| {title} | {terms} | {cues} |", " | ".join(f"{mean:.3f}" for mean in means), "|", flush=True)


def report_unseen(config: str, data_dir: str, cache_dir: str) -> None:
    """Print how the coder does on dev cases with the codes that training cases or validation have, and with all codes of ICD-10-CM;
    and how often it is right about codes that no training case has. Every code of the dev cases is in the gold standard."""
    options = {"data_dir": data_dir, "cache_dir": cache_dir}
    names, cases = _codes(load_builder("codiesp", config, min_count=0, **options), "test")
    gold = {(case, names[code]) for case, codes in enumerate(cases["codes"]) for code in codes}
    seen = load_builder("codiesp", config, min_count=1, **options)
    known, train = _codes(seen, "train")
    learned = {known[code] for codes in train["codes"] for code in codes}
    for use_notes in (False, True):
        for all_codes in (False, True):
            cues: dict[str, Any] = {} if use_notes else READ["no cue"]
            coder = build_coder(["icd10cm"], builder=seen, use_notes=use_notes, all_codes=all_codes, **cues)
            scores = score_notes(coder.model, coder.tokenizer, list(cases["text"]))
            given = {(int(case), coder.model.config.id2label[int(code)]) for case, code in np.argwhere(scores > 0.5)}
            unseen = {(case, code) for case, code in given if code not in learned}
            terms = "weighed on training notes" if use_notes else "titles alone"
            codes = "all codes" if all_codes else "codes of train and validation"
            f1, precision = 2 * len(given & gold) / (len(given) + len(gold)), len(given & gold) / len(given)
            right = len(unseen & gold)
            print(
                f"| {config} | {terms} | {codes}: {coder.model.num_labels:,} | {f1:.3f} | {precision:.3f} "
                f"| {right} of {len(unseen)} |",
                flush=True,
            )


def _codes(builder: ICDBuilder, split: str) -> tuple[list[str], Dataset]:
    return builder.info.features["codes"].feature.names, builder.as_dataset(split=split)


if __name__ == "__main__":
    sys.exit(run_command(main))
