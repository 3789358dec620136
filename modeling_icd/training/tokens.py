"""From a data set's splits to the code vocabulary, and to tokens and labels."""

from collections import Counter

import datasets


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


def leave_out_empty(tokens: datasets.Dataset) -> tuple[datasets.Dataset, list[int]]:
    """The tokenized notes that have a token, and which rows they are; no model can read one that has none."""
    rows = [row for row, length in enumerate(tokens["length"]) if length]
    return (tokens if len(rows) == len(tokens) else tokens.select(rows)), rows
