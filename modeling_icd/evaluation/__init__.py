"""Evaluating models: metrics, fitting of decisions, results and reports; here, `compute_metrics` for a `Trainer`."""

from pathlib import Path
from typing import Any

import torch

from ..decision_icd import calibrated_scores
from .decisions import tune_bagged_threshold, tune_global_threshold, tune_per_code_thresholds
from .icd_metrics.accumulator import ICDMetricsAccumulator
from .icd_metrics.inputs import ClassIds
from .icd_metrics.metrics import CUTOFFS, nan_to_none


__all__ = [
    "ICD_METRICS_PATH",
    "BatchedComputeMetrics",
    "ClassIds",
    "ICDMetricsAccumulator",
    "make_compute_metrics",
    "nan_to_none",
    "tune_bagged_threshold",
    "tune_global_threshold",
    "tune_per_code_thresholds",
]

ICD_METRICS_PATH = str(Path(__file__).parent / "icd_metrics")
"""What to give to `evaluate.load`."""


class BatchedComputeMetrics:
    """The `compute_metrics` of a `Trainer`, with or without `batch_eval_metrics=True`.

    With it, the trainer calls this once a batch and asks for the result at the last one, so that no logits pile up. The
    accumulator is emptied at each result.

    Args:
        count_codes (`bool`):
            Also report `codes_predicted`: the share of codes that are predicted for at least one note, at the tuned threshold
            if there is one.
    """

    def __init__(self, accumulator: ICDMetricsAccumulator, tune_threshold: bool = False, count_codes: bool = False):
        self.accumulator = accumulator
        self.tune_threshold = tune_threshold
        self.count_codes = count_codes

    def __call__(self, eval_prediction: Any, compute_result: bool = True) -> dict[str, float]:
        """Take in a batch of logits `(B, C)`, or of a tuple that starts with them, and multi-hot labels `(B, C)`."""
        logits = eval_prediction.predictions
        if isinstance(logits, (tuple, list)):
            logits = logits[0]
        scores = calibrated_scores(torch.as_tensor(logits), None)
        self.accumulator.add_batch(scores, eval_prediction.label_ids)
        if not compute_result:
            return {}
        results = self.accumulator.compute(tune_threshold=self.tune_threshold)
        if self.count_codes:
            results["codes_predicted"] = self.accumulator.codes_predicted(results.get("threshold"))
        self.accumulator.reset()
        return results


def make_compute_metrics(
    num_labels: int,
    *,
    threshold: Any = 0.5,
    tune_threshold: bool = False,
    k: tuple[int, ...] = CUTOFFS,
    score_storage: str = "uint16",
    count_codes: bool = False,
) -> BatchedComputeMetrics:
    """Return a `compute_metrics` for `Trainer`; see `ICDMetricsAccumulator` and `BatchedComputeMetrics` for the arguments.

    The default storage keeps 2 bytes a score between batches: 60 MB for 3,372 notes and 8,921 codes.
    """
    accumulator = ICDMetricsAccumulator(num_labels, threshold=threshold, k=k, score_storage=score_storage)
    return BatchedComputeMetrics(accumulator, tune_threshold, count_codes)
