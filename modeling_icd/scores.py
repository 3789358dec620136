"""From a model's logits to the scores that thresholds are compared with."""

from collections.abc import Mapping
from typing import Any

import torch


def calibrated_scores(logits: torch.Tensor, calibration: Mapping[str, Any] | None) -> torch.Tensor:
    """Scores in [0, 1], fp32: the sigmoid of the logits, calibrated where the model's configuration says how.

    With b(c) the band of code c and a slope above 0, so that the notes of one code keep their order:

        score = sigmoid(slope_b(c) * logit + intercept_b(c))

    Args:
        logits (`torch.Tensor` of shape `(..., C)`): of every code.
        calibration (`dict`, *optional*): the field of the configuration; `None`: the sigmoid alone.
    """
    logits = logits.float()
    if calibration is None:
        return logits.sigmoid()
    band = torch.as_tensor(calibration["band_of_code"], device=logits.device)
    slope, intercept = (torch.tensor(calibration[name], device=logits.device) for name in ("slopes", "intercepts"))
    return (slope.float()[band] * logits + intercept.float()[band]).sigmoid()
