"""Tokenizes notes, never truncating them; a note without text gets no token."""

from collections.abc import Sequence

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase


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


def tokenize_split(
    split: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, label2id: dict[str, int]
) -> datasets.Dataset:
    """Notes as `input_ids` (see `tokenize_notes`), `label_ids` and `length`; codes outside the vocabulary are left out."""
    label_of = [label2id.get(name) for name in split.features["codes"].feature.names]

    def tokenize(batch):
        input_ids = tokenize_notes(tokenizer, batch["text"])
        labels = [[label_of[c] for c in codes if label_of[c] is not None] for codes in batch["codes"]]
        return {"input_ids": input_ids, "label_ids": labels, "length": [len(ids) for ids in input_ids]}

    # In memory: what `map` caches is the note again, and nothing of it should outlive the run.
    return split.map(tokenize, batched=True, remove_columns=split.column_names, keep_in_memory=True, desc="Tokenizing")
