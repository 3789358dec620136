"""Evidence spans: the words of a note to which a code's attention gives most weight, as character offsets."""

import re
from collections.abc import Sequence

import torch
from torch import nn


def token_weights(
    head: nn.Module, hidden_states: torch.Tensor, class_ids: Sequence[int], method: str | None = None
) -> torch.Tensor | None:
    """How much each token of a note speaks for each of some codes: the attention of the code.

    Args:
        head (`nn.Module`): of the model, its `score`, in evaluation mode.
        hidden_states (`torch.Tensor` of shape `(L, D)`): what the head read of the note, without padding.
        class_ids (`Sequence[int]`): the codes.

    Returns:
        `torch.FloatTensor` of shape `(codes, L)`; `None` where the head does not attend.
    """
    mask = torch.ones(1, len(hidden_states), dtype=torch.long, device=hidden_states.device)
    with torch.no_grad():
        _, attentions = head(hidden_states[None], mask, True)
    return None if attentions is None else attentions[0, list(class_ids)].float()


def word_weights(
    note: str, offsets: torch.Tensor, weights: torch.Tensor
) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """How much each word speaks for each code: the sum over its tokens. A word is a run of characters without white space.

    Args:
        note (`str`): as given; the words are read from it.
        offsets (`torch.Tensor` of shape `(L, 2)`): characters of each token, start and end; (0, 0) for special tokens.
        weights (`torch.Tensor` of shape `(codes, L)`): of each token.

    Returns:
        The words, `(start, end)` in characters of the note, and their weights `(codes, words)` in double precision. A token
        of white space alone gives its weight to no word; the weight of a token that reaches into several words is divided
        evenly among them.
    """
    places = [match.span() for match in re.finditer(r"\S+", note)]
    words = torch.tensor(places, dtype=torch.long).reshape(-1, 2)
    start, end = offsets.long().T.contiguous()
    first = torch.searchsorted(
        words[:, 1].contiguous(), start, right=True
    )  # word whose end lies behind the token's start
    stop = torch.searchsorted(words[:, 0].contiguous(), end)
    reach = (stop - first).clamp(min=0) * (end > start)  # words that the token shares a character with
    token = torch.arange(len(offsets)).repeat_interleave(reach)
    word = first[token] + torch.arange(len(token)) - (reach.cumsum(0) - reach)[token]
    shares = weights.double()[:, token] / reach[token]
    return places, torch.zeros(len(weights), len(words), dtype=torch.double).index_add(1, word, shares)


def evidence_spans(note: str, offsets: torch.Tensor, weights: torch.Tensor, num_spans: int) -> list[list[dict]]:
    """The words to which each code's attention gives most weight; adjacent words are joined to one span.

    Args: those of `word_weights`, and
        num_spans (`int`): how many spans a code gets at most.

    Returns:
        For each code, spans by falling weight, none overlapping another, each from the start of a word to the end of
        one.
    """
    places, by_word = word_weights(note, offsets, weights)
    return [join_words(note, places, of_code, num_spans) for of_code in by_word]


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
