"""`ICDMetricsAccumulator`, which takes scores batch by batch and computes all metrics at the end; imports numpy only.

Three conventions hold everywhere:

- **Decision.** A code is predicted where `score > threshold`, in float32, unless `add_batch` is told what is predicted.
- **Rank.** Codes of a note are ranked by falling score; among equal scores the lower class id comes first.
- **Empty sets.** A ratio with a zero denominator is 0 (a code never gold nor predicted, a note without gold codes), and what
  it belongs to stays in the mean, as in CAML. NaN means that the data cannot define the value: an AUC without both classes,
  or what needs scores where only the predicted codes were given. Nothing else is NaN.

A batch is reduced on arrival to what the metrics need: for every gold code its score and its rank in the note, the number of
predicted codes per note and per code, and the sums of the calibration metrics. Only AUCs, average precisions and thresholds
look at all scores again; `score_storage` says what is kept for them.

Formulas of the metrics that count codes, and of those of ranks, are in `metrics.py`, beside the table of all metrics.
"""

from __future__ import annotations

import math
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
from .metrics import CUTOFFS, Counts, Tally, all_metrics, mean_of_defined, ratios
from .ranks import (
    NUM_CALIBRATION_BINS,
    GoldRanks,
    best_threshold,
    calibration_bins,
    curves_of_groups,
    from_levels,
    rank_gold,
    rank_in_batches,
    rank_in_columns,
    to_levels,
)


SCORE_STORAGES = ("float32", "uint16")
SCORES_PER_BLOCK = 1 << 20  # bounds the temporary arrays of a large batch
GOLD_PAIR = np.dtype(
    [("note", np.int32), ("code", np.int32), ("is_hit", bool), ("score", np.float32), ("rank", np.int32)]
)


def append_joined(parts: list[np.ndarray], part: np.ndarray) -> None:
    """Append an array, joined with those before it that are not longer: of n small ones log n remain.

    Thousands of small arrays between the large ones that come and go with each batch would keep those from being reused.
    """
    while parts and len(parts[-1]) <= len(part):
        part = np.concatenate([parts.pop(), part])
    parts.append(part)


class ICDMetricsAccumulator:
    """Metrics of multi-label coding from batches of scores.

    Args:
        num_labels (`int`, *optional*):
            Number of codes C; read from the first batch of scores when left out.
        threshold (`float` or array of shape `(C,)`, defaults to 0.5):
            A code is predicted where `score > threshold`.
        k (`tuple[int]`, defaults to `(5, 8, 15)`):
            Cut-offs of the `_at_k` metrics. A k beyond C is allowed; precision still divides by k.
        score_storage (`str`, defaults to `"float32"`):
            What is kept of scores for AUC, average precision and the tuned threshold. Every other metric is exact in both.

            - `"float32"`: all scores, 4 bytes each. Exact; other thresholds can be asked for in `compute`.
            - `"uint16"`: all scores on 63,489 levels (0.05 % of the score apart), 2 bytes each. `compute` takes another
              threshold where that is a level. Scores on one level count as tied; `auc_micro_error` and `auc_macro_error`
              bound what that costs.
        references_format (`str`, *optional*):
            How gold codes given as lists are read: `"multi_hot"`, `"ids"` or `"codes"`. Left out, lists that fit two of them
            are an error.
        predictions_format (`str`, *optional*):
            `"scores"`, or as `references_format`: then predictions are the predicted codes of each note, without scores.
        labels (`list[str]`, *optional*):
            The codes in the order of the score columns, or a model's `id2label`; for references that are code strings.
    """

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
        self._gold: list[np.ndarray] = []  # of `GOLD_PAIR`
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
        num_labels = self._given_num_labels or (len(label2id) if label2id else None)
        if num_labels is None:
            raise ValueError("Predicted codes without scores need `num_labels`, the number of all codes, or `labels`.")
        predicted = predicted if hasattr(predicted, "shape") else list(predicted)
        shape = (predicted.shape[0] if hasattr(predicted, "shape") else len(predicted), num_labels)
        is_predicted = np.zeros(shape, bool)
        is_predicted[
            gold_pairs(predicted, *shape, references_format=predictions_format, label2id=label2id, name="predictions")
        ] = True
        rows, codes = gold_pairs(references, *shape, references_format=references_format, label2id=label2id)
        self._start(num_labels, has_scores=False)
        self._add_counts(is_predicted, rows, codes)

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
        self._add_counts(is_predicted, rows, codes, scores[rows, codes], rank_gold(scores, rows, codes))
        flat = scores.astype(np.float64).ravel()
        self._scores_in_bin += np.bincount(calibration_bins(scores).ravel(), flat, NUM_CALIBRATION_BINS)
        self._sum_of_squares += np.square(flat).sum()  # a product of BLAS would wait for threads
        self._keep(self._as_kept(scores))

    def _add_counts(
        self, is_predicted: np.ndarray, rows: np.ndarray, codes: np.ndarray, scores: Any = 0, ranks: Any = 0
    ) -> None:
        """Add the gold pairs of a batch, and how many of its pairs are predicted."""
        gold = np.empty(len(rows), GOLD_PAIR)
        gold["note"], gold["code"], gold["is_hit"] = rows + self.num_notes, codes, is_predicted[rows, codes]
        gold["score"], gold["rank"] = scores, ranks
        append_joined(self._gold, gold)
        self._predicted_per_code += np.count_nonzero(is_predicted, axis=0)
        append_joined(self._predicted_per_note, np.count_nonzero(is_predicted, axis=1))
        self.num_notes += len(is_predicted)

    def _as_kept(self, scores: np.ndarray) -> np.ndarray:
        return scores if self.score_storage == "float32" else to_levels(scores)

    def _keep(self, scores: np.ndarray) -> None:
        """Copy scores behind those of the batch before: arrays of their own would scatter over memory, and as much be lost."""
        filled = len(self._batches[-1]) if self._room is not None else 0
        if self._room is None or filled + len(scores) > len(self._room):
            num_rows = max(len(scores), SCORES_PER_BLOCK // max(1, scores.shape[1]))
            self._room, filled = np.empty((num_rows, scores.shape[1]), scores.dtype), 0
            self._batches.append(self._room)
        self._room[filled : filled + len(scores)] = scores
        self._batches[-1] = self._room[: filled + len(scores)]

    def compute(
        self, threshold: Any = None, k: int | Iterable[int] | None = None, tune_threshold: bool = False
    ) -> dict[str, float]:
        """Return every metric of the notes added so far, without forgetting them.

        Args:
            threshold, k (*optional*): In place of those of construction, or of what `add_batch` was told is predicted.
            tune_threshold (`bool`, defaults to `False`):
                Also report the best global threshold of these notes as `threshold`, and the micro F1 that it gives them as
                `f1_micro_tuned`. Meant for the validation split only.

        Returns:
            The metrics of the table in `metrics.py`, and how many notes and codes they rest on (`int`).
        """
        tally = self._tally(threshold)
        of_scores = {**self.curve_metrics(), **self.calibration_metrics()}
        results: dict[str, float] = {}
        for metric in all_metrics(self.k if k is None else check_k(k)):
            if metric.needs_scores and not self.has_scores:
                results[metric.name] = math.nan
            else:
                value = of_scores.pop(metric.name) if metric.compute is None else metric.compute(tally)[0]
                results[metric.name] = float(value)
        results |= of_scores  # the errors of binned AUCs
        if tune_threshold:
            results["threshold"], results["f1_micro_tuned"] = self.best_threshold()
        support = tally.by_code.gold
        return {
            **results,
            "num_notes": self.num_notes,
            "num_notes_without_codes": int((tally.num_gold == 0).sum()),
            "num_codes_seen": int((support > 0).sum()),
            "num_codes_in_auc_macro": int(((support > 0) & (support < self.num_notes)).sum()),
        }

    def curve_metrics(self) -> dict[str, float]:
        """Areas under curves over all thresholds; see `curves_of_groups` for the formulas. Empty without scores.

        Micro figures take all pairs of note and code as one ranking. `auc_macro` is the mean over the codes with both a gold
        note and another one in this split, as in CAML (`num_codes_in_auc_macro` counts them), `average_precision_macro` that
        over the codes with a gold note; NaN where there is none. With binned scores, `auc_micro_error` and `auc_macro_error`
        bound the distance to the exact AUC.
        """
        self._check_not_empty()
        if not self.has_scores:
            return {}
        micro = curves_of_groups(self._micro_ranks(), self.num_notes * self._num_columns, 1)
        macro = curves_of_groups(self._code_ranks(), self.num_notes, self._num_columns)
        metrics = {
            "auc_micro": float(micro.auc[0]),
            "auc_macro": mean_of_defined(macro.auc),
            "average_precision_micro": float(micro.average_precision[0]),
            "average_precision_macro": mean_of_defined(macro.average_precision),
        }
        if self.score_storage != "float32":
            metrics["auc_micro_error"] = float(micro.tied[0])
            metrics["auc_macro_error"] = mean_of_defined(macro.tied)
        return metrics

    def calibration_metrics(self) -> dict[str, float]:
        """How far scores are from frequencies, over all pairs of note and code (mostly easy negatives: read with care).

        - `ece` = sum over 15 equal bins b of n_b / n * |mean score in b - share of gold in b| (Guo et al., arXiv 1706.04599,
          for the probability of the code itself; a score on an edge belongs to the upper bin, 1 to the last).
        - `brier` = mean of (score - gold)^2 (Brier 1950).

        Empty without scores.
        """
        self._check_not_empty()
        if not self.has_scores:
            return {}
        gold_scores = self._all_gold()["score"]
        gold_in_bin = np.bincount(calibration_bins(gold_scores), minlength=NUM_CALIBRATION_BINS)
        num_pairs = self.num_notes * self._num_columns
        squares = self._sum_of_squares - 2 * gold_scores.sum(dtype=np.float64) + len(gold_scores)
        return {
            "ece": float(np.abs(self._scores_in_bin - gold_in_bin).sum() / num_pairs),
            "brier": float(squares / num_pairs),
        }

    def best_threshold(self) -> tuple[float, float]:
        """Return the global threshold with the best micro F1 on these notes, and that F1: see `ranks.best_threshold`.

        With binned scores the candidates are the levels, and the F1 is exact for the threshold returned.
        """
        self._check_not_empty()
        if not self.has_scores:
            raise ValueError("Tuning the threshold needs the scores of all codes, not predicted codes alone.")
        return best_threshold(self._batches, self._micro_ranks())

    def codes_predicted(self, threshold: Any = None) -> float:
        """Return the share of codes that are predicted for at least one note."""
        return float((self._tally(threshold).by_code.predicted > 0).mean())

    def per_code(self, threshold: Any = None) -> dict[str, np.ndarray]:
        """Return counts and metrics of each code, as arrays of shape `(C,)` by class id.

        `tp`, `fp`, `fn`; `precision`, `recall`, `f1` (0 where undefined); `auc` and `average_precision` (NaN where
        undefined).
        """
        hits, predicted, gold = (counts[0] for counts in self._tally(threshold).by_code)
        of_code = ratios(hits, predicted, gold)
        auc = average_precision = np.full(self._num_columns, math.nan)
        if self.has_scores:
            curves = curves_of_groups(self._code_ranks(), self.num_notes, self._num_columns)
            auc, average_precision = curves.auc, curves.average_precision
        return {
            "tp": hits,
            "fp": predicted - hits,
            "fn": gold - hits,
            "precision": of_code.precision,
            "recall": of_code.recall,
            "f1": of_code.f1,
            "auc": auc,
            "average_precision": average_precision,
        }

    @property
    def _num_columns(self) -> int:
        self._check_not_empty()
        return int(self.num_labels or 0)

    def _check_not_empty(self) -> None:
        if not self.num_notes:
            raise ValueError("No notes were added: call `add_batch` before `compute`.")

    def _all_gold(self) -> np.ndarray:
        """The gold pairs of all batches, of `GOLD_PAIR`."""
        return np.concatenate(self._gold)

    def _tally(self, threshold: Any) -> Tally:
        """Count gold, predicted and rightly predicted codes: as they were added, or at another threshold."""
        self._check_not_empty()
        gold = self._all_gold()
        is_hit, by_code, by_note = gold["is_hit"], self._predicted_per_code, np.concatenate(self._predicted_per_note)
        cut = self.threshold if threshold is None else check_threshold(threshold, self._num_columns)
        if threshold is not None and not (self.is_by_threshold and np.array_equal(cut, self.threshold)):
            by_code, by_note = self._count_predicted(cut)
            is_hit = gold["score"] > np.broadcast_to(cut, self._num_columns)[gold["code"]]

        def counts(of: str, predicted: np.ndarray) -> Counts:
            hits, num_gold = (np.bincount(pairs[of], minlength=len(predicted)) for pairs in (gold[is_hit], gold))
            return Counts(hits, predicted, num_gold)

        of_codes = Counts(*(values[None] for values in counts("code", by_code)))
        return Tally(of_codes, counts("note", by_note), gold["rank"])

    def _count_predicted(self, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted pairs of each code and of each note at another threshold than that of construction."""
        if not self.has_scores:
            raise ValueError("`threshold` needs scores, but only the predicted codes of each note were given.")
        if self.score_storage == "uint16" and not np.array_equal(cut, from_levels(to_levels(cut))):
            raise ValueError(
                f"With `score_storage={self.score_storage!r}` another threshold than that of construction cannot be counted "
                'exactly. Give it at construction, or use "float32".'
            )
        limit = self._as_kept(cut).reshape(cut.shape)
        per_code = np.zeros(self._num_columns, np.int64)
        per_note = []
        for batch in self._batches:
            is_predicted = batch > limit
            per_code += np.count_nonzero(is_predicted, axis=0)
            per_note.append(np.count_nonzero(is_predicted, axis=1))
        return per_code, np.concatenate(per_note)

    def _micro_ranks(self) -> GoldRanks:
        """Rank every gold pair among all pairs."""
        if "micro" not in self._cached_ranks:
            values = self._as_kept(self._all_gold()["score"])
            self._cached_ranks["micro"] = rank_in_batches(self._batches, values)
        return self._cached_ranks["micro"]

    def _code_ranks(self) -> GoldRanks:
        """Rank every gold pair among the pairs of its code."""
        if "code" not in self._cached_ranks:
            gold = self._all_gold()
            self._cached_ranks["code"] = rank_in_columns(self._batches, gold["code"], self._as_kept(gold["score"]))
        return self._cached_ranks["code"]
