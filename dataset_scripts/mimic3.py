"""MIMIC-III discharge summaries and their ICD-9-CM codes, on the splits of CAML (arXiv 1802.05695).

From raw tables to records: the discharge summaries of NOTEEVENTS are gathered by admission; the codes of
DIAGNOSES_ICD and PROCEDURES_ICD get their dots and are gathered by admission; the lists of admission ids say which
admission belongs to which split.

MIMIC-III v1.4 is open to credentialed users of PhysioNet alone, under a data use agreement. This module reads the
user's own copy and writes only into the user's own cache.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from .icd9 import Kind, add_dot, kind_of
from .records import ICDBuilder, count_unseen_codes, record_features
from .sources import absolute_path, find_tables, list_folder, read_ids, read_list, read_table


CODE_TABLES: dict[str, Kind] = {"DIAGNOSES_ICD": "diagnosis", "PROCEDURES_ICD": "procedure"}
TITLE_TABLES: dict[str, Kind] = {"D_ICD_DIAGNOSES": "diagnosis", "D_ICD_PROCEDURES": "procedure"}
SPLIT_LISTS = {"train": "train", "validation": "dev", "test": "test"}  # our name, CAML's name
LIST_SUFFIXES = {"full": "full", "top50": "50"}
SPLITS_SOURCE = (
    "CAML's lists are in github.com/jamesmullenbach/caml-mimic, folder mimicdata/mimic3 (MIT); "
    "a folder without them is read as a whole with `unsplit=True`"
)
TOP_CODES = 50

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
            Folder with `{train,dev,test}_{full,50}_hadm_ids.csv`, and `TOP_50_CODES.csv` if there is one; the folder of
            the tables if left out.
        text (`str`):
            `"raw"` for the notes as written, `"caml"` for CAML's words: lower-cased runs of letters and digits, those
            without a letter dropped, one space between two. (CAML's own script drops purely numeric words only, so
            that it also keeps a row of underscores.)
        unsplit (`bool`):
            Ignore the split lists and make one split, `unsplit`, of every admission in the folder.
        codes (`list[str]`, *optional*):
            Dotted codes to use in place of the configuration's own set. An admission with none of them is left out.
    """

    splits_dir: str | None = None
    text: str = "raw"
    unsplit: bool = False
    codes: list[str] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.text not in ("raw", "caml"):
            raise ValueError(f"`text` ({self.text!r}) must be 'raw' or 'caml'.")
        if self.splits_dir is not None:
            self.splits_dir = absolute_path(self.splits_dir)
        if self.codes is not None:
            for code in self.codes:
                kind_of(code)
            self.codes = sorted(set(self.codes))


class MIMIC3(ICDBuilder):
    """Build the data sets `full` (every code) and `top50` from MIMIC-III's tables, real or synthetic.

    A record's text is every discharge summary row of the admission, reports and addenda alike, in the order of the
    file, as in CAML. Rows flagged ISERROR are left out. An admission without a note or without a code makes no record.

    `top50` uses the codes in `TOP_50_CODES*.csv` of the folder of split lists. Without such a file it takes the 50
    codes with the most rows in the two code tables, over all admissions with a discharge summary, of every split, a
    code given twice to an admission counted twice, as CAML does; of two equally frequent codes the one that sorts
    first wins. An admission with none of the 50 codes makes no record.

    See [`ICDBuilder`] for the arguments and [`MIMIC3Config`] for the options.
    """

    BUILDER_CONFIG_CLASS = MIMIC3Config
    BUILDER_CONFIGS = [
        MIMIC3Config(name="full", version=ICDBuilder.VERSION, description="Every code of the admissions."),
        MIMIC3Config(name="top50", version=ICDBuilder.VERSION, description="CAML's 50 frequent codes."),
    ]
    DEFAULT_CONFIG_NAME = "full"

    def _find_sources(self, config: MIMIC3Config) -> list[Path]:
        self.tables = find_tables(str(config.data_dir), ["NOTEEVENTS", *CODE_TABLES, *TITLE_TABLES])
        splits_dir = config.splits_dir or str(config.data_dir)
        self.split_lists = {} if config.unsplit else find_split_lists(splits_dir, LIST_SUFFIXES[config.name])
        self.top_codes_file = None
        if config.name == "top50" and config.codes is None:
            self.top_codes_file = find_top_codes(splits_dir)
        sources = [*self.tables.values(), *self.split_lists.values()]
        return sources if self.top_codes_file is None else [*sources, self.top_codes_file]

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """Long titles of the D_ICD tables by dotted code; MIMIC-III uses some codes that they lack."""
        return {
            code: title
            for table, kind in TITLE_TABLES.items()
            for code, title in read_titles(self.tables[table], kind)
        }

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=DESCRIPTION,
            citation=CITATION,
            homepage="https://physionet.org/content/mimiciii/1.4/",
            license="PhysioNet Credentialed Health Data License 1.5.0",
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read and checked here, before the first record is written.
        notes = read_discharge_summaries(self.tables["NOTEEVENTS"])
        rows_without_code = 0
        code_rows: dict[int, list[str]] = {hadm_id: [] for hadm_id in notes.rows}
        for table, kind in CODE_TABLES.items():
            hadm_ids, table_codes, empty = read_codes(self.tables[table], kind, notes.rows)
            rows_without_code += empty
            for hadm_id, code in zip(hadm_ids, table_codes, strict=True):
                code_rows[hadm_id].append(code)
        coded = {hadm_id: set(codes) for hadm_id, codes in code_rows.items() if codes}

        code_set = self._choose_codes(code_rows.values())
        kept = coded
        if code_set is not None:
            kept = {hadm_id: codes & code_set for hadm_id, codes in coded.items() if codes & code_set}
        splits, listed = self._choose_admissions(notes, kept)
        used = {code for hadm_ids in splits.values() for hadm_id in hadm_ids for code in kept[hadm_id]}
        names = sorted(used if code_set is None else code_set)

        self.info.features = record_features(names)
        self._report(
            {
                "left out, discharge summary rows flagged as errors": notes.in_error,
                "left out, discharge summary rows without an admission id": notes.without_admission,
                "left out, code rows without a code": rows_without_code,
                "left out, admissions without codes": len(code_rows) - len(coded),
                "left out, admissions with none of the chosen codes": len((listed & coded.keys()) - kept.keys()),
                "listed admissions without a discharge summary": len(listed - notes.rows.keys()),
                "left out, admissions in no split list": len(coded.keys() - listed),
                "codes without a description": len(set(names) - self.code_descriptions.keys()),
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
        code2id = {code: i for i, code in enumerate(self.info.features["codes"].feature.names)}
        for hadm_id in hadm_ids:
            text = notes.text(hadm_id)
            yield (
                hadm_id,
                {
                    "subject_id": notes.subject_ids[hadm_id],
                    "hadm_id": hadm_id,
                    "text": caml_text(text) if self.config.text == "caml" else text,
                    "codes": sorted(code2id[code] for code in codes[hadm_id]),
                },
            )

    def _choose_codes(self, code_rows: Iterable[Sequence[str]]) -> set[str] | None:
        """Give the codes to keep, or None for every code."""
        if self.config.codes is not None:
            return set(self.config.codes)
        if self.config.name == "full":
            return None
        if self.top_codes_file is not None:
            return read_top_codes(self.top_codes_file)
        counts = Counter(code for codes in code_rows for code in codes)
        return set(sorted(counts, key=lambda code: (-counts[code], code))[:TOP_CODES])

    def _choose_admissions(
        self, notes: "DischargeSummaries", kept: dict[int, set[str]]
    ) -> tuple[dict[str, list[int]], set[int]]:
        """Give each split its admissions that make a record, in the order of its list, and all admissions listed."""
        splits: dict[str, list[int]] = {}
        if self.config.unsplit:
            listed = set(notes.rows)
            splits["unsplit"] = [hadm_id for hadm_id in notes.rows if hadm_id in kept]
        else:
            lists = {name: read_split_list(path) for name, path in self.split_lists.items()}
            listed = {hadm_id for hadm_ids in lists.values() for hadm_id in hadm_ids}
            subjects = {}
            for name, hadm_ids in lists.items():
                subjects[name] = {notes.subject_ids[hadm_id] for hadm_id in hadm_ids if hadm_id in notes.rows}
                if not subjects[name]:
                    raise ValueError(
                        f"{self.split_lists[name]}: none of its {len(hadm_ids):,} admissions has a discharge summary in "
                        f"{self.tables['NOTEEVENTS']}. Give `splits_dir` the lists that belong to this folder."
                    )
                splits[name] = [hadm_id for hadm_id in hadm_ids if hadm_id in kept]
            check_subjects(subjects, self.split_lists)
        for name, hadm_ids in splits.items():
            if not hadm_ids:
                raise ValueError(
                    f"Split {name!r} of configuration {self.config.name!r} would be empty: none of its admissions in "
                    f"{self.config.data_dir} has a chosen code."
                )
        return splits, listed


@dataclass
class DischargeSummaries:
    """The discharge summary rows of a NOTEEVENTS table, by admission, in the order of the file; shown without text."""

    texts: pa.ChunkedArray = field(repr=False)
    rows: dict[int, list[int]] = field(default_factory=dict)  # hadm_id -> indices into texts
    subject_ids: dict[int, int] = field(default_factory=dict)
    in_error: int = 0
    without_admission: int = 0

    def text(self, hadm_id: int) -> str:
        return "\n\n".join(self.texts[row].as_py() for row in self.rows[hadm_id])


def read_discharge_summaries(path: Path) -> DischargeSummaries:
    """Stream NOTEEVENTS, keeping the rows of category "Discharge summary" alone (about 0.6 GB of MIMIC-III's 4 GB)."""
    chunks: list[pa.Array] = []
    notes = DischargeSummaries(texts=pa.chunked_array([], type=pa.string()))
    count = 0
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
        chunks.append(batch["TEXT"].filter(keep))
        ids = zip(admissions.filter(keep).to_pylist(), subjects.filter(keep).to_pylist(), strict=True)
        for hadm_id, subject_id in ids:
            if notes.subject_ids.setdefault(hadm_id, subject_id) != subject_id:
                raise ValueError(f"{path}: HADM_ID {hadm_id} has two SUBJECT_IDs. Restore the original table.")
            notes.rows.setdefault(hadm_id, []).append(count)
            count += 1
    if not notes.rows:
        raise ValueError(
            f"{path} holds no discharge summary with an admission id (CATEGORY 'Discharge summary'); the open MIMIC-III "
            "demo comes without notes. Use the table of MIMIC-III v1.4 or a synthetic corpus."
        )
    notes.texts = pa.chunked_array(chunks)
    return notes


def read_codes(path: Path, kind: Kind, hadm_ids: Iterable[int]) -> tuple[list[int], list[str], int]:
    """Read the code rows of some admissions: their admission ids, their dotted codes, and how many have no code."""
    wanted = pa.array(list(hadm_ids), type=pa.int64())
    found: list[int] = []
    codes: list[str] = []
    empty = 0
    for first, batch in read_table(path, ["HADM_ID", "ICD9_CODE"]):
        admissions = read_ids(batch, "HADM_ID", path, first)
        dotted = _add_dots(batch["ICD9_CODE"], kind, path, first)
        of_ours = pc.is_in(admissions, wanted)
        empty += pc.sum(pc.and_(of_ours, pc.is_null(dotted))).as_py() or 0
        keep = pc.and_(of_ours, pc.is_valid(dotted))
        found += admissions.filter(keep).to_pylist()
        codes += dotted.filter(keep).to_pylist()
    return found, codes, empty


def read_titles(path: Path, kind: Kind) -> Iterator[tuple[str, str]]:
    """Read the dotted codes and long titles of a D_ICD table."""
    for first, batch in read_table(path, ["ICD9_CODE", "LONG_TITLE"]):
        codes = _add_dots(batch["ICD9_CODE"], kind, path, first).to_pylist()
        yield from ((code, title) for code, title in zip(codes, batch["LONG_TITLE"].to_pylist(), strict=True) if code)


def _add_dots(values: pa.Array, kind: Kind, path: Path, first: int) -> pa.Array:
    """Put the dots into a column of codes; an empty code becomes null."""
    encoded = pc.utf8_trim_whitespace(values).dictionary_encode()
    dotted: list[str | None] = []
    for i, code in enumerate(encoded.dictionary.to_pylist()):
        try:
            dotted.append(add_dot(code, kind) if code else None)
        except ValueError as error:
            row = first + pc.index(encoded.indices, i).as_py()
            raise ValueError(f"{path}: ICD9_CODE of record {row}: {error}") from None
    return pc.take(pa.array(dotted, type=pa.string()), encoded.indices)


def find_split_lists(splits_dir: str, suffix: str) -> dict[str, Path]:
    """Find the three lists of admission ids, `{train,dev,test}_{suffix}_hadm_ids.csv`."""
    names = {split: f"{caml}_{suffix}_hadm_ids.csv" for split, caml in SPLIT_LISTS.items()}
    files = {file.name: file for file in list_folder(splits_dir, "splits_dir", f"{', '.join(names.values())}")}
    missing = [name for name in names.values() if name not in files]
    if missing:
        raise FileNotFoundError(f"No {', '.join(missing)} in `splits_dir` ({splits_dir}): {SPLITS_SOURCE}.")
    return {split: files[name] for split, name in names.items()}


def find_top_codes(splits_dir: str) -> Path | None:
    """Find the list of the top-50 task's codes, which CAML's script calls TOP_50_CODES.csv."""
    pattern = re.compile(r"TOP_50_CODES(\.\w+)?\.csv")
    files = [file for file in list_folder(splits_dir, "splits_dir", "split lists") if pattern.fullmatch(file.name)]
    if len(files) > 1:
        raise ValueError(f"{splits_dir} holds {' and '.join(file.name for file in files)}: keep one of them.")
    return files[0] if files else None


def read_split_list(path: Path) -> list[int]:
    """Read one list of admission ids."""
    values = read_list(path)
    wrong = [i for i, value in enumerate(values) if not re.fullmatch(r"[0-9]{1,18}", value)]
    if wrong:
        raise ValueError(
            f"{path}: value {wrong[0] + 1} is not an admission id: expected one HADM_ID a line, no header."
        )
    return [int(value) for value in values]


def read_top_codes(path: Path) -> set[str]:
    """Read one list of dotted codes."""
    codes = read_list(path)
    for code in codes:
        try:
            kind_of(code)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return set(codes)


def check_subjects(subjects: dict[str, set[int]], paths: dict[str, Path]) -> None:
    """Refuse splits that share a subject: a model would be tested on a patient it has seen."""
    names = list(subjects)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = subjects[first] & subjects[second]
            if shared:
                raise ValueError(
                    f"{len(shared):,} subjects have admissions in both {paths[first]} and {paths[second]}, e.g. "
                    f"SUBJECT_ID {min(shared)}. Move each subject's admissions to one list."
                )


def caml_text(text: str) -> str:
    """Cut a note into CAML's words: lower-cased runs of letters, digits and underscores that hold a letter."""
    words = re.findall(r"\w+", text.lower())
    return " ".join(word for word in words if word.isalpha() or any(map(str.isalpha, word)))
