"""What the division of notes needs to know of them, and never their text: on disk, so that memory does not grow with them.

A SQLite file holds a row for each note: where it stands, 64 bits of the hash of its id and of its subject, its date, its
codes as numbers, and its split.
"""

import errno
import hashlib
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np


SCHEMA = """
CREATE TABLE notes (
    place INTEGER PRIMARY KEY, source INTEGER, row INTEGER, id INTEGER, subject INTEGER, date TEXT, codes BLOB, split INTEGER
);
CREATE TABLE codings (id INTEGER, code INTEGER);
CREATE TABLE names (code INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE divided (subject INTEGER PRIMARY KEY, split INTEGER);
"""


class IndexedNote(NamedTuple):
    """A note as the index has it.

    Args:
        source, row (`int`): Where it stands: the place of its source among the sources, and its row in it, from 1.
        id, subject (`int`): Of [`hash_id`].
        date (`str`, *optional*): In ISO's form, which sorts by time.
        codes (`Sequence[int]`): Numbers of its codes.
        split (`int`, *optional*): Number of its split; None if it is to be divided.
    """

    source: int
    row: int
    id: int
    subject: int
    date: str | None
    codes: Sequence[int]
    split: int | None


def hash_id(value: str) -> int:
    """64 bits of an id's hash, as a signed number."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big", signed=True)


class Index:
    """The notes of a data set that is being built.

    Args:
        path (`Path`): The file, in a private folder.
        is_new (`bool`): Whether to make it; else it is read, by as many at once as like.

    Raises:
        OSError: by each method, where the disk is full.
    """

    def __init__(self, path: Path, is_new: bool = False):
        if is_new:
            path.touch(0o600)
        # It is thrown away if the build fails: nothing has to be kept for a return to what was before.
        self.connection = sqlite3.connect(
            path if is_new else f"{path.as_uri()}?mode=ro", isolation_level=None, uri=True
        )
        if is_new:
            self.connection.execute("PRAGMA journal_mode = OFF")
            self.connection.execute("PRAGMA synchronous = OFF")
            for table in SCHEMA.split(";"):
                self.connection.execute(table)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        fault = ""
        try:
            self.connection.execute("BEGIN")
            yield
            self.connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            fault = str(error)
        if fault:
            raise OSError(errno.ENOSPC if "full" in fault else errno.EIO, f"The index of the notes: {fault}")

    def _write(self, statement: str, rows: Iterable[tuple]) -> None:
        with self._writing():
            self.connection.executemany(statement, rows)

    def _count(self, query: str) -> int:
        return self.connection.execute(query).fetchone()[0]

    # ---- what the user's files hold

    def add_codings(self, codings: Iterable[tuple[int, int]]) -> int:
        """Take over the ids and codes of a table with a row a code; returns how many rows repeat another one."""
        self._write("INSERT INTO codings VALUES (?, ?)", codings)
        with self._writing():
            self.connection.execute("CREATE INDEX by_note ON codings (id, code)")
        different = self._count("SELECT count(*) FROM (SELECT DISTINCT id, code FROM codings)")
        return self._count("SELECT count(*) FROM codings") - different

    def codes_of(self, note_id: int) -> list[int]:
        """The codes of a note in the table with a row a code."""
        query = "SELECT DISTINCT code FROM codings WHERE id = ? ORDER BY code"
        return [code for (code,) in self.connection.execute(query, (note_id,))]

    def count_codings_without_note(self) -> int:
        """How many rows of that table have an id that no note has."""
        return self._count(
            "SELECT count(*) FROM codings WHERE NOT EXISTS (SELECT 1 FROM notes WHERE notes.id = codings.id)"
        )

    def add_notes(self, notes: Iterable[IndexedNote]) -> None:
        """Take over the notes, in their order; then all that asks for them is fast."""
        self._write(
            "INSERT INTO notes (source, row, id, subject, date, codes, split) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (note.source, note.row, note.id, note.subject, note.date, array("i", note.codes).tobytes(), note.split)
                for note in notes
            ),
        )
        with self._writing():
            self.connection.execute("CREATE INDEX by_id ON notes (id, place)")
            self.connection.execute("CREATE INDEX by_subject ON notes (subject, id)")

    def add_names(self, names: Iterable[str]) -> None:
        """Keep what the numbers of the codes stand for."""
        self._write("INSERT INTO names VALUES (?, ?)", enumerate(names))

    def names(self) -> list[str]:
        return [name for (name,) in self.connection.execute("SELECT name FROM names ORDER BY code")]

    # ---- what is wrong with them

    def find_repeated(self) -> tuple[int, list[tuple[int, int]]]:
        """How many notes have the id of an earlier one, and source and row of two that share one; none if there are none."""
        different = self._count("SELECT count(*) FROM (SELECT id FROM notes GROUP BY id)")
        repeated = self._count("SELECT count(*) FROM notes") - different
        if not repeated:
            return 0, []
        query = "SELECT id FROM notes GROUP BY id HAVING count(*) > 1 ORDER BY min(place) LIMIT 1"
        (note_id,) = self.connection.execute(query).fetchone()
        places = self.connection.execute(
            "SELECT source, row FROM notes WHERE id = ? ORDER BY place LIMIT 2", (note_id,)
        )
        return repeated, places.fetchall()

    def count_divided_subjects(self) -> int:
        """How many subjects have notes in two splits."""
        query = "SELECT subject FROM notes GROUP BY subject HAVING min(split) < max(split)"
        return self._count(f"SELECT count(*) FROM ({query})")

    # ---- their division

    def count_to_divide(self) -> int:
        return self._count("SELECT count(*) FROM notes WHERE split IS NULL")

    def groups_to_divide(self, size: int) -> Iterator[dict[int, list[list[int]]]]:
        """Subjects of the notes without a split, with the codes of their notes, some at a time, in an order of their own."""
        query = "SELECT subject, codes FROM notes WHERE split IS NULL ORDER BY subject, id"
        groups: dict[int, list[list[int]]] = {}
        with closing(self.connection.execute(query)) as rows:
            for subject, notes in groupby(rows, key=lambda row: row[0]):
                groups[subject] = [np.frombuffer(codes, np.int32).tolist() for _, codes in notes]
                if len(groups) == size:
                    yield groups
                    groups = {}
        if groups:
            yield groups

    def subjects_by_date(self) -> Iterator[tuple[int, int]]:
        """Subjects of the notes without a split, and how many these are, from the one whose last note is the oldest."""
        query = "SELECT subject, count(*) FROM notes WHERE split IS NULL GROUP BY subject ORDER BY max(date), subject"
        yield from self.connection.execute(query)

    def divide(self, split_of: Iterable[tuple[int, int]]) -> None:
        """Remember the split of some subjects; see [`finish_division`]."""
        self._write("INSERT INTO divided VALUES (?, ?)", split_of)

    def finish_division(self) -> None:
        """Give the notes without a split that of their subject."""
        with self._writing():
            self.connection.execute(
                "UPDATE notes SET split = (SELECT split FROM divided WHERE divided.subject = notes.subject) WHERE split IS NULL"
            )
            self.connection.execute("DELETE FROM divided")

    def release(self, split: int) -> None:
        """Take the notes of a split out of it, to be divided."""
        with self._writing():
            self.connection.execute("UPDATE notes SET split = NULL WHERE split = ?", (split,))

    # ---- what becomes of them

    def count_codes(self, split: int | None, num_codes: int) -> np.ndarray:
        """How many notes of a split, or of those without one, have each code."""
        counts = np.zeros(num_codes, dtype=np.int64)
        with closing(self.connection.execute("SELECT codes FROM notes WHERE split IS ?", (split,))) as rows:
            for (codes,) in rows:
                counts[np.frombuffer(codes, np.int32)] += 1
        return counts

    def count_notes(self, is_chosen: np.ndarray) -> dict[int | None, tuple[int, int]]:
        """How many notes of each split have one of the chosen codes, and how many have none."""
        counts: dict[int | None, list[int]] = {}
        with closing(self.connection.execute("SELECT split, codes FROM notes")) as rows:
            for split, codes in rows:
                counts.setdefault(split, [0, 0])[not is_chosen[np.frombuffer(codes, np.int32)].any()] += 1
        return {split: (of_split[0], of_split[1]) for split, of_split in counts.items()}

    def notes_of(self, split: int, source: int) -> Iterator[IndexedNote]:
        """The notes of a split in a source, in the order of the rows."""
        query = "SELECT source, row, id, subject, date, codes, split FROM notes WHERE split = ? AND source = ? ORDER BY place"
        for row in self.connection.execute(query, (split, source)):
            note = IndexedNote(*row)
            yield note._replace(codes=np.frombuffer(row[5], np.int32).tolist())


def divide_in_order(
    subjects: Iterable[tuple[int, int]], fractions: Mapping[int, float], num_notes: int
) -> Iterator[tuple[int, int]]:
    """Give subjects, in their order, to one split after another, each until it has its share of the notes.

    Args:
        subjects (`Iterable[tuple[int, int]]`): Each with how many notes it has.
        fractions (`Mapping[int, float]`): For each split, in their order, its share of the notes; together 1.
        num_notes (`int`): Of all subjects.
    """
    ends = np.cumsum(list(fractions.values())) * num_notes
    given = 0
    for subject, notes in subjects:
        # By the middle of its notes, so that one with many does not always fall to the later split.
        place = int(np.searchsorted(ends, given + notes / 2))
        yield subject, list(fractions)[min(place, len(fractions) - 1)]
        given += notes
