"""The heads of the models: hidden states of a note in, one logit per code out. The table `HEADS` at the end lists them.

To add a head, write its class and a row of the table; the field `head` of a configuration may then name it. From other
code, `register_head` adds a row.

Every head is `forward(hidden_states (B, L, D), attention_mask (B, L), need_attentions=True) -> logits (B, C),
label_attentions (B, C, L) or None`, wherever the hidden states came from. Those of this project can also give the
attention of some codes, or compute some codes alone; see `computes_codes`. Only `HeadEnsemble` returns the logits of its
members separately, `(E, B, C)`. Padding changes no answer: masked positions are left out of every softmax and
average, out of the batch norm's statistics, and are zero before every convolution.

A layer's weights are read by that layer's own `forward`, so that they may lie on another device or on disk until it is
called. A shortlist reads those of two layers before: it brings them to one device, and where one of them lies on disk all
codes are computed. What attends is in attention_icd.py, MultiResCNN in multirescnn_icd.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from .attention_icd import AttendingHead, LabelAttentionHead, LabelOutput, of_codes
from .comparators_icd import CAMLHead, CNNHead, CrossAttentionHead, JointLAATHead, LAATHead, upper_codes
from .graph_icd import LabelGraph, complete_label_graph
from .layers_icd import NORMS
from .multirescnn_icd import MultiResCNNHead
from .pooled_icd import PooledHead, require_not_negative, require_positive


class HeadEnsemble(nn.Module):
    """Heads of the same shape, each from its own random start, over the same hidden states (deep ensembles, arXiv
    1612.01474). With a frozen backbone a further head costs little, and little data makes a single one a matter of luck.

    Args:
        members (`Iterable[nn.Module]`): heads that attend.
    """

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, hidden_states, attention_mask, need_attentions: bool | torch.Tensor = True, **options):
        """Logits of every member `(E, B, C)`, apart so that each can learn from its own loss, and the mean of their
        attention weights `(B, C, L)`, or `None` where they are not needed. The arguments are those of the members."""
        logits, mean = [], None
        for member in self.members:
            member_logits, attentions = member(hidden_states, attention_mask, need_attentions, **options)
            logits.append(member_logits)
            if attentions is not None:
                attentions = attentions / len(self.members)
                mean = attentions if mean is None else mean + attentions  # never E of them at once
        return torch.stack(logits), mean


def computes_codes(head: nn.Module) -> bool:
    """Whether a head can give the attention of some codes, and compute some codes alone (`need_attentions` and `only_codes`
    of `AttendingHead.forward`): those of this project, those that only change what is attended over, and those that say so."""
    return all(
        type(member).forward in (PooledHead.forward, AttendingHead.forward)
        or getattr(member, "gives_codes_alone", False)
        for member in members_of(head)
    )


def can_shortlist(head: nn.Module) -> bool:
    """Whether a head can estimate its logits, and compute the highest alone. An ensemble cannot: each member would choose
    other codes, and the mean of an exact logit and an estimate is neither."""
    return type(head).forward is AttendingHead.forward and bool(getattr(head, "reads_features", False))


def members_of(head: nn.Module) -> list[nn.Module]:
    """The heads of an ensemble; of any other head, itself."""
    return list(head.members) if isinstance(head, HeadEnsemble) else [head]


def run_head(
    head: nn.Module,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    need_attentions: bool | torch.Tensor,
    shortlist: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits of any head and its attention, of all codes, none, or those with the ids `need_attentions`, `(K,)` or `(B, K)`
    with -1 where a note has fewer. Of a head that cannot give some alone, those of all are computed first. With `shortlist`,
    so many logits of each note are exact; see `AttendingHead.shortlisted_logits`."""
    if shortlist is not None and need_attentions is False and can_shortlist(head):
        return head(hidden_states, attention_mask, False, shortlist=shortlist)
    if isinstance(need_attentions, bool) or computes_codes(head):
        return head(hidden_states, attention_mask, need_attentions)
    logits, attentions = head(hidden_states, attention_mask, True)
    return logits, None if attentions is None else of_codes(attentions, need_attentions.to(attentions.device))


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


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be a whole number of at least 0, got {value!r}.")


def _check_parents(name: str, parents: Any) -> None:
    if not isinstance(parents, list | tuple) or not parents:
        raise ValueError(f"`{name}` must name for each code the number of the one above it, got {parents!r}.")
    for parent in parents:
        _check_count(name, parent)


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
_BIAS = {"score_bias": Option(True, _check_flag)}
_PROJECTION = {"projection_size": Option(None, _optional(require_positive))}
_QUERIES = {"num_queries": Option(1, require_positive)}
_SIZES = {**_PROJECTION, "context_size": Option(None, _optional(_odd)), **_QUERIES}

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
            **_QUERIES,
        },
        architectures=ARCHITECTURES,
    ),
    "laat": HeadRow(LAATHead, attends=True, options={**_PROJECTION, **_QUERIES}),
    "joint_laat": HeadRow(
        JointLAATHead,
        attends=True,
        options={
            **_PROJECTION,
            "level_projection_size": Option(128, require_positive),
            "parents": Option(None, _optional(_check_parents)),
        },
    ),
    "cross_attention": HeadRow(CrossAttentionHead, attends=True),
    "caml": HeadRow(
        CAMLHead,
        attends=True,
        options={
            "num_filter_maps": Option(50, require_positive),
            "filter_size": Option(10, require_positive),
            "description_weight": Option(0.0, require_not_negative),
            "description_words": Option(0, _check_count),
        },
    ),
    "cnn": HeadRow(
        CNNHead,
        options={"num_filter_maps": Option(500, require_positive), "filter_size": Option(4, require_positive)},
    ),
    "ends": HeadRow(partial(PooledHead, pooling="ends"), options=_BIAS),
}
"""Every head, by the word that a configuration has for it."""


def start_at_prior(head: nn.Module, log_odds: torch.Tensor) -> None:
    """Start the bias of every code at the log odds `(C,)` of a note having it, as training counts them, so that the first
    steps need not be spent on learning how rare the codes are. A head without a bias is left as it is, and so is an upper level
    of codes within one."""
    for member in members_of(head):
        for layer in [member.output] if isinstance(member, AttendingHead) else member.modules():
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
    """Build the head, or the ensemble of several, that a configuration describes; some describe more than a row of the table."""
    return config.make_head() if hasattr(config, "make_head") else build_head(config, config.num_labels)


def build_head(config, num_labels: int) -> nn.Module:
    """Build the head of the table that a configuration names, for so many codes, the first of its own."""
    row, options = find_head(config.head), dict(config.head_options or {})
    if row.architectures:
        options.pop("architecture", None)  # it chose the values of other options, which are given, too
    if options.get("parents", ()) is None:
        options["parents"] = upper_codes([config.id2label[i] for i in range(num_labels)])

    def make() -> nn.Module:
        head: Any = row.make(config.hidden_size, num_labels, dropout=config.head_dropout, **options)
        if config.contrast_weight:
            head.keeps_summaries = True
        if config.label_graph is not None:
            graph = complete_label_graph(config.label_graph)
            head.output.graph = LabelGraph(num_labels, head.output.in_features, **graph)
        return head

    return make() if config.head_ensemble_size == 1 else HeadEnsemble(make() for _ in range(config.head_ensemble_size))
