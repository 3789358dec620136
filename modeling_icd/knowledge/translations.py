"""What words of one language mean in another, learned from notes that are there in both: sentences are aligned by their lengths and
common words, and words by IBM's first model (Brown et al. 1993)."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..fusion_text_icd import SYNONYMS, StemReader, cognate_of
from .stems import SENTENCE_ENDS


ROUNDS = 8
"""Steps of expectation and maximisation."""
LEAST_SHARE, LEAST_COUNT = 0.1, 0.7
"""A translation is kept that so large a share of a word's occurrences has, and so many of them."""
_END = re.compile(r"(?<=[.;!?])\s+|\n+")
# Sentences of either side that are taken together, and what that costs.
_STEPS = ((1, 1, 0.0), (1, 0, 3.0), (0, 1, 3.0), (2, 1, 1.5), (1, 2, 1.5), (3, 1, 3.0), (1, 3, 3.0))


class Translations(NamedTuple):
    """What stems mean.

    Args:
        shares (`dict[str, dict[str, float]]`): of each stem its translations, each with the share of the stem's occurrences.
    """

    shares: dict[str, dict[str, float]]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """The characters of each sentence of a text that is not blank."""
    bounds = [0, *(place for found in _END.finditer(text) for place in found.span()), len(text)]
    spans = list(pairwise(bounds))[::2]
    return [(start, end) for start, end in spans if text[start:end].strip()]


def align_sentences(first: Sequence[str], second: Sequence[str], reader: StemReader) -> list[tuple[range, range]]:
    """Which sentences of a text are which of its translation, in order; of one that is left out, the other range is empty."""
    stems = [[set(reader.read(sentence).stems) for sentence in text] for text in (first, second)]
    lengths = [[len(sentence) for sentence in text] for text in (first, second)]
    ratio = sum(lengths[1]) / max(sum(lengths[0]), 1)
    costs = np.full((len(first) + 1, len(second) + 1), np.inf)
    costs[0, 0] = 0
    came_from: dict[tuple[int, int], tuple[int, int]] = {}
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            for down, right, penalty in _STEPS:
                to = i + down, j + right
                if to[0] > len(first) or to[1] > len(second):
                    continue
                cost = costs[i, j] + penalty
                if down and right:
                    left, other = sum(lengths[0][i : to[0]]) * ratio, sum(lengths[1][j : to[1]])
                    own, theirs = set().union(*stems[0][i : to[0]]), set().union(*stems[1][j : to[1]])
                    cost += abs(left - other) / (math.sqrt(left + other) + 1) / 2
                    cost -= 2 * len(own & theirs) / math.sqrt(len(own) * len(theirs) + 1)
                if cost < costs[to]:
                    costs[to], came_from[to] = cost, (i, j)
    steps, at = [], (len(first), len(second))
    while at != (0, 0):
        before = came_from[at]
        steps.append((range(before[0], at[0]), range(before[1], at[1])))
        at = before
    return steps[::-1]


def aligned_passages(text: str, translated: str, reader: StemReader) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Passages of a text and of its translation that say the same, as characters of each."""
    spans, others = sentence_spans(text), sentence_spans(translated)
    steps = align_sentences(
        [text[start:end] for start, end in spans], [translated[start:end] for start, end in others], reader
    )
    return [
        ((spans[own[0]][0], spans[own[-1]][1]), (others[theirs[0]][0], others[theirs[-1]][1]))
        for own, theirs in steps
        if own and theirs
    ]


def align_notes(
    texts: Sequence[str], translated: Iterable[str], small: frozenset[str], show_progress: bool = True
) -> list[list[tuple[list[str], list[str]]]]:
    """Of each note the stems of its passages, and those of their translations.

    Args:
        small (`frozenset[str]`): stems that are left out, such as those of articles.
    """
    reader, left_out = StemReader(), small | frozenset(SENTENCE_ENDS)
    found = []
    progress = tqdm(texts, desc="Aligning", unit="note", disable=not show_progress)
    for text, other in zip(progress, translated, strict=True):
        pairs = []
        for (start, end), (other_start, other_end) in aligned_passages(text, other, reader):
            passages = reader.read(text[start:end]).stems, reader.read(other[other_start:other_end]).stems
            own, theirs = ([stem for stem in stems if stem not in left_out] for stems in passages)
            if own and theirs:
                pairs.append((own, theirs))
        found.append(pairs)
    return found


def aligned_titles(
    titles: Mapping[str, str], others: Mapping[str, str], small: frozenset[str]
) -> list[tuple[list[str], list[str]]]:
    """The stems of the titles of codes in one language and in another."""
    reader, left_out = StemReader(), small | frozenset(SENTENCE_ENDS)
    stems = [
        [[stem for stem in reader.read(text).stems if stem not in left_out] for text in (title, others[code])]
        for code, title in titles.items()
        if code in others
    ]
    return [(own, theirs) for own, theirs in stems if own and theirs]


def learn_translations(aligned: Iterable[Sequence[tuple[list[str], list[str]]]]) -> Translations:
    """What stems mean, from what [`align_notes`] gives of some notes."""
    pairs = [pair for of_note in aligned for pair in of_note]
    return _first_model(pairs) if pairs else Translations({})


def joined(first: Translations, second: Translations) -> Translations:
    """What either says that stems mean: of what both say the higher share."""
    shares = {stem: dict(of_stem) for stem, of_stem in first.shares.items()}
    for stem, of_stem in second.shares.items():
        own = shares.setdefault(stem, {})
        for other, share in of_stem.items():
            own[other] = max(own.get(other, 0.0), share)
    return Translations(shares)


class PhraseProjector:
    """Finds the words of a note's translation that say what some of its own words say.

    Args:
        text (`str`), translated (`str`): the note, and its translation.
        translations (`Translations`): what words mean.
        small (`frozenset[str]`): stems that are left out, such as those of articles.
    """

    def __init__(
        self, text: str, translated: str, translations: Translations, small: frozenset[str], reader: StemReader
    ):
        self.text, self.translated, self.translations, self.reader = text, translated, translations, reader
        self.left_out = small | frozenset(SENTENCE_ENDS)
        self.passages = aligned_passages(text, translated, reader)
        self.words = reader.read(translated)

    def find(self, spans: Iterable[Sequence[int]]) -> str | None:
        """The words of the translation; `None` where those of one of the spans are not found.

        Args:
            spans (`Iterable`): characters `[start, end]` of words that are marked together, and need not stand together.
        """
        found = [self._find_one(start, end) for start, end in spans]
        return " ".join(words for words in found if words is not None) if found and None not in found else None

    def _find_one(self, start: int, end: int) -> str | None:
        wanted = [stem for stem in self.reader.read(self.text[start:end]).stems if stem not in self.left_out]
        if not wanted:
            return ""
        at = [theirs for own, theirs in self.passages if own[0] < end and start < own[1]]
        places = self._places(wanted, at[0][0], at[-1][1]) if at else []
        if 3 * len(places) < 2 * len(set(wanted)):
            places = self._places(wanted, 0, len(self.translated))  # where sentences are not aligned right
            if len(places) < len(set(wanted)):
                return None
        spans = self.words.spans
        return self.translated[spans[places[0]][0] : spans[places[-1]][1]]

    def _places(self, wanted: Sequence[str], start: int, end: int) -> list[int]:
        """Where a passage of the translation has the wanted words, the closest together; empty where they are far apart."""
        rows = [i for i, span in enumerate(self.words.spans) if start <= span[0] < end]
        rows = [i for i in rows if self.words.stems[i] not in self.left_out]
        scores = {stem: self._scores(stem, rows) for stem in dict.fromkeys(wanted)}
        scores = {stem: of_stem for stem, of_stem in scores.items() if of_stem}
        if not scores:
            return []
        best: tuple[float, list[int]] = (-math.inf, [])
        for anchor in min(scores.values(), key=len):  # of the word that stands in the fewest places
            chosen = [
                max(of_stem.items(), key=lambda found: (found[1] - abs(found[0] - anchor) / 10, -found[0]))
                for of_stem in scores.values()
            ]
            places = sorted({place for place, _ in chosen})
            if places[-1] - places[0] <= 2 * len(wanted) + 2:
                worth = sum(score for _, score in chosen) - (places[-1] - places[0]) / 10
                best = max(best, (worth, places))
        return best[1]

    def _scores(self, stem: str, rows: Iterable[int]) -> dict[int, float]:
        """The places whose word may be a translation of a stem, each with how likely it is."""
        shares, same = self.translations.shares.get(stem, {}), SYNONYMS.get(stem, frozenset())
        found = {}
        for row in rows:
            other = self.words.stems[row]
            alike = 1.0 if other == stem else 0.9 * (other in same or cognate_of(other) == cognate_of(stem))
            score = max(shares.get(other, 0.0), alike)
            if score > LEAST_SHARE:
                found[row] = score
        return found


def _first_model(pairs: Sequence[tuple[list[str], list[str]]]) -> Translations:
    """IBM's first model of pairs of sentences."""
    sources: dict[str, int] = {}
    targets: dict[str, int] = {}
    ids = [
        (
            np.array([0, *(sources.setdefault(stem, len(sources) + 1) for stem in own)]),  # 0: of none
            np.array([targets.setdefault(stem, len(targets)) for stem in theirs]),
        )
        for own, theirs in pairs
    ]
    keys = np.concatenate([np.add.outer(theirs, own * len(targets)).ravel() for own, theirs in ids])
    sizes = np.concatenate([np.full(len(theirs), len(own)) for own, theirs in ids])
    occurrence = np.repeat(
        np.arange(len(sizes)), sizes
    )  # of a word of the translation, for each word that may mean it
    links, link_of = np.unique(keys, return_inverse=True)
    source = links // len(targets)
    shares: np.ndarray = 1 / np.bincount(source)[source]
    counts: np.ndarray = np.zeros(len(links))
    for _ in range(ROUNDS):
        weights = shares[link_of]
        weights /= np.bincount(occurrence, weights)[occurrence]
        counts = np.bincount(link_of, weights, minlength=len(links))
        shares = counts / np.maximum(np.bincount(source, counts)[source], 1e-12)
    names, others = ["", *sources], list(targets)
    found: dict[str, dict[str, float]] = {}
    for i in np.flatnonzero((shares > LEAST_SHARE) & (counts > LEAST_COUNT) & (source > 0)):
        found.setdefault(names[source[i]], {})[others[links[i] % len(targets)]] = float(shares[i])
    return Translations(found)
