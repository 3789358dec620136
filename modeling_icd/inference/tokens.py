"""From a data set's splits to the code vocabulary, and to tokens and labels."""

from collections import Counter
from typing import NamedTuple

import datasets
import numpy as np


def code_vocabulary(*splits: datasets.Dataset) -> list[str]:
    """The codes of the splits that are trained on, in the order of the data set's own classes."""
    names = splits[0].features["codes"].feature.names
    seen = {code for split in splits for codes in split["codes"] for code in codes}
    return [name for i, name in enumerate(names) if i in seen]


def count_codes(*splits: datasets.Dataset) -> dict[str, int]:
    """How many notes of these splits have each code, so that evaluation can tell frequent codes from rare ones."""
    names = splits[0].features["codes"].feature.names
    counts = Counter(code for split in splits for codes in split["codes"] for code in codes)
    return {names[i]: counts[i] for i in sorted(counts)}


def tokenize_split(split: datasets.Dataset, tokenizer, label2id: dict[str, int]) -> datasets.Dataset:
    """Notes as `input_ids` (whole, never truncated), `label_ids` and `length`; codes outside the vocabulary are left out."""
    names = split.features["codes"].feature.names
    label_of = [label2id.get(name) for name in names]

    def tokenize(batch):
        input_ids = tokenizer(batch["text"], verbose=False)["input_ids"]
        labels = [[label_of[c] for c in codes if label_of[c] is not None] for codes in batch["codes"]]
        return {"input_ids": input_ids, "label_ids": labels, "length": [len(ids) for ids in input_ids]}

    # In memory: what `map` caches is the note again, and nothing of it should outlive the run.
    return split.map(tokenize, batched=True, remove_columns=split.column_names, keep_in_memory=True, desc="Tokenizing")


class TokenizedNotes(NamedTuple):
    """The notes of a split that a model can read, and the codes of those that it cannot.

    Args:
        tokens (`datasets.Dataset`): see [`tokenize_split`]; every note has a token.
        num_unknown (`list[int]`): codes of each note that the model does not know.
        empty_gold (`list[list[int]]`): codes of each note without a token, which are not in `tokens`.
    """

    tokens: datasets.Dataset
    num_unknown: list[int]
    empty_gold: list[list[int]]


def readable_notes(split: datasets.Dataset, tokens: datasets.Dataset, name: str) -> TokenizedNotes:
    """Divide a tokenized split into the notes that have a token and those that no model can read.

    Raises:
        ValueError: where no note has one; names the split.
    """
    is_empty = np.asarray(tokens["length"]) == 0
    if is_empty.all():
        raise ValueError(f"No {name} note has text: see `python -m dataset_scripts` on what the data set holds.")
    rows = np.flatnonzero(~is_empty)
    readable = tokens.select(rows) if is_empty.any() else tokens
    num_unknown = [
        len(codes) - len(known)
        for codes, known in zip(split.select(rows)["codes"], readable["label_ids"], strict=True)
    ]
    return TokenizedNotes(readable, num_unknown, list(tokens.select(np.flatnonzero(is_empty))["label_ids"]))
