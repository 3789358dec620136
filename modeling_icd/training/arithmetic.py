"""Computes the steps of a training on a CPU in less time: linear layers and convolutions by oneDNN, dropout from fewer random numbers.

It is not a part of the models: [`fast_steps`] is entered around them, as `fast_linear_layers` is where nothing is trained.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.functional import conv1d, dropout, linear, pad
from torch.overrides import TorchFunctionMode

from ..inference.linear import is_onednn_faster, num_padded_rows, onednn_product


SHARES = 1 << 16  # the chance that a number is dropped is a multiple of 1 / SHARES
SMALL = 4096  # numbers below which torch's own dropout is as fast


def padded_to(rows: torch.Tensor, count: int) -> torch.Tensor:
    """`count` rows: those that are given, and zeros."""
    return rows if len(rows) == count else pad(rows, (0, 0, 0, count - len(rows)))


class OneDNNLinearWithGradients(torch.autograd.Function):
    """`torch.nn.functional.linear` whose products are computed by oneDNN, forward and backward, fp32 on a CPU."""

    @staticmethod
    def forward(ctx, states, weight, bias):
        rows = states.reshape(-1, states.shape[-1])
        padded = padded_to(rows, len(rows) + num_padded_rows(len(rows)))
        ctx.save_for_backward(padded, weight)
        ctx.shape, ctx.has_bias = states.shape, bias is not None
        return onednn_product(padded, weight, bias)[: len(rows)].view(*states.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        padded = padded_to(gradient, len(rows))
        of_states = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_states = onednn_product(padded, weight.T)[: len(gradient)].view(ctx.shape)
        if ctx.needs_input_grad[1]:
            of_weight = onednn_product(padded.T, rows.T)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=0)
        return of_states, of_weight, of_bias


class OneDNNConvolution(torch.autograd.Function):
    """A convolution that keeps the length of states `(B, D, L)` whose memory is `(B, L, D)`, as one product for all places of
    its filter, fp32 on a CPU: no state is moved to another place in memory for it."""

    @staticmethod
    def forward(ctx, states, weight):
        size, rows, filters = _rows_and_filters(states, weight)
        padded = padded_to(rows, len(rows) + num_padded_rows(len(rows)))
        ctx.save_for_backward(padded, weight)
        ctx.shape = states.mT.shape
        products = onednn_product(padded, filters)[: len(rows)].view(*states.mT.shape[:2], size, -1)
        if size == 1:
            return products[:, :, 0].mT
        result = products[:, :, size // 2].clone()
        for place, here, there in _shifts(size, states.shape[-1]):
            result[:, here] += products[:, there, place]
        return result.mT

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        (batch, length, _), (filters, _, size) = ctx.shape, weight.shape
        gradient = gradient.mT
        at_places = rows.new_zeros(len(rows), size, filters)
        of_notes = at_places[: batch * length].view(batch, length, size, filters)
        of_notes[:, :, size // 2] = gradient
        for place, here, there in _shifts(size, length):
            of_notes[:, there, place] = gradient[:, here]
        at_places = at_places.view(len(rows), -1)
        of_states = of_weight = None
        if ctx.needs_input_grad[0]:
            of_rows = onednn_product(at_places, weight.permute(1, 2, 0).reshape(weight.shape[1], -1))
            of_states = of_rows[: batch * length].view(ctx.shape).mT
        if ctx.needs_input_grad[1]:
            of_weight = onednn_product(at_places.T, rows.T).view(size, filters, -1).permute(1, 2, 0)
        return of_states, of_weight


def _rows_and_filters(states, weight):
    """Width of a filter `(F, D, width)`, states `(B, D, L)` as rows `(B L, D)`, and the filter as rows `(width F, D)`."""
    return (
        weight.shape[2],
        states.mT.reshape(-1, states.shape[1]),
        weight.permute(2, 0, 1).reshape(-1, weight.shape[1]),
    )


def _shifts(size: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """The places of a filter beside its middle: which tokens have a token there, and which tokens these are."""
    for place in range(size):
        shift = place - size // 2
        if shift and abs(shift) < length:
            yield place, slice(max(0, -shift), length - max(0, shift)), slice(max(0, shift), length + min(0, shift))


def keeps_length(states, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Whether this is a convolution that [`OneDNNConvolution`] computes."""
    plain = _number(stride) == _number(dilation) == groups == 1 and weight.shape[2] % 2 == 1
    return (
        plain
        and _number(padding) == weight.shape[2] // 2
        and states.dim() == 3
        and states.dtype == weight.dtype == torch.float32
        and states.numel() > 0
        and states.mT.is_contiguous()
    )


def _number(value):
    return value[0] if isinstance(value, tuple | list) else value


def quick_dropout(states: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout as in training mode, of 16 random bits a number in place of a whole draw from a distribution."""
    dropped = round(p * SHARES)
    if dropped >= SHARES:
        return states * 0.0
    count = states.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    is_kept = (bits >= dropped - SHARES // 2).view(states.shape)
    return states * is_kept.to(states.dtype).mul_(SHARES / (SHARES - dropped))


class FastSteps(TorchFunctionMode):
    """While this context is entered, linear layers, convolutions and dropout that read fp32 on a CPU are computed as this module says."""

    def __init__(self, with_onednn: bool):
        super().__init__()
        self.with_onednn = with_onednn

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is linear and not options and self.with_onednn:
            states, weight, bias = (*arguments, None)[:3]
            if weight.dtype == states.dtype == torch.float32 and states.numel():
                return OneDNNLinearWithGradients.apply(states, weight, bias)
        elif function is conv1d and not options and self.with_onednn and keeps_length(*arguments):
            bias = arguments[2] if len(arguments) > 2 else None
            result = OneDNNConvolution.apply(*arguments[:2])
            return result if bias is None else result + bias[:, None]
        elif function is dropout and not options.get("inplace"):
            states, p, training = _dropout_arguments(*arguments, **options)
            if training and states.dtype == torch.float32 and states.numel() >= SMALL:
                return quick_dropout(states, p)
        return function(*arguments, **options)


def _dropout_arguments(input, p=0.5, training=True, inplace=False):
    return input, p, training and not inplace


def fast_steps(device: torch.device) -> AbstractContextManager:
    """A context in which a training step's forward pass is computed in less time; its gradients follow from it."""
    if device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return nullcontext()
    return FastSteps(is_onednn_faster())
