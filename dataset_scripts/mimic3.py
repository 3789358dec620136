"""MIMIC-III discharge summaries and their ICD-9-CM codes, on the splits of CAML (arXiv 1802.05695) and others.

From raw tables to records: the discharge summaries of NOTEEVENTS are gathered by admission; the codes of
DIAGNOSES_ICD and PROCEDURES_ICD get their dots and are gathered by admission; the configuration says which codes
count, and which admission belongs to which split.

MIMIC-III v1.4 is open to credentialed users of PhysioNet alone, under a data use agreement. This module reads the
user's own copy and writes only into the user's own cache.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .caml_splits import (
    CAML_TOP_50,
    check_subjects,
    download_split_lists,
    find_split_lists,
    find_top_codes,
    has_split_lists,
    read_code_list,
    read_split_list,
)
from .hierarchy import TITLE_TABLES, CodeFamily, family_of, load_titles
from .icd9 import Kind, kind_of
from .records import ICDBuilder, count_unseen_codes, most_frequent, record_features
from .sources import absolute_path, find_tables, read_dotted_codes, read_ids, read_table
from .stratify import stratify_groups


CODE_TABLES: dict[str, Kind] = {"DIAGNOSES_ICD": "diagnosis", "PROCEDURES_ICD": "procedure"}
LIST_SUFFIXES = {"full": "full", "top50": "50", "top50_corrected": "50", "custom": "full"}
OWN_OPTIONS = {"num_codes": "custom", "codes_file": "custom", "min_count": "clean", "seed": "clean"}
TOP_CODES = 50
MIN_COUNT = 10
CLEAN_FRACTIONS = {"train": 0.75, "validation": 0.10, "test": 0.15}
KINDS: tuple[Kind, ...] = get_args(Kind)
# De-identification marks of MIMIC-III, such as [**2101-1-1**]; one may run over the end of a line.
DEID_MARK = r"\[\*\*[^\[\]]*\*\*\]"
# What becomes of each ASCII character in CAML's words: its lower case, or a space if it belongs to none.
CAML_BYTES = re.sub(r"\W", " ", "".join(map(chr, range(128))).lower()).encode().ljust(256)

DESCRIPTION = """\
Discharge summaries of MIMIC-III v1.4 and the ICD-9-CM codes of their admissions, one record an admission."""
CITATION = """\
@article{johnson2016mimic,
  title={{MIMIC-III}, a freely accessible critical care database},
  author={Johnson, Alistair E. W. and Pollard, Tom J. and Shen, Lu and others},
  journal={Scientific Data}, volume={3}, pages={160035}, year={2016}
}
@inproceedings{mullenbach2018explainable,
  title={Explainable Prediction of Medical Codes from Clinical Text},
  author={Mullenbach, James and Wiegreffe, Sarah and Duke, Jon and Sun, Jimeng and Eisenstein, Jacob},
  booktitle={NAACL-HLT}, year={2018}
}"""


@dataclass
class MIMIC3Config(datasets.BuilderConfig):
    """What to make of a folder of MIMIC-III tables.

    Args:
        splits_dir (`str`, *optional*):
            Folder with `{train,dev,test}_{full,50}_hadm_ids.csv`, and `TOP_50_CODES.csv` if there is one. If left out,
            the folder of the tables; if that has none of the lists, they are downloaded from CAML's repository and
            checked.
        text (`str`):
            `"raw"` for the notes as written, `"caml"` for CAML's words: lower-cased runs of letters and digits, those
            without a letter dropped, one space between two. (CAML's own script drops purely numeric words only, so
            that it also keeps a row of underscores.)
        deid_token (`str`, *optional*):
            What to put in the place of each de-identification mark, such as `[**2101-1-1**]`; marks are kept if left
            out.
        code_kinds (`bool`):
            Add the column `code_kinds`: for each of the record's codes, whether it is a diagnosis or a procedure.
        unsplit (`bool`):
            Ignore the split lists and make one split, `unsplit`, of every admission in the folder.
        codes (`list[str]`, *optional*):
            Dotted codes to use in place of the configuration's own set. An admission with none of them is left out.
        num_codes (`int`, *optional*):
            For `custom`: how many of the most frequent codes to use.
        codes_file (`str`, *optional*):
            For `custom`: a file of the codes to use, dotted, one a line.
        min_count (`int`, *optional*):
            For `clean`: in how many admissions a code must occur; 10 if left out.
        seed (`int`, *optional*):
            For `clean`: makes the splits; 0 if left out.
        descriptions_file (`str`, *optional*):
            CAML's `ICD9_descriptions.txt`, for the descriptions of codes that the D_ICD tables lack.
    """

    splits_dir: str | None = None
    text: str = "raw"
    deid_token: str | None = None
    code_kinds: bool = False
    unsplit: bool = False
    codes: list[str] | None = None
    num_codes: int | None = None
    codes_file: str | None = None
    min_count: int | None = None
    seed: int | None = None
    descriptions_file: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.text not in ("raw", "caml"):
            raise ValueError(f"`text` ({self.text!r}) must be 'raw' or 'caml'.")
        for option, owner in OWN_OPTIONS.items():
            if getattr(self, option) is not None and self.name != owner:
                raise ValueError(f"`{option}` is an option of configuration {owner!r}, not of {self.name!r}.")
        for option in ("num_codes", "min_count"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"`{option}` ({value}) must be at least 1.")
        for option in ("splits_dir", "codes_file", "descriptions_file"):
            if getattr(self, option) is not None:
                setattr(self, option, absolute_path(getattr(self, option)))
        if self.codes is not None:
            for code in self.codes:
                kind_of(code)
            self.codes = sorted(set(self.codes))


def describe_config(config: MIMIC3Config) -> str:
    """Say in words what a configuration and its options make, so that two data sets are never taken for each other."""
    parts = [str(config.description)]
    if config.codes is not None:
        parts.append(f"In place of its codes: {len(config.codes)} codes given by the caller.")
    if config.codes_file is not None:
        parts.append(f"The codes are those in {Path(config.codes_file).name}.")
    if config.num_codes is not None:
        parts.append(f"`num_codes` is {config.num_codes}.")
    if config.name == "clean":
        parts.append(f"`min_count` is {config.min_count or MIN_COUNT}, `seed` {config.seed or 0}.")
    if config.unsplit:
        parts.append("In place of its splits: one split of every admission.")
    if config.text == "caml":
        parts.append("The text is cut into CAML's words.")
    if config.deid_token is not None:
        parts.append(f"De-identification marks are replaced by {config.deid_token!r}.")
    return " ".join(parts)


class MIMIC3(ICDBuilder):
    """Build data sets of discharge summaries and codes from MIMIC-III's tables, real or synthetic.

    | configuration | codes | splits |
    |---|---|---|
    | `full` | every code | CAML's `full` lists: 47,723 / 1,631 / 3,372 admissions |
    | `top50` | CAML's 50 codes | CAML's `50` lists: 8,066 / 1,573 / 1,729 admissions |
    | `top50_corrected` | the 50 codes of most admissions | as `top50` |
    | `custom` | the `num_codes` codes of most admissions, or those in `codes_file` | as `full` |
    | `clean` | codes of at least `min_count` admissions | our own, stratified, 75 / 10 / 15 % of the admissions |

    In every configuration an admission without a note, without a code, or with none of the configuration's codes makes
    no record, even if it is listed. No subject is in two splits; lists that divide one are refused.

    **Notes.** A record's text is every row of category "Discharge summary" of the admission, reports and addenda
    alike, in the order of the file, with an empty line between two (CAML's get_discharge_summaries.py and
    concat_and_split.py; a space there, where line breaks are gone as well). A row that repeats another one's text is
    kept, as there. Rows flagged ISERROR are left out, since a physician has marked them as errors (MIMIC-III's
    documentation of NOTEEVENTS), and so are rows without HADM_ID, which belong to no admission.

    **Codes.** Those of both code tables, each once per admission, dotted by kind and never read as numbers. MIMIC-III
    has 8,929 of them in CAML's splits, 8,692 in train (published counts: xuzhang0112/GKI-ICD). Papers say 8,921 or
    8,922, since CAML's script lets pandas guess the type of the column: where it takes it for numbers, 600.0 and
    600.00 become one code, and so do 038.42 and 38.42.

    **The 50 codes.** `top50` uses `TOP_50_CODES*.csv` of the folder of split lists, and without such a file CAML's 50
    codes. It never counts. Two of CAML's, 33.24 and 45.13, are not among the 50 most frequent, and 93.90 and V45.82
    are. `top50_corrected` and `custom` count the admissions of each code, over all admissions with a discharge
    summary, whatever their split; of two equally frequent codes the one that sorts first wins.

    **Clean.** After Edin et al. (arXiv 2304.10909; prepare_data in JoakimEdin/medical-coding-reproducibility): codes
    of fewer than 10 admissions are dropped, which leaves 3,681 of MIMIC-III, and subjects, not admissions, are given
    to the splits by iterative stratification; see [`stratify_groups`]. Their list of admissions is not used: scores
    on these splits are comparable among themselves and not with theirs.

    See [`ICDBuilder`] for the arguments and [`MIMIC3Config`] for the options.
    """

    BUILDER_CONFIG_CLASS = MIMIC3Config
    BUILDER_CONFIGS = [
        MIMIC3Config(name=name, version=ICDBuilder.VERSION, description=description)
        for name, description in {
            "full": "Every code of the admissions; CAML's splits.",
            "top50": "CAML's 50 codes, two of which are not among the 50 most frequent; CAML's top-50 splits.",
            "top50_corrected": "The 50 codes of most admissions, counted in the tables; CAML's top-50 splits.",
            "clean": "Codes of at least `min_count` admissions; stratified splits of our own.",
            "custom": "The `num_codes` codes of most admissions, or those in `codes_file`; CAML's full splits.",
        }.items()
    ]
    DEFAULT_CONFIG_NAME = "full"

    def _find_sources(self, config: MIMIC3Config) -> list[Path]:
        choices = [config.num_codes, config.codes_file, config.codes]
        if config.name == "custom" and len(choices) - choices.count(None) != 1:
            raise ValueError("Configuration 'custom' needs one of `num_codes`, `codes_file` and `codes`.")
        self.tables = find_tables(str(config.data_dir), ["NOTEEVENTS", *CODE_TABLES, *TITLE_TABLES])
        sources = list(self.tables.values())
        self.split_lists = {}
        if config.name in LIST_SUFFIXES and not config.unsplit:
            self.split_lists = self._find_split_lists(config)
            sources += self.split_lists.values()
        for option in ("codes_file", "descriptions_file"):
            path = getattr(config, option)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"`{option}` ({path}) is not a file.")
        self.codes_file = Path(config.codes_file) if config.codes_file else None
        if config.name == "top50" and config.codes is None:
            self.codes_file = find_top_codes(config.splits_dir or str(config.data_dir))
        files = [self.codes_file, Path(config.descriptions_file) if config.descriptions_file else None]
        return sources + [file for file in files if file is not None]

    def _find_split_lists(self, config: MIMIC3Config) -> dict[str, Path]:
        suffix = LIST_SUFFIXES[config.name]
        if config.splits_dir is None and not has_split_lists(str(config.data_dir), suffix):
            return download_split_lists(suffix, self.downloads_dir / "caml_mimic3_splits")
        return find_split_lists(config.splits_dir or str(config.data_dir), suffix)

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """Titles by dotted code, category, block and chapter: the long titles of the D_ICD tables, then those of
        `descriptions_file`. MIMIC-III uses some codes that the tables lack.
        """
        return load_titles(self.config.data_dir, self.config.descriptions_file)

    @cached_property
    def code_families(self) -> dict[str, CodeFamily]:
        """Chapter, block and category of each code of the data set, once it is built."""
        return {code: family_of(code) for code in self.info.features["codes"].feature.names}

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=f"{DESCRIPTION}\n\nConfiguration {self.config.name}: {describe_config(self.config)}",
            citation=CITATION,
            homepage="https://physionet.org/content/mimiciii/1.4/",
            license="PhysioNet Credentialed Health Data License 1.5.0",
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read and checked here, before the first record is written.
        notes = read_discharge_summaries(self.tables["NOTEEVENTS"], self._prepare_texts)
        rows_without_code = 0
        code_sets: dict[int, set[str]] = {hadm_id: set() for hadm_id in notes.rows}
        for table, kind in CODE_TABLES.items():
            hadm_ids, table_codes, empty = read_codes(self.tables[table], kind, notes.rows)
            rows_without_code += empty
            for hadm_id, code in zip(hadm_ids, table_codes, strict=True):
                code_sets[hadm_id].add(code)
        coded = {hadm_id: codes for hadm_id, codes in code_sets.items() if codes}

        counts = Counter(code for codes in coded.values() for code in codes)
        chosen = self._choose_codes(counts)
        kept = {hadm_id: codes & chosen for hadm_id, codes in coded.items() if codes & chosen}
        splits, listed = self._choose_admissions(notes, kept)
        names = chosen
        if self.config.name == "full" and self.config.codes is None:  # no code of unlisted admissions alone
            names = {code for hadm_ids in splits.values() for hadm_id in hadm_ids for code in kept[hadm_id]}

        self.info.features = record_features(sorted(names))
        if self.config.code_kinds:
            self.info.features["code_kinds"] = datasets.List(datasets.ClassLabel(names=list(KINDS)))
        self._report(
            {
                "left out, discharge summary rows flagged as errors": notes.in_error,
                "left out, discharge summary rows without an admission id": notes.without_admission,
                "left out, code rows without a code": rows_without_code,
                "left out, admissions without codes": len(code_sets) - len(coded),
                "left out, codes outside of the code set": len(counts.keys() - names),
                "left out, admissions with none of the chosen codes": len((listed & coded.keys()) - kept.keys()),
                "listed admissions without a discharge summary": len(listed - notes.rows.keys()),
                "left out, admissions in no split list": len(coded.keys() - listed),
                "codes that no admission has": len(names - counts.keys()),
                "codes without a description": len(names - self.code_descriptions.keys()),
                "codes of other splits missing from train": count_unseen_codes(
                    {name: [kept[hadm_id] for hadm_id in hadm_ids] for name, hadm_ids in splits.items()}
                ),
            }
        )
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"notes": notes, "codes": kept, "hadm_ids": tuple(hadm_ids)})
            for name, hadm_ids in splits.items()
        ]

    def _generate_examples(
        self, notes: "DischargeSummaries", codes: dict[int, set[str]], hadm_ids: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        names = self.info.features["codes"].feature.names
        code2id = {code: i for i, code in enumerate(names)}
        kinds = [KINDS.index(kind_of(code)) for code in names]
        for hadm_id in hadm_ids:
            texts = notes.texts_of(hadm_id)
            ids = sorted(code2id[code] for code in codes[hadm_id])
            record = {
                "subject_id": notes.subject_ids[hadm_id],
                "hadm_id": hadm_id,
                "text": " ".join(filter(None, texts)) if self.config.text == "caml" else "\n\n".join(texts),
                "codes": ids,
            }
            if self.config.code_kinds:
                record["code_kinds"] = [kinds[code_id] for code_id in ids]
            yield hadm_id, record

    def _prepare_texts(self, texts: pa.StringArray) -> pa.StringArray:
        """Make of rows of NOTEEVENTS what the options ask for."""
        if self.config.deid_token is not None:
            texts = replace_deid_marks(texts, self.config.deid_token)
        return caml_texts(texts) if self.config.text == "caml" else texts

    def _choose_codes(self, counts: Mapping[str, int]) -> set[str]:
        """Choose the codes of the configuration, given in how many admissions each occurs."""
        if self.config.codes is not None:
            return set(self.config.codes)
        if self.codes_file is not None:
            return read_code_list(self.codes_file)
        if self.config.name == "top50":
            return set(CAML_TOP_50)
        if self.config.name == "top50_corrected":
            return choose_most_frequent(counts, TOP_CODES)
        if self.config.name == "custom":
            return choose_most_frequent(counts, self.config.num_codes)
        if self.config.name == "clean":
            min_count = self.config.min_count or MIN_COUNT
            return {code for code, count in counts.items() if count >= min_count}
        return set(counts)

    def _choose_admissions(
        self, notes: "DischargeSummaries", kept: dict[int, set[str]]
    ) -> tuple[dict[str, list[int]], set[int]]:
        """Give each split its admissions that make a record, and all admissions that were to be given a split."""
        splits: dict[str, list[int]]
        listed = set(notes.rows)
        if self.config.unsplit:
            splits = {"unsplit": [hadm_id for hadm_id in notes.rows if hadm_id in kept]}
        elif self.config.name == "clean":
            splits = self._stratify(notes, kept)
        else:
            lists = {name: read_split_list(path) for name, path in self.split_lists.items()}
            listed = {hadm_id for hadm_ids in lists.values() for hadm_id in hadm_ids}
            subjects = {}
            for name, hadm_ids in lists.items():
                subjects[name] = {notes.subject_ids[hadm_id] for hadm_id in hadm_ids if hadm_id in notes.rows}
                if not subjects[name]:
                    raise ValueError(
                        f"{self.split_lists[name]}: none of its {len(hadm_ids):,} admissions has a discharge summary "
                        f"in {self.tables['NOTEEVENTS']}. Give `splits_dir` the lists that belong to this folder."
                    )
            check_subjects(subjects, self.split_lists)
            splits = {name: [hadm_id for hadm_id in hadm_ids if hadm_id in kept] for name, hadm_ids in lists.items()}
        for name, hadm_ids in splits.items():
            if not hadm_ids:
                raise ValueError(
                    f"Split {name!r} of configuration {self.config.name!r} would be empty: none of its admissions in "
                    f"{self.config.data_dir} has a chosen code."
                )
        return splits, listed

    def _stratify(self, notes: "DischargeSummaries", kept: dict[int, set[str]]) -> dict[str, list[int]]:
        """Give each subject a split, and each split the admissions of its subjects in the order of the file."""
        admissions: dict[int, list[set[str]]] = {}
        for hadm_id, codes in kept.items():
            admissions.setdefault(notes.subject_ids[hadm_id], []).append(codes)
        split_of = stratify_groups(admissions, CLEAN_FRACTIONS, self.config.seed or 0)
        splits: dict[str, list[int]] = {name: [] for name in CLEAN_FRACTIONS}
        for hadm_id in notes.rows:
            if hadm_id in kept:
                splits[split_of[notes.subject_ids[hadm_id]]].append(hadm_id)
        return splits


@dataclass
class DischargeSummaries:
    """The discharge summary rows of a NOTEEVENTS table, by admission, in the order of the file; shown without text."""

    texts: pa.ChunkedArray = field(repr=False)
    rows: dict[int, list[int]] = field(default_factory=dict)  # hadm_id -> indices into texts
    subject_ids: dict[int, int] = field(default_factory=dict)
    in_error: int = 0
    without_admission: int = 0

    def texts_of(self, hadm_id: int) -> list[str]:
        return [self.texts[row].as_py() for row in self.rows[hadm_id]]


def read_discharge_summaries(path: Path, prepare: Callable[[pa.StringArray], pa.StringArray]) -> DischargeSummaries:
    """Stream NOTEEVENTS, keeping the rows of category "Discharge summary" alone (about 0.6 GB of MIMIC-III's 4 GB).

    Args:
        path (`Path`): The table.
        prepare (`Callable`): Makes some rows' texts ready, in a second thread while the table is unpacked and read.
    """
    chunks: list[Future[pa.StringArray]] = []
    notes = DischargeSummaries(texts=pa.chunked_array([], type=pa.string()))
    count = 0
    with ThreadPoolExecutor(max_workers=1) as worker:
        for first, batch in read_table(path, ["SUBJECT_ID", "HADM_ID", "CATEGORY", "ISERROR", "TEXT"]):
            admissions = read_ids(batch, "HADM_ID", path, first, optional=True)
            subjects = read_ids(batch, "SUBJECT_ID", path, first)
            is_summary = pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(batch["CATEGORY"])), "discharge summary")
            is_error = pc.invert(pc.is_in(pc.utf8_trim_whitespace(batch["ISERROR"]), pa.array(["", "0"])))
            has_admission = pc.is_valid(admissions)
            notes.in_error += pc.sum(pc.and_(is_summary, is_error)).as_py() or 0
            correct = pc.and_not(is_summary, is_error)
            notes.without_admission += pc.sum(pc.and_not(correct, has_admission)).as_py() or 0
            keep = pc.and_(correct, has_admission)
            if not pc.any(keep).as_py():
                continue
            chunks.append(worker.submit(prepare, batch["TEXT"].filter(keep)))
            ids = zip(admissions.filter(keep).to_pylist(), subjects.filter(keep).to_pylist(), strict=True)
            for hadm_id, subject_id in ids:
                if notes.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                    raise ValueError(f"{path}: HADM_ID {hadm_id} has two SUBJECT_IDs. Restore the original table.")
                notes.rows.setdefault(hadm_id, []).append(count)
                count += 1
    if not notes.rows:
        raise ValueError(
            f"{path} holds no discharge summary with an admission id (CATEGORY 'Discharge summary'); the open "
            "MIMIC-III demo comes without notes. Use the table of MIMIC-III v1.4 or a synthetic corpus."
        )
    notes.texts = pa.chunked_array([chunk.result() for chunk in chunks])
    return notes


def read_codes(path: Path, kind: Kind, hadm_ids: Iterable[int]) -> tuple[list[int], list[str], int]:
    """Read the code rows of some admissions: their admission ids, their dotted codes, and how many have no code."""
    wanted = pa.array(list(hadm_ids), type=pa.int64())
    found: list[int] = []
    codes: list[str] = []
    empty = 0
    for first, batch in read_table(path, ["HADM_ID", "ICD9_CODE"]):
        admissions = read_ids(batch, "HADM_ID", path, first)
        dotted = read_dotted_codes(batch, "ICD9_CODE", kind, path, first)
        of_ours = pc.is_in(admissions, wanted)
        empty += pc.sum(pc.and_(of_ours, pc.is_null(dotted))).as_py() or 0
        keep = pc.and_(of_ours, pc.is_valid(dotted))
        found += admissions.filter(keep).to_pylist()
        codes += dotted.filter(keep).to_pylist()
    return found, codes, empty


def choose_most_frequent(counts: Mapping[str, int], num_codes: int) -> set[str]:
    """Choose the codes of most admissions; of two equally frequent ones the one that sorts first."""
    if len(counts) < num_codes:
        raise ValueError(
            f"The admissions with a discharge summary have {len(counts)} codes, fewer than the {num_codes} asked for: "
            "use configuration 'full', or 'custom' with a smaller `num_codes`."
        )
    return set(most_frequent(counts, num_codes))


def replace_deid_marks(texts: pa.StringArray, token: str) -> pa.StringArray:
    """Put a token in the place of each de-identification mark."""
    return pc.replace_substring_regex(texts, DEID_MARK, token.replace("\\", r"\\"))


def caml_text(text: str) -> str:
    """Cut a note into CAML's words: lower-cased runs of letters, digits and underscores that hold a letter."""
    words = re.findall(r"\w+", text.lower())
    return " ".join(word for word in words if any(map(str.isalpha, word)))


def caml_texts(texts: pa.StringArray) -> pa.StringArray:
    """Apply [`caml_text`] to many notes, the faster and without the interpreter's lock if all are ASCII."""
    validity, offsets, data = texts.buffers()
    characters = data.to_pybytes() if data is not None else b""
    if not characters.isascii():
        return pa.array([caml_text(text.as_py()) for text in texts], type=pa.string())
    buffers = [validity, offsets, pa.py_buffer(characters.translate(CAML_BYTES))]
    words = pc.ascii_split_whitespace(pa.Array.from_buffers(pa.string(), len(texts), buffers, offset=texts.offset))
    kept = pc.ascii_is_lower(words.values)  # all letters are lower case, and there is one
    kept_before = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])
    offsets = pa.array(kept_before[words.offsets.to_numpy()], type=pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words.values.filter(kept)), " ")
