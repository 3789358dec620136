"""What a model did with each note, reduced to pairs of note and code, and the metrics of weighted notes.

A bootstrap resample, or the swapped outputs of a randomisation test, is a weight for each note: so intervals and tests never
look at scores again. The definitions are those of `icd_metrics`; with all weights 1 the values are the same.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..decision_icd import predicted
from .icd_metrics.inputs import check_scores, check_threshold, gold_pairs
from .icd_metrics.scores import divide, rank_gold, ratios


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


def outcomes_of(scores: Any, labels: Any, threshold: Any, top_k: int | None = None) -> Outcomes:
    """Outcomes of dense scores `(N, C)`, labels as in `ICDMetricsAccumulator.add_batch`.

    Predicted are the codes with `score > threshold`; where `top_k` is given, the k best of each note in place of those, of
    equal scores the lower class ids. A score of 0, that of an empty note or of a code the model does not know, is never
    predicted.
    """
    scores = check_scores(scores)
    threshold = check_threshold(threshold, scores.shape[1])
    notes, codes = gold_pairs(labels, *scores.shape)
    is_predicted = predicted(scores, {}, threshold, top_k).numpy()
    predicted_notes, predicted_codes = np.nonzero(is_predicted)
    return Outcomes(
        num_notes=scores.shape[0],
        num_codes=scores.shape[1],
        gold_notes=notes,
        gold_codes=codes,
        gold_ranks=np.asarray(rank_gold(scores, notes, codes), np.int64),
        is_hit=is_predicted[notes, codes],
        predicted_notes=predicted_notes,
        predicted_codes=predicted_codes,
    )


def is_among_best(scores: np.ndarray, k: int) -> np.ndarray:
    """Which scores are the k best of their note, `(N, C)`; of equal ones at the end those of the lower class ids."""
    if scores.shape[1] <= k:
        return np.ones(scores.shape, bool)
    is_best = np.zeros(scores.shape, bool)
    for note, row in enumerate(scores):
        last = np.partition(row, -k)[-k]
        above = np.flatnonzero(row > last)
        is_best[note, above] = True
        is_best[note, np.flatnonzero(row == last)[: k - len(above)]] = True
    return is_best


def counts_per_note(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predicted and gold pairs of each note, `(N,)`."""
    num_notes = outcomes.num_notes
    return (
        np.bincount(outcomes.gold_notes[outcomes.is_hit], minlength=num_notes),
        np.bincount(outcomes.predicted_notes, minlength=num_notes),
        np.bincount(outcomes.gold_notes, minlength=num_notes),
    )


def counts_per_code(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predicted and gold pairs of each code, `(C,)`."""
    num_codes = outcomes.num_codes
    return (
        np.bincount(outcomes.gold_codes[outcomes.is_hit], minlength=num_codes),
        np.bincount(outcomes.predicted_codes, minlength=num_codes),
        np.bincount(outcomes.gold_codes, minlength=num_codes),
    )


def weigh_codes(
    weights: np.ndarray, notes: np.ndarray, codes: np.ndarray, num_codes: int, values: np.ndarray | None = None
) -> np.ndarray:
    """Sum the weights of a set of pairs over the notes of each code.

    Args:
        weights (`(W, N)`): One row for each weighting.
        notes, codes (`(P,)`): The pairs.
        values (`(P,)`, *optional*): What each pair counts, in place of 1.

    Returns:
        `(W, num_codes)`.
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


def ranking_values(outcomes: Outcomes, k: Iterable[int]) -> dict[str, np.ndarray]:
    """Each note's own value, `(N,)`, of the metrics that `ICDMetricsAccumulator.ranking_metrics` averages."""
    num_notes, notes = outcomes.num_notes, outcomes.gold_notes
    num_gold = np.bincount(notes, minlength=num_notes)
    ranks = outcomes.gold_ranks[np.lexsort((outcomes.gold_ranks, notes))]
    position = np.arange(len(ranks)) - np.repeat(np.cumsum(num_gold) - num_gold, num_gold) + 1
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, int(num_gold.max(initial=0)) + 1) + 1))])
    values: dict[str, np.ndarray] = {}
    for cutoff in k:
        is_in = ranks < cutoff
        hits = np.bincount(notes, is_in, num_notes)
        values[f"precision_at_{cutoff}"] = hits / cutoff
        values[f"recall_at_{cutoff}"] = divide(hits, num_gold)
        gain = np.bincount(notes, is_in / np.log2(ranks + 2.0), num_notes)
        values[f"ndcg_at_{cutoff}"] = divide(gain, ideal[np.minimum(num_gold, cutoff)])
    values["r_precision"] = divide(np.bincount(notes, ranks < num_gold[notes], num_notes), num_gold)
    values["map"] = divide(np.bincount(notes, position / (ranks + 1.0), num_notes), num_gold)
    return values


def weighted_metrics(outcomes: Outcomes, weights: np.ndarray, k: Sequence[int] = (5, 8, 15)) -> dict[str, np.ndarray]:
    """The count and ranking metrics of `icd_metrics` for notes that count `weights` times.

    Args:
        weights (`(W, N)`): Not negative, one row for each weighting.

    Returns:
        `dict[str, (W,)]`.
    """
    weights = np.asarray(weights, np.float64)
    num_codes = outcomes.num_codes
    total = weights.sum(axis=1)
    note_hits, note_predicted, note_gold = counts_per_note(outcomes)

    def mean_over_notes(values: np.ndarray) -> np.ndarray:
        return weights @ values / total

    micro = ratios(weights @ note_hits, weights @ note_predicted, weights @ note_gold)
    metrics = dict(
        zip(("precision_micro", "recall_micro", "f1_micro", "jaccard_micro"), map(np.asarray, micro), strict=True)
    )

    code_hits = weigh_codes(
        weights, outcomes.gold_notes[outcomes.is_hit], outcomes.gold_codes[outcomes.is_hit], num_codes
    )
    code_gold = weigh_codes(weights, outcomes.gold_notes, outcomes.gold_codes, num_codes)
    code_predicted = weigh_codes(weights, outcomes.predicted_notes, outcomes.predicted_codes, num_codes)
    precision, recall, f1, jaccard = ratios(code_hits, code_predicted, code_gold)
    is_seen = code_gold > 0
    metrics["precision_macro"], metrics["recall_macro"] = precision.mean(axis=1), recall.mean(axis=1)
    metrics["f1_macro"], metrics["jaccard_macro"] = f1.mean(axis=1), jaccard.mean(axis=1)
    metrics["f1_macro_caml"] = harmonic_mean(metrics["precision_macro"], metrics["recall_macro"])
    metrics["f1_macro_seen"] = divide((f1 * is_seen).sum(axis=1), is_seen.sum(axis=1), empty=math.nan)

    precision, recall, f1, jaccard = ratios(note_hits, note_predicted, note_gold)
    metrics["precision_instance"], metrics["recall_instance"] = mean_over_notes(precision), mean_over_notes(recall)
    metrics["f1_instance"] = harmonic_mean(metrics["precision_instance"], metrics["recall_instance"])
    metrics["f1_instance_mean"], metrics["jaccard_instance"] = mean_over_notes(f1), mean_over_notes(jaccard)
    metrics["exact_match"] = mean_over_notes((note_hits == note_gold) & (note_hits == note_predicted))

    for name, values in ranking_values(outcomes, k).items():
        metrics[name] = mean_over_notes(values)
    for cutoff in k:
        metrics[f"f1_at_{cutoff}"] = harmonic_mean(metrics[f"precision_at_{cutoff}"], metrics[f"recall_at_{cutoff}"])
    return metrics


def harmonic_mean(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """F1 of precisions and recalls; 0 where both are 0."""
    return divide(2 * precision * recall, precision + recall)
