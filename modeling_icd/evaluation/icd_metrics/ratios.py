"""Precision, recall, F1 and Jaccard index from counts (0 where the denominator is 0), and means of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class Ratios(NamedTuple):
    """Precision, recall, F1 and Jaccard index."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    jaccard: np.ndarray


def ratios(hits: Any, predicted: Any, gold: Any) -> Ratios:
    """Precision, recall, F1 and Jaccard index of counts; 0 where nothing was gold or predicted."""
    return Ratios(
        precision=divide(hits, predicted),
        recall=divide(hits, gold),
        f1=divide(2 * hits, predicted + gold),
        jaccard=divide(hits, predicted + gold - hits),
    )


def divide(numerator: Any, denominator: Any, empty: float = 0.0) -> np.ndarray:
    """Divide element by element; `empty` where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient = np.full(np.broadcast(numerator, denominator).shape, empty)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def harmonic_mean(precision: Any, recall: Any) -> np.ndarray:
    """F1 of precisions and recalls; 0 where both are 0."""
    return divide(2 * precision * recall, precision + recall)


def mean_of_defined(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def nan_to_none(results: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, for JSON, which has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in results.items()}
