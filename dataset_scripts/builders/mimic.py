"""What the builders of MIMIC-III and MIMIC-IV share: options, notes and codes by admission, splits, records.

What belongs to one release only (names of tables and columns, which rows count, published splits) is in `mimic3.py` or
`mimic4.py`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..codes.classification import ICD9, ICD10, Classification
from ..codes.grouping import GRANULARITIES, CodeChange
from ..codes.icd9 import Kind
from ..marker import MARKER_FILE
from .edin_splits import EDIN_DATA, EdinData, EdinLists, find_edin_lists, is_edin
from .note_text import RULES, is_blank, join_texts, joint_of, prepare_texts, replace_marks
from .published_lists import check_admissions, check_subjects
from .records import ICDBuilder, ICDConfig, check_positive, most_frequent, record_features
from .sections import SectionFilter, check_sections, describe_sections
from .sources import absolute_path
from .stratify import stratify_groups


TOP_CODES = 50
MIN_COUNT = 10
OWN_FRACTIONS = {"train": 0.75, "validation": 0.10, "test": 0.15}
KINDS: tuple[Kind, ...] = get_args(Kind)
DIVISIONS = ("edin", "stratified")


@dataclass
class MIMICConfig(ICDConfig):
    """What to make of a folder of MIMIC tables.

    Args:
        text (`str`):
            `"raw"` for the notes as written, `"caml"` for CAML's words: lower-cased runs of letters and digits, those
            without a letter dropped, one space between two. (CAML's own script drops purely numeric words only, so
            that it also keeps a row of underscores.) `"edin"` for Edin et al.'s words; see [`edin_text`].
        deid_token (`str`, *optional*):
            What to put in the place of each de-identification mark: `[**2101-1-1**]` in MIMIC-III, `___` in MIMIC-IV;
            marks are kept if left out.
        sections (`list[str]`, *optional*):
            Sections of the notes to keep, by name, such as `"hospital course"`; or to leave out, each name with a dash in
            front. See `sections.py`.
        addenda (`bool`):
            Whether a text has the addenda of its discharge summaries.
        note_categories (`list[str]`, *optional*):
            Whose notes make the text of an admission, in lower case; discharge summaries if left out. Of MIMIC-III any category
            of NOTEEVENTS, of MIMIC-IV `"discharge"` and `"radiology"`.
        code_kinds (`bool`):
            Add the column `code_kinds`: for each of the record's codes, whether it is a diagnosis or a procedure.
        unsplit (`bool`):
            In place of the splits, make one, `unsplit`, of every admission in the folder.
        codes (`list[str]`, *optional*):
            Dotted codes to use in place of the configuration's own set, groups where there are some. An admission with none of
            them is left out.
        granularity (`str`, *optional*):
            Group codes to `"category"` or `"chapter"`, diagnoses of ICD-9-CM to `"ccs"`, those of ICD-10-CM to `"ccsr"`; see
            `grouping.py`. Codes without a group are left out.
        to_icd10 (`bool`):
            Map diagnoses of ICD-9-CM to ICD-10-CM; procedures are left out.
        min_count (`int`, *optional*):
            In how many admissions a code must occur; 10 if left out, and 1 where the configuration has CAML's splits.
        splits (`str`, *optional*):
            Where the splits are not CAML's: `"edin"` for those of Edin et al., `"stratified"` for our own. If left out,
            `"edin"`; of an invented corpus, whose admissions are in no list, `"stratified"`.
        splits_dir (`str`, *optional*):
            Folder with the split lists. If left out, the folder of the tables; if that has none of the lists, they are
            downloaded from the repository of their authors and checked. `unsplit` needs none.
        subset (`str`, *optional*):
            With Edin et al.'s splits: the name of a smaller train split of theirs, such as `"train_subset_10k"`.
        seed (`int`, *optional*):
            Where the splits are our own: makes them; 0 if left out.
        descriptions_file (`str`, *optional*):
            CAML's `ICD9_descriptions.txt`, for the descriptions of ICD-9-CM codes that the tables lack.
    """

    CATEGORIES: ClassVar[tuple[str, ...]]  # of the release, in lower case
    DISCHARGE: ClassVar[str]  # that of discharge summaries

    text: str = "raw"
    deid_token: str | None = None
    sections: list[str] | None = None
    addenda: bool = True
    note_categories: list[str] | None = None
    code_kinds: bool = False
    codes: list[str] | None = None
    granularity: str | None = None
    to_icd10: bool = False
    min_count: int | None = None
    splits: str | None = None
    splits_dir: str | None = None
    subset: str | None = None
    seed: int | None = None
    descriptions_file: str | None = None

    def __post_init__(self):
        super().__post_init__()
        choices_of = {"text": tuple(RULES), "splits": (None, *DIVISIONS), "granularity": (None, *GRANULARITIES)}
        for option, choices in choices_of.items():
            if getattr(self, option) not in choices:
                expected = ", ".join(repr(choice) for choice in choices if choice)
                raise ValueError(f"`{option}` ({getattr(self, option)!r}) must be one of {expected}.")
        check_positive(self, "min_count")
        if self.sections is not None:
            self.sections = check_sections(self.sections)
        if self.note_categories is not None:
            self.note_categories = sorted({" ".join(name.lower().split()) for name in self.note_categories})
            unknown = set(self.note_categories) - set(self.CATEGORIES)
            if unknown or not self.note_categories:
                raise ValueError(
                    f"`note_categories` ({', '.join(sorted(unknown)) or 'empty'}) must be some of {', '.join(self.CATEGORIES)}."
                )
        for option in ("descriptions_file", "splits_dir"):
            if getattr(self, option) is not None:
                setattr(self, option, absolute_path(getattr(self, option)))
        if self.subset is not None and self.subset not in (self.published.subsets if self.published else ()):
            known = ", ".join(self.published.subsets) if self.published else "none"
            raise ValueError(f"`subset` ({self.subset!r}) of configuration {self.name!r}: there are {known}.")
        self._check_codes()

    def _check_codes(self) -> None:
        """Check the options that say which codes are used."""
        if self.to_icd10 and self.table_classification is not ICD9:
            raise ValueError(
                f"`to_icd10` maps ICD-9-CM, and configuration {self.name!r} is of {self.table_classification.name}."
            )
        only = GRANULARITIES[self.granularity] if self.granularity else None
        if only not in (None, self.classification):
            raise ValueError(
                f"`granularity={self.granularity}` is of {only.name}, and the codes are of {self.classification.name}."
            )
        if self.granularity is not None and self.code_kinds:
            raise ValueError("`code_kinds` says what a code is, which groups of codes (`granularity`) are not.")
        if self.codes is not None:
            for code in self.codes if self.granularity is None else ():
                self.classification.kind_of(code)
            self.codes = sorted(set(self.codes))

    @property
    def categories(self) -> list[str]:
        """Whose notes make the text of an admission."""
        return self.note_categories or [self.DISCHARGE]

    @property
    def notes_name(self) -> str:
        """What to call a row of these in what is said of it."""
        return "discharge summary" if self.categories == [self.DISCHARGE] else "note"

    @property
    def table_classification(self) -> Classification:
        """What the codes of the tables are of."""
        return ICD9

    @property
    def classification(self) -> Classification:
        """What the codes of the records are of, or were before they were grouped."""
        return ICD10 if self.to_icd10 else self.table_classification

    @property
    def published(self) -> EdinData | None:
        """What Edin et al. published of the configuration; None where its splits are CAML's."""
        return EDIN_DATA.get(self.name.removesuffix("_top50"))

    @property
    def division(self) -> str:
        """`splits`, or what it is where it is left out."""
        if self.splits is not None:
            return self.splits
        return "stratified" if Path(str(self.data_dir), MARKER_FILE).is_file() else "edin"

    @property
    def follows_edin(self) -> bool:
        """Whether records are made as Edin et al. made theirs."""
        return self.published is not None and self.division == "edin"

    @property
    def splits_note(self) -> str:
        """Where the splits come from, and which codes count."""
        min_count = self.min_count or MIN_COUNT
        if self.unsplit:
            return f"`min_count` is {min_count}."
        if self.division == "stratified":
            return f"The splits are stratified ones of our own: `min_count` is {min_count}, `seed` {self.seed or 0}."
        others = "" if min_count == MIN_COUNT else f", where Edin et al. have {MIN_COUNT}"
        subset = f" Train is their {self.subset}." if self.subset else ""
        return f"The splits are those of Edin et al. (arXiv 2304.10909).{subset} `min_count` is {min_count}{others}."


class MIMICBuilder(ICDBuilder):
    """A builder of records from the discharge summaries and the codes of admissions."""

    DEID_MARK: ClassVar[str]  # a regular expression of RE2
    edin_lists: EdinLists | None = None

    @cached_property
    def section_filter(self) -> SectionFilter | None:
        return None if self.config.sections is None else SectionFilter(self.config.sections)

    def _count_anew(self) -> None:
        """Forget what was counted when the tables were last read: a data set may be built, and looked at without a build."""
        self.code_change.counts.clear()
        if self.section_filter is not None:
            self.section_filter.counts.clear()

    def _find_edin_lists(self, config: MIMICConfig) -> list[Path]:
        """Find Edin et al.'s lists, where the configuration asks for them, and remember them."""
        self.edin_lists = None
        if config.published is None or config.unsplit:
            return []
        if config.division == "stratified":
            if config.subset is not None:
                raise ValueError("`subset` is one of Edin et al.'s: it needs `splits=edin`.")
            return []
        if config.seed is not None:
            raise ValueError("`seed` makes splits of our own: give `splits=stratified` with it.")
        self.edin_lists = find_edin_lists(
            config.published,
            config.subset,
            config.splits_dir,
            str(config.data_dir),
            self.downloads_dir / "edin_splits",
        )
        return self.edin_lists.files

    def _describe_edin(self) -> list[str]:
        """Say where the splits come from; nothing where they are CAML's."""
        if self.config.published is None:
            return []
        lists = self.edin_lists
        if lists is None or is_edin(lists.whole):
            return [self.config.splits_note]
        return [self.config.splits_note, f"{lists.whole.name} is not their file, byte for byte."]

    @property
    def classification(self) -> Classification | None:
        return None if self.config.granularity else self.config.classification

    @cached_property
    def code_change(self) -> CodeChange:
        return CodeChange(self.config.table_classification, self.config.to_icd10, self.config.granularity)

    def _describe_own_options(self) -> list[str]:
        """Say in sentences what the options make that are the release's own."""
        raise NotImplementedError

    def _describe(self) -> str:
        config = self.config
        parts = [str(config.description)]
        if config.codes is not None:
            parts.append(f"In place of its codes: {len(config.codes)} codes given by the caller.")
        parts += [*self._describe_own_options(), *self.code_change.describe()]
        if config.unsplit:
            parts.append("In place of its splits: one split of every admission.")
        if config.note_categories is not None:
            parts.append(f"The text is that of these notes: {', '.join(config.note_categories)}.")
        if not config.addenda:
            parts.append("Addenda are left out.")
        if config.sections is not None:
            parts.append(describe_sections(config.sections))
        if RULES[config.text]:
            parts.append(RULES[config.text])
        if config.deid_token is not None:
            parts.append(f"De-identification marks are replaced by {config.deid_token!r}.")
        return " ".join(parts)

    def _set_features(self, names: Collection[str]) -> None:
        self.info.features = record_features(names)
        if self.config.code_kinds:
            self.info.features["code_kinds"] = datasets.List(datasets.ClassLabel(names=list(KINDS)))

    def _make_generators(
        self, notes: "DischargeSummaries", codes: Mapping[int, set[str]], splits: Mapping[str, list[int]]
    ) -> list[datasets.SplitGenerator]:
        """Make a generator of each split, given its admissions; one without any is refused."""
        for name, hadm_ids in splits.items():
            if not hadm_ids:
                whole = "" if self.config.unsplit else ", or read all admissions as one split with `unsplit=True`"
                raise ValueError(
                    f"Split {name!r} of configuration {self.config.name!r} would be empty: {self.config.data_dir} has no "
                    f"admission with a chosen code for it ({len(codes):,} in all have one). Give a folder with more admissions, "
                    f"choose more codes (where splits are our own, `min_count=1` keeps all){whole}."
                )
        return [
            datasets.SplitGenerator(
                name=name, gen_kwargs={"notes": notes, "codes": codes, "hadm_ids": tuple(hadm_ids)}
            )
            for name, hadm_ids in splits.items()
        ]

    def _generate_examples(
        self, notes: "DischargeSummaries", codes: Mapping[int, set[str]], hadm_ids: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        kinds = []
        if self.config.code_kinds:
            kinds = [KINDS.index(self.config.classification.kind_of(code)) for code in self.code2id]
        for hadm_id in hadm_ids:
            ids = sorted(self.code2id[code] for code in codes[hadm_id])
            record = {
                "subject_id": notes.subject_ids[hadm_id],
                "hadm_id": hadm_id,
                "text": self._join(notes.texts_of(hadm_id))[0],
                "codes": ids,
            }
            if self.config.code_kinds:
                record["code_kinds"] = [kinds[code_id] for code_id in ids]
            yield hadm_id, record

    def _join(self, texts: list[str]) -> tuple[str, list[int]]:
        """A record's text, made of its rows', and where in it each of them begins, unless `text` is `edin`."""
        starts, end = [], 0
        for text in texts:
            starts.append(end)
            end += len(text) + len(joint_of(self.config.text)) if text else 0
        return join_texts(texts, self.config.text), starts

    def _prepare_texts(self, texts: pa.StringArray) -> pa.StringArray:
        """Make of rows of notes what the options ask for."""
        if self.section_filter is not None:
            texts = self.section_filter(texts)
        if self.config.deid_token is not None:
            texts = self._replace_marks(texts, self.config.deid_token)
        return prepare_texts(self.config.text)(texts)

    def _replace_marks(self, texts: pa.StringArray, token: str) -> pa.StringArray:
        return replace_marks(texts, self.DEID_MARK, token)


@dataclass
class DischargeSummaries:
    """The discharge summary rows of a table of notes, by admission; shown without text.

    Args:
        path (`Path`): The table.
        texts (`pa.ChunkedArray`): Texts of the rows, made ready, in the order of the file.
        rows (`dict[int, list[int]]`): Numbers of each admission's rows, in the order in which its text has them.
        subject_ids (`dict[int, int]`): Subject of each admission.
        left_out (`Counter[str]`): How many rows were left out, by reason.
        row_ids (`pa.ChunkedArray`): Ids of the rows in the table, in the order of `texts`; null where it gives none.
    """

    path: Path
    texts: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()), repr=False)
    rows: dict[int, list[int]] = field(default_factory=dict)
    subject_ids: dict[int, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    row_ids: pa.ChunkedArray = field(default_factory=lambda: pa.chunked_array([], type=pa.string()))

    def leave_out(self, reason: str, rows: pa.Array) -> None:
        """Count rows, given as booleans, that are left out."""
        self.left_out[f"left out, {reason}"] += pc.sum(rows).as_py() or 0

    def texts_of(self, hadm_id: int) -> list[str]:
        return [self.texts[row].as_py() for row in self.rows[hadm_id]]

    def count_repeated_texts(self) -> int:
        """How many rows have the text of an earlier row of their admission."""
        several = {hadm_id: rows for hadm_id, rows in self.rows.items() if len(rows) > 1}
        return sum(len(rows) - len(set(self.texts_of(hadm_id))) for hadm_id, rows in several.items())

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
        self.chunks.append(self.worker.submit(self.prepare, texts))
        ids = zip(hadm_ids.to_pylist(), subject_ids.to_pylist(), strict=True)
        for row, (hadm_id, subject_id) in enumerate(ids, start=self.num_rows):
            if self.notes.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                raise ValueError(
                    f"{self.notes.path}: HADM_ID {hadm_id} has two SUBJECT_IDs. Restore the original table."
                )
            self.notes.rows.setdefault(hadm_id, []).append(row)
        self.num_rows += len(texts)


def stratify_by_subject(
    notes: DischargeSummaries, codes: Mapping[int, Collection[str]], seed: int | None
) -> dict[str, list[int]]:
    """Give each subject a split, and each split the admissions of its subjects in the order of the file.

    After Edin et al. (arXiv 2304.10909): subjects, not admissions, are given to the splits by iterative stratification;
    see [`stratify_groups`].

    Args:
        notes (`DischargeSummaries`): Whose admissions to split.
        codes (`Mapping[int, Collection[str]]`): Codes of each admission; one that is not in it gets no split.
        seed (`int`, *optional*): Makes the splits; 0 if left out.
    """
    admissions: dict[int, list[Collection[str]]] = {}
    for hadm_id, of_admission in codes.items():
        admissions.setdefault(notes.subject_ids[hadm_id], []).append(of_admission)
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
