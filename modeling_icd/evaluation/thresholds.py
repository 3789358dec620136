"""Chooses thresholds: one for all codes, one for each code, the best k, one that promises a recall, one for review.

Give these functions the validation split, never the test split. A code is predicted where `score > threshold`, in float32,
as everywhere in this package.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.isotonic import isotonic_regression

from .icd_metrics.inputs import check_scores, gold_pairs
from .icd_metrics.metrics import divide
from .icd_metrics.ranks import (
    best_cuts_of_groups,
    best_threshold,
    cut_between,
    rank_gold,
    rank_in_batches,
    rank_in_columns,
)


def tune_global_threshold(scores: Any, labels: Any) -> float:
    """Return the one threshold for all codes that gives the best micro F1, over all thresholds there are.

    It lies half way between the lowest score predicted and the next lower one. Of several with the same F1 the highest is
    chosen. Where every gold code scores 0, no threshold predicts any, and 0.5 is returned.

    Args:
        scores (array of shape `(N, C)`): Probabilities of the validation split.
        labels (array of shape `(N, C)` or list of `N` lists of class ids): Multi-hot, or class ids.
    """
    scores = check_scores(scores)
    rows, codes = checked_gold_pairs(labels, scores)
    return best_threshold([scores], rank_in_batches([scores], scores[rows, codes]))[0]


def tune_bagged_threshold(scores: Any, labels: Any, num_resamples: int = 100, seed: int = 0) -> float:
    """Return the mean of [`tune_global_threshold`] over resamples of the notes (bagging, Breiman 1996).

    On a small split the best threshold is a matter of a few notes: between 0.1 and 0.8 the micro F1 of 80 notes may
    hardly change, and its highest point lies anywhere. The mean of the resamples stays inside the flat part.

    Args:
        scores, labels: As in `tune_global_threshold`.
        num_resamples (`int`, defaults to 100): Draws of as many notes as there are, with replacement.
        seed (`int`, defaults to 0): Of the draws.
    """
    scores = check_scores(scores)
    is_gold = np.zeros(scores.shape, bool)
    is_gold[checked_gold_pairs(labels, scores)] = True
    # Sorted, so that the draws, and with them the threshold, do not depend on the order of the notes.
    order = np.argsort(scores.sum(axis=1), kind="stable")
    scores, is_gold = scores[order], is_gold[order]
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(scores), (num_resamples, len(scores)))
    thresholds = [tune_global_threshold(scores[rows], is_gold[rows]) for rows in draws if is_gold[rows].any()]
    return float(np.mean(thresholds)) if thresholds else tune_global_threshold(scores, labels)


def tune_per_code_thresholds(scores: Any, labels: Any, shrinkage: float = 10.0) -> np.ndarray:
    """Return one threshold for each code, float32 `(C,)`: its own best, drawn toward the global one where it is rare.

    With n_c notes that have code c in the validation split, its own best threshold t_c (best F1 of the code, chosen as in
    `tune_global_threshold`) and the global threshold t:

        threshold_c = (n_c * t_c + shrinkage * t) / (n_c + shrinkage)

    A code without a gold note, or whose gold notes all score 0, gets t.

    Args:
        scores, labels: As in `tune_global_threshold`.
        shrinkage (`float`, defaults to 10.0):
            The number of notes at which a code's own threshold and the global one weigh the same. 0 takes each code's own
            best; infinity gives the global threshold to all.
    """
    if not shrinkage >= 0:
        raise ValueError(f"`shrinkage` must be 0 or more, got {shrinkage}.")
    scores = check_scores(scores)
    overall = tune_global_threshold(scores, labels)
    rows, codes = checked_gold_pairs(labels, scores)
    num_notes, num_labels = scores.shape
    ranks = rank_in_columns([scores], codes, scores[rows, codes])
    cuts, _ = best_cuts_of_groups(ranks, num_notes, num_labels)
    own = cut_between(scores.max(axis=0, initial=0, where=scores < cuts), cuts)
    support = np.bincount(codes, minlength=num_labels)
    weight = np.zeros(num_labels) if np.isinf(shrinkage) else divide(support, support + shrinkage)
    weight[cuts == 0] = 0
    # Not `overall + weight * (own - overall)`: with a weight of 1 that may miss `own` by a rounding step.
    return (weight * own + (1 - weight) * overall).astype(np.float32)


def tune_top_k(scores: Any, labels: Any) -> int:
    """Return how many codes every note should get for the best micro F1: the smallest such number.

    With h(k) gold pairs among the k best codes of their notes, N notes and P gold pairs, F1 = 2 h(k) / (N k + P).
    """
    scores = check_scores(scores)
    rows, codes = gold_pairs(labels, *scores.shape)
    hits = np.cumsum(np.bincount(rank_gold(scores, rows, codes), minlength=scores.shape[1]))
    f1 = 2 * hits / (len(scores) * np.arange(1, scores.shape[1] + 1) + max(len(rows), 1))
    return int(f1.argmax()) + 1


def conformal_threshold(
    scores: Any, labels: Any, target_recall: float, num_unknown: Sequence[int] | None = None
) -> float:
    """Return a threshold for all codes that promises a recall: conformal risk control (arXiv 2208.02814).

    With a = 1 - target_recall and L_i(t) the share of the gold codes of note i that score t or less, the threshold lies below

        sup { t: n / (n + 1) * mean of L_i(t) + 1 / (n + 1) <= a }

    (their equation 4, for a loss of at most 1), half way from the gold score that must not be missed to the next lower
    score. Then, over draws of n validation notes and one more note, all exchangeable, and of scores that none of them had a
    part in, that note's expected recall is at least `target_recall`, whatever the model. It is a promise of the mean, not for
    every note or code. Notes without gold codes are left out, here and in the promise.

    Args:
        scores, labels: As in `tune_global_threshold`.
        target_recall (`float`): Between 0 and 1.
        num_unknown (`Sequence[int]` of length N, *optional*):
            Gold codes of each note that have no column; each is missed at any threshold, and counts as that.

    Raises:
        ValueError: where no threshold can promise that much.
    """
    scores = check_scores(scores)
    rows, codes = gold_pairs(labels, *scores.shape)
    num_known = np.bincount(rows, minlength=len(scores))
    missable = missable_notes(num_known, num_unknown, target_recall)
    values = scores[rows, codes]
    order = np.argsort(values)
    num_gold = num_known + (0 if num_unknown is None else np.asarray(num_unknown))
    missed = np.cumsum(1 / num_gold[rows[order]])
    # Sums of shares are not exact: what is over by a rounding step is not over.
    must_be_found = values[order[np.searchsorted(missed, missable + 1e-9, side="right")]]
    if must_be_found == 0:
        raise ValueError(f"No threshold promises a recall of {target_recall}: too many gold codes score 0.")
    return float(cut_between(scores.max(initial=0, where=scores < must_be_found), must_be_found))


def missable_notes(num_known: Any, num_unknown: Any, target_recall: float) -> float:
    """How much may be missed in all: the sum over notes of shares of their gold codes, beyond the unknown ones.

    Given are the gold codes `(N,)` that the model knows and, unless `None`, those that it does not. Raises a `ValueError` where
    less than nothing may be missed.
    """
    if not 0 < target_recall < 1:
        raise ValueError(f"`target_recall` must lie between 0 and 1, got {target_recall}.")
    num_known = np.asarray(num_known)
    num_unknown = np.zeros_like(num_known) if num_unknown is None else np.asarray(num_unknown)
    has_gold = num_known + num_unknown > 0
    share_unknown = num_unknown[has_gold] / (num_known + num_unknown)[has_gold]
    num_notes = len(share_unknown)
    missable = (1 - target_recall) * (num_notes + 1) - 1 - share_unknown.sum()
    if missable < -1e-9:
        highest = math.floor((1 - (1 + share_unknown.sum()) / (num_notes + 1)) * 1e4) / 1e4
        raise ValueError(
            f"`target_recall` {target_recall} cannot be promised from {num_notes} validation notes of whose codes "
            f"{share_unknown.mean() if num_notes else 0:.1%} were in no training note: at most {max(highest, 0)}."
        )
    return float(missable)


def tune_review_threshold(scores: np.ndarray, is_right: np.ndarray, precision: float) -> float:
    """Return the score above which predictions of any one score are right often enough to be taken without a look.

    Precision as a function of the score is fitted as the closest one that never falls (isotonic regression, Zadrozny and
    Elkan 2002); the threshold is where it first reaches `precision`. So the band of scores below it, down to the decision
    threshold, is the one in which precision is less. It is 1, which no score exceeds, where precision is reached nowhere.

    Args:
        scores (`(Q,)`): Of the predicted pairs of the validation split.
        is_right (`(Q,)`): Whether each is gold.
        precision (`float`): In 0..1.
    """
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    if not len(values):
        return 1.0
    share = np.bincount(place, is_right) / counts
    reached = np.flatnonzero(isotonic_regression(share, sample_weight=counts) >= precision - 1e-9)
    if not len(reached):
        return 1.0
    first = int(reached[0])
    return float(cut_between(values[first - 1] if first else 0, values[first]))


def multi_hot(labels: Any, shape: tuple[int, int]) -> np.ndarray:
    """Which pairs of note and code are gold, `(N, C)` bool; labels as in `tune_global_threshold`."""
    is_gold = np.zeros(shape, bool)
    is_gold[gold_pairs(labels, *shape)] = True
    return is_gold


def checked_gold_pairs(labels: Any, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gold pairs of a split, which must have some."""
    rows, codes = gold_pairs(labels, *scores.shape)
    if not len(rows):
        raise ValueError("A threshold cannot be tuned on a split without a single gold code.")
    return rows, codes
