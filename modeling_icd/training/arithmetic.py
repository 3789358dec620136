"""Computes the steps of a training on a CPU in less time: linear layers by oneDNN, dropout from fewer random numbers.

It is not a part of the models: [`fast_steps`] is entered around them, as `fast_linear_layers` is where nothing is trained.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.functional import dropout, linear, pad
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
    """While this context is entered, linear layers and dropout that read fp32 on a CPU are computed as this module says; what
    autocast would compute in a narrower type is left to it."""

    def __init__(self, with_onednn: bool):
        super().__init__()
        self.with_onednn = with_onednn

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if torch.is_autocast_enabled("cpu"):  # which a model may enter after this context
            return function(*arguments, **options)
        if function is linear and not options and self.with_onednn:
            states, weight, bias = (*arguments, None)[:3]
            if weight.dtype == states.dtype == torch.float32 and states.numel():
                return OneDNNLinearWithGradients.apply(states, weight, bias)
        elif function is dropout and not options.get("inplace"):
            states, p, training = _dropout_arguments(*arguments, **options)
            if training and states.dtype == torch.float32 and states.numel() >= SMALL:
                return quick_dropout(states, p)
        return function(*arguments, **options)


def _dropout_arguments(input, p=0.5, training=True, inplace=False):
    return input, p, training and not inplace


def fast_steps(device: torch.device) -> AbstractContextManager:
    """A context in which a training step's forward pass is computed in less time; its gradients follow from it."""
    return FastSteps(is_onednn_faster()) if device.type == "cpu" else nullcontext()
