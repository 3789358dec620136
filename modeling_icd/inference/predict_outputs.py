"""Writes predicted codes as Parquet, csv or jsonl, and the rows that could not be coded as csv.

Parquet and csv have a row for each predicted code, the codes of a note by falling score, and a note without any code has one
row whose code is null. A line of jsonl is a note: `{"row", "id", "codes": [...]}`, its codes as `pipeline("icd-coding")` gives
them. Evidence, which is text of the note, is a list of structs in Parquet and JSON in csv.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.files import safe_cell, whole_file


SPAN = pa.struct(
    [
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.large_string()),
        ("weight", pa.float64()),
        ("source", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("code", pa.string()),
        ("description", pa.string()),
        ("score", pa.float64()),
        ("decision", pa.string()),
        ("evidence", pa.list_(SPAN)),
    ]
)
COLUMNS = SCHEMA.names
CODE_COLUMNS = COLUMNS[2:]
ROW_GROUP = 4096

NoteCodes = Mapping[str, Any]
"""A note with its codes: `{"row", "id", "codes"}`."""


def code_rows(notes: Iterable[NoteCodes]) -> Iterator[dict[str, Any]]:
    """A row for each code, or one of nulls for a note without any."""
    nothing = dict.fromkeys(CODE_COLUMNS)
    for note in notes:
        for code in note["codes"] or [nothing]:
            yield {"row": note["row"], "id": note["id"], **code}


def write_parquet(notes: Iterable[NoteCodes], file: IO[bytes]) -> None:
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for row in code_rows(notes):
            rows.append(row)
            if len(rows) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def write_csv_rows(notes: Iterable[NoteCodes], file: IO[str]) -> None:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in code_rows(notes):
        if row["evidence"] is not None:
            row["evidence"] = json.dumps(row["evidence"], ensure_ascii=False)
        writer.writerow([safe_cell(row[name]) for name in COLUMNS])


def write_jsonl(notes: Iterable[NoteCodes], file: IO[str]) -> None:
    for note in notes:
        file.write(json.dumps(note, ensure_ascii=False) + "\n")


WRITERS: dict[str, tuple[Callable[..., None], str]] = {
    ".parquet": (write_parquet, "wb"),
    ".csv": (write_csv_rows, "w"),
    ".jsonl": (write_jsonl, "w"),
}
"""What writes an output, and how its file is opened, by the ending of its name."""


def write_output(notes: Iterable[NoteCodes], path: Path) -> None:
    """Write the codes of notes, in their order, whole or not at all; their owner alone may read the file.

    Raises:
        OSError: where it cannot be written, e.g. on a full disk.
    """
    write, mode = WRITERS[path.suffix.lower()]
    with whole_file(path, mode, private=True, newline=None if mode == "wb" else "") as file:
        write(notes, file)


def check_output(path: Path) -> None:
    """Raise a `ValueError` unless a file's name ends as that of an output that can be written."""
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"--output ({path}) must end in {', '.join(WRITERS)}: its ending says how it is written.")


def rejected_path(output: Path) -> Path:
    """Where the rows that could not be coded are listed."""
    return output.with_name(f"{output.name}.rejected.csv")


def has_changed_id(line: Mapping[str, Any]) -> bool:
    """Whether the id of a row is another one in csv; see [`safe_cell`]."""
    return safe_cell(line["id"]) != line["id"]


def write_rejected(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write `row`, `id` and `reason` of rows that could not be coded, never their text; returns how many there are.

    Where there are none, no file is written, and one of an earlier run is removed.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        path.unlink(missing_ok=True)
        return 0
    count = 0
    with whole_file(path, private=True, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "id", "reason"])
        while first is not None:
            writer.writerow([safe_cell(first[name]) for name in ("row", "id", "reason")])
            count, first = count + 1, next(rows, None)
    return count
