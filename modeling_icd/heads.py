"""The heads of the models: hidden states of a note in, one logit per code out. The table `HEADS` at the end lists them.

To add a head, write its class and a row of the table; the field `head` of a configuration may then name it. From other
code, `register_head` adds a row.

Every head is `forward(hidden_states (B, L, D), attention_mask (B, L), need_attentions=True) -> logits (B, C),
label_attentions (B, C, L) or None`, wherever the hidden states came from. Only `HeadEnsemble` returns the logits of its
members separately, `(E, B, C)`. Padding changes no answer: masked positions are left out of every softmax and
average, out of the batch norm's statistics, and are zero before every convolution.

A layer's weights are read by that layer's own `forward` and nowhere else, so that they may lie on another device or on
disk until it is called.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn


def require_positive(name: str, value: Any) -> None:
    """Raise a `ValueError` that names the field, unless its value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")


def without_autocast(states: torch.Tensor) -> torch.autocast:
    """A context in which nothing is done in a narrower type than it has; the meta device knows no such context."""
    return torch.autocast(device_type="cpu" if states.is_meta else states.device.type, enabled=False)


class PooledHead(nn.Linear):
    """One vector per note, then one linear layer: the layer that a model names `score`.

    It is a linear layer itself, so that in a model its weight is `score.weight` `(C, D)`, as in transformers'
    `LlamaForSequenceClassification`.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        pooling (`str`): `"last"`, the last real token, or `"mean"`, over the real tokens.
        dropout (`float`): on the pooled vector.
        score_bias (`bool`): whether every code has a bias, which `LlamaForSequenceClassification` has not.
    """

    def __init__(
        self, hidden_size: int, num_labels: int, pooling: str = "last", dropout: float = 0.0, score_bias: bool = False
    ):
        if pooling not in ("last", "mean"):
            raise ValueError(f"`pooling` must be 'last' or 'mean', got {pooling!r}.")
        super().__init__(hidden_size, num_labels, bias=score_bias)
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states, attention_mask, need_attentions: bool = True):  # type: ignore[override]
        """Pools `hidden_states` `(B, L, D)` over the real tokens; returns logits `(B, C)` and `None`: nothing attends."""
        hidden_states = hidden_states.to(self.weight.dtype)
        if self.pooling == "last":
            positions = torch.arange(attention_mask.shape[1], device=hidden_states.device)
            last = (positions * attention_mask).argmax(dim=1)  # (B,)
            pooled = hidden_states[torch.arange(last.shape[0], device=hidden_states.device), last]
        else:
            weights = attention_mask.float() / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)
            pooled = torch.einsum("bl,bld->bd", weights, hidden_states.float()).to(hidden_states.dtype)
        return super().forward(self.dropout(pooled)), None


def attend_per_label(scores: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Softmax of each code's scores over the real tokens, in fp32: in half precision it overflows.

    Args:
        scores (`torch.Tensor` of shape `(B, C, L)`): any floating type.
        attention_mask (`torch.Tensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.

    Returns:
        fp32 weights `(B, C, L)`, each row summing to 1 and 0 on padding.
    """
    padding = attention_mask[:, None, :] == 0
    return scores.float().masked_fill(padding, torch.finfo(torch.float32).min).softmax(dim=-1)


class LabelQueries(nn.Linear):
    """One attention query per code (CAML, arXiv 1802.05695, section 2.2): its weight is `(C, F)`, without a bias.

    Products of half-precision vectors can exceed their range before any softmax, so this is done in fp32, and no autocast
    context may undo it.
    """

    def __init__(self, features: int, num_labels: int):
        super().__init__(features, num_labels, bias=False)

    def forward(self, states, attention_mask, need_attentions: bool = True):  # type: ignore[override]
        """Sums the states of a note for each code, weighted by the code's attention.

        Args:
            states (`torch.Tensor` of shape `(B, L, F)`): any floating type.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.
            need_attentions (`bool`): without them, `(B, C, L)` is never held in memory.

        Returns:
            Summaries `(B, C, F)` and attention weights `(B, C, L)` or `None`, in fp32.
        """
        with without_autocast(states):
            states, queries = states.float(), self.weight.float()
            if not need_attentions:
                queries = queries.expand(states.shape[0], 1, *queries.shape)  # (B, 1, C, F)
                memory, real = states[:, None], attention_mask.bool()[:, None, None, :]
                attended = nn.functional.scaled_dot_product_attention(
                    queries, memory, memory, attn_mask=real, scale=1.0
                )
                return attended.squeeze(1), None
            scores = nn.functional.linear(states, queries).transpose(1, 2)  # (B, C, L)
            attentions = attend_per_label(scores, attention_mask)
            return attentions @ states, attentions


class LabelOutput(nn.Linear):
    """One output vector and bias per code, each for the summary of its own code, in fp32: `(B, C, F)` to `(B, C)`."""

    def forward(self, summaries):
        with without_autocast(summaries):
            return (summaries.float() * self.weight.float()).sum(dim=-1) + self.bias.float()


class AttendingHead(nn.Module):
    """Base class of the heads that attend: a subclass makes `features` of the hidden states; every code has one query over
    them, in `queries`, and one output vector for what it attends to, in `output`.

    Args:
        features (`int`): F, the width of what is attended over.
        num_labels (`int`): C.
    """

    evidence_method = "attention"  # what says best which words a code was read from; see evidence_icd.py

    def __init__(self, features: int, num_labels: int, dropout: float):
        super().__init__()
        self.queries = LabelQueries(features, num_labels)
        self.output = LabelOutput(features, num_labels)
        self.dropout = nn.Dropout(dropout)

    first_scale = 1.0
    """Standard deviation of what the first layer makes of the hidden states, where a head is started from notes."""

    @property
    def first_layer(self) -> nn.Module | None:
        """The layer that reads the hidden states, a linear one or a convolution of width 1, if there is one."""
        return None

    def features(self, hidden_states, attention_mask):
        """What is attended over, `(B, L, F)`, of hidden states `(B, L, D)` and their mask `(B, L)`."""
        raise NotImplementedError

    def forward(self, hidden_states, attention_mask, need_attentions: bool = True):
        """Scores every code against every token, then classifies each code from its own summary.

        Args:
            hidden_states (`torch.FloatTensor` of shape `(B, L, D)`): windows already stitched into one sequence.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token; every row holds at least one 1.
            need_attentions (`bool`): without them, less memory is needed, and the logits are the same to rounding.

        Returns:
            Logits `(B, C)`, before the sigmoid, and attention weights `(B, C, L)`, each row summing to 1 and 0 on
            padding, or `None`.
        """
        states = self.features(hidden_states.to(self.queries.weight.dtype), attention_mask)
        summaries, attentions = self.queries(states, attention_mask, need_attentions)
        return self.output(summaries).to(hidden_states.dtype), attentions


class LabelAttentionHead(AttendingHead):
    """One attention query and one output vector per code over a tanh projection, after LAAT (arXiv 2007.06351); what stands
    around a token may count in it, too, as in CAML.

    Args:
        hidden_size (`int`): D.
        num_labels (`int`): C.
        projection_size (`int`, *optional*, defaults to `hidden_size`): width of the projection that is attended over.
        dropout (`float`): on the projected states.
        context_size (`int`, *optional*): odd width of a convolution that is added to the projection; by default none.
    """

    first_scale = 0.3  # where a tanh is nearly linear

    def __init__(self, hidden_size: int, num_labels: int, projection_size=None, dropout=0.0, context_size=None):
        width = projection_size or hidden_size
        super().__init__(width, num_labels, dropout)
        self.projection = nn.Linear(hidden_size, width)
        self.context = None if context_size is None else same_convolution(hidden_size, width, context_size)

    @property
    def first_layer(self):
        return self.projection

    def features(self, hidden_states, attention_mask):
        states = self.projection(hidden_states)
        if self.context is not None:
            states = states + self.context((hidden_states * attention_mask[..., None]).mT).mT
        return self.dropout(torch.tanh(states))


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the real tokens alone, so that training statistics do not depend on the padding either."""

    def forward(self, states, mask):  # type: ignore[override]
        """`states` `(B, F, L)`, `mask` `(B, 1, L)` bool; padded positions come out as 0."""
        # With running statistics every token is alone, so nothing has to be picked out; nor can it be on the meta device.
        if not self.training or states.is_meta:
            return super().forward(states) * mask
        real = mask.squeeze(1)  # (B, L)
        rows = states.transpose(1, 2)  # (B, L, F)
        normed = super().forward(rows[real])  # (tokens, F)
        return torch.zeros_like(rows, dtype=normed.dtype).masked_scatter(real[..., None], normed).transpose(1, 2)


def same_convolution(in_channels: int, out_channels: int, kernel_size: int, bias: bool = False) -> nn.Conv1d:
    """A convolution that keeps the length."""
    return nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


class MaskedLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each token, which no other token and no other note of the batch changes."""

    def forward(self, states, mask):  # type: ignore[override]
        """`states` `(B, F, L)`, `mask` `(B, 1, L)` bool; padded positions come out as 0."""
        return super().forward(states.transpose(1, 2)).transpose(1, 2) * mask


NORMS = {"batch": MaskedBatchNorm, "layer": MaskedLayerNorm}


class ResidualBlock(nn.Module):
    """conv, norm, tanh, conv, norm, plus a 1x1 convolution and norm of the input, then tanh (arXiv 1912.00862, 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout: float, norm: str = "batch"):
        super().__init__()
        make_norm = NORMS[norm]
        self.conv1 = same_convolution(in_channels, out_channels, kernel_size)
        self.norm1 = make_norm(out_channels)
        self.conv2 = same_convolution(out_channels, out_channels, kernel_size)
        self.norm2 = make_norm(out_channels)
        self.shortcut_conv = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.shortcut_norm = make_norm(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states, mask):
        """`states` `(B, in, L)`, 0 on padding; `mask` `(B, 1, L)` bool. Returns `(B, out, L)`, 0 on padding."""
        inner = torch.tanh(self.norm1(self.conv1(states), mask))
        inner = self.norm2(self.conv2(inner), mask)
        shortcut = self.shortcut_norm(self.shortcut_conv(states), mask)
        return self.dropout(torch.tanh(inner + shortcut))


class FilterChannel(nn.Module):
    """One filter size: tanh of the base convolution D -> D, then the residual blocks."""

    def __init__(self, channels: list[int], kernel_size: int, dropout: float, norm: str = "batch"):
        super().__init__()
        self.base = same_convolution(channels[0], channels[0], kernel_size, bias=True)
        self.blocks = nn.ModuleList(
            ResidualBlock(n_in, n_out, kernel_size, dropout, norm) for n_in, n_out in itertools.pairwise(channels)
        )

    def forward(self, states, mask):
        """`states` `(B, D, L)`, 0 on padding. Returns `(B, num_filter_maps, L)`, 0 on padding."""
        states = torch.tanh(self.base(states)) * mask
        for block in self.blocks:
            states = block(states, mask)
        return states


def residual_channels(width: int, num_filter_maps: int, num_residual_layers: int) -> list[int]:
    """Channels through the residual blocks of one filter, as in the original: 1 layer D -> maps, 2 layers
    D -> 100 -> maps, 3 layers D -> 150 -> 100 -> maps, and so on by steps of 50."""
    return [width, *(50 * (i + 1) for i in range(num_residual_layers - 1, 0, -1)), num_filter_maps]


class MultiResCNNHead(AttendingHead):
    """Multi-filter residual CNN with label attention (arXiv 1912.00862), over any hidden states.

    With the last three arguments left out it is the original; the others of the table are what `ARCHITECTURES` says.

    Args:
        hidden_size (`int`): D of the hidden states.
        num_labels (`int`): C.
        filter_sizes (`Sequence[int]`): odd kernel widths, one channel each.
        num_filter_maps (`int`): what each channel contributes to the states that are attended over.
        num_residual_layers (`int`): residual blocks per channel.
        reduction_size (`int`, *optional*): width of a 1x1 convolution in front; `None` is the original.
        dropout (`float`): on the hidden states and after each residual block.
        norm (`str`): `"batch"` or `"layer"`.
        reduced_path (`bool`): whether the states in front of the filters are attended over, too, beside what each filter
            makes of them: a code that one word tells need not be learned through three convolutions.
        projection_size (`int`): width of a layer norm, projection and tanh behind the filters, as in front of the
            attention of LAAT; 0: none.
    """

    evidence_method = "integrated_gradients"  # what is attended over, the filters made of several tokens

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        filter_sizes=(3, 5, 9, 15, 19, 25),
        num_filter_maps: int = 50,
        num_residual_layers: int = 1,
        reduction_size: int | None = None,
        dropout: float = 0.2,
        norm: str = "batch",
        reduced_path: bool = False,
        projection_size: int = 0,
    ):
        width = hidden_size if reduction_size is None else reduction_size
        joined = len(filter_sizes) * num_filter_maps + (width if reduced_path else 0)
        super().__init__(projection_size or joined, num_labels, dropout)
        self.reduction = nn.Conv1d(hidden_size, reduction_size, 1) if reduction_size is not None else None
        channels = residual_channels(width, num_filter_maps, num_residual_layers)
        self.channels = nn.ModuleDict(
            {str(size): FilterChannel(channels, size, dropout, norm) for size in filter_sizes}
        )
        self.reduced_path = reduced_path
        self.projection = None
        if projection_size:
            self.projection = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, projection_size), nn.Tanh())

    @property
    def first_layer(self):
        return self.reduction

    def features(self, hidden_states, attention_mask):
        mask = attention_mask[:, None, :].bool()  # (B, 1, L)
        states = self.dropout(hidden_states).transpose(1, 2)  # (B, D, L)
        if self.reduction is not None:
            states = self.reduction(states)
        states = states * mask
        parts = [channel(states, mask) for channel in self.channels.values()]
        states = torch.cat([*parts, *([states] if self.reduced_path else [])], dim=1).transpose(1, 2)
        return states if self.projection is None else self.projection(states)

    @classmethod
    def from_original(cls, state_dict, filter_sizes, dropout: float = 0.2):
        """Builds a head from a checkpoint of the original implementation.

        Args:
            state_dict (`dict[str, torch.Tensor]`):
                Weights under the original's names, less `word_rep.*` (ignored where present):
                `conv.channel-{k}.baseconv`, `conv.channel-{k}.resconv-{i}.left|shortcut.*`, `output_layer.U|final`.
            filter_sizes (`Sequence[int]`): in the order in which the original concatenates them.

        Raises:
            ValueError: naming weights that are missing or not the original's.
        """
        state_dict = {name: value for name, value in state_dict.items() if not name.startswith("word_rep.")}
        renamed = {}
        for name, value in state_dict.items():
            # The original's attention query has a bias that its forward pass never reads.
            if name != "output_layer.U.bias":
                renamed[_from_original_name(name)] = value
        try:
            num_labels, features = renamed["queries.weight"].shape
            width = renamed[f"channels.{filter_sizes[0]}.base.weight"].shape[0]
        except KeyError as error:
            raise ValueError(
                f"The checkpoint has no weight {error}: is `filter_sizes` {filter_sizes} right?"
            ) from None
        num_layers = 1 + max(int(n.split(".")[3]) for n in renamed if ".blocks." in n)
        head = cls(width, num_labels, filter_sizes, features // len(filter_sizes), num_layers, None, dropout)
        missing, unexpected = head.load_state_dict(renamed, strict=False)
        if missing or unexpected:
            raise ValueError(
                f"Not a MultiResCNN with filters {list(filter_sizes)}: missing {missing[:3]}, unexpected {unexpected[:3]}."
            )
        return head


class HeadEnsemble(nn.Module):
    """Heads of the same shape, each from its own random start, over the same hidden states (deep ensembles, arXiv
    1612.01474). With a frozen backbone a further head costs little, and little data makes a single one a matter of luck.

    Args:
        members (`Iterable[nn.Module]`): heads that attend.
    """

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, hidden_states, attention_mask, need_attentions: bool = True):
        """Logits of every member `(E, B, C)`, apart so that each can learn from its own loss, and the mean of their
        attention weights `(B, C, L)`, or `None` where they are not needed."""
        logits, mean = [], None
        for member in self.members:
            member_logits, attentions = member(hidden_states, attention_mask, need_attentions)
            logits.append(member_logits)
            if attentions is not None:
                attentions = attentions / len(self.members)
                mean = attentions if mean is None else mean + attentions  # never E of them at once
        return torch.stack(logits), mean


_ORIGINAL_NAMES = {
    "left.0": "conv1",
    "left.1": "norm1",
    "left.3": "conv2",
    "left.4": "norm2",
    "shortcut.0": "shortcut_conv",
    "shortcut.1": "shortcut_norm",
}


def _from_original_name(name: str) -> str:
    name = re.sub(r"^output_layer\.U\.", "queries.", name)
    name = re.sub(r"^output_layer\.final\.", "output.", name)
    name = re.sub(r"^conv\.channel-(\d+)\.baseconv\.", r"channels.\1.base.", name)
    return re.sub(
        r"^conv\.channel-(\d+)\.resconv-(\d+)\.((?:left|shortcut)\.\d)\.",
        lambda m: f"channels.{m[1]}.blocks.{m[2]}.{_ORIGINAL_NAMES.get(m[3], m[3])}.",
        name,
    )


@dataclass(frozen=True)
class Option:
    """An option of a head: its default, and a check of given values.

    Args:
        default: its value where none is given.
        check (`Callable`): `check(name, value)` raises a `ValueError` that names the option if the value is wrong.
    """

    default: Any
    check: Callable[[str, Any], None]


@dataclass(frozen=True)
class HeadRow:
    """A row of the table of heads.

    Args:
        make (`Callable`): the class, called as `make(hidden_size, num_labels, dropout=..., **options)`.
        attends (`bool`): whether it gives label attentions, which evidence and ensembles need.
        options (`dict[str, Option]`): its own settings, beside `head_dropout` and `head_ensemble_size`.
        dropout (`float`): default of `head_dropout`.
        architectures (`dict[str, dict]`): where the head has an option `architecture`, the values that each word for it
            gives to the options whose default is `None`.
    """

    make: Callable[..., nn.Module]
    attends: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    dropout: float = 0.0
    architectures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def complete(self, word: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of this head: those `given`, checked, and the defaults of the others.

        Raises:
            ValueError: where a value is out of range, or the head has no such option.
        """
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise ValueError(
                f"The head {word!r} has no option {', '.join(f'`{name}`' for name in unknown)}: it takes "
                f"{', '.join(self.options) or 'none'}."
            )
        complete = {name: option.default for name, option in self.options.items()} | dict(given)
        for name, value in self.architectures.get(str(complete.get("architecture")), {}).items():
            if complete[name] is None:
                complete[name] = value
        for name, value in complete.items():
            self.options[name].check(name, value)
        # As lists, which is how they come back from a saved configuration.
        return {name: list(value) if isinstance(value, tuple) else value for name, value in complete.items()}


def _odd(name: str, size: Any) -> None:
    require_positive(name, size)
    if size % 2 == 0:
        raise ValueError(f"`{name}` must be odd, got {size}: an even filter changes the length of the note.")


def _check_filter_sizes(name: str, sizes: Any) -> None:
    if not isinstance(sizes, list | tuple):
        raise ValueError(f"`{name}` must be a list of odd widths, got {sizes!r}.")
    if not sizes:
        raise ValueError(f"`{name}` is empty: give at least one odd width.")
    for size in sizes:
        _odd(name, size)
    if len(set(sizes)) != len(sizes):
        raise ValueError(f"`{name}` repeats a width: {list(sizes)}.")


def _optional(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    return lambda name, value: None if value is None else check(name, value)


def _one_of(*known: Any) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in known:
            raise ValueError(f"`{name}` must be {' or '.join(map(repr, known))}, got {value!r}.")

    return check


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false, got {value!r}.")


def _check_projection_size(name: str, size: Any) -> None:
    if size != 0 or isinstance(size, bool):
        require_positive(name, size)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "paper": {"filter_sizes": (3, 5, 9, 15, 19, 25), "norm": "batch", "reduced_path": False, "projection_size": 0},
    "subword": {"filter_sizes": (1, 3, 5), "norm": "layer", "reduced_path": True, "projection_size": 256},
}
"""Of MultiResCNN: `paper` is the original (arXiv 1912.00862), made for words; `subword` is made for the tokens of a language
model, of which a word has several, and whose states already hold their context."""

_SCORE_BIAS = {"score_bias": Option(False, _check_flag)}
_SIZES = {"projection_size": Option(None, _optional(require_positive)), "context_size": Option(None, _optional(_odd))}

HEADS: dict[str, HeadRow] = {
    "last": HeadRow(partial(PooledHead, pooling="last"), options=_SCORE_BIAS),
    "mean": HeadRow(partial(PooledHead, pooling="mean"), options=_SCORE_BIAS),
    "label_attention": HeadRow(LabelAttentionHead, attends=True, options=_SIZES),
    "multirescnn": HeadRow(
        MultiResCNNHead,
        attends=True,
        dropout=0.2,
        options={
            "architecture": Option("subword", _one_of(*ARCHITECTURES)),
            "reduction_size": Option(256, _optional(require_positive)),
            "filter_sizes": Option(None, _check_filter_sizes),
            "num_filter_maps": Option(50, require_positive),
            "num_residual_layers": Option(1, require_positive),
            "norm": Option(None, _one_of(*NORMS)),
            "reduced_path": Option(None, _check_flag),
            "projection_size": Option(None, _check_projection_size),
        },
        architectures=ARCHITECTURES,
    ),
}
"""Every head, by the word that a configuration has for it."""


def start_at_prior(head: nn.Module, log_odds: torch.Tensor) -> None:
    """Start the bias of every code at the log odds `(C,)` of a note having it, as training counts them, so that the first
    steps need not be spent on learning how rare the codes are. A head without a bias is left as it is."""
    for layer in head.modules():
        if isinstance(layer, LabelOutput | PooledHead) and layer.bias is not None:
            layer.bias.data.copy_(log_odds)


def register_head(word: str, row: HeadRow) -> None:
    """Add a head of your own to the table. It must be registered again before a model saved with it is loaded.

    Raises:
        ValueError: where there is a head of that name already.
    """
    if word in HEADS:
        raise ValueError(f"There is a head {word!r} already: give yours another name.")
    HEADS[word] = row


def find_head(word: Any, name: str = "head") -> HeadRow:
    """The row of a head in the table; `name` is the field that holds it, for the message.

    Raises:
        ValueError: where there is no such head.
    """
    if not isinstance(word, str) or word not in HEADS:
        raise ValueError(
            f"`{name}` must be one of {', '.join(HEADS)}, got {word!r}. A head of your own comes first by `register_head`."
        )
    return HEADS[word]


def head_of_config(config) -> nn.Module:
    """Build the head, or the ensemble of several, that a configuration describes."""
    row, options = find_head(config.head), dict(config.head_options or {})
    if row.architectures:
        options.pop("architecture", None)  # it chose the values of other options, which are given, too
    make = partial(row.make, config.hidden_size, config.num_labels, dropout=config.head_dropout, **options)
    return make() if config.head_ensemble_size == 1 else HeadEnsemble(make() for _ in range(config.head_ensemble_size))
