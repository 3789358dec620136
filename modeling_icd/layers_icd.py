"""Layers over the states of notes `(B, L, F)` that let no padding into their answers, and two questions about tensors."""

import torch
from torch import nn


def values_are_known(tensor: torch.Tensor) -> bool:
    """Whether a tensor's values can be looked at: not while a graph is traced, nor on the meta device."""
    return not torch.compiler.is_compiling() and tensor.device.type != "meta"


def without_autocast(states: torch.Tensor) -> torch.autocast:
    """A context in which nothing is done in a narrower type than it has; the meta device knows no such context."""
    return torch.autocast(device_type="cpu" if states.is_meta else states.device.type, enabled=False)


class RealTokens:
    """Which tokens of a batch are real: made once for a batch, and asked by every layer that must leave out padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(B, L)`): 1 for a real token, 0 for padding.
    """

    def __init__(self, attention_mask: torch.Tensor):
        self.mask = attention_mask[..., None].bool()  # (B, L, 1)
        # A GPU would have to be waited for to know it.
        is_known = values_are_known(attention_mask) and attention_mask.device.type == "cpu"
        self.are_all = is_known and bool(self.mask.all())
        self._places: torch.Tensor | None = None

    @property
    def places(self) -> torch.Tensor:
        """The real tokens among those of the batch, counted from its first one."""
        if self._places is None:
            self._places = self.mask.flatten().nonzero().squeeze(1)
        return self._places

    def clear(self, states: torch.Tensor) -> torch.Tensor:
        """States `(B, L, F)` with zeros in place of padding."""
        return states if self.are_all else states * self.mask


class SameConvolution(nn.Conv1d):
    """A convolution over the tokens of notes that keeps their number: `(B, L, in_channels)` to `(B, L, out_channels)`. A
    filter of even width stands between two tokens, so that there are `L + 1` places for it.

    The states stay as they lie in memory, with the channels of a token side by side, which is how a processor convolves
    fastest: docs/heads.md. Its weight is that of any `Conv1d`, `(out_channels, in_channels, kernel_size)`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = False):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, states):  # type: ignore[override]
        """`states` `(B, L, in_channels)`, 0 on padding."""
        width = self.kernel_size[0]
        if width == 1:
            return nn.functional.linear(states, self.weight[..., 0], self.bias)
        if states.device.type != "cpu" or not values_are_known(states):  # a graph knows no layout
            return super().forward(states.mT).mT
        picture = states.contiguous().mT[:, :, None]  # (B, in, 1, L), its channels last in memory
        convolved = nn.functional.conv2d(picture, self.weight[:, :, None], self.bias, padding=(0, width // 2))
        return convolved[:, :, 0].mT


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the real tokens alone, so that training statistics do not depend on the padding either."""

    def forward(self, states, real: RealTokens):  # type: ignore[override]
        """`states` `(B, L, F)`; what comes out at padding has no meaning."""
        rows = states.flatten(0, 1)  # (B * L, F)
        # With running statistics every token is alone, so nothing has to be picked out; nor can it be on the meta device.
        if not self.training or states.is_meta or real.are_all:
            return super().forward(rows).view(states.shape)
        normed = super().forward(rows[real.places])
        return torch.zeros_like(rows, dtype=normed.dtype).index_copy(0, real.places, normed).view(states.shape)


class MaskedLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each token, which no other token and no other note of the batch changes."""

    def forward(self, states, real: RealTokens):  # type: ignore[override]
        """`states` `(B, L, F)`; what comes out at padding has no meaning."""
        return super().forward(states)


NORMS = {"batch": MaskedBatchNorm, "layer": MaskedLayerNorm}
