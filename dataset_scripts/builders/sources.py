"""Finds and reads the user's source files (CSV tables, lists of values), and says what is wrong with them.

Every fault becomes one message with the file, the record and a remedy. The messages of the parsers are never passed
on, because they quote the record, which may be a clinical note.
"""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from datasets.utils import tqdm

from ..codes import icd9
from ..codes.icd9 import Kind


BLOCK_SIZE = 4 << 20  # bytes; a record must fit into one block, and the longest note of MIMIC-III has about 0.1 MB

MIMIC3_RELEASE = "MIMIC-III v1.4 (physionet.org/content/mimiciii/1.4)"


def absolute_path(path: str | Path) -> str:
    return str(Path(path).expanduser().resolve())


def fingerprint(code: Iterable[Path], sources: Iterable[Path]) -> str:
    """Hash the text of the code and the names, sizes and times of the source files that a data set is made from.

    It names the cache folder, so that a data set built by other code or from other files is never served.
    """
    digest = hashlib.sha256()
    for file in code:
        digest.update(file.read_bytes())
    for file in sources:
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def list_folder(folder: str, parameter: str, content: str) -> list[Path]:
    """List a folder's files, sorted; `parameter` and `content` say in the message what was expected where."""
    path = Path(folder)
    if not path.is_dir():
        fault = "is not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"`{parameter}` ({folder}) {fault}: expected a folder with {content}.")
    return sorted(file for file in path.iterdir() if file.is_file())


def find_tables(
    folder: str, names: Sequence[str], release: str = MIMIC3_RELEASE, subfolders: Sequence[str] = ()
) -> dict[str, Path]:
    """Find the tables `NAME.csv` or `NAME.csv.gz` in a folder, upper or lower case.

    Args:
        folder (`str`): The `data_dir`.
        names (`Sequence[str]`): Of the tables.
        release (`str`): Whose tables they are, for messages.
        subfolders (`Sequence[str]`): Folders in it that may hold some of them.
    """
    files = list_folder(folder, "data_dir", f"the tables {', '.join(names)} of {release} as .csv or .csv.gz")
    for subfolder in subfolders:
        if Path(folder, subfolder).is_dir():
            files += list_folder(str(Path(folder, subfolder)), "data_dir", "tables")
    tables = {}
    for name in names:
        found = [file for file in files if file.name.lower() in (f"{name}.csv".lower(), f"{name}.csv.gz".lower())]
        if len(found) > 1:
            paths = " and ".join(str(file.relative_to(folder)) for file in found)
            raise ValueError(f"{folder} holds {paths}: keep one of them.")
        if found:
            tables[name] = found[0]
    missing = [name for name in names if name not in tables]
    if missing:
        inside = f" or its subfolders {' and '.join(subfolders)}" if subfolders else ""
        raise FileNotFoundError(
            f"No {', '.join(f'{name}.csv.gz' for name in missing)} (nor .csv) in `data_dir` ({folder}){inside}: expected a "
            f"folder with the tables of {release}, or a synthetic corpus in their shape."
        )
    return tables


def find_xml(path: str) -> Path:
    """Find the XML file that a path gives, either itself or as the only one in a folder."""
    if Path(path).is_file():
        return Path(path)
    files = [file for file in list_folder(path, "data_dir", "one .xml file") if file.name.lower().endswith(".xml")]
    if not files:
        raise FileNotFoundError(f"No .xml file in `data_dir` ({path}): expected the challenge's file and no other.")
    if len(files) > 1:
        raise ValueError(
            f"{path} holds {len(files)} .xml files ({', '.join(file.name for file in files[:3])}): give `data_dir` the "
            "path of one of them."
        )
    return files[0]


def read_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), needs_rows: bool = False
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Stream some columns of a CSV table, plain or gzipped, every value as a string.

    A progress bar shows how much of a large file is read; `datasets.disable_progress_bars()` turns it off.

    Args:
        path (`Path`): The table; its column names may be upper or lower case, and other columns are ignored.
        columns (`Sequence[str]`): Names of the wanted columns, as messages should spell them.
        optional (`Sequence[str]`): Names of columns that the table may lack; their values are then null.
        needs_rows (`bool`): Whether a table of its header alone is an error.

    Yields:
        The number of the batch's first record in the file (the header is record 1, and a record may span many lines)
        and the batch, its columns as asked for.
    """
    found = _read_header(path, columns, optional)
    names = list(found.values())
    first = 2
    fault = None
    with _QuoteCounter(path) as stream:
        try:
            for batch in pyarrow.csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_SIZE, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=names, column_types=dict.fromkeys(names, pa.string())
                ),
            ):
                nothing = pa.nulls(batch.num_rows, pa.string())
                arrays = [batch[found[name]] if name in found else nothing for name in (*columns, *optional)]
                yield first, pa.RecordBatch.from_arrays(arrays, [*columns, *optional])
                first += batch.num_rows
        except pa.ArrowInvalid as error:
            fault = _explain(str(error), first)
        except OSError as error:
            if error.errno is not None:  # of the disk; pyarrow gives those of the gzip stream no number
                raise
            fault = (
                f"the gzip stream is cut short or damaged after record {first - 1}: "
                "download the file again and compare its checksum"
            )
    if fault is None and stream.quotes % 2:
        fault = (
            f"a quote opened in or before record {first - 1} is never closed: "
            "the file is cut short or was edited. Restore the original table"
        )
    if fault is None and needs_rows and first == 2:
        fault = "it holds its header alone, and no row. Restore the original table"
    if fault is not None:  # raised here, outside of the `except`, so that no traceback carries the parser's message
        raise ValueError(f"{path}: {fault}.")


def read_ids(batch: pa.RecordBatch, column: str, path: Path, first: int, optional: bool = False) -> pa.Array:
    """Read a column of ids as integers; an empty id is null where ids are optional, and an error elsewhere."""
    values = pc.utf8_trim_whitespace(batch[column])
    if optional:
        values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    wrong = pc.index(pc.match_substring_regex(values, r"^[0-9]{1,18}$"), False).as_py()
    if wrong >= 0:
        fault = "is empty" if values[wrong].as_py() == "" else "is not a whole number"
        raise ValueError(
            f"{path}: {column} of record {first + wrong} {fault}. Restore the original table: "
            "spreadsheets and data frames rewrite ids, and an unbalanced quote shifts the columns."
        )
    return pc.cast(values, pa.int64())


def read_choices(batch: pa.RecordBatch, column: str, choices: Sequence[str], path: Path, first: int) -> pa.Array:
    """Read a column of a few known values, without the white space around them; any other value is an error."""
    values = pc.utf8_trim_whitespace(batch[column])
    wrong = pc.index(pc.is_in(values, pa.array(choices)), False).as_py()
    if wrong >= 0:
        expected = ", ".join(choice or "empty" for choice in choices)
        raise ValueError(
            f"{path}: {column} of record {first + wrong} is none of these: {expected}. Restore the original table."
        )
    return values


def has_text(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Whether each text holds more than white space."""
    return pc.invert(pc.or_(pc.equal(texts, ""), pc.utf8_is_space(texts)))


def read_dotted_codes(
    batch: pa.RecordBatch,
    column: str,
    kind: Kind,
    path: Path,
    first: int,
    add_dot: Callable[[str, Kind], str] = icd9.add_dot,
    unreadable: Counter[str] | None = None,
) -> pa.Array:
    """Read a column of codes, ICD-9-CM's if no other `add_dot` is given, and put their dots in; an empty code becomes null.

    A code that `add_dot` refuses is an error; with `unreadable`, it becomes null, and its rows are counted there by `column`.
    """
    encoded = pc.utf8_trim_whitespace(batch[column]).dictionary_encode()
    dotted: list[str | None] = []
    for i, code in enumerate(encoded.dictionary.to_pylist()):
        try:
            dotted.append(add_dot(code, kind) if code else None)
        except ValueError as error:
            if unreadable is not None:
                unreadable[column] += pc.sum(pc.equal(encoded.indices, i)).as_py()
                dotted.append(None)
                continue
            row = first + pc.index(encoded.indices, i).as_py()
            raise ValueError(f"{path}: {column} of record {row}: {error}") from None
    return pc.take(pa.array(dotted, type=pa.string()), encoded.indices)


def read_list(path: Path) -> list[str]:
    """Read a file of one value a line, without a header; empty lines are skipped, a value given twice is an error."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = None
    if lines is None:
        raise ValueError(f"{path} is not a text file: expected one value a line.")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        value = line.strip()
        if value in seen:
            raise ValueError(f"{path}: line {number} repeats line {seen[value]}. Remove one of them.")
        if value:
            seen[value] = number
    if not seen:
        raise ValueError(f"{path} is empty: expected one value a line.")
    return list(seen)


def _read_header(path: Path, columns: Sequence[str], optional: Sequence[str]) -> dict[str, str]:
    """Find the columns' names as the file spells them; an optional column that it lacks is left out."""
    header = None
    try:
        with _open(path) as file:
            header = next(csv.reader([file.readline(1 << 16).decode("utf-8-sig")], strict=True), [])
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError, csv.Error):
        pass
    if header is None:
        raise ValueError(
            f"{path} cannot be read as a {'gzipped ' if _is_gzip(path) else ''}CSV table, commas between its columns, "
            "in UTF-8: download it again and compare its checksum."
        )
    if not header:
        raise ValueError(f"{path} is empty: expected a CSV table whose first line names {', '.join(columns)}.")
    names = {}
    for column in (*columns, *optional):
        found = [name for name in header if name.strip().upper() == column.upper()]
        if not found and column in optional:
            continue
        if len(found) != 1:
            raise ValueError(
                f"{path}: record 1 must be the header and name {column} once, and names it {len(found)} times. "
                f"Expected the columns {', '.join(columns)}: is this the table the file name says?"
            )
        names[column] = found[0]
    return names


def _explain(message: str, first: int) -> str:
    """Say what pyarrow found wrong, keeping only numbers of its message."""
    row = re.search(r"Row #([0-9]+)", message)
    record = int(row[1]) if row else first
    widths = re.search(r"Expected ([0-9]+) columns, got ([0-9]+)", message)
    if widths:
        return (
            f"record {record} has {widths[2]} columns instead of {widths[1]}: "
            "the file is cut short, or a quote or comma in it is not escaped. Restore the original table"
        )
    if "UTF8" in message:
        return f"record {record} is not valid UTF-8: convert the file to UTF-8 or restore the original table"
    if "straddl" in message:
        return (
            f"record {record} or one soon after it is longer than {BLOCK_SIZE >> 20} MB: "
            "a quote in it is never closed. Restore the original table"
        )
    return f"record {record} or one soon after it cannot be read as CSV. Restore the original table"


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if _is_gzip(path) else path.open("rb")


def _progress_bar(path: Path) -> tqdm:
    """Count the bytes read of a file on disk, compressed ones if it is; shown after a second."""
    return tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, delay=1, leave=False)


class _QuoteCounter(io.RawIOBase):
    """A table unpacked, as a stream that counts the double quotes read from it: an odd number means one was never closed.

    pyarrow takes a quote left open for a value that runs to the end of the file, and says nothing. It unpacks faster than
    the module gzip, and without the interpreter's lock, so that unpacking and parsing share two cores.
    """

    def __init__(self, path: Path):
        self.file = pa.OSFile(str(path))
        self.stream = pa.CompressedInputStream(self.file, "gzip") if _is_gzip(path) else self.file
        self.bar = _progress_bar(path)
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.quotes += data.count(b'"')
        self.bar.update(self.file.tell() - self.bar.n)
        return data

    def close(self) -> None:
        self.bar.close()
        self.file.close()
        super().close()
