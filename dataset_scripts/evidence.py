"""Finds the words of a note that justify its codes, where a data set has them marked."""

import gzip
import json
from collections.abc import Collection, Iterable
from pathlib import Path

import datasets

from .builders.mdace import COLUMNS
from .builders.sources import find_tables, read_table
from .codes.classification import ICD9, classification_of
from .marker import MARKER_FILE


EVIDENCE_FILE = "evidence.jsonl.gz"


class NoEvidenceError(ValueError):
    """A data set marks no evidence."""


def gold_evidence(
    records, data_dir: str | Path, codes: Collection[str] | None = None
) -> list[dict[str, list[list[int]]]]:
    """Spans that justify each code of each record, as characters of its text.

    Args:
        codes (`Collection[str]`, *optional*): Those that are asked for, by default the records' own: where evidence is marked
            in two editions of ICD, it is of theirs.

    Raises:
        NoEvidenceError: a `ValueError`, where the data set marks no evidence.
    """
    marked = marked_places(records, codes)
    if marked is not None:
        located: list[dict[str, list[list[int]]]] = []
        for places in marked:
            spans: dict[str, list[list[int]]] = {}
            for code, of_place in places:
                spans.setdefault(code, []).extend(of_place)
            located.append(spans)
    elif Path(data_dir, MARKER_FILE).is_file():
        located = locate_evidence(data_dir, records["hadm_id"], records["text"])
    else:
        located = []
    if not any(located):
        raise NoEvidenceError(
            "These notes have no marked evidence: choose a Spanish configuration of codiesp, a synthetic corpus with its text "
            "unchanged, or give mimic3 the folder of MDACE, `evidence=DIR`."
        )
    return located


def marked_places(records, codes: Collection[str] | None = None) -> list[list[tuple[str, list[list[int]]]]] | None:
    """The places that the records themselves mark, for each record: a code, and the characters that justify it, in several
    spans where they are not together. `None` where the records have no such column; `codes` as in [`gold_evidence`]."""
    if codes is None:
        codes = getattr(getattr(records.features.get("codes"), "feature", None), "names", None)
    edition = classification_of(codes) if codes else ICD9
    column = "evidence" if edition is None else COLUMNS.get(edition.name, "evidence")
    column = column if column in records.column_names else "evidence"
    if column not in records.column_names:
        return None
    label = records.features[column].feature["code"]
    names = label.names if isinstance(label, datasets.ClassLabel) else None
    return [
        [(place["code"] if names is None else names[place["code"]], place["spans"]) for place in places]
        for places in records[column]
    ]


def locate_evidence(
    folder: str | Path, hadm_ids: Iterable[int], texts: Iterable[str]
) -> list[dict[str, list[list[int]]]]:
    """Spans that justify each code, as characters of a record's text rather than of one row of the table of notes.

    Args:
        folder (`str` or `Path`): The synthetic corpus, in MIMIC-III's or MIMIC-IV's format.
        hadm_ids, texts:
            Of the records of `MIMIC3` or `MIMIC4`, their text unchanged: a row that is not found in it gives no spans.
    """
    with gzip.open(Path(folder) / EVIDENCE_FILE, "rt", encoding="utf-8") as file:
        lines = [json.loads(row) for row in file]
    row_id, name = ("note_id", "discharge") if "note_id" in lines[0] else ("row_id", "NOTEEVENTS")
    codes_of_row = {str(line[row_id]): line["codes"] for line in lines}
    rows: dict[int, list[tuple[str, dict[str, list[list[int]]]]]] = {}
    table = find_tables(str(folder), [name], subfolders=("note",))[name]
    for _, batch in read_table(table, [row_id, "hadm_id", "text"]):
        for own_id, hadm_id, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if own_id in codes_of_row:
                rows.setdefault(int(hadm_id), []).append((text, codes_of_row[own_id]))
    located = []
    for hadm_id, text in zip(hadm_ids, texts, strict=True):
        spans: dict[str, list[list[int]]] = {}
        for row_text, codes in rows.get(hadm_id, ()):
            offset = text.find(row_text)
            for code, own in codes.items() if offset >= 0 else ():
                spans.setdefault(code, []).extend([start + offset, end + offset] for start, end in own)
        located.append(spans)
    return located
