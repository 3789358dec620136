"""Decisions: a model's logits become scores, the codes that are predicted, and what a person should look at.

Everything that decides comes here: the pipeline, evaluation, the report and the card.
"""

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


def is_predicted(scores: torch.Tensor, threshold: Any, top_k: int | None = None) -> torch.Tensor:
    """Which codes of each note are predicted.

    Args:
        scores (`torch.Tensor` of shape `(..., C)`): calibrated.
        threshold (`float` or sequence of C): a code is predicted when its score is greater; compared in the scores' type.
        top_k (`int`, *optional*): in place of the threshold the k best codes of each note, of equal scores the lower class
            ids.

    Returns:
        `torch.BoolTensor` of the shape of `scores`. A score of 0 is that of a note without text, or of a code that the model
        does not know: it is never predicted.
    """
    if top_k is None:
        return scores > torch.as_tensor(threshold, dtype=scores.dtype, device=scores.device)
    if top_k >= scores.shape[-1]:
        return scores > 0
    last = scores.topk(top_k, dim=-1).values[..., -1:]
    above, equal = scores > last, scores == last
    room = top_k - above.sum(dim=-1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=-1) <= room))) & (scores > 0)


def decision_of(score: float, review_threshold: float | None) -> str | None:
    """What to do with a predicted code: take it (`"confident"`) or look at it (`"review"`); `None` where the model does
    not say."""
    if review_threshold is None:
        return None
    return "confident" if score > review_threshold else "review"
