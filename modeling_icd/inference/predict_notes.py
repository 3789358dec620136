"""Reads the notes that are to be coded, from a table or a folder of text files, in chunks that are always the same."""

import codecs
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dataset_scripts.tables import (
    FORMATS,
    USUAL_NAMES,
    BadRow,
    TableBytes,
    column_names,
    find_column,
    is_table,
    join_texts,
    read_id,
    read_table,
    read_text,
)


# Characters of a chunk of several notes: about a minute's work for a small model on a CPU.
CHUNK_CHARACTERS = 400_000
NO_TEXT = "has no text"  # why an empty note is not coded


class Row(NamedTuple):
    """A row of the input, shown with its text: never print one.

    Args:
        row (`int`): its number, from 1.
        id (`str`): of the note; `""` where it cannot be read.
        text (`str`): of the note; `""` where it cannot be coded.
        reason (`str`): why it cannot be coded, as the end of a sentence; `""` if it can.
    """

    row: int
    id: str
    text: str
    reason: str


def table_rows(
    table: Path | TableBytes,
    encoding: str,
    text_columns: Sequence[str],
    id_column: str | None,
    counts: Counter[str] | None = None,
) -> Iterator[Row]:
    """The rows of a table in their order; see [`Notes`]. `counts` takes up how many of them were mended."""
    columns = {*text_columns, *([] if id_column is None else [id_column])}
    absent = USUAL_NAMES["id"] if id_column is None else ()
    rows = read_table(table, encoding, columns=columns, counts=counts, absent=absent)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, BadRow):
            yield Row(number, "", "", row.reason)
            continue
        note_id = str(number) if id_column is None else read_id(row.get(id_column))
        text = join_texts(row, text_columns)
        reason = "has a text that is not a string" if text is None else "" if text else NO_TEXT
        reason = reason if note_id else "has no id"
        yield Row(number, note_id, "" if reason else text or "", reason)


@dataclass(frozen=True)
class Notes:
    """The notes of a table, or of the `.txt` files of a folder.

    Args:
        path (`Path`): the table or folder.
        encoding (`str`): of text.
        text_columns (`tuple[str, ...]`): of a table; several are joined as in the data set `files`.
        id_column (`str`, *optional*): of a table; without one, a row's number is its id.
        chunk_rows (`int`): rows of a chunk at most.
    """

    path: Path
    encoding: str
    text_columns: tuple[str, ...]
    id_column: str | None
    chunk_rows: int

    def rows(self, counts: Counter[str] | None = None) -> Iterator[Row]:
        """The rows in their order; `counts` takes up how many of them were mended."""
        if self.path.is_dir():
            return self._files(counts)
        return table_rows(self.path, self.encoding, self.text_columns, self.id_column, counts)

    def _files(self, counts: Counter[str] | None) -> Iterator[Row]:
        for number, name in enumerate(text_files(self.path), start=1):
            text = reason = ""
            try:
                text = read_text(self.path / name, self.encoding, counts=counts)
            except OSError as error:
                reason = f"cannot be opened ({error.strerror})"
            except ValueError:
                reason = f"holds bytes that are not {self.encoding}"
            if not reason and not text.strip():
                reason = NO_TEXT
            yield Row(number, name.removesuffix(".txt"), "" if reason else text, reason)

    def chunks(self, counts: Counter[str] | None = None) -> Iterator[list[Row]]:
        """The rows in lists of at most `chunk_rows` rows, which end earlier where they hold `CHUNK_CHARACTERS`. Where one
        ends depends on the rows alone, so that chunk n is the same whoever reads it."""
        chunk: list[Row] = []
        size = 0
        for row in self.rows(counts):
            chunk.append(row)
            size += len(row.text)
            if len(chunk) == self.chunk_rows or size >= CHUNK_CHARACTERS:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def fingerprint(self) -> str:
        """A digest that changes with the size or the time of any of the files, or a name."""
        names = text_files(self.path) if self.path.is_dir() else [""]
        digest = hashlib.sha256()
        for name in names:
            status = (self.path / name).stat()
            digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
        return digest.hexdigest()

    def check_unchanged(self, fingerprint: str) -> None:
        """Raise a `ValueError` unless the fingerprint is what it was."""
        if self.fingerprint() != fingerprint:
            raise self.changed()

    def changed(self) -> ValueError:
        """What is raised where the files are no longer those that were opened."""
        return ValueError(f"{self.path} has changed while it was read: run the same command with --overwrite.")


def open_notes(
    path: str | Path,
    text_columns: Sequence[str] | None = None,
    id_column: str | None = None,
    encoding: str = "utf-8",
    chunk_rows: int = 256,
) -> Notes:
    """Find notes and their columns.

    Args:
        path (`str` or `Path`): a table (csv, tsv, jsonl, parquet), or a folder with `.txt` files.
        text_columns (`Sequence[str]`, *optional*): of a table; by default `text`.
        id_column (`str`, *optional*): of a table; by default `note_id`, `hadm_id` or `id`, where there is one.

    Raises:
        FileNotFoundError: where there is no such file or folder, or no `.txt` file in the folder.
        ValueError: where it is in no known format, or a column is missing.
    """
    path = Path(path)
    if path.is_dir():
        if text_columns is not None or id_column is not None:
            raise ValueError(
                f"{path} is a folder of text files, which have no columns: leave --text_column and --id_column out."
            )
        if next(iter(text_files(path)), None) is None:
            raise FileNotFoundError(
                f"No .txt file in {path}: give a folder with a text file for each note, or a table ({', '.join(FORMATS)})."
            )
        with suppress(LookupError):
            return Notes(path, codecs.lookup(encoding).name, (), None, chunk_rows)
        raise ValueError(f"--encoding ({encoding!r}) is not the name of a text encoding, such as utf-8 or cp1252.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a table of notes, or a folder of .txt files.")
    if path.suffix.lower() == ".txt" and not is_table(path):
        raise ValueError(f"{path} is one text file: give the folder that it is in, or a table of notes.")
    there = column_names(path, encoding)
    names: Sequence[str | None] = list(text_columns) if text_columns else [None]
    found = [find_column(str(path), there, "--text_column", name, "text") for name in names]
    own_id = find_column(str(path), there, "--id_column", id_column, "id", needed=False)
    return Notes(path, encoding, tuple(name for name in found if name is not None), own_id, chunk_rows)


def text_files(folder: Path) -> list[str]:
    """The `.txt` files of a folder and of those in it, by their paths in it, sorted; hidden ones are left out."""
    paths = (path.relative_to(folder) for path in folder.rglob("*.txt") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


class ChunkReader:
    """Gives chunks by number. Numbers that rise are read in one pass; for a lower one the input is read again."""

    def __init__(self, notes: Notes):
        self.notes = notes
        self._chunks: Iterator[list[Row]] = iter(())
        self._next: int | None = None

    def read(self, number: int) -> list[Row]:
        """Chunk `number`, from 0.

        Raises:
            ValueError: where there are not so many: the input has become shorter since they were counted.
        """
        if self._next is None or number < self._next:
            self._chunks, self._next = self.notes.chunks(), 0
        chunk = next(islice(self._chunks, number - self._next, None), None)
        if chunk is None:
            raise self.notes.changed()
        self._next = number + 1
        return chunk
