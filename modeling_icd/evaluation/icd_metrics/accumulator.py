"""`ICDMetricsAccumulator`, which takes scores batch by batch and computes all metrics at the end; imports numpy only.

Three conventions hold everywhere:

- **Decision.** A code is predicted where `score > threshold`, in float32, unless `add_batch` is told what is predicted.
- **Rank.** Codes of a note are ranked by falling score; among equal scores the lower class id comes first.
- **Empty sets.** A ratio with a zero denominator is 0 (a code never gold nor predicted, a note without gold codes), and what
  it belongs to stays in the mean, as in CAML. NaN means that the data cannot define the value: an AUC without both classes,
  or what needs scores where only the predicted codes were given. Nothing else is NaN.

Formulas of the metrics that count codes, and of those of ranks, are in `metrics.py`, beside the table of all metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .inputs import check_k, check_threshold
from .metrics import Counts, Tally, all_metrics
from .ranks import (
    NUM_CALIBRATION_BINS,
    NUM_LEVELS,
    GoldRanks,
    best_cuts_of_groups,
    calibration_bins,
    curves_of_groups,
    cut_between,
    from_levels,
    rank_in_batches,
    rank_in_columns,
    rank_in_histogram,
    to_levels,
)
from .ratios import mean_of_defined, ratios
from .store import SCORE_STORAGES, BatchStore


__all__ = ["SCORE_STORAGES", "ICDMetricsAccumulator"]


class ICDMetricsAccumulator(BatchStore):
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

    def compute(
        self, threshold: Any = None, k: int | Iterable[int] | None = None, tune_threshold: bool = False
    ) -> dict[str, float]:
        """Return every metric of the notes added so far, without forgetting them.

        Args:
            threshold (`float` or array of shape `(C,)`, *optional*):
                In place of the one given at construction, or of what `add_batch` was told.
            k (`tuple[int]`, *optional*): In place of the one given at construction.
            tune_threshold (`bool`, defaults to `False`):
                Also report the best global threshold of these notes as `threshold`, and the micro F1 that it gives them as
                `f1_micro_tuned`. Meant for the validation split only.

        Returns:
            `dict[str, float]`: the metrics of the table in `metrics.py`, and how many notes and codes they rest on (`int`).
        """
        tally = self._tally(threshold)
        of_scores = {**self.curve_metrics(), **self.calibration_metrics()}
        results: dict[str, float] = {}
        for metric in all_metrics(self.k if k is None else check_k(k)):
            if metric.needs_scores and not self.has_scores:
                results[metric.name] = math.nan
            else:
                value = of_scores[metric.name] if metric.compute is None else metric.compute(tally)[0]
                results[metric.name] = float(value)
        results |= {name: value for name, value in of_scores.items() if name not in results}
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

        - `auc_micro`: all pairs of note and code as one ranking.
        - `auc_macro`: mean over the codes with both a gold note and another note in this split, as in CAML; every other code
          is left out (`num_codes_in_auc_macro` counts those in).
        - `average_precision_micro`, and `average_precision_macro`: mean over the codes with a gold note.

        NaN where nothing is left to average. With binned scores, `auc_micro_error` and `auc_macro_error` bound the distance
        to the exact AUC.
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
        gold_scores = np.concatenate(self._gold_scores)
        gold_in_bin = np.bincount(calibration_bins(gold_scores), minlength=NUM_CALIBRATION_BINS)
        num_pairs = self.num_notes * self._num_columns
        squares = self._sum_of_squares - 2 * gold_scores.sum(dtype=np.float64) + len(gold_scores)
        return {
            "ece": float(np.abs(self._scores_in_bin - gold_in_bin).sum() / num_pairs),
            "brier": float(squares / num_pairs),
        }

    def best_threshold(self) -> tuple[float, float]:
        """Return the global threshold with the best micro F1 on these notes, and that F1.

        The threshold lies half way between the lowest score predicted and the next lower one; of equal F1 the highest is
        chosen. Where no threshold predicts a gold code, it is 0.5 with an F1 of 0. With binned scores the candidates are
        the levels, and the F1 is exact for the threshold returned.
        """
        self._check_not_empty()
        if not self.has_scores:
            raise ValueError("Tuning the threshold needs the scores of all codes, not predicted codes alone.")
        cuts, f1 = best_cuts_of_groups(self._micro_ranks(), self.num_notes * self._num_columns, 1)
        cut = cuts[0]
        if cut == 0:
            return 0.5, 0.0
        lower = max(batch.max(initial=0, where=batch < cut) for batch in self._batches)
        if self.score_storage == "float32":
            return float(cut_between(lower, cut)), float(f1[0])
        return float(from_levels(np.array((int(lower) + int(cut)) // 2))), float(f1[0])

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

    def _tally(self, threshold: Any) -> Tally:
        """Count gold, predicted and rightly predicted codes: as they were added, or at another threshold."""
        self._check_not_empty()
        num_gold, gold_codes = np.concatenate(self._gold_per_note), np.concatenate(self._gold_codes)
        is_hit = np.concatenate(self._gold_is_hit)
        by_code, by_note = self._predicted_per_code, np.concatenate(self._predicted_per_note)
        cut = self.threshold if threshold is None else check_threshold(threshold, self._num_columns)
        if threshold is not None and not (self.is_by_threshold and np.array_equal(cut, self.threshold)):
            by_code, by_note = self._count_predicted(cut)
            is_hit = np.concatenate(self._gold_scores) > np.broadcast_to(cut, self._num_columns)[gold_codes]
        note = np.repeat(np.arange(self.num_notes), num_gold)
        return Tally(
            Counts(
                hits=np.bincount(gold_codes[is_hit], minlength=self._num_columns)[None],
                predicted=by_code[None],
                gold=np.bincount(gold_codes, minlength=self._num_columns)[None],
            ),
            Counts(np.bincount(note[is_hit], minlength=self.num_notes), by_note, num_gold),
            np.concatenate(self._gold_ranks) if self.has_scores else np.zeros(len(gold_codes), np.int32),
        )

    def _count_predicted(self, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted pairs of each code and of each note at another threshold than that of construction."""
        if not self.has_scores:
            raise ValueError("`threshold` needs scores, but only the predicted codes of each note were given.")
        if self.score_storage == "uint16" and not np.array_equal(cut, from_levels(to_levels(cut))):
            raise ValueError(
                f"With `score_storage={self.score_storage!r}` another threshold than that of construction cannot be counted "
                'exactly. Give it at construction, or use "float32".'
            )
        limit = cut if self.score_storage == "float32" else to_levels(cut).reshape(cut.shape)
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
            gold_scores = np.sort(np.concatenate(self._gold_scores))
            if self.score_storage == "float32":
                values, ranks = gold_scores, rank_in_batches(self._batches, gold_scores)
            else:
                values = to_levels(gold_scores)
                level_counts = np.zeros(NUM_LEVELS, np.int64)
                for batch in self._batches:
                    level_counts += np.bincount(batch.ravel(), minlength=NUM_LEVELS)
                ranks = rank_in_histogram(level_counts, values)
            self._cached_ranks["micro"] = GoldRanks(np.zeros(len(values), np.int64), values, *ranks)
        return self._cached_ranks["micro"]

    def _code_ranks(self) -> GoldRanks:
        """Rank every gold pair among the pairs of its code."""
        if "code" not in self._cached_ranks:
            codes, scores = np.concatenate(self._gold_codes), np.concatenate(self._gold_scores)
            values = scores if self.score_storage == "float32" else to_levels(scores)
            self._cached_ranks["code"] = rank_in_columns(self._batches, codes, values)
        return self._cached_ranks["code"]
