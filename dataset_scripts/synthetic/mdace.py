"""Writes the evidence of some admissions in the shape of MDACE: its files of charts, and its lists of admissions."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from .admissions import SPLITS, Admission
from .content import read_content
from .marks import Note


FOLDER = "mdace"
MDACE_SPLITS = dict(zip(SPLITS, ("train", "val", "test"), strict=True))
EDITIONS = {"ICD-9": ("ICD-9-CM", "ICD-9-PCS"), "ICD-10": ("ICD-10-CM", "ICD-10-PCS")}  # of diagnoses, of procedures


class Charts:
    """Writes the first admissions of a corpus as charts into a folder, which then is as MDACE's.

    Args:
        folder (`Path`): Of the corpus; the charts go into its folder `mdace`.
        num_charts (`int`): How many admissions.
    """

    def __init__(self, folder: Path, num_charts: int):
        self.folder = folder / FOLDER
        self.num_charts = num_charts
        self.charts: list[tuple[int, str]] = []  # hadm_id, split

    def add(self, admission: Admission, rows: Sequence[tuple[int, str, Note]]) -> None:
        """Write a chart, given its rows: ROW_ID, DESCRIPTION and note. What comes after the last chart is left out."""
        if len(self.charts) == self.num_charts:
            return
        self.charts.append((admission.hadm_id, MDACE_SPLITS[admission.split]))
        for edition in EDITIONS:
            notes = [
                {
                    "note_id": row_id,
                    "category": "Discharge summary",
                    "description": description,
                    "annotations": _annotations(note, edition),
                }
                for row_id, description, note in rows
            ]
            path = self.folder / f"data/Inpatient/{edition}/1.0/{admission.hadm_id}-{edition}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps({"hadm_id": admission.hadm_id, "comment": "", "notes": notes}), encoding="utf-8"
            )

    def write_lists(self) -> None:
        """Write the lists of the charts, and those of all admissions, which are the corpus's own: no chart is moved."""
        if not self.num_charts:
            return
        lists = self.folder / "splits/Inpatient"
        lists.mkdir(parents=True)
        for split, mdace in MDACE_SPLITS.items():
            ids = "".join(f"{hadm_id}\n" for hadm_id, own in self.charts if own == mdace)
            (lists / f"MDace-ev-{mdace}.csv").write_text(ids, encoding="utf-8")
            shutil.copyfile(self.folder.parent / f"{split}_full_hadm_ids.csv", lists / f"MDace-code-ev-{mdace}.csv")


def _annotations(note: Note, edition: str) -> list[dict]:
    """The places of a note, in the order of its text; a code without one of ICD-10 is left out of that edition."""
    concepts = read_content().concepts
    found = []
    for code, spans in note.evidence.items():
        concept = concepts[code]
        given = (code, concept.long_title) if edition == "ICD-9" else (concept.icd10, concept.icd10_title)
        for begin, end in spans if given[0] else ():
            entry = {"begin": begin, "end": end, "code": given[0]}
            entry |= {"code_system": EDITIONS[edition][concept.is_procedure], "description": given[1], "type": "Human"}
            found.append(entry)
    return sorted(found, key=lambda entry: (entry["begin"], entry["end"], entry["code"]))
