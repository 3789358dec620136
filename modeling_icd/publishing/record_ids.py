"""Finds ids of admissions and subjects among the numbers in outgoing files; for ids that are text see `text_ids.py`.

An id is a number of four to eight digits, and so are seeds, counts, sizes, years and codes: of the numbers from 100001 to 199999
more than half are admissions of MIMIC-III. So what is written beside a number decides: a word for a record makes it an id, a
word for a figure makes it none, and without either a single long number that is an id counts, or five short ones.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .views import ESCAPE, NUMBERS_AS_TEXT, VOCABULARY_FILES, FileText


# A word for a record with any number behind it is an id, whether or not the user's data have it.
LABELLED_ID = re.compile(
    r"(?i)(?:\b|_)(?:hadm|subject|icustay|admission|patient)_?ids?\b[\"']?\s*[:=,\n]\s*[\"'\[(]*\s*\d+(?![\d_])"
    r"|(?:\b|_)hadm(?:_?ids?|_?no)?[\"']?\s*[:=\n]?\s*[\"'\[(]*\s*\d{4}"
)
ID_KEY = re.compile(r"(?i)(?:.*[\W_])?(?:(?:hadm|subject|icustay|admission|patient|mrn)_?ids?|hadm|mrn)")
# What a list, a sentence or a file's name calls a record that it points at.
_RECORD_WORDS = """
hadm subject subj patient pt admission adm visit stay icustay encounter note record document doc case mrn row
id ids
"""
RECORD_WORDS = frozenset(_RECORD_WORDS.split())
# What a number counts, measures or sets. In the plural, records are counted.
_FIGURE_WORDS = """
seed max min num number n nb total count counts size sizes length len dim dims width height depth step steps
epoch epochs batch rank theta rate limit budget time seconds ms bytes kb mb gb year years date version offset
offsets shape vocab parameters params weights tokens token words notes codes code labels label classes
admissions patients subjects documents records stays visits samples sample rows examples lines characters
chars flops iterations updates support tp fp fn tn positives negatives resamples bootstrap threshold loss
accuracy every position positions embeddings hidden intermediate port pages page volume issue pmid pmc pubmed
doi isbn eprint arxiv article sha digest hash revision commit build memory layers heads features trials pairs
points dollars usd hours days minutes percent items windows window warmup checkpoint checkpoints
"""
FIGURE_WORDS = frozenset(_FIGURE_WORDS.split())
# In these files, numbers are ids of tokens.
TOKEN_FILES = (*VOCABULARY_FILES, "tokenizer_config.json")
NUMBER = re.compile(
    r"(?<![0-9A-Za-z.])(?<!\d-)(?<![eE][+-])(?:[ps](?=\d{6}))?"
    r"(\d{1,3}(?:,\d{3})+(?![\d,]|\.\d)|\d{4,18})(?:\.0+)?(?![0-9A-Za-z]|\.\d|-\d)"
)
# From one to another, and in powers of ten: as programs print a slice and a column of decimal numbers.
RANGE = re.compile(r"(?<![\w.-])(\d{6,8})[ \t]?-[ \t]?(\d{6,8})(?![\w-]|\.\d)")
POWER = re.compile(r"(?<![\w.])(\d\.\d{3,8}[eE]\+?0?\d)(?!\w|\.\d)")
GLUED = re.compile(r"(?i)(?<![a-z])(?:hadm|subject|subj|patient|pt|admission|adm|note|mrn)(\d{4,18})(?!\d)")
NO_NUMBERS = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b[0-9a-f]{32,128}\b"
    r"|https?://(?:[\w-]+\.)*(?:doi|arxiv|physionet|nih|github|huggingface|zenodo|python|pytorch|apache|wikipedia)\.\w+\S*"
    r"|\b10\.\d{4,9}/\S+"
)
LETTERS = re.compile(r"[A-Za-z]+")
DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
LONG_DIGITS, MIN_SHORT = 6, 5
# Published numbers that may equal an id: the article number of MIMIC-III's paper, which the cards cite.
PUBLIC_NUMBERS = {160035}


class Number(NamedTuple):
    """A number that may be an id."""

    value: int
    line: int  # of the file
    is_labelled: bool  # whether a word for a record stands beside it


def find_labelled_ids(file: FileText) -> Iterator[int]:
    """Yield the line of everything that calls itself the id of a record."""
    if file.name in TOKEN_FILES:
        return
    for match in LABELLED_ID.finditer(file.text):
        yield file.line_of(file.text.count("\n", 0, match.start()))
    for key, _, place in file.numbers:
        if ID_KEY.fullmatch(key[-60:]):
            yield file.line_of_scalar(place)


def candidates(file: FileText, codes: Collection[str] = ()) -> list[Number]:
    """The numbers of a file that are ids if the user's data have them; its name counts as a line of it.

    `codes` are without their dot, so that some of them are numbers.
    """
    found = list(_in_text(file.name.rsplit(".", 1)[0].replace("/", "\n\n") + "\n", lambda _: 1))
    if file.name in TOKEN_FILES:
        return found
    if not file.is_json:
        found += _in_text(file.text, file.line_of)
    else:
        for line, text in enumerate(file.text.split("\n")):
            whole = text.replace(",", "").removesuffix(".0").strip()
            if not (whole.isdecimal() or NUMBERS_AS_TEXT.fullmatch(whole)):
                found += _in_text(text, lambda _, line=line: file.line_of(line))
        times = Counter(place for _, _, place in file.numbers)  # two at one place are a range
        for key, value, place in file.numbers:
            words = LETTERS.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key))
            kind = _kind_of(reversed(words), times[place] > 1)
            if kind != "figure":
                found.append(Number(value, file.line_of_scalar(place), kind == "record"))
    return [number for number in found if number.is_labelled or _may_be_id(number.value, codes)]


def matched(numbers: Collection[Number], ids: Collection[int]) -> list[Number]:
    """Those that are ids of the user's data: labelled or long ones each, short ones where there are several."""
    known = [number for number in numbers if number.value in ids]
    is_sure = any(number.is_labelled or len(str(number.value)) >= LONG_DIGITS for number in known)
    return known if is_sure or len({number.value for number in known}) >= MIN_SHORT else []


def _in_text(text: str, line_of) -> Iterator[Number]:  # type: ignore[no-untyped-def]
    text = NO_NUMBERS.sub(lambda match: " " * len(match[0]), text)
    breaks, at = 0, 0
    for match in NUMBER.finditer(text):
        breaks, at = breaks + text.count("\n", at, match.start()), match.start()
        kind = kind_beside(text, match.start(), match.end())
        is_grouped = "," in match[1]
        if kind == "record" or (kind != "figure" and not is_grouped):
            yield Number(int(match[1].replace(",", "")), line_of(breaks), kind == "record")
    for match in GLUED.finditer(text):
        yield Number(int(match[1]), line_of(text.count("\n", 0, match.start())), True)
    for pattern in (RANGE, POWER):
        for match in pattern.finditer(text):
            if (kind := kind_beside(text, match.start(), match.end(), pattern is RANGE)) != "figure":
                line = line_of(text.count("\n", 0, match.start()))
                yield from (
                    Number(int(value), line, kind == "record")
                    for value in map(float, match.groups())
                    if value % 1 == 0
                )


def kind_beside(text: str, start: int, end: int, is_range: bool = False) -> str:
    """What the word behind a number or id, if it is one for a figure, or else the words before it say that it is: `record`,
    `figure` or neither."""
    before = text[max(0, start - 60) : start].rpartition("\n\n")[2]
    before = ESCAPE.sub(" ", before)
    after = LETTERS.match(text[end : end + 24].lstrip(" *_`\"'-"))
    kind = _kind_of([after[0]]) if after and after[0].lower() in FIGURE_WORDS else ""
    return kind or _kind_of(reversed(LETTERS.findall(before)[-3:]), is_range)


def _kind_of(words, is_range: bool = False) -> str:  # type: ignore[no-untyped-def]
    """`record`, `figure` or neither, by the words beside a number, the nearest one first.

    In the plural, records are counted, unless two numbers say from which to which they are.
    """
    is_some_id = False
    for word in words:
        word = word.lower()
        if is_range and word.removesuffix("s") in RECORD_WORDS:
            word = word.removesuffix("s")
        if word in ("id", "ids"):
            is_some_id = True  # of a record, unless it is said of what: `pad_token_id`
        elif word in FIGURE_WORDS:
            return "figure"
        elif word in RECORD_WORDS:
            return "record"
    return "record" if is_some_id else ""


def _may_be_id(value: int, codes: Collection[str]) -> bool:
    """Whether a number beside which nothing stands may be an id; round ones, years, dates and codes are none."""
    if value < 1000 or value in PUBLIC_NUMBERS or 1900 <= value <= 2100:
        return False
    is_round = value % 10_000 == 0 or value & (value - 1) == 0
    return not (is_round or DATE.fullmatch(str(value)) or str(value) in codes)
