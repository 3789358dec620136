"""Which texts hold which words, also mistyped ones; and everyday words, with the words of official titles for them."""

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from rapidfuzz import fuzz, process
from rapidfuzz.distance import JaroWinkler


LAY_TERMS = Path(__file__).with_name("lay_terms.yaml")
LEAST_LIKENESS = 0.85  # of two words (Jaro-Winkler), one of which may be the other mistyped
LEAST_LIKENESS_OF_LAY = 0.9
ABOUT_AS_LIKE = 0.03
COMPARED = 500  # texts that share the words of a query, and are compared with it as a whole
MAX_WORDS = 12  # of a query that are looked at
MAX_BEGINNINGS = 200  # words that begin as one of a query does
MAX_EXPANSIONS = 8
LEAST_SHARE = 0.6  # of what the best text shares with a query; texts that share less are not found
SMALL_WORDS = frozenset(["a", "an", "and", "in", "is", "my", "of", "on", "or", "the", "to", "with"])
SAYS_NOTHING = frozenset(("nos", "unspecified"))


def words_of(text: str) -> list[str]:
    """The words of a text, numbers among them, each as it is compared: without accents, its plural and the possessive; and
    British spelling as American (anaemia, tumour)."""
    folded = unicodedata.normalize("NFKD", text.casefold()).replace("\u2019", "'")
    folded = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return [_fold(word) for word in re.findall(r"\w+", re.sub(r"'s\b", "", folded))]


def _fold(word: str) -> str:
    word = word.replace("ae", "e").replace("oe", "e")
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word[:-3] + "or" if len(word) > 5 and word.endswith("our") else word


class WordIndex:
    """Finds the texts that hold the words of a query, or words like these.

    Args:
        texts (`Sequence[str]`): to search; an empty one is never found.
    """

    def __init__(self, texts: Sequence[str]):
        postings: defaultdict[str, list[int]] = defaultdict(list)
        self.texts: list[str] = []  # as they are compared with a query as a whole
        for place, text in enumerate(texts):
            words = words_of(text)
            for word in set(words):
                postings[word].append(place)
            self.texts.append(" ".join(word for word in words if word not in SAYS_NOTHING))
        self.words = sorted(postings)
        self.postings = {word: np.array(postings[word], np.int32) for word in self.words}
        self.rarity = {word: float(np.log1p(len(texts) / len(places))) for word, places in postings.items()}
        self.unknown = float(np.log1p(len(texts)))  # the weight of a word that no text has

    def search(self, query: str, allowed: np.ndarray | None = None) -> list[tuple[int, float]]:
        """Places of the texts that hold most of the query's words; the rarer a word, the more it counts.

        Args:
            query (`str`): words in any order.
            allowed (`np.ndarray` of shape `(num_texts,)`, *optional*): which texts may be found.

        Returns:
            At most `COMPARED` places, the best first, each with its score: the share of the query that the text has, up to 1,
            and some more for a text that is like the query as a whole or begins as it does. Scores of different queries
            can be compared.
        """
        asked = list(dict.fromkeys(words_of(query)))[:MAX_WORDS]
        shared, whole, meant = np.zeros(len(self.texts), np.float32), 0.0, []
        for word in asked:
            alike = self._words_like(word)
            if not alike:
                whole += self.unknown
                continue
            meant.append(max(alike, key=lambda like: (alike[like], -self.rarity[like])))
            weight = self.rarity[meant[-1]]
            whole += weight
            of_word = np.zeros(len(self.texts), np.float32)
            for like, likeness in sorted(alike.items(), key=lambda item: item[1]):
                of_word[self.postings[like]] = likeness * weight
            shared += of_word
        if allowed is not None:
            shared[~allowed] = 0
        best = shared.max(initial=0)
        if not best:
            return []
        top = np.flatnonzero(shared > LEAST_SHARE * best)
        if len(top) > COMPARED:
            top = top[np.argsort(-shared[top], kind="stable")[:COMPARED]]
        compared = [self.texts[i] for i in top]
        likeness = process.cdist([" ".join(meant)], compared, scorer=fuzz.ratio)[0] / 100
        begins = np.array([text.startswith(meant[0]) for text in compared])
        scores = shared[top] / whole + 0.2 * likeness + 0.05 * begins
        order = np.argsort(-scores, kind="stable")
        return [(int(top[i]), float(scores[i])) for i in order]

    def _words_like(self, word: str) -> dict[str, float]:
        """Words of the texts that the asked one is, begins, or may be a mistyping of, each with its likeness, up to 1."""
        if len(word) < 3:
            return {word: 1.0} if word in self.postings else {}
        found: dict[str, float] = {}
        if len(word) > 3:
            alike = process.extract(
                word, self.words, scorer=JaroWinkler.normalized_similarity, score_cutoff=LEAST_LIKENESS, limit=10
            )
            # Of words that are about as like, none is preferred: "diabetis" is as near to "diabetic" as to "diabetes".
            most = max((score for _, score, _ in alike), default=0)
            found = {like: 0.9 * (most if score > most - ABOUT_AS_LIKE else score) ** 3 for like, score, _ in alike}
        start = bisect_left(self.words, word)
        for like in self.words[start : start + MAX_BEGINNINGS]:
            if not like.startswith(word):
                break
            found[like] = max(found.get(like, 0), 0.9 if len(like) <= len(word) + 2 else 0.8)
        if word in self.postings:
            found[word] = 1.0
        return found


class Expansion(NamedTuple):
    """A query in which everyday words have become official ones, and what was said for what: `"piles = hemorrhoids"`."""

    query: str
    because: str


class _Term(NamedTuple):
    lay: str
    words: tuple[str, ...]
    officials: tuple[str, ...]


class LayTerms:
    """Everyday words and what official titles say for them.

    Args:
        file (`Path`): YAML that gives for an everyday term the official one, or a list of them.
    """

    def __init__(self, file: Path = LAY_TERMS):
        self._terms = [
            _Term(str(lay), telling_words(str(lay)), (official,) if isinstance(official, str) else tuple(official))
            for lay, official in yaml.safe_load(file.read_text(encoding="utf-8")).items()
        ]

    def expand(self, query: str) -> list[Expansion]:
        """The query with official words in place of everyday ones, which may be mistyped; none where there are none.

        Of terms within others ("cold" in "cold sore") the longest counts.
        """
        asked = telling_words(query)[:MAX_WORDS]
        found = [(term, places) for term in self._terms if (places := _places_of(term.words, asked))]
        found = [(term, places) for term, places in found if not any(places < other for _, other in found)]
        expansions = {}
        if len(apart := _apart(found)) > 1:
            parts = [(term, places, term.officials[0]) for term, places in apart]
            expansions[_replaced(asked, parts)] = "; ".join(f"{term.lay} = {said}" for term, _, said in parts)
        for term, places in found:
            for official in term.officials:
                because = f"{term.lay} = {official}"
                expansions.setdefault(_replaced(asked, [(term, places, official)]), because)
        return [Expansion(query, because) for query, because in expansions.items()][:MAX_EXPANSIONS]


def telling_words(text: str) -> tuple[str, ...]:
    """The words of a text, each once, without those such as `of` and `the`."""
    return tuple(word for word in dict.fromkeys(words_of(text)) if word not in SMALL_WORDS)


def _places_of(words: tuple[str, ...], asked: tuple[str, ...]) -> frozenset[int]:
    """Where each of a term's words stands in a query; empty where one is missing."""
    places = set()
    for word in words:
        like = [place for place, given in enumerate(asked) if place not in places and _is_like(given, word)]
        if not like:
            return frozenset()
        places.add(like[0])
    return frozenset(places)


def _is_like(given: str, word: str) -> bool:
    if given == word or min(len(given), len(word)) < 4 or abs(len(given) - len(word)) > 2:
        return given == word  # "knee" is no mistyped "kneecap"
    return JaroWinkler.normalized_similarity(given, word) >= LEAST_LIKENESS_OF_LAY


def _apart(found: Sequence[tuple[_Term, frozenset[int]]]) -> list[tuple[_Term, frozenset[int]]]:
    """Terms that share no word of the query with an earlier one."""
    apart: list[tuple[_Term, frozenset[int]]] = []
    for term, places in found:
        if all(places.isdisjoint(others) for _, others in apart):
            apart.append((term, places))
    return apart


def _replaced(asked: tuple[str, ...], parts: Sequence[tuple[_Term, frozenset[int], str]]) -> str:
    """The words of a query, with an official term where the everyday one began."""
    said = {min(places): official for _, places, official in parts}
    gone = frozenset[int]().union(*(places for _, places, _ in parts))
    return " ".join(said.get(place, word) for place, word in enumerate(asked) if place in said or place not in gone)
