"""Linear scores of a note's words for a fused model: TF-IDF of single stems and of pairs, and one linear classifier for each code.

A stem that is denied counts as another one than the same stem said plainly.
"""

from collections import Counter
from itertools import pairwise
from math import log

import torch

from .fusion_tables_icd import Tables
from .fusion_text_icd import NoteWords


ABSENT = -1.0
"""Score of a code that has no classifier: what one gives at the margin where a code is absent."""
SINGLE = -1
"""Stands in the second place of a single stem."""


def grams_of(note: NoteWords) -> list[tuple[int, int]]:
    """The single stems of a note, small words and marks among them, and the pairs of neighbouring ones. A stem is given as twice its
    number, and one more where it is denied; stems that no training note has are left out before pairs are made."""
    units = [2 * stem + denied for stem, denied in zip(note.ids, note.denied, strict=True) if stem]
    return [*((unit, SINGLE) for unit in units), *pairwise(units)]


class WordScorer:
    """Scores notes by their words.

    Args:
        tables (`Tables`): of these `grams`, `gram_rarity`, `gram_weights`, `gram_biases` and `gram_codes`.
    """

    def __init__(self, tables: Tables):
        self.rows = {(first, second): row for row, (first, second) in enumerate(tables.grams.tolist())}
        self.rarity, self.weights, self.biases = tables.gram_rarity, tables.gram_weights, tables.gram_biases
        self.codes, self.num_codes = tables.gram_codes.long(), len(tables.codes)

    def score(self, note: NoteWords) -> torch.Tensor:
        """What the classifiers give for a note, `(C,)`: above 0 for a code that they would assign."""
        counts = Counter(self.rows[gram] for gram in grams_of(note) if gram in self.rows)
        rows = torch.tensor([*counts], dtype=torch.long)
        values = torch.tensor([1 + log(count) for count in counts.values()]) * self.rarity[rows]
        values = values / values.norm().clamp(min=1e-9)
        scores = torch.full((self.num_codes,), ABSENT)
        scores[self.codes] = values @ self.weights[rows] + self.biases
        return scores
