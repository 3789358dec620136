"""Makes batches: groups notes of similar length, and pads their tokens or hidden states to one tensor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..windows_icd import pad_rows


if TYPE_CHECKING:
    from .hidden_states import HiddenStates


def batches_by_length(
    lengths: Sequence[int], max_notes: int | None = None, max_tokens: int | None = None
) -> list[list[int]]:
    """Positions of the notes of each batch, the shortest notes first. A note without tokens is in no batch.

    Args:
        lengths (`Sequence[int]`): tokens of each note.
        max_notes (`int`, *optional*): of one batch.
        max_tokens (`int`, *optional*): of a batch of several notes, padding included; a longer note is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted((i for i in range(len(lengths)) if lengths[i]), key=lambda i: lengths[i]):
        size = len(batches[-1]) + 1 if batches else 0
        has_room = batches and (max_notes is None or size <= max_notes)
        if has_room and (max_tokens is None or size * lengths[i] <= max_tokens):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def padded_inputs(
    notes: Sequence[list[int]], states: "HiddenStates | None" = None, pad_token_id: int = 0
) -> dict[str, torch.Tensor]:
    """A batch as a model's input: `input_ids` `(B, L)`, or `hidden_states` `(B, L, D)`, and `attention_mask` `(B, L)`.

    Padding is on the right.

    Args:
        notes: the `input_ids` of each; every note has a token.
        states (`HiddenStates`, *optional*): holds the hidden states of these notes, which stand in place of their tokens.
        pad_token_id (`int`): any token id of the model's vocabulary; the mask leaves padding out.
    """
    if states is None:
        name, (padded, mask) = "input_ids", pad_rows([torch.as_tensor(ids) for ids in notes], pad_token_id)
    else:
        name, (padded, mask) = "hidden_states", states.read_padded(notes)
    return {name: padded, "attention_mask": mask}
