"""Reads the text of a note for a fused model: from tokens to words, and from words to stems, each with its place.

A fused model is given the tokens of its backbone, and looks for terms in words. So it knows the bytes of each token, joins them
to the text that they were made of, and makes stems of its words, by fewer steps than a coder by terms takes (knowledge/stems.py):
what English and Spanish write differently is here told apart first, and compared by [`cognate_of`].
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from .fusion_synonyms_icd import WORDS_OF_A_MEANING
from .terms_icd import DENIES, END, FAMILY, SMALL, TermMatcher, TermsConfig, _sentences_and_order


UNKNOWN = "<unk>"
_PIECE = re.compile(r"\w+|[.;!?](?=\s|$)|\n(?=[ \t]*\n|\s*(?:[-*•]|\d+[.)])\s)")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
# One after the other, on a word without accents, in lower case.
STEM_STEPS = tuple(
    (re.compile(pattern), stem)
    for pattern, stem in (
        (r"[ao]e", "e"),
        (r"(?<=\w{3})our\b", "or"),
        *((rf"\b{roman}\b", str(number)) for number, roman in enumerate(("i", "ii", "iii", "iv"), start=1)),
        (r"(?<=\w{3})(?:(?<!s)s|[aeo]s|[aeo])\b", ""),
        (r"(?<=\w{2})y\b", "i"),
    )
)
# What medical words of Greek and Latin have in common in English and in Spanish, once these differences are gone.
_COGNATE_STEPS = tuple(
    (re.compile(pattern), letters)
    for pattern, letters in (
        *(("^ps", "s"), ("^pn", "n"), ("^es(?=[ptcqmlfn])", "s"), ("ph", "f"), ("th", "t"), ("ch", "c")),
        *(("rh|rrh", "r"), ("qu(?=[ei])", "c"), ("y", "i"), ("k", "c"), ("z", "c"), ("m(?=f)", "n")),
        *(("n(?=[pb])", "m"), (r"(.)\1", r"\1"), ("c(?=ion$)", "t"), ("[aeiou]+$", "")),
    )
)


def cognate_of(stem: str) -> str:
    """A stem as its cognate in the other language is written, too: `hipertension` and `hypertension` are one."""
    for pattern, letters in _COGNATE_STEPS:
        stem = pattern.sub(letters, stem)
    return stem


def stem_of(word: str) -> str:
    """The stem of a word that is in lower case and has no accents."""
    for pattern, stem in STEM_STEPS:
        word = pattern.sub(stem, word)
    return word


def _synonyms() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for words in WORDS_OF_A_MEANING:
        stems = frozenset(stem_of(_folded(word)[0]) for word in words)
        found |= {stem: stems - {stem} for stem in stems}
    return found


class Alike:
    """Tells how alike stems are: the cosine of the letters that they have, three at a time.

    Args:
        stems (`Sequence[str]`): those that others are compared with.
        least (`float`): what is less alike is taken for different.
    """

    def __init__(self, stems: Sequence[str], least: float):
        self.least, self.size = least, len(stems)
        with_three: dict[str, tuple[list[int], list[float]]] = {}
        for place, stem in enumerate(stems):
            own = _threes(stem)
            for three in own:
                places, weights = with_three.setdefault(three, ([], []))
                places.append(place)
                weights.append(len(own) ** -0.5)
        self.with_three = {
            three: (torch.tensor(places), torch.tensor(weights)) for three, (places, weights) in with_three.items()
        }

    def find(self, stem: str) -> dict[int, float]:
        """The stems that one is like, by their places, each with how much."""
        own = _threes(stem)
        known = [self.with_three[three] for three in sorted(own) if three in self.with_three]
        if not known:
            return {}
        places, weights = (torch.cat(parts) for parts in zip(*known, strict=True))
        found = torch.zeros(self.size).index_add(0, places, weights) * len(own) ** -0.5
        chosen = (found > self.least).nonzero().flatten()
        return dict(zip(chosen.tolist(), found[chosen].tolist(), strict=True))


def _threes(stem: str) -> set[str]:
    """The letters of a stem, three at a time, its beginning and end among them; of a short one, nothing."""
    padded = f"^{stem}$"
    return {padded[i : i + 3] for i in range(len(padded) - 2)} if len(stem) > 3 else set()


class Words(NamedTuple):
    """The stems of a text.

    Args:
        stems (`list[str]`): of its words and marks that end a sentence, in order.
        spans (`list[tuple[int, int]]`): characters of each.
    """

    stems: list[str]
    spans: list[tuple[int, int]]


class StemReader:
    """Makes stems of texts, and remembers those of words."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def read(self, text: str) -> Words:
        folded, places = _folded(text)
        folded = _POSSESSIVE.sub(lambda found: " " * len(found[0]), folded)
        stems, spans = [], []
        for found in _PIECE.finditer(folded):
            word = found[0]
            if word not in self._known:
                self._known[word] = stem_of(word)
            if self._known[word]:
                stems.append(self._known[word])
                spans.append((places[found.start()], places[found.end() - 1] + 1))
        return Words(stems, spans)


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """A text in lower case without accents, and where each of its characters stood."""
    if text.isascii():
        return text.lower(), range(len(text))
    letters, places = [], []
    for place, letter in enumerate(text):
        if letter < "\x80":
            letters.append(letter.lower())
            places.append(place)
            continue
        for part in unicodedata.normalize("NFD", letter):
            if not unicodedata.combining(part):
                lower = part.lower()
                letters.append(lower)
                places += [place] * len(lower)
    return "".join(letters), places


SYNONYMS = _synonyms()
"""Of a stem those of other words of its meaning; see fusion_synonyms_icd.py."""
SYNONYM = 0.9
"""How alike two words of one meaning are."""


class TokenText:
    """The text that tokens were made of.

    Args:
        parts (`Sequence[bytes]`): of each token of the vocabulary; empty for a special one.
    """

    def __init__(self, parts: Sequence[bytes]):
        self.parts = parts

    def read(self, input_ids: Iterable[int]) -> tuple[str, torch.Tensor]:
        """The text, and of each of its characters the token that holds its first byte, `(characters,)`."""
        parts = [self.parts[i] if 0 <= i < len(self.parts) else b"" for i in input_ids]
        text = b"".join(parts).decode("utf-8", "replace")
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        sizes = torch.tensor([1 if letter < "\x80" else len(letter.encode()) for letter in text], dtype=torch.long)
        tokens = torch.searchsorted(ends, sizes.cumsum(0) - sizes, right=True)
        return text, tokens.clamp(max=max(len(parts) - 1, 0))


class Found(NamedTuple):
    """A place where a note says a term.

    Args:
        term (`int`): its row.
        positions (`tuple[int, ...]`): places among the note's stems, in their order.
        spread (`float`): words from the first to the last, in lengths of the term.
        is_denied (`bool`), is_of_family (`bool`): what is said of one of its words.
        is_covered (`bool`): whether a longer term takes all of its words.
    """

    term: int
    positions: tuple[int, ...]
    spread: float
    is_denied: bool
    is_of_family: bool
    is_covered: bool


class NoteWords(NamedTuple):
    """A note as terms are looked for in it.

    Args:
        stems (`list[str]`): of the note.
        ids (`list[int]`): of the stems among those that are known; 0: of none.
        sentences (`list[int]`): of each stem the number of its sentence.
        order (`list[int]`): of each stem its place among all but small words.
        is_content (`list[bool]`): whether a stem is neither a small word nor a mark.
        denied, of_family (`list[bool]`): of each stem.
    """

    stems: list[str]
    ids: list[int]
    sentences: list[int]
    order: list[int]
    is_content: list[bool]
    denied: list[bool]
    of_family: list[bool]


class TermFinder(TermMatcher):
    """Looks terms up as a coder by terms does, and also gives those that are denied, or stand within a longer one.

    Args:
        vocab_size (`int`): known stems, the first of which stands for all others.
        num_terms (`int`), max_words (`int`): terms, and stems of the longest one.
    """

    def __init__(self, vocab_size: int, num_terms: int, max_words: int):
        super().__init__(TermsConfig(num_labels=1, vocab_size=vocab_size, num_terms=num_terms, max_words=max_words))

    def words_of(self, stems: list[str], ids: list[int]) -> NoteWords:
        roles = [self.tables.roles[i] for i in ids]
        sentences, order = _sentences_and_order(roles)
        scopes = self._scopes(roles)
        denied, of_family = ([bool(said & cue) for said in scopes] for cue in (DENIES, FAMILY))
        is_content = [not role & (SMALL | END) for role in roles]
        return NoteWords(stems, ids, sentences, order, is_content, denied, of_family)

    def find_all(self, note: NoteWords) -> list[Found]:
        places: dict[int, list[int]] = {}
        for position, stem in enumerate(note.ids):
            if stem and note.is_content[position]:
                places.setdefault(stem, []).append(position)
        every = []
        for matches in self._places_of_terms(places, note.sentences, note.order):
            sets = [frozenset(positions) for _, positions, _ in matches]
            for (term, positions, spread), own in zip(matches, sets, strict=True):
                is_denied, of_family = (any(said[i] for i in positions) for said in (note.denied, note.of_family))
                every.append(Found(term, positions, spread, is_denied, of_family, any(own < other for other in sets)))
        return every
