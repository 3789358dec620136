"""Measures how good an audit is: how many removed codes it finds again, and how many added wrong codes it doubts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .icd_metrics.metrics import divide
from .intervals import ratio_interval
from .outcomes import Outcomes


CUTOFFS = (1, 5, 10, 20)
SHARE_REMOVED = SHARE_PLANTED = 0.2
NUM_DRAWS = 20


def num_within(places: np.ndarray, notes: np.ndarray, num_notes: int) -> np.ndarray:
    """How many codes of each note have a place below each cut-off, `(N, K)`; places count from 0."""
    return np.stack([np.bincount(notes[places < k], minlength=num_notes) for k in CUTOFFS], axis=1)


def by_cutoff(values: Sequence[Any]) -> dict[str, Any]:
    """Values by their cut-off, as text for JSON."""
    return {str(k): value for k, value in zip(CUTOFFS, values, strict=True)}


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
        found += num_within(place[is_removed], notes[is_removed], outcomes.num_notes)
    if not num_removed.any():
        return None
    return {
        "share_removed": SHARE_REMOVED,
        "num_draws": NUM_DRAWS,
        "num_removed": float(num_removed.sum() / NUM_DRAWS),
        "recall_at_k": by_cutoff(divide(found.sum(axis=0), num_removed.sum()).tolist()),
        "intervals": by_cutoff(ratio_interval(found, num_removed, seed=seed).tolist()),
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
        As `recall_of_removed`, with the intervals under `recall_intervals` and `precision_intervals`; `num_planted` and
        `num_assigned` are means of a draw. `None` where nothing was planted.
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
        listed += num_within(place, note, num_notes)
        found += num_within(place[is_planted], note[is_planted], num_notes)
    if not num_planted.any():
        return None
    figures: dict[str, Any] = {
        "share_planted": SHARE_PLANTED,
        "num_draws": NUM_DRAWS,
        "num_planted": float(num_planted.sum() / NUM_DRAWS),
        "num_assigned": float(len(gold) + num_planted.sum() / NUM_DRAWS),
    }
    for name, whole in (("recall", num_planted[:, None]), ("precision", listed)):
        figures[f"{name}_at_k"] = by_cutoff(divide(found.sum(axis=0), whole.sum(axis=0)).tolist())
        intervals = ratio_interval(found, whole, seed=seed).tolist() if whole.any() else [None] * len(CUTOFFS)
        figures[f"{name}_intervals"] = by_cutoff(intervals)
    return figures
