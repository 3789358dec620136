"""What the page knows of codes: title, chapter, kind and system of each; and the search of titles by words that may be mistyped."""

import re
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dataset_scripts.codes import icd10_hierarchy
from dataset_scripts.codes.classification import ICD9, ICD10, Classification, classification_of
from dataset_scripts.codes.published_titles import icd9cm_titles, icd10pcs_titles
from dataset_scripts.codes.systems import CODE_SYSTEMS

from .words import LayTerms, WordIndex


OTHER = "other"
MAX_QUERY_CHARACTERS = 200
MAX_LIMIT = 50
OF_A_MODEL = 0.1  # a code that a model knows is frequent, and so comes before one that it does not know
OF_ONE_CATEGORY = 0.04  # less for each code of the same category that comes before, so that others are seen, too
SYSTEMS = {system.name: key for key, system in CODE_SYSTEMS.items() if system.classification is not None}


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


class Hit(NamedTuple):
    """A code that a search has found.

    Args:
        code (`Code`): what is known of it.
        because (`str`): what it was found by, where that is not its title: the everyday words and the official ones
            (`"piles = hemorrhoids"`), or another term that the classification gives for it (`"Stone in kidney"`).
    """

    code: Code
    because: str


class TitleSearch:
    """Titles of whole classifications, as far as the installed packages have them, and those that the models bring. It is built
    in the background, since that takes seconds; who asks before waits until it is there.

    Args:
        of_models (`Iterable[Code]`): codes of the models; their titles come before those of the classification.
    """

    def __init__(self, of_models: Iterable[Code] = ()):
        self._of_models = list(of_models)
        without = systems_without_titles()
        of_a_model = {SYSTEMS.get(code.system) for code in self._of_models if code.title}
        self.systems = [key for key in SYSTEMS.values() if key in of_a_model or key not in without]
        self.lacking = [CODE_SYSTEMS[key].name for key in without]  # of these, a model's own titles alone are searched
        self._lay_terms = LayTerms()
        self._codes: list[Code] = []
        self._by_code: dict[str, int] = {}
        self._index: WordIndex | None = None
        self._thread = threading.Thread(target=self._build, name="titles", daemon=True)
        self._thread.start()

    def search(self, query: str, system: str | None = None, limit: int = 20) -> list[Hit]:
        """The codes that fit a query best, by words of their titles and of other terms for them, or by the beginning of a code.

        Args:
            query (`str`): words in any order, also everyday and mistyped ones, and parts of words; or a code with or without
                its dot.
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
        if found := self._codes_like(query, name, limit):
            return [Hit(self._codes[i], "") for i in found]
        return self._by_words(query, name, limit)

    def is_heading(self, code: Code) -> bool:
        """Whether a code of ICD-10-CM or ICD-9-CM has codes below it, and so cannot be billed."""
        self._thread.join()
        key = _key(code)
        place = bisect_right(self._keys, key)
        return place < len(self._keys) and self._keys[place].startswith(key)

    def get(self, code: str) -> Code | None:
        """What is known of a code, however its letters are cased and whether or not it has its dot. Where several are spelled
        so, a model's own comes first, then that of ICD-10, then a diagnosis of ICD-9-CM."""
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

    def _by_words(self, query: str, name: str | None, limit: int) -> list[Hit]:
        """The codes one of whose terms is like the query, or like the query with official words in place of everyday ones."""
        assert self._index is not None
        best: dict[int, tuple[float, str]] = {}
        for asked, because in [(query, ""), *self._lay_terms.expand(query)]:
            for entry, score in self._index.search(asked, self._allowed[name]):
                place = self._code_of[entry]
                score += OF_A_MODEL * (place < self._num_preferred)
                if place not in best or score > best[place][0]:
                    term = "" if entry < len(self._codes) else self._terms[entry]
                    best[place] = (score, because or term)
        ranked = sorted(best, key=lambda place: -best[place][0])[:MAX_LIMIT]
        before: Counter[str] = Counter()
        scores = {}
        for place in ranked:
            category = self._codes[place].code.split(".")[0]
            scores[place] = best[place][0] - OF_ONE_CATEGORY * before[category]
            before[category] += 1
        ranked.sort(key=lambda place: -scores[place])
        return [Hit(self._codes[place], best[place][1]) for place in ranked[:limit]]

    def _build(self) -> None:
        known = {(code.system, code.code): code for code in self._of_models}
        self._num_preferred = len(known)
        for code in _codes_of_classifications():
            there = known.setdefault((code.system, code.code), code)
            if not there.title:
                known[code.system, code.code] = there._replace(title=code.title)
        self._codes = list(known.values())
        for place, code in enumerate(self._codes):
            self._by_code.setdefault(code.code.upper(), place)
        bare = [code.code.upper().replace(".", "") for code in self._codes]
        for place, name in enumerate(bare):
            self._by_code.setdefault(name, place)
        order = sorted(range(len(bare)), key=bare.__getitem__)
        self._sorted_bare, self._sorted_places = np.array([bare[i] for i in order]), order
        # A procedure of ICD-10-PCS that is cut short is no heading.
        self._keys = sorted(map(_key, (code for code in self._codes if code.system != CODE_SYSTEMS["icd10pcs"].name)))
        self._terms, self._code_of = [code.title for code in self._codes], list(range(len(self._codes)))
        of_icd10 = {code.code: i for i, code in enumerate(self._codes) if code.system == CODE_SYSTEMS["icd10cm"].name}
        for name, terms in icd10_hierarchy.load_synonyms().items():
            if name in of_icd10:
                self._terms += terms
                self._code_of += [of_icd10[name]] * len(terms)
        systems = np.array([self._codes[place].system for place in self._code_of])
        self._allowed: dict[str | None, np.ndarray | None] = {None: None}
        self._allowed |= {system.name: systems == system.name for system in CODE_SYSTEMS.values()}
        self._index = WordIndex(self._terms)


def _key(code: Code) -> str:
    """Where a code stands among all; what is below it begins with it. Without kind and system 42.1 would be below 42."""
    return f"{code.system} {code.kind} {code.code.upper()}"


def systems_without_titles() -> list[str]:
    """The keys of the code systems whose titles an optional package has, and which is not installed."""
    optional = {"icd10pcs": icd10pcs_titles, "icd9cm": icd9cm_titles}
    return [key for key, load_titles in optional.items() if not load_titles()]


def _codes_of_classifications() -> Iterable[Code]:
    """Every code of the classifications that has a title, without what is above categories."""
    for classification in (ICD10, ICD9):
        of_category: dict[str, Code] = {}
        for code, title in classification.load_titles().items():
            if "-" in code or code in classification.chapters:
                continue
            category = code.split(".")[0]
            if len(category) == 7:  # a procedure of ICD-10-PCS
                category = code[0]
            if category not in of_category:
                of_category[category] = describe_code(code, classification)
            yield of_category[category]._replace(code=code, title=title)
