"""What is kept of the notes given to the `icd_metrics` module: running sums, ranks and, for the AUCs, scores.

A batch is reduced on arrival to what the metrics need: for every gold code its score and its rank in the note, the number
of predicted codes per note and per code, and the sums of the calibration metrics. Only the two AUCs and the average
precisions look at all scores again; `score_storage` says what is kept for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .inputs import (
    PREDICTIONS_FORMATS,
    REFERENCES_FORMATS,
    check_format,
    check_k,
    check_predictions_are_scores,
    check_rows_in_unit_range,
    check_scores,
    check_threshold,
    gold_pairs,
    read_labels,
    to_numbers,
)
from .ranks import (
    NUM_BINS,
    NUM_CALIBRATION_BINS,
    NUM_LEVELS,
    UNLISTED,
    GoldRanks,
    calibration_bins,
    rank_gold,
    rank_gold_in_lists,
    to_bins,
    to_levels,
)


SCORE_STORAGES = ("float32", "uint16", "histogram")
SCORES_PER_BLOCK = 1 << 20  # bounds the temporary arrays of a large batch
BATCH_LISTS = (
    "_gold_codes",
    "_gold_scores",
    "_gold_ranks",
    "_gold_per_note",
    "_depths",
    "_predicted_per_note",
    "_batches",
    "_lists",
)
RUNNING_SUMS = ("_predicted_per_code", "_scores_in_bin", "_sum_of_squares", "_level_counts", "_code_histogram")


def append_joined(parts: list[np.ndarray], part: np.ndarray) -> None:
    """Append an array, joined with those before it that are not longer: of n small ones log n remain.

    Thousands of small arrays between the large ones that come and go with each batch would keep those from being reused.
    """
    while parts and len(parts[-1]) <= len(part):
        part = np.concatenate([parts.pop(), part])
    parts.append(part)


class BatchStore:
    """Takes in batches of notes; the arguments are those of `ICDMetricsAccumulator`, which computes the metrics from it."""

    def __init__(
        self,
        num_labels: int | None = None,
        *,
        threshold: Any = 0.5,
        k: int | Iterable[int] = (5, 8, 15),
        score_storage: str = "float32",
        references_format: str | None = None,
        predictions_format: str | None = None,
        labels: Any = None,
    ):
        if score_storage not in SCORE_STORAGES:
            raise ValueError(f"`score_storage` must be one of {SCORE_STORAGES}, got {score_storage!r}.")
        check_format(references_format, "references_format", REFERENCES_FORMATS)
        check_format(predictions_format, "predictions_format", PREDICTIONS_FORMATS)
        self._label2id = read_labels(labels)
        if self._label2id is not None and num_labels not in (None, len(self._label2id)):
            raise ValueError(f"`num_labels` is {num_labels}, but `labels` holds {len(self._label2id)} codes.")
        self._given_num_labels = num_labels if self._label2id is None else len(self._label2id)
        self.threshold = check_threshold(threshold, self._given_num_labels)
        self.k = check_k(k)
        self.score_storage = score_storage
        self.references_format = references_format
        self.predictions_format = predictions_format
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.num_labels = self._given_num_labels
        self.num_notes = 0
        self.is_sparse: bool | None = None
        self._gold_codes: list[np.ndarray] = []
        self._gold_scores: list[np.ndarray] = []  # 0 outside a list of the best codes, hence never predicted
        self._gold_ranks: list[np.ndarray] = []
        self._gold_per_note: list[np.ndarray] = []
        self._depths: list[np.ndarray] = []  # down to which rank the order of a note is known
        self._predicted_per_note: list[np.ndarray] = []
        self._batches: list[np.ndarray] = []  # float32 or uint16 (B, C)
        self._room: np.ndarray | None = None  # what the last of them is a part of
        self._lists: list[tuple[np.ndarray, np.ndarray]] = []  # class ids and scores (B, K)
        self._cached_ranks: dict[str, GoldRanks] = {}

    def __len__(self) -> int:
        return self.num_notes

    def add_batch(
        self,
        scores: Any,
        references: Any,
        *,
        references_format: str | None = None,
        predictions_format: str | None = None,
        labels: Any = None,
    ) -> None:
        """Add notes with a score for every code.

        Args:
            scores (array, tensor or sparse matrix of shape `(B, C)`, or such lists):
                Probabilities, 0 to 1; compared as float32. With `predictions_format` `"ids"`, `"codes"` or `"multi_hot"` they
                are the predicted codes of each note instead, without scores: what needs an order of codes is NaN.
            references (array of shape `(B, C)`, or `B` lists):
                Gold codes. An array, a tensor or a sparse matrix is multi-hot. Lists are multi-hot rows, class ids, or code
                strings (with `labels`), whichever they fit; an empty list is a note without codes.
            references_format (`str`, *optional*):
                `"multi_hot"`, `"ids"` or `"codes"`, in place of that of construction; needed where lists fit two of them.
            labels (*optional*): In place of those of construction.

        Raises:
            ValueError: where references cannot be read, or can be read in two ways, e.g. `[[0, 1], [1, 0]]` of two codes.
        """
        references_format = references_format or self.references_format
        predictions_format = predictions_format or self.predictions_format
        label2id = self._label2id if labels is None else read_labels(labels)
        check_format(predictions_format, "predictions_format", PREDICTIONS_FORMATS)
        if predictions_format not in (None, "scores"):
            self._add_predicted_batch(scores, references, predictions_format, references_format, label2id)
            return
        if predictions_format is None:
            check_predictions_are_scores(scores, references_format)
        scores = check_scores(scores, self.num_labels)
        rows, codes = gold_pairs(references, *scores.shape, references_format=references_format, label2id=label2id)
        self._start(scores.shape[1], is_sparse=False)
        rows_per_block = max(1, SCORES_PER_BLOCK // max(1, scores.shape[1]))
        for first in range(0, len(scores), rows_per_block):
            start, stop = np.searchsorted(rows, [first, first + rows_per_block])
            self._add_block(scores[first : first + rows_per_block], rows[start:stop] - first, codes[start:stop])

    def _add_predicted_batch(
        self,
        predicted: Any,
        references: Any,
        predictions_format: str,
        references_format: str | None,
        label2id: dict[str, int] | None,
    ) -> None:
        """Add notes of which only the predicted codes are known, without scores; they are read as references are."""
        num_labels = self._given_num_labels if self._given_num_labels or not label2id else len(label2id)
        if num_labels is None:
            raise ValueError("Predicted codes without scores need `num_labels`, the number of all codes, or `labels`.")
        predicted = predicted if hasattr(predicted, "shape") else list(predicted)
        num_notes = predicted.shape[0] if hasattr(predicted, "shape") else len(predicted)
        rows, codes = gold_pairs(
            predicted,
            num_notes,
            num_labels,
            references_format=predictions_format,
            label2id=label2id,
            name="predictions",
        )
        counts = np.bincount(rows, minlength=num_notes)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        ids = np.full((num_notes, int(counts.max(initial=0)) + 1), -1)  # one -1 at least: nothing else is predicted
        ids[rows, places] = codes
        gold = gold_pairs(references, num_notes, num_labels, references_format=references_format, label2id=label2id)
        self._add_lists(ids, np.ones(ids.shape, np.float32), gold, num_labels, has_order=False)

    def add_topk_batch(
        self,
        ids: Any,
        scores: Any,
        references: Any,
        *,
        references_format: str | None = None,
        labels: Any = None,
    ) -> None:
        """Add notes of which only the best codes are known; every code left out scores no higher than the last one listed.

        Args:
            ids (integer array of shape `(B, K)`):
                Class ids in any order. -1 pads a note whose list is shorter: its further codes are below any threshold.
                Of codes with equal scores at the end of the list, the lower class ids should be kept.
            scores (array of shape `(B, K)`): Their probabilities; ignored where padded.
            references, references_format, labels: As in `add_batch`.
        """
        label2id = self._label2id if labels is None else read_labels(labels)
        num_labels = self._given_num_labels if self._given_num_labels or not label2id else len(label2id)
        if num_labels is None:
            raise ValueError("A list of the best codes needs `num_labels`, the number of all codes, at construction.")
        ids, scores = to_numbers(ids, "`ids`"), to_numbers(scores, "Scores").astype(np.float32, copy=False)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ValueError(
                f"Ids and scores must have the same shape (notes, k), got {ids.shape} and {scores.shape}."
            )
        if ids.dtype.kind not in "iu" and ids.size:
            raise ValueError(f"Listed class ids must be integers, got {ids.dtype}.")
        if ids.size and not (ids.min() >= -1 and ids.max() < num_labels):
            raise ValueError(f"Listed class ids must lie between 0 and {num_labels - 1}, or be -1 for padding.")
        scores = np.where(ids >= 0, scores, 0)
        check_rows_in_unit_range(scores)
        gold = gold_pairs(
            references,
            len(ids),
            num_labels,
            references_format=references_format or self.references_format,
            label2id=label2id,
        )
        self._add_lists(ids.astype(np.int64, copy=False), scores, gold, num_labels, has_order=True)

    def _add_lists(
        self,
        ids: np.ndarray,
        scores: np.ndarray,
        gold: tuple[np.ndarray, np.ndarray],
        num_labels: int,
        has_order: bool,
    ) -> None:
        """Add lists of class ids and scores `(B, K)`, -1 for padding; without an order, no rank in a note is known."""
        rows, codes = gold
        scores = np.where(ids >= 0, scores, 0)
        order = np.lexsort((ids, -scores, ids < 0), axis=1)
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        ranks = rank_gold_in_lists(ids, rows, codes, num_labels)

        self._start(num_labels, is_sparse=True)
        is_listed = ranks != UNLISTED
        gold_scores = np.zeros(len(rows), np.float32)
        gold_scores[is_listed] = scores[rows[is_listed], ranks[is_listed]]
        self._add_gold(rows, codes, gold_scores, ranks, len(ids))
        self._lists.append((ids, scores))
        # With all its gold codes listed, or all codes, nothing about a note is unknown.
        num_listed = (ids >= 0).sum(axis=1)
        is_known = (np.bincount(rows[~is_listed], minlength=len(ids)) == 0) | (num_listed == num_labels)
        append_joined(self._depths, np.where(is_known, UNLISTED, num_listed) if has_order else np.zeros(len(ids), int))

    def merge(self, other: BatchStore) -> None:
        """Take in the notes of another accumulator with the same arguments, such as that of another process."""
        same = (
            self.score_storage == other.score_storage
            and np.array_equal(self.threshold, other.threshold)
            and (None in (self.num_labels, other.num_labels) or self.num_labels == other.num_labels)
        )
        if not same:
            raise ValueError("Only accumulators with the same codes, threshold and storage can be merged.")
        if other.num_labels is None or other.is_sparse is None:
            return
        self._start(other.num_labels, other.is_sparse)
        self.num_notes += other.num_notes
        self._room = None
        for name in BATCH_LISTS:
            getattr(self, name).extend(getattr(other, name))
        for name in RUNNING_SUMS:
            getattr(self, name).__iadd__(getattr(other, name))

    def _start(self, num_labels: int, is_sparse: bool) -> None:
        """Set up the sums at the first batch; later, check that the batch is of the same kind."""
        self._cached_ranks.clear()
        if self.is_sparse is not None:
            if is_sparse != self.is_sparse:
                raise ValueError("Dense scores and lists of the best codes cannot be added to the same accumulator.")
            return
        check_threshold(self.threshold, num_labels)
        self.num_labels, self.is_sparse = num_labels, is_sparse
        has_histogram = self.score_storage == "histogram" and not is_sparse
        self._predicted_per_code = np.zeros(num_labels, np.int64)
        self._scores_in_bin = np.zeros(NUM_CALIBRATION_BINS)
        self._sum_of_squares = np.zeros(1)
        self._level_counts = np.zeros(NUM_LEVELS if has_histogram else 0, np.int64)
        self._code_histogram = np.zeros(num_labels * NUM_BINS if has_histogram else 0, np.uint32)

    def _add_block(self, scores: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> None:
        self._add_gold(rows, codes, scores[rows, codes], rank_gold(scores, rows, codes), len(scores))
        append_joined(self._depths, np.full(len(scores), UNLISTED))

        is_predicted = scores > self.threshold
        self._predicted_per_code += np.count_nonzero(is_predicted, axis=0)
        append_joined(self._predicted_per_note, np.count_nonzero(is_predicted, axis=1))

        flat = scores.astype(np.float64).ravel()
        self._scores_in_bin += np.bincount(calibration_bins(scores).ravel(), flat, NUM_CALIBRATION_BINS)
        self._sum_of_squares += np.square(flat).sum()  # a product of BLAS would wait for threads

        if self.score_storage == "float32":
            self._keep(scores)
        elif self.score_storage == "uint16":
            self._keep(to_levels(scores))
        else:
            levels = to_levels(scores)
            self._level_counts += np.bincount(levels.ravel(), minlength=NUM_LEVELS)
            first_bins = np.arange(scores.shape[1]) * NUM_BINS
            for note_bins in to_bins(levels):
                self._code_histogram[first_bins + note_bins] += 1  # every code once, so no index repeats

    def _keep(self, scores: np.ndarray) -> None:
        """Copy scores behind those of the batch before: arrays of their own would scatter over memory, and as much be lost."""
        filled = len(self._batches[-1]) if self._room is not None else 0
        if self._room is None or filled + len(scores) > len(self._room):
            num_rows = max(len(scores), SCORES_PER_BLOCK // max(1, scores.shape[1]))
            self._room, filled = np.empty((num_rows, scores.shape[1]), scores.dtype), 0
            self._batches.append(self._room)
        self._room[filled : filled + len(scores)] = scores
        self._batches[-1] = self._room[: filled + len(scores)]

    def _add_gold(self, rows: Any, codes: Any, scores: Any, ranks: Any, num_notes: int) -> None:
        self.num_notes += num_notes
        append_joined(self._gold_codes, codes.astype(np.int32))
        append_joined(self._gold_scores, scores.astype(np.float32))
        append_joined(self._gold_ranks, ranks.astype(np.int32))
        append_joined(self._gold_per_note, np.bincount(rows, minlength=num_notes))
