"""Cuts notes into windows that overlap, and puts windows of all notes of a batch together."""

import math
from collections.abc import Iterator

import torch
from torch import nn


def window_starts(length: int, window_size: int, window_stride: int) -> list[int]:
    """First token of each window over `length` tokens: just enough windows to reach the last token, none of them empty."""
    return [i * window_stride for i in range(1 + max(0, math.ceil((length - window_size) / window_stride)))]


def pad_rows(rows: list[torch.Tensor], padding_value: float = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads rows of unequal length `(L_i, ...)` on the right, to `(B, L, ...)`, and gives their mask `(B, L)`."""
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding_value)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, (torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]).long()


def flat_notes(given: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The real tokens `real` `(B, L)` of notes `(B, L, ...)` in one row, and how many each note has. On the meta device,
    where only shapes are known, all of them: that is what the longest notes take."""
    if given.is_meta:
        return given.flatten(0, 1), [given.shape[1]] * given.shape[0]
    return given[real], real.sum(dim=1).tolist()


def window_groups(lengths: list[int], size: int, stride: int, max_tokens: int) -> Iterator[list[tuple[int, int, int]]]:
    """The windows of notes that are joined to one sequence, the longest first, in groups of at most `max_tokens` padded
    tokens.

    A window is given by its first token, its last + 1, and the first token whose state is taken from it. A note without a
    token has none.

    Raises:
        ValueError: where no note has a token.
    """
    windows: list[tuple[int, int, int]] = []
    offset = 0
    for length in lengths:
        for start in window_starts(length, size, stride) if length else ():
            first_new = 0 if start == 0 else start - stride + size
            windows.append((offset + start, offset + min(start + size, length), offset + first_new))
        offset += length
    if not windows:
        raise ValueError("An empty note cannot be coded: give every note at least one token.")
    windows.sort(key=lambda window: window[0] - window[1])
    while windows:
        longest = windows[0][1] - windows[0][0]
        count = max(1, max_tokens // longest)
        yield windows[:count]
        del windows[:count]
