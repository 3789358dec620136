"""Lists for each note the codes that a coder likely missed, and the assigned ones that the note does not support.

    modeling-icd audit runs/mine --data_dir DIR --audit assigned.psv

It is the same as `modeling-icd evaluate ... --audit [FILE]` and takes the same options. Without a file of assigned codes, those
of the data set are audited. Every evaluation also measures how good such lists are (`evaluation/audit_quality.py`).
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.files import write_csv

from ..evaluation.outcomes import Outcomes
from ..evaluation.predictions import are_strings


AUDIT_FILE = "audit.csv"
COLUMNS = ("hadm_id", "finding", "rank", "code", "description", "score", "predicted")
NUM_MISSED = 20  # listed for each note


def likely_missed(scores: np.ndarray, assigned: Sequence[int], k: int = NUM_MISSED) -> list[int]:
    """Class ids of the k best codes of a note that were not assigned, the likeliest first; of equal scores lower ids first.

    `scores` `(C,)` are of the note, `assigned` class ids.
    """
    order = np.argsort(-scores, kind="stable")
    return order[~np.isin(order, assigned)][:k].tolist()


def likely_unsupported(scores: np.ndarray, assigned: Sequence[int], is_predicted: np.ndarray) -> list[int]:
    """Class ids of the assigned codes of a note that the model does not predict (bool `(C,)`), the least supported first."""
    doubted = np.array([code for code in sorted(assigned) if not is_predicted[code]], np.int64)
    return doubted[np.argsort(scores[doubted], kind="stable")].tolist()


def audit(
    scores: np.ndarray,
    outcomes: Outcomes,
    assigned: Mapping[int, Sequence[int]],
    *,
    num_known: int,
    hadm_ids: Sequence[int] | Sequence[str],
    codes: Sequence[str],
    descriptions: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Findings on every note that has assigned codes, as rows of `audit.csv`.

    Args:
        scores (`(N, C)`), outcomes (`Outcomes`): Of the split.
        assigned (`Mapping[int, Sequence[int]]`): Class ids by row of the split; a row not in it is not audited.
        num_known (`int`): Columns that the model knows, the first ones: of other codes it cannot say anything.
    """
    is_predicted = np.zeros(scores.shape, bool)
    is_predicted[outcomes.predicted_notes, outcomes.predicted_codes] = True
    rows = []
    for note, ids in sorted(assigned.items()):
        of_note = scores[note, :num_known]
        known = [code for code in ids if code < num_known]
        findings = {
            "missed": likely_missed(of_note, known),
            "unsupported": likely_unsupported(of_note, known, is_predicted[note]),
        }
        for finding, found in findings.items():
            for rank, code in enumerate(found, 1):
                title, is_own = descriptions.get(codes[code], ""), "yes" if is_predicted[note, code] else "no"
                values = (hadm_ids[note], finding, rank, codes[code], title, f"{of_note[code]:.4f}", is_own)
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_audit(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write `audit.csv`, whole or not at all. It names admissions and codes: as confidential as the data set."""
    return write_csv(rows, COLUMNS, folder / AUDIT_FILE, private=True)


def read_assigned(
    path: Path, hadm_ids: Sequence[int] | Sequence[str], codes: Sequence[str]
) -> tuple[dict[int, list[int]], int]:
    """Read assigned codes from a file with a line `hadm_id|code|code...` for each admission, as in `preds_*.psv`.

    An id that is a string is taken as it stands, `007` is not `7`; one with a `|`, a quote or a line break in it is quoted.

    Args:
        hadm_ids (`Sequence[int]` or `Sequence[str]`): Of the split; a line of another admission is an error.
        codes (`Sequence[str]`): That the model knows, by class id.

    Returns:
        Class ids by row of the split, and how many assigned codes the model does not know.
    """
    row_of: dict[Any, int] = {hadm_id: row for row, hadm_id in enumerate(hadm_ids)}
    is_text = are_strings(hadm_ids)
    id_of = {code: i for i, code in enumerate(codes)}
    assigned: dict[int, list[int]] = {}
    num_unknown = 0
    with path.open(newline="", encoding="utf-8") as file:
        for number, fields in enumerate(csv.reader(file, delimiter="|"), 1):
            if not fields:
                continue
            where = f"{path.name}, line {number}"
            if not is_text and not fields[0].strip().isdecimal():
                raise ValueError(f"{where}: expected `hadm_id|code|code...`, and a whole number as hadm_id.")
            row = row_of.get(fields[0], row_of.get(fields[0].strip())) if is_text else row_of.get(int(fields[0]))
            if row is None:
                raise ValueError(f"{where}: this admission is not in the split that is scored: see --split.")
            if row in assigned:
                raise ValueError(f"{where}: this admission has a line already: give each one line with all its codes.")
            given = dict.fromkeys(code.strip() for code in fields[1:] if code.strip())
            assigned[row] = [id_of[code] for code in given if code in id_of]
            num_unknown += len(given) - len(assigned[row])
    return assigned, num_unknown


def main(arguments: list[str] | None = None) -> int:
    from ..evaluation.cli import main as evaluate  # which imports this module for `--audit`

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return evaluate(arguments if "--audit" in arguments else [*arguments, "--audit"], "audit", __doc__)


if __name__ == "__main__":
    sys.exit(main())
