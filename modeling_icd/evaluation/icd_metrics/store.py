"""Keeps what the metrics need of each batch of notes: running sums, ranks and, for the AUCs, scores.

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
    check_predicted,
    check_predictions_are_scores,
    check_scores,
    check_threshold,
    gold_pairs,
    read_labels,
)
from .metrics import CUTOFFS
from .ranks import NUM_CALIBRATION_BINS, GoldRanks, calibration_bins, rank_gold, to_levels


SCORE_STORAGES = ("float32", "uint16")
SCORES_PER_BLOCK = 1 << 20  # bounds the temporary arrays of a large batch


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
        k: int | Iterable[int] = CUTOFFS,
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
        self.has_scores: bool | None = None  # False: only the predicted codes are known
        self.is_by_threshold = True  # False: some batch came with its predicted codes
        self._gold_codes: list[np.ndarray] = []
        self._gold_is_hit: list[np.ndarray] = []
        self._gold_scores: list[np.ndarray] = []
        self._gold_ranks: list[np.ndarray] = []
        self._gold_per_note: list[np.ndarray] = []
        self._predicted_per_note: list[np.ndarray] = []
        self._batches: list[np.ndarray] = []  # float32 or uint16 (B, C)
        self._room: np.ndarray | None = None  # what the last of them is a part of
        self._cached_ranks: dict[str, GoldRanks] = {}

    def __len__(self) -> int:
        return self.num_notes

    def add_batch(
        self,
        scores: Any,
        references: Any,
        *,
        predicted: Any = None,
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
            predicted (bool array of shape `(B, C)`, *optional*):
                Which codes are predicted, where a threshold does not say it, such as the k best codes of each note.
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
            self._add_predicted_codes(scores, references, predictions_format, references_format, label2id)
            return
        if predictions_format is None:
            check_predictions_are_scores(scores, references_format)
        scores = check_scores(scores, self.num_labels)
        rows, codes = gold_pairs(references, *scores.shape, references_format=references_format, label2id=label2id)
        if predicted is not None:
            predicted = check_predicted(predicted, scores.shape)
            self.is_by_threshold = False
        self._start(scores.shape[1], has_scores=True)
        rows_per_block = max(1, SCORES_PER_BLOCK // max(1, scores.shape[1]))
        for first in range(0, len(scores), rows_per_block):
            block = slice(first, first + rows_per_block)
            start, stop = np.searchsorted(rows, [block.start, block.stop])
            is_predicted = scores[block] > self.threshold if predicted is None else predicted[block]
            self._add_block(scores[block], is_predicted, rows[start:stop] - first, codes[start:stop])

    def _add_predicted_codes(
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
        predicted_rows, predicted_codes = gold_pairs(
            predicted,
            num_notes,
            num_labels,
            references_format=predictions_format,
            label2id=label2id,
            name="predictions",
        )
        rows, codes = gold_pairs(
            references, num_notes, num_labels, references_format=references_format, label2id=label2id
        )
        self._start(num_labels, has_scores=False)
        is_hit = np.isin(rows * num_labels + codes, predicted_rows * num_labels + predicted_codes)
        self._add_gold(rows, codes, is_hit, num_notes)
        self._predicted_per_code += np.bincount(predicted_codes, minlength=num_labels)
        append_joined(self._predicted_per_note, np.bincount(predicted_rows, minlength=num_notes))

    def _start(self, num_labels: int, has_scores: bool) -> None:
        """Set up the sums at the first batch; later, check that the batch is of the same kind."""
        self._cached_ranks.clear()
        if self.has_scores is not None:
            if has_scores != self.has_scores:
                raise ValueError(
                    "Scores, and predicted codes without scores, cannot be added to the same accumulator."
                )
            return
        check_threshold(self.threshold, num_labels)
        self.num_labels, self.has_scores = num_labels, has_scores
        self._predicted_per_code = np.zeros(num_labels, np.int64)
        self._scores_in_bin = np.zeros(NUM_CALIBRATION_BINS)
        self._sum_of_squares = 0.0

    def _add_block(self, scores: np.ndarray, is_predicted: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> None:
        self._add_gold(rows, codes, is_predicted[rows, codes], len(scores))
        append_joined(self._gold_scores, scores[rows, codes])
        append_joined(self._gold_ranks, rank_gold(scores, rows, codes))
        self._predicted_per_code += np.count_nonzero(is_predicted, axis=0)
        append_joined(self._predicted_per_note, np.count_nonzero(is_predicted, axis=1))

        flat = scores.astype(np.float64).ravel()
        self._scores_in_bin += np.bincount(calibration_bins(scores).ravel(), flat, NUM_CALIBRATION_BINS)
        self._sum_of_squares += np.square(flat).sum()  # a product of BLAS would wait for threads

        self._keep(scores if self.score_storage == "float32" else to_levels(scores))

    def _add_gold(self, rows: np.ndarray, codes: np.ndarray, is_hit: np.ndarray, num_notes: int) -> None:
        self.num_notes += num_notes
        append_joined(self._gold_codes, codes.astype(np.int32))
        append_joined(self._gold_is_hit, is_hit)
        append_joined(self._gold_per_note, np.bincount(rows, minlength=num_notes))

    def _keep(self, scores: np.ndarray) -> None:
        """Copy scores behind those of the batch before: arrays of their own would scatter over memory, and as much be lost."""
        filled = len(self._batches[-1]) if self._room is not None else 0
        if self._room is None or filled + len(scores) > len(self._room):
            num_rows = max(len(scores), SCORES_PER_BLOCK // max(1, scores.shape[1]))
            self._room, filled = np.empty((num_rows, scores.shape[1]), scores.dtype), 0
            self._batches.append(self._room)
        self._room[filled : filled + len(scores)] = scores
        self._batches[-1] = self._room[: filled + len(scores)]
