"""The one table of all metrics, and the formula of each that follows from counted codes or from ranks.

To add a metric, write its function of a [`Tally`] and give it a row in `METRICS`. Results and their intervals, the printed
table, the report, the model card and the comparison of runs read their names and definitions there.

With tp, fp and fn of a set of pairs of note and code, of a code c or of a note i (C codes, N notes):

    precision = tp / (tp + fp)        recall = tp / (tp + fn)
    f1 = 2 tp / (2 tp + fp + fn)      jaccard = tp / (tp + fp + fn)

CAML calls Jaccard accuracy. A ratio with a zero denominator is 0 (a code never gold nor predicted, a note without gold
codes), and what it belongs to stays in the mean, as in CAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np


CUTOFFS = (5, 8, 15)
"""The k of the `_at_k` metrics, where nothing else is asked for."""


# Ratios of counts, and means of them


class Ratios(NamedTuple):
    """Precision, recall, F1 and Jaccard index."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    jaccard: np.ndarray


def ratios(hits: Any, predicted: Any, gold: Any) -> Ratios:
    """Precision, recall, F1 and Jaccard index of counts; 0 where nothing was gold or predicted."""
    return Ratios(
        precision=divide(hits, predicted),
        recall=divide(hits, gold),
        f1=divide(2 * hits, predicted + gold),
        jaccard=divide(hits, predicted + gold - hits),
    )


def divide(numerator: Any, denominator: Any, empty: float = 0.0) -> np.ndarray:
    """Divide element by element; `empty` where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient = np.full(np.broadcast(numerator, denominator).shape, empty)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def harmonic_mean(precision: Any, recall: Any) -> np.ndarray:
    """F1 of precisions and recalls; 0 where both are 0."""
    return divide(2 * precision * recall, precision + recall)


def mean_of_defined(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def nan_to_none(results: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, for JSON, which has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in results.items()}


# What metrics are computed from


class Counts(NamedTuple):
    """Rightly predicted, predicted and gold pairs."""

    hits: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray


class Tally:
    """Counted codes of N notes and ranks of their gold codes, for one or more weightings W of the notes.

    A bootstrap resample, or the exchanged outputs of a randomisation test, is a weight for each note.

    Args:
        by_code (`Counts` of shape `(W, C)`): of each code, notes weighted.
        by_note (`Counts` of shape `(N,)`): of each note.
        gold_ranks (array of shape `(P,)`): of each gold code in its note, from 0; note by note.
        weights (array of shape `(W, N)`, *optional*): how often each note counts; by default each once, and W is 1.
    """

    def __init__(self, by_code: Counts, by_note: Counts, gold_ranks: np.ndarray, weights: np.ndarray | None = None):
        self.by_code, self.by_note, self.weights = by_code, by_note, weights
        self.num_gold = by_note.gold
        self.note_of_gold = np.repeat(np.arange(len(self.num_gold)), self.num_gold)
        self.ranks = gold_ranks[np.lexsort((gold_ranks, self.note_of_gold))].astype(np.int64)  # rising in each note

    @cached_property
    def of_all(self) -> Ratios:
        """Over all pairs of note and code, `(W,)`."""
        if self.weights is None:
            return ratios(*(counts.sum(keepdims=True) for counts in self.by_note))
        return ratios(*(self.weights @ counts for counts in self.by_note))

    @cached_property
    def of_codes(self) -> Ratios:
        """Of each code, `(W, C)`."""
        return ratios(*self.by_code)

    @cached_property
    def of_notes(self) -> Ratios:
        """Of each note, `(N,)`."""
        return ratios(*self.by_note)

    def mean_over_notes(self, values: np.ndarray) -> np.ndarray:
        """Mean of values `(N,)` over the notes, `(W,)`."""
        return values.mean(keepdims=True) if self.weights is None else self.weights @ values / self.weights.sum(axis=1)

    def mean_over_seen_codes(self, values: np.ndarray) -> np.ndarray:
        """Mean of values `(W, C)` over the codes with a gold note, `(W,)`; NaN without any."""
        is_seen = self.by_code.gold > 0
        if self.weights is None and is_seen.any():
            return values[is_seen].mean(keepdims=True)
        return divide((values * is_seen).sum(axis=1), is_seen.sum(axis=1), empty=math.nan)

    def sum_per_note(self, values: np.ndarray) -> np.ndarray:
        """Sum values of the gold codes, in the order of `ranks`, over the codes of each note, `(N,)`."""
        return np.bincount(self.note_of_gold, values, len(self.num_gold))

    @cached_property
    def best_gains(self) -> np.ndarray:
        """Discounted gain of 0, 1, 2 ... gold codes in the best order."""
        places = np.arange(1, int(self.num_gold.max(initial=0)) + 1)
        return np.concatenate([[0.0], np.cumsum(1 / np.log2(places + 1))])


# Metrics of the order of the codes within each note, as means over all N notes; a note without gold codes gives 0. Its R gold
# codes have ranks r_1 < ... < r_R, here counted from 1; of equal scores the lower class id comes first.


def precision_at(tally: Tally, k: int) -> np.ndarray:
    """#{r <= k} / k, also where there are fewer than k codes."""
    return tally.mean_over_notes(tally.sum_per_note(tally.ranks < k) / k)


def recall_at(tally: Tally, k: int) -> np.ndarray:
    """#{r <= k} / R."""
    return tally.mean_over_notes(divide(tally.sum_per_note(tally.ranks < k), tally.num_gold))


def f1_at(tally: Tally, k: int) -> np.ndarray:
    """F1 of the two means (CAML, arXiv 1802.05695)."""
    return harmonic_mean(precision_at(tally, k), recall_at(tally, k))


def ndcg_at(tally: Tally, k: int) -> np.ndarray:
    """Sum over r <= k of 1 / log2(r + 1), over the same sum for ranks 1 .. min(k, R) (Järvelin and Kekäläinen 2002)."""
    gains = tally.sum_per_note((tally.ranks < k) / np.log2(tally.ranks + 2.0))
    return tally.mean_over_notes(divide(gains, tally.best_gains[np.minimum(tally.num_gold, k)]))


def r_precision(tally: Tally) -> np.ndarray:
    """#{r <= R} / R (Manning et al., Introduction to Information Retrieval, 8.4)."""
    is_in = tally.ranks < tally.num_gold[tally.note_of_gold]
    return tally.mean_over_notes(divide(tally.sum_per_note(is_in), tally.num_gold))


def mean_average_precision(tally: Tally) -> np.ndarray:
    """1 / R * sum over j of j / r_j (ibid.; the MAP of CodiEsp and of Edin et al., arXiv 2304.10909).

    Not to be confused with `average_precision_macro`, which ranks notes for each code.
    """
    first_of_note = np.cumsum(tally.num_gold) - tally.num_gold
    place = np.arange(len(tally.ranks)) - first_of_note[tally.note_of_gold] + 1  # among the gold codes of the note
    return tally.mean_over_notes(divide(tally.sum_per_note(place / (tally.ranks + 1)), tally.num_gold))


# Metrics of the predicted codes that are more than one ratio.


def f1_macro_caml(tally: Tally) -> np.ndarray:
    """F1 of macro precision and macro recall (CAML), which is another figure than the mean of per-code F1.

    See Opitz and Burst, "Macro F1 and Macro F1", arXiv 1911.03347.
    """
    return harmonic_mean(tally.of_codes.precision.mean(axis=1), tally.of_codes.recall.mean(axis=1))


def f1_macro_seen(tally: Tally) -> np.ndarray:
    """The codes without a gold note, which may be most of them, left out; NaN where all are (Edin et al.)."""
    return tally.mean_over_seen_codes(tally.of_codes.f1)


def f1_instance(tally: Tally) -> np.ndarray:
    """F1 of the mean precision and the mean recall of all notes (CAML); `f1_instance_mean` is scikit-learn's `samples`."""
    precision, recall = tally.of_notes.precision, tally.of_notes.recall
    return harmonic_mean(tally.mean_over_notes(precision), tally.mean_over_notes(recall))


def exact_match(tally: Tally) -> np.ndarray:
    """Share of notes whose predicted set is the gold set, both empty included."""
    hits, predicted, gold = tally.by_note
    return tally.mean_over_notes((hits == gold) & (hits == predicted))


# The table


class Metric(NamedTuple):
    """A row of the table. `{k}` in its name, title and definition stands for the cut-off of a metric at k."""

    name: str  # in results
    title: str  # for a reader
    definition: str
    group: str  # `counts` of predicted codes; `ranking` of codes in a note; areas under `curves`; `calibration`
    compute: Callable[..., np.ndarray] | None = None  # of a tally (and k), (W,); None: from all scores, elsewhere
    shown_in: tuple[str, ...] = ()  # of `table` (printed), `report`, `card`, `comparison`, `test` (of two runs)
    hub_id: str | None = None  # among the Hub's metrics
    higher_is_better: bool = True

    @property
    def needs_scores(self) -> bool:
        """Whether it needs more than the predicted codes of each note."""
        return self.group != "counts"

    @property
    def is_at_k(self) -> bool:
        return "{k}" in self.name

    def at(self, k: int) -> Metric:
        """The row of one cut-off."""
        texts = {field: getattr(self, field).format(k=k) for field in ("name", "title", "definition")}
        compute = self.compute
        return self._replace(**texts, compute=compute and (lambda tally: compute(tally, k)))


EVERYWHERE = ("table", "report", "card", "comparison", "test")
TABLES = ("table", "report", "card")


def of_all(ratio: str) -> Callable[[Tally], np.ndarray]:
    """A ratio over all pairs of note and code at once."""
    return lambda tally: getattr(tally.of_all, ratio)


def of_codes(ratio: str) -> Callable[[Tally], np.ndarray]:
    """Mean over all codes of the ratio of each."""
    return lambda tally: getattr(tally.of_codes, ratio).mean(axis=1)


def of_notes(ratio: str) -> Callable[[Tally], np.ndarray]:
    """Mean over all notes of the ratio of each."""
    return lambda tally: tally.mean_over_notes(getattr(tally.of_notes, ratio))


# fmt: off
METRICS = [
    Metric("f1_micro", "F1, micro", "over all decisions", "counts", of_all("f1"), EVERYWHERE, "f1"),
    Metric("f1_macro", "F1, macro", "mean over codes of per-code F1; a code without gold and prediction counts 0",
           "counts", of_codes("f1"), EVERYWHERE, "f1"),
    Metric("f1_macro_seen", "F1, macro, seen codes", "the same mean over codes with a gold note in the split",
           "counts", f1_macro_seen, ("report", "card"), "f1"),
    Metric("f1_macro_caml", "F1, macro as CAML", "F1 of macro precision and macro recall",
           "counts", f1_macro_caml, ("table", "report", "test")),
    Metric("f1_instance", "F1, by note", "F1 of the mean precision and the mean recall of a note",
           "counts", f1_instance, (*TABLES, "test"), "f1"),
    Metric("f1_instance_mean", "F1, mean of notes", "mean over notes of per-note F1", "counts", of_notes("f1")),
    Metric("precision_micro", "precision, micro", "over all decisions",
           "counts", of_all("precision"), TABLES, "precision"),
    Metric("precision_macro", "precision, macro", "mean over codes of per-code precision",
           "counts", of_codes("precision")),
    Metric("precision_instance", "precision, by note", "mean over notes of per-note precision",
           "counts", of_notes("precision")),
    Metric("recall_micro", "recall, micro", "over all decisions", "counts", of_all("recall"), TABLES, "recall"),
    Metric("recall_macro", "recall, macro", "mean over codes of per-code recall", "counts", of_codes("recall")),
    Metric("recall_instance", "recall, by note", "mean over notes of per-note recall", "counts", of_notes("recall")),
    Metric("jaccard_micro", "Jaccard index, micro", "over all decisions", "counts", of_all("jaccard")),
    Metric("jaccard_macro", "Jaccard index, macro", "mean over codes of the per-code Jaccard index",
           "counts", of_codes("jaccard")),
    Metric("jaccard_instance", "Jaccard index, by note", "mean over notes of the per-note Jaccard index",
           "counts", of_notes("jaccard")),
    Metric("auc_micro", "AUC, micro", "over all pairs of note and code",
           "curves", None, (*TABLES, "comparison"), "roc_auc"),
    Metric("auc_macro", "AUC, macro", "mean over codes with a positive and a negative note",
           "curves", None, (*TABLES, "comparison"), "roc_auc"),
    Metric("average_precision_micro", "average precision, micro", "over all pairs of note and code", "curves"),
    Metric("average_precision_macro", "average precision, macro", "mean over codes with a gold note", "curves"),
    Metric("precision_at_{k}", "precision at {k}", "of a note's {k} best codes, mean over notes",
           "ranking", precision_at, EVERYWHERE),
    Metric("recall_at_{k}", "recall at {k}", "of a note's gold codes among its {k} best, mean over notes",
           "ranking", recall_at, ("table", "report")),
    Metric("f1_at_{k}", "F1 at {k}", "F1 of precision at {k} and recall at {k}", "ranking", f1_at),
    Metric("ndcg_at_{k}", "nDCG at {k}",
           "discounted gain of a note's {k} best codes, over that of the best order; mean over notes",
           "ranking", ndcg_at),
    Metric("map", "MAP", "mean over notes of the average precision of the ranking of codes",
           "ranking", mean_average_precision, ("report", "card", "test")),
    Metric("r_precision", "R-precision",
           "precision of as many of a note's best codes as it has gold ones, mean over notes",
           "ranking", r_precision, ("report",)),
    Metric("exact_match", "exact match", "share of notes whose predicted codes are the gold ones",
           "counts", exact_match, ("report",)),
    Metric("ece", "ECE", "calibration error over all pairs, 15 bins",
           "calibration", shown_in=("report",), higher_is_better=False),
    Metric("brier", "Brier score", "mean over all pairs of (score - gold)^2",
           "calibration", shown_in=("report",), higher_is_better=False),
]
# fmt: on


def all_metrics(k: Sequence[int] = CUTOFFS) -> Iterator[Metric]:
    """Every row of the table in order, neighbours at k once for each cut-off."""
    for is_at_k, group in groupby(METRICS, key=lambda metric: metric.is_at_k):
        rows = list(group)
        if is_at_k:
            yield from (metric.at(cutoff) for cutoff in k for metric in rows)
        else:
            yield from rows


def shown_in(place: str) -> list[Metric]:
    """The metrics that a table, a report, a card ... shows."""
    return [metric for metric in all_metrics() if place in metric.shown_in]


def compute_metrics(tally: Tally, k: Sequence[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """Every metric that follows from counts and ranks, `(W,)` by its name."""
    return {metric.name: metric.compute(tally) for metric in all_metrics(k) if metric.compute is not None}
