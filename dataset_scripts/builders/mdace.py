"""Reads MDACE (Cheng et al., ACL 2023): where in MIMIC-III's notes an annotator found each code, and its splits.

MDACE is open (github.com/3mcloud/MDACE, MIT) and holds no text: a file a chart and edition of ICD, in it the ROW_ID of each
note, and characters of its TEXT. Here they become characters of a record's text, by the rules that this text is built by.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..codes.classification import ICD9, ICD10, Classification
from .sources import list_folder


SOURCE = "the folder of MDACE (github.com/3mcloud/MDACE)"
CHARTS = (
    "data/Inpatient",
    "Inpatient",
    ".",
)  # of that folder, or of a part of it; the other charts are not of MIMIC-III
LISTS = ("splits/Inpatient", "../../splits/Inpatient", ".")
# The lists of each configuration: all admissions of CAML's `full`, with the charts moved, or the charts alone.
LISTS_OF_CONFIG = {"mdace": "MDace-code-ev", "mdace_charts": "MDace-ev"}
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # our name, MDACE's name
LISTS_SHA256 = {
    "MDace-code-ev-train.csv": "7dc83d59654e399ed7057c12188be79206d69fa2d2c64b7215fd5a7a28775f1b",
    "MDace-code-ev-val.csv": "be9c88db6c1ec546f3002e1525e231d2480512f132ccc7aa4222c1f8c66d8054",
    "MDace-code-ev-test.csv": "bd002621ed0e77c7111446a8f14e73d709a591e20cb6991d9fba7e0c9661e73f",
    "MDace-ev-train.csv": "d07ad5360d26957188a508424e28eb9edac178db918a59067d3fc1ea3339e4f4",
    "MDace-ev-val.csv": "47e753d9e5445e6e5b38a2d138ddb3d839b3b1b5fb2295c4cf9a61cc7c4850c8",
    "MDace-ev-test.csv": "3d66855871351a6546f4870267230288cddc7849c3d736bcfa0de6f9fe72868c",
}
SYSTEMS: dict[str, Classification] = {"ICD-9-CM": ICD9, "ICD-9-PCS": ICD9, "ICD-10-CM": ICD10, "ICD-10-PCS": ICD10}
COLUMNS = {ICD9.name: "evidence", ICD10.name: "evidence_icd10"}
Places = list[dict[str, Any]]  # a code and its spans each, as records hold them


def evidence_features() -> dict[str, datasets.List]:
    """The columns of evidence: for each place in the text that justifies a code the code, dotted, and its spans."""
    spans = datasets.List(datasets.List(datasets.Value("int32")))
    return {column: datasets.List({"code": datasets.Value("string"), "spans": spans}) for column in COLUMNS.values()}


def find_charts(folder: str) -> list[Path]:
    """Find the files of the charts in MDACE's folder, or in the part of it that holds them."""
    place = next((Path(folder, inside) for inside in CHARTS if Path(folder, inside).is_dir()), Path(folder))
    list_folder(str(place), "evidence", "MDACE's files, one a chart")
    files = sorted(place.rglob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"No .json file in `evidence` ({folder}): give {SOURCE}, or its folder data/Inpatient."
        )
    return files


def find_lists(folder: str, config_name: str) -> dict[str, Path]:
    """Find the three lists of admission ids of a configuration in MDACE's folder, or in the one that holds them."""
    names = {split: f"{LISTS_OF_CONFIG[config_name]}-{mdace}.csv" for split, mdace in SPLITS.items()}
    for inside in LISTS:
        found = {split: Path(folder, inside, name).resolve() for split, name in names.items()}
        if all(path.is_file() for path in found.values()):
            return found
    raise FileNotFoundError(
        f"No {', '.join(names.values())} in {folder}: give `evidence` {SOURCE}, or `splits_dir` its folder splits/Inpatient."
    )


@dataclass
class Annotation:
    """A place in a note that justifies a code: characters of the row of NOTEEVENTS."""

    hadm_id: int
    note_id: str
    begin: int
    end: int
    code: str
    edition: str


class Charts:
    """The annotations, and the texts of the notes that they are of, which are shown to it while the table is read.

    Args:
        files (`Sequence[Path]`): One a chart and edition; see [`find_charts`].
    """

    def __init__(self, files: Sequence[Path]):
        self.annotations: list[Annotation] = []
        self.other_systems = 0
        for path in files:
            self._read(path)
        if not self.annotations:
            raise ValueError(f"{files[0].parent}: its .json files mark no ICD code. Give `evidence` {SOURCE}.")
        self.note_ids = pa.array(sorted({annotation.note_id for annotation in self.annotations}), type=pa.string())
        self.hadm_ids = {annotation.hadm_id for annotation in self.annotations}
        self.texts: dict[str, str] = {}
        self.fields: dict[int, dict[str, Places]] = {}

    def _read(self, path: Path) -> None:
        chart = None
        with suppress(ValueError, OSError):
            chart = json.loads(path.read_text(encoding="utf-8"))
        hadm_id, notes = (chart.get("hadm_id"), chart.get("notes")) if isinstance(chart, dict) else (None, None)
        if not isinstance(hadm_id, int) or not isinstance(notes, list):
            raise ValueError(f'{path} is not {{"hadm_id": ..., "notes": [...]}}: give `evidence` {SOURCE}.')
        for number, note in enumerate(notes, start=1):
            if not isinstance(note, dict) or "note_id" not in note or not isinstance(note.get("annotations"), list):
                raise ValueError(
                    f"{path}: note {number} lacks `note_id` or a list `annotations`. Restore it from {SOURCE}."
                )
            for row, entry in enumerate(note["annotations"], start=1):
                self._add(entry, hadm_id, str(note["note_id"]), f"{path}: annotation {row} of note {number}")

    def _add(self, entry: Any, hadm_id: int, note_id: str, where: str) -> None:
        values = entry if isinstance(entry, dict) else {}
        begin, end, code, system = (values.get(name) for name in ("begin", "end", "code", "code_system"))
        if not (isinstance(begin, int) and isinstance(end, int) and isinstance(code, str) and isinstance(system, str)):
            raise ValueError(f"{where} lacks `begin`, `end`, `code` or `code_system`. Restore it from {SOURCE}.")
        if system not in SYSTEMS:
            self.other_systems += 1
            return
        try:
            SYSTEMS[system].kind_of(code)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        self.annotations.append(Annotation(hadm_id, note_id, begin, end, code, SYSTEMS[system].name))

    def see(self, row_ids: pa.Array, texts: pa.Array) -> None:
        """Keep the texts, as they are in the table, of those of these rows that have annotations."""
        wanted = pc.is_in(row_ids, self.note_ids)
        self.texts.update(zip(row_ids.filter(wanted).to_pylist(), texts.filter(wanted).to_pylist(), strict=True))

    def locate(self, records: Mapping[int, Mapping[str, tuple[int, str]]], rules: "TextRules") -> dict[str, int]:
        """Find every annotation in its record's text, and keep them as the fields of the records.

        Args:
            records (`Mapping`):
                Of the charts among the records: by admission, then by ROW_ID: where in the record's text the row's part begins, and that part.
            rules (`TextRules`): How a row became a part of the text.

        Returns:
            What was left out, and how often.

        Raises:
            ValueError: where no annotation of these records is in a text: the table is not the one that was annotated.
        """
        counts: Counter[str] = Counter({"left out, MDACE's places of other code systems": self.other_systems})
        self.fields = {hadm_id: {column: [] for column in COLUMNS.values()} for hadm_id in records}
        traced: dict[str, tuple[str, np.ndarray] | None] = {}
        seen: set[tuple] = set()
        for place in self.annotations:
            key = (place.note_id, place.begin, place.end, place.code, place.edition)
            if place.hadm_id not in records:
                counts["left out, MDACE's places in admissions without a record"] += 1
            elif key in seen:
                counts["left out, MDACE's places that are given twice"] += 1
            elif place.note_id not in records[place.hadm_id]:
                counts["left out, MDACE's places in notes that are no discharge summary of the admission"] += 1
            else:
                text = self.texts[place.note_id]
                if place.note_id not in traced:
                    traced[place.note_id] = rules.trace(text)
                start, made = records[place.hadm_id][place.note_id]
                span = find_span(text, traced[place.note_id], made, place.begin, place.end)
                if span is None:
                    counts["left out, MDACE's places that are not in the text of their note"] += 1
                else:
                    counts["MDACE's places that begin or end within a word"] += splits_word(text, place)
                    moved = {"code": place.code, "spans": [[start + span[0], start + span[1]]]}
                    self.fields[place.hadm_id][COLUMNS[place.edition]].append(moved)
            seen.add(key)
        counts["charts with evidence in MDACE"] = sum(any(columns.values()) for columns in self.fields.values())
        if not counts["charts with evidence in MDACE"] and records:
            raise ValueError(
                "None of MDACE's places is in a discharge summary of these admissions, by ROW_ID and characters: the "
                "annotations are of NOTEEVENTS of MIMIC-III v1.4 as it was published. Restore that table."
            )
        return counts

    def fields_of(self, hadm_id: int) -> dict[str, Places]:
        """The columns of evidence of a record; empty where MDACE does not have it."""
        return self.fields.get(hadm_id) or {column: [] for column in COLUMNS.values()}


@dataclass
class TextRules:
    """How the text of a row becomes a part of a record's; see `MIMICConfig`.

    Args:
        mark (`str`): A de-identification mark, as a regular expression.
        token (`str`, *optional*): What stands in its place.
        is_caml (`bool`): Whether the text is cut into CAML's words.
    """

    mark: str
    token: str | None
    is_caml: bool

    def trace(self, text: str) -> tuple[str, np.ndarray] | None:
        """What becomes of a row, and for each character of it the characters `[start, end)` of the row that it stands for,
        `(characters, 2)`; `None` where these cannot be told."""
        sources = np.stack([np.arange(len(text)), np.arange(1, len(text) + 1)], axis=1)
        if self.token is not None:
            text, sources = _trace_marks(text, sources, self.mark, self.token)
        if not self.is_caml:
            return text, sources
        lowered = text.lower()
        return _trace_words(lowered, sources) if len(lowered) == len(text) else None


def _trace_marks(text: str, sources: np.ndarray, mark: str, token: str) -> tuple[str, np.ndarray]:
    """Put the token in the place of each mark; each of its characters stands for the whole mark."""
    pieces, traced, end = [], [], 0
    for match in re.finditer(mark, text):
        pieces += [text[end : match.start()], token]
        traced += [sources[end : match.start()], np.tile(match.span(), (len(token), 1))]
        end = match.end()
    return "".join([*pieces, text[end:]]), np.concatenate([*traced, sources[end:]])


def _trace_words(text: str, sources: np.ndarray) -> tuple[str, np.ndarray]:
    """Keep the words with a letter, one space between two, which stands for nothing."""
    words = [match for match in re.finditer(r"\w+", text) if any(map(str.isalpha, match[0]))]
    nothing = np.full((1, 2), -1)
    traced = [part for word in words for part in (nothing, sources[word.start() : word.end()])][1:]
    return " ".join(word[0] for word in words), np.concatenate(traced) if traced else np.empty((0, 2), int)


def find_span(
    text: str, traced: tuple[str, np.ndarray] | None, made: str, begin: int, end: int
) -> tuple[int, int] | None:
    """Where characters of a row are in what was made of it; `None` where they are not, or are none.

    Args:
        text (`str`): The row.
        traced: See [`TextRules.trace`].
        made (`str`): What was made of the row.
        begin, end (`int`): Of the row.
    """
    if not 0 <= begin < end <= len(text) or not text[begin:end].strip() or traced is None or traced[0] != made:
        return None
    starts, ends = traced[1].T
    inside = np.flatnonzero((starts < end) & (ends > begin))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else None


def splits_word(text: str, place: Annotation) -> bool:
    """Whether a place begins or ends within a word, as most would if its characters were of another text."""
    edges = [text[max(0, edge - 1) : edge + 1] for edge in (place.begin, place.end)]
    return any(len(edge) == 2 and edge.isalnum() for edge in edges)
