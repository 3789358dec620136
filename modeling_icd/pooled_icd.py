"""Heads that make one vector of a note, and read all codes from it by one linear layer."""

from typing import Any

import torch
from torch import nn


POOLINGS = ("last", "mean", "ends", "filters")


def require_positive(name: str, value: Any) -> None:
    """Raise a `ValueError` that names the field, unless its value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")


def require_not_negative(name: str, value: Any) -> None:
    """Raise a `ValueError` that names the field, unless its value is a number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a number of at least 0, got {value!r}.")


def state_at(hidden_states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The state `(B, D)` at one place of each note, of states `(B, L, D)` and places `(B,)`; for batches of any size in ONNX, too."""
    index = places[:, None, None].expand(-1, 1, hidden_states.shape[-1])
    return hidden_states.gather(1, index)[:, 0]


class PooledHead(nn.Linear):
    """One vector per note, then one linear layer: the layer that a model names `score`.

    It is a linear layer itself, so that in a model its weight is `score.weight` `(C, D)`, as in transformers'
    `LlamaForSequenceClassification`.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        pooling (`str`): `"last"`, the last real token; `"mean"`, over the real tokens; `"ends"`, of a network of two directions
            what each has read last; or `"filters"`, which a subclass pools in its own way.
        dropout (`float`): on the pooled vector.
        score_bias (`bool`): whether every code has a bias, which `LlamaForSequenceClassification` has not.
    """

    def __init__(
        self, hidden_size: int, num_labels: int, pooling: str = "last", dropout: float = 0.0, score_bias: bool = False
    ):
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be {' or '.join(map(repr, POOLINGS[:3]))}, got {pooling!r}.")
        if pooling == "ends" and hidden_size % 2:
            raise ValueError(f"`pooling` 'ends' reads two directions, and the hidden states are {hidden_size} wide.")
        super().__init__(hidden_size, num_labels, bias=score_bias)
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)

    def pooled(self, hidden_states, attention_mask):
        """One vector `(B, D)` for each note, of its states `(B, L, D)`."""
        if self.pooling == "mean":
            weights = attention_mask.float() / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)
            return torch.einsum("bl,bld->bd", weights, hidden_states.float()).to(hidden_states.dtype)
        positions = torch.arange(attention_mask.shape[1], device=hidden_states.device)
        last = state_at(hidden_states, (positions * attention_mask).argmax(dim=1))
        if self.pooling == "last":
            return last
        half = hidden_states.shape[-1] // 2
        return torch.cat([last[:, :half], state_at(hidden_states, attention_mask.argmax(dim=1))[:, half:]], dim=-1)

    def forward(  # type: ignore[override]
        self, hidden_states, attention_mask, need_attentions: bool | torch.Tensor = True, only_codes=None
    ):
        """Pools `hidden_states` `(B, L, D)` over the real tokens; returns logits `(B, C)`, or `(B, K)` of `only_codes` `(K,)`,
        and `None`: nothing attends."""
        pooled = self.dropout(self.pooled(hidden_states.to(self.weight.dtype), attention_mask))
        if only_codes is None:
            return super().forward(pooled), None
        codes = only_codes.to(self.weight.device)
        bias = None if self.bias is None else self.bias[codes]
        return nn.functional.linear(pooled, self.weight[codes], bias), None
