"""Auditing codes that were assigned already: which are likely missed, which likely unsupported, and how good such lists are."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_scripts.files import write_csv

from .icd_metrics.ratios import divide
from .intervals import ratio_interval
from .outcomes import Outcomes


AUDIT_FILE = "audit.csv"
COLUMNS = ("hadm_id", "finding", "rank", "code", "description", "score", "predicted")
NUM_MISSED = 20  # listed for each note
CUTOFFS = (1, 5, 10, 20)
SHARE_REMOVED = SHARE_PLANTED = 0.2
NUM_DRAWS = 20


def likely_missed(scores: np.ndarray, assigned: Sequence[int], k: int = NUM_MISSED) -> list[int]:
    """Class ids of the k best codes of a note that were not assigned, the likeliest first; of equal scores lower ids first.

    Args:
        scores (`(C,)`): Of the note.
        assigned (`Sequence[int]`): Class ids.
    """
    order = np.argsort(-scores, kind="stable")
    return order[~np.isin(order, assigned)][:k].tolist()


def likely_unsupported(scores: np.ndarray, assigned: Sequence[int], is_predicted: np.ndarray) -> list[int]:
    """Class ids of the assigned codes of a note that the model does not predict, the least supported first.

    Args:
        scores (`(C,)`), assigned (`Sequence[int]`): As in `likely_missed`.
        is_predicted (`(C,)` bool): Which codes the model predicts.
    """
    doubted = np.array([code for code in sorted(assigned) if not is_predicted[code]], np.int64)
    return doubted[np.argsort(scores[doubted], kind="stable")].tolist()


def audit(
    scores: np.ndarray,
    outcomes: Outcomes,
    assigned: Mapping[int, Sequence[int]],
    *,
    num_known: int,
    hadm_ids: Sequence[int],
    codes: Sequence[str],
    descriptions: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Findings on every note that has assigned codes, as rows of `audit.csv`.

    Args:
        scores (`(N, C)`): Of the split.
        outcomes (`Outcomes`): What the model predicts.
        assigned (`Mapping[int, Sequence[int]]`): Class ids by row of the split; a row not in it is not audited.
        num_known (`int`): Columns that the model knows, the first ones: of other codes it cannot say anything.
        hadm_ids, codes, descriptions: Of the rows, of the columns, and titles by code.
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
                values = (
                    hadm_ids[note],
                    finding,
                    rank,
                    codes[code],
                    descriptions.get(codes[code], ""),
                    f"{of_note[code]:.4f}",
                    "yes" if is_predicted[note, code] else "no",
                )
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def write_audit(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write `audit.csv`, whole or not at all. It names admissions and codes: as confidential as the data set."""
    return write_csv(rows, COLUMNS, folder / AUDIT_FILE, private=True)


def read_assigned(path: Path, hadm_ids: Sequence[int], codes: Sequence[str]) -> tuple[dict[int, list[int]], int]:
    """Read assigned codes from a file with a line `hadm_id|code|code...` for each admission, as in `preds_*.psv`.

    Args:
        hadm_ids (`Sequence[int]`): Of the split; a line of another admission is an error.
        codes (`Sequence[str]`): That the model knows, by class id.

    Returns:
        Class ids by row of the split, and how many assigned codes the model does not know.
    """
    row_of = {hadm_id: row for row, hadm_id in enumerate(hadm_ids)}
    id_of = {code: i for i, code in enumerate(codes)}
    assigned: dict[int, list[int]] = {}
    num_unknown = 0
    with path.open(newline="", encoding="utf-8") as file:
        for number, fields in enumerate(csv.reader(file, delimiter="|"), 1):
            if not fields:
                continue
            where = f"{path.name}, line {number}"
            if not fields[0].strip().isdecimal():
                raise ValueError(f"{where}: expected `hadm_id|code|code...`, and a whole number as hadm_id.")
            row = row_of.get(int(fields[0]))
            if row is None:
                raise ValueError(f"{where}: this admission is not in the split that is scored: see --split.")
            if row in assigned:
                raise ValueError(f"{where}: this admission has a line already: give each one line with all its codes.")
            given = dict.fromkeys(code.strip() for code in fields[1:] if code.strip())
            assigned[row] = [id_of[code] for code in given if code in id_of]
            num_unknown += len(given) - len(assigned[row])
    return assigned, num_unknown


def recall_of_removed(outcomes: Outcomes, *, seed: int = 0) -> dict[str, Any] | None:
    """How many gold codes that were taken away an audit finds again.

    In each of 20 draws every gold code is removed with probability 0.2; the rest count as assigned. With r the rank of a
    removed code in its note among the codes that are not assigned,

        recall_at_k = #{removed: r <= k} / #{removed},   over all notes and draws

    A removed code that the model does not know ranks last, and so counts as missed.

    Returns:
        `share_removed`, `num_draws`, `num_removed` (mean of a draw), `recall_at_k` and `intervals` (by k, as text for JSON;
        95 %, over notes); `None` where nothing was removed.
    """
    rng = np.random.default_rng(seed)
    by_rank = np.lexsort((outcomes.gold_ranks, outcomes.gold_notes))
    notes, ranks = outcomes.gold_notes[by_rank], outcomes.gold_ranks[by_rank]
    num_removed = np.zeros(outcomes.num_notes)
    found = np.zeros((outcomes.num_notes, len(CUTOFFS)))
    for _ in range(NUM_DRAWS):
        is_removed = rng.random(len(notes)) < SHARE_REMOVED
        is_kept = (~is_removed).astype(np.int64)
        kept_before: np.ndarray = np.cumsum(is_kept) - is_kept  # over all notes
        first_of_note = np.searchsorted(notes, notes)
        place = ranks - (kept_before - kept_before[first_of_note])
        num_removed += np.bincount(notes[is_removed], minlength=outcomes.num_notes)
        for column, cutoff in enumerate(CUTOFFS):
            found[:, column] += np.bincount(notes[is_removed & (place < cutoff)], minlength=outcomes.num_notes)
    if not num_removed.any():
        return None
    recall = divide(found.sum(axis=0), num_removed.sum())
    intervals = ratio_interval(found, num_removed, seed=seed)
    return {
        "share_removed": SHARE_REMOVED,
        "num_draws": NUM_DRAWS,
        "num_removed": float(num_removed.sum() / NUM_DRAWS),
        "recall_at_k": {str(k): float(value) for k, value in zip(CUTOFFS, recall, strict=True)},
        "intervals": {str(k): interval.tolist() for k, interval in zip(CUTOFFS, intervals, strict=True)},
    }


def planted_found(
    scores: np.ndarray, outcomes: Outcomes, frequency: Sequence[int], *, num_known: int, seed: int = 0
) -> dict[str, Any] | None:
    """How many codes that a note does not support an audit doubts, and how many of those it doubts are such.

    In each of 20 draws a code is planted for every gold code with probability 0.2, drawn by its frequency in training, so
    that it is one that coders do assign; a code that the note has already is left out. Gold and planted codes count as
    assigned. With r the rank of a code in its note's list of likely unsupported ones,

        recall_at_k = #{planted: r <= k} / #{planted},   precision_at_k = #{planted: r <= k} / #{listed: r <= k}

    over all notes and draws. A planted code that the model predicts is on no list, and so missed.

    Args:
        scores (`(N, C)`), outcomes (`Outcomes`): Of the split.
        frequency (`Sequence[int]` of length C): How often each code is planted, in proportion.
        num_known (`int`): Columns that the model knows, the first ones; of other codes an audit says nothing.

    Returns:
        `share_planted`, `num_draws`, `num_planted` and `num_assigned` (means of a draw), `recall_at_k`, `precision_at_k` and
        `recall_intervals`, `precision_intervals` (by k, as text for JSON; 95 %, over notes); `None` where nothing was planted.
    """
    rng = np.random.default_rng(seed)
    num_notes, num_codes = scores.shape
    weights = np.asarray(frequency[:num_known], np.float64)
    is_known = outcomes.gold_codes < num_known
    notes = outcomes.gold_notes[is_known]
    gold = notes * num_codes + outcomes.gold_codes[is_known]
    is_predicted = np.zeros(scores.shape, bool)
    is_predicted[outcomes.predicted_notes, outcomes.predicted_codes] = True
    num_planted = np.zeros(num_notes)
    listed, found = np.zeros((num_notes, len(CUTOFFS))), np.zeros((num_notes, len(CUTOFFS)))
    for _ in range(NUM_DRAWS if weights.any() else 0):
        given = notes[rng.random(len(notes)) < SHARE_PLANTED]
        drawn = rng.choice(num_known, len(given), p=weights / weights.sum())
        planted = np.setdiff1d(given * num_codes + drawn, gold)
        assigned = np.concatenate([gold, planted])
        note, code = np.divmod(assigned, num_codes)
        order = np.lexsort((code, scores[note, code], note))
        order = order[~is_predicted[note[order], code[order]]]
        note, is_planted = note[order], order >= len(gold)
        place = np.arange(len(note)) - np.searchsorted(note, note)
        num_planted += np.bincount(planted // num_codes, minlength=num_notes)
        for column, cutoff in enumerate(CUTOFFS):
            listed[:, column] += np.bincount(note[place < cutoff], minlength=num_notes)
            found[:, column] += np.bincount(note[is_planted & (place < cutoff)], minlength=num_notes)
    if not num_planted.any():
        return None
    figures: dict[str, Any] = {
        "share_planted": SHARE_PLANTED,
        "num_draws": NUM_DRAWS,
        "num_planted": float(num_planted.sum() / NUM_DRAWS),
        "num_assigned": float(len(gold) + num_planted.sum() / NUM_DRAWS),
    }
    for name, whole in (("recall", num_planted[:, None]), ("precision", listed)):
        shares = divide(found.sum(axis=0), whole.sum(axis=0))
        figures[f"{name}_at_k"] = {str(k): float(share) for k, share in zip(CUTOFFS, shares, strict=True)}
        intervals = ratio_interval(found, whole, seed=seed).tolist() if whole.any() else [None] * len(CUTOFFS)
        figures[f"{name}_intervals"] = {str(k): interval for k, interval in zip(CUTOFFS, intervals, strict=True)}
    return figures
