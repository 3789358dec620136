"""The admissions of MIMIC's tables: their notes and codes are gathered, their codes counted and chosen, and they are given to splits."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .note_text import is_blank
from .published_lists import check_admissions, check_subjects
from .records import most_frequent
from .stratify import stratify_groups


MIN_COUNT = 10  # admissions of a code, after Edin et al.
OWN_FRACTIONS = {"train": 0.75, "validation": 0.10, "test": 0.15}


@dataclass
class DischargeSummaries:
    """The discharge summary rows of a table of notes, by admission; shown without text.

    Args:
        path (`Path`): The table.
        texts (`pa.ChunkedArray`): Texts of the rows, made ready, in the order of the file.
        rows (`dict[int, list[int]]`): Numbers of each admission's rows, in the order in which its text has them.
        subject_ids (`dict[int, int]`): Subject of each admission.
        left_out (`Counter[str]`): How many rows were left out, by reason.
        digests (`list[bytes]`): Of the text of each row as the table has it, in the order of `texts`: options make one text of two.
        row_ids (`pa.ChunkedArray`): Ids of the rows in the table, in the order of `texts`; null where it gives none.
    """

    path: Path
    texts: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()), repr=False)
    rows: dict[int, list[int]] = field(default_factory=dict)
    subject_ids: dict[int, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list, repr=False)
    row_ids: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()))

    def leave_out(self, reason: str, rows: pa.Array) -> None:
        """Count rows, given as booleans, that are left out."""
        self.left_out[f"left out, {reason}"] += pc.sum(rows).as_py() or 0

    def texts_of(self, hadm_id: int) -> list[str]:
        return [self.texts[row].as_py() for row in self.rows[hadm_id]]

    def count_repeated_texts(self) -> int:
        """How many rows have in the table the text of an earlier row of their admission."""
        return sum(len(rows) - len({self.digests[row] for row in rows}) for rows in self.rows.values())

    def count_other_subjects(self, rows: Iterable[tuple[pa.Array, pa.Array]]) -> int:
        """How many rows of other tables, given by admission and subject, have another subject than the admission's notes."""
        hadm_ids, subject_ids = (
            pa.array(list(ids), type=pa.int64()) for ids in zip(*self.subject_ids.items(), strict=True)
        )
        return sum(
            pc.sum(pc.not_equal(subjects, subject_ids.take(pc.index_in(admissions, hadm_ids)))).as_py() or 0
            for admissions, subjects in rows
        )

    def leave_out_subjects(self, subjects: Collection[int], reason: str) -> set[int]:
        """Leave the admissions of other subjects out, count and return them."""
        others = {hadm_id for hadm_id in self.rows if self.subject_ids[hadm_id] not in subjects}
        self.left_out[f"left out, {reason}"] += len(others)
        self.rows = {hadm_id: rows for hadm_id, rows in self.rows.items() if hadm_id not in others}
        return others

    def leave_out_blank(self, splits: Mapping[str, Sequence[int]], rule: str) -> dict[str, list[int]]:
        """Take the admissions out of the splits of whose text `rule` leaves nothing, and count them."""
        blank = set(np.flatnonzero(is_blank(self.texts, rule).to_numpy()).tolist())
        kept = {
            name: [hadm_id for hadm_id in hadm_ids if not blank.issuperset(self.rows[hadm_id])]
            for name, hadm_ids in splits.items()
        }
        self.left_out["left out, admissions without a text"] += sum(map(len, splits.values())) - sum(
            map(len, kept.values())
        )
        return kept


@dataclass
class Codings:
    """The codes of admissions, gathered from the rows of the tables of codes.

    Args:
        codes (`dict[int, set[str]]`): Dotted codes of each admission that has any.
        in_table (`dict[str, set[int]]`): Admissions with a code, by table.
        subjects (`list[tuple[pa.Array, pa.Array]]`): Admission and subject of all rows, batch by batch.
        num_rows (`int`): Rows with a code.
        rows_without_code (`int`): Rows whose code is empty.
        unreadable (`int`): Rows whose code cannot be one.
    """

    codes: dict[int, set[str]] = field(default_factory=dict)
    in_table: dict[str, set[int]] = field(default_factory=dict)
    subjects: list[tuple[pa.Array, pa.Array]] = field(default_factory=list)
    num_rows: int = 0
    rows_without_code: int = 0
    unreadable: int = 0

    def add(self, table: str, hadm_ids: pa.Array, subject_ids: pa.Array, dotted: pa.Array, is_empty: pa.Array) -> None:
        """Take over rows of a table; those whose dotted code is null have none that counts."""
        self.subjects.append((hadm_ids, subject_ids))
        self.rows_without_code += pc.sum(is_empty).as_py() or 0
        has_code = pc.is_valid(dotted)
        coded = hadm_ids.filter(has_code).to_pylist()
        self.num_rows += len(coded)
        self.in_table.setdefault(table, set()).update(coded)
        encoded = dotted.filter(has_code).dictionary_encode()
        codes = encoded.dictionary.to_pylist()  # one string for all rows that have the code
        for hadm_id, i in zip(coded, encoded.indices.to_pylist(), strict=True):
            self.codes.setdefault(hadm_id, set()).add(codes[i])

    def count_rows(self) -> dict[str, int]:
        """Count the rows that add nothing."""
        return {
            "left out, code rows without a code": self.rows_without_code,
            "left out, code rows whose code cannot be read": self.unreadable,
            "left out, code rows that repeat another one": self.num_rows - sum(map(len, self.codes.values())),
        }

    def count_missing(self, hadm_ids: Set[int]) -> dict[str, int]:
        """Count the admissions, of those given, that a table has no code of."""
        return {
            f"coded admissions without a row in {table}": len(hadm_ids - inside)
            for table, inside in self.in_table.items()
        }


class Gathering:
    """Gathers rows of a table into `notes`, whose texts are complete once the block is left.

    Args:
        path (`Path`): The table.
        prepare (`Callable`): Makes some rows' texts ready, in a second thread while the table is unpacked and read.
    """

    def __init__(self, path: Path, prepare: Callable[[pa.StringArray], pa.StringArray]):
        self.notes = DischargeSummaries(path)
        self.prepare = prepare
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.chunks: list[Future[pa.StringArray]] = []
        self.num_rows = 0

    def __enter__(self) -> "Gathering":
        return self

    def __exit__(self, *fault: Any) -> None:
        self.worker.shutdown(cancel_futures=fault[0] is not None)
        if fault[0] is None:
            self.notes.texts = pa.chunked_array([chunk.result() for chunk in self.chunks], type=pa.string())

    def add(self, hadm_ids: pa.Array, subject_ids: pa.Array, texts: pa.Array) -> None:
        """Take over rows of the table, all of them with an admission."""
        self.chunks.append(self.worker.submit(self._take, texts))
        ids = zip(hadm_ids.to_pylist(), subject_ids.to_pylist(), strict=True)
        for row, (hadm_id, subject_id) in enumerate(ids, start=self.num_rows):
            if self.notes.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                raise ValueError(
                    f"{self.notes.path}: HADM_ID {hadm_id} has two SUBJECT_IDs. Restore the original table."
                )
            self.notes.rows.setdefault(hadm_id, []).append(row)
        self.num_rows += len(texts)

    def _take(self, texts: pa.StringArray) -> pa.StringArray:
        """Remember what the texts were, and make them ready."""
        self.notes.digests += [blake2b(text.as_buffer() or b"", digest_size=16).digest() for text in texts]
        return self.prepare(texts)


def stratify_by_subject(
    notes: DischargeSummaries, codes: Mapping[int, Collection[str]], seed: int | None
) -> dict[str, list[int]]:
    """Give each subject a split, and each split the admissions of its subjects in the order of the file.

    After Edin et al. (arXiv 2304.10909): subjects, not admissions, are given to the splits by iterative stratification;
    see [`stratify_groups`]. It goes by the codes of the tables that at least `MIN_COUNT` admissions have, whichever codes a
    data set is made of, so that no choice of codes moves an admission to another split.

    Args:
        notes (`DischargeSummaries`): Whose admissions to split.
        codes (`Mapping[int, Collection[str]]`): Codes of each admission as the tables have them; one that is not in it gets
            no split.
        seed (`int`, *optional*): Makes the splits; 0 if left out.
    """
    frequent = choose_frequent(count_codes(codes), MIN_COUNT)
    admissions: dict[int, list[Collection[str]]] = {}
    for hadm_id, of_admission in codes.items():
        admissions.setdefault(notes.subject_ids[hadm_id], []).append(frequent.intersection(of_admission))
    split_of = stratify_groups(admissions, OWN_FRACTIONS, seed or 0)
    splits: dict[str, list[int]] = {name: [] for name in OWN_FRACTIONS}
    for hadm_id in notes.rows:
        if hadm_id in codes:
            splits[split_of[notes.subject_ids[hadm_id]]].append(hadm_id)
    check_subjects(
        {name: {notes.subject_ids[hadm_id] for hadm_id in hadm_ids} for name, hadm_ids in splits.items()},
        {name: f"split {name!r}" for name in splits},
    )
    return splits


def divide_by_lists(
    notes: DischargeSummaries,
    kept: Collection[int],
    lists: Mapping[str, list[int]],
    names: Mapping[str, object],
    may_share_subjects: bool = False,
) -> dict[str, list[int]]:
    """Give each split its listed admissions that make a record, in the order of its list.

    Args:
        notes (`DischargeSummaries`): Whose admissions to split.
        kept (`Collection[int]`): Admissions that make a record.
        lists (`Mapping[str, list[int]]`): Admissions of each split.
        names (`Mapping[str, object]`): What to call each list in messages, such as its path.
        may_share_subjects (`bool`): Whether a subject may be in two lists.

    Raises:
        ValueError: where two lists share an admission, or a subject and must not, or no admission of one has a note.
    """
    check_admissions({name: set(hadm_ids) for name, hadm_ids in lists.items()}, names)
    subjects = {}
    for name, hadm_ids in lists.items():
        subjects[name] = {notes.subject_ids[hadm_id] for hadm_id in hadm_ids if hadm_id in notes.rows}
        if not subjects[name]:
            raise ValueError(
                f"{names[name]}: none of its {len(hadm_ids):,} admissions has a discharge summary in {notes.path}. Give "
                "`splits_dir` the lists that belong to this folder."
            )
    if not may_share_subjects:
        check_subjects(subjects, names)
    return {name: [hadm_id for hadm_id in hadm_ids if hadm_id in kept] for name, hadm_ids in lists.items()}


def count_codes(coded: Mapping[int, Collection[str]], listed: Collection[int] | None = None) -> Counter[str]:
    """In how many admissions each code occurs: of all, or of those that are listed.

    Of MIMIC-III v1.4 and MIMIC-IV v2.2, which Edin et al.'s lists were made from, both give the same frequent codes, since
    every admission with one is listed; of another release only the second gives theirs.
    """
    admissions = coded if listed is None else (hadm_id for hadm_id in listed if hadm_id in coded)
    return Counter(code for hadm_id in admissions for code in coded[hadm_id])


def choose_most_frequent(counts: Mapping[str, int], num_codes: int, remedy: str) -> set[str]:
    """Choose the codes of most admissions; of two equally frequent ones the one that sorts first."""
    if len(counts) < num_codes:
        raise ValueError(
            f"The admissions with a discharge summary have {len(counts)} codes, fewer than the {num_codes} asked for: "
            f"{remedy}."
        )
    return set(most_frequent(counts, num_codes))


def choose_frequent(counts: Mapping[str, int], min_count: int) -> set[str]:
    """Choose the codes of at least `min_count` admissions."""
    return {code for code, count in counts.items() if count >= min_count}
