"""Ranks of scores by note, by code and over all pairs; from them AUC, average precision and best thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .metrics import divide


NUM_CALIBRATION_BINS = 15

# A float in [0, 1] is ordered as its bit pattern. 16 bits keep 5 of its exponent (2**-31 to 1) and 11 of its mantissa.
LOWEST_PATTERN = (127 - 31) << 23
DROPPED_BITS = 12
NUM_LEVELS = ((127 << 23) - LOWEST_PATTERN >> DROPPED_BITS) + 1  # 63489


class GoldRanks(NamedTuple):
    """Where every gold pair stands among all scores of its group (the whole set, or one code), by group and rising score."""

    groups: np.ndarray  # (P,) group of each gold pair
    values: np.ndarray  # (P,) its score, or its level
    less: np.ndarray  # (P,) scores of the group below it
    equal: np.ndarray  # (P,) scores of the group equal to it, itself included


class GroupCurves(NamedTuple):
    """Per group: area under the ROC curve, half the share of pairs tied in it, and average precision."""

    auc: np.ndarray
    tied: np.ndarray
    average_precision: np.ndarray


def rank_gold(scores: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the rank (from 0) of every gold code in its note: higher scores, and equal ones with a lower class id."""
    ranks = np.empty(len(rows), np.int32)
    for row, first, count in zip(*np.unique(rows, return_index=True, return_counts=True), strict=True):
        of_note = slice(first, first + count)
        values = scores[row, codes[of_note]]
        less, equal = rank_in_sorted(np.sort(scores[row]), values)
        ranks[of_note] = scores.shape[1] - less - equal
        for gold in np.flatnonzero(equal > 1):
            ranks[first + gold] += np.count_nonzero(scores[row, : codes[first + gold]] == values[gold])
    return ranks


def to_levels(scores: np.ndarray) -> np.ndarray:
    """Round scores up to one of 63,489 levels, as uint16.

    Levels are spaced by 2**-11 of the power of two below them (0.05 %), and every score up to 2**-31 is level 0. Rounding up
    keeps decisions exact: for a threshold that is itself a level, such as 0.5, `score > threshold` exactly where
    `level(score) > level(threshold)`.
    """
    patterns = np.asarray(scores, dtype=np.float32, order="C").view(np.int32)
    patterns = np.maximum(patterns, LOWEST_PATTERN) - (LOWEST_PATTERN - (1 << DROPPED_BITS) + 1)
    return (patterns >> DROPPED_BITS).astype(np.uint16)


def from_levels(levels: np.ndarray) -> np.ndarray:
    """Return the largest score of each level, as float32."""
    return ((np.asarray(levels).astype(np.int32) << DROPPED_BITS) + LOWEST_PATTERN).view(np.float32)


def rank_in_sorted(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many entries of an ascending array are less than, and how many equal to, each value."""
    less = ordered.searchsorted(values, side="left")
    return less, ordered.searchsorted(values, side="right") - less


def count_levels(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Return the number of scores, or levels, on each level, `(63489,)`."""
    counts = np.zeros(NUM_LEVELS, np.int64)
    for batch in batches:
        levels = batch if batch.dtype == np.uint16 else to_levels(batch)
        counts += np.bincount(levels.ravel(), minlength=NUM_LEVELS)
    return counts


def rank_in_histogram(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `rank_in_sorted`, from the number of scores on each level."""
    return np.cumsum(counts)[values] - counts[values], counts[values]


def rank_in_batches(batches: Sequence[np.ndarray], values: np.ndarray) -> GoldRanks:
    """Rank the scores, or levels, of gold pairs among those of all batches, as one group.

    Levels are counted. Of float32 scores only those on a level that holds one of the values need sorting, a small part of all
    as a rule.
    """
    values = np.sort(values)
    if values.dtype == np.uint16:
        less, equal = rank_in_histogram(count_levels(batches), values)
    else:
        value_levels = to_levels(values)
        is_sorted_level = np.zeros(NUM_LEVELS, bool)
        is_sorted_level[value_levels] = True
        to_sort = np.concatenate([batch[is_sorted_level[to_levels(batch)]] for batch in batches])
        less, equal = rank_in_sorted(np.sort(to_sort), values)
        left_out = np.cumsum(np.where(is_sorted_level, 0, count_levels(batches)))  # on levels up to this one
        less += left_out[value_levels]
    return GoldRanks(np.zeros(len(values), np.int64), values, less, equal)


def rank_in_columns(batches: Sequence[np.ndarray], codes: np.ndarray, values: np.ndarray) -> GoldRanks:
    """Rank every gold pair, a class id and its score, among the scores of its code in batches `(B, C)`."""
    order = np.lexsort((values, codes))
    codes, values = codes[order], values[order]
    less, equal = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    for code, start, count in zip(*np.unique(codes, return_index=True, return_counts=True), strict=True):
        column = np.concatenate([batch[:, code] for batch in batches])
        of_code = slice(start, start + count)
        less[of_code], equal[of_code] = rank_in_sorted(np.sort(column), values[of_code])
    return GoldRanks(codes, values, less, equal)


def count_gold_in_group(ranks: GoldRanks, num_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of gold pairs in each group and, for each pair, gold pairs below it and gold pairs equal to it."""
    num_gold = np.bincount(ranks.groups, minlength=num_groups)
    position = np.arange(len(ranks.groups))
    first_of_group = np.cumsum(num_gold) - num_gold
    is_new = np.ones(len(position), bool)
    is_new[1:] = (ranks.groups[1:] != ranks.groups[:-1]) | (ranks.values[1:] != ranks.values[:-1])
    run = np.cumsum(is_new) - 1
    gold_less = position[is_new][run] - first_of_group[ranks.groups]
    return num_gold, gold_less, np.bincount(run, minlength=0)[run] if len(run) else run


def curves_of_groups(ranks: GoldRanks, num_scores: int, num_groups: int) -> GroupCurves:
    """Return AUC and average precision of each group from the ranks of its gold pairs.

    AUC (Mann-Whitney, ties count half; Hanley and McNeil 1982) with P gold and Q other pairs:

        auc = 1 / (P * Q) * sum over gold g of (#{other: s < s_g} + #{other: s = s_g} / 2)

    NaN without gold pairs or without others. Average precision, the step-wise area of the precision-recall curve, takes
    pairs of equal score in together, as scikit-learn's `average_precision_score` does:

        average_precision = 1 / P * sum over gold g of #{gold: s >= s_g} / #{all: s >= s_g}

    NaN without gold pairs. Where scores are binned, the exact AUC lies within `tied` of the value given.
    """
    num_gold, gold_less, gold_equal = count_gold_in_group(ranks, num_groups)
    num_pairs = num_gold * (num_scores - num_gold)
    below = np.bincount(ranks.groups, ranks.less - gold_less, num_groups)
    tied = np.bincount(ranks.groups, (ranks.equal - gold_equal) / 2, num_groups)
    precision = (num_gold[ranks.groups] - gold_less) / (num_scores - ranks.less)
    return GroupCurves(
        auc=divide(below + tied, num_pairs, empty=math.nan),
        tied=divide(tied, num_pairs, empty=math.nan),
        average_precision=divide(np.bincount(ranks.groups, precision, num_groups), num_gold, empty=math.nan),
    )


def best_cuts_of_groups(ranks: GoldRanks, num_scores: int, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each group, the lowest score (or level) to predict for the best F1, and that F1.

    F1 = 2 tp / (predicted + gold) only rises where a cut takes in a gold pair, so the scores of gold pairs are all the
    candidates there are. Of equal F1 the highest score is chosen. A pair that scores 0 can never be predicted: where that
    leaves no candidate, score and F1 are 0.
    """
    num_gold, gold_less, _ = count_gold_in_group(ranks, num_groups)
    f1 = 2 * (num_gold[ranks.groups] - gold_less) / (num_scores - ranks.less + num_gold[ranks.groups])
    f1 = np.where(ranks.values > 0, f1, 0.0)
    order = np.lexsort((ranks.values, f1, ranks.groups))
    has_gold = num_gold > 0
    best = order[np.cumsum(num_gold)[has_gold] - 1]  # the last of each group
    cuts, best_f1 = np.zeros(num_groups, ranks.values.dtype), np.zeros(num_groups)
    cuts[has_gold] = np.where(f1[best] > 0, ranks.values[best], 0)
    best_f1[has_gold] = f1[best]
    return cuts, best_f1


def cut_between(lower: Any, value: Any) -> np.ndarray:
    """Return a float32 threshold half way between two scores, such that `value > threshold` and not `lower > threshold`."""
    middle = ((np.asarray(lower, np.float64) + value) / 2).astype(np.float32)
    return np.where(middle < value, middle, lower).astype(np.float32)


def best_threshold(batches: Sequence[np.ndarray], ranks: GoldRanks) -> tuple[float, float]:
    """Return the threshold for all codes with the best micro F1, and that F1; `ranks` are those of `rank_in_batches`.

    The threshold lies half way between the lowest score, or level, predicted and the next lower one; of equal F1 the highest
    is chosen. Where no threshold predicts a gold code, it is 0.5 with an F1 of 0.
    """
    cuts, f1 = best_cuts_of_groups(ranks, sum(batch.size for batch in batches), 1)
    cut = cuts[0]
    if cut == 0:
        return 0.5, 0.0
    lower = max(batch.max(initial=0, where=batch < cut) for batch in batches)
    if cuts.dtype == np.uint16:
        return float(from_levels(np.array((int(lower) + int(cut)) // 2))), float(f1[0])
    return float(cut_between(lower, cut)), float(f1[0])


def calibration_bins(scores: np.ndarray) -> np.ndarray:
    """Return the index of the calibration bin of each score."""
    return np.minimum((scores * NUM_CALIBRATION_BINS).astype(np.int32), NUM_CALIBRATION_BINS - 1)
