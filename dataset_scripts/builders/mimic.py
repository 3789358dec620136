"""What the builders of MIMIC-III and MIMIC-IV share: options, notes and codes by admission, splits, records.

What belongs to one release only (names of tables and columns, which rows count, published splits) is in `mimic3.py` or
`mimic4.py`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

import datasets
import pyarrow as pa

from ..codes.classification import ICD9, ICD10, Classification
from ..codes.grouping import GRANULARITIES, CodeChange, check_group
from ..codes.icd9 import Kind
from ..marker import MARKER_FILE
from .admissions import MIN_COUNT, DischargeSummaries, divide_by_lists, stratify_by_subject
from .edin_splits import EDIN_DATA, EdinData, EdinLists, find_edin_lists, is_edin, name_splits
from .note_text import RULES, join_texts, joint_of, prepare_texts, replace_marks
from .records import ICDBuilder, ICDConfig, check_positive, record_features
from .sections import SectionFilter, check_sections, describe_sections
from .sources import absolute_path


TOP_CODES = 50
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
        if self.to_icd10 and self.descriptions_file is not None:
            raise ValueError(
                "`descriptions_file` has titles of ICD-9-CM, and with `to_icd10` the codes are of ICD-10-CM, some of which are spelled "
                "alike (V45.0). Leave it out: the package simple-icd-10-cm has their titles."
            )
        if self.codes is not None:
            for code in self.codes:
                self.check_code(code)
            self.codes = sorted(set(self.codes))

    def check_code(self, code: str) -> None:
        """Raise a `ValueError` where a class of the data set cannot be called so: a code, or a group where codes are grouped."""
        if self.granularity is None:
            self.classification.kind_of(code)
        else:
            check_group(code, self.granularity, self.classification)

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
            kept = " Records are made as for the splits of Edin et al. (arXiv 2304.10909); with `splits=stratified` they are made as for those of our own."
            return f"`min_count` is {min_count}.{kept if self.follows_edin else ''}"
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
            self.section_filter.count_anew()

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

    @property
    def _lists_may_share_subjects(self) -> bool:
        return False

    def _name_lists(self) -> Mapping[str, object]:
        """What to call the list of each split in messages; empty where no list is read."""
        return name_splits(self.edin_lists.files[-1]) if self.edin_lists else {}

    def _divide(
        self,
        notes: DischargeSummaries,
        coded: Mapping[int, Collection[str]],
        kept: Collection[int],
        lists: Mapping[str, list[int]],
    ) -> dict[str, list[int]]:
        """Give each split its admissions that make a record; which split that is depends on no choice of codes.

        Args:
            notes (`DischargeSummaries`): Whose admissions to split.
            coded (`Mapping[int, Collection[str]]`): The codes of each as the tables have them.
            kept (`Collection[int]`): Admissions with a code of the data set.
            lists (`Mapping[str, list[int]]`): Admissions of each split; empty where the splits are our own.
        """
        if self.config.unsplit:
            return {"unsplit": [hadm_id for hadm_id in notes.rows if hadm_id in kept]}
        if lists:
            return divide_by_lists(notes, kept, lists, self._name_lists(), self._lists_may_share_subjects)
        splits = stratify_by_subject(notes, coded, self.config.seed)
        return {name: [hadm_id for hadm_id in hadm_ids if hadm_id in kept] for name, hadm_ids in splits.items()}

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
        self, notes: DischargeSummaries, codes: Mapping[int, set[str]], splits: Mapping[str, list[int]]
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
        self, notes: DischargeSummaries, codes: Mapping[int, set[str]], hadm_ids: Sequence[int]
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
