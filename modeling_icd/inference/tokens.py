"""Tokenizes notes, never truncating them; a note without text gets no token."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from dataset_scripts.codes.systems import split_codes


NOTES_AT_A_TIME = 1000


def empty_notes(notes: Sequence[str]) -> np.ndarray:
    """Which notes have no text or only white space, `(N,)` bool."""
    return np.array([not note.strip() for note in notes], bool)


def tokenize_notes(tokenizer: PreTrainedTokenizerBase, notes: Sequence[str]) -> list[list[int]]:
    """The `input_ids` of each note, of any length; those of an empty note (see `empty_notes`) are an empty list.

    A note with text also gets an empty list if the tokenizer, being that of another model, has no token for it; callers
    report how many there are.
    """
    input_ids: list[list[int]] = []
    for start in range(0, len(notes), NOTES_AT_A_TIME):
        input_ids += tokenizer(list(notes[start : start + NOTES_AT_A_TIME]), verbose=False)["input_ids"]
    return [[] if is_empty else ids for is_empty, ids in zip(empty_notes(notes), input_ids, strict=True)]


def is_raw(notes: Any) -> bool:
    """Whether this is a data set of notes that no tokenizer has read, so that it has no column `input_ids`.

    Raises:
        ValueError: where it is one of `text` that is streamed, or several splits of one: neither can be tokenized as a whole.
    """
    if isinstance(notes, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise ValueError(
            f"These are the splits {', '.join(notes)} of a data set: give one, e.g. `notes[{next(iter(notes))!r}]`."
        )
    columns = getattr(notes, "column_names", None) or ()
    if isinstance(notes, datasets.IterableDataset) and "text" in columns and "input_ids" not in columns:
        raise ValueError(
            "These notes are streamed, and their codes can be counted, and their tokens grouped by length, only where all of "
            "them are there: give a `datasets.Dataset`, e.g. `load_split(..., streaming=False)`."
        )
    return isinstance(notes, datasets.Dataset) and not {"input_ids", "inputs_embeds", "hidden_states"} & set(columns)


def code_reader(notes: datasets.Dataset) -> Callable[[Any], list[str]]:
    """What turns the `codes` of one note of this data set into code strings, each once; a note without any has none.

    Args:
        notes (`datasets.Dataset`): with a column `text`, and `codes`: lists of code strings, or of ids of a `ClassLabel`; or
            texts such as `"401.9;428.0"`, divided as [`~dataset_scripts.codes.systems.split_codes`] does.

    Raises:
        ValueError: where a column is missing, or is of another type; the message names the column. Where these are several
            splits, or notes that are streamed.
    """
    is_raw(notes)  # raises
    features = notes.features
    missing = [name for name in ("text", "codes") if name not in features]
    if missing:
        raise ValueError(
            f"The notes have no column {' and '.join(map(repr, missing))}, only {', '.join(features) or 'none at all'}: rename "
            'those that are meant, e.g. `notes.rename_columns({"note": "text", "icd": "codes"})`.'
        )
    if not _is_text(features["text"]):
        raise ValueError("The column `text` of the notes must hold texts: give each note as one string.")
    of_note = features["codes"]
    one = getattr(of_note, "feature", None)
    if isinstance(one, datasets.ClassLabel):
        names = one.names
        return lambda codes: list(dict.fromkeys(names[code] for code in codes or ()))
    if _is_text(of_note):
        return lambda codes: list(dict.fromkeys(split_codes(codes or "")))
    if one is None or not _is_text(one):
        raise ValueError(
            "The column `codes` must hold for each note a list of code strings, such as ['401.9', '428.0'], or a text that lists "
            'them. Read codes as text and never as numbers, which would make 250.0 of 250.00: `load_split("files", ...)` does.'
        )
    return lambda codes: list(dict.fromkeys(code.strip() for code in codes or () if code and code.strip()))


def _is_text(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string", "string_view")


def codes_of_notes(notes: datasets.Dataset) -> list[list[str]]:
    """The code strings of every note; see [`code_reader`]."""
    read = code_reader(notes)
    return [read(codes) for codes in notes.with_format(None)["codes"]]


def texts_of_notes(notes: datasets.Dataset) -> list[str]:
    """The text of every note; where it is null, an empty one."""
    return [text or "" for text in notes.with_format(None)["text"]]


def tokenize_split(
    split: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, label2id: dict[str, int]
) -> datasets.Dataset:
    """Notes as `input_ids` (see `tokenize_notes`), `label_ids` and `length`; codes outside the vocabulary are left out.

    The notes have `text` and `codes`, as strings or as ids; see [`code_reader`], also on what is raised.
    """
    read = code_reader(split)

    def tokenize(batch):
        input_ids = tokenize_notes(tokenizer, [text or "" for text in batch["text"]])
        labels = [[label2id[code] for code in read(codes) if code in label2id] for codes in batch["codes"]]
        return {"input_ids": input_ids, "label_ids": labels, "length": [len(ids) for ids in input_ids]}

    # In memory: what `map` caches is the note again, and nothing of it should outlive the run.
    return split.with_format(None).map(
        tokenize, batched=True, remove_columns=split.column_names, keep_in_memory=True, desc="Tokenizing"
    )
