"""Choosing the decision threshold. Give these functions the validation split, never the test split.

A code is predicted where `score > threshold`, in float32, as everywhere in this package.
"""

from typing import Any

import numpy as np

from .icd_metrics.inputs import check_scores, gold_pairs
from .icd_metrics.ranks import GoldRanks, best_cuts_of_groups, cut_between, rank_in_batches, rank_in_columns
from .icd_metrics.ratios import divide


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
    values = np.sort(scores[rows, codes])
    ranks = GoldRanks(np.zeros(len(values), np.int64), values, *rank_in_batches([scores], values))
    cut = best_cuts_of_groups(ranks, scores.size, 1)[0][0]
    return float(cut_between(scores.max(initial=0, where=scores < cut), cut)) if cut > 0 else 0.5


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


def checked_gold_pairs(labels: Any, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gold pairs of a split, which must have some."""
    rows, codes = gold_pairs(labels, *scores.shape)
    if not len(rows):
        raise ValueError("A threshold cannot be tuned on a split without a single gold code.")
    return rows, codes
