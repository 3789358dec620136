"""Builds CodiEsp (CLEF eHealth 2020): clinical cases in Spanish or machine-translated English, with ICD-10 codes.

The corpus is a folder with `train` and `dev`. Each holds the cases as text files and three tables without a header:
the diagnoses of a case (ICD-10-CM), its procedures (ICD-10-PCS), and for each code the places in the Spanish text that
justify it.
"""

import codecs
import gzip
import hashlib
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..codes import icd10, icd10_hierarchy
from ..codes.classification import ICD10, Classification
from ..codes.icd9 import Kind
from ..counts import counted
from ..facts import FACTS
from .records import ICDBuilder, ICDConfig, most_frequent, record_features
from .sources import list_folder
from .stratify import check_enough, hold_out


logger = logging.getLogger(__name__)

TOP_CODES = 50
VALIDATION_SIZE = 0.15  # of the cases in the folder `train`
SEED = 2020
NAMES: dict[Kind, str] = {"diagnosis": "diagnoses", "procedure": "procedures"}  # in the names of configurations
TABLES: dict[Kind, str] = {"diagnosis": "D", "procedure": "P"}  # trainD.tsv
LABELS: dict[Kind, str] = {"diagnosis": "DIAGNOSTICO", "procedure": "PROCEDIMIENTO"}  # in trainX.tsv
TEXT_FOLDERS = {"en": "text_files_en", "es": "text_files"}
LANGUAGES = {
    "en": "text machine-translated into English, without evidence, whose offsets are of the Spanish text",
    "es": "text in Spanish, with evidence",
}
BACKGROUND = "background_en.jsonl.gz"
EXAMPLES: dict[Kind, str] = {"diagnosis": "r50.9", "procedure": "bw03zzz or bw20"}
SOURCE = "the folder of CodiEsp (zenodo.org/records/3837305)"


@dataclass
class CodiEspConfig(ICDConfig):
    """Which codes a record keeps, and which cases go where. Kind, language and code set are in the `name`.

    Args:
        min_count (`int`):
            Keep the codes that at least so many cases of the folder `train` have. 0 keeps every code, those that only
            a case of `dev` has included.
        unsplit (`bool`):
            Make one split, `unsplit`, of every case with codes, those of `train` and those of `dev`.
    """

    min_count: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.min_count < 0:
            raise ValueError(f"`min_count` ({self.min_count}) must be 0 or more.")

    @property
    def kinds(self) -> list[Kind]:
        return [kind for kind, name in NAMES.items() if self.name.startswith((name, "both"))]

    @property
    def language(self) -> str:
        return self.name.split("_")[1]

    @property
    def is_top50(self) -> bool:
        return self.name.endswith("_top50")

    def describe(self) -> str:
        """Say in words what the configuration and its options make."""
        parts = [
            f"The {f'{TOP_CODES} most frequent ' if self.is_top50 else ''}{' and '.join(NAMES[kind] for kind in self.kinds)}; {LANGUAGES[self.language]}. "
            "The task of Miranda-Escalada et al. (CLEF eHealth 2020); test is its dev, validation a part of its train."
        ]
        if self.min_count:
            parts.append(f"`min_count` is {self.min_count}.")
        if self.unsplit:
            parts.append("In place of the splits: one split of every case with codes.")
        return " ".join(parts)


class CodiEsp(ICDBuilder):
    """Build the data set from the corpus's folder; `data_dir` is the folder that holds `train` and `dev`.

    A configuration's name is its kind of codes, its language and, if not all codes are kept, its code set:
    `diagnoses_en`, `diagnoses_en_top50`, `procedures_es`, `both_en_top50`. The default, `diagnoses_en_top50`, is the
    task that this project reports on. A `top50` set is the 50 codes that most cases of the folder `train` have; of two
    codes that equally many have, the one that sorts first wins.

    `test` is the cases of `dev`, since those of the challenge's own test set come without codes. `validation` is 15%
    of the cases of `train`, `train` the rest. The same cases are held out in every configuration: the division is
    stratified by the 50 most frequent diagnoses and the 50 most frequent procedures, and depends on the cases' ids and
    codes alone. `background` is the cases without codes of `background_en.jsonl.gz`, in English configurations of a
    folder that has it.

    Every case makes a record, also one with none of the configuration's codes (unlike in MIMIC-III's `top50`): who
    codes a case cannot know that it has none, and what a model wrongly finds in it counts. So each configuration is
    scored on the same cases.

    A record's text is the text file unchanged. `case_id` is the case's id, `hadm_id` and `subject_id` a number made
    from it by hashing. Cases of one article have the same id up to the last dash; upstream put some of them into both
    `train` and `dev`, and they are not known to be of one patient. Codes are upper-cased; diagnoses have their dot, and
    procedures have none and are often cut to four characters, as the annotators were told to.

    `evidence` holds an entry for each place in the text that justifies a code: the `code`, an id like those in
    `codes`, and `spans`, the `[start, end]` character offsets into the text, several where the place is discontinuous,
    in the order that spells the annotated words. Offsets exist for the Spanish text alone: `evidence` is empty in
    every English configuration. Places whose offsets give other words than the table quotes (in six, one character
    more) are kept and counted; empty spans (two) are left out and counted.

    See [`ICDBuilder`] for the arguments and [`CodiEspConfig`] for the options.
    """

    BUILDER_CONFIG_CLASS = CodiEspConfig
    BUILDER_CONFIGS = [
        CodiEspConfig(name=f"{kind}_{language}{code_set}")
        for kind in (*NAMES.values(), "both")
        for language in TEXT_FOLDERS
        for code_set in ("_top50", "")
    ]
    ABOUT = FACTS["codiesp"]
    PUBLIC_CONTENT = frozenset({  # version 3, all of `train` and half of `dev`
        "11d06968f1ffcbdd1ec5a80d13aa4ffc606cb2b69e5e82d0f0f7cd358b1f03c1",  # English, with the background cases
        "c7ad845c636bc30aa2abdecd05ebab0af37a587c041eeefd4999aae7dd6d7df6",  # English
        "8e45f3664fad204175e0ab12404ac010969bdbd27d00236a0a4c84dac976b5ac",  # Spanish
    })  # fmt: skip

    def _find_sources(self, config: CodiEspConfig) -> list[Path]:
        self.folders = {name: Folder.find(str(config.data_dir), name, config.language) for name in ("train", "dev")}
        background = Path(str(config.data_dir)) / BACKGROUND
        self.background_file = background if config.language == "en" and background.is_file() else None
        sources = [
            file for folder in self.folders.values() for file in (*folder.tables.values(), *folder.texts.values())
        ]
        return sources if self.background_file is None else [*sources, self.background_file]

    @property
    def classification(self) -> Classification:
        return ICD10

    @cached_property
    def code_descriptions(self) -> dict[str, str]:
        """English titles by code, see [`icd10_hierarchy.load_titles`]; procedures that are cut to four characters have none."""
        folders = self.folders.values()
        return describe_codes(
            code
            for kind in self.config.kinds
            for folder in folders
            for codes in folder.read_codes(kind).values()
            for code in codes
        )

    def _describe(self) -> str:
        return self.config.describe()

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # Everything is read and checked here, before the first record is written.
        self.blank_cases: Counter[str] = Counter()
        cases = {name: self._leave_out_blank(read_cases(folder), name) for name, folder in self.folders.items()}
        shared = {case.case_id for case in cases["train"]} & {case.case_id for case in cases["dev"]}
        if shared:
            raise ValueError(
                f"{self.config.data_dir}: {counted(len(shared), 'case is', 'cases are')} in both train and dev, e.g. {min(shared)}. "
                f"Restore {SOURCE}."
            )
        code_set = self._choose_codes(cases["train"], cases["dev"])
        self._set_features(code_set)
        if self.config.unsplit:
            splits = {"unsplit": [*cases["train"], *cases["dev"]]}
        else:
            train, validation = self._hold_out(cases["train"])
            splits = {"train": train, "validation": validation, "test": cases["dev"]}
        background: list[Case] = []
        if self.background_file is not None and not self.config.unsplit:
            background = self._read_background(self.background_file, [*cases["train"], *cases["dev"]])
        self._report_cases(splits, code_set)
        if background:
            splits["background"] = background
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"cases": tuple(split)}) for name, split in splits.items()
        ]

    def _leave_out_blank(self, cases: "Sequence[Case]", where: str) -> "list[Case]":
        """Leave the cases without a text out, and count them; where there is no other, that is an error."""
        kept = [case for case in cases if case.text.strip()]
        self.blank_cases[where] = len(cases) - len(kept)
        if not kept:
            raise ValueError(f"{self.config.data_dir}: no case of {where} has a text. Restore {SOURCE}.")
        return kept

    def _set_features(self, code_set: Set[str]) -> None:
        self.info.features = record_features(code_set)
        self.info.features["case_id"] = datasets.Value("string")
        self.info.features["evidence"] = datasets.List(
            {
                "code": self.info.features["codes"].feature,
                "spans": datasets.List(datasets.List(datasets.Value("int32"))),
            }
        )

    def _report_cases(self, splits: "Mapping[str, Sequence[Case]]", code_set: Set[str]) -> None:
        cases = [case for split in splits.values() for case in split]
        mentions = [mention for case in cases for mention in self._mentions_of(case)]
        coded = {name: [self._codes_of(case) & code_set for case in split] for name, split in splits.items()}
        tables = [TABLES[kind] for kind in self.config.kinds]
        self._report(
            {
                "left out, cases without a text": self.blank_cases.total(),
                "left out, rows that repeat another one's code": sum(
                    folder.count_repeated_rows(table) for folder in self.folders.values() for table in tables
                ),
                "cases with the text of another one": len(cases) - len({case.text for case in cases}),
                "cases with none of the codes": sum(not codes for split in coded.values() for codes in split),
                "places whose offsets give other words than the table quotes": sum(m.is_misquoted for m in mentions),
                "left out, empty spans": sum(m.empty_spans for m in mentions),
            },
            coded,
        )

    def _read_background(self, path: Path, coded_cases: "Sequence[Case]") -> "list[Case]":
        """Read the cases without codes; one that has codes elsewhere is refused."""
        background = self._leave_out_blank(read_background(path), path.name)
        shared = {case.case_id for case in background} & {case.case_id for case in coded_cases}
        if shared:
            raise ValueError(
                f"{path}: {len(shared)} of its cases are in train or dev, e.g. {min(shared)}. "
                f"Restore the file from {SOURCE}."
            )
        return background

    def _generate_examples(self, cases: "Sequence[Case]") -> Iterator[tuple[str, dict[str, Any]]]:
        code2id = self.code2id
        for case in cases:
            number = case_number(case.case_id)
            yield (
                case.case_id,
                {
                    "subject_id": number,
                    "hadm_id": number,
                    "text": case.text,
                    "codes": sorted(code2id[code] for code in self._codes_of(case) if code in code2id),
                    "case_id": case.case_id,
                    "evidence": [
                        {"code": code2id[mention.code], "spans": mention.spans}
                        for mention in self._mentions_of(case)
                        if mention.code in code2id
                    ],
                },
            )

    def _codes_of(self, case: "Case") -> set[str]:
        return {code for kind in self.config.kinds for code in case.codes[kind]}

    def _mentions_of(self, case: "Case") -> "list[Mention]":
        return [mention for mention in case.mentions if mention.kind in self.config.kinds]

    def _choose_codes(self, train: "Sequence[Case]", dev: "Sequence[Case]") -> set[str]:
        counts = Counter(code for case in train for code in self._codes_of(case))
        codes = set(most_frequent(counts, TOP_CODES)) if self.config.is_top50 else set(counts)
        if not self.config.is_top50 and self.config.min_count == 0:
            codes |= {code for case in dev for code in self._codes_of(case)}
        codes = {code for code in codes if counts[code] >= self.config.min_count}
        if not codes:
            raise ValueError(
                f"{self.config.data_dir}: no case of train has a code that `min_count` ({self.config.min_count}) keeps "
                f"in configuration {self.config.name!r}. Lower it."
            )
        return codes

    def _hold_out(self, cases: "Sequence[Case]") -> "tuple[list[Case], list[Case]]":
        """Divide the cases of `train` into train and validation, in the same way in every configuration."""
        columns = [
            [code in case.codes[kind] for case in cases]
            for kind in TABLES
            for code in most_frequent(Counter(code for case in cases for code in case.codes[kind]), TOP_CODES)
        ]
        least = int(np.ceil(1 / VALIDATION_SIZE))
        check_enough(f"{self.config.data_dir}: {len(cases)} cases of train", len(cases), len(columns), least)
        labels = np.array(columns, dtype=int).T  # (cases, codes)
        train, validation = hold_out(labels, VALIDATION_SIZE, SEED)
        return [cases[i] for i in train], [cases[i] for i in validation]


@dataclass
class Mention:
    """A place in a case's Spanish text that justifies a code."""

    kind: Kind
    code: str
    spans: list[list[int]]  # [start, end] each
    empty_spans: int
    is_misquoted: bool


@dataclass
class Case:
    """One clinical case, shown without its text."""

    case_id: str
    text: str = field(repr=False)
    codes: Mapping[Kind, Set[str]]
    mentions: list[Mention]


@dataclass
class Folder:
    """The files of `train` or `dev` in one language."""

    texts: dict[str, Path]  # by case id
    tables: dict[str, Path]  # D, P, and X where the texts are Spanish

    @classmethod
    def find(cls, data_dir: str, name: str, language: str) -> "Folder":
        """Find the texts of a language and the tables that go with them."""
        path = Path(data_dir) / name
        names = {letter: f"{name}{letter}.tsv" for letter in (*TABLES.values(), *(["X"] if language == "es" else []))}
        files = {file.name: file for file in list_folder(str(path), "data_dir", f"{', '.join(names.values())}")}
        missing = [table for table in names.values() if table not in files]
        if missing:
            raise FileNotFoundError(f"No {', '.join(missing)} in {path}: give `data_dir` {SOURCE}.")
        texts = list_folder(str(path / TEXT_FOLDERS[language]), "data_dir", "one .txt file a case")
        by_case = {file.stem: file for file in texts if file.suffix == ".txt"}
        if not by_case:
            raise FileNotFoundError(f"No .txt file in {path / TEXT_FOLDERS[language]}: give `data_dir` {SOURCE}.")
        return cls(by_case, {letter: files[table] for letter, table in names.items()})

    def read_codes(self, kind: Kind) -> dict[str, set[str]]:
        """Read the codes of each case from the table of diagnoses or of procedures."""
        path = self.tables[TABLES[kind]]
        codes: dict[str, set[str]] = {case_id: set() for case_id in self.texts}
        for row, (case_id, code) in read_rows(path, 2):
            self._check_case(case_id, path, row)
            if not icd10.PATTERNS[kind].fullmatch(code.upper()):
                raise ValueError(
                    f"{path}: the second column of row {row} is not an ICD-10 code such as {EXAMPLES[kind]}. "
                    f"Restore the table from {SOURCE}."
                )
            codes[case_id].add(code.upper())
        return codes

    def count_repeated_rows(self, table: str) -> int:
        """How many rows of a table are those of an earlier row."""
        rows = [(case_id, code.upper()) for _, (case_id, code) in read_rows(self.tables[table], 2)]
        return len(rows) - len(set(rows))

    def read_mentions(
        self, texts: Mapping[str, str], codes: Mapping[Kind, Mapping[str, Set[str]]]
    ) -> dict[str, list[Mention]]:
        """Read the mentions of each case, and hold them against its text and its codes."""
        path = self.tables["X"]
        kinds = {label: kind for kind, label in LABELS.items()}
        mentions: dict[str, list[Mention]] = {case_id: [] for case_id in texts}
        for row, (case_id, label, code, quote, position) in read_rows(path, 5):
            self._check_case(case_id, path, row)
            if label not in kinds:
                raise ValueError(
                    f"{path}: the second column of row {row} is not {' or '.join(kinds)}. Restore the table from {SOURCE}."
                )
            kind, code = kinds[label], code.upper()
            if code not in codes[kind][case_id]:
                raise ValueError(
                    f"{path}: row {row} justifies a code that {self.tables[TABLES[kind]].name} does not give to case "
                    f"{case_id}. Restore both tables from {SOURCE}."
                )
            text = texts[case_id]
            if not text.strip():
                continue  # the case is left out
            spans = parse_position(position, len(text))
            if spans is None:
                raise ValueError(
                    f"{path}: the fifth column of row {row} gives no offsets inside the {len(text)} characters of case "
                    f"{case_id}. Restore the table and {self.texts[case_id]} from {SOURCE}."
                )
            kept = [[start, end] for start, end in spans if start < end]
            words = " ".join(text[start:end] for start, end in spans)
            mentions[case_id].append(Mention(kind, code, kept, len(spans) - len(kept), words != quote))
        return mentions

    def _check_case(self, case_id: str, path: Path, row: int) -> None:
        if not re.fullmatch(r"[0-9A-Za-z-]{1,40}", case_id):
            raise ValueError(
                f"{path}: the first column of row {row} is not the id of a case. Restore the table from {SOURCE}."
            )
        if case_id not in self.texts:
            folder = next(iter(self.texts.values())).parent
            raise ValueError(
                f"{path}: row {row} is of case {case_id}, which has no text: expected {folder / case_id}.txt. "
                f"Restore it from {SOURCE}, or remove the case from the tables."
            )


def read_cases(folder: Folder) -> list[Case]:
    """Read every case of a folder, sorted by id."""
    texts = {case_id: read_text(path) for case_id, path in sorted(folder.texts.items())}
    codes = {kind: folder.read_codes(kind) for kind in TABLES}
    mentions = folder.read_mentions(texts, codes) if "X" in folder.tables else {}
    return [
        Case(case_id, text, {kind: codes[kind][case_id] for kind in TABLES}, mentions.get(case_id, []))
        for case_id, text in texts.items()
    ]


def read_background(path: Path) -> list[Case]:
    """Read the cases without codes, in the order of the file."""
    lines: list[bytes] = []
    with suppress(EOFError, gzip.BadGzipFile, zlib.error), gzip.open(path) as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError(f"{path}: the gzip stream is cut short, damaged or empty. Restore it from {SOURCE}.")
    cases: dict[str, Case] = {}
    for row, line in enumerate(lines, start=1):
        entry = None
        with suppress(ValueError):  # not UTF-8, or not JSON
            entry = json.loads(line)
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "text")):
            raise ValueError(
                f'{path}: row {row} is not {{"id": ..., "text": ...}} in UTF-8. Restore the file from {SOURCE}.'
            )
        if entry["id"] in cases:
            raise ValueError(f"{path}: row {row} has the id of an earlier row. Remove one of them.")
        cases[entry["id"]] = Case(entry["id"], entry["text"], {kind: set() for kind in TABLES}, [])
    return list(cases.values())


def read_text(path: Path) -> str:
    """Read a case unchanged, so that offsets into it hold."""
    text, fault_line = "", None
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        fault_line = error.object[: error.start].count(b"\n") + 1
    if fault_line is not None:  # raised here, outside of the `except`, so that no traceback carries the text
        raise ValueError(f"{path}: line {fault_line} is not valid UTF-8. Restore the file from {SOURCE}.")
    return text


def read_rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Read the numbered rows of a table without a header, whose columns are parted by tabs and never quoted."""
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")
    if lines == [b""]:
        raise ValueError(f"{path} is empty: expected {columns} columns parted by tabs. Restore it from {SOURCE}.")
    for row, line in enumerate(lines, start=1):
        values = None
        with suppress(UnicodeDecodeError):
            values = line.removesuffix(b"\r").decode().split("\t")
        if values is None:
            raise ValueError(f"{path}: row {row} is not valid UTF-8. Restore the table from {SOURCE}.")
        if len(values) != columns:
            raise ValueError(
                f"{path}: row {row} has {len(values)} columns parted by tabs instead of {columns}. "
                f"Restore the table from {SOURCE}."
            )
        yield row, values


def parse_position(position: str, length: int) -> list[tuple[int, int]] | None:
    """Read `"0 4;10 12"` as offsets into a text of some length; None if they are not, or if all of them are empty."""
    if not re.fullmatch(r"[0-9]{1,9} [0-9]{1,9}(;[0-9]{1,9} [0-9]{1,9})*", position):
        return None
    numbers = [int(number) for number in re.split("[ ;]", position)]
    spans = list(zip(numbers[::2], numbers[1::2], strict=True))
    inside = all(start <= end <= length for start, end in spans)
    return spans if inside and any(start < end for start, end in spans) else None


def case_number(case_id: str) -> int:
    """Make a number of 48 bits from a case's id, which has too many digits for one itself."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6])


def describe_codes(codes: Iterable[str]) -> dict[str, str]:
    """Give the titles of dotted codes; CodiEsp leaves the seventh character of diagnoses out and keeps placeholders."""
    titles, descriptions = icd10_hierarchy.load_titles(), {}
    for code in codes:
        # T81.4XX is the T81.4 of which a seventh character is due. Procedures have no dot, and no placeholders.
        known = code if code in titles or "." not in code else code.rstrip("X").rstrip(".")
        if known in titles:
            descriptions[code] = titles[known]
    return descriptions
