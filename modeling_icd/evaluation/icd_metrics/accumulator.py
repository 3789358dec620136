"""The metrics of the `icd_metrics` module, from what `store.py` keeps of each batch; imports numpy only.

Three conventions hold everywhere:

- **Decision.** A code is predicted where `score > threshold`, in float32.
- **Rank.** Codes of a note are ranked by falling score; among equal scores the lower class id comes first.
- **Empty sets.** A ratio with a zero denominator is 0 (a code never gold nor predicted, a note without gold codes), and what
  it belongs to stays in the mean, as in CAML. NaN means that the data cannot define the value: an AUC without both classes,
  or a value that a list of the best codes is too short to give. Nothing else is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .inputs import check_k, check_threshold
from .ranks import (
    NUM_BINS,
    NUM_CALIBRATION_BINS,
    NUM_LEVELS,
    UNLISTED,
    GoldRanks,
    best_cuts_of_groups,
    calibration_bins,
    curves_of_groups,
    cut_between,
    divide,
    f1_of,
    from_levels,
    mean_of_defined,
    rank_in_batches,
    rank_in_columns,
    rank_in_histogram,
    ratios,
    to_bins,
    to_levels,
)
from .store import SCORE_STORAGES, BatchStore


__all__ = ["SCORE_STORAGES", "ICDMetricsAccumulator"]


class Counts(NamedTuple):
    """Gold, predicted and rightly predicted pairs by code `(C,)` and by note `(N,)`."""

    code_hits: np.ndarray
    code_predicted: np.ndarray
    code_gold: np.ndarray
    note_hits: np.ndarray
    note_predicted: np.ndarray
    note_gold: np.ndarray
    complete: bool  # False where a list of the best codes stops above the threshold


class ICDMetricsAccumulator(BatchStore):
    """Metrics of multi-label coding from batches of scores.

    Give either dense scores (`add_batch`) or, for each note, the best codes only (`add_topk_batch`).

    Args:
        num_labels (`int`, *optional*):
            Number of codes C; read from the first dense batch when left out.
        threshold (`float` or array of shape `(C,)`, defaults to 0.5):
            A code is predicted where `score > threshold`.
        k (`tuple[int]`, defaults to `(5, 8, 15)`):
            Cut-offs of the `_at_k` metrics. A k beyond C is allowed; precision still divides by k.
        score_storage (`str`, defaults to `"float32"`):
            What is kept of dense scores for AUC, average precision and the tuned threshold. Every other metric is exact in
            each of the three.

            - `"float32"`: all scores, 4 bytes each. Exact; other thresholds can be asked for in `compute`.
            - `"uint16"`: all scores on 63,489 levels (0.05 % of the score apart), 2 bytes each. `compute` takes another
              threshold where that is a level.
            - `"histogram"`: nothing for each note; one histogram over all scores with the same levels and one for each
              code with 993 bins (3 % of the score), 4 KB a code however many the notes.

            In the last two, scores in one bin count as tied; `auc_micro_error` and `auc_macro_error` bound what that costs.
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
            threshold (`float` or array of shape `(C,)`, *optional*): In place of the one given at construction.
            k (`tuple[int]`, *optional*): In place of the one given at construction.
            tune_threshold (`bool`, defaults to `False`):
                Also report the best global threshold of these notes as `threshold`, and the micro F1 that it gives them as
                `f1_micro_tuned`. Meant for the validation split only.

        Returns:
            `dict[str, float]`: the metrics of `count_metrics`, `ranking_metrics`, `curve_metrics` and
            `calibration_metrics`, and how many notes and codes they rest on (`int`).
        """
        results = {
            **self.count_metrics(threshold),
            **self.ranking_metrics(k),
            **self.curve_metrics(),
            **self.calibration_metrics(),
        }
        if tune_threshold:
            results["threshold"], results["f1_micro_tuned"] = self.best_threshold()
        support = self._gold_per_code()
        return {
            **results,
            "num_notes": self.num_notes,
            "num_notes_without_codes": int((np.concatenate(self._gold_per_note) == 0).sum()),
            "num_codes_seen": int((support > 0).sum()),
            "num_codes_in_auc_macro": int(((support > 0) & (support < self.num_notes)).sum()),
        }

    # The metrics

    def count_metrics(self, threshold: Any = None) -> dict[str, float]:
        """Metrics of the predicted codes, those with `score > threshold`.

        With tp, fp and fn of a set of pairs, of a code c or of a note i (C codes, N notes):

            precision = tp / (tp + fp)        recall = tp / (tp + fn)
            f1 = 2 tp / (2 tp + fp + fn)      jaccard = tp / (tp + fp + fn)

        - `*_micro`: over all pairs of note and code at once.
        - `precision_macro`, `recall_macro`, `jaccard_macro`: mean over all C codes; a code neither gold nor predicted gives 0.
        - `f1_macro`: mean over all C codes of f1(c) (Opitz and Burst, arXiv 1911.03347; Edin et al., arXiv 2304.10909).
        - `f1_macro_caml`: harmonic mean of `precision_macro` and `recall_macro` (CAML, arXiv 1802.05695).
        - `f1_macro_seen`: mean of f1(c) over the codes with a gold note in this split; NaN without any.
        - `precision_instance`, `recall_instance`, `jaccard_instance`: mean over all N notes; a note without gold codes has
          recall 0, a note without predictions precision 0, and both stay in the mean (CAML).
        - `f1_instance`: harmonic mean of `precision_instance` and `recall_instance` (CAML).
        - `f1_instance_mean`: mean over notes of f1(i) (scikit-learn's `average="samples"`).
        - `exact_match`: share of notes whose predicted set is the gold set, both empty included.

        CAML calls Jaccard accuracy. From lists of the best codes, all are NaN as soon as a list stops above the threshold.
        """
        counts = self._counts(threshold)
        code_precision, code_recall, code_f1, code_jaccard = ratios(
            counts.code_hits, counts.code_predicted, counts.code_gold
        )
        note_precision, note_recall, note_f1, note_jaccard = ratios(
            counts.note_hits, counts.note_predicted, counts.note_gold
        )
        precision, recall, f1, jaccard = ratios(
            counts.code_hits.sum(), counts.code_predicted.sum(), counts.code_gold.sum()
        )
        is_seen = counts.code_gold > 0
        is_exact = (counts.note_hits == counts.note_gold) & (counts.note_hits == counts.note_predicted)
        metrics = {
            "precision_micro": precision,
            "recall_micro": recall,
            "f1_micro": f1,
            "jaccard_micro": jaccard,
            "precision_macro": code_precision.mean(),
            "recall_macro": code_recall.mean(),
            "f1_macro": code_f1.mean(),
            "f1_macro_caml": f1_of(code_precision.mean(), code_recall.mean()),
            "f1_macro_seen": code_f1[is_seen].mean() if is_seen.any() else math.nan,
            "jaccard_macro": code_jaccard.mean(),
            "precision_instance": note_precision.mean(),
            "recall_instance": note_recall.mean(),
            "f1_instance": f1_of(note_precision.mean(), note_recall.mean()),
            "f1_instance_mean": note_f1.mean(),
            "jaccard_instance": note_jaccard.mean(),
            "exact_match": is_exact.mean(),
        }
        return {name: float(value) if counts.complete else math.nan for name, value in metrics.items()}

    def ranking_metrics(self, k: int | Iterable[int] | None = None) -> dict[str, float]:
        """Metrics of the order of the codes within each note, as means over all N notes; a note without gold codes gives 0.

        With R gold codes at ranks r_1 < ... < r_R, counted from 1 (equal scores: lower class id first):

        - `precision_at_k` = #{r <= k} / k, `recall_at_k` = #{r <= k} / R, and `f1_at_k`, the harmonic mean of their means (CAML).
        - `r_precision` = #{r <= R} / R (Manning et al., Introduction to Information Retrieval, 8.4).
        - `ndcg_at_k` = sum over r <= k of 1 / log2(r + 1), over the same sum for ranks 1 .. min(k, R)
          (Järvelin and Kekäläinen 2002, gains 0 and 1).
        - `map` = mean of the average precision 1 / R * sum over j of j / r_j (ibid.; the MAP of CodiEsp and of
          Edin et al.). Not to be confused with `average_precision_macro`, which ranks notes for each code.

        From lists of the best codes, what would need a rank beyond the end of a list is NaN.
        """
        self._check_not_empty()
        cutoffs = self.k if k is None else check_k(k)
        num_gold = np.concatenate(self._gold_per_note)
        note = np.repeat(np.arange(self.num_notes), num_gold)
        ranks = np.concatenate(self._gold_ranks)
        ranks = ranks[np.lexsort((ranks, note))].astype(np.int64)
        depth = np.concatenate(self._depths)
        order = np.arange(len(ranks)) - np.repeat(np.cumsum(num_gold) - num_gold, num_gold) + 1
        metrics: dict[str, float] = {}

        def mean_over_notes(gold_values: np.ndarray, denominator: np.ndarray | int, needed: np.ndarray | int) -> float:
            if (depth < needed).any():
                return math.nan
            totals = np.bincount(note, gold_values, self.num_notes)
            return float(divide(totals, denominator).mean())

        largest = max(min(max(cutoffs, default=1), int(num_gold.max())), 1)
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, largest + 1) + 1))])
        discount = 1 / np.log2(ranks + 2.0)
        for cutoff in cutoffs:
            is_in = ranks < cutoff
            precision = mean_over_notes(is_in, cutoff, cutoff)
            recall = mean_over_notes(is_in, num_gold, cutoff)
            metrics[f"precision_at_{cutoff}"] = precision
            metrics[f"recall_at_{cutoff}"] = recall
            metrics[f"f1_at_{cutoff}"] = math.nan if math.isnan(precision) else f1_of(precision, recall)
            best_possible = ideal[np.minimum(num_gold, cutoff)]
            metrics[f"ndcg_at_{cutoff}"] = mean_over_notes(is_in * discount, best_possible, cutoff)
        metrics["r_precision"] = mean_over_notes(ranks < num_gold[note], num_gold, num_gold)
        metrics["map"] = mean_over_notes(order / (ranks + 1), num_gold, UNLISTED)
        return metrics

    def curve_metrics(self) -> dict[str, float]:
        """Areas under curves over all thresholds; see `curves_of_groups` for the formulas.

        - `auc_micro`: all pairs of note and code as one ranking.
        - `auc_macro`: mean over the codes with both a gold note and another note in this split, as in CAML; every other code
          is left out (`num_codes_in_auc_macro` counts those in).
        - `average_precision_micro`, and `average_precision_macro`: mean over the codes with a gold note.

        NaN where nothing is left to average, and from lists of the best codes. With binned scores, `auc_micro_error` and
        `auc_macro_error` bound the distance to the exact AUC.
        """
        self._check_not_empty()
        if self.is_sparse:
            return dict.fromkeys(
                ("auc_micro", "auc_macro", "average_precision_micro", "average_precision_macro"), math.nan
            )
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

        NaN from lists of the best codes.
        """
        self._check_not_empty()
        if self.is_sparse:
            return {"ece": math.nan, "brier": math.nan}
        gold_scores = np.concatenate(self._gold_scores)
        gold_in_bin = np.bincount(calibration_bins(gold_scores), minlength=NUM_CALIBRATION_BINS)
        num_pairs = self.num_notes * self._num_columns
        squares = self._sum_of_squares[0] - 2 * gold_scores.sum(dtype=np.float64) + len(gold_scores)
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
        if self.is_sparse:
            raise ValueError("Tuning the threshold needs the scores of all codes, not lists of the best codes.")
        cuts, f1 = best_cuts_of_groups(self._micro_ranks(), self.num_notes * self._num_columns, 1)
        cut = cuts[0]
        if cut == 0:
            return 0.5, 0.0
        if self.score_storage == "histogram":
            lower = int(np.flatnonzero(self._level_counts[:cut]).max(initial=0))
        else:
            lower = max(batch.max(initial=0, where=batch < cut) for batch in self._batches)
        if self.score_storage == "float32":
            return float(cut_between(lower, cut)), float(f1[0])
        return float(from_levels(np.array((int(lower) + int(cut)) // 2))), float(f1[0])

    def per_code(self, threshold: Any = None) -> dict[str, np.ndarray]:
        """Return counts and metrics of each code, as arrays of shape `(C,)` by class id.

        `tp`, `fp`, `fn`; `precision`, `recall`, `f1` (0 where undefined); `auc` and `average_precision` (NaN where
        undefined). From lists of the best codes that stop above the threshold, counts would be wrong: that raises.
        """
        counts = self._counts(threshold)
        if not counts.complete:
            raise ValueError("Counts of each code need lists that reach down to the threshold. List more codes.")
        precision, recall, f1, _ = ratios(counts.code_hits, counts.code_predicted, counts.code_gold)
        if self.is_sparse:
            auc = average_precision = np.full(self._num_columns, math.nan)
        else:
            curves = curves_of_groups(self._code_ranks(), self.num_notes, self._num_columns)
            auc, average_precision = curves.auc, curves.average_precision
        return {
            "tp": counts.code_hits,
            "fp": counts.code_predicted - counts.code_hits,
            "fn": counts.code_gold - counts.code_hits,
            "precision": precision,
            "recall": recall,
            "f1": f1,
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

    def _gold_per_code(self) -> np.ndarray:
        return np.bincount(np.concatenate(self._gold_codes), minlength=self._num_columns)

    def _counts(self, threshold: Any) -> Counts:
        """Count gold, predicted and rightly predicted codes at a threshold."""
        self._check_not_empty()
        cut = self.threshold if threshold is None else check_threshold(threshold, self._num_columns)
        code_predicted, note_predicted, complete = self._count_predicted(cut)
        gold_codes, note_gold = np.concatenate(self._gold_codes), np.concatenate(self._gold_per_note)
        is_hit = np.concatenate(self._gold_scores) > np.broadcast_to(cut, self._num_columns)[gold_codes]
        note = np.repeat(np.arange(self.num_notes), note_gold)
        return Counts(
            code_hits=np.bincount(gold_codes[is_hit], minlength=self._num_columns),
            code_predicted=code_predicted,
            code_gold=self._gold_per_code(),
            note_hits=np.bincount(note[is_hit], minlength=self.num_notes),
            note_predicted=note_predicted,
            note_gold=note_gold,
            complete=complete,
        )

    def _count_predicted(self, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return predicted pairs of each code and of each note, and whether every predicted pair is known."""
        if self.is_sparse:
            return self._count_predicted_in_lists(cut)
        if np.array_equal(cut, self.threshold):
            return self._predicted_per_code, np.concatenate(self._predicted_per_note), True
        if self.score_storage == "histogram" or (
            self.score_storage == "uint16" and not np.array_equal(cut, from_levels(to_levels(cut)))
        ):
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
        return per_code, np.concatenate(per_note), True

    def _count_predicted_in_lists(self, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        per_code = np.zeros(self._num_columns, np.int64)
        per_note, complete = [], True
        cut_of_code = np.broadcast_to(cut, self._num_columns)
        for ids, scores in self._lists:
            is_predicted = (ids >= 0) & (scores > cut_of_code[ids])
            per_code += np.bincount(ids[is_predicted], minlength=self._num_columns)
            per_note.append(np.count_nonzero(is_predicted, axis=1))
            if 0 < ids.shape[1] < self._num_columns:
                complete &= not ((ids[:, -1] >= 0) & (scores[:, -1] > cut.min())).any()
        return per_code, np.concatenate(per_note), complete

    def _micro_ranks(self) -> GoldRanks:
        """Rank every gold pair among all pairs."""
        if "micro" not in self._cached_ranks:
            gold_scores = np.sort(np.concatenate(self._gold_scores))
            if self.score_storage == "float32":
                values, ranks = gold_scores, rank_in_batches(self._batches, gold_scores)
            else:
                values = to_levels(gold_scores)
                ranks = rank_in_histogram(self._count_levels(), values)
            self._cached_ranks["micro"] = GoldRanks(np.zeros(len(values), np.int64), values, *ranks)
        return self._cached_ranks["micro"]

    def _count_levels(self) -> np.ndarray:
        if self.score_storage == "histogram":
            return self._level_counts
        level_counts = np.zeros(NUM_LEVELS, np.int64)
        for batch in self._batches:
            level_counts += np.bincount(batch.ravel(), minlength=NUM_LEVELS)
        return level_counts

    def _code_ranks(self) -> GoldRanks:
        """Rank every gold pair among the pairs of its code."""
        if "code" not in self._cached_ranks:
            codes, scores = np.concatenate(self._gold_codes), np.concatenate(self._gold_scores)
            if self.score_storage == "histogram":
                ranks = self._code_ranks_in_histogram(codes, to_bins(to_levels(scores)))
            else:
                values = scores if self.score_storage == "float32" else to_levels(scores)
                ranks = rank_in_columns(self._batches, codes, values)
            self._cached_ranks["code"] = ranks
        return self._cached_ranks["code"]

    def _code_ranks_in_histogram(self, codes: np.ndarray, bins: np.ndarray) -> GoldRanks:
        order = np.lexsort((bins, codes))
        codes, bins = codes[order], bins[order]
        ranks = np.zeros((2, len(codes)), np.int64)
        histogram = self._code_histogram.reshape(-1, NUM_BINS)
        bounds = np.searchsorted(codes, np.arange(len(histogram) + 1))
        for counts, start, stop in zip(histogram, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                ranks[:, start:stop] = rank_in_histogram(counts.astype(np.int64), bins[start:stop])
        return GoldRanks(codes, bins, *ranks)
