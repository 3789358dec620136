"""The gold and predicted pairs of note and code of a split, and metrics in which each note has a weight.

A bootstrap resample, or the swapped outputs of a randomisation test, is a weight for each note, so intervals and tests need
no scores. The metrics are those of the table in `icd_metrics/metrics.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .icd_metrics.inputs import check_predicted, check_scores, gold_pairs
from .icd_metrics.metrics import CUTOFFS, Counts, Tally, compute_metrics
from .icd_metrics.ranks import rank_gold


class Outcomes(NamedTuple):
    """Gold and predicted pairs of a split of N notes and C codes, both by note and then by code."""

    num_notes: int
    num_codes: int
    gold_notes: np.ndarray  # (P,) row of each gold pair
    gold_codes: np.ndarray  # (P,) class id of each gold pair
    gold_ranks: np.ndarray  # (P,) rank of its score in the note, from 0
    is_hit: np.ndarray  # (P,) whether it is predicted
    predicted_notes: np.ndarray  # (Q,)
    predicted_codes: np.ndarray  # (Q,)

    @property
    def predicted_is_hit(self) -> np.ndarray:
        """Whether each predicted pair is gold, `(Q,)`."""
        gold = self.gold_notes * self.num_codes + self.gold_codes
        return np.isin(self.predicted_notes * self.num_codes + self.predicted_codes, gold)


def outcomes_of(scores: Any, labels: Any, is_predicted: Any) -> Outcomes:
    """Outcomes of scores `(N, C)`; labels as in `ICDMetricsAccumulator.add_batch`; `is_predicted` is bool `(N, C)`."""
    scores = check_scores(scores)
    is_predicted = check_predicted(is_predicted, scores.shape)
    notes, codes = gold_pairs(labels, *scores.shape)
    ranks = rank_gold(scores, notes, codes).astype(np.int64)
    return outcomes_of_pairs(len(scores), scores.shape[1], (notes, codes), ranks, np.nonzero(is_predicted))


def outcomes_of_pairs(
    num_notes: int, num_codes: int, gold: Sequence[np.ndarray], gold_ranks: np.ndarray, predicted: Sequence[np.ndarray]
) -> Outcomes:
    """Outcomes of notes and codes that are gold, and of those that are predicted; both by note and then by code."""
    gold_keys, predicted_keys = (notes * num_codes + codes for notes, codes in (gold, predicted))
    is_hit = np.isin(gold_keys, predicted_keys)
    return Outcomes(num_notes, num_codes, gold[0], gold[1], gold_ranks, is_hit, predicted[0], predicted[1])


def renumber_codes(outcomes: Outcomes, new_ids: np.ndarray, num_codes: int) -> Outcomes:
    """Outcomes with other class ids up to `num_codes`, `new_ids` `(C,)` by those of before; -1 leaves a code out.

    Codes that get the same id are joined to a group, which is gold, or predicted, in a note where any of them is; it takes the
    rank of one of them.
    """

    def renumber(notes: np.ndarray, codes: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        kept = np.flatnonzero(new_ids[codes] >= 0)
        pairs, first = np.unique(notes[kept] * num_codes + new_ids[codes[kept]], return_index=True)
        return np.divmod(pairs, num_codes), kept[first]

    gold, of_gold = renumber(outcomes.gold_notes, outcomes.gold_codes)
    predicted, _ = renumber(outcomes.predicted_notes, outcomes.predicted_codes)
    return outcomes_of_pairs(outcomes.num_notes, num_codes, gold, outcomes.gold_ranks[of_gold], predicted)


def join_codes(outcomes: Outcomes, names: Sequence[str | None]) -> Outcomes:
    """Outcomes of groups of codes, from the group of each code: see `renumber_codes`. A code without one is left out."""
    ids = {name: i for i, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    new_ids = np.array([-1 if name is None else ids[name] for name in names], np.int64)
    return renumber_codes(outcomes, new_ids, len(ids))


def counts_per_note(outcomes: Outcomes) -> Counts:
    """Hits, predicted and gold pairs of each note, `(N,)`."""
    return _counts(outcomes.gold_notes, outcomes.predicted_notes, outcomes.is_hit, outcomes.num_notes)


def counts_per_code(outcomes: Outcomes) -> Counts:
    """Hits, predicted and gold pairs of each code, `(C,)`."""
    return _counts(outcomes.gold_codes, outcomes.predicted_codes, outcomes.is_hit, outcomes.num_codes)


def _counts(gold: np.ndarray, predicted: np.ndarray, is_hit: np.ndarray, size: int) -> Counts:
    return Counts(*(np.bincount(pairs, minlength=size) for pairs in (gold[is_hit], predicted, gold)))


def weigh_codes(
    weights: np.ndarray, notes: np.ndarray, codes: np.ndarray, num_codes: int, values: np.ndarray | None = None
) -> np.ndarray:
    """Sum the weights `(W, N)` of pairs, their notes and codes `(P,)`, over the notes of each code: `(W, num_codes)`.

    Each pair counts 1, or its value `(P,)`.
    """
    if values is None and 20 * len(notes) > weights.shape[1] * num_codes:
        # A model that predicts nearly everything: one product of dense matrices is quicker than the pairs.
        is_pair = np.zeros((weights.shape[1], num_codes), np.float32)
        is_pair[notes, codes] = 1
        return (weights.astype(np.float32) @ is_pair).astype(np.float64)  # exact: sums stay far below 2**24
    sums = np.zeros((len(weights), num_codes))
    if len(notes):
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        weighed = weights[:, notes[order]]
        if values is not None:
            weighed = weighed * values[order]
        sums[:, present] = np.add.reduceat(weighed, starts, axis=1)
    return sums


def weighted_metrics(outcomes: Outcomes, weights: np.ndarray, k: Sequence[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """The metrics that follow from counts and ranks, `(W,)` each, for notes that count `weights` times: `(W, N)`, not negative."""
    weights = np.asarray(weights, np.float64)
    hit_notes, hit_codes = outcomes.gold_notes[outcomes.is_hit], outcomes.gold_codes[outcomes.is_hit]
    by_code = Counts(
        hits=weigh_codes(weights, hit_notes, hit_codes, outcomes.num_codes),
        predicted=weigh_codes(weights, outcomes.predicted_notes, outcomes.predicted_codes, outcomes.num_codes),
        gold=weigh_codes(weights, outcomes.gold_notes, outcomes.gold_codes, outcomes.num_codes),
    )
    return compute_metrics(Tally(by_code, counts_per_note(outcomes), outcomes.gold_ranks, weights), k)
