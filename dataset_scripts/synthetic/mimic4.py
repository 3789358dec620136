"""Writes the admissions of the corpus in the shape of MIMIC-IV v2.2 and MIMIC-IV-Note v2.2.

A subject's admissions are coded in ICD-9 up to some day and in ICD-10 from then on. An admission in ICD-10 has only those
codes whose concept has a certain one; see concepts.yaml. A few admissions have codes of both editions.
"""

import csv
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..builders.mimic3 import MIMIC3
from ..evidence import EVIDENCE_FILE
from ..marker import MARKER_FILE, write_marker
from .admissions import Admission, plan_admissions
from .content import read_content
from .folder import CORPUS_VERSION, check_arguments, complete_folder, open_gzip
from .marks import Note
from .notes import LENGTHS, NoteWriter


TABLES: dict[str, tuple[str, ...]] = {
    "note/discharge": (
        "note_id",
        "subject_id",
        "hadm_id",
        "note_type",
        "note_seq",
        "charttime",
        "storetime",
        "text",
    ),
    "hosp/diagnoses_icd": ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"),
    "hosp/procedures_icd": ("subject_id", "hadm_id", "seq_num", "chartdate", "icd_code", "icd_version"),
    "hosp/d_icd_diagnoses": ("icd_code", "icd_version", "long_title"),
    "hosp/d_icd_procedures": ("icd_code", "icd_version", "long_title"),
}
CORPUS_FILES = (MARKER_FILE, *(f"{table}.csv.gz" for table in TABLES), EVIDENCE_FILE)
FIRST_SUBJECT_ID, FIRST_HADM_ID = 10_000_000, 20_000_000
_DEID_MARK = re.compile(MIMIC3.DEID_MARK)
_BLANK = "___"


@dataclass(frozen=True)
class CodedAdmission:
    """An admission whose codes are those of its edition of ICD.

    Args:
        admission (`Admission`): With the ICD-9-CM codes of the concepts that its notes tell.
        edition (`int`): 9 or 10.
        is_mixed (`bool`): Whether one of its codes is of the other edition all the same.
    """

    admission: Admission
    edition: int
    is_mixed: bool

    def write_code(self, code: str) -> str:
        """The code of a concept, given in ICD-9-CM, in the edition of the admission; without the dot."""
        return (code if self.edition == 9 else read_content().concepts[code].icd10).replace(".", "")


@dataclass(frozen=True)
class CorpusSummary:
    """What was written: counts over the whole corpus, and admissions by edition (`9`, `10`, `mixed`)."""

    output_dir: Path
    num_admissions: int
    num_subjects: int
    num_note_rows: int
    editions: dict[str, int]


def write_corpus(
    output_dir: str | Path,
    num_admissions: int = 1000,
    seed: int = 0,
    length: str = "default",
    icd10_rate: float = 0.5,
    mixed_rate: float = 0.005,
    addendum_rate: float = 0.05,
    show_progress: bool = True,
) -> CorpusSummary:
    """Write a corpus; the same arguments always give the same bytes.

    Files appear under their names only when all are complete. A corpus that was written here before is replaced.

    Args:
        output_dir (`str` or `Path`): Created if missing. One that holds other tables of MIMIC-IV is refused.
        num_admissions (`int`): Admissions, each with one discharge summary; those of `mimic3.write_corpus`.
        seed (`int`): Makes every choice.
        length (`str`): A key of `LENGTHS`: `"short"`, `"default"` or `"long"`.
        icd10_rate (`float`): Chance that a subject's first admission is coded in ICD-10, and each next one if not yet.
        mixed_rate (`float`): Chance that an admission has a code of the other edition.
        addendum_rate (`float`): Chance that an admission has an addendum.
        show_progress (`bool`): Draw a progress bar on stderr.
    """
    rates = {"icd10_rate": icd10_rate, "mixed_rate": mixed_rate, "addendum_rate": addendum_rate}
    check_arguments(num_admissions, seed, length, **rates)
    output_dir = Path(output_dir)
    editions: Counter[str] = Counter({"9": 0, "10": 0, "mixed": 0})
    subjects = set()
    with complete_folder(output_dir, CORPUS_FILES) as partial:
        with ExitStack() as stack:
            tables = {name: stack.enter_context(_Table(partial, name)) for name in TABLES}
            evidence = stack.enter_context(open_gzip(partial / EVIDENCE_FILE))
            write_titles(tables)
            plan = plan_coded_admissions(num_admissions, seed, icd10_rate, mixed_rate)
            for coded, rng in tqdm(plan, total=num_admissions, unit="adm", disable=not show_progress):
                write_codes(tables, coded)
                notes = NoteWriter(coded.admission, rng, LENGTHS[length], addendum_rate).write()
                for entry in write_notes(tables["note/discharge"], coded, notes):
                    evidence.write(json.dumps(entry) + "\n")
                editions["mixed" if coded.is_mixed else str(coded.edition)] += 1
                subjects.add(coded.admission.subject_id)
        arguments = {"num_admissions": num_admissions, "seed": seed, "length": length, **rates}
        write_marker(partial, "MIMIC-IV", TABLES, CORPUS_VERSION, **arguments)
    return CorpusSummary(output_dir, num_admissions, len(subjects), tables["note/discharge"].num_rows, dict(editions))


def plan_coded_admissions(
    num_admissions: int, seed: int, icd10_rate: float, mixed_rate: float
) -> Iterator[tuple[CodedAdmission, random.Random]]:
    """Yield every admission with the edition it is coded in, and the generator that its notes are to be drawn from."""
    concepts = read_content().concepts
    subject_id, rng, is_icd10 = 0, random.Random(), False
    for admission, note_rng in plan_admissions(num_admissions, seed, (1, 0, 0)):
        if admission.subject_id != subject_id:
            subject_id, is_icd10 = admission.subject_id, False
            rng = random.Random(f"{seed}/{subject_id}/edition")
        is_icd10 = is_icd10 or rng.random() < icd10_rate
        certain = tuple(code for code in admission.codes if concepts[code].icd10)
        edition = 10 if is_icd10 and certain else 9
        if edition == 10:
            admission = replace(admission, codes=certain)
        is_mixed = rng.random() < mixed_rate and bool(certain) and len(admission.codes) > 1
        yield CodedAdmission(admission, edition, is_mixed), note_rng


def write_titles(tables: Mapping[str, "_Table"]) -> None:
    """Write the two dictionaries of codes, by code."""
    content = read_content()
    for name, is_procedure in (("hosp/d_icd_diagnoses", False), ("hosp/d_icd_procedures", True)):
        concepts = [concept for concept in content.concepts.values() if concept.is_procedure == is_procedure]
        rows = [(concept.undotted, 9, concept.long_title) for concept in concepts]
        rows += [(concept.icd10.replace(".", ""), 10, concept.icd10_title) for concept in concepts if concept.icd10]
        if is_procedure:
            rows += [(table, 10, title) for table, title in content.procedure_tables.items()]
        for row in sorted(rows):
            tables[name].write(*row)


def write_codes(tables: Mapping[str, "_Table"], coded: CodedAdmission) -> None:
    """Write the code rows of an admission; the last code that has both editions is in the other one if it is mixed."""
    admission, concepts = coded.admission, read_content().concepts
    ids = (FIRST_SUBJECT_ID + admission.subject_id, FIRST_HADM_ID + admission.hadm_id)
    other = replace(coded, edition=19 - coded.edition)
    stray = [code for code in admission.codes if concepts[code].icd10][-1:] if coded.is_mixed else []
    numbers: Counter[bool] = Counter()
    for code in admission.codes:
        own = other if code in stray else coded
        is_procedure = concepts[code].is_procedure
        numbers[is_procedure] += 1
        if is_procedure:
            row = (*ids, numbers[True], admission.admitted, own.write_code(code), own.edition)
            tables["hosp/procedures_icd"].write(*row)
        else:
            tables["hosp/diagnoses_icd"].write(*ids, numbers[False], own.write_code(code), own.edition)


def write_notes(table: "_Table", coded: CodedAdmission, notes: Sequence[Note]) -> Iterator[dict[str, Any]]:
    """Write the discharge summary and the addendum of an admission; yield where in them its codes are."""
    admission = coded.admission
    subject_id, hadm_id = FIRST_SUBJECT_ID + admission.subject_id, FIRST_HADM_ID + admission.hadm_id
    discharged = admission.admitted + timedelta(days=admission.days)
    for note, note_type in zip(map(blank_marks, notes), ("DS", "AD"), strict=False):
        note_seq = table.next_number(subject_id, note_type)
        note_id = f"{subject_id}-{note_type}-{note_seq}"
        time = f"{discharged} 00:00:00"
        table.write(note_id, subject_id, hadm_id, note_type, note_seq, time, time, note.text)
        yield {
            "hadm_id": hadm_id,
            "note_id": note_id,
            "edition": coded.edition,
            "codes": _spans_of_edition(note.evidence, coded.edition),
            "distractors": _spans_of_edition(note.distractors, coded.edition),
        }


def blank_marks(note: Note) -> Note:
    """Put `___`, MIMIC-IV's mark of de-identification, in the place of MIMIC-III's marks, and move the spans along."""
    pieces: list[str] = []
    moves: list[tuple[int, int]] = []  # end of a mark in the old text, how far what follows it moves
    end_of_last = moved = 0
    for mark in _DEID_MARK.finditer(note.text):
        pieces += (note.text[end_of_last : mark.start()], _BLANK)
        end_of_last = mark.end()
        moved += len(_BLANK) - len(mark[0])
        moves.append((end_of_last, moved))
    pieces.append(note.text[end_of_last:])

    def move(spans: Mapping[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        return {code: [[place(start), place(end)] for start, end in of_code] for code, of_code in spans.items()}

    def place(position: int) -> int:
        return position + next((by for end, by in reversed(moves) if end <= position), 0)

    return Note("".join(pieces), move(note.evidence), move(note.distractors))


def _spans_of_edition(spans: Mapping[str, list[list[int]]], edition: int) -> dict[str, list[list[int]]]:
    """Spans by the dotted codes of an edition; a concept without a code in it is left out."""
    if edition == 9:
        return dict(spans)
    concepts = read_content().concepts
    return {concepts[code].icd10: of_code for code, of_code in spans.items() if concepts[code].icd10}


class _Table:
    """A table that grows row by row: text quoted where it has to be, as in MIMIC-IV's files."""

    def __init__(self, folder: Path, name: str):
        self.path = folder / f"{name}.csv.gz"
        self.header = TABLES[name]
        self.num_rows = 0
        self.stack = ExitStack()
        self.numbers: Counter[tuple[int, str]] = Counter()

    def __enter__(self) -> "_Table":
        self.writer = csv.writer(self.stack.enter_context(open_gzip(self.path)), lineterminator="\n")
        self.writer.writerow(self.header)
        return self

    def __exit__(self, *fault: Any) -> None:
        self.stack.__exit__(*fault)

    def write(self, *values: Any) -> None:
        self.writer.writerow(values)
        self.num_rows += 1

    def next_number(self, subject_id: int, note_type: str) -> int:
        """Count the notes of a subject by type."""
        self.numbers[subject_id, note_type] += 1
        return self.numbers[subject_id, note_type]
