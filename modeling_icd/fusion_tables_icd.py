"""What a fused model looks up, as tensors: of stems, terms, codes, training notes and titles."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch


class Tables(NamedTuple):
    """What is looked up. V stems, T terms, P pairs of a term and a code, C codes, the first S of which training notes have, N
    training notes, E stems of titles, U titles, G single stems and pairs of stems, K codes with a linear classifier; matrices with few
    entries are given by rows: `starts` `(rows + 1,)`, `columns` and `values`.

    Args:
        stems (`list[str]`): the first stands for those that are not known.
        rarity (`(V,)`): the log of the inverse share of training notes with a stem, plus 1.
        terms (`tuple`): `(T, V)`, the share of a term's rarity that each of its stems has.
        pair_starts (`(T + 1,)`), pair_codes (`(P,)`): the codes of each term.
        pairs (`(P, 9)`): precision, times tried, times right, notes where it is marked, share of those of this code, stems, rarity;
            precision and times tried in the notes that say the term cleanly (see `is_clean`).
        codes (`(C, 9)`): the features from `log_count` to `chapter`.
        category (`(C,)`): its number.
        notes (`tuple`): `(N, V)`, TF-IDF of length 1.
        note_codes (`tuple`): `(N, S)`, of ones.
        title_stems (`list[str]`), title_rarity (`(E,)`): of titles.
        titles (`tuple`): `(U, E)`, as `terms`.
        title_codes (`(U,)`), title_sources (`(U,)`): its code; 0 for a title, 1 for an inclusion term, 2 for a
            title in another language, 3 for words that are marked in a training note in another language.
        translations (`tuple`): `(V, E)`: stems of titles that a stem of notes means.
        grams (`(G, 2)`): single stems and pairs that are counted; see [`~modeling_icd.fusion_words_icd.grams_of`].
        gram_rarity (`(G,)`): of each the log of the inverse share of training notes with it, plus 1.
        gram_weights (`(G, K)`), gram_biases (`(K,)`), gram_codes (`(K,)`): the classifiers, and the codes that they are of.
    """

    stems: list[str]
    rarity: torch.Tensor
    terms: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    pair_starts: torch.Tensor
    pair_codes: torch.Tensor
    pairs: torch.Tensor
    codes: torch.Tensor
    category: torch.Tensor
    notes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    note_codes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    title_stems: list[str]
    title_rarity: torch.Tensor
    titles: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    title_codes: torch.Tensor
    title_sources: torch.Tensor
    translations: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    grams: torch.Tensor
    gram_rarity: torch.Tensor
    gram_weights: torch.Tensor
    gram_biases: torch.Tensor
    gram_codes: torch.Tensor


def sparse_rows(rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor], num_columns: int) -> torch.Tensor:
    """A matrix with few entries, as torch multiplies it."""
    starts, columns, values = rows
    numbers = torch.arange(len(starts) - 1).repeat_interleave(starts.diff().long())
    places = torch.stack([numbers, columns.long()])
    return torch.sparse_coo_tensor(places, values, (len(starts) - 1, num_columns), check_invariants=False).coalesce()


def row_starts(lengths: Sequence[int]) -> torch.Tensor:
    """Where the rows of a matrix with few entries begin, `(rows + 1,)`, from how many entries each has."""
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).int()


def unpack(letters: torch.Tensor, starts: torch.Tensor) -> list[bytes]:
    """The byte strings that [`pack`] joined."""
    joined, bounds = bytes(letters.tolist()), starts.tolist()
    return [joined[start:end] for start, end in pairwise(bounds)]


def pack(parts: Sequence[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Byte strings as tensors: their bytes, and where each begins."""
    return torch.tensor(list(b"".join(parts)), dtype=torch.uint8), row_starts([len(part) for part in parts])
