"""What the page knows of codes: title, chapter, kind and system of each; and the search of titles by words that may be mistyped."""

import re
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import JaroWinkler

from dataset_scripts.codes import icd10_hierarchy
from dataset_scripts.codes.classification import ICD9, ICD10, Classification, classification_of
from dataset_scripts.codes.systems import CODE_SYSTEMS


OTHER = "other"
MAX_QUERY_CHARACTERS = 200
MAX_LIMIT = 50
LEAST_LIKENESS = 0.85  # of two words (Jaro-Winkler), one of which may be the other mistyped
COMPARED = 500  # titles that share the words of a query, and are compared with it as a whole
MAX_WORDS = 12  # of a query that are looked at
MAX_BEGINNINGS = 200  # words that begin as one of a query does


class Code(NamedTuple):
    """What is known of a code.

    Args:
        code (`str`): with its dot.
        title (`str`): `""` where none is known.
        chapter (`str`): the title of the chapter or section; `""` for a code of no classification.
        kind (`str`): `"diagnosis"`, `"procedure"` or `"other"`.
        system (`str`): `"ICD-10-CM"`, `"ICD-10-PCS"`, `"ICD-9-CM"` or `"other"`.
    """

    code: str
    title: str
    chapter: str
    kind: str
    system: str


def describe_code(code: str, classification: Classification | None, title: str = "") -> Code:
    """Chapter, kind and system of a code; `"other"` where it is not of that classification, or there is none."""
    if classification is not None:
        try:
            chapter = classification.chapters[classification.family_of(code).chapter]
            kind = classification.kind_of(code)
        except (ValueError, KeyError):
            return Code(code, title, "", OTHER, OTHER)
        return Code(code, title, chapter, kind, _system_of(classification, kind))
    return Code(code, title, "", OTHER, OTHER)


def _system_of(classification: Classification, kind: str) -> str:
    if classification is ICD9:
        return ICD9.name
    return CODE_SYSTEMS["icd10pcs" if kind == "procedure" else "icd10cm"].name


def classify(codes: Iterable[str]) -> dict[str, Classification | None]:
    """The classification of each of a model's codes: the one that they are all of, or else that of each by itself."""
    codes = list(codes)
    common = classification_of(codes)
    return {code: common or classification_of([code]) for code in codes}


class TitleSearch:
    """Titles of the whole ICD-10-CM, and those of other classifications that the models bring. It is built in the background,
    since that takes seconds; who asks before waits until it is there.

    Args:
        of_models (`Iterable[Code]`): codes of the models; their titles come before those of the classification.
    """

    def __init__(self, of_models: Iterable[Code] = ()):
        self._of_models = list(of_models)
        with_titles = {code.system for code in self._of_models if code.title} | {CODE_SYSTEMS["icd10cm"].name}
        self.systems = [key for key, system in CODE_SYSTEMS.items() if system.name in with_titles]
        self._codes: list[Code] = []
        self._by_code: dict[str, int] = {}
        self._index: _WordIndex | None = None
        self._thread = threading.Thread(target=self._build, name="titles", daemon=True)
        self._thread.start()

    def search(self, query: str, system: str | None = None, limit: int = 20) -> list[Code]:
        """The titles that fit a query best, by words or by the beginning of a code.

        Args:
            query (`str`): words in any order, also mistyped ones, and parts of words; or a code with or without its dot.
            system (`str`, *optional*): a key of `CODE_SYSTEMS`: leave the codes of others out.
            limit (`int`): how many at most.

        Raises:
            ValueError: where the system is unknown, or the query too long.
        """
        if system is not None and system not in CODE_SYSTEMS:
            raise ValueError(f"`system` must be one of {', '.join(CODE_SYSTEMS)}.")
        if len(query) > MAX_QUERY_CHARACTERS:
            raise ValueError(f"A search has at most {MAX_QUERY_CHARACTERS} characters: give a few words of the title.")
        name = None if system is None else CODE_SYSTEMS[system].name
        self._thread.join()
        assert self._index is not None
        found = self._codes_like(query, name, limit) or self._index.search(query, self._allowed[name], limit)
        return [self._codes[i] for i in found]

    def is_heading(self, code: Code) -> bool:
        """Whether a code of ICD-10-CM has codes below it, and so cannot be billed."""
        self._thread.join()
        bare = code.code.upper().replace(".", "")
        place = int(np.searchsorted(self._sorted_bare, bare, side="right"))
        below = place < len(self._sorted_bare) and self._sorted_bare[place].startswith(bare)
        return code.system == CODE_SYSTEMS["icd10cm"].name and bool(below)

    def get(self, code: str) -> Code | None:
        """What is known of a code, however its letters are cased and whether or not it has its dot."""
        self._thread.join()
        place = self._by_code.get(code.upper().strip())
        return None if place is None else self._codes[place]

    def _codes_like(self, query: str, name: str | None, limit: int) -> list[int]:
        """The codes that begin as the query does; none where it does not look like one."""
        bare = query.strip().upper().replace(".", "")
        if not re.fullmatch(r"[A-Z]?\d[0-9A-Z]*|[A-Z]\d[A-Z0-9]*", bare):
            return []
        start = int(np.searchsorted(self._sorted_bare, bare))
        found: list[int] = []
        for bare_code, place in zip(self._sorted_bare[start:], self._sorted_places[start:], strict=True):
            if not bare_code.startswith(bare) or len(found) == limit:
                break
            if name is None or self._codes[place].system == name:
                found.append(int(place))
        return found

    def _build(self) -> None:
        known = {code.code: code for code in self._of_models}
        categories: dict[str, Code] = {}
        for code, title in icd10_hierarchy.load_titles().items():
            category = code[:3]
            if "-" in code or len(code) < 3:  # a range, or a section of procedures
                continue
            if category not in categories:
                categories[category] = describe_code(category, ICD10)
            if code not in known:
                known[code] = categories[category]._replace(code=code, title=title)
            elif not known[code].title:
                known[code] = known[code]._replace(title=title)
        self._codes = list(known.values())
        self._by_code = {code.code.upper(): place for place, code in enumerate(self._codes)}
        bare = [code.code.upper().replace(".", "") for code in self._codes]
        for place, name in enumerate(bare):
            self._by_code.setdefault(name, place)
        order = sorted(range(len(bare)), key=bare.__getitem__)
        self._sorted_bare, self._sorted_places = np.array([bare[i] for i in order]), order
        systems = np.array([code.system for code in self._codes])
        self._allowed: dict[str | None, np.ndarray | None] = {None: None}
        self._allowed |= {system.name: systems == system.name for system in CODE_SYSTEMS.values()}
        self._index = _WordIndex([code.title for code in self._codes], len(self._of_models))


class _WordIndex:
    """Which titles hold which words.

    Args:
        titles (`list[str]`): to search; an empty one is never found.
        num_preferred (`int`): how many of them, the first ones, are of codes that the models know, and so are frequent.
    """

    def __init__(self, titles: list[str], num_preferred: int = 0):
        self.titles = [title.casefold() for title in titles]
        self.num_preferred = num_preferred
        postings: defaultdict[str, list[int]] = defaultdict(list)
        for place, title in enumerate(self.titles):
            for word in set(words_of(title)):
                postings[word].append(place)
        self.words = sorted(postings)
        self.postings = {word: np.array(postings[word], np.int32) for word in self.words}
        self.rarity = {word: float(np.log1p(len(titles) / len(places))) for word, places in postings.items()}

    def search(self, query: str, allowed: np.ndarray | None, limit: int) -> list[int]:
        """Places of the titles that hold most of the query's words, or words like these; the rarer a word, the more it counts.

        Of those that share most, the ones come first that are most like the query as a whole, that begin as it does, or
        whose code a model knows.
        """
        asked = list(dict.fromkeys(words_of(query.casefold())))[:MAX_WORDS]
        shared = np.zeros(len(self.titles), np.float32)
        meant: list[str] = []
        for word in asked:
            alike = self._words_like(word)
            if not alike:
                continue
            meant.append(max(alike, key=lambda like: alike[like]))
            weight = self.rarity[meant[-1]]
            of_word = np.zeros(len(self.titles), np.float32)
            for like, likeness in sorted(alike.items(), key=lambda item: item[1]):
                of_word[self.postings[like]] = likeness * weight
            shared += of_word
        if allowed is not None:
            shared[~allowed] = 0
        best = shared.max(initial=0)
        if not best:
            return []
        top = np.flatnonzero(shared > 0.6 * best)
        if len(top) > COMPARED:
            top = top[np.argsort(-shared[top], kind="stable")[:COMPARED]]
        whole = " ".join(meant)
        likeness = process.cdist([whole], [self.titles[i] for i in top], scorer=fuzz.ratio)[0] / 100
        begins = np.array([self.titles[i].startswith(meant[0]) for i in top])
        order = np.argsort(
            -(shared[top] / best + 0.2 * likeness + 0.1 * begins + 0.1 * (top < self.num_preferred)), kind="stable"
        )
        return top[order][:limit].tolist()

    def _words_like(self, word: str) -> dict[str, float]:
        """Words of the titles that the asked one is, begins, or may be a mistyping of, each with its likeness, up to 1."""
        if len(word) < 3:
            return {word: 1.0} if word in self.postings else {}
        found: dict[str, float] = {}
        if len(word) > 3:
            alike = process.extract(
                word, self.words, scorer=JaroWinkler.normalized_similarity, score_cutoff=LEAST_LIKENESS, limit=10
            )
            found = {like: 0.9 * score**3 for like, score, _ in alike}
        start = bisect_left(self.words, word)
        for like in self.words[start : start + MAX_BEGINNINGS]:
            if not like.startswith(word):
                break
            found[like] = max(found.get(like, 0), 0.9 if len(like) <= len(word) + 2 else 0.8)
        if word in self.postings:
            found[word] = 1.0
        return found


def words_of(text: str) -> list[str]:
    """The words of a casefolded title or query, numbers among them."""
    return re.findall(r"\w+", text)
