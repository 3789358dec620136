"""Fits temperature or Platt scaling, so that a score of 0.8 means right in 80 % of the cases.

Give these functions the validation split, never the test split. They return the field `calibration` of a model's
configuration; `modeling_icd.decision_icd.calibrated_scores` applies it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from .strata import FREQUENCY_BANDS, band_names, in_bands
from .thresholds import multi_hot


SLOPES = (0.01, 100.0)  # never 0 or less: a higher logit of a code is a higher score
MIN_GOLD = 20  # gold pairs that two numbers can be fitted to


def fit_temperature(logits: np.ndarray, labels: Any) -> dict[str, Any]:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one slope 1 / T for all codes.

    T minimises the mean binary cross-entropy of sigmoid(logit / T) over all pairs of note and code.

    Args:
        logits (array of shape `(N, C)`): Of the validation split.
        labels (array of shape `(N, C)` or list of `N` lists of class ids): Multi-hot, or class ids.
    """
    is_gold = multi_hot(labels, logits.shape)
    slope, _ = _fit_sigmoid(logits.ravel(), is_gold.ravel().astype(np.float64), intercept=(0.0, 0.0))
    return _calibration("temperature", ["all"], [(slope, 0.0)], [0] * logits.shape[1])


def fit_platt(logits: np.ndarray, labels: Any, training_counts: Sequence[int]) -> dict[str, Any]:
    """Platt scaling (Platt 1999), one slope and one intercept for each band of training frequency.

    Rare codes are the ones that a model is too unsure of, or too sure, in a way of their own; one curve for each code would
    need more gold notes than they have. Both numbers of a band minimise the mean binary cross-entropy of
    sigmoid(slope * logit + intercept) over the pairs of its codes, with Platt's targets (n1 + 1) / (n1 + 2) for the n1 gold
    pairs and 1 / (n0 + 2) for the n0 others. A band with fewer than 20 gold pairs joins the next more frequent one, the most
    frequent of all the one before it.

    Args:
        logits, labels: As in `fit_temperature`.
        training_counts (`Sequence[int]` of length C): Training notes of each code.
    """
    is_gold = multi_hot(labels, logits.shape)
    names, band_of_code = _joined_bands(in_bands(training_counts, FREQUENCY_BANDS), is_gold.sum(axis=0))
    fitted = []
    for band in range(len(names)):
        members = np.flatnonzero(band_of_code == band)
        gold = is_gold[:, members].ravel()
        num_gold, num_other = np.count_nonzero(gold), np.count_nonzero(~gold)
        targets = np.where(gold, (num_gold + 1) / (num_gold + 2), 1 / (num_other + 2))
        fitted.append(_fit_sigmoid(logits[:, members].ravel(), targets, intercept=(None, None)))
    return _calibration("platt", names, fitted, band_of_code.tolist())


def _joined_bands(band_of_code: Sequence[str], gold_per_code: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of bands with enough gold pairs each, and the band of each code, as an index into them."""
    of_code = np.array(band_of_code)
    groups: list[list[str]] = [[]]
    for name in band_names(FREQUENCY_BANDS):
        if not (of_code == name).any():
            continue
        groups[-1].append(name)
        if gold_per_code[np.isin(of_code, groups[-1])].sum() >= MIN_GOLD:
            groups.append([])
    thin = groups.pop()
    if groups:
        groups[-1] += thin
    else:
        groups = [thin]
    index = np.zeros(len(of_code), np.int64)
    for i, group in enumerate(groups):
        index[np.isin(of_code, group)] = i
    return [" and ".join(group) for group in groups], index


def _fit_sigmoid(
    logits: np.ndarray, targets: np.ndarray, intercept: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Slope and intercept of the sigmoid that fits targets best, in cross-entropy; the intercept within bounds."""
    logits = logits.astype(np.float64)

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        values = parameters[0] * logits + parameters[1]
        error = expit(values) - targets
        loss = -(log_expit(values) - (1 - targets) * values).mean()
        return loss, np.array([(error * logits).mean(), error.mean()])

    found = minimize(
        loss_and_gradient,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[SLOPES, intercept],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return float(found.x[0]), float(found.x[1])


def _calibration(
    method: str, bands: list[str], fitted: list[tuple[float, float]], band_of_code: list[int]
) -> dict[str, Any]:
    return {
        "method": method,
        "bands": bands,
        "slopes": [slope for slope, _ in fitted],
        "intercepts": [intercept for _, intercept in fitted],
        "band_of_code": band_of_code,
    }
