"""The losses that a model can learn from: logits and labels in, one number out. The table `LOSSES` lists them.

A configuration names one in its field `loss`; `loss_reduction` says whether it is averaged or summed over the codes of a
note. What may be learned beside it, and is not by default: from marked evidence (`evidence_weight`), from the tree of codes
(`tree_smoothing`, `category_weight`), from two passes that should agree (`r_drop`), and from notes that should be alike, or not, to a code
(`contrast_weight`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from .attention_icd import widened
from .comparators_icd import upper_codes
from .layers_icd import values_are_known, without_autocast
from .pooled_icd import require_not_negative, require_positive


REDUCTIONS = ("sum", "mean")
# Of a probability that is raised to a power: the gradient of a power below 1 is infinite at 0.
LEAST = 1e-6


def binary_cross_entropy(logits, labels, counts=None):
    """Binary cross-entropy of each note and code."""
    return nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def focal(logits, labels, counts=None, *, gamma: float):
    """Focal loss (arXiv 1708.02002): what the model already gets right counts less, by `(1 - p_right) ** gamma`."""
    p = torch.sigmoid(logits)
    wrong = labels * (1 - p) + (1 - labels) * p
    return wrong.clamp(min=LEAST) ** gamma * binary_cross_entropy(logits, labels)


def asymmetric(logits, labels, counts=None, *, gamma_negative: float, gamma_positive: float, margin: float):
    """Asymmetric loss (arXiv 2009.14119): a focal loss whose exponents differ for codes that a note has and codes that it
    lacks; the latter count nothing while their score is below `margin`."""
    p = torch.sigmoid(logits)
    shifted = (p - margin).clamp(min=0, max=1 - LEAST)
    absent = -torch.log1p(-shifted) * shifted.clamp(min=LEAST) ** gamma_negative
    return (
        labels * (1 - p).clamp(min=LEAST) ** gamma_positive * -nn.functional.logsigmoid(logits) + (1 - labels) * absent
    )


def class_balanced(logits, labels, counts, *, beta: float):
    """Binary cross-entropy, weighted by the effective number of notes of each code (arXiv 1901.05555): the weight
    `(1 - beta) / (1 - beta ** n)` of a code that `n` training notes have, scaled to a mean of 1."""
    weights = (1 - beta) / (1 - beta ** counts.clamp(min=1))
    return binary_cross_entropy(logits, labels) * (weights / weights.mean())


def _check_number(name: str, value: Any, lowest: float, below: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value < below:
        raise ValueError(f"`{name}` must be a number from {lowest} to below {below:g}, got {value!r}.")


_exponent = partial(_check_number, lowest=0, below=float("inf"))
_share = partial(_check_number, lowest=0, below=1)


@dataclass(frozen=True)
class LossRow:
    """A row of the table of losses.

    Args:
        function (`Callable`): called as `function(logits, labels, counts, **options)` with fp32 tensors `(E, B, C)`,
            `(E, B, C)` and `(C,)`: training notes of each code. Returns `(E, B, C)`.
        options (`dict[str, tuple]`): of each of its options the default, and a check that raises a `ValueError`.
        needs_counts (`bool`): whether it needs the training counts of the codes.
    """

    function: Callable[..., torch.Tensor]
    options: Mapping[str, tuple[float, Callable[[str, Any], None]]] = field(default_factory=dict)
    needs_counts: bool = False


LOSSES: dict[str, LossRow] = {
    "bce": LossRow(binary_cross_entropy),
    "focal": LossRow(focal, {"gamma": (2.0, _exponent)}),
    "asymmetric": LossRow(
        asymmetric,
        {"gamma_negative": (2.0, _exponent), "gamma_positive": (0.0, _exponent), "margin": (0.05, _share)},
    ),
    "class_balanced": LossRow(class_balanced, {"beta": (0.99, _share)}, needs_counts=True),
}
"""Every loss, by the word that a configuration has for it."""


def complete_loss_options(loss: Any, reduction: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a loss: those given, checked, and the defaults of the others.

    Raises:
        ValueError: where the loss or the reduction is unknown, or an option is unknown or out of range.
    """
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, got {loss!r}.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"`loss_reduction` must be 'sum' or 'mean', got {reduction!r}.")
    known, given = LOSSES[loss].options, dict(options or {})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"`loss_options`: the loss {loss!r} has no option {', '.join(unknown)}; it takes {', '.join(known) or 'none'}."
        )
    complete = {name: given.get(name, default) for name, (default, _) in known.items()}
    for name, value in complete.items():
        known[name][1](name, value)
    return complete


def check_labels(labels: torch.Tensor, expected: torch.Size) -> None:
    """Raise a `ValueError` where labels have another shape than the logits, or hold NaN or numbers outside 0 to 1.

    Values are looked at where they are known: not while a graph is traced, nor on the meta device.
    """
    if labels.shape != expected:
        raise ValueError(
            f"`labels` have shape {tuple(labels.shape)}, the logits {tuple(expected)}: give one row per note and one "
            "column per code, 1 where the note has the code."
        )
    if not values_are_known(labels):
        return
    wrong = (~((labels >= 0) & (labels <= 1)).all(dim=1)).nonzero().flatten().tolist()
    if wrong:  # NaN among them, since it compares as neither
        raise ValueError(
            f"`labels` must be numbers from 0 to 1, and are NaN or others in the rows {wrong} of the batch: give 1 where the "
            "note has the code, else 0."
        )


def code_counts(config, device) -> torch.Tensor:
    """Training notes of each code `(C,)`, as `training_data` of a configuration has them.

    Raises:
        ValueError: where it does not.
    """
    counts = (config.training_data or {}).get("code_counts")
    if counts is None:
        raise ValueError(
            f"The loss {config.loss!r} needs the training notes of each code: `training_data` of the configuration must hold "
            "`code_counts`."
        )
    return torch.tensor([float(counts.get(config.id2label[i], 0)) for i in range(config.num_labels)], device=device)


def check_extra_weights(config) -> None:
    """Raise a `ValueError` where what a configuration adds to the loss is out of range, or has nothing to work on."""
    weights = {
        "evidence_weight": config.evidence_weight,
        "category_weight": config.category_weight,
        "r_drop": config.r_drop,
        "contrast_weight": config.contrast_weight,
    }
    for name, value in weights.items():
        require_not_negative(name, value)
    _share("tree_smoothing", config.tree_smoothing)
    require_positive("contrast_codes", config.contrast_codes)
    temperature = config.contrast_temperature
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or temperature <= 0:
        raise ValueError(f"`contrast_temperature` must be a number above 0, got {temperature!r}.")
    if config.r_drop and config.freeze_backbone and not config.head_dropout:
        raise ValueError(
            f"`r_drop` ({config.r_drop}) draws two passes with other dropout together, and this model has no dropout: give "
            "`head_dropout`, too."
        )
    uses_tree = config.tree_smoothing or config.category_weight
    if uses_tree and len({*upper_codes(_codes_of(config))}) == config.num_labels:
        raise ValueError(
            "`tree_smoothing` and `category_weight` are about codes that share a category, their first three characters, and no "
            f"two of the {config.num_labels} codes do: leave them out."
        )


def _codes_of(config) -> list[str]:
    return [config.id2label[i] for i in range(config.num_labels)]


def categories_of(config, device) -> torch.Tensor:
    """The category `(C,)` of each code of a configuration, a number from 0; see [`upper_codes`]."""
    return torch.tensor(upper_codes(_codes_of(config)), dtype=torch.long, device=device)


def sum_per_category(values: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
    """Sums `(..., G)` over the codes of each of the G categories, of values `(..., C)`."""
    num_categories = int(categories.max()) + 1
    return values.new_zeros(*values.shape[:-1], num_categories).index_add(-1, categories, values)


def smooth_labels(labels: torch.Tensor, categories: torch.Tensor, share: float) -> torch.Tensor:
    """Labels `(B, C)` of which each code that a note has gives the `share` to the other codes of its category, in equal
    parts. A code that is alone in its category keeps all."""
    siblings = sum_per_category(labels.new_ones(len(categories)), categories)[categories] - 1  # (C,)
    given = share * labels * (siblings > 0) / siblings.clamp(min=1)  # to each sibling
    return labels - given * siblings + sum_per_category(given, categories)[..., categories] - given


def category_loss(config, members, labels) -> torch.Tensor:
    """How badly the codes together say which categories a note has: binary cross-entropy of the probability that one code of
    the category applies, `1 - prod(1 - p)`, summed over notes and categories, times `category_weight`. Categories of a single
    code are left out: theirs is the code's own loss.

    Args:
        members (`torch.FloatTensor` of shape `(E, B, C)`): logits, fp32.
        labels (`torch.FloatTensor` of shape `(B, C)`): 1 where the note has the code.
    """
    categories = categories_of(config, members.device)
    is_several = sum_per_category(labels.new_ones(len(categories)), categories) > 1  # (G,)
    has_one = (sum_per_category(labels, categories) > 0)[..., is_several]  # (B, G)
    # -log of the probability that no code of the category applies
    none = sum_per_category(-nn.functional.logsigmoid(-members), categories)[..., is_several]
    one = -(-(-none.clamp(min=torch.finfo(none.dtype).tiny)).expm1()).log()
    losses = torch.where(has_one, one, none).sum() / members.shape[0]
    if config.loss_reduction == "mean":  # as over codes: of a note's categories the mean
        losses = losses * labels.shape[1] / max(int(is_several.sum()), 1)
    return config.category_weight * losses


def disagreement(config, first, second) -> torch.Tensor:
    """How far two passes over the same notes with other dropout are apart (R-Drop, arXiv 2106.14448): the mean of both
    Kullback-Leibler divergences of their scores, summed over notes and codes, times half of `r_drop`, since the loss beside it is
    the mean of both passes, and not their sum.

    Args:
        first, second (`torch.FloatTensor` of shape `(E, B, C)`): logits.
    """
    first, second = first.float(), second.float()
    divergence = (torch.sigmoid(first) - torch.sigmoid(second)) * (first - second)  # both, added up
    return config.r_drop / 2 * divergence.sum() / 2 / first.shape[0]


def coding_loss(config, members, labels, num_items=None, again=None) -> torch.Tensor:
    """The loss of a batch: of each member of an ensemble, since heads that learn from a common loss do not differ enough
    to be worth averaging; then their mean.

    Args:
        config: its `loss`, `loss_options` and `loss_reduction` are read, and what else is learned from.
        members (`torch.FloatTensor` of shape `(E, B, C)`): logits.
        labels (`torch.Tensor` of shape `(B, C)`): 1 where the note has the code.
        num_items (`int` or `torch.Tensor`, *optional*):
            Notes times codes of all the batches that make one update, on all processes; these of this batch otherwise.
        again (`torch.FloatTensor` of shape `(E, B, C)`, *optional*): logits of a second pass, with `r_drop`.

    Raises:
        ValueError: where the labels are wrong, or the loss needs counts that the configuration does not have.
    """
    check_labels(labels, members.shape[1:])
    row = LOSSES[config.loss]
    counts = code_counts(config, members.device) if row.needs_counts else None
    apart = 0.0 if again is None else disagreement(config, members, again)
    members = (members if again is None else torch.cat([members, again])).float()
    targets = given = labels.to(members.device).float()
    if config.tree_smoothing:
        targets = smooth_labels(given, categories_of(config, members.device), config.tree_smoothing)
    options = complete_loss_options(config.loss, config.loss_reduction, config.loss_options)
    loss = row.function(members, targets.expand_as(members), counts, **options).sum() / members.shape[0] + apart
    if config.category_weight:
        loss = loss + category_loss(config, members, given)
    return _per_note(loss, config, labels, num_items)


def marked_codes(evidence: torch.Tensor) -> torch.Tensor:
    """The codes `(K,)`, in rising order, that have evidence in some note of a batch; see [`evidence_loss`]."""
    codes = torch.unique(evidence[..., 0])
    return codes[codes >= 0]


def evidence_loss(config, attentions, evidence, labels, num_items=None) -> torch.Tensor:
    """How little attention falls on the words that are known to justify a code: `-log` of the attention's sum over them,
    summed over the codes of a note whose evidence is marked, times `evidence_weight`.

    Args:
        attentions (`torch.FloatTensor` of shape `(B, K, L)`): of the [`marked_codes`]; each row sums to 1.
        evidence (`torch.LongTensor` of shape `(B, K, 2)`): pairs of a code and a token; -1 where a note has fewer.
        labels, num_items: as for [`coding_loss`].
    """
    evidence = evidence.to(attentions.device)
    rows, places = (evidence[..., 0] >= 0).nonzero(as_tuple=True)
    if not len(rows):
        return attentions.sum() * 0
    codes, tokens = evidence[rows, places].T.contiguous()
    codes = torch.searchsorted(marked_codes(evidence), codes)  # among those of the attentions
    marked, pair = torch.unique(rows * attentions.shape[1] + codes, return_inverse=True)
    attended = attentions.new_zeros(len(marked)).index_add(0, pair, attentions[rows, codes, tokens])
    loss = -attended.clamp(min=1e-12).log().sum() * config.evidence_weight
    return _per_note(loss, config, labels, num_items)


def contrast_loss(config, summaries: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
    """How unlike each other the notes of a code are in what the code attends to, beside those that have it not (label-aware
    contrast, as in CoLa-ICD, arXiv 2608.30234): of each note that has a code the mean of `-log(exp(s / t) / sum(exp(s' / t)))`
    over the other notes of the batch that have it, where `s` is the cosine of both notes' vectors for the code, and the sum is
    over all other notes (supervised contrast, arXiv 2004.11362); the mean over notes and codes, times `contrast_weight`.

    A code counts in a batch where two notes have it and one has it not; of more than `contrast_codes` such codes so many are drawn
    in each step. Where no code of a batch counts, it has no pair, and adds nothing.

    Args:
        summaries (`torch.FloatTensor` of shape `(B, C, V)`): what each code attends to in each note.
        labels (`torch.FloatTensor` of shape `(B, C)`): 1 where the note has the code.

    Returns:
        For each note of the batch once, as other losses are, and for each code, unless these are averaged; or `None`.
    """
    has = labels > 0.5
    count = has.sum(dim=0)
    codes = ((count > 1) & (count < len(has))).nonzero().flatten()
    if not len(codes):
        return None
    if len(codes) > config.contrast_codes:
        codes = codes[torch.randperm(len(codes), device=codes.device)[: config.contrast_codes]]
    has = has[:, codes].T  # (K, B)
    with without_autocast(summaries):
        vectors = nn.functional.normalize(widened(summaries[:, codes]), dim=-1).transpose(0, 1)  # (K, B, V)
        similar = vectors @ vectors.mT / config.contrast_temperature
        itself = torch.eye(len(labels), dtype=torch.bool, device=similar.device)
        similar = similar.masked_fill(itself, torch.finfo(similar.dtype).min)
        log_shares = similar.log_softmax(dim=-1)
        is_pair = has[:, :, None] & has[:, None, :] & ~itself
        of_notes = -log_shares.masked_fill(~is_pair, 0).sum(dim=-1) / is_pair.sum(dim=-1).clamp(min=1)
    mean = of_notes.sum() / has.sum()
    num_codes = 1 if config.loss_reduction == "mean" else labels.shape[1]
    return config.contrast_weight * mean * len(labels) * num_codes


def own_loss(config, heads, labels, num_items=None) -> torch.Tensor | float:
    """What heads add to the loss of the batch that they have just read; see `AttendingHead.own_loss` and [`contrast_loss`]. The
    mean of several.

    Args:
        heads (`list[nn.Module]`): of an ensemble, or one.
        labels, num_items: as for [`coding_loss`].
    """
    added: torch.Tensor | float = 0.0
    for head in heads:
        ask = getattr(head, "own_loss", None)
        own = (
            None
            if ask is None
            else ask(labels.to(next(head.parameters()).device).float(), config.loss_reduction == "mean")
        )
        summaries = head.take_summaries() if config.contrast_weight else None
        contrast = None if summaries is None else contrast_loss(config, summaries, labels.to(summaries.device))
        for part in (own, contrast):
            if part is not None:
                added = added + part / len(heads)
    if not isinstance(added, torch.Tensor):
        return added
    num_notes = labels.shape[0] if num_items is None else torch.as_tensor(num_items).flatten()[0] / labels.shape[1]
    return added / num_notes


def _per_note(loss, config, labels, num_items):
    """A sum over notes and codes, divided by the number of notes, and by that of codes where the reduction is a mean."""
    if num_items is None:
        num_items = labels.numel()
    # The same in all entries, where there are several: one for each device.
    num_items = torch.as_tensor(num_items, device=loss.device).flatten()[0]
    codes = labels.shape[1] if config.loss_reduction == "sum" else 1
    return loss * codes / num_items
