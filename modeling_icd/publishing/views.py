"""Reads an outgoing file as every text that it may stand for: plain, tokens, token ids, without HTML, decoded base64.

A file is read once, and turned into views: the texts that any reader could get from it. The privacy check compares all views
with the notes in the same way, so that only this file knows about forms of text.
"""

import base64
import html
import json
import re
import unicodedata
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from transformers.convert_slow_tokenizer import bytes_to_unicode

from .folder import read_content, weights_header


MAX_UNPACKED = 20_000_000
# A tokenizer's vocabulary holds pieces of paths, names and numbers by the thousand, in no order of a text.
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json")
WORD = re.compile(r"[^\W_]+")
# Which words come behind each other is cut here: no note has this one.
BARRIER = "endofpublictitle"

INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
MARKS = re.compile("[\u0300-\u036f]")
TAG = re.compile(r"</?[A-Za-z!][^<>]{0,300}>")
# Colours and the like, as a terminal is told them; in the source of a program, too.
TERMINAL = re.compile(r"(?:\x1b|(?<!\\)\\(?:x1[bB]|u001[bB]|033|e))\[[\d;]{0,20}[A-Za-z]")
HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010\u2011]\s*\n[\s>*#|]*(?=[^\W\d_])")
ESCAPE = re.compile(r"\\[nrt]")  # in the source of YAML and Python, where it would run into the next word
UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{}:,"]+')

# What stands between the tokens of a list, whether JSON, Python or a table wrote it, and a weight that each may have.
BETWEEN = r"[\s\"'`,;|\[\](){}\x1f]"
WEIGHT = re.compile(r"(?<![\w.])-?\d*\.\d{2,}(?!\w)")
SPACE_MARKS, WORD_ENDS, JOINED, CONTINUED = "\u0120\u010a\u2581", "</w>", re.compile(r"##(?=\w)"), "@@"
MIN_MARKS = 6
# What a list writes beside its items: a bullet or number before each, a place or id behind each, a stroke between them.
LIST_MARK = re.compile(
    r"^[ \t>|]{0,20}+(?:[-*+\u2022]|[(\[]?\d{1,6}[.):\]]?)(?=[ \t|])|^[ \t]{0,20}+\d{1,6}$"
    r"|(?<=\S)[ \t]{0,4}+[:/=][ \t]{0,4}+\d{1,6}(?=[\s,;|\])}]|$)|(?<=\s)/(?=\s)",
    re.MULTILINE,
)
TAGGED = re.compile(r"(?<=\w)[/_][A-Z$]{1,5}(?=\s)")
INTEGERS = re.compile(r"\d{1,6}(?:[\s,;]+(?:- )?\d{1,6}){11,}")
SPACED = re.compile(r"(?<!\S)\S(?: \S)+(?!\S)")
MIN_IDS = 8
# In a string of JSON: from one number to another, or one in powers of ten.
NUMBERS_AS_TEXT = re.compile(r"\d{6,8}[ \t]?-[ \t]?\d{6,8}|\d\.\d{3,8}[eE]\+?0?\d")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}(?:\s*\n\s*[A-Za-z0-9+/_-]{4,})*={0,2}")
HEX = re.compile(r"(?:[0-9a-fA-F]{2}[\s:]?){40,}")
CELL = re.compile(r"[\t|,;:=]|\s{1,}")
FIRST_CELLS = 3
# From token ids to text.
Decoder = Callable[[Sequence[int]], str]


class View(NamedTuple):
    """A text that a file can be read as."""

    text: str
    form: str = ""  # how it is written; empty where it is as it stands
    line: int | None = None  # of the file, where it begins; None where its lines are those of the file's text


@dataclass
class FileText:
    """What one outgoing file says. Of JSON, a place is a number among its scalars."""

    name: str  # in the repository
    raw: str  # its characters
    text: str  # of JSON its keys and values, one a line, escapes resolved; of other files the same as `raw`
    is_json: bool = False  # whether it was read as JSON, a line at a time where each line is
    # Of JSON: the whole numbers, each with the key above it and its place; the lists of whole numbers and of strings, each
    # with the place of its first; the strings under the same key, in order; and the place of each line of the text.
    numbers: list[tuple[str, int, int]] = field(default_factory=list)
    int_lists: list[tuple[int, list[int]]] = field(default_factory=list)
    word_lists: list[tuple[int, list[str]]] = field(default_factory=list)
    lanes: dict[tuple[str, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    places: list[int] = field(default_factory=list)

    def line_of(self, line_of_text: int) -> int:
        """The file's line, from 1, of a line of its text, from 0."""
        if not self.is_json:
            return line_of_text + 1
        return self.line_of_scalar(self.places[line_of_text]) if line_of_text < len(self.places) else 1

    def line_of_scalar(self, place: int) -> int:
        return self._lines_of_scalars[place] if place < len(self._lines_of_scalars) else 1

    @cached_property
    def _lines_of_scalars(self) -> list[int]:
        breaks = [match.start() for match in re.finditer("\n", self.raw)]
        return [bisect_right(breaks, match.start()) + 1 for match in SCALAR.finditer(self.raw)]


class _Pairs(list):  # type: ignore[type-arg]
    """The members of a JSON object, keys that stand twice included."""


def read_file(name: str, content: Path | bytes) -> FileText:
    """Read one file, of weights only what their header says in words."""
    if name.endswith(".safetensors"):
        if isinstance(content, bytes):
            raise TypeError(f"{name}: give weights as a path.")
        header = weights_header(content)
        text = "\n".join((*header.shapes, *(part for pair in header.metadata.items() for part in pair)))
        return FileText(name, text, text)
    raw = TERMINAL.sub(" ", decode_bytes(read_content(content)))
    file = FileText(name, raw, raw)
    if name.endswith((".json", ".jsonl")):
        try:
            texts = [raw] if name.endswith(".json") else [line for line in raw.splitlines() if line.strip()]
            values = [json.loads(text, object_pairs_hook=_Pairs) for text in texts]
        except (ValueError, RecursionError):
            return file  # whatever it is, its characters are looked at
        _JsonReader(file).read(values)
    return file


def decode_bytes(data: bytes) -> str:
    """The characters of a file: UTF-8, UTF-16 or Latin-1, unpacked where it is gzip."""
    if data[:2] == b"\x1f\x8b":
        data = unpack(data)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:400].count(0) * 3 > len(data[:400]):
        is_big = data[:2] == b"\xfe\xff" or (data[:2] != b"\xff\xfe" and data[:1] == b"\0")
        return data.decode("utf-16-be" if is_big else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def unpack(data: bytes) -> bytes:
    """What zlib or gzip packed, up to a limit; as it is where it is neither."""
    try:
        return zlib.decompressobj(wbits=47).decompress(data, MAX_UNPACKED)
    except zlib.error:
        return data


class _JsonReader:
    """Goes through JSON once. Keys and values are counted as they are met, which tells where in the file each stands."""

    def __init__(self, file: FileText):
        self.file, self.lines, self.place = file, [], -1  # type: ignore[var-annotated]

    def read(self, values: Sequence[Any]) -> None:
        for value in values:
            self._walk(value, "", 0)
        self.file.text, self.file.is_json = "\n".join(self.lines), True

    def _say(self, text: str) -> None:
        self.lines.append(text.replace("\n", " "))
        self.file.places.append(self.place)

    def _walk(self, value: Any, key: str, column: int) -> None:
        if isinstance(value, _Pairs):
            numbered = [name for name, _ in value] == [str(i) for i in range(len(value))]  # id2label
            for name, item in value:
                self.place += 1
                if not numbered:
                    self._say(name)
                    self._note_number(name, key)
                # A key without a word is what is counted, and the key above says as what; `n` says so itself.
                has_word = not numbered and re.search("[A-Za-z]{2}|^[nN]$", name)
                self._walk(item, name if has_word else key, 0)
        elif isinstance(value, list):
            if len(value) >= MIN_IDS and all(type(item) is int for item in value):
                self.file.int_lists.append((self.place + 1, value))
            elif value and all(isinstance(item, str) for item in value):
                self.file.word_lists.append((self.place + 1, value))
            for i, item in enumerate(value):
                self._walk(item, key, i if len(value) <= FIRST_CELLS else 0)
        else:
            self.place += 1
            if isinstance(value, str):
                self.file.lanes[key, column].append(value)
                self._say(value)
                self._note_number(value, key)
            # A weight or score is no id and no word: between words, such as tokens with their attention, it would hide them.
            elif type(value) is int or (isinstance(value, float) and value.is_integer()):
                self._say(str(int(value)))
                self.file.numbers.append((key, int(value), self.place))

    def _note_number(self, text: str, key: str) -> None:
        whole = text.strip().removesuffix(".0").replace(",", "")
        if whole.isdecimal() and whole.isascii() and len(whole) < 19:
            self.file.numbers.append((key, int(whole), self.place))
        elif NUMBERS_AS_TEXT.fullmatch(whole):
            values = map(float, whole.split("-"))
            self.file.numbers += [(key, int(value), self.place) for value in values if value.is_integer()]


def views(file: FileText, decode: Decoder | None, titles: frozenset[str]) -> Iterator[View]:
    """Every text that a file can be read as, without the lines that say no more than a title of a code, which is public.

    `decode` is that of the tokenizer of the release.
    """
    text = file.text
    if file.is_json and titles:
        text = "\n".join(BARRIER if line in titles else line for line in text.split("\n"))
    text = ESCAPE.sub(" ", text)
    yield View(text)
    if file.name in VOCABULARY_FILES:
        return
    yield from _token_views(text, None)
    if INVISIBLE.search(text):
        yield View(INVISIBLE.sub(" ", text), "words between invisible characters")
    if (clean := clean_text(text)) != text:
        yield View(clean, "HTML, escapes or broken words", None if clean.count("\n") == text.count("\n") else 1)
        yield from _token_views(clean, 1)
    if file.is_json:
        for lane in file.lanes.values():
            if len(lane) >= MIN_IDS:
                column = "\n".join(BARRIER if line in titles else line for line in lane)
                yield View(column, "values of one key", 1)
                yield from _token_views(column, 1)
        for place, items in file.word_lists:
            if len(items) > MIN_IDS and all(len(item) == 1 for item in items):
                yield View("".join(items), "letters", file.line_of_scalar(place))
    else:
        yield from _columns(text)
    for hidden in _decoded(file, text, decode):
        yield hidden
        yield from (view._replace(form=hidden.form) for view in _token_views(hidden.text, hidden.line))


def clean_text(text: str) -> str:
    """Without what a page, a PDF or a program puts between and into words."""
    text = TERMINAL.sub(" ", text)
    if "&" in text:
        text = html.unescape(html.unescape(text))
    if "\\u" in text or "\\x" in text:
        text = UNICODE_ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    if text.count("%20") > 2:
        text = unquote(text, errors="ignore")
    if "<" in text:
        text = TAG.sub(" ", text)
    return TAGGED.sub("", HYPHEN.sub("", INVISIBLE.sub("", text)))


def fold(text: str) -> str:
    """Lower case, without accents, ligatures, wide letters and invisible characters: the same for notes and for files."""
    if text.isascii():
        return text.lower()
    return MARKS.sub("", unicodedata.normalize("NFKD", INVISIBLE.sub("", text))).casefold()


# The letters in which byte-level tokenizers write bytes, to the bytes.
BYTE_LETTERS = {ord(letter): byte for byte, letter in bytes_to_unicode().items()}


def _token_views(text: str, line: int | None) -> Iterator[View]:
    """Words put together again from pieces, as they stand and without what a list writes beside each of them."""
    yield from (joined := list(_joined(text, line)))
    if joined and (bare := LIST_MARK.sub(" ", text)) != text:
        yield from _joined(bare, line)
    if len(SPACED.findall(text)) >= MIN_IDS:
        yield View(SPACED.sub(lambda match: match[0].replace(" ", ""), text), "letters", line or 1)


def _joined(text: str, line: int | None) -> Iterator[View]:
    """Words put together again from pieces, by the marks that tokenizers of each kind leave in them."""
    if sum(map(text.count, SPACE_MARKS)) >= MIN_MARKS:
        bare = re.sub(f"{BETWEEN}+", "", WEIGHT.sub(" ", text))
        if "\u2581" not in bare:
            bare = bare.translate(BYTE_LETTERS).encode("latin-1", "ignore").decode("utf-8", "ignore")
        yield View(bare.replace("\u2581", " "), "tokens", line or 1)
    if text.count(WORD_ENDS) >= MIN_MARKS:
        yield View(re.sub(f"{BETWEEN}+", "", WEIGHT.sub(" ", text)).replace(WORD_ENDS, " "), "tokens", line or 1)
    if len(JOINED.findall(text)) > 2:
        yield View(re.sub(rf"{BETWEEN}{{0,40}}##(?=\w)", "", WEIGHT.sub(" ", text)), "tokens", line or 1)
    if text.count(CONTINUED) > 2:
        yield View(re.sub(rf"{CONTINUED}{BETWEEN}+", "", WEIGHT.sub(" ", text)), "tokens", line or 1)


def _columns(text: str) -> Iterator[View]:
    """The first cells of all lines, and the last ones: a word and its label stand so."""
    rows = [[cell for cell in CELL.split(row) if cell][: FIRST_CELLS + 3] for row in text.split("\n")]
    short = [row if len(row) <= FIRST_CELLS + 2 else [] for row in rows]
    if sum(len(row) > 1 for row in short) < MIN_IDS:
        return
    for i in (*range(FIRST_CELLS), -1):
        yield View("\n".join(row[i] if -len(row) <= i < len(row) else "" for row in short), "column of a table")


def _decoded(file: FileText, text: str, decode: Decoder | None) -> Iterator[View]:
    """What token ids, base64 and hexadecimal digits say."""
    if decode is not None:
        for place, ids in file.int_lists:
            yield View(decode(ids), "token ids", file.line_of_scalar(place))
        for match in INTEGERS.finditer(text):
            ids = [int(number) for number in re.findall(r"\d+", match[0])]
            yield View(decode(ids), "token ids", file.line_of(text.count("\n", 0, match.start())))
    for pattern, form, reader in ((BASE64, "base64", _from_base64), (HEX, "hexadecimal digits", bytes.fromhex)):
        for match in pattern.finditer(text):
            try:
                data = reader(re.sub(r"[\s:]", "", match[0]))
            except ValueError:
                continue
            hidden = decode_bytes(unpack(data))
            if sum(letter.isascii() for letter in hidden) > 0.8 * len(hidden):
                yield View(hidden, form, file.line_of(text.count("\n", 0, match.start())))


def _from_base64(text: str) -> bytes:
    bare = text.rstrip("=")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
