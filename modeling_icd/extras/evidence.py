"""Measures evidence spans against those that an annotator marked.

    modeling-icd evidence runs/mine --dataset codiesp --data_dir DIR --split test

The spans that `pipeline("icd-coding")` gives for a code are compared with the gold spans that an annotator, or the
synthetic corpus, marked for it. Data sets with gold spans: `codiesp` in Spanish, and the synthetic corpora (read as
`mimic3` and `mimic4`).
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command
from dataset_scripts.evidence import gold_evidence
from dataset_scripts.facts import FACTS
from dataset_scripts.files import write_json

from ..decision_icd import calibrated_scores, predicted_codes
from ..evaluation.icd_metrics.metrics import divide
from ..evaluation.model_data import builder_for, private_cache
from ..evidence_icd import evidence_spans
from ..inference.batches import padded_inputs
from ..inference.loading import add_reader_options, load_model, reader_arguments
from ..inference.loop import check_logits
from ..pipeline_icd import encode_note


NUM_SPANS = (1, 3, 5, 10)


class EvidenceCounts:
    """Words of given spans against words of gold spans, summed over pairs of a note and one of its codes.

    A word is a run of characters that are not white space; it is in a span when they share a character. Precision,
    recall and F1 are of words, micro over all pairs, after the token-level figures of explainable-medical-coding (arXiv
    2406.08958). A pair is a hit when a word is in both. `chance` is the precision to expect of words drawn at random:
    the share of the notes' words that are gold, the notes weighed by how many words were given.
    """

    def __init__(self) -> None:
        self.pairs = self.hits = self.given = self.gold = self.both = 0
        self.by_chance = 0.0

    def add(self, note: str, given: Iterable[Sequence[int]], gold: Iterable[Sequence[int]]) -> None:
        """Counts one code of one note, its spans being `(start, end)` characters."""
        words = [match.span() for match in re.finditer(r"\S+", note)]
        is_given, is_gold = (words_in(spans, words) for spans in (given, gold))
        both = int((is_given & is_gold).sum())
        self.pairs += 1
        self.hits += both > 0
        self.given += int(is_given.sum())
        self.gold += int(is_gold.sum())
        self.both += both
        self.by_chance += float(is_given.sum() * is_gold.mean())

    def compute(self) -> dict[str, float]:
        """The figures; `words` and `gold_words` are means over the pairs. Where nothing was counted, 0."""
        return {
            "pairs": self.pairs,
            "precision": float(divide(self.both, self.given)),
            "recall": float(divide(self.both, self.gold)),
            "f1": float(divide(2 * self.both, self.given + self.gold)),
            "hit_rate": float(divide(self.hits, self.pairs)),
            "words": float(divide(self.given, self.pairs)),
            "gold_words": float(divide(self.gold, self.pairs)),
            "chance": float(divide(self.by_chance, self.given)),
        }


def words_in(spans: Iterable[Sequence[int]], words: list[tuple[int, int]]) -> np.ndarray:
    """Which of a note's words, `(start, end)` each, share a character with one of the spans: bool `(words,)`."""
    starts, ends = np.array(words).reshape(-1, 2).T
    inside = np.zeros(len(words), bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    return inside


@torch.no_grad()
def judge_evidence(model, tokenizer, notes: list[str], gold: list[dict], num_spans=NUM_SPANS) -> list[dict]:
    """Figures of [`EvidenceCounts`] for the `k` heaviest spans of a code, for each `k`.

    Args:
        gold (`list[dict[str, list[list[int]]]]`): code to spans, for each note; codes that the model lacks are left out.

    Returns:
        Rows with `codes` (`"gold"`, or `"found"`: of these the ones that the model predicts) and `num_spans`.

    Raises:
        ValueError: where the head does not attend.
    """
    label2id = model.config.label2id
    counts = {(codes, k): EvidenceCounts() for codes in ("gold", "found") for k in num_spans}
    for note, marked in zip(tqdm(notes, desc="Reading", unit="note"), gold, strict=True):
        marked = {code: spans for code, spans in marked.items() if code in label2id}
        if not marked or not note.strip():
            continue
        encoded = encode_note(tokenizer, note)
        inputs = {
            name: tensor.to(model.device) for name, tensor in padded_inputs([encoded["input_ids"].long()]).items()
        }
        output = model(**inputs, output_label_attentions=True)
        check_logits(output.logits.float().cpu().numpy())
        if output.label_attentions is None:
            raise ValueError(
                f"A head with `{model.config.head_field}` {model.config.head!r} does not say what it read a code from."
            )
        found = set(predicted_codes(calibrated_scores(output.logits[0], model.config.calibration), model.config))
        weights = output.label_attentions[0, [label2id[code] for code in marked]].float().cpu()
        all_ranked = evidence_spans(note, encoded["offsets"], weights, max(num_spans))
        for (code, spans), ranked in zip(marked.items(), all_ranked, strict=True):
            for k in num_spans:
                given = [(span["start"], span["end"]) for span in ranked[:k]]
                for codes in ("gold", "found") if label2id[code] in found else ("gold",):
                    counts[codes, k].add(note, given, spans)
    return [{"codes": codes, "num_spans": k, **count.compute()} for (codes, k), count in counts.items()]


def print_evidence(rows: list[dict], title: str) -> None:
    """Prints the figures."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))  # narrow enough for 80 columns
    table.add_column("codes")
    for column in rows[0]:
        if column != "codes":
            table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("evidence", __doc__)
    parser.add_argument("model", help="a model folder or Hub id")
    parser.add_argument(
        "--dataset", required=True, choices=[name for name, facts in FACTS.items() if facts.marks_evidence]
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--dataset_config", help="default: the configuration that the model was trained on")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--num_spans", type=int, nargs="+", default=NUM_SPANS, help="numbers of spans of each code to evaluate"
    )
    parser.add_argument(
        "--cache_dir", "--data_cache_dir", help="where the built data set goes; default: MODEL-private/cache"
    )
    add_reader_options(parser)
    parser.add_argument("--output_file", type=Path, help="JSON file to write the figures to; it holds no text")
    parser.add_argument("--trust_remote_code", action="store_true")
    args = parser.parse_args(arguments)
    return run_command(lambda: report(args), DatasetsError)


def report(args: argparse.Namespace) -> int:
    """Judges, prints, and writes the figures."""
    model, tokenizer = load_model(args.model, args.trust_remote_code, reader_arguments(args))
    cache_dir = args.cache_dir or private_cache(args.model)
    builder = builder_for(
        model.config, args.dataset, args.data_dir, args.split, args.dataset_config, cache_dir=cache_dir
    )
    records = builder.as_dataset(split=args.split)
    gold = gold_evidence(records, args.data_dir)
    rows = judge_evidence(model, tokenizer, list(records["text"]), gold, tuple(args.num_spans))
    print_evidence(rows, f"Evidence: {args.dataset} ({builder.config.name}), {args.split}, {len(records)} notes")
    if args.output_file is not None:
        write_json(rows, args.output_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
