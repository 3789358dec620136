"""Files of notes that the page codes: held in memory until they are coded, called off, or forgotten."""

import io
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.tables import TableBytes, are_names, column_names, find_column

from ..inference.predict_notes import Row, table_rows
from ..inference.predict_outputs import write_csv_rows
from .documents import safe_name


MAX_BATCH_BYTES = 20 << 20
MAX_BATCH_ROWS = 2000
MAX_BATCH_CHARACTERS = 40_000_000
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
KEPT_SECONDS = 15 * 60
MAX_BATCHES = 8


class BatchError(ValueError):
    """A file of notes that cannot be coded; the message names it and says what to do, and holds nothing of a row."""


class Batch(NamedTuple):
    """The rows of one file, with their notes: never print one."""

    rows: Sequence[Row]


def read_batch(name: str, content: bytes, max_note_characters: int) -> Batch:
    """The rows of a table of notes, with the columns that `modeling-icd predict` takes: `text`, and if there is one, `note_id`,
    `hadm_id` or `id`.

    Raises:
        BatchError: where the file as a whole cannot be read, is too large, or no row of it can be coded.
    """
    name = safe_name(name)
    if len(content) > MAX_BATCH_BYTES:
        raise BatchError(
            f"{name} has {len(content) / (1 << 20):.0f} MB, and at most {MAX_BATCH_BYTES >> 20} MB are taken here: use "
            "`modeling-icd predict` for larger files."
        )
    if not name.lower().endswith(FORMATS):
        raise BatchError(
            f"{name} has a name that ends in none of {', '.join(FORMATS)}: save the table in one of these."
        )
    if not content.strip():
        raise BatchError(f"{name} is empty: expected a table whose first line names its columns.")
    table = TableBytes(name, content)
    try:
        if name.lower().endswith(".parquet"):
            _check_parquet(table)
        rows = _rows(table, max_note_characters)
    except BatchError:
        raise
    except ValueError as error:  # of the reader, whose messages hold no value of a row
        raise BatchError(str(error)) from None
    if all(row.reason for row in rows):
        why = f"row {rows[0].row} {rows[0].reason}" if rows else "it has no rows"
        raise BatchError(f"{name} has no note that can be coded: {why}.")
    return Batch(rows)


def _rows(table: TableBytes, max_note_characters: int) -> list[Row]:
    there = column_names(table)
    try:
        text = find_column(table.name, there, "text", None, "text")
    except ValueError:
        shown = f" Its columns are {', '.join(map(repr, there))}." if are_names(there) else ""
        raise BatchError(
            f"{table.name} has no column 'text' with the notes: name it so in the first line.{shown}"
        ) from None
    own_id = find_column(table.name, there, "id", None, "id", needed=False)
    rows: list[Row] = []
    size = 0
    for row in table_rows(table, "utf-8", (text or "",), own_id):
        if len(rows) == MAX_BATCH_ROWS:
            raise BatchError(
                f"{table.name} has more than {MAX_BATCH_ROWS:,} rows: divide it, or use `modeling-icd predict`, which takes any "
                "number."
            )
        size += len(row.text)
        if size > MAX_BATCH_CHARACTERS:
            raise BatchError(f"{table.name} holds more than {MAX_BATCH_CHARACTERS:,} characters: divide it.")
        if len(row.text) > max_note_characters:
            row = row._replace(text="", reason=f"has a note of more than {max_note_characters:,} characters")
        elif not row.reason and not row.text.strip():
            row = row._replace(text="", reason="has no text")
        rows.append(row)
    return rows


def _check_parquet(table: TableBytes) -> None:
    """Raise a `BatchError` for a parquet file that unpacks to far more than it has."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(table.content))
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        unpacked = sum(group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns))
    except (pa.ArrowException, OSError):
        raise BatchError(
            f"{table.name} cannot be read as Parquet: it is cut short, damaged, or in another format."
        ) from None
    if metadata.num_rows > MAX_BATCH_ROWS:
        raise BatchError(
            f"{table.name} has more than {MAX_BATCH_ROWS:,} rows: divide it, or use `modeling-icd predict`."
        )
    if unpacked > 4 * MAX_BATCH_BYTES:
        raise BatchError(f"{table.name} unpacks to more than {4 * MAX_BATCH_BYTES >> 20} MB: divide it.")


def batch_csv(coded: Sequence[tuple[Row, Sequence[Mapping[str, Any]]]]) -> str:
    """The codes of all rows as csv, in the form of `modeling-icd predict`: a row for each code."""
    file = io.StringIO(newline="")
    write_csv_rows(({"row": row.row, "id": row.id, "codes": codes} for row, codes in coded), file)
    return file.getvalue()


class Batches:
    """The files that wait to be coded, by the token that was given for each. Each is forgotten after `KEPT_SECONDS`."""

    def __init__(self):
        self._batches: dict[str, Batch] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Batch) -> str:
        """Keep a file; returns its token.

        Raises:
            BatchError: where as many wait already as may.
        """
        if len(self) >= MAX_BATCHES:
            raise BatchError(f"{MAX_BATCHES} files are waiting to be coded already: try again in a few minutes.")
        token = secrets.token_urlsafe(24)
        self._batches[token] = batch
        timer = threading.Timer(KEPT_SECONDS, self.take, (token,))
        timer.daemon = True
        timer.start()
        return token

    def take(self, token: str) -> Batch | None:
        """Give a file out, once; `None` where there is none of that token, or no longer."""
        return self._batches.pop(token, None)
