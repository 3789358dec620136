"""Memory and time of a fused model's tables, features and trees as training notes grow, on an invented corpus of MIMIC-III's codes.

    modeling-icd synthetic --output_dir runs/twin --num_admissions 30000 --length long --codes full --mdace_charts 302
    python -m benchmarks.fusion_scale --data_dir runs/twin --sizes 3000 6000 24000

Each size is measured in a process of its own: its first notes are learned from, as a final model learns from all notes, and
`--scored` notes of test are scored by their tables, as those of a fold are. The head over hidden states is left out, whose
logits are drawn at random. What a note costs to learn from does not grow with their number; what one costs to score grows with
it in a line: so the last two sizes say what MIMIC-III would take.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import memory, peak, reset_peak, returning_memory
from dataset_scripts import load_builder
from dataset_scripts.synthetic.mdace import FOLDER
from modeling_icd.fusion_features_icd import FEATURES, FeatureMaker
from modeling_icd.fusion_text_icd import StemReader
from modeling_icd.inference.tokens import codes_of_notes, texts_of_notes
from modeling_icd.knowledge.coder import marked_phrases
from modeling_icd.knowledge.fusion_tables import Knowledge, Notes, title_terms
from modeling_icd.training.fusion_trees import fit_trees, rows_of


MIMIC3_NOTES = 47_719 + 1_631  # of train and dev, in CAML's splits


def measure(data_dir: str, cache_dir: str, num_notes: int, num_scored: int) -> dict[str, Any]:
    """What learning from so many notes and scoring others takes."""
    evidence = Path(data_dir, FOLDER)
    options = {"evidence": str(evidence)} if evidence.is_dir() else {}
    builder = load_builder("mimic3", "full", data_dir=data_dir, cache_dir=cache_dir, **options)
    train = builder.as_dataset(split="train").select(range(num_notes))
    notes = gather(train, builder)
    of_notes = {code for codes in notes.codes for code in codes}
    labels = [code for code in builder.info.features["codes"].feature.names if code in of_notes]
    titles, title_texts = title_terms(labels, with_new=False)
    test = builder.as_dataset(split="test").select(range(num_scored))
    texts, gold = texts_of_notes(test), codes_of_notes(test)
    reset_peak()
    before, started = memory()["VmRSS"], time.process_time()
    knowledge = Knowledge(notes, labels, titles, title_texts)
    learned, peak_of_tables, size = time.process_time(), peak(), memory()["VmRSS"]
    maker, reader = FeatureMaker(knowledge.tables, knowledge.finder, knowledge.num_known), StemReader()
    ready = time.process_time()
    draws = torch.Generator().manual_seed(0)
    scored = [
        maker.make(reader.read(text).stems, torch.randn(knowledge.num_known, generator=draws))._replace(evidence={})
        for text in texts
    ]
    made = time.process_time()
    reset_peak()
    rows = rows_of(scored, [{knowledge.ids[code] for code in own if code in knowledge.ids} for own in gold])
    before_trees = memory()["VmRSS"]
    fit_trees([rows], 1, 0)
    return {
        "notes": num_notes,
        "words": sum(len(text.split()) for text in notes.texts) / num_notes,
        "codes": len(labels),
        "stems": len(knowledge.stems),
        "ms_per_learned_note": 1000 * (learned - started) / num_notes,
        "kb_per_learned_note": (peak_of_tables - before) / num_notes / 1000,
        "mb_of_tables": (size - before) / 1e6,
        "seconds_to_load": ready - learned,
        "ms_per_scored_note": 1000 * (made - ready) / num_scored,
        "candidates": sum(len(each.codes) for each in scored) / num_scored,
        "kb_of_features": 4 * len(FEATURES) * len(rows.is_right) / num_scored / 1000,
        "rows_of_trees": len(rows.is_right),
        "seconds_of_trees": time.process_time() - made,
        "bytes_of_trees_per_row": (peak() - before_trees) / len(rows.is_right),
    }


def gather(split: Any, builder: Any) -> Notes:
    """Texts, codes and marked phrases of a split."""
    texts = texts_of_notes(split)
    phrases = [
        [(code, " ".join(text[start:end] for start, end in spans)) for code, spans in of_note]
        for text, of_note in zip(texts, marked_phrases(split, builder), strict=True)
    ]
    return Notes.read(texts, codes_of_notes(split), phrases)


def extrapolate(first: dict[str, Any], second: dict[str, Any], name: str, notes: int = MIMIC3_NOTES) -> float:
    """The value of a figure for so many notes, on the line through two measured ones."""
    slope = (second[name] - first[name]) / (second["notes"] - first["notes"])
    return second[name] + slope * (notes - second["notes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="the invented corpus")
    parser.add_argument("--cache_dir", help="of the built corpus; default: DATA_DIR-cache")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3000, 6000, 24_000])
    parser.add_argument("--scored", type=int, default=300, help="notes of test that are scored")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cache = args.cache_dir or f"{args.data_dir}-cache"
    if args.one is not None:
        print(json.dumps(measure(args.data_dir, cache, args.one, args.scored)))
        return
    found: list[dict[str, Any]] = []
    for size in args.sizes:
        command = [sys.executable, "-m", "benchmarks.fusion_scale", "--data_dir", args.data_dir, "--cache_dir", cache]
        command += ["--scored", str(args.scored), "--one", str(size)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=returning_memory())
        found.append(json.loads(run.stdout.splitlines()[-1]))
        print(json.dumps(found[-1], indent=1))
    for name in ("ms_per_scored_note", "candidates", "mb_of_tables", "codes") if len(found) > 1 else ():
        print(
            f"{name} with {MIMIC3_NOTES:,} notes, on the line through the last two: {extrapolate(found[-2], found[-1], name):,.1f}"
        )


if __name__ == "__main__":
    main()
