"""Builds MIMIC-IV discharge summaries with their ICD-9 or ICD-10 codes, on the splits of Edin et al. (arXiv 2304.10909) and others.

From raw tables to records: the codes of diagnoses_icd and procedures_icd say which admissions are of the edition that
the configuration is for, and get their dots; the discharge summaries of those are gathered by admission; the admissions
are given to the splits.

MIMIC-IV and MIMIC-IV-Note are open to credentialed users of PhysioNet alone, under a data use agreement. This
module reads the user's own copy and writes only into the user's own cache.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..codes import icd9_hierarchy, icd10_hierarchy
from ..codes.classification import ICD9, ICD10, Classification
from ..codes.icd9 import Kind
from ..facts import FACTS
from .admissions import (
    MIN_COUNT,
    Codings,
    DischargeSummaries,
    Gathering,
    choose_frequent,
    choose_most_frequent,
    count_codes,
)
from .edin_splits import read_edin_lists
from .mimic import TOP_CODES, MIMICBuilder, MIMICConfig
from .records import find_given_file
from .releases import RELEASES, find_release
from .sources import has_text, read_choices, read_dotted_codes, read_ids, read_table


CODE_TABLES: dict[str, Kind] = {"diagnoses_icd": "diagnosis", "procedures_icd": "procedure"}
TITLE_TABLES: dict[str, Kind] = {"d_icd_diagnoses": "diagnosis", "d_icd_procedures": "procedure"}
EDITIONS = {9: ICD9, 10: ICD10}
# The tables of notes, each with its types: reports, then addenda, the order in which a text has them.
NOTE_TYPES = {"discharge": ("DS", "AD"), "radiology": ("RR", "AR")}
TYPE_ORDER = [kind for kinds in NOTE_TYPES.values() for kind in kinds]
DEID_MARK = re.compile(r"(?<!_)___(?!_)")  # a longer row of underscores is a rule across the page


@dataclass
class MIMIC4Config(MIMICConfig):
    """What to make of a folder of MIMIC-IV tables; the edition of ICD is in the `name`.

    Args:
        release (`str`, *optional*):
            Of the tables of codes, `"2.2"` or `"3.1"`; needed where the folder holds both, and else what their folders are called.
        **options: See [`MIMICConfig`].
    """

    CATEGORIES: ClassVar[tuple[str, ...]] = tuple(NOTE_TYPES)
    DISCHARGE: ClassVar[str] = "discharge"

    release: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.release not in (None, *RELEASES):
            raise ValueError(f"`release` ({self.release!r}) must be one of {', '.join(RELEASES)}.")
        if self.descriptions_file is not None and self.edition == 10:
            raise ValueError(f"`descriptions_file` is an option of the ICD-9 configurations, not of {self.name!r}.")

    @property
    def edition(self) -> int:
        return 9 if self.name.startswith("icd9") else 10

    @property
    def table_classification(self) -> Classification:
        return EDITIONS[self.edition]


class MIMIC4(MIMICBuilder):
    """Build data sets of discharge summaries and codes from MIMIC-IV's tables, real or synthetic.

    | configuration | codes | splits |
    |---|---|---|
    | `icd10` | ICD-10-CM and ICD-10-PCS codes of at least `min_count` admissions | Edin et al.'s: 89,099 / 13,378 / 19,802, or our own |
    | `icd10_top50` | the 50 of them that most admissions have | those of `icd10` |
    | `icd9` | ICD-9-CM codes of at least `min_count` admissions | Edin et al.'s: 154,542 / 21,980 / 32,804, or our own |
    | `icd9_top50` | the 50 of them that most admissions have | those of `icd9` |

    `data_dir` holds the five tables, or the folders `note` and `hosp` of PhysioNet with them, wherever they lie in it; see
    `releases.py`, which also says how v2.2 and v3.1 differ.

    **Editions.** With Edin et al.'s splits an admission with codes of both editions is in both data sets, each with its own
    codes (prepare_data/prepare_mimiciv.py in JoakimEdin/medical-coding-reproducibility; their lists share 7 admissions, of which
    2 are in different splits). With splits of our own it belongs to neither, since in each it would miss codes that it has.
    Both are counted.

    **Notes.** A record's text is the rows of the admission in discharge.csv: discharge summaries (`DS`), then addenda
    (`AD`), each in the order of `note_seq`, with an empty line between two. A row that repeats the text of another one
    of the admission is left out, as in Edin et al., and so are rows without a text; two texts of one type and
    `note_seq` are refused. An admission that under `text="caml"` holds no word makes no record.

    **Codes.** Those of both code tables, each once per admission, dotted by kind and never read as numbers; see
    `icd9.py` and `icd10.py`. Codes of fewer than `min_count` (10) of the edition's admissions with a note are dropped,
    after Edin et al. (arXiv 2304.10909; prepare_data in JoakimEdin/medical-coding-reproducibility); `min_count=1` keeps
    all. Theirs are written with a dot behind each category (`I10.`), ours without. An admission with none of the
    configuration's codes makes no record. The 50 most frequent are counted over all admissions of the edition with a note,
    whatever their split, where there are lists over those that are listed; of two equally frequent codes the one that
    sorts first wins.

    **Splits.** Those of Edin et al. (files/data/mimiciv_icd10 and mimiciv_icd9 of their repository), or, with
    `splits="stratified"`, our own: subjects, not admissions, are given to 75 / 10 / 15 % of the admissions by iterative
    stratification; see [`stratify_by_subject`]. Our own depend on the edition, the admissions with a note and `seed` alone. No
    admission changes its split between `icd10` and `icd10_top50`, or with other `codes`, groups of codes or another `min_count`. The splits of the two editions are not one:
    a subject may be in train of `icd9` and in test of `icd10`.

    See [`ICDBuilder`] for the arguments and [`MIMICConfig`] for the options.
    """

    BUILDER_CONFIG_CLASS = MIMIC4Config
    BUILDER_CONFIGS = [
        MIMIC4Config(name=name, description=f"{description}, after Edin et al. (arXiv 2304.10909).")
        for name, description in {
            "icd10": "ICD-10-CM and ICD-10-PCS codes of at least `min_count` admissions",
            "icd10_top50": "The 50 ICD-10-CM and ICD-10-PCS codes of most admissions",
            "icd9": "ICD-9-CM codes of at least `min_count` admissions",
            "icd9_top50": "The 50 ICD-9-CM codes of most admissions",
        }.items()
    ]
    ABOUT = FACTS["mimic4"]

    def _replace_marks(self, texts: pa.StringArray, token: str) -> pa.StringArray:
        # RE2, which the other release's marks are replaced by, does not look around.
        return pa.array([DEID_MARK.sub(lambda mark: token, text) for text in texts.to_pylist()], type=pa.string())

    def _find_sources(self, config: MIMIC4Config) -> list[Path]:
        names = [*config.categories, *CODE_TABLES, *TITLE_TABLES]
        self.tables, self.release = find_release(str(config.data_dir), names, config.release)
        given = find_given_file(config, "descriptions_file")
        return [*self.tables.values(), *self._find_edin_lists(config), *([given] if given else [])]

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """Titles by dotted code, category, block and chapter of the edition: the long titles of the d_icd tables, then
        those of `descriptions_file` (ICD-9-CM), then those that the installed packages bring.
        """
        others = self.code_change.load_titles()
        if self.config.to_icd10:  # some of whose codes are spelled as others of ICD-9-CM
            return others
        if self.config.edition == 10:
            titles = icd10_hierarchy.load_titles()
        else:
            titles = icd9_hierarchy.load_titles(descriptions_file=self.config.descriptions_file)
        for table, kind in TITLE_TABLES.items():
            titles.update(read_titles(self.tables[table], kind, self.config.edition))
        return {**others, **titles}

    def _describe_own_options(self) -> list[str]:
        known = f"MIMIC-IV v{self.release}" if self.release else "a release that neither `release` nor a folder names"
        return [f"The codes are those of {known}.", *self._describe_edin()]

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read and checked here, before the first record is written.
        self._count_anew()
        codings, other_edition = read_codes(self.tables, self.config.edition)
        mixed = codings.codes.keys() & other_edition
        of_edition = codings.codes.keys() - (set() if self.config.follows_edin else mixed)
        notes, noted = read_discharge_summaries(self.tables, of_edition, self._prepare_texts, self.config)
        coded = {hadm_id: codings.codes[hadm_id] for hadm_id in notes.rows}
        changed = self.code_change.change(coded)
        if not coded:
            raise ValueError(
                f"{notes.path}: none of its {len(noted):,} admissions has codes of "
                f"{self.config.table_classification.name} alone in {self.tables['diagnoses_icd'].parent}. Are the tables of one release?"
            )

        whole, lists = read_edin_lists(self.edin_lists) if self.edin_lists else ({}, {})
        listed = {hadm_id for hadm_ids in whole.values() for hadm_id in hadm_ids} if whole else set(coded)
        min_count = self.config.min_count or MIN_COUNT
        counts = count_codes(changed, listed)
        chosen = self._choose_codes(counts, choose_frequent(counts, min_count))
        kept = {hadm_id: codes & chosen for hadm_id, codes in changed.items() if codes & chosen}
        splits = notes.leave_out_blank(self._divide(notes, coded, kept, lists), self.config.text)
        self._set_features(chosen)
        mixed_are = "kept" if self.config.follows_edin else "left out"
        self._report(
            {
                **notes.left_out,
                **(self.section_filter.report() if self.section_filter else {}),
                **codings.count_rows(),
                **codings.count_missing(coded.keys()),
                **self.code_change.counts,
                "code rows whose subject_id is not that of the admission's notes": notes.count_other_subjects(
                    codings.subjects
                ),
                f"{mixed_are}, admissions with codes of both ICD-9 and ICD-10": len(noted & mixed),
                "left out, admissions coded in the other edition": len(noted & other_edition - mixed),
                "left out, admissions without codes": len(noted - codings.codes.keys() - other_edition),
                "left out, codes outside of the code set": len(counts.keys() - chosen),
                "left out, admissions without a note": len(of_edition - noted),
                "left out, admissions with none of the chosen codes": len((changed.keys() - kept.keys()) & listed),
                f"listed admissions without a {self.config.notes_name} and a code": len(listed - coded.keys()),
                "left out, admissions in no split list": len(coded.keys() - listed),
                "admissions of several notes, which are one record here and one for each note in Edin et al.": sum(
                    len(rows) > 1 for rows in notes.rows.values()
                )
                if self.config.follows_edin
                else 0,
                "codes that no admission has": len(chosen - counts.keys()),
            },
            {name: [kept[hadm_id] for hadm_id in hadm_ids] for name, hadm_ids in splits.items()},
        )
        return self._make_generators(notes, kept, splits)

    def _choose_codes(self, counts: Mapping[str, int], frequent: set[str]) -> set[str]:
        if self.config.codes is not None:
            return set(self.config.codes)
        if self.config.name.endswith("_top50"):
            remedy = f"use configuration {self.config.name.removesuffix('_top50')!r}"
            return choose_most_frequent(counts, TOP_CODES, remedy)
        if not frequent:
            raise ValueError(
                f"{self.config.data_dir}: no code of {self.config.classification.name} is in as many admissions as `min_count` "
                f"asks for; the most frequent one is in {max(counts.values(), default=0)}. Lower `min_count`."
            )
        return frequent


def read_codes(tables: Mapping[str, Path], edition: int) -> tuple[Codings, set[int]]:
    """Read the codes of an edition of ICD, and find the admissions that have a code of the other one."""
    codings, other_edition = Codings(), set()
    unreadable: Counter[str] = Counter()
    for table, kind in CODE_TABLES.items():
        path, columns = tables[table], ["hadm_id", "icd_code", "icd_version"]
        for first, batch in read_table(path, columns, optional=["subject_id"], needs_rows=True):
            admissions = read_ids(batch, "hadm_id", path, first)
            subjects = read_ids(batch, "subject_id", path, first, optional=True)
            dotted, is_other, is_empty = read_codes_of_edition(batch, kind, path, first, edition, unreadable)
            codings.add(table, admissions, subjects, dotted, is_empty)
            other_edition.update(admissions.filter(is_other).to_pylist())
    codings.unreadable = unreadable["icd_code"]
    if codings.unreadable > codings.num_rows:
        raise ValueError(
            f"{tables['diagnoses_icd'].parent}: {codings.unreadable:,} codes are none of {EDITIONS[edition].name}, and only "
            f"{codings.num_rows:,} are. Restore the original tables: spreadsheets and data frames rewrite codes."
        )
    return codings, other_edition


def read_codes_of_edition(
    batch: pa.RecordBatch, kind: Kind, path: Path, first: int, edition: int, unreadable: Counter[str]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Read `icd_code` and `icd_version`; codes that cannot be read are counted in `unreadable`.

    Returns:
        The dotted codes of the edition, null elsewhere; whether a row has a code of the other edition; whether it has
        none.
    """
    editions = read_choices(batch, "icd_version", [str(number) for number in EDITIONS], path, first)
    is_ours = pc.equal(editions, str(edition))
    is_empty = pc.equal(pc.utf8_trim_whitespace(batch["icd_code"]), "")
    ours = pc.if_else(is_ours, batch["icd_code"], "")
    codes = pa.RecordBatch.from_arrays([ours], ["icd_code"])
    dotted = read_dotted_codes(codes, "icd_code", kind, path, first, EDITIONS[edition].add_dot, unreadable)
    return dotted, pc.and_not(pc.invert(is_ours), is_empty), is_empty


def read_titles(path: Path, kind: Kind, edition: int) -> dict[str, str]:
    """Read the titles of an edition's codes, without those whose code cannot be read; the tables of ICD-10-PCS (`001`), which are among them, get their dash."""
    titles: dict[str, str] = {}
    for first, batch in read_table(path, ["icd_code", "icd_version", "long_title"]):
        if kind == "procedure" and edition == 10:
            codes = pc.utf8_trim_whitespace(batch["icd_code"])
            is_table = pc.and_(pc.equal(pc.utf8_length(codes), 3), pc.equal(batch["icd_version"], "10"))
            tables = codes.filter(is_table).to_pylist()
            long_titles = batch["long_title"].filter(is_table).to_pylist()
            titles.update(zip(map(icd10_hierarchy.table_of, tables), long_titles, strict=True))
            batch = batch.set_column(0, "icd_code", pc.if_else(is_table, "", codes))
        dotted, _, _ = read_codes_of_edition(batch, kind, path, first, edition, Counter())
        is_ours = pc.is_valid(dotted)
        long_titles = batch["long_title"].filter(is_ours).to_pylist()
        titles.update(zip(dotted.filter(is_ours).to_pylist(), long_titles, strict=True))
    return titles


def read_discharge_summaries(
    tables: Mapping[str, Path],
    wanted: Collection[int],
    prepare: Callable[[pa.StringArray], pa.StringArray],
    config: MIMIC4Config,
) -> tuple[DischargeSummaries, set[int]]:
    """Stream discharge.csv, or the tables of notes that are asked for, keeping the texts of some admissions.

    Returns:
        The notes of those of the wanted admissions that have any, and all admissions that have a note.
    """
    noted: set[int] = set()
    places: list[tuple[int, int]] = []  # of each row: its type's place in TYPE_ORDER, note_seq
    wanted_ids = pa.array(list(wanted), type=pa.int64())
    gathering = Gathering(tables[config.categories[0]], prepare)
    notes, name = gathering.notes, config.notes_name
    with gathering:
        for table in config.categories:
            path = tables[table]
            for first, batch in read_table(path, ["subject_id", "hadm_id", "note_type", "note_seq", "text"]):
                admissions = read_ids(batch, "hadm_id", path, first, optional=True)
                subjects = read_ids(batch, "subject_id", path, first)
                orders = read_ids(batch, "note_seq", path, first)
                rest, type_ids = choose_types(batch, table, notes, config)
                for reason, is_there in {
                    f"{name} rows without an admission id": pc.is_valid(admissions),
                    f"{name} rows without a text": has_text(batch["text"]),
                }.items():
                    notes.leave_out(reason, pc.and_not(rest, is_there))
                    rest = pc.and_(rest, is_there)
                noted.update(admissions.filter(rest).to_pylist())
                keep = pc.and_(rest, pc.is_in(admissions, wanted_ids))
                gathering.add(admissions.filter(keep), subjects.filter(keep), batch["text"].filter(keep))
                places += zip(type_ids.filter(keep).to_pylist(), orders.filter(keep).to_pylist(), strict=True)
    if not noted:
        raise ValueError(
            f"{notes.path} holds no {name} with an admission id; the open MIMIC-IV demo comes without notes. Use the "
            "table of MIMIC-IV-Note v2.2 or a synthetic corpus."
        )
    order_rows(notes, places)
    return notes, noted


def choose_types(
    batch: pa.RecordBatch, table: str, notes: DischargeSummaries, config: MIMIC4Config
) -> tuple[pa.Array, pa.Array]:
    """Whether the type of each row counts, and its place in TYPE_ORDER; rows that do not are counted."""
    types = pc.utf8_trim_whitespace(batch["note_type"])
    reports, addenda = NOTE_TYPES[table]
    is_known = pc.is_in(types, pa.array(NOTE_TYPES[table]))
    kind = "discharge summary" if table == "discharge" else f"{table} report"
    notes.leave_out(f"rows that are neither {kind} nor addendum", pc.invert(is_known))
    if config.addenda:
        return is_known, pc.index_in(types, pa.array(TYPE_ORDER))
    notes.leave_out("addenda", pc.equal(types, addenda))
    return pc.equal(types, reports), pc.index_in(types, pa.array(TYPE_ORDER))


def order_rows(notes: DischargeSummaries, places: Sequence[tuple[int, int]]) -> None:
    """Put the rows of each admission in the order of their places, type before number, and leave out those whose text the table has before."""
    for hadm_id, rows in notes.rows.items():
        if len(rows) > 1:
            first_with: dict[bytes, int] = {}
            for row in sorted(rows, key=places.__getitem__):
                first_with.setdefault(notes.digests[row], row)
            different = list(first_with.values())
            if len({places[row] for row in different}) < len(different):
                raise ValueError(
                    f"{notes.path}: two different texts of hadm_id {hadm_id} have one note_type and note_seq. Restore the "
                    "original table."
                )
            notes.rows[hadm_id] = different
            notes.left_out["left out, rows that repeat another one's text"] += len(rows) - len(different)
