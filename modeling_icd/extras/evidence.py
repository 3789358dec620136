"""Measures evidence against the words that an annotator marked, for several methods side by side.

    modeling-icd evidence runs/mine --dataset codiesp --data_dir DIR --split test --methods attention attingrad

The spans and the weights of words that a method of `pipeline("icd-coding")` gives for a code are compared with the gold
spans that an annotator, or the synthetic corpus, marked for it. Data sets with gold spans: `codiesp` in Spanish, the
synthetic corpora, and `mimic3` with `--dataset_options evidence=MDACE`. Of a model that looks words up `union` is what the
pipeline gives, `term`, `title` and `attention` its parts. The yardstick `titles` takes the words of a code's title.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from tqdm.auto import tqdm

from dataset_scripts.arguments import command_parser
from dataset_scripts.builders.public_files import is_invented
from dataset_scripts.command import run_command
from dataset_scripts.evidence import gold_evidence
from dataset_scripts.facts import FACTS
from dataset_scripts.files import write_json

from ..decision_icd import calibrated_scores, predicted_codes
from ..evaluation.icd_metrics.metrics import divide
from ..evaluation.intervals import LEVEL, NUM_RESAMPLES
from ..evaluation.model_data import builder_for, private_cache
from ..evidence_icd import (
    EVIDENCE_METHODS,
    join_words,
    spans_by_source,
    token_weights,
    weights_by_source,
    word_weights,
)
from ..heads import find_head, members_of
from ..inference.batches import padded_inputs
from ..inference.learned_notes import check_overlap
from ..inference.loading import add_reader_options, load_model, reader_arguments
from ..inference.loop import check_logits
from ..pipeline_icd import encode_note


NUM_SPANS = (1, 3, 5, 10)
GOLD_WORDS_PER_BLOCK = 4096  # bounds the memory that the intervals take
TITLES = "titles"
UNION, SOURCES = "union", ("term", "title")
METHODS = (*EVIDENCE_METHODS, UNION, *SOURCES, TITLES)


class EvidenceCounts:
    """Words of given spans against words of gold spans, of pairs of a note and one of its codes.

    A word is a run of characters that are not white space; it is in a span when they share a character. Precision,
    recall and F1 are of words, micro over all pairs, after the token-level figures of explainable-medical-coding (arXiv
    2406.08958). A pair is a hit when a word is in both. `chance` is the precision to expect of words drawn at random:
    the share of the notes' words that are gold, the notes weighed by how many words were given.
    """

    def __init__(self) -> None:
        self.rows: list[
            tuple[float, ...]
        ] = []  # of each pair: words given, gold, in both; given words that chance finds

    def add(self, note: str, given: Iterable[Sequence[int]], gold: Iterable[Sequence[int]]) -> None:
        """Counts one code of one note, its spans being `(start, end)` characters."""
        words = [match.span() for match in re.finditer(r"\S+", note)]
        is_given, is_gold = (words_in(spans, words) for spans in (given, gold))
        both = (is_given & is_gold).sum()
        self.rows.append((is_given.sum(), is_gold.sum(), both, is_given.sum() * is_gold.mean()))

    def compute(self) -> dict[str, float]:
        """The figures; `words` and `gold_words` are means over the pairs. Where nothing was counted, 0."""
        rows = np.array(self.rows, float).reshape(-1, 4)
        given, gold, both, by_chance = rows.sum(axis=0)
        return {
            "pairs": len(rows),
            "precision": float(divide(both, given)),
            "recall": float(divide(both, gold)),
            "f1": float(divide(2 * both, given + gold)),
            "hit_rate": float(divide((rows[:, 2] > 0).sum(), len(rows))),
            "words": float(divide(given, len(rows))),
            "gold_words": float(divide(gold, len(rows))),
            "chance": float(divide(by_chance, given)),
        }


class MethodEvidence:
    """What one method gave for pairs of a note and one of its codes: the heaviest `k` spans, for each `k`, and the order of
    the words by weight.

    Its second figure is the area under the precision-recall curve (AUPRC) of all words of all pairs, after
    explainable-medical-coding: a pair's weights are divided by their sum, and one threshold is moved over all of them. The
    area is the average precision of every threshold that occurs, where that project takes 101 thresholds and trapezoids.
    """

    def __init__(self, num_spans: Sequence[int]):
        self.counts = {k: EvidenceCounts() for k in num_spans}
        self.notes: list[int] = []  # of each pair, rising
        self.weights: list[np.ndarray] = []  # (words,) of each pair
        self.is_gold: list[np.ndarray] = []

    def add(
        self, number: int, note: str, words: list[tuple[int, int]], weights: torch.Tensor, gold, ranked=None
    ) -> None:
        """Counts one code of the note `number`: `weights` `(words,)`, and its gold spans, `(start, end)` each. `ranked` are the spans
        that were given, by default those of the heaviest words."""
        ranked = join_words(note, words, weights, max(self.counts)) if ranked is None else ranked
        for k, counts in self.counts.items():
            counts.add(note, [(span["start"], span["end"]) for span in ranked[:k]], gold)
        self.notes.append(number)
        self.weights.append((weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)).numpy())
        self.is_gold.append(words_in(gold, words))

    def auprc(self, copies: np.ndarray) -> np.ndarray:
        """Average precision where note i counts `copies[:, i]` times; `copies` `(R, N)`, the result `(R,)`."""
        numbers = np.repeat(self.notes, [len(weights) for weights in self.weights])
        weights, is_gold = np.concatenate(self.weights), np.concatenate(self.is_gold)
        thresholds, gold_notes = weights[is_gold], numbers[is_gold]  # of every gold word
        notes = np.unique(numbers)
        of_words, of_gold = (
            [np.sort(part) for part in np.split(values, owners.searchsorted(notes[1:]))]
            for values, owners in ((weights, numbers), (thresholds, gold_notes))
        )
        drawn, total = copies[:, notes].astype(np.float32), np.zeros(len(copies))
        for start in range(0, len(thresholds), GOLD_WORDS_PER_BLOCK):
            block = slice(start, start + GOLD_WORDS_PER_BLOCK)
            # How many words of each note, and how many gold ones, weigh as much as a gold word or more.
            above, gold_above = (
                np.array([len(part) - part.searchsorted(thresholds[block]) for part in parts], np.float32)
                for parts in (of_words, of_gold)
            )
            total += (copies[:, gold_notes[block]] * divide(drawn @ gold_above, drawn @ above)).sum(axis=1)
        return total / (copies @ np.bincount(gold_notes, minlength=copies.shape[1])).clip(min=1)

    def f1(self, copies: np.ndarray, k: int) -> np.ndarray:
        """F1 of the `k` heaviest spans, as [`auprc`] takes its notes."""
        rows = np.array(self.counts[k].rows)
        given, gold, both = (np.bincount(self.notes, column, copies.shape[1]) for column in rows.T[:3])
        return divide(copies @ (2 * both), copies @ (given + gold))

    def figures(self, num_notes: int, first: "MethodEvidence") -> list[dict[str, Any]]:
        """A row of figures for each `k`. A difference is from the method `first` on the same pairs: `[difference, low, high]`,
        a 95 % interval from resamples of the notes; `None` for that method itself, and where there are no pairs."""
        whole = np.ones((1, num_notes))
        draws = np.random.default_rng(0).multinomial(num_notes, [1 / num_notes] * num_notes, NUM_RESAMPLES)

        def compare(figure: Callable[["MethodEvidence", np.ndarray], np.ndarray]) -> list[float] | None:
            if self is first or not self.notes:
                return None
            spread = figure(self, draws) - figure(first, draws)
            bounds = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            return [float(x) for x in (*(figure(self, whole) - figure(first, whole)), *bounds)]

        auprc = float(self.auprc(whole)[0]) if self.notes else 0.0
        auprc_difference = compare(MethodEvidence.auprc)
        return [
            {
                "num_spans": k,
                **counts.compute(),
                "auprc": auprc,
                "f1_difference": compare(partial(MethodEvidence.f1, k=k)),
                "auprc_difference": auprc_difference,
            }
            for k, counts in self.counts.items()
        ]


def words_in(spans: Iterable[Sequence[int]], words: list[tuple[int, int]]) -> np.ndarray:
    """Which of a note's words, `(start, end)` each, share a character with one of the spans: bool `(words,)`."""
    starts, ends = np.array(words).reshape(-1, 2).T
    inside = np.zeros(len(words), bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    return inside


def match_titles(note: str, titles: Sequence[str | None]) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """The words of a note, and for each title `(titles, words)` a 1 where the word is in the title, too, else 0.

    Case and marks around a word do not count; English stop words are left out. A code without a title has no match.
    """
    words = [match.span() for match in re.finditer(r"\S+", note)]
    plain = [set(re.findall(r"\w+", note[start:end].casefold())) for start, end in words]
    known = [set(re.findall(r"\w+", (title or "").casefold())) - ENGLISH_STOP_WORDS for title in titles]
    found = [[float(bool(word & of_title)) for word in plain] for of_title in known]
    return words, torch.tensor(found, dtype=torch.double).reshape(len(titles), len(words))


def methods_of(model) -> list[str]:
    """The methods that a model allows, by its head and its code titles."""
    config = model.config
    head: Any = members_of(model.score)[0]
    if config.head == "last":
        raise ValueError(
            f"A head with `{config.head_field}` 'last' does not say what it read a code from: it reads the last token alone."
        )
    if hasattr(head, "weights_by_source"):
        sources = list(_sources_of(head))
        methods = [UNION, *sources] if len(sources) > 1 else sources
    else:
        methods = [name for name in EVIDENCE_METHODS if find_head(config.head).attends or "att" not in name]
    return [*methods, *([TITLES] if config.code_descriptions else [])]


def _sources_of(head: Any) -> tuple[str, ...]:
    """What the evidence of a head that looks words up can come from.

    Raises:
        ValueError: where nothing it has gives any.
    """
    if not head.evidence_sources:
        raise ValueError(
            "This model codes a note by notes like it or by linear scores of its words alone: neither has evidence for a code."
        )
    return head.evidence_sources


@torch.no_grad()
def judge_evidence(
    model,
    tokenizer,
    notes: list[str],
    gold: Sequence[Mapping[str, Sequence[Sequence[int]]]],
    num_spans: Sequence[int] = NUM_SPANS,
    methods: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Figures of every method, of [`EvidenceCounts`] for the `k` heaviest spans of a code, for each `k`, and the AUPRC of
    [`MethodEvidence`]. The model reads every note once.

    Args:
        gold (`list[dict[str, list[list[int]]]]`): code to spans, for each note; codes that the model lacks are left out.
        methods (`Sequence[str]`, *optional*): of `METHODS`; by default those that the model allows. The others are compared
            with the first.

    Returns:
        Rows with `codes` (`"gold"`, or `"found"`: of these the ones that the model predicts), `method` and `num_spans`.
        `ms_per_code` is what the method took beside reading the note. But for the rows of the first method there are
        `f1_difference` and `auprc_difference`, `[difference, low, high]`.

    Raises:
        ValueError: where the head does not allow a method.
    """
    label2id, titles = model.config.label2id, model.config.code_descriptions or {}
    methods = list(dict.fromkeys(methods or methods_of(model)))
    seconds = dict.fromkeys(methods, 0.0)
    judged = {(codes, name): MethodEvidence(num_spans) for codes in ("gold", "found") for name in methods}
    for number, (note, spans) in enumerate(zip(tqdm(notes, desc="Reading", unit="note"), gold, strict=True)):
        marked = {code: of_code for code, of_code in spans.items() if code in label2id}
        if not marked or not note.strip():
            continue
        offsets, states, found = read_note(model, tokenizer, note)
        class_ids = [label2id[code] for code in marked]
        for name in methods:
            started = time.perf_counter()
            given: list[Any] = [None] * len(class_ids)
            if name == TITLES:
                words, weights = match_titles(note, [titles.get(code) for code in marked])
            else:
                of_tokens, by_source = weights_of_method(model.score, states, class_ids, name)
                words, weights = word_weights(note, offsets, of_tokens.cpu())
                if by_source is not None:
                    given = spans_by_source(note, offsets, by_source, max(num_spans))
            seconds[name] += time.perf_counter() - started
            for (code, of_code), own, ranked in zip(marked.items(), weights, given, strict=True):
                for codes in ("gold", "found") if label2id[code] in found else ("gold",):
                    judged[codes, name].add(number, note, words, own, of_code, ranked)
    return [
        {
            "codes": codes,
            "method": name,
            **row,
            "ms_per_code": 1000 * seconds[name] / max(1, len(judged["gold", name].notes)),
        }
        for (codes, name), method in judged.items()
        for row in method.figures(len(notes), judged[codes, methods[0]])
    ]


def weights_of_method(
    head, states: torch.Tensor, class_ids: list[int], name: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
    """The weights of tokens `(codes, L)` by a method of a model, and of `union`, whose spans are those of several sources, also by
    source."""
    first: Any = members_of(head)[0]
    if not hasattr(first, "weights_by_source"):
        weights = token_weights(head, states, class_ids, name)
        assert weights is not None  # since a method is given
        return weights, None
    sources = _sources_of(first)
    if name not in (UNION, *sources) and (name not in first.evidence_methods or len(sources) > 1):
        raise ValueError(
            f"This model finds evidence by {', '.join(sources)}, not by {name}: choose these, or {UNION}."
        )
    by_source = weights_by_source(head, states, class_ids)
    assert by_source is not None  # such a head always knows some
    if name == UNION:
        mean = token_weights(head, states, class_ids)
        assert mean is not None
        return mean, by_source
    return by_source.get(name, by_source[sources[0]]), None


def read_note(model, tokenizer, note: str) -> tuple[torch.Tensor, torch.Tensor, set[int]]:
    """Offsets of a note's tokens `(L, 2)`, the hidden states that the head reads `(L, D)`, and the codes that it predicts."""
    encoded = encode_note(tokenizer, note)
    inputs = {name: tensor.to(model.device) for name, tensor in padded_inputs([encoded["input_ids"].long()]).items()}
    output = model(**inputs, output_hidden_states=True)
    check_logits(output.logits.float().cpu().numpy())
    found = predicted_codes(calibrated_scores(output.logits[0], model.config.calibration).cpu(), model.config)
    return encoded["offsets"], output.hidden_states[0], set(found)


def print_evidence(rows: list[dict[str, Any]], title: str) -> None:
    """Prints the figures and their differences, within 80 columns: for all gold codes, and for those of them that the model
    predicts."""
    figures = ("method", "num_spans", "precision", "recall", "f1", "hit_rate", "auprc", "ms_per_code")
    for codes, which in (("gold", "all gold codes"), ("found", "gold codes that the model predicts")):
        chosen = [row for row in rows if row["codes"] == codes]
        first = chosen[0]
        pairs = f"{which}: {first['pairs']} pairs of note and code"
        pairs += f"\n{first['gold_words']:.1f} gold words a pair; by chance a word is right in {first['chance']:.1%}"
        print_table(f"{title}\n{pairs}", figures, [[shown(row[name], name) for name in figures] for row in chosen])
        compared = [row for row in chosen if row["auprc_difference"] is not None]
        differences = [
            [
                row["method"],
                str(row["num_spans"]),
                *(difference(row[f"{name}_difference"]) for name in ("f1", "auprc")),
            ]
            for row in compared
        ]
        if differences:
            caption = f"less {first['method']}, with the {LEVEL:.0%} interval over notes"
            print_table(caption, ("method", "num_spans", "f1", "auprc"), differences)


def print_table(title: str, columns: Sequence[str], rows: list[list[str]]) -> None:
    """Prints a table whose first column is of words."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Any = "left" if column == "method" else "right"
        table.add_column(column.replace("ms_per", "ms a").replace("_", "\n"), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def shown(value: Any, name: str) -> str:
    """A figure as it is printed; times have few digits, since they vary from run to run."""
    if isinstance(value, float):
        return f"{value:.3g}" if name == "ms_per_code" else f"{value:.3f}"
    return str(value)


def difference(bounds: Sequence[float]) -> str:
    """A difference and its interval as they are printed."""
    value, low, high = bounds
    return f"{value:+.3f} ({low:+.3f}, {high:+.3f})"


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("evidence", __doc__)
    parser.add_argument("model", help="a model folder or Hub id")
    parser.add_argument(
        "--dataset", required=True, choices=[name for name, facts in FACTS.items() if facts.marks_evidence]
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--dataset_config", help="default: the configuration that the model was trained on")
    parser.add_argument("--dataset_options", nargs="+", default=[], metavar="NAME=VALUE", help="of the configuration")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; the others are compared with the first; default: those that the model allows",
    )
    parser.add_argument(
        "--num_spans", type=int, nargs="+", default=NUM_SPANS, help="numbers of spans of each code to evaluate"
    )
    parser.add_argument(
        "--cache_dir", "--data_cache_dir", help="where the built data set goes; default: MODEL-private/cache"
    )
    add_reader_options(parser)
    parser.add_argument("--output_file", type=Path, help="JSON file to write the figures to; it holds no text")
    parser.add_argument(
        "--allow_overlap",
        action="store_true",
        help="also of admissions that the model learned from",
    )
    parser.add_argument("--trust_remote_code", action="store_true")
    args = parser.parse_args(arguments)
    return run_command(lambda: report(args), DatasetsError)


def report(args: argparse.Namespace) -> int:
    """Judges, prints, and writes the figures."""
    model, tokenizer = load_model(args.model, args.trust_remote_code, reader_arguments(args))
    cache_dir = args.cache_dir or private_cache(args.model)
    builder = builder_for(
        model.config, args.dataset, args.data_dir, args.split, args.dataset_config, args.dataset_options, cache_dir
    )
    records = builder.as_dataset(split=args.split)
    check_overlap(
        args.model,
        records,
        args.dataset,
        builder.config.name,
        args.split,
        is_synthetic=is_invented(builder),
        allow=args.allow_overlap,
    )
    gold = gold_evidence(records, args.data_dir, list(model.config.label2id))
    rows = judge_evidence(model, tokenizer, list(records["text"]), gold, tuple(args.num_spans), args.methods)
    print_evidence(rows, f"Evidence: {args.dataset} ({builder.config.name}), {args.split}, {len(records)} notes")
    if args.output_file is not None:
        write_json(rows, args.output_file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
