"""Prepares the notes of a training run: builds the data set, collects its codes, tokenizes the notes."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from dataset_scripts import ICDBuilder, load_builder, parse_options
from dataset_scripts.arguments import PATH_OPTIONS
from dataset_scripts.builders.public_files import is_invented, is_public
from dataset_scripts.evidence import NoEvidenceError, gold_evidence
from dataset_scripts.files import make_folder
from dataset_scripts.licenses import OPEN_LICENSES

from ..evaluation.scoring import gold_columns
from ..inference.tokens import codes_of_notes, tokenize_split
from ..sharing_icd import claimed_access
from .arguments import DataArguments, ModelArguments


def build_dataset(data_args: DataArguments, default_cache: Path) -> ICDBuilder:
    """The data set, built unless it is in the cache. The cache holds the notes, so only its owner may read it."""
    cache = make_folder(data_args.data_cache_dir or default_cache, private=True)
    options = parse_options(data_args.dataset, data_args.all_options(), "--dataset_options")
    umask = os.umask(0o077)
    try:
        return load_builder(
            data_args.dataset,
            data_args.dataset_config,
            data_dir=data_args.data_dir or None,
            cache_dir=cache,
            **options,
        )
    finally:
        os.umask(umask)


def code_vocabulary(*splits: datasets.Dataset) -> list[str]:
    """The codes that occur in the training splits: in the order of the data set's classes, or sorted where codes are strings."""
    return list(count_codes(*splits))


def count_codes(*splits: datasets.Dataset) -> dict[str, int]:
    """How many notes of these splits have each code, so that evaluation can tell frequent codes from rare ones.

    The order is that of [`code_vocabulary`]; [`~modeling_icd.inference.tokens.code_reader`] says which data sets it takes, and
    what is raised.
    """
    counts = Counter(code for split in splits for codes in codes_of_notes(split) for code in codes)
    classes = getattr(splits[0].features["codes"], "feature", None)
    names = classes.names if isinstance(classes, datasets.ClassLabel) else sorted(counts)
    return {name: counts[name] for name in names if counts[name]}


def describe_training_data(
    data_args: DataArguments, builder: ICDBuilder, splits: Sequence[datasets.Dataset]
) -> dict[str, Any]:
    """The record of what a model is trained on, as its configuration keeps it.

    Args:
        splits (`Sequence[datasets.Dataset]`): the splits to learn from; `code_counts` counts their codes, in the order
            of the model's codes.
    """
    return {
        "dataset": data_args.dataset,
        "config": builder.config.name,
        # Evaluation reads its notes in the same way. A path is of this machine alone.
        "options": [pair for pair in data_args.all_options() if not pair.partition("=")[0].endswith(PATH_OPTIONS)],
        "synthetic": is_invented(builder),
        **({} if data_args.data_license is None else {"license": data_args.data_license}),
        "open": is_public(builder) or data_args.data_license in OPEN_LICENSES,
        "code_counts": count_codes(*splits),
    }


def say_who_may_have(data_args: DataArguments, training_data: Mapping[str, Any]) -> None:
    """Print one line on what the license of the user's own notes, or that none was named, means for the model.

    Args:
        training_data (`dict`): the record of what the model learns from, with what the models that it is made of learned from.
    """
    if data_args.dataset != "files":
        return
    if data_args.data_license in OPEN_LICENSES:
        name = OPEN_LICENSES[data_args.data_license].name
        if claimed_access(training_data) == "restricted":
            print(
                f"The notes are under {name}, as you state with `data_license`, but a model that this one is made of learned from notes that "
                "are restricted or unknown: it will count as one of restricted data, which is published without its weights."
            )
            return
        print(f"The notes are under {name}, as you state with `data_license`: anyone may have them, and so the model.")
        return
    why = "no `data_license` was named"
    if data_args.data_license is not None:
        why = f"`data_license` {data_args.data_license} is not known to let anyone have and use them"
    print(f"The model will count as one of restricted data, which is published without its weights: {why}.")


class TokenizedNotes(NamedTuple):
    """The notes of a split that a model can read, and the codes of those that it cannot.

    Args:
        tokens (`datasets.Dataset`): see `tokenize_split`; every note has a token.
        num_unknown (`list[int]`): codes of each note that the model does not know.
        empty_gold (`list[list[int]]`): codes of each note without a token, which are not in `tokens`.
        rows (`np.ndarray`): which notes of the split `tokens` holds.
        num_columns (`int`):
            Codes of the model and of the split together, where `tokens` has a column `unknown_ids`; see [`evaluation_notes`].
    """

    tokens: datasets.Dataset
    num_unknown: list[int]
    empty_gold: list[list[int]]
    rows: np.ndarray
    num_columns: int = 0


def readable_notes(
    split: datasets.Dataset,
    tokenizer,
    label2id: dict[str, int],
    name: str,
    evidence: list[dict[str, list[list[int]]]] | None = None,
) -> TokenizedNotes:
    """Tokenize a split, and separate the notes without any token, which no model can read.

    Args:
        evidence (`list[dict]`, *optional*): code to spans of characters, for each note: makes a column `evidence`, see
            [`evidence_tokens`].

    Raises:
        ValueError: where no note has one; names the split.
    """
    tokens = tokenize_split(split, tokenizer, label2id)
    if evidence is not None:
        tokens = tokens.add_column("evidence", evidence_tokens(tokenizer, split["text"], evidence, label2id))
    is_empty = np.asarray(tokens["length"]) == 0
    if is_empty.all():
        raise ValueError(
            f"No {name} note has text: is this the right column, and the right file? `modeling-icd describe` says what a data "
            "set of this project holds."
        )
    rows = np.flatnonzero(~is_empty)
    readable = tokens.select(rows) if is_empty.any() else tokens
    codes = codes_of_notes(split.select(rows))
    num_unknown = [len(of_note) - len(known) for of_note, known in zip(codes, readable["label_ids"], strict=True)]
    return TokenizedNotes(readable, num_unknown, list(tokens.select(np.flatnonzero(is_empty))["label_ids"]), rows)


def evaluation_notes(split: datasets.Dataset, tokenizer, label2id: dict[str, int], name: str) -> TokenizedNotes:
    """Tokenize a split to evaluate on, where no gold code is lost: a code that the model does not know is a missed one.

    Such codes get class ids behind the model's own. Those of a note are in the column `unknown_ids` of `tokens`, and those of
    a note without a token among its `empty_gold`.

    Raises:
        ValueError: where no note has a token; names the split.
    """
    notes = readable_notes(split, tokenizer, label2id, name)
    gold, unknown = gold_columns(split, label2id)
    unread = np.setdiff1d(np.arange(len(split)), notes.rows)
    unknown_ids = [[code for code in gold[row] if code >= len(label2id)] for row in notes.rows]
    feature = datasets.List(datasets.Value("int64"))
    return notes._replace(
        tokens=notes.tokens.add_column("unknown_ids", unknown_ids, feature=feature),
        empty_gold=[gold[row] for row in unread],
        num_columns=len(label2id) + len(unknown),
    )


def notes_per_code(label_ids: Iterable[Sequence[int]], num_labels: int) -> np.ndarray:
    """How many notes have each code, `(C,)`."""
    return np.bincount(np.fromiter(chain.from_iterable(label_ids), int), minlength=num_labels)


def marked_evidence(
    splits: dict[str, datasets.Dataset], model_args: ModelArguments, data_args: DataArguments
) -> dict[str, list[dict[str, list[list[int]]]]]:
    """Of each split the spans of characters by code, for each note; empty unless the model is to learn from marked evidence,
    or to be started from it and the data set has it.

    Raises:
        ValueError: where it is to learn from evidence, and the data set marks none.
    """
    starts = model_args.head_start == "notes" and model_args.start_evidence
    if not starts and not model_args.evidence_weight:
        return {}
    try:
        return {name: gold_evidence(split, data_args.data_dir) for name, split in splits.items()}
    except NoEvidenceError:
        if model_args.evidence_weight:
            raise
        return {}


def evidence_tokens(
    tokenizer, texts: Iterable[str], evidence: Iterable[dict[str, list[list[int]]]], label2id: dict[str, int]
) -> list[list[list[int]]]:
    """For each note the pairs `[code, token]` of a code that the model knows and a token that justifies it.

    Args:
        evidence: code to spans of characters, for each note; see `gold_evidence`.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            "The tokenizer cannot say which characters its tokens stand for, so marked evidence cannot be used: take a fast one, "
            "or `--start_evidence false` and no `evidence_weight`."
        )
    pairs = []
    for text, marked in zip(texts, evidence, strict=True):
        offsets = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        starts, ends = np.array(offsets).reshape(-1, 2).T
        of_note = set()
        for code, spans in marked.items():
            for start, end in spans if code in label2id else ():
                inside = np.flatnonzero((starts < end) & (ends > start) & (ends > starts))
                of_note |= {(label2id[code], int(token)) for token in inside}
        pairs.append([list(pair) for pair in sorted(of_note)])
    return pairs


def warn_of_empty_notes(num_train: int, num_validation: int) -> None:
    """Log a warning with the number of notes that no model can read."""
    if num_train:
        warn(f"{num_train} training notes have no text: they are left out.")
    if num_validation:
        warn(
            f"{num_validation} validation notes have no text: no code is predicted for them, so each of theirs "
            "counts as missed; thresholds are fitted on the other notes."
        )


def warn(message: str) -> None:
    """Print one line of warning, where a user sees it beside progress bars."""
    print(f"warning: {message}", file=sys.stderr)
