"""Computes the points of a report's curves: precision against recall, and share of gold against score."""

import numpy as np

from .icd_metrics.ranks import NUM_CALIBRATION_BINS, NUM_LEVELS, calibration_bins, from_levels, to_levels
from .icd_metrics.ratios import divide
from .outcomes import Outcomes


NUM_CURVE_POINTS = 200


def make_curves(
    scores: np.ndarray, outcomes: Outcomes, uncalibrated: np.ndarray | None = None
) -> dict[str, list[dict[str, float]]]:
    """Points of curves over all pairs of note and code.

    - `precision_recall`: at most 200 thresholds, about evenly spaced in recall; scores on 63,489 levels.
    - `reliability`: for each of the 15 bins of the ECE that holds scores their number, mean, and share of gold.
    - `reliability_uncalibrated`: the same before calibration, where there was one.
    """
    levels = np.zeros(NUM_LEVELS, np.int64)
    for row in scores:
        levels += np.bincount(to_levels(row), minlength=NUM_LEVELS)
    gold_scores = scores[outcomes.gold_notes, outcomes.gold_codes]
    gold_levels = np.bincount(to_levels(gold_scores), minlength=NUM_LEVELS)
    hits, predicted = np.cumsum(gold_levels[::-1]), np.cumsum(levels[::-1])
    recall, precision = divide(hits, len(gold_scores)), divide(hits, predicted)
    candidates = np.flatnonzero(levels[::-1])
    wanted = np.searchsorted(recall[candidates], np.linspace(0, 1, NUM_CURVE_POINTS))
    chosen = candidates[np.unique(np.minimum(wanted, len(candidates) - 1))] if len(gold_scores) else []
    points = [
        {
            "at_least": float(from_levels(np.array(NUM_LEVELS - 1 - i))),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
        }
        for i in chosen
    ]
    curves = {"precision_recall": points, "reliability": reliability_points(scores, outcomes)}
    if uncalibrated is not None:
        curves["reliability_uncalibrated"] = reliability_points(uncalibrated, outcomes)
    return curves


def reliability_points(scores: np.ndarray, outcomes: Outcomes) -> list[dict[str, float]]:
    """See `make_curves`."""
    counts, sums = np.zeros(NUM_CALIBRATION_BINS, np.int64), np.zeros(NUM_CALIBRATION_BINS)
    for row in scores:
        bins = calibration_bins(row)
        counts += np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
        sums += np.bincount(bins, row, NUM_CALIBRATION_BINS)
    gold_scores = scores[outcomes.gold_notes, outcomes.gold_codes]
    gold = np.bincount(calibration_bins(gold_scores), minlength=NUM_CALIBRATION_BINS)
    return [
        {
            "num_pairs": int(counts[i]),
            "mean_score": float(sums[i] / counts[i]),
            "share_gold": float(gold[i] / counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]
