"""Evidence: how much each token and each word of a note speaks for a code, and the spans of its heaviest words.

Every method looks through the head alone, from the hidden states that it read to the logit of a code: the backbone is not
run again. So a weight belongs to the place of a state, which may hold what stands around it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from .heads import computes_codes, members_of


EVIDENCE_METHODS = ("attention", "input_x_gradient", "attingrad", "integrated_gradients")
"""`attention`: the weight that the code's attention gives to a token.
`input_x_gradient`: the entries of a token's state times the gradient of the code's logit with respect to them; of these
products the Euclidean norm, as in AttInGrad (Edin et al., arXiv 2406.08958). It does not tell for from against.
`attingrad`: attention times `input_x_gradient`, after the same.
`integrated_gradients`: the same products with the mean gradient on the way from states of 0 to those of the note, and of them
the sum, which is what the token adds to the logit; a token that takes from it has the weight 0 (arXiv 1703.01365)."""
INTEGRATION_STEPS = 2
"""More did not find marked evidence better: docs/experiments/evidence.md."""


def check_method(method: Any) -> None:
    """Raises a `ValueError` unless `method` is one of `EVIDENCE_METHODS`, or `None`."""
    if method is not None and method not in EVIDENCE_METHODS:
        given = repr(method) if isinstance(method, str) and len(method) < 30 else type(method).__name__
        raise ValueError(f"`evidence_method` must be one of {', '.join(EVIDENCE_METHODS)}, got {given}.")


def token_weights(
    head: nn.Module, hidden_states: torch.Tensor, class_ids: Sequence[int], method: str | None = None
) -> torch.Tensor | None:
    """How much each token of a note speaks for each of some codes.

    Args:
        head (`nn.Module`): of the model, its `score`, in evaluation mode.
        hidden_states (`torch.Tensor` of shape `(L, D)`): what the head read of the note, without padding.
        class_ids (`Sequence[int]`): the codes. With a head of this project, time and memory grow with their number, and not
            with that of all codes of the model.
        method (`str`, *optional*): one of `EVIDENCE_METHODS`; by default the `evidence_method` of the head's class. Where it
            names none: `attention`, or `integrated_gradients` of a head that does not attend.

    Returns:
        `torch.FloatTensor` of shape `(codes, L)`, nothing below 0; attention sums to 1. `None` where no method is given and
        the head reads the last token alone, whose state is all that it knows of a note.

    Raises:
        ValueError: where the method is unknown, or the head does not allow it.
    """
    return _method_and_weights(head, hidden_states, class_ids, method)[1]


def weights_by_source(
    head: nn.Module, hidden_states: torch.Tensor, class_ids: Sequence[int], method: str | None = None
) -> dict[str, torch.Tensor] | None:
    """The weights of [`token_weights`], by what found them.

    Args:
        head, hidden_states, class_ids, method: as there. A head that looks words up, too, has no other method.

    Returns:
        Weights `(codes, L)` by their source, the surest first. A head that looks words up has `term`, places that say a term of
        the code, `title`, places that say its title, and `attention`, or some of these; each sums to 1 over a note, or is 0 where
        nothing was found. Any other head has one source, the method. `None` where [`token_weights`] gives it.
    """
    first: Any = members_of(head)[0]
    if hasattr(first, "weights_by_source"):
        check_method(method)
        _check_possible(first, method)
        with torch.inference_mode(False), torch.no_grad():
            return first.weights_by_source(hidden_states.detach().clone(), list(class_ids))
    name, weights = _method_and_weights(head, hidden_states, class_ids, method)
    return None if weights is None else {name: weights}


def _check_possible(head: nn.Module, method: str | None) -> None:
    """Raises a `ValueError` where a head does not allow a method."""
    possible = getattr(head, "evidence_methods", EVIDENCE_METHODS)
    if method is not None and method not in possible:
        raise ValueError(
            f"This head cannot say by {method} what a code was read from: choose {' or '.join(possible)}."
        )


def _method_and_weights(
    head: nn.Module, hidden_states: torch.Tensor, class_ids: Sequence[int], method: str | None
) -> tuple[str, torch.Tensor | None]:
    """The method that is followed, and what [`token_weights`] gives."""
    check_method(method)
    if getattr(head, "pooling", None) == "last":
        if method is None:
            return "", None
        raise ValueError(f"This head reads the last token alone: {method} cannot say what a code was read from.")
    if not len(class_ids):
        return method or "", torch.zeros(0, len(hidden_states), device=hidden_states.device)
    # The caller's states may come from inference mode, in which no gradient is known: hence the copy.
    with torch.inference_mode(False), torch.no_grad():
        states = hidden_states.detach().clone()
        _, attentions = read_codes(head, states, class_ids)
        first = members_of(head)[0]
        _check_possible(first, method)
        method = method or getattr(first, "evidence_method", None)
        method = method or ("integrated_gradients" if attentions is None else "attention")
        if method == "input_x_gradient":
            return method, input_x_gradient(head, states, class_ids)
        if method == "integrated_gradients":
            return method, integrated_gradients(head, states, class_ids)
        if attentions is None:
            raise ValueError(f"This head does not attend, so it has no {method}: choose integrated_gradients.")
        attentions = attentions.float()
        if method == "attingrad":
            attentions = attentions * input_x_gradient(head, states, class_ids)
        return method, attentions


def input_x_gradient(head: nn.Module, states: torch.Tensor, class_ids: Sequence[int]) -> torch.Tensor:
    """See `EVIDENCE_METHODS`: `(codes, L)`."""
    return gradient_products(head, states, 1.0, class_ids, lambda products: products.norm(dim=-1))


def integrated_gradients(head: nn.Module, states: torch.Tensor, class_ids: Sequence[int]) -> torch.Tensor:
    """See `EVIDENCE_METHODS`: `(codes, L)`. The way is cut in equal parts, with the gradient at the middle of each."""
    scales = [(step + 0.5) / INTEGRATION_STEPS for step in range(INTEGRATION_STEPS)]
    added = [gradient_products(head, states, scale, class_ids, lambda products: products.sum(-1)) for scale in scales]
    return torch.stack(added).mean(dim=0).clamp(min=0)


def gradient_products(
    head: nn.Module,
    states: torch.Tensor,
    scale: float,
    class_ids: Sequence[int],
    reduce: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """States `(L, D)` times the gradients of the codes' logits with respect to states that are scaled, each reduced to
    `(L,)` by `reduce`: `(codes, L)`. The products of one code are held at a time."""
    # cuDNN knows no gradient of a recurrent layer in evaluation mode.
    is_recurrent = any(isinstance(layer, nn.RNNBase) for layer in head.modules())
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False) if is_recurrent else nullcontext():
        point = (states * scale).detach().requires_grad_()
        logits, _ = read_codes(head, point, class_ids)
        rows = []
        for logit in logits:
            (gradient,) = torch.autograd.grad(logit, point, retain_graph=True)
            rows.append(reduce(states.float() * gradient.float()))
    return torch.stack(rows)


def read_codes(
    head: nn.Module, states: torch.Tensor, class_ids: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the head makes of the states `(L, D)` of one note, for some codes alone: logits `(codes,)` and attention
    `(codes, L)` or `None`. Of a head that is not of this project, all codes are computed first."""
    mask = torch.ones(1, len(states), dtype=torch.long, device=states.device)
    chosen = torch.tensor(class_ids, dtype=torch.long, device=states.device)
    if computes_codes(head):
        logits, attentions = head(states[None], mask, only_codes=chosen)
    else:
        logits, attentions = head(states[None], mask)
        logits = logits[..., chosen]
        attentions = None if attentions is None else attentions[:, chosen]
    if logits.dim() == 3:  # the members of an ensemble
        logits = logits.mean(dim=0)
    return logits[0], None if attentions is None else attentions[0]


def word_weights(
    note: str, offsets: torch.Tensor, weights: torch.Tensor
) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """How much each word speaks for each code: the sum over its tokens. A word is a run of characters without white space.

    Args:
        note (`str`): as given; the words are read from it.
        offsets (`torch.Tensor` of shape `(L, 2)`): characters of each token, start and end; (0, 0) for special tokens.
        weights (`torch.Tensor` of shape `(codes, L)`): of each token, by `token_weights`.

    Returns:
        The words, `(start, end)` in characters of the note, and their weights `(codes, words)` in double precision. A token
        of white space alone gives its weight to no word; the weight of a token that reaches into several words is divided
        evenly among them.
    """
    words = [match.span() for match in re.finditer(r"\S+", note)]
    starts, ends = torch.tensor(words, dtype=torch.long).reshape(-1, 2).T.contiguous()
    start, end = offsets.long().T.contiguous()
    first = torch.searchsorted(ends, start, right=True)  # the word whose end lies behind the token's start
    stop = torch.searchsorted(starts, end)
    reach = (stop - first).clamp(min=0) * (end > start)  # words that the token shares a character with
    token = torch.arange(len(offsets)).repeat_interleave(reach)
    word = first[token] + torch.arange(len(token)) - (reach.cumsum(0) - reach)[token]
    shares = weights.double()[:, token] / reach[token]
    return words, torch.zeros(len(weights), len(words), dtype=torch.double).index_add(1, word, shares)


def evidence_spans(note: str, offsets: torch.Tensor, weights: torch.Tensor, num_spans: int) -> list[list[dict]]:
    """The heaviest words of each code; adjacent words are joined to one span.

    Args:
        note, offsets, weights: as in `word_weights`.
        num_spans (`int`): how many spans a code gets at most.

    Returns:
        For each code, spans by falling weight, none overlapping another, each from the start of a word to the end of
        one.
    """
    words, by_word = word_weights(note, offsets, weights)
    return [join_words(note, words, of_code, num_spans) for of_code in by_word]


def spans_by_source(
    note: str, offsets: torch.Tensor, weights: Mapping[str, torch.Tensor], num_spans: int
) -> list[list[dict]]:
    """The spans of all sources of each code, each with its `source`: those of the first source by falling weight, then those of the
    next one that overlap with none of them, and so on.

    Args:
        note, offsets, num_spans: as in `evidence_spans`.
        weights (`Mapping[str, torch.Tensor]`): see `weights_by_source`.
    """
    found: list[list[dict]] = []
    for source, of_source in weights.items():
        spans = evidence_spans(note, offsets, of_source, num_spans)
        found = found or [[] for _ in spans]
        for own, further in zip(found, spans, strict=True):
            own += [
                {**span, "source": source}
                for span in further
                if all(span["end"] <= other["start"] or other["end"] <= span["start"] for other in own)
            ]
    return [own[:num_spans] for own in found]


def join_words(note: str, words: list[tuple[int, int]], weights: torch.Tensor, num_spans: int) -> list[dict]:
    """The spans of one code, from the weight of each word."""
    # A word counts when it holds at least a fifth of the heaviest word's share: enough to join a phrase, and to leave
    # out the flat rest of a note.
    floor = weights.max().item() / 5 if len(weights) else 0
    spans: list[dict] = []
    previous = None
    for i in ((weights > 0) & (weights >= floor)).nonzero().flatten().tolist():
        start, end = words[i]
        if spans and previous == i - 1:
            spans[-1]["end"] = end
            spans[-1]["weight"] += weights[i].item()
        else:
            spans.append({"start": start, "end": end, "weight": weights[i].item()})
        previous = i
    spans.sort(key=lambda span: (-span["weight"], span["start"]))
    return [
        {"start": s["start"], "end": s["end"], "text": note[s["start"] : s["end"]], "weight": s["weight"]}
        for s in spans[:num_spans]
    ]
