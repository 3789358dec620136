"""An invented corpus of MIMIC-III's size: its tables, with as many rows, words and occurrences of each code as published.

The synthetic corpus of `dataset_scripts` says why each code is there, and takes hours for so many notes. Here a note is a run
of words cut from the shuffled lines of such notes: it has the quotes, commas, line breaks and de-identification marks that a
reader must cope with, and no meaning. At `fraction` 1 `python -m dataset_scripts verify` agrees with it.
"""

import random
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts import kind_of
from dataset_scripts.builders.caml_splits import find_split_lists, list_names, read_split_list
from dataset_scripts.synthetic.admissions import plan_admissions
from dataset_scripts.synthetic.mimic3 import TABLES
from dataset_scripts.synthetic.notes import LENGTHS, NoteWriter
from dataset_scripts.verify import PUBLISHED, read_distribution


# Rows of NOTEEVENTS by category: MIMIC-III's documentation (mimic.mit.edu, table NOTEEVENTS). 2,083,180 in all.
CATEGORY_ROWS = {
    "Discharge summary": 59_652, "Echo": 45_794, "ECG": 209_051, "Nursing": 223_556, "Physician ": 141_624,
    "Rehab Services": 5_431, "Case Management ": 967, "Respiratory ": 31_739, "Nutrition": 9_418, "General": 8_301,
    "Social Work": 2_670, "Pharmacy": 103, "Consult": 98, "Radiology": 522_279, "Nursing/other": 822_497,
}  # fmt: skip
# Of the 52,726 admissions with a discharge summary, 52,722 have a code.
UNCODED_ADMISSIONS = 4
MEAN_WORDS = 1878  # of an admission's discharge summary rows together
MAX_WORDS = 10_500
OTHER_MEAN_WORDS = 270  # makes the table about 4 GB
ADMISSIONS_PER_SUBJECT = 1.28
ERROR_ROWS = 0.0004  # share of the rows that ISERROR marks
WITHOUT_ADMISSION = 0.11  # share of the other categories' rows that have no HADM_ID
QUOTED_LINES = 0.1  # share of the lines with a word in double quotes
BLOCK = 4 << 20  # bytes that are compressed at a time
COMPRESSION_LEVEL = 3  # brings the table to about 1.1 GB, the size of the original


@dataclass(frozen=True)
class SizedCorpus:
    """What was written: rows of NOTEEVENTS, its bytes unpacked and packed, and admissions with a note and a code."""

    rows: int
    unpacked_bytes: int
    packed_bytes: int
    admissions: int


def write_sized_corpus(
    folder: Path, fraction: float, published_dir: Path, splits_dir: Path | None = None, seed: int = 0
) -> SizedCorpus:
    """Write the tables and the split lists of a fraction of MIMIC-III's admissions and notes.

    Args:
        folder (`Path`): An empty folder.
        fraction (`float`): Share of the admissions of each split and of the rows of each category.
        published_dir (`Path`): Folder with `mimic3_code_distribution.csv`.
        splits_dir (`Path`, *optional*): CAML's split lists; lists as long as theirs are made up if left out.
        seed (`int`): Makes every choice.
    """
    rng = random.Random(seed)
    lists = _split_lists(splits_dir)
    uncoded = set(lists["train"][-UNCODED_ADMISSIONS:])
    code_rows = _code_rows(lists, uncoded, published_dir, rng)
    subjects = _subjects(lists, rng)
    kept = {
        split: set(rng.sample(hadm_ids, max(1, round(fraction * len(hadm_ids))))) for split, hadm_ids in lists.items()
    }
    for split, name in list_names("full").items():
        chosen = [hadm_id for hadm_id in lists[split] if hadm_id in kept[split]]
        (folder / name).write_text("".join(f"{hadm_id}\n" for hadm_id in chosen))
    admissions = sorted(set().union(*kept.values()))
    _write_code_tables(folder, code_rows, subjects, set(admissions))
    rows, unpacked = _write_notes(folder, admissions, subjects, fraction, seed)
    packed = (folder / "NOTEEVENTS.csv.gz").stat().st_size
    return SizedCorpus(rows, unpacked, packed, len(set(admissions) - uncoded))


def _split_lists(splits_dir: Path | None) -> dict[str, list[int]]:
    if splits_dir is not None:
        return {split: read_split_list(path) for split, path in find_split_lists(str(splits_dir), "full").items()}
    lists, first = {}, 100_001
    for split, size in PUBLISHED["full"].admissions.items():
        lists[split] = list(range(first, first + size))
        first += size
    return lists


def _subjects(lists: dict[str, list[int]], rng: random.Random) -> dict[int, int]:
    """Give each admission a subject, each subject a split."""
    subjects: dict[int, int] = {}
    subject_id = 0
    for hadm_ids in lists.values():
        subject_id += 1
        for hadm_id in hadm_ids:
            subjects[hadm_id] = subject_id
            subject_id += rng.random() < 1 / ADMISSIONS_PER_SUBJECT
    return subjects


def _code_rows(
    lists: dict[str, list[int]], uncoded: set[int], published_dir: Path, rng: random.Random
) -> list[tuple[int, str]]:
    """Give the admissions codes, `(hadm_id, code)`, so that each code has its published count in each split."""
    distribution = read_distribution(published_dir / PUBLISHED["full"].distribution)
    rows = []
    for split, hadm_ids in lists.items():
        order = [hadm_id for hadm_id in hadm_ids if hadm_id not in uncoded]
        rng.shuffle(order)
        # Rows of one code go to admissions in a row, so that none has it twice.
        codes = [code for code, counts in distribution.items() for _ in range(counts[split])]
        rows += [(order[i % len(order)], code) for i, code in enumerate(codes)]
    return sorted(rows)


def _write_code_tables(
    folder: Path, code_rows: list[tuple[int, str]], subjects: dict[int, int], admissions: set[int]
) -> None:
    tables = {"diagnosis": ("DIAGNOSES_ICD", "D_ICD_DIAGNOSES"), "procedure": ("PROCEDURES_ICD", "D_ICD_PROCEDURES")}
    for kind, (table, titles) in tables.items():
        rows = [(hadm_id, code) for hadm_id, code in code_rows if hadm_id in admissions and kind_of(code) == kind]
        lines = (
            f'{i},{subjects[hadm_id]},{hadm_id},1,"{code.replace(".", "")}"\n'
            for i, (hadm_id, code) in enumerate(rows, 1)
        )
        _write_table(folder, table, (line.encode() for line in lines))
        codes = sorted({code for _, code in rows})
        lines = (
            f'{i},"{code.replace(".", "")}","Invented","Invented title of {code}"\n' for i, code in enumerate(codes, 1)
        )
        _write_table(folder, titles, (line.encode() for line in lines))


def _write_notes(
    folder: Path, admissions: list[int], subjects: dict[int, int], fraction: float, seed: int
) -> tuple[int, int]:
    words = _Words(seed)
    rows = (
        b'%d,%d,%b,"2151-08-04",,,"%b","%b",,%b,"%b"\n'
        % (i, subject_id, hadm_id, category, description, error, words.draw(number))
        for i, (subject_id, hadm_id, category, description, error, number) in enumerate(
            _note_rows(admissions, subjects, fraction, np.random.default_rng(seed)), 1
        )
    )
    return _write_table(folder, "NOTEEVENTS", rows)


def _note_rows(
    admissions: list[int], subjects: dict[int, int], fraction: float, rng: np.random.Generator
) -> Iterator[tuple[int, bytes, bytes, bytes, bytes, int]]:
    """Yield each row's SUBJECT_ID, HADM_ID, CATEGORY, DESCRIPTION, ISERROR and number of words.

    Discharge summaries come first, as in the original: a report for each admission, then addenda of some. The report
    takes 90 % of the words of an admission with an addendum.
    """
    number_of_rows = {category: round(rows * fraction) for category, rows in CATEGORY_ROWS.items()}
    addenda = number_of_rows.pop("Discharge summary") - len(admissions)
    with_addendum = set(rng.choice(admissions, addenda, replace=False).tolist())
    number_of_words = dict(zip(admissions, _note_lengths(len(admissions), rng).tolist(), strict=True))
    summary = b"Discharge summary"
    for hadm_id in rng.permutation(admissions).tolist():
        number = number_of_words[hadm_id]
        if hadm_id in with_addendum:
            number = round(0.9 * number)
        yield subjects[hadm_id], b"%d" % hadm_id, summary, b"Report", b"", number
    for hadm_id in rng.permutation(list(with_addendum)).tolist():
        number = number_of_words[hadm_id] - round(0.9 * number_of_words[hadm_id])
        yield subjects[hadm_id], b"%d" % hadm_id, summary, b"Addendum", b"", number
    for category, size in number_of_rows.items():
        lengths = 1 + rng.gamma(1.5, (OTHER_MEAN_WORDS - 1) / 1.5, size)
        lengths = np.minimum(lengths, MAX_WORDS).astype(int).tolist()
        chosen = rng.choice(admissions, size).tolist()
        chances = rng.random(size).tolist()
        for hadm_id, number, chance in zip(chosen, lengths, chances, strict=True):
            error = b'"1"' if chance > 1 - ERROR_ROWS else b""
            known = b"" if chance < WITHOUT_ADMISSION else b"%d" % hadm_id
            yield subjects[hadm_id], known, category.encode(), b"Report", error, number


def _note_lengths(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw log-normal numbers of words: mean `MEAN_WORDS`, the longest `MAX_WORDS`."""
    lengths = rng.lognormal(sigma=0.5, size=size)
    lengths = np.minimum(lengths * (MEAN_WORDS / lengths.mean()), MAX_WORDS)
    lengths[lengths.argmax()] = MAX_WORDS
    return np.maximum(lengths, 1).astype(int)


class _Words:
    """Runs of words out of synthetic notes whose lines are shuffled, with double quotes written as CSV has them."""

    def __init__(self, seed: int, num_notes: int = 1000):
        rng = random.Random(seed)
        lines = [
            line
            for admission, note_rng in plan_admissions(num_notes, seed, (0.8, 0.1, 0.1))
            for note in NoteWriter(admission, note_rng, LENGTHS["long"], addendum_rate=0.1).write()
            for line in note.text.replace('"', '""').splitlines()
        ]
        rng.shuffle(lines)
        lines = [_with_quotes(line) if rng.random() < QUOTED_LINES else line for line in lines]
        self.text = "\n".join(lines).encode("ascii", "replace")
        bytes_ = np.frombuffer(self.text, np.uint8)
        is_space = (bytes_ == ord(" ")) | (bytes_ == ord("\n"))
        self.starts = np.flatnonzero(~is_space[1:] & is_space[:-1]) + 1  # of each word but the first
        self.rng = rng

    def draw(self, number: int) -> bytes:
        first = self.rng.randrange(len(self.starts) - number)
        return self.text[self.starts[first] : self.starts[first + number] - 1]


def _with_quotes(line: str) -> str:
    first, space, rest = line.partition(" ")
    return f'""{first}""{space}{rest}' if first else line


def _write_table(folder: Path, name: str, rows: Iterable[bytes]) -> tuple[int, int]:
    """Write a gzipped table; gives its rows and its bytes unpacked."""
    number = 0

    def blocks() -> Iterator[bytes]:
        nonlocal number
        header = ",".join(f'"{column}"' for column in TABLES[name]) + "\n"
        block = [header.encode()]
        size = 0
        for row in rows:
            number += 1
            block.append(row)
            size += len(row)
            if size >= BLOCK:
                yield b"".join(block)
                block, size = [], 0
        yield b"".join(block)

    unpacked = _write_gzip(folder / f"{name}.csv.gz", blocks())
    return number, unpacked


def _write_gzip(path: Path, blocks: Iterable[bytes]) -> int:
    """Compress blocks in threads into one gzip member, as pigz does; gives the bytes unpacked."""
    checksum = size = 0
    pending: deque[Future[bytes]] = deque()
    with path.open("wb") as file, ThreadPoolExecutor(2) as threads:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")  # no name, no time
        for block in blocks:
            checksum = zlib.crc32(block, checksum)
            size += len(block)
            pending.append(threads.submit(_deflate, block))
            if len(pending) > 4:
                file.write(pending.popleft().result())
        for done in pending:
            file.write(done.result())
        file.write(zlib.compressobj(wbits=-zlib.MAX_WBITS).flush())
        file.write(checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"))
    return size


def _deflate(block: bytes) -> bytes:
    """Compress a block so that another one can follow it in the same stream."""
    compressor: Any = zlib.compressobj(COMPRESSION_LEVEL, wbits=-zlib.MAX_WBITS)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
