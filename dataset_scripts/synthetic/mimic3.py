"""Writes the corpus in the shape of MIMIC-III v1.4: its tables, and split lists in the form of caml-mimic."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from ..evidence import EVIDENCE_FILE
from ..marker import MARKER_FILE, write_marker
from .admissions import SPLITS, Admission, plan_admissions
from .content import extended_content, read_content
from .folder import CORPUS_VERSION, check_arguments, complete_folder, open_gzip
from .mdace import FOLDER as MDACE_FOLDER
from .mdace import Charts
from .notes import LENGTHS, Length, NoteWriter


NUM_TOP_CODES = 50

TABLES: dict[str, tuple[str, ...]] = {
    "NOTEEVENTS": (
        "ROW_ID",
        "SUBJECT_ID",
        "HADM_ID",
        "CHARTDATE",
        "CHARTTIME",
        "STORETIME",
        "CATEGORY",
        "DESCRIPTION",
        "CGID",
        "ISERROR",
        "TEXT",
    ),
    "DIAGNOSES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "PROCEDURES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_DIAGNOSES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "D_ICD_PROCEDURES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
}
CORPUS_FILES = (
    MARKER_FILE,
    *(f"{table}.csv.gz" for table in TABLES),
    EVIDENCE_FILE,
    *(f"{split}_{code_set}_hadm_ids.csv" for code_set in ("full", "50") for split in SPLITS),
    "TOP_50_CODES.csv",
)


@dataclass(frozen=True)
class CorpusSummary:
    """What was written: counts over the whole corpus, and admissions per split."""

    output_dir: Path
    num_admissions: int
    num_subjects: int
    num_note_rows: int
    num_codes: int
    codes_per_admission: float
    split_sizes: dict[str, int]


def write_corpus(
    output_dir: str | Path,
    num_admissions: int = 1000,
    seed: int = 0,
    length: str = "default",
    split_fractions: tuple[float, float, float] = (0.8, 0.08, 0.12),
    addendum_rate: float = 0.1,
    other_rows_rate: float = 0.1,
    show_progress: bool = True,
    num_codes: int | None = None,
    mdace_charts: int = 0,
    codes: str = "worded",
) -> CorpusSummary:
    """Write a corpus; the same arguments always give the same bytes. It takes as much memory for any number of admissions.

    Files appear under their names only when all are complete. A corpus that was written here before is replaced.

    Args:
        output_dir (`str` or `Path`): Created if missing. One that holds other tables of MIMIC-III is refused.
        num_admissions (`int`): Admissions, each with one discharge summary.
        seed (`int`): Makes every choice.
        length (`str`): A key of `LENGTHS`: `"short"`, `"default"` or `"long"`.
        split_fractions (`tuple[float, float, float]`): Train, dev and test; subjects are never divided.
        addendum_rate (`float`): Chance that an admission has an addendum.
        other_rows_rate (`float`): Nursing and radiology rows per admission; some without HADM_ID, some marked as errors.
        show_progress (`bool`): Draw a progress bar on stderr.
        num_codes (`int`, *optional*): Codes that there may be: those worded by hand, and as many as are lacking made of titles
            of ICD-9-CM, most of them rare; see more_concepts.py. By default the former alone.
        codes (`str`): `"full"` for as many codes as MIMIC-III has, as rare as there; see long_tail.py. `"worded"` for those that
            are worded by hand, or for `num_codes`.
        mdace_charts (`int`): The evidence of so many admissions, the first ones, is written in MDACE's files, too, into the
            folder `mdace`.
    """
    rates = {"addendum_rate": addendum_rate, "other_rows_rate": other_rows_rate}
    check_arguments(num_admissions, seed, length, **rates)
    _check_choices(num_admissions, split_fractions, num_codes, mdace_charts, codes)
    output_dir = Path(output_dir)
    with (
        extended_content(num_codes, codes == "full"),
        complete_folder(output_dir, CORPUS_FILES, [MDACE_FOLDER]) as partial,
    ):
        _write_dictionaries(partial)
        top_codes = _most_frequent_codes(num_admissions, seed, split_fractions)
        (partial / "TOP_50_CODES.csv").write_text("".join(f"{code}\n" for code in top_codes), encoding="utf-8")
        charts = Charts(partial, mdace_charts)
        with _CorpusFiles(partial, LENGTHS[length], addendum_rate, other_rows_rate, set(top_codes), charts) as files:
            plan = plan_admissions(num_admissions, seed, split_fractions)
            for admission, rng in tqdm(plan, total=num_admissions, unit="adm", disable=not show_progress):
                files.add(admission, rng)
        charts.write_lists()
        arguments = {"num_admissions": num_admissions, "seed": seed, "length": length}
        arguments |= {"split_fractions": list(split_fractions), **rates}
        arguments |= {} if num_codes is None else {"num_codes": num_codes}
        arguments |= {"codes": codes} if codes == "full" else {}
        arguments |= {"mdace_charts": mdace_charts} if mdace_charts else {}
        write_marker(partial, "MIMIC-III", TABLES, CORPUS_VERSION, **arguments)
    return CorpusSummary(
        output_dir=output_dir,
        num_admissions=num_admissions,
        num_subjects=files.num_subjects,
        num_note_rows=files.num_rows["NOTEEVENTS"],
        num_codes=len(files.codes),
        codes_per_admission=files.codes.total() / num_admissions,
        split_sizes=dict(files.split_sizes),
    )


def _check_choices(
    num_admissions: int,
    split_fractions: tuple[float, float, float],
    num_codes: int | None,
    mdace_charts: int,
    codes: str,
) -> None:
    """Raise a `ValueError` where arguments of [`write_corpus`] are out of range, or say two things."""
    if not 0 <= mdace_charts <= num_admissions:
        raise ValueError(f"`mdace_charts` ({mdace_charts}) must be between 0 and `num_admissions` ({num_admissions}).")
    if len(split_fractions) != 3 or min(split_fractions) < 0 or abs(sum(split_fractions) - 1) > 1e-6:
        raise ValueError(
            f"`split_fractions` ({tuple(split_fractions)}) must be three numbers, none negative, that add up to 1: "
            "train, dev and test."
        )
    if codes not in ("worded", "full"):
        raise ValueError(f"`codes` ({codes!r}) must be 'worded' or 'full'.")
    if codes == "full" and num_codes is not None:
        raise ValueError(f"`codes` 'full' and `num_codes` ({num_codes}) both say how many codes there are: give one.")


def _most_frequent_codes(num_admissions: int, seed: int, split_fractions: tuple[float, float, float]) -> list[str]:
    """The codes of most training admissions (of all, where there is no training split), most frequent first."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for admission, _ in plan_admissions(num_admissions, seed, split_fractions):
        counts[admission.split].update(admission.codes)
    counted = counts["train"] or sum(counts.values(), Counter())
    return sorted(counted, key=lambda code: (-counted[code], code))[:NUM_TOP_CODES]


def _csv_row(values: Sequence[Any]) -> str:
    """A line as in MIMIC-III's files: text quoted, numbers and dates bare, nothing for None."""
    return ",".join(_csv_field(value) for value in values) + "\n"


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value)


def _write_dictionaries(folder: Path) -> None:
    """The two dictionaries of codes, by code."""
    for table, procedures in (("D_ICD_DIAGNOSES", False), ("D_ICD_PROCEDURES", True)):
        concepts = [concept for concept in read_content().concepts.values() if concept.is_procedure == procedures]
        with open_gzip(folder / f"{table}.csv.gz") as file:
            file.write(_csv_row(TABLES[table]))
            for row_id, concept in enumerate(sorted(concepts, key=lambda concept: concept.undotted), 1):
                file.write(_csv_row((row_id, concept.undotted, concept.short_title, concept.long_title)))


class _CorpusFiles:
    """The files that grow with each admission, and the counts of what went into them."""

    def __init__(
        self,
        folder: Path,
        length: Length,
        addendum_rate: float,
        other_rows_rate: float,
        top_codes: set[str],
        charts: Charts,
    ):
        self.folder = folder
        self.content = read_content()
        self.length = length
        self.addendum_rate = addendum_rate
        self.other_rows_rate = other_rows_rate
        self.top_codes = top_codes
        self.charts = charts
        self.num_rows = dict.fromkeys(TABLES, 0)
        self.num_subjects = 0
        self.last_subject_id = 0
        self.codes: Counter[str] = Counter()
        self.split_sizes = dict.fromkeys(SPLITS, 0)
        self.stack = ExitStack()

    def __enter__(self) -> "_CorpusFiles":
        with ExitStack() as opening:
            self.tables = {}
            for name in ("NOTEEVENTS", "DIAGNOSES_ICD", "PROCEDURES_ICD"):
                self.tables[name] = opening.enter_context(open_gzip(self.folder / f"{name}.csv.gz"))
                self.tables[name].write(_csv_row(TABLES[name]))
            self.evidence = opening.enter_context(open_gzip(self.folder / EVIDENCE_FILE))
            self.lists = {
                (split, code_set): opening.enter_context(
                    (self.folder / f"{split}_{code_set}_hadm_ids.csv").open("w", encoding="utf-8", newline="")
                )
                for split in SPLITS
                for code_set in ("full", "50")
            }
            self.stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def add(self, admission: Admission, rng: random.Random) -> None:
        """Write everything about one admission."""
        self.codes.update(admission.codes)
        self.split_sizes[admission.split] += 1
        if admission.subject_id != self.last_subject_id:
            self.num_subjects += 1
            self.last_subject_id = admission.subject_id
        self.lists[admission.split, "full"].write(f"{admission.hadm_id}\n")
        if not self.top_codes.isdisjoint(admission.codes):
            self.lists[admission.split, "50"].write(f"{admission.hadm_id}\n")
        for table, procedures in (("DIAGNOSES_ICD", False), ("PROCEDURES_ICD", True)):
            concepts = [self.content.concepts[code] for code in admission.codes]
            concepts = [concept for concept in concepts if concept.is_procedure == procedures]
            for sequence, concept in enumerate(concepts, 1):
                self._add_row(table, admission.subject_id, admission.hadm_id, sequence, concept.undotted)
        self._add_notes(admission, rng)

    def _add_notes(self, admission: Admission, rng: random.Random) -> None:
        discharged = admission.admitted + timedelta(days=admission.days)
        notes = NoteWriter(admission, rng, self.length, self.addendum_rate).write()
        rows = []
        for note, description in zip(notes, ("Report", "Addendum"), strict=False):
            written = discharged if description == "Report" else discharged + timedelta(days=rng.randint(0, 5))
            row_id = self._add_row(
                "NOTEEVENTS",
                admission.subject_id,
                admission.hadm_id,
                written,
                None,
                None,
                "Discharge summary",
                description,
                None,
                None,
                note.text,
            )
            rows.append((row_id, description, note))
            self.evidence.write(
                json.dumps(
                    {
                        "hadm_id": admission.hadm_id,
                        "row_id": row_id,
                        "codes": note.evidence,
                        "distractors": note.distractors,
                    }
                )
                + "\n"
            )
        self.charts.add(admission, rows)
        if rng.random() < self.other_rows_rate:
            self._add_other_row(admission, rng)

    def _add_other_row(self, admission: Admission, rng: random.Random) -> None:
        """A row that is no discharge summary: builders must leave it out."""
        category, sentences = rng.choice(
            (("Nursing/other", self.content.phrases.nursing), ("Radiology", self.content.phrases.radiology))
        )
        nursing = category == "Nursing/other"
        sex = "male" if admission.sex == "M" else "female"
        text = "\n".join(sentences if not nursing else rng.sample(sentences, 4))
        day = admission.admitted + timedelta(days=rng.randrange(admission.days))
        time = datetime(day.year, day.month, day.day, rng.randrange(24), rng.randrange(60))
        self._add_row(
            "NOTEEVENTS",
            admission.subject_id,
            None if rng.random() < 0.25 else admission.hadm_id,
            day,
            time,
            time if nursing else None,
            category,
            "Report" if nursing else "CHEST (PORTABLE AP)",
            rng.randint(14_000, 21_000) if nursing else None,
            "1" if nursing and rng.random() < 0.2 else None,
            text.format(age=admission.age, sex=sex) + "\n",
        )

    def _add_row(self, table: str, *values: Any) -> int:
        """Write a row after its ROW_ID, which is returned."""
        self.num_rows[table] += 1
        self.tables[table].write(_csv_row((self.num_rows[table], *values)))
        return self.num_rows[table]
