"""Finds ids of records that are text, such as those of the user's own notes, in outgoing files.

An id of digits alone is a number, and `record_ids.py` looks for it. Any other is compared word by word, so that `PAT-00123`
is found in `pat_00123` too. How much it says decides what is a finding:

- a *telling* one, with four digits or more (six, where it has no letter), or of eight letters and digits with two digits
  among them: wherever it stands;
- a shorter one with a digit and a letter, such as `B12`: where a word for a record stands beside it, or where five of them do;
- one without a digit, such as `smith`, or `1`: only behind what calls itself an id, `patient_id: smith`.

Codes of the data set, dates and words of this project's own files are no ids.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from .record_ids import MIN_SHORT, TOKEN_FILES, kind_beside
from .views import WORD, FileText, fold


MAX_WORDS, MAX_PLACES = 6, 20  # words of an id that are compared; places of it in a file that are remembered
MAX_GAP = 2  # characters between two words of an id
TELLING_DIGITS, TELLING_LENGTH = 4, 8
ID_LABEL = re.compile(
    r"(?:\b|_)(?:(?:hadm|subject|icustay|admission|patient|note|record|case)_?ids?|hadm|mrn)\b[\"']?\s*[:=\n]\s*[\"'\[(]*\s*"
)
DAY = re.compile(r"(?:19|20)\d\d([-./])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])")
MAX_DIGITS = 18  # of an id that is looked for as a number


class Place(NamedTuple):
    """Where something stands that may be an id."""

    line: int | None  # of the file; `None` in a token
    is_labelled: bool  # whether what stands before it says that it is the id of a record
    is_of_record: bool  # whether a word for a record stands beside it
    token: str = ""  # of a tokenizer, in which it stands


def as_number(record_id: str) -> int | None:
    """An id of digits alone, which is looked for as a number; `None` of any other."""
    return int(record_id) if record_id.isascii() and record_id.isdecimal() and len(record_id) <= MAX_DIGITS else None


def key_of(text: str) -> str:
    """What two spellings of an id have in common: its first words, in lower case; of digits alone with what stands between."""
    words = list(WORD.finditer(fold(text)))[:MAX_WORDS]
    if not words:
        return ""
    return _key(fold(text), words)


def _key(text: str, words: list[re.Match[str]]) -> str:
    joined = " ".join(word[0] for word in words)
    return text[words[0].start() : words[-1].end()] if joined.replace(" ", "").isdecimal() else joined


def says_much(key: str) -> bool | None:
    """Whether an id is telling by itself; `None` where it says so little that only a label makes an id of it."""
    signs = re.sub(r"[\W_]", "", key)
    digits = sum(map(str.isdecimal, signs))
    if not digits or DAY.fullmatch(key):
        return None
    if digits == len(signs):  # an id in parts, such as 12-3456-7
        return digits >= TELLING_LENGTH - 2 or None
    if digits >= TELLING_DIGITS or (digits >= 2 and len(signs) >= TELLING_LENGTH):
        return True
    return False if len(signs) >= 3 else None


def find_candidates(file: FileText, tokens: Iterable[str] = ()) -> dict[str, list[Place]]:
    """Everything in a file, in its name and in tokens that it adds to a tokenizer, that is an id if the user's data have it,
    by its key."""
    found: dict[str, list[Place]] = defaultdict(list)
    for token in tokens:
        for key, _, _, is_labelled in _candidates_in(fold(token)):
            found[key].append(Place(None, is_labelled, False, token))
    parts: list[tuple[str, FileText | None]] = [(file.name.rsplit(".", 1)[0].replace("/", "\n\n"), None)]
    if file.name not in TOKEN_FILES:
        parts.append((file.text, file))
    for part, whole in parts:
        text = fold(part)
        line, at = 0, 0
        for key, start, end, is_labelled in _candidates_in(text):
            line, at = line + text.count("\n", at, start), start
            if len(found[key]) < MAX_PLACES:
                beside = kind_beside(text, start, end) if says_much(key) is False else ""
                found[key].append(Place(1 if whole is None else whole.line_of(line), is_labelled, beside == "record"))
    return found


def _candidates_in(text: str) -> Iterator[tuple[str, int, int, bool]]:
    """Yield what may be ids in a folded text, in order: key, start, end, and whether a label stands before it."""
    labelled = {match.end() for match in ID_LABEL.finditer(text)}
    for words in _runs(text):
        for number, word in enumerate(words):
            is_labelled = word.start() in labelled
            for key, end in _keys_at(text, words[number : number + MAX_WORDS], is_labelled):
                yield key, word.start(), end, is_labelled


def _runs(text: str) -> Iterator[list[re.Match[str]]]:
    """Yield words that may be parts of one id: next to each other on one line."""
    run: list[re.Match[str]] = []
    for word in WORD.finditer(text):
        gap = text[run[-1].end() : word.start()] if run else ""
        if run and (len(gap) > MAX_GAP or "\n" in gap):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _keys_at(text: str, words: list[re.Match[str]], is_labelled: bool) -> Iterator[tuple[str, int]]:
    """Yield the keys that begin with the first of these words and may be ids, and where each ends."""
    has_digit = False
    for number, word in enumerate(words, start=1):
        has_digit = has_digit or any(map(str.isdecimal, word[0]))
        if has_digit or is_labelled:
            yield _key(text, words[:number]), word.end()


def matched_places(
    candidates: Mapping[str, list[Place]], ids: Collection[str], no_ids: Collection[str] = ()
) -> list[Place]:
    """The places of a file where ids of the user's data stand, by the rules at the top of this module.

    Args:
        candidates (`dict`): see [`find_candidates`].
        ids (`Collection[str]`): keys of the user's ids, as far as they are among the candidates.
        no_ids (`Collection[str]`): words, and codes without their dot, that are none; all in lower case.
    """
    known = {key: candidates[key] for key in ids if key in candidates}
    for key in [key for key in known if key.replace(" ", "") in no_ids or set(key.split()) <= set(no_ids)]:
        known[key] = [place for place in known[key] if place.is_labelled]
    short = [key for key, places in known.items() if places and says_much(key) is False]
    sure = {True: True, False: len(short) >= MIN_SHORT, None: False}
    return [
        place
        for key, places in known.items()
        for place in places
        if place.is_labelled or place.is_of_record or sure[says_much(key)]
    ]
