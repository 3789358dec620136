"""Bootstrap confidence intervals of metrics over notes, and a paired significance test between two runs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .icd_metrics.inputs import check_scores
from .icd_metrics.metrics import divide
from .icd_metrics.ranks import (
    NUM_CALIBRATION_BINS,
    NUM_LEVELS,
    calibration_bins,
    count_levels,
    rank_in_histogram,
    to_levels,
)
from .outcomes import Outcomes, weigh_codes, weighted_metrics


NUM_RESAMPLES = 1000
LEVEL = 0.95
VALUES_PER_BLOCK = 1 << 22  # bounds the temporary arrays: resamples times pairs

METHOD = (
    f"{LEVEL:.0%} bootstrap over notes, {NUM_RESAMPLES} resamples: percentiles, shifted so that the resamples' mean is the "
    "figure itself. AUC and average precision: gold notes resampled, their ranks to first order. Sampling of the test notes "
    "only; not of training notes or seeds."
)


class Term(NamedTuple):
    """What a resample's figure is made of: the mean of its gold pairs' values, and what other pairs move it by."""

    values: np.ndarray  # (P,) of each gold pair; NaN where its code has no figure
    slopes: np.ndarray  # (N,) what one more copy of a note adds otherwise


class RankingTerms(NamedTuple):
    """See `ranking_terms`; the terms by the name of their figure."""

    outcomes: Outcomes
    micro: dict[str, Term]
    macro: dict[str, Term]


def ranking_terms(scores: Any, outcomes: Outcomes) -> RankingTerms:
    """Take the AUCs and the average precisions apart by note.

    With P gold and Q other pairs, each figure is the mean over gold pairs g of a value of their rank:

        AUC                 v_g = (#{other: s < s_g} + #{other: s = s_g} / 2) / Q
        average precision   v_g = G_g / A_g,    G_g = #{gold: s >= s_g},    A_g = #{all: s >= s_g}

    A resample that weighs note i with w_i has, gold pairs exact and their ranks to first order,

        figure_w = sum_g w_i(g) v_g / sum_g w_i(g)  +  sum_i (w_i - 1) * slope_i

        AUC                 slope_i = sum over other pairs o of note i of (u_o - auc) / Q,
                            u_o = share of gold pairs that score higher
        average precision   slope_i = sum over pairs p of note i of sum over g with s_g <= s_p of
                            ([p is gold] / A_g - G_g / A_g^2) / P

    (for the AUC the projection of the Mann-Whitney statistic: Obuchowski 1997, "Nonparametric analysis of clustered ROC
    curve data"). Gold pairs are few and resampled as they are, so that a code whose only gold note is not drawn leaves the
    macro figures, as it would in the metric; the square term that is left out is of the order of 1 / N. The exact bootstrap
    would rank 30 million scores again for each resample of MIMIC-III.

    Scores of the micro figures are compared on the 63,489 levels of `to_levels`.
    """
    scores = check_scores(scores)
    notes, codes = outcomes.gold_notes, outcomes.gold_codes
    return RankingTerms(outcomes, _micro_terms(scores, notes, codes), _macro_terms(scores, notes, codes))


def _macro_terms(scores: np.ndarray, notes: np.ndarray, codes: np.ndarray) -> dict[str, Term]:
    num_notes = len(scores)
    by_code = np.lexsort((notes, codes))
    present, starts = np.unique(codes[by_code], return_index=True)
    placements, precisions = np.full((2, len(notes)), math.nan)
    auc_slopes, precision_slopes = np.zeros((2, num_notes))
    num_with_auc = 0
    for code, pairs in zip(present, np.split(by_code, starts)[1:], strict=True):
        column = scores[:, code].copy()
        values = column[notes[pairs]]
        gold, everything = np.sort(values), np.sort(column)
        gold_here = len(gold) - gold.searchsorted(gold, side="left")
        all_here = num_notes - everything.searchsorted(gold, side="left")
        lost, gained = (np.concatenate([[0], np.cumsum(x)]) for x in (gold_here / all_here**2, 1 / all_here))
        reached = gold.searchsorted(column, side="right")
        precision_slopes -= lost[reached] / len(gold)
        precision_slopes[notes[pairs]] += gained[reached[notes[pairs]]] / len(gold)
        precisions[pairs] = (gold_here / all_here)[gold.searchsorted(values)]
        if len(pairs) == num_notes:
            continue
        is_gold = np.zeros(num_notes, bool)
        is_gold[notes[pairs]] = True
        other = column[~is_gold]
        not_higher = gold.searchsorted(other, side="left") + reached[~is_gold]
        higher = 1 - not_higher / (2 * len(gold))
        auc_slopes[~is_gold] += (higher - higher.mean()) / len(other)
        other = np.sort(other)
        lower = other.searchsorted(values, side="left") + other.searchsorted(values, side="right")
        placements[pairs] = lower / (2 * len(other))
        num_with_auc += 1
    return {
        "auc_macro": Term(placements, auc_slopes / max(num_with_auc, 1)),
        "average_precision_macro": Term(precisions, precision_slopes / max(len(present), 1)),
    }


def _micro_terms(scores: np.ndarray, notes: np.ndarray, codes: np.ndarray) -> dict[str, Term]:
    num_notes, num_codes = scores.shape
    num_gold, num_other = len(notes), scores.size - len(notes)
    if not num_gold or not num_other:
        undefined = Term(np.full(num_gold, math.nan), np.zeros(num_notes))
        return {"auc_micro": undefined, "average_precision_micro": undefined}
    gold_levels = to_levels(scores[notes, codes])
    gold_counts, counts = np.bincount(gold_levels, minlength=NUM_LEVELS), count_levels(scores)
    share_higher = 1 - (np.cumsum(gold_counts) - gold_counts / 2) / num_gold  # of gold pairs, above each level
    gold_here, all_here = (np.cumsum(x[::-1])[::-1] for x in (gold_counts, counts))  # on this level and above it
    lost, gained = (
        np.cumsum(divide(gold_counts * x, y)) for x, y in ((gold_here, all_here.astype(float) ** 2), (1, all_here))
    )
    higher_in_note = -np.bincount(notes, share_higher[gold_levels], num_notes)
    precision_slopes = np.bincount(notes, gained[gold_levels], num_notes)
    for note, row in enumerate(scores):
        levels = to_levels(row)
        higher_in_note[note] += share_higher[levels].sum()
        precision_slopes[note] -= lost[levels].sum()
    less, equal = rank_in_histogram(counts - gold_counts, gold_levels)
    num_other_in_note = num_codes - np.bincount(notes, minlength=num_notes)
    auc = higher_in_note.sum() / num_other
    return {
        "auc_micro": Term((less + equal / 2) / num_other, (higher_in_note - auc * num_other_in_note) / num_other),
        "average_precision_micro": Term(gold_here[gold_levels] / all_here[gold_levels], precision_slopes / num_gold),
    }


def weighted_ranking(terms: RankingTerms, weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUCs and average precisions of notes that count `weights` `(W, N)` times; see `ranking_terms`."""
    outcomes, figures = terms.outcomes, {}
    num_gold = np.bincount(outcomes.gold_notes, minlength=outcomes.num_notes)
    for name, term in terms.micro.items():
        summed = np.bincount(outcomes.gold_notes, term.values, outcomes.num_notes)
        figures[name] = divide(weights @ summed, weights @ num_gold, empty=math.nan)
    drawn = weigh_codes(weights, outcomes.gold_notes, outcomes.gold_codes, outcomes.num_codes)
    for name, term in terms.macro.items():
        is_defined = ~np.isnan(term.values)
        notes, codes = outcomes.gold_notes[is_defined], outcomes.gold_codes[is_defined]
        summed = weigh_codes(weights, notes, codes, outcomes.num_codes, term.values[is_defined])
        num_drawn = (drawn[:, np.unique(codes)] > 0).sum(axis=1)  # of the codes that have a figure
        figures[name] = divide(divide(summed, drawn).sum(axis=1), num_drawn, empty=math.nan)
    return {name: figures[name] + (weights - 1) @ term.slopes for name, term in (terms.micro | terms.macro).items()}


def calibration_terms(scores: Any, outcomes: Outcomes) -> np.ndarray:
    """What each note adds to the ECE and the Brier score, `(N, 16)`.

    For each of the 15 bins the sum of its scores less its number of gold codes, and last the sum of (score - gold)^2.
    """
    scores = check_scores(scores)
    notes, codes = outcomes.gold_notes, outcomes.gold_codes
    gold_scores = scores[notes, codes]
    terms = np.zeros((len(scores), NUM_CALIBRATION_BINS + 1))
    for note, row in enumerate(scores):
        terms[note, :-1] = np.bincount(calibration_bins(row), row, NUM_CALIBRATION_BINS)
        terms[note, -1] = np.square(row.astype(np.float64)).sum()
    np.subtract.at(terms, (notes, calibration_bins(gold_scores)), 1)
    terms[:, -1] += np.bincount(notes, 1 - 2 * gold_scores.astype(np.float64), len(scores))
    return terms


def weighted_calibration(terms: np.ndarray, weights: np.ndarray, num_codes: int) -> dict[str, np.ndarray]:
    """`ece` and `brier` of notes that count `weights` `(W, N)` times; see `calibration_terms`."""
    sums = weights @ terms / (weights.sum(axis=1, keepdims=True) * num_codes)
    return {"ece": np.abs(sums[:, :-1]).sum(axis=1), "brier": sums[:, -1]}


def bootstrap_intervals(
    outcomes: Outcomes,
    figures: Mapping[str, float],
    *,
    ranking: RankingTerms | None = None,
    calibration: np.ndarray | None = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> dict[str, list[float]]:
    """Confidence intervals of the figures of a split, from resamples of its notes (Efron and Tibshirani 1993, chapter 13).

    Notes are drawn with replacement, as many as there are, all codes of a note together. With theta*_b the figure of
    resample b and theta the figure itself, the interval runs between the (1 - level) / 2 and (1 + level) / 2 percentiles of
    theta*_b - mean(theta*) + theta. The shift matters for macro figures alone: a resample lacks a third of the notes and
    with them rare codes, so its macro F1 is lower (of the seen codes: higher) than that of notes drawn anew, and plain
    percentiles may not even hold the figure. What is covered is the expected figure of a split of this size.

    Args:
        outcomes (`Outcomes`): Of the split.
        figures (`Mapping[str, float]`): Metrics as `ICDMetricsAccumulator.compute` names them.
        ranking (`RankingTerms`, *optional*): Without it AUCs and average precisions get no interval.
        calibration (`(N, 16)`, *optional*): From `calibration_terms`; without it ECE and Brier score get none.
        seed, num_resamples, level: Seed of the resamples, their number, coverage.

    Returns:
        `[low, high]`, within 0..1, for every figure.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level}.")
    if num_resamples < 2:
        raise ValueError(f"`num_resamples` must be at least 2, got {num_resamples}.")
    parts: list[dict[str, np.ndarray]] = []
    for weights in _resamples(outcomes.num_notes, num_resamples, _rows_per_block(outcomes), seed):
        part = weighted_metrics(outcomes, weights)
        if ranking is not None:
            part |= weighted_ranking(ranking, weights)
        if calibration is not None:
            part |= weighted_calibration(calibration, weights, outcomes.num_codes)
        parts.append(part)
    intervals = {}
    for name in parts[0]:
        resampled = np.concatenate([part[name] for part in parts])
        resampled = resampled[~np.isnan(resampled)]  # no gold code drawn
        figure = figures.get(name, math.nan)
        if math.isnan(figure) or len(resampled) < 2:
            continue
        bounds = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]) - resampled.mean() + figure
        intervals[name] = [float(bound) for bound in np.clip(bounds, 0, 1)]
    return intervals


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Intervals `(K, 2)` of sums over sums, from resamples of notes: plain percentiles, 95 %, 1000 resamples.

    Each note adds to K numerators `(N, K)` and to the denominator of all, `(N,)`, or of each, `(N, K)`. A resample whose
    denominator is 0 is left out.
    """
    ratios = []
    rows_per_block = max(1, VALUES_PER_BLOCK // len(denominators))
    for weights in _resamples(len(denominators), NUM_RESAMPLES, rows_per_block, seed):
        whole = (weights @ denominators).reshape(len(weights), -1)
        ratios.append(divide(weights @ numerators, whole, empty=math.nan))
    return np.nanquantile(np.concatenate(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T


class PairedTest(NamedTuple):
    """Outcome of `randomization_test` for one metric."""

    difference: float  # of the second run from the first
    p_value: float


def randomization_test(
    first: Outcomes,
    second: Outcomes,
    metrics: Iterable[str],
    *,
    seed: int = 0,
    num_shuffles: int = NUM_RESAMPLES,
) -> dict[str, PairedTest]:
    """Paired approximate-randomisation test of two runs on the same notes (Noreen 1989; Yeh 2000, "More accurate tests").

    If the runs did not differ, each note's two outputs could be exchanged. So for each of R shuffles every note's outputs
    are exchanged with probability 1/2, and

        p = (1 + #{shuffles: |difference| >= |observed difference|}) / (1 + R)

    Two-sided, and 1 for equal runs. It needs no distribution, and takes macro figures as they are.

    Args:
        first, second (`Outcomes`): Same notes in the same order, same class ids, same gold codes.
        metrics (`Iterable[str]`): Count and ranking metrics; an AUC cannot be tested so, since scores of two models are not
            on one scale.
        seed, num_shuffles: Seed of the shuffles, and their number.
    """
    same = (
        (first.num_notes, first.num_codes) == (second.num_notes, second.num_codes)
        and np.array_equal(first.gold_notes, second.gold_notes)
        and np.array_equal(first.gold_codes, second.gold_codes)
    )
    if not same:
        raise ValueError("A paired test needs two runs on the same notes with the same gold codes.")
    names = list(metrics)
    both = _concatenate(first, second)
    rng = np.random.default_rng(seed)
    observed = _differences(both, np.zeros((1, first.num_notes)), names)
    at_least = dict.fromkeys(names, 0)
    for count in _block_sizes(num_shuffles, _rows_per_block(both)):
        is_exchanged = rng.integers(2, size=(count, first.num_notes)).astype(np.float64)
        for name, values in _differences(both, is_exchanged, names).items():
            # Sums in another order may differ in the last digits.
            at_least[name] += int((np.abs(values) >= np.abs(observed[name]) - 1e-12).sum())
    return {name: PairedTest(float(observed[name][0]), (1 + at_least[name]) / (1 + num_shuffles)) for name in names}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several comparisons (Holm 1979): p_(i) * (n - i + 1), never falling, at most 1."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()


def _differences(both: Outcomes, is_exchanged: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """Second run less first, where the outputs of some notes are exchanged; `both` holds the first run's notes first."""
    kept = 1 - is_exchanged
    first = weighted_metrics(both, np.hstack([kept, is_exchanged]))
    second = weighted_metrics(both, np.hstack([is_exchanged, kept]))
    return {name: second[name] - first[name] for name in names}


def _concatenate(first: Outcomes, second: Outcomes) -> Outcomes:
    shifted = second._replace(
        gold_notes=second.gold_notes + first.num_notes, predicted_notes=second.predicted_notes + first.num_notes
    )
    pairs = [np.concatenate(parts) for parts in zip(first[2:], shifted[2:], strict=True)]
    return Outcomes(first.num_notes + second.num_notes, first.num_codes, *pairs)


def _resamples(num_notes: int, total: int, largest: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks of weights `(W, N)`: how often each note is drawn, of as many draws with replacement as there are notes."""
    rng = np.random.default_rng(seed)
    for count in _block_sizes(total, largest):
        drawn = rng.integers(num_notes, size=(count, num_notes))
        yield np.stack([np.bincount(draw, minlength=num_notes) for draw in drawn]).astype(np.float64)


def _rows_per_block(outcomes: Outcomes) -> int:
    """How many weightings fit into the temporary arrays at once."""
    width = max(outcomes.num_notes, outcomes.num_codes, len(outcomes.gold_notes), len(outcomes.predicted_notes))
    return max(1, VALUES_PER_BLOCK // width)


def _block_sizes(total: int, largest: int) -> Iterator[int]:
    for first in range(0, total, largest):
        yield min(largest, total - first)
