"""In which form hidden states are kept on disk: as they are, rounded to fewer bits, or as fewer numbers a token.

| name | bytes of a token of width D |
|---|---|
| `float32`, `float16`, `bfloat16` | 4 D, 2 D, 2 D |
| `int8` | D: each channel is divided by its own step and rounded |
| `pcaK`, such as `pca64` | 2 K: float16 coordinates in the K directions that keep most of the states |
| `pcaK-int8` | K: the same, rounded as in `int8` |
| `pcaK-int4` | K / 2: the same in 15 steps, two coordinates a byte |

`int8` and `pcaK` are fitted on a sample of training notes. The directions are those of a principal component analysis of
states that are not centred, so that what is read back is `P Pᵀ x`, a linear function of the state `x`. Hence a head that
was trained on it can be applied to the states themselves: [`fold_projection`] puts `P Pᵀ` into the layers that read them.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from dataset_scripts.files import whole_file


PLAIN = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
FORMATS = f"{', '.join(PLAIN)}, pcaK, pcaK-int8 or pcaK-int4 with a number K, such as pca64"
# Steps on either side of 0; and, where they are few, what may be the last value that is told from larger ones, as multiples
# of a channel's root mean square.
INT8_STEPS, INT4_STEPS = 127, 7
INT4_RANGES = (2.0, 2.5, 3.0, 4.0, 6.0, 9.0)


@dataclass(frozen=True)
class StateFormat:
    """A format by its name.

    Args:
        name (`str`): see the top of this file.
        dtype (`torch.dtype`): of the numbers on disk.
        size (`int`, *optional*): numbers of a token, where the states are projected; `None`: D.
        is_int4 (`bool`): whether two of them share a byte.
    """

    name: str
    dtype: torch.dtype
    size: int | None = None
    is_int4: bool = False

    @classmethod
    def of(cls, name: str) -> "StateFormat":
        """The format of a name.

        Raises:
            ValueError: where there is no such format.
        """
        if name in PLAIN:
            return cls(name, PLAIN[name])
        match = re.fullmatch(r"pca([1-9]\d*)(-int8|-int4)?", str(name))
        if match is None:
            raise ValueError(f"`hidden_states_format` must be one of {FORMATS}, got {name!r}.")
        size, is_int4 = int(match[1]), match[2] == "-int4"
        if is_int4 and size % 2:
            raise ValueError(f"`hidden_states_format` {name} puts two numbers into a byte: give an even one.")
        return cls(name, torch.int8 if match[2] else torch.float16, size, is_int4)

    @property
    def is_fitted(self) -> bool:
        """Whether it must see states of training notes first."""
        return self.size is not None or self.dtype == torch.int8

    def token_bytes(self, width: int) -> int:
        """Bytes of one token on disk, of states of this width."""
        return (self.size or width) * self.dtype.itemsize // (2 if self.is_int4 else 1)


class StateCodec:
    """Turns hidden states into the bytes that are stored, and back.

    Args:
        format (`StateFormat`): which form they have on disk.
        width (`int`): D.
        directions (`torch.Tensor` of shape `(D, K)`, *optional*): orthonormal, of a format that projects.
        steps (`torch.Tensor` of shape `(K,)` or `(D,)`, *optional*): what one unit of each `int8` channel stands for.

    Raises:
        ValueError: where the format keeps more directions than there are.
    """

    def __init__(self, format: StateFormat, width: int, directions=None, steps=None):
        if format.size is not None and format.size >= width:
            raise ValueError(
                f"`hidden_states_format` {format.name} keeps {format.size} directions of states that have {width}: give fewer."
            )
        self.format, self.width, self.directions, self.steps = format, width, directions, steps
        self.token_bytes = format.token_bytes(width)
        self._back = None  # (K, D): from what is on disk to states
        if directions is not None:
            self._back = directions.T.contiguous() if steps is None else steps[:, None] * directions.T

    @classmethod
    def fit(cls, format: StateFormat, states: torch.Tensor) -> "StateCodec":
        """Fit a format on a sample of states, fp32 `(N, D)`.

        The steps are such that the largest value of each channel in the sample is the last that can be written; larger ones
        are cut to it.

        Raises:
            ValueError: where the format keeps more directions than the states have.
        """
        width = states.shape[1]
        codec = cls(format, width)
        if format.size is not None:
            products = torch.zeros(width, width, dtype=torch.float64)
            for part in states.split(4096):
                products += (part.T @ part).double()
            directions = torch.linalg.eigh(products)[1].flip(1)[:, : format.size]  # of the largest first
            largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
            codec.directions = (directions * largest.sign()).float().contiguous()
        if format.is_int4:
            codec.steps = best_steps(codec._projected(states))
        elif format.dtype == torch.int8:
            channels = codec._projected(states)
            codec.steps = channels.abs().amax(dim=0).clamp(min=torch.finfo(torch.float32).tiny) / INT8_STEPS
        return cls(format, width, codec.directions, codec.steps)

    def _projected(self, states: torch.Tensor) -> torch.Tensor:
        return states if self.directions is None else states @ self.directions

    def encode(self, states: torch.Tensor) -> memoryview:
        """The bytes of states, fp32 `(L, D)`.

        Raises:
            ValueError: where they exceed the range of `float16`.
        """
        numbers = self._projected(states)
        if self.format.is_int4:
            places = (numbers / self.steps).round_().clamp_(-INT4_STEPS, INT4_STEPS).add_(INT4_STEPS).to(torch.uint8)
            return (places[:, ::2] << 4 | places[:, 1::2]).contiguous().view(-1).numpy().data
        if self.format.dtype == torch.int8:
            numbers = (numbers / self.steps).round_().clamp_(-INT8_STEPS, INT8_STEPS)
        elif len(numbers) and max(abs(end) for end in numbers.aminmax()) > torch.finfo(self.format.dtype).max:
            raise ValueError(
                f"Hidden states exceed the range of {self.format.name}: use `hidden_states_format: float32` or `bfloat16`, or "
                "`normalize_hidden_states: true`."
            )
        return numbers.to(self.format.dtype).contiguous().view(-1).view(torch.uint8).numpy().data

    def decode_into(self, content, out: torch.Tensor) -> None:
        """Write the states of a token each into `out`, fp32 `(L, D)`, from the bytes that [`encode`] made of them."""
        if self.format.is_int4:
            pairs = torch.frombuffer(content, dtype=torch.uint8)
            numbers = torch.stack([pairs >> 4, pairs & 15], dim=1).view(len(out), -1).float().sub_(INT4_STEPS)
        else:
            numbers = torch.frombuffer(content, dtype=self.format.dtype).view(len(out), -1)
        if self._back is not None:
            torch.mm(numbers.float(), self._back, out=out)
        else:
            out.copy_(numbers)
            if self.steps is not None:
                out.mul_(self.steps)

    def save(self, file: Path) -> None:
        """Write what was fitted to a file that its owner alone may read."""
        tensors = {"directions": self.directions, "steps": self.steps}
        content = save({name: tensor for name, tensor in tensors.items() if tensor is not None})
        with whole_file(file, "wb", private=True) as out:
            out.write(content)

    @classmethod
    def load(cls, format: StateFormat, width: int, file: Path) -> "StateCodec | None":
        """What [`save`] wrote, or `None` where the file is missing, damaged or of other states."""
        size = format.size or width
        shapes: dict[str, tuple[int, ...]] = {"directions": (width, size)} if format.size is not None else {}
        shapes |= {"steps": (size,)} if format.dtype == torch.int8 else {}
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError):
            return None
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            return None
        if not all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values()):
            return None
        return cls(format, width, **tensors)


def best_steps(channels: torch.Tensor) -> torch.Tensor:
    """The step `(K,)` of each channel of a sample `(N, K)` with the least squared error, where 15 numbers stand for all: a
    range that holds every value would leave too few steps for most of them."""
    spread = channels.square().mean(dim=0).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    steps = torch.stack([spread * width / INT4_STEPS for width in INT4_RANGES])  # (ranges, K)
    errors = torch.stack(
        [
            ((channels / step).round().clamp(-INT4_STEPS, INT4_STEPS) * step - channels).square().sum(dim=0)
            for step in steps
        ]
    )
    return steps.gather(0, errors.argmin(dim=0, keepdim=True))[0]


@torch.no_grad()
def fold_projection(head: nn.Module, directions: torch.Tensor) -> None:
    """Put the projection onto some directions into the layers of a head that read the hidden states.

    The head gives the same as before for projected states, and now for all others what it gives for their projections. It
    may be done again at any time.

    Args:
        head (`nn.Module`): of any class; changed in place.
        directions (`torch.Tensor` of shape `(D, K)`): orthonormal.
    """
    for layer in _layers_that_read(head, directions.shape[0]):
        basis = directions.to(layer.weight)
        rows = layer.weight.transpose(1, -1)  # (out, D), of a convolution (out, width, D)
        layer.weight.copy_((rows @ basis @ basis.T).transpose(1, -1))


def check_foldable(head: nn.Module, directions: torch.Tensor, format: str) -> None:
    """See whether [`fold_projection`] does for this head what it says.

    Raises:
        ValueError: where the head reads hidden states in another way than by linear layers and convolutions.
    """
    folded = copy.deepcopy(head).eval().float().cpu()
    states = _probe(directions.shape[0])
    mask = torch.ones(states.shape[:2], dtype=torch.long)
    basis = directions.float().cpu()
    with torch.no_grad():
        expected = folded(states @ basis @ basis.T, mask, False)[0]
        fold_projection(folded, basis)
        found = folded(states, mask, False)[0]
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ValueError(
            f"`hidden_states_format` {format} leaves out a part of each state, and this head, {type(head).__name__}, reads states "
            "not only by linear layers and convolutions, so that it could not be applied to whole ones: give `reduction_size` "
            "where it has one, or a format without `pca`."
        )


def _probe(width: int) -> torch.Tensor:
    """Random states of a note `(1, 3, D)`."""
    return torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))


def _layers_that_read(head: nn.Module, width: int) -> list[nn.Linear | nn.Conv1d]:
    """The linear layers and convolutions whose input are the hidden states as they are."""
    first = next(head.parameters())
    states = _probe(width).to(first.device, first.dtype)
    found: list[nn.Linear | nn.Conv1d] = []

    def look(layer, inputs):
        given = inputs[0]
        if given.dim() == 3 and (torch.equal(given, states) or torch.equal(given.mT, states)):
            found.append(layer)

    with _in_evaluation(head):
        hooks = [
            layer.register_forward_pre_hook(look)
            for layer in head.modules()
            if isinstance(layer, nn.Linear | nn.Conv1d) and layer.weight.shape[1] == width
        ]
        try:
            head(states, torch.ones(states.shape[:2], dtype=torch.long, device=first.device), False)
        finally:
            for hook in hooks:
                hook.remove()
    return found


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
