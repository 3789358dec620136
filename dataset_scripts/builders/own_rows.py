"""Makes a note of a row of the user's own table: finds the columns, joins the texts, reads ids, dates and codes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..codes.damage import WITH_COMMA, damage_of, find_decimal_commas
from ..codes.icd9 import Kind
from ..codes.systems import CodeSystem, split_codes
from ..tables import (
    USUAL_NAMES,
    BadRow,
    column_names,
    find_column,
    is_missing,
    join_texts,
    list_columns,
    read_id,
    read_table,
)
from .own_sources import Source


NOT_READ = "rows that cannot be read"
NO_ID = "rows without an id"
NO_TEXT = "rows without a text"
NO_DATE = "rows without a date in ISO's form (2026-11-26)"
NO_KIND = "code rows that are neither of a diagnosis nor of a procedure"
NO_SUBJECT = "notes without a patient, each taken for one of its own"
PROCEDURE: Kind = "procedure"
DIAGNOSIS: Kind = "diagnosis"
# What a cell may say, whatever the case of its letters. "Primary" or "PDX" is the rank of a diagnosis, and no kind.
KINDS = {
    **dict.fromkeys(("d", "dx", "cm", "diagnosis", "diagnoses"), DIAGNOSIS),
    **dict.fromkeys(("p", "px", "pcs", "proc", "procedure", "procedures"), PROCEDURE),
}


class Note(NamedTuple):
    """A row as a note, shown with its text: never print one.

    Args:
        id, subject (`str`): The row's number stands for an id, and the id for a subject, where the file has none.
        text (`str`): Holds more than white space.
        codes (`list[int]`): Numbers of its codes, each once.
        date (`str`, *optional*): In ISO's form.
    """

    id: str
    subject: str
    text: str
    codes: list[int]
    date: str | None


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a file of notes, as the file spells them; None for one that is not read."""

    texts: tuple[str, ...]
    codes: str | None
    procedures: str | None
    id: str | None
    subject: str | None
    date: str | None

    @property
    def all(self) -> set[str]:
        return {*self.texts, *filter(None, (self.codes, self.procedures, self.id, self.subject, self.date))}

    @property
    def absent(self) -> set[str]:
        """Usual names of columns that were looked for and not found."""
        found = {"id": self.id, "subject": self.subject}
        return {name for usual, column in found.items() if column is None for name in USUAL_NAMES[usual]}


def read_date(value: Any) -> str | None:
    """A point in time in ISO's form and without a zone, so that strings sort by time; None if there is none."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()
    except OverflowError:  # in UTC, it is before the year 1 or after the year 9999
        return None


class CodeReader:
    """Reads cells of codes as numbers, and counts what is none.

    Args:
        system (`CodeSystem`): Which the codes are of.
        separator (`str`, *optional*): See [`split_codes`].

    Attributes:
        names (`dict[str, int]`): The number of each code, in the order in which they came.
        num_codes, num_wrong (`int`): How many codes the cells held, and how many of these are none of the system.
        first_wrong (`str`): Where the first of them is.
        num_damaged (`int`): How many were changed by what took them for numbers or dates; see [`damage_of`].
        first_damaged (`str`): Where the first of them is, and how it was changed.
    """

    def __init__(self, system: CodeSystem, separator: str | None):
        self.system, self.separator = system, separator
        self.names: dict[str, int] = {}
        self.num_codes = self.num_wrong = self.num_damaged = 0
        self.first_wrong = self.first_damaged = ""
        self._known: dict[tuple[str, Kind | None], int | None] = {}

    def read(self, cell: Any, kind: Kind | None, where: str, row: int, column: str) -> list[int]:
        """Read the codes of a cell, each once.

        Args:
            cell: A string, a list of strings, or nothing.
            kind (`str`, *optional*): What the codes are if their form does not say it.
            where, row, column: The file, the number of the row and the name of the column, for messages.

        Raises:
            ValueError: where the cell holds a number.
        """
        if is_missing(cell):
            return []
        cells = cell if isinstance(cell, list) else [cell]
        if not all(isinstance(item, str) or is_missing(item) for item in cells):
            raise ValueError(
                f"{where}: the codes of row {row} are not strings (column {column!r}). As numbers, 401.90 and 401.9 or 038 and 38 are one code: "
                "write the codes as strings, from where they are not yet numbers."
            )
        texts = [item for item in cells if isinstance(item, str)]
        place = f"row {row} of {where}, column {column!r}"
        found = []
        for code in filter(None, self._divide(texts, isinstance(cell, str), place)):
            self.num_codes += 1
            if damage := damage_of(code):
                self._note_damage(1, place, damage)
                if self.system.classification is not None:
                    continue
            number = self._number_of(code, kind)
            if number is not None:
                found.append(number)
                continue
            self.num_wrong += 1
            self.first_wrong = self.first_wrong or place
        return list(dict.fromkeys(found))

    def _divide(self, texts: list[str], is_cell: bool, place: str) -> list[str]:
        """The codes of a cell, or of a list; damaged ones that cannot be told from two codes are counted here."""
        if not is_cell:
            return [text.strip() for text in texts]
        (cell,) = texts
        if self.separator is None and "," in cell:
            rest, number = find_decimal_commas(cell, self.system.classification)
            self._note_damage(number, place, WITH_COMMA)
            cell = cell if self.system.classification is None else rest
        return split_codes(cell, self.separator)

    def _note_damage(self, number: int, place: str, damage: str) -> None:
        self.num_damaged += number
        if number:
            self.first_damaged = self.first_damaged or f"in {place}, {damage}"

    def _number_of(self, code: str, kind: Kind | None) -> int | None:
        if (code, kind) not in self._known:
            name = self.system.read_code(code, kind)
            self._known[code, kind] = None if name is None else self.names.setdefault(name, len(self.names))
        return self._known[code, kind]

    def check(self) -> dict[str, int]:
        """Count the codes that were left out, or that look damaged where nothing is known of the codes.

        Raises:
            ValueError: where a code of a known system is damaged, since others will have lost zeros unseen; where more codes
                were left out than read.
        """
        if self.num_damaged and self.system.classification is not None:
            raise ValueError(
                f"{self.num_damaged:,} {'code was' if self.num_damaged == 1 else 'codes were'} changed by a spreadsheet or a data frame that took them for numbers or dates; the "
                f"first, {self.first_damaged}. Others may have lost zeros unseen. Export the table again from where its "
                "codes are whole, and have that column read as text; or give `codes_column` the column that holds the codes."
            )
        if self.num_wrong * 2 > self.num_codes:
            raise ValueError(
                f"{self.num_wrong:,} of {self.num_codes:,} codes are not in the form of {self.system.name}, the first in "
                f"{self.first_wrong}. Check `codes_column`, `code_separator` and `code_system`; leading zeros are lost where a "
                "spreadsheet has read codes as numbers."
            )
        first = f" (the first: {self.first_wrong})" if self.num_wrong else ""
        changed = f" (the first, {self.first_damaged})" if self.num_damaged else ""
        return {
            f"left out, codes that are not of {self.system.name}{first}": self.num_wrong,
            f"codes that look as if a spreadsheet had changed them{changed}": self.num_damaged,
        }


class NoteReader:
    """Makes notes of the rows of a source, and counts those of which it makes none.

    Args:
        source (`Source`): The rows.
        columns (`Columns`): Its columns.
        prefix (`str`): What stands in front of a row's number where that is the id of a note.
        codes (`CodeReader`, *optional*): Reads the codes; without it, notes come without them.

    Attributes:
        counts (`Counter[str]`): What was left out or mended.
        num_rows (`int`): How many rows were read.
        first_bad (`str`): What is wrong with the first row that cannot be read.
    """

    def __init__(self, source: Source, columns: Columns, prefix: str, codes: CodeReader | None = None):
        self.source, self.columns, self.prefix, self.codes = source, columns, prefix, codes
        self.counts: Counter[str] = Counter()
        self.num_rows = 0
        self.first_bad = ""

    def __iter__(self) -> Iterator[tuple[int, Note]]:
        """Yield each note with the number of its row, from 1."""
        for number, row in self.rows():
            note = self.read(row, number)
            if note is not None:
                yield number, note

    def rows(self) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
        return enumerate(self.source.read(self.columns.all, self.columns.absent, self.counts), start=1)

    def read(self, row: dict[str, Any] | BadRow, number: int) -> Note | None:
        """Make a note of a row."""
        self.num_rows += 1
        columns = self.columns
        text = "" if isinstance(row, BadRow) else join_texts(row, columns.texts)
        if isinstance(row, BadRow) or text is None:
            self.counts[f"left out, {NOT_READ}"] += 1
            reason = row.reason if isinstance(row, BadRow) else "has a text that is not a string"
            self.first_bad = self.first_bad or f"row {number} of {self.source.name} {reason}"
            return None
        note_id = f"{self.prefix}{number}" if columns.id is None else read_id(row.get(columns.id))
        when = read_date(row.get(columns.date)) if columns.date is not None else None
        for reason, is_missing_here in {
            NO_ID: not note_id,
            NO_TEXT: not text,
            NO_DATE: columns.date is not None and when is None,
        }.items():
            if is_missing_here:
                self.counts[f"left out, {reason}"] += 1
                return None
        subject = read_id(row.get(columns.subject)) if columns.subject is not None else note_id
        self.counts[NO_SUBJECT] += not subject
        return Note(note_id, subject or note_id, text, self._read_codes(row, number), when)

    def _read_codes(self, row: Mapping[str, Any], number: int) -> list[int]:
        found: dict[int, None] = {}
        for column, kind in ((self.columns.codes, None), (self.columns.procedures, PROCEDURE)):
            if self.codes is not None and column is not None:
                codes = self.codes.read(row.get(column), kind, self.source.name, number, column)
                found.update(dict.fromkeys(codes))
        return list(found)

    def check(self) -> dict[str, int]:
        """Count the rows that were left out or mended.

        Raises:
            ValueError: where most rows are left out for one reason.
        """
        for reason in (NOT_READ, NO_ID, NO_TEXT, NO_DATE):
            number = self.counts[f"left out, {reason}"]
            if number * 2 > self.num_rows:
                example = f" The first: {self.first_bad}." if reason == NOT_READ else ""
                raise ValueError(
                    f"{self.source.name}: most of its rows cannot be used, {number:,} of {self.num_rows:,} are {reason}. Check "
                    f"the file and which columns are read.{example}"
                )
        counts: dict[str, int] = dict(self.counts)
        if self.first_bad:
            not_read = f"left out, {NOT_READ}"
            counts[f"{not_read} (the first: {self.first_bad})"] = counts.pop(not_read)
        return counts


def read_codings(
    path: Path, encoding: str, options: Mapping[str, str | None], reader: CodeReader, counts: Counter[str]
) -> Iterator[tuple[str, int]]:
    """Yield id and code of each row of a table with a row a code, as hospital exports have it.

    Args:
        options (`Mapping[str, str]`): `id_column`, `codes_column` and `code_kind_column`, None where none is given.
        counts (`Counter[str]`): Takes up what is left out.

    Raises:
        ValueError: where a column is missing, a code is a number, or most rows do not say their kind in `code_kind_column`.
    """
    there = column_names(path, encoding)
    named = [name for name in options.values() if name is not None]
    id_column = find_column(str(path), there, "id_column", options["id_column"], "id", named=named)
    code_column = find_column(str(path), there, "codes_column", options["codes_column"], "code", named=named)
    kind_column = options["code_kind_column"]
    if kind_column is not None:
        kind_column = find_column(str(path), there, "code_kind_column", kind_column, "code", named=named)
    assert id_column is not None and code_column is not None
    columns = {id_column, code_column, *filter(None, (kind_column,))}
    num_rows = 0
    left_out: Counter[str] = Counter()
    first: dict[str, str] = {}

    def leave_out(what: str, why: str = "") -> None:
        left_out[what] += 1
        first.setdefault(what, f"row {num_rows} of {path}{why}")

    for num_rows, row in enumerate(read_table(path, encoding, columns=columns, counts=counts), start=1):
        if isinstance(row, BadRow):
            leave_out("code rows that cannot be read", f" {row.reason}")
            continue
        note_id, kind = read_id(row.get(id_column)), None
        if kind_column is not None:
            kind = read_kind(row.get(kind_column))
            if kind is None:
                leave_out(NO_KIND)
                continue
        codes = reader.read(row.get(code_column), kind, str(path), num_rows, code_column)
        if not note_id or is_missing(row.get(code_column)) or not str(row.get(code_column)).strip():
            leave_out("code rows without an id or a code")
            continue
        for code in codes:
            yield note_id, code
    if left_out[NO_KIND] * 2 > num_rows:
        raise ValueError(
            f"{path}: {left_out[NO_KIND]:,} of {num_rows:,} rows do not say in column {kind_column!r} whether the "
            f"code is of a diagnosis or of a procedure (the first: {first[NO_KIND]}). Expected one of {', '.join(KINDS)}; leave "
            "`code_kind_column` out where it says something else, such as which diagnosis is the first."
        )
    counts.update({f"left out, {what} (the first: {first[what]})": number for what, number in left_out.items()})


def read_kind(value: Any) -> Kind | None:
    """Whether a cell says that a code is of a diagnosis or of a procedure, in a word of `KINDS`; None if it says neither."""
    return KINDS.get(str(value).strip().lower())


def read_titles(path: Path, encoding: str, system: CodeSystem) -> dict[str, str]:
    """Read a table of codes and their descriptions, and a column `kind` if there is one: diagnosis or procedure.

    Without it, what can be a diagnosis is one.

    Raises:
        ValueError: where a column is missing, or no code is one of the system.
    """
    there = column_names(path, encoding)
    code_column, title_column = (
        find_column(str(path), there, "descriptions_file", None, name, needed=False)
        for name in ("code", "description")
    )
    if code_column is None or title_column is None:
        raise ValueError(f"{path} must have `code` and `description` among its columns, {list_columns(there)}.")
    kind_column = find_column(str(path), there, "descriptions_file", None, "kind", needed=False)
    titles = {}
    absent = USUAL_NAMES["kind"] if kind_column is None else ()
    for row in read_table(path, encoding, absent=absent):
        if isinstance(row, BadRow):
            continue
        code, title = row.get(code_column), row.get(title_column)
        if not isinstance(code, str) or not isinstance(title, str) or not title.strip():
            continue
        kind = read_kind(row.get(kind_column)) if kind_column is not None else None
        kinds = (None, PROCEDURE) if kind is None else (kind,)
        name = next(filter(None, (system.read_code(code.strip(), of_kind) for of_kind in kinds)), None)
        if name is not None:
            titles[name] = title.strip()
    if not titles:
        raise ValueError(
            f"{path} has no description of a code of {system.name}: expected a code and a description a row."
        )
    return titles
