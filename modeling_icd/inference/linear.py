"""Computes linear layers by oneDNN in place of MKL, where that is faster: what reads notes on a CPU takes half the time there.

It is not a part of the models, which do without torch's inner operations: [`fast_linear_layers`] is entered around them.
"""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.functional import linear, pad
from torch.overrides import TorchFunctionMode


class OneDNNLinear(TorchFunctionMode):
    """While this context is entered, oneDNN computes the linear layers whose weights are fp32 and on a CPU.

    What they give is the same but for the rounding of fp32. Nothing may need a gradient: the operation has none.
    """

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is linear and not options and not torch.is_grad_enabled():
            states, weight, bias = (*arguments, None)[:3]
            if weight.dtype == states.dtype == torch.float32 and weight.device.type == "cpu" and states.numel():
                return onednn_linear(states, weight, bias)
        return function(*arguments, **(options or {}))


def onednn_linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`torch.nn.functional.linear` by oneDNN."""
    rows = states.reshape(-1, states.shape[-1])
    count = rows.shape[0]
    products = onednn_product(pad(rows, (0, 0, 0, num_padded_rows(count))), weight, bias)
    return products[:count].view(*states.shape[:-1], weight.shape[0])


def num_padded_rows(count: int) -> int:
    """How many rows of zeros to add to so many, so that there are few different numbers: to a multiple of 16, above 64 rows of
    64, and above 1,024 to the next eighth of a power of two. oneDNN keeps a program of up to 1 MB for every number it has
    seen."""
    step = 16 if count <= 64 else max(64, 1 << (count.bit_length() - 4))
    return -count % step


def onednn_product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`rows` `(N, D)` times the transposed `weight` `(F, D)`, plus `bias` `(F,)`."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


def fast_linear_layers(device: torch.device) -> AbstractContextManager:
    """A context in which linear layers are computed by the faster of the libraries that torch brings."""
    return OneDNNLinear() if device.type == "cpu" and is_onednn_faster() else nullcontext()


@functools.cache
def is_onednn_faster() -> bool:
    """Whether this is a processor of AMD with AVX-512, which MKL, torch's default, uses on Intel's alone; with oneDNN a product
    of fp32 matrices then takes less than half the time. The operation is one of torch's own and may change, so its result is
    compared with torch's first."""
    capabilities = torch.cpu.get_capabilities()
    is_meant = bool(capabilities.get("avx512_f")) and "AMD" in str(capabilities.get("cpu_name"))
    if not is_meant or not torch.backends.mkldnn.is_available():
        return False
    states, weight = torch.linspace(-1, 1, 24).view(3, 8), torch.linspace(-1, 1, 40).view(5, 8)
    try:
        with torch.no_grad():
            return torch.allclose(onednn_linear(states, weight, None), linear(states, weight), atol=1e-6)
    except (AttributeError, RuntimeError, TypeError):
        return False
