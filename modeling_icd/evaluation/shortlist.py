"""Fits the shortlist of a head that attends: how many codes of each note to compute exactly, and what that changes."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ..decision_icd import calibrated_scores, predicted
from ..heads import HeadEnsemble, can_shortlist
from ..inference.hidden_states import HiddenStates
from ..inference.loop import predict_logits


TOP = 15
MOST_F1_LOST, LEAST_KEPT = 0.001, 0.995
LEAST_NOTES = 50


def fit_shortlist(
    model: PreTrainedModel,
    notes: Sequence[list[int]],
    gold: Sequence[Sequence[int]],
    size: int | None = None,
    states: HiddenStates | None = None,
) -> dict[str, float]:
    """Measure a shortlist on validation notes, and write it into the model's configuration where it changes next to nothing.

    From then on, in evaluation mode and without gradients, the model computes `size` codes of each note exactly, and
    estimates the others; see `AttendingHead.shortlisted_logits`. Over thousands of codes that is several times as fast,
    where the processor multiplies in bfloat16.

    Args:
        model (`ModelForICDCoding`): its head attends, and is no ensemble.
        notes: `input_ids` of notes that the model has not learned from, each with a token.
        gold: the class ids of each note's codes.
        size (`int`, *optional*): codes of each note; by default a thirty-second of all, but at least 64.
        states (`HiddenStates`, *optional*): the hidden states of these notes, so that the backbone is not run.

    Returns:
        What `model.config.shortlist` now holds: `size`; `notes`, on how many it was measured; `top_15_kept`, the share of
        them none of whose 15 best codes is missing from the shortlist; `f1_micro` with all codes computed, and
        `f1_micro_lost`, how much lower it is with the shortlist.

    Raises:
        ValueError: where the head cannot, there are fewer than 50 notes, or more than 0.1 points of micro F1 or the 15 best
            codes of more than 0.5 % of the notes are lost. The configuration then stays as it was.
    """
    num_labels = model.config.num_labels
    size = max(64, num_labels // 32) if size is None else size
    if not can_shortlist(model.score):
        why = "is an ensemble" if isinstance(model.score, HeadEnsemble) else "does not attend"
        raise ValueError(f"A shortlist is for a single head that attends, and this one {why}: leave it out.")
    if not TOP <= size < num_labels:
        raise ValueError(f"`size` must be from {TOP} to {num_labels - 1}, below the number of codes; got {size}.")
    if len(notes) < LEAST_NOTES:
        raise ValueError(f"A shortlist is measured on {LEAST_NOTES} notes at least, and there are {len(notes)}.")
    before = model.config.shortlist
    runs = []
    try:
        for tried in (None, {"size": size}):
            model.config.shortlist = tried
            runs.append(torch.from_numpy(predict_logits(model, notes, states=states)))
    finally:
        model.config.shortlist = before
    exact, short = runs
    # A code on the list has its exact logit, to rounding; the others have less than all of them.
    listed = torch.zeros_like(short, dtype=torch.bool).scatter(1, short.topk(size).indices, True)
    kept = listed.gather(1, exact.topk(TOP).indices).all(dim=1)
    figures = [f1_micro(logits, gold, model.config) for logits in runs]
    found = {
        "size": size,
        "notes": len(notes),
        "top_15_kept": kept.float().mean().item(),
        "f1_micro": figures[0],
        "f1_micro_lost": figures[0] - figures[1],
    }
    if found["top_15_kept"] < LEAST_KEPT or found["f1_micro_lost"] > MOST_F1_LOST:
        raise ValueError(
            f"With a shortlist of {size} codes {1 - found['top_15_kept']:.1%} of the notes lose one of their {TOP} best codes, and "
            f"micro F1 is lower by {100 * found['f1_micro_lost']:.2f} points: take a larger `size`, or leave the shortlist out."
        )
    model.config.shortlist = found
    return found


def f1_micro(logits: torch.Tensor, gold: Sequence[Sequence[int]], config) -> float:
    """Micro F1 of logits `(N, C)` by the model's own decision."""
    chosen = predicted(calibrated_scores(logits, config.calibration), config).numpy()
    truth = np.zeros_like(chosen)
    for row, codes in enumerate(gold):
        truth[row, list(codes)] = True
    return float(2 * (chosen & truth).sum() / max(1, chosen.sum() + truth.sum()))
