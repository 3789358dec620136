"""Evidence spans: the words of a note to which a code's attention gives most weight, as character offsets."""

import re

import torch


def evidence_spans(note: str, offsets: torch.Tensor, weights: torch.Tensor, num_spans: int) -> list[list[dict]]:
    """The words to which each code's attention gives most weight; adjacent words are joined to one span.

    Args:
        note (`str`): as given; the words are read from it.
        offsets (`torch.Tensor` of shape `(L, 2)`): characters of each token, start and end; (0, 0) for special tokens.
        weights (`torch.Tensor` of shape `(codes, L)`): attention of each code to each token.
        num_spans (`int`): how many spans a code gets at most.

    Returns:
        For each code, spans by falling weight, none overlapping another, each from the start of a word to the end of
        one. A token of white space alone gives its weight to no word; the weight of a token that
        reaches into several words is divided evenly among them.
    """
    words = torch.tensor([m.span() for m in re.finditer(r"\S+", note)], dtype=torch.long).reshape(-1, 2)
    start, end = offsets.long().T.contiguous()
    first = torch.searchsorted(
        words[:, 1].contiguous(), start, right=True
    )  # word whose end lies behind the token's start
    stop = torch.searchsorted(words[:, 0].contiguous(), end)
    reach = (stop - first).clamp(min=0) * (end > start)  # words that the token shares a character with
    token = torch.arange(len(offsets)).repeat_interleave(reach)
    word = first[token] + torch.arange(len(token)) - (reach.cumsum(0) - reach)[token]
    shares = weights.double()[:, token] / reach[token]
    by_word = torch.zeros(len(weights), len(words), dtype=torch.double).index_add(1, word, shares)
    places = words.tolist()
    return [join_words(note, places, of_code, num_spans) for of_code in by_word]


def join_words(note: str, words: list[list[int]], weights: torch.Tensor, num_spans: int) -> list[dict]:
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
