"""Reads the user's own tables row by row: csv, tsv, jsonl (each plain or gzipped) and parquet, in constant memory.

A row that cannot be read is yielded as a `BadRow`, so that whoever reads decides what becomes of it; what is wrong with
the whole file is an error. Neither ever holds a value of a row, which may be a clinical note. (The tables of a published
release, where a faulty row means a faulty copy, are read by `builders/sources.py`.)
"""

import codecs
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq


TEXT_FORMATS = (".csv", ".tsv", ".jsonl")
FORMATS = (*TEXT_FORMATS, ".parquet")
DELIMITERS = ",;\t|"  # of a .csv; that of its header
LONGEST_VALUE = 32 << 20  # characters; the module csv refuses a note of 131,072 if nothing else is said
LONGEST_LINE = 2 * LONGEST_VALUE  # characters that are read at once where no line ends
NAME = re.compile(r"[A-Za-z_][\w ]{0,39}")  # what may be the name of a column, and not a value of a row
BATCH_ROWS = 64  # of a parquet file, in memory at once
LOOKED_AT = 100  # rows of a .jsonl that are asked for the names of their columns

MIXED = "rows with bytes that are not UTF-8, read as Windows-1252"
NULS = "rows with NUL characters, which were taken out"

# How a column may be called where no option names it, whatever the case of its letters.
USUAL_NAMES = {
    "text": ("text",),
    "codes": ("codes",),
    "id": ("note_id", "hadm_id", "id"),
    "subject": ("subject_id", "patient_id"),
    "date": ("date", "note_date", "charttime", "chartdate"),
    "code": ("code", "codes", "icd_code", "icd9_code", "icd10_code"),
    "kind": ("kind",),
    "description": ("description", "long_title", "title", "short_title"),
}

UNPACKING_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Python's "surrogateescape" makes of each byte that is not UTF-8 one of these characters.
ESCAPED = re.compile("[\udc80-\udcff]")
WINDOWS_1252 = {0xDC00 + byte: bytes([byte]).decode("cp1252", errors="replace") for byte in range(0x80, 0x100)}
WHOLE_NUMBER = re.compile(r"(-?[0-9]+)\.0+")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class TableBytes(NamedTuple):
    """A table that is held in memory, and not in a file.

    Args:
        name (`str`): what it is called in messages; its ending says which format it has.
        content (`bytes`): what the file would hold.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


class BadRow(NamedTuple):
    """A row that could not be read.

    Args:
        row (`int`): Its number in the file, from 1, the header not counted.
        reason (`str`): What is wrong with it, as the end of a sentence; it never holds a value of the row.
    """

    row: int
    reason: str


def read_table(
    path: str | Path | TableBytes,
    encoding: str = "utf-8",
    *,
    columns: Collection[str] | None = None,
    absent: Collection[str] = (),
    counts: Counter[str] | None = None,
) -> Iterator[dict[str, Any] | BadRow]:
    """Yield the rows of a table in their order, each as a dictionary or, where it cannot be read, as a [`BadRow`].

    The n-th that is yielded is row n of the file, from 1, the header not counted; empty lines are no rows. The values of a
    .csv or .tsv are strings, `""` where a cell is empty; those of a .jsonl or .parquet are what the file holds.

    Args:
        path (`str`, `Path` or `TableBytes`): The file, or what it holds; its name ends in one of `FORMATS`, the text formats
            with `.gz` behind it or without. The columns of a .csv are divided by the one of `DELIMITERS` that its header has most of.
        encoding (`str`): Of a text format. With `"utf-8"`, a byte order mark is heeded, also that of UTF-16, and a byte that
            is not UTF-8 is read as Windows-1252. With another encoding, a byte that does not belong to it is an error.
        columns (`Collection[str]`, *optional*): Leave out the other columns; a parquet file is then read the faster.
        absent (`Collection[str]`): Columns, in lower case, that [`column_names`] did not find and the reader would have
            read: a .jsonl with one of them in a later row is refused, since its value would be ignored.
        counts (`Counter[str]`, *optional*): Where to count the rows that were mended: `MIXED` and `NULS`.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file as a whole is wrong: another format, an encoding that is none, a header that names a
            column twice, a gzip stream that is cut short, a column of `absent`. Rows before the fault have been yielded by
            then.
    """
    path = _check_path(path)
    counts = Counter() if counts is None else counts
    if _format_of(path) == ".parquet":
        yield from _read_parquet(path, columns)
        return
    with _open_text(path, encoding) as lines:
        is_jsonl = _format_of(path) == ".jsonl"
        for row in _read_jsonl(lines) if is_jsonl else _read_csv(lines):
            counts.update(lines.mended)
            lines.mended.clear()
            if is_jsonl and absent and lines.row > LOOKED_AT and not isinstance(row, BadRow):
                _refuse_late_column(row, absent, lines)
            if columns is not None and not isinstance(row, BadRow):
                row = {name: value for name, value in row.items() if name in columns}
            yield row


def read_text(path: str | Path, encoding: str = "utf-8", *, counts: Counter[str] | None = None) -> str:
    """The text of a file that holds one note, mended as the rows of a text format are; see [`read_table`].

    Raises:
        OSError: where it cannot be opened.
        ValueError: where it is not in this encoding; the message holds nothing of the text.
    """
    with _open_text(Path(path), encoding) as lines:
        text = "".join(lines)
        if counts is not None:
            counts.update(lines.mended)
    return text


def column_names(path: str | Path | TableBytes, encoding: str = "utf-8") -> list[str]:
    """Name the columns of a table, without reading it: of a .jsonl, those of its first `LOOKED_AT` rows.

    Raises what [`read_table`] does.
    """
    path = _check_path(path)
    kind = _format_of(path)
    if kind == ".parquet":
        with _open_parquet(path) as file:
            return list(file.schema_arrow.names)
    if kind == ".jsonl":
        rows = islice(read_table(path, encoding), LOOKED_AT)
        return list(dict.fromkeys(name for row in rows if not isinstance(row, BadRow) for name in row))
    with _open_text(path, encoding) as lines:
        return [name for name in _read_header(lines)[0] if name]


def find_column(
    where: str,
    there: Sequence[str],
    option: str,
    given: str | None,
    usual: str,
    needed: bool = True,
    named: Collection[str] = (),
) -> str | None:
    """Find a column by the name that an option gives, or by its usual ones.

    Args:
        where (`str`): The table, for the message, as is `option`.
        there (`Sequence[str]`): The names of its columns.
        given (`str`, *optional*): The name that the option gives.
        usual (`str`): One of `USUAL_NAMES`, for when it gives none.
        needed (`bool`): Whether there must be such a column; one that is given must be there in any case.
        named (`Collection[str]`): Names that other options give; they help to tell names of columns from a row.

    Raises:
        ValueError: where a name that is given, or a column that is needed, is missing; the message lists what is there,
            unless that may be a row: see [`list_columns`].
    """
    names = USUAL_NAMES[usual] if given is None else (given,)
    for name in names:
        exact = [column for column in there if column == name]
        alike = exact or [column for column in there if column.lower() == name.lower()]
        if len(alike) == 1:
            return alike[0]
    if given is None and not needed:
        return None
    raise ValueError(
        f"{where} has no column {' or '.join(map(repr, names))}: give `{option}` the name of one of its columns, "
        f"{list_columns(there, named)}."
    )


def list_columns(there: Sequence[str], named: Collection[str] = ()) -> str:
    """Say which columns a table has, as the end of a sentence; only how many, where their names may be values of a row.

    A table that lacks its header begins with a row. So the names are shown only if all of them look like names, and one
    of them is a usual one or among those that options give (`named`).
    """
    if are_names(there, named):
        return f"which are {', '.join(map(repr, there))}"
    return (
        f"of which there are {len(there)}; the first line does not look like the names of columns, so it is not shown"
    )


def are_names(there: Sequence[str], named: Collection[str] = ()) -> bool:
    known = {name.lower() for name in (*chain(*USUAL_NAMES.values()), *named)}
    return all(map(NAME.fullmatch, there)) and any(name.lower() in known for name in there)


def join_texts(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The text of a row: that of one column as it is, those of several each under its heading.

    A column `clinical_history` becomes a section `CLINICAL HISTORY: ...`; sections are divided by an empty line, and an
    empty one is left out.

    Returns:
        The text, `""` if there is none; None where a value is not a string.
    """
    texts = ["" if is_missing(row.get(column)) else row[column] for column in columns]
    if not all(isinstance(text, str) for text in texts):
        return None
    if len(columns) == 1:
        return texts[0] if texts[0].strip() else ""
    headings = (column.replace("_", " ").upper() for column in columns)
    sections = zip(headings, (text.strip() for text in texts), strict=True)
    return "\n\n".join(f"{heading}: {text}" for heading, text in sections if text)


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_id(value: Any) -> str:
    """An id as a string, `""` if there is none.

    Data frames make `17.0` of a whole number in a column where one is missing, and write it so into a csv: it is read as
    `17`, as in the tables where none is missing.
    """
    if is_missing(value) or isinstance(value, (bytes, list, dict)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    match = WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else text


def is_table(path: Path | TableBytes) -> bool:
    """Whether a file's name ends as that of a table that can be read."""
    return _format_of(path) is not None


def table_stem(path: Path) -> str:
    """The name of a table without what says its format, in lower case: `train` of `Train.csv.gz`."""
    name = path.name.lower()
    kind = _format_of(path) or ""
    return (name.removesuffix(".gz") if kind in TEXT_FORMATS else name).removesuffix(kind)


def _format_of(path: Path | TableBytes) -> str | None:
    name = path.name.lower()
    names = (name, name.removesuffix(".gz"))
    return next((kind for kind in FORMATS if names[kind in TEXT_FORMATS].endswith(kind)), None)


def _check_path(path: str | Path | TableBytes) -> Path | TableBytes:
    path = Path(path) if isinstance(path, str) else path
    if _format_of(path) is None:
        raise ValueError(
            f"{path} has a name that ends in none of {', '.join(FORMATS)} (the first three also with .gz): save the table in "
            "one of these formats."
        )
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(f"{path} {'is not a file' if path.exists() else 'does not exist'}: expected a table.")
    return path


@contextmanager
def _open_text(path: Path | TableBytes, encoding: str) -> Iterator["_Lines"]:
    errors, text = "strict", None
    with _open_bytes(path) as file:
        start = _look_ahead(file, path)
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
            if start.startswith(UTF16_MARKS):
                encoding = "utf-16"
            elif b"\0" in start.partition(b"\n")[0]:
                raise ValueError(
                    f"{path} has NUL bytes in its first line: if it is UTF-16, give `encoding=utf-16-le`."
                )
            else:
                encoding, errors = "utf-8-sig", "surrogateescape"
        with suppress(LookupError):
            text = io.TextIOWrapper(file, encoding, errors, newline="\n" if _format_of(path) == ".jsonl" else "")
        if text is None:
            raise ValueError(f"`encoding` ({encoding!r}) is not the name of a text encoding, such as utf-8 or cp1252.")
        yield _Lines(text, path, encoding)


def _open_bytes(path: Path | TableBytes) -> io.BufferedReader | gzip.GzipFile:
    is_packed = path.name.lower().endswith(".gz")
    if isinstance(path, TableBytes):
        held = io.BytesIO(path.content)
        return gzip.GzipFile(fileobj=held) if is_packed else io.BufferedReader(held)  # type: ignore[type-var]
    return gzip.GzipFile(path) if is_packed else path.open("rb")


def _look_ahead(file: io.BufferedReader | gzip.GzipFile, path: Path | TableBytes) -> bytes:
    fault = None
    try:
        return file.peek(1 << 10)
    except UNPACKING_ERRORS as error:
        fault = error
    raise ValueError(_explain_stream(fault, path, "", 0))


class _Lines:
    """The lines of a text file, mended.

    Args:
        file (`IO[str]`): The file, at its beginning.
        path (`Path` or `TableBytes`): For messages, as is the encoding.
    """

    def __init__(self, file: IO[str], path: Path | TableBytes, encoding: str):
        self.file, self.path, self.encoding = file, path, encoding
        self.mended: dict[str, int] = {}  # what was, since someone last cleared it
        self.row = 0  # that the reader of the lines is at

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        fault = None
        try:
            line = self.file.readline(LONGEST_LINE)
        except (UnicodeError, *UNPACKING_ERRORS) as error:
            fault = error
        if fault is not None:  # raised here, so that no traceback connects it with the bytes
            raise ValueError(_explain_stream(fault, self.path, self.encoding, self.row))
        if not line:
            raise StopIteration
        if not line.isascii() and ESCAPED.search(line):
            line = line.translate(WINDOWS_1252)
            self.mended[MIXED] = 1
        if "\0" in line:
            line = line.replace("\0", "")
            self.mended[NULS] = 1
        return line


def _explain_stream(error: Exception, path: Path | TableBytes, encoding: str, row: int) -> str:
    """Say what unpacking or decoding found wrong."""
    if isinstance(error, UnicodeError):
        remedy = "give `encoding` its true one, or convert the file to UTF-8"
        return f"{path} holds bytes after row {row} that are not {encoding}: {remedy}."
    return f"{path} has a gzip stream that is cut short or damaged after row {row}: make the file again."


def _read_header(lines: _Lines) -> tuple[list[str], str]:
    """Read the names of a csv's columns, and find what divides them."""
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{lines.path} is empty: expected a table whose first line names its columns.")
    is_tsv = _format_of(lines.path) == ".tsv"
    delimiter = "\t" if is_tsv else max(DELIMITERS, key=first.count)
    header: list[str] = []
    with suppress(csv.Error, StopIteration):
        header = [name.strip() for name in next(csv.reader(chain([first], lines), delimiter=delimiter, strict=True))]
    if not any(header):
        raise ValueError(f"{lines.path}: the first line must name the columns, and cannot be read as their names.")
    twice = [name for name, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        listed = ", ".join(map(repr, twice)) if are_names([*filter(None, header)]) else "a value"
        raise ValueError(
            f"{lines.path}: the first line must name the columns, and names {listed} twice. Rename one of the two, or add "
            "the line if there is none."
        )
    lines.mended.clear()
    return header, delimiter


def _read_csv(lines: _Lines) -> Iterator[dict[str, Any] | BadRow]:
    header, delimiter = _read_header(lines)
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        fault, values = "", None
        try:
            values = next(reader, None)
        except csv.Error as error:
            fault = _explain(str(error))
        if values is None and not fault:
            return
        if values == []:
            continue  # an empty line
        lines.row += 1
        if values is not None and len(values) != len(header):
            fault = (
                f"has {len(values)} columns, and the header {len(header)}: a quote, or what divides the columns, is not "
                "escaped in it or before it"
            )
        if fault or values is None:
            yield BadRow(lines.row, fault)
        else:
            yield {name: value for name, value in zip(header, values, strict=True) if name}


def _explain(message: str) -> str:
    """Say what the module csv found wrong; after it, it goes on with the next line."""
    if "field limit" in message:
        return f"has a value of more than {LONGEST_VALUE:,} characters: a quote before it is probably never closed"
    if "unexpected end" in message:
        return "has a quote that is never closed: the file is cut short, or was edited"
    return "has a quote within a value that is not doubled"


def _refuse_late_column(row: Mapping[str, Any], absent: Collection[str], lines: _Lines) -> None:
    late = next((name for name in row if name.lower() in absent), None)
    if late is not None:
        raise ValueError(
            f"{lines.path}: row {lines.row} has a column {late!r}, which none of the first {LOOKED_AT} rows has, so that it "
            f"would not be read. Give the first row a {late!r}, too, null if it has none."
        )


def _read_jsonl(lines: _Lines) -> Iterator[dict[str, Any] | BadRow]:
    for line in lines:
        if not line.strip():
            continue
        lines.row += 1
        if lines.row == 1 and line.lstrip().startswith("["):
            raise ValueError(f"{lines.path} begins with a list: expected one JSON object a line.")
        row: Any = None
        fault = ""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            fault = "is not JSON"
        if not fault and not isinstance(row, dict):
            fault = "is not a JSON object"
        if not fault and "\\ud" in line.lower() and HALF_CHARACTER.search(json.dumps(row, ensure_ascii=False)):
            fault = "holds one half of a character (a lone surrogate)"
        yield BadRow(lines.row, fault) if fault else row


def _read_parquet(path: Path | TableBytes, columns: Collection[str] | None) -> Iterator[dict[str, Any] | BadRow]:
    row, is_damaged = 0, False
    with _open_parquet(path) as file:
        wanted = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
        batches = file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False)
        while not is_damaged:
            try:
                batch = next(batches, None)
                rows = None if batch is None else to_rows(batch)
            except (pa.ArrowException, OSError, UnicodeDecodeError):
                is_damaged = True
                continue
            if rows is None:
                return
            yield from rows
            row += len(rows)
    raise ValueError(f"{path} is damaged after row {row}: make the file again.")


def to_rows(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """The rows of a batch; a date that Python cannot hold is None, and one in a zone that is not known here is in UTC."""
    with suppress(OverflowError, pa.ArrowInvalid, KeyError):  # the last is what pytz raises, where it is installed
        return batch.to_pylist()
    columns = [_to_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _to_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit))  # the same points in time, in UTC
    values = []
    for scalar in column:
        value = None
        with suppress(OverflowError):
            value = scalar.as_py()
        values.append(value)
    return values


@contextmanager
def _open_parquet(path: Path | TableBytes) -> Iterator[pq.ParquetFile]:
    source: Path | pa.BufferReader = pa.BufferReader(path.content) if isinstance(path, TableBytes) else path
    file = None
    with suppress(pa.ArrowException):
        # A buffer, so that a column is read page by page and not a whole row group at once.
        file = pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False)
    if file is None:
        raise ValueError(f"{path} cannot be read as Parquet: it is cut short, damaged, or in another format.")
    with file:
        yield file
