"""Running sums and ranks behind the `icd_metrics` module; imports numpy only.

A batch is reduced on arrival to what the metrics need: for every gold code its score and its rank in the note, the number
of predicted codes per note and per code, and the sums of the calibration metrics. Only the two AUCs and the average
precisions look at all scores again; `score_storage` says what is kept for them.

Three conventions hold everywhere:

- **Decision.** A code is predicted where `score > threshold`, in float32.
- **Rank.** Codes of a note are ranked by falling score; among equal scores the lower class id comes first.
- **Empty sets.** A ratio with a zero denominator is 0 (a code never gold nor predicted, a note without gold codes), and what
  it belongs to stays in the mean, as in CAML. NaN means that the data cannot define the value: an AUC without both classes,
  or a value that a list of the best codes is too short to give. Nothing else is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


SCORE_STORAGES = ("float32", "uint16", "histogram")
NUM_CALIBRATION_BINS = 15
SCORES_PER_BLOCK = 1 << 20  # bounds the temporary arrays of a large batch
CODES_PER_BLOCK = 512

# A float in [0, 1] is ordered as its bit pattern. 16 bits keep 5 of its exponent (2**-31 to 1) and 11 of its mantissa.
LOWEST_PATTERN = (127 - 31) << 23
DROPPED_BITS = 12
NUM_LEVELS = ((127 << 23) - LOWEST_PATTERN >> DROPPED_BITS) + 1  # 63489
LEVELS_PER_BIN = 64  # the histogram of one code keeps 5 bits of the mantissa
NUM_BINS = (NUM_LEVELS - 2) // LEVELS_PER_BIN + 2  # 993
UNLISTED = np.iinfo(np.int32).max  # rank of a gold code outside a list of the best codes


class GoldRanks(NamedTuple):
    """Where every gold pair stands among all scores of its group (the whole set, or one code), by group and rising score."""

    groups: np.ndarray  # (P,) group of each gold pair
    values: np.ndarray  # (P,) its score, or its level
    less: np.ndarray  # (P,) scores of the group below it
    equal: np.ndarray  # (P,) scores of the group equal to it, itself included
    lower: np.ndarray  # (P,) the next lower score of the group; 0 where there is none


class GroupCurves(NamedTuple):
    """Per group: area under the ROC curve, half the share of pairs tied in it, and average precision."""

    auc: np.ndarray
    tied: np.ndarray
    average_precision: np.ndarray


def to_numpy(array: Any) -> np.ndarray:
    """Return a numpy view or copy of an array, a list or a torch tensor (bfloat16 and device tensors included)."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
        return array.numpy()
    return np.asarray(array)


def check_scores(scores: Any, num_labels: int | None = None) -> np.ndarray:
    """Return scores as a float32 matrix `(B, C)` after checking its shape and that all lie in 0..1."""
    matrix = to_numpy(scores)
    if matrix.ndim != 2:
        raise ValueError(f"Scores must have shape (notes, codes), got {matrix.shape}.")
    if num_labels is not None and matrix.shape[1] != num_labels:
        raise ValueError(f"Scores have {matrix.shape[1]} columns, expected one for each of {num_labels} codes.")
    matrix = matrix.astype(np.float32, copy=False)
    if matrix.size and not (matrix.min() >= 0 and matrix.max() <= 1):  # a NaN fails both comparisons
        check_rows_in_unit_range(matrix)
    return matrix


def check_rows_in_unit_range(matrix: np.ndarray) -> None:
    """Raise a `ValueError` that names the first row with a NaN or a value outside 0..1."""
    wrong = ~((matrix >= 0) & (matrix <= 1))
    if wrong.any():
        row = int(wrong.any(axis=1).argmax())
        value = float(matrix[row, int(wrong[row].argmax())])
        raise ValueError(
            f"Scores must lie in 0..1, but row {row} of the batch holds {value:.4g} (in all {int(wrong.any(axis=1).sum())} "
            "of its rows do). Pass the sigmoid of the logits."
        )


def check_threshold(threshold: Any, num_labels: int | None) -> np.ndarray:
    """Return a threshold, one number or one for each code, as float32 `()` or `(C,)`."""
    values = to_numpy(threshold).astype(np.float32)
    if values.ndim > 1 or (values.ndim == 1 and num_labels is not None and len(values) != num_labels):
        raise ValueError(
            f"`threshold` must be a number or an array of {num_labels} numbers, one per code; got shape {values.shape}."
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("`threshold` must lie in 0..1.")
    return values


def check_k(k: int | Iterable[int]) -> tuple[int, ...]:
    """Return the cut-offs of the `_at_k` metrics as a tuple."""
    cutoffs = (k,) if isinstance(k, int) else tuple(int(value) for value in k)
    if any(cutoff < 1 for cutoff in cutoffs):
        raise ValueError(f"`k` must hold positive numbers, got {cutoffs}.")
    return cutoffs


def gold_pairs(labels: Any, num_notes: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class ids of the gold pairs, by row and then by class id.

    Args:
        labels (array of shape `(B, C)` or list of `B` lists of class ids):
            An array or tensor is read as multi-hot, a plain list always as class ids. An empty list is a note without codes.
    """
    if hasattr(labels, "shape"):
        matrix = to_numpy(labels)
        if matrix.shape != (num_notes, num_labels):
            raise ValueError(
                f"Multi-hot labels have shape {matrix.shape}, scores {(num_notes, num_labels)}: they must be the same."
            )
        is_gold = matrix != 0
        if not np.array_equal(matrix, is_gold):
            raise ValueError("Multi-hot labels may hold 0 and 1 only. Pass class ids as a list of lists.")
        rows, codes = np.nonzero(is_gold)
        return rows, codes
    if len(labels) != num_notes:
        raise ValueError(f"Got labels of {len(labels)} notes and scores of {num_notes}.")
    counts = np.fromiter((len(ids) for ids in labels), np.int64, num_notes)
    rows = np.repeat(np.arange(num_notes), counts)
    codes = np.fromiter((code for ids in labels for code in ids), np.int64, int(counts.sum()))
    wrong = (codes < 0) | (codes >= num_labels)
    if wrong.any():
        raise ValueError(
            f"Class id {codes[wrong][0]} of row {rows[wrong][0]} is out of range: ids run from 0 to {num_labels - 1}."
        )
    keys = np.sort(rows * num_labels + codes)
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        row, code = divmod(int(keys[repeated[0]]), num_labels)
        raise ValueError(
            f"Row {row} names class id {code} twice. A list is read as class ids: pass multi-hot labels as an array."
        )
    return keys // num_labels, keys % num_labels


def rank_gold(scores: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the rank (from 0) of every gold code in its note: higher scores, and equal ones with a lower class id."""
    ranks = np.empty(len(rows), np.int32)
    ordered = np.sort(scores, axis=1)
    bounds = np.searchsorted(rows, np.arange(len(scores) + 1))
    for row, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if start == stop:
            continue
        values = scores[row, codes[start:stop]]
        right = ordered[row].searchsorted(values, side="right")
        ranks[start:stop] = scores.shape[1] - right
        ties = right - ordered[row].searchsorted(values, side="left") > 1
        for gold in np.flatnonzero(ties):
            ranks[start + gold] += np.count_nonzero(scores[row, : codes[start + gold]] == values[gold])
    return ranks


def to_levels(scores: np.ndarray) -> np.ndarray:
    """Round scores up to one of 63,489 levels, as uint16.

    Levels are spaced by 2**-11 of the power of two below them (0.05 %), and every score up to 2**-31 is level 0. Rounding up
    keeps decisions exact: for a threshold that is itself a level, such as 0.5, `score > threshold` exactly where
    `level(score) > level(threshold)`.
    """
    patterns = np.ascontiguousarray(scores, dtype=np.float32).view(np.int32)
    patterns = np.maximum(patterns, LOWEST_PATTERN) - (LOWEST_PATTERN - (1 << DROPPED_BITS) + 1)
    return (patterns >> DROPPED_BITS).astype(np.uint16)


def from_levels(levels: np.ndarray) -> np.ndarray:
    """Return the largest score of each level, as float32."""
    return ((np.asarray(levels).astype(np.int32) << DROPPED_BITS) + LOWEST_PATTERN).view(np.float32)


def to_bins(levels: np.ndarray) -> np.ndarray:
    """Join 64 levels into one bin of a code's histogram (3 % of the score)."""
    return (levels.astype(np.int32) + LEVELS_PER_BIN - 1) // LEVELS_PER_BIN


def rank_in_sorted(ordered: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for values that occur in an ascending array: how many are less, how many equal, the next lower one (or 0)."""
    less = ordered.searchsorted(values, side="left")
    equal = ordered.searchsorted(values, side="right") - less
    lower = np.where(less > 0, ordered[less - 1], 0)
    return less, equal, lower


def rank_in_histogram(counts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `rank_in_sorted`, from the number of scores on each level."""
    up_to = np.cumsum(counts)
    equal = counts[values]
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(len(counts)), 0))
    lower = np.where(values > 0, filled[values - 1], 0)
    return up_to[values] - equal, equal, lower


def rank_in_columns(blocks: Iterable[tuple[int, np.ndarray]], codes: np.ndarray, values: np.ndarray) -> GoldRanks:
    """Rank every gold pair among the scores of its code.

    Args:
        blocks: `(first code, scores (codes of the block, N) ascending along the notes)`, code after code.
        codes, values: the gold pairs.
    """
    order = np.lexsort((values, codes))
    codes, values = codes[order], values[order]
    less, equal = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    lower = np.empty_like(values)
    for first, block in blocks:
        bounds = np.searchsorted(codes, np.arange(first, first + len(block) + 1))
        for column, start, stop in zip(block, bounds[:-1], bounds[1:], strict=True):
            if start < stop:
                less[start:stop], equal[start:stop], lower[start:stop] = rank_in_sorted(column, values[start:stop])
    return GoldRanks(codes, values, less, equal, lower)


def sorted_column_blocks(batches: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield `(first code, scores (codes of the block, N) ascending along the notes)` from stored batches `(B, C)`."""
    num_labels = batches[0].shape[1]
    for first in range(0, num_labels, CODES_PER_BLOCK):
        columns = np.concatenate([batch[:, first : first + CODES_PER_BLOCK] for batch in batches])
        block = np.ascontiguousarray(columns.T)
        block.sort(axis=1, kind="stable" if block.dtype == np.uint16 else None)  # stable is a radix sort there
        yield first, block


def count_gold_in_group(ranks: GoldRanks, num_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the number of gold pairs in each group and, for each pair, gold pairs below it and gold pairs equal to it."""
    num_gold = np.bincount(ranks.groups, minlength=num_groups)
    position = np.arange(len(ranks.groups))
    first_of_group = np.cumsum(num_gold) - num_gold
    is_new = np.ones(len(position), bool)
    is_new[1:] = (ranks.groups[1:] != ranks.groups[:-1]) | (ranks.values[1:] != ranks.values[:-1])
    run = np.cumsum(is_new) - 1
    gold_less = position[is_new][run] - first_of_group[ranks.groups]
    return num_gold, gold_less, np.bincount(run, minlength=0)[run] if len(run) else run


def curves_of_groups(ranks: GoldRanks, num_scores: int, num_groups: int) -> GroupCurves:
    """Return AUC and average precision of each group from the ranks of its gold pairs.

    AUC (Mann-Whitney, ties count half; Hanley and McNeil 1982) with P gold and Q other pairs:

        auc = 1 / (P * Q) * sum over gold g of (#{other: s < s_g} + #{other: s = s_g} / 2)

    NaN without gold pairs or without others. Average precision, the step-wise area of the precision-recall curve, takes
    pairs of equal score in together, as scikit-learn's `average_precision_score` does:

        average_precision = 1 / P * sum over gold g of #{gold: s >= s_g} / #{all: s >= s_g}

    NaN without gold pairs. Where scores are binned, the exact AUC lies within `tied` of the value given.
    """
    num_gold, gold_less, gold_equal = count_gold_in_group(ranks, num_groups)
    num_pairs = num_gold * (num_scores - num_gold)
    below = np.bincount(ranks.groups, ranks.less - gold_less, num_groups)
    tied = np.bincount(ranks.groups, (ranks.equal - gold_equal) / 2, num_groups)
    precision = (num_gold[ranks.groups] - gold_less) / (num_scores - ranks.less)
    return GroupCurves(
        auc=divide(below + tied, num_pairs, empty=math.nan),
        tied=divide(tied, num_pairs, empty=math.nan),
        average_precision=divide(np.bincount(ranks.groups, precision, num_groups), num_gold, empty=math.nan),
    )


def best_cuts_of_groups(ranks: GoldRanks, num_scores: int, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each group, the gold pair at which cutting gives the best F1, as an index into `ranks`, and that F1.

    F1 = 2 tp / (predicted + gold) only rises where a cut takes in a gold pair, so the scores of gold pairs are all the
    candidates there are. Of equal F1 the highest score is chosen. A pair that scores 0 can never be predicted. The index
    of a group without a cut is -1 and its F1 is 0.
    """
    num_gold, gold_less, _ = count_gold_in_group(ranks, num_groups)
    f1 = 2 * (num_gold[ranks.groups] - gold_less) / (num_scores - ranks.less + num_gold[ranks.groups])
    f1 = np.where(ranks.values > 0, f1, 0.0)
    order = np.lexsort((ranks.values, f1, ranks.groups))  # the last of each group is its best
    last = np.cumsum(num_gold) - 1
    best = np.where(num_gold > 0, order[last] if len(order) else -1, -1)
    best_f1 = np.where(best >= 0, f1[best] if len(f1) else 0.0, 0.0)
    return np.where(best_f1 > 0, best, -1), best_f1


def cut_between(lower: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return a float32 threshold half way between two scores, such that `value > threshold` and not `lower > threshold`."""
    middle = ((lower.astype(np.float64) + value) / 2).astype(np.float32)
    return np.where(middle < value, middle, lower).astype(np.float32)


def divide(numerator: Any, denominator: Any, empty: float = 0.0) -> np.ndarray:
    """Divide element by element; `empty` where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotient = np.full(np.broadcast(numerator, denominator).shape, empty)
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def f1_of(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def nan_to_none(results: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN by None, for JSON, which has no NaN."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in results.items()
    }


class ICDMetricsAccumulator:
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
    """

    def __init__(
        self,
        num_labels: int | None = None,
        *,
        threshold: Any = 0.5,
        k: int | Iterable[int] = (5, 8, 15),
        score_storage: str = "float32",
    ):
        if score_storage not in SCORE_STORAGES:
            raise ValueError(f"`score_storage` must be one of {SCORE_STORAGES}, got {score_storage!r}.")
        self.threshold = check_threshold(threshold, num_labels)
        self.k = check_k(k)
        self.score_storage = score_storage
        self._given_num_labels = num_labels
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
        self._predicted_per_note: list[np.ndarray] = []
        self._batches: list[np.ndarray] = []  # float32 or uint16 (B, C)
        self._lists: list[tuple[np.ndarray, np.ndarray]] = []  # class ids and scores (B, K)
        self._cached_ranks: dict[str, GoldRanks] = {}

    def __len__(self) -> int:
        return self.num_notes

    def add_batch(self, scores: Any, labels: Any) -> None:
        """Add notes with a score for every code.

        Args:
            scores (array or tensor of shape `(B, C)`): Probabilities, 0 to 1; compared as float32.
            labels (array of shape `(B, C)` or list of `B` lists of class ids):
                An array or tensor is multi-hot, a plain list holds class ids; an empty list is a note without codes.
        """
        scores = check_scores(scores, self.num_labels)
        rows, codes = gold_pairs(labels, *scores.shape)
        self._start(scores.shape[1], sparse=False)
        rows_per_block = max(1, SCORES_PER_BLOCK // max(1, scores.shape[1]))
        for first in range(0, len(scores), rows_per_block):
            start, stop = np.searchsorted(rows, [first, first + rows_per_block])
            self._add_block(scores[first : first + rows_per_block], rows[start:stop] - first, codes[start:stop])

    def add_topk_batch(self, ids: Any, scores: Any, labels: Any) -> None:
        """Add notes of which only the best codes are known; every code left out scores no higher than the last one listed.

        Args:
            ids (integer array of shape `(B, K)`):
                Class ids in any order. -1 pads a note whose list is shorter: its further codes are below any threshold.
                Of codes with equal scores at the end of the list, the lower class ids should be kept.
            scores (array of shape `(B, K)`): Their probabilities; ignored where padded.
            labels: As in `add_batch`.
        """
        if self._given_num_labels is None:
            raise ValueError("A list of the best codes needs `num_labels`, the number of all codes, at construction.")
        num_labels = self._given_num_labels
        ids, scores = to_numpy(ids), to_numpy(scores).astype(np.float32)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ValueError(f"Ids and scores must have the same shape (notes, k), got {ids.shape} and {scores.shape}.")
        if ids.size and not (ids.min() >= -1 and ids.max() < num_labels):
            raise ValueError(f"Listed class ids must lie between 0 and {num_labels - 1}, or be -1 for padding.")
        scores = np.where(ids >= 0, scores, 0)
        check_rows_in_unit_range(scores)
        rows, codes = gold_pairs(labels, len(ids), num_labels)
        self._start(num_labels, sparse=True)

        order = np.lexsort((np.where(ids >= 0, ids, num_labels), -scores, ids < 0), axis=1)
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        listed_rows, ranks = np.nonzero(ids >= 0)
        keys = listed_rows * num_labels + ids[listed_rows, ranks]
        by_key = np.argsort(keys, kind="stable")
        keys, ranks = keys[by_key], ranks[by_key]
        repeated = np.flatnonzero(keys[1:] == keys[:-1])
        if len(repeated):
            row, code = divmod(int(keys[repeated[0]]), num_labels)
            raise ValueError(f"The list of row {row} names class id {code} twice.")
        gold_keys = rows * num_labels + codes
        place = np.minimum(np.searchsorted(keys, gold_keys), len(keys) - 1)
        is_listed = keys[place] == gold_keys if len(keys) else np.zeros(len(rows), bool)
        gold_ranks = np.where(is_listed, ranks[place] if len(keys) else 0, UNLISTED)
        gold_scores = np.where(is_listed, scores[rows, np.where(is_listed, gold_ranks, 0)], 0)
        self._add_gold(rows, codes, gold_scores, gold_ranks, len(ids))
        self._lists.append((ids, scores))

    def merge(self, other: ICDMetricsAccumulator) -> None:
        """Take in the notes of another accumulator with the same arguments, such as that of another process."""
        same = (
            self.score_storage == other.score_storage
            and self.is_sparse in (None, other.is_sparse)
            and self.num_labels in (None, other.num_labels)
            and np.array_equal(self.threshold, other.threshold)
        )
        if not same:
            raise ValueError("Only accumulators with the same codes, threshold and storage can be merged.")
        if not other.num_notes:
            return
        assert_started = self._start(int(other.num_labels or 0), sparse=bool(other.is_sparse))
        del assert_started

    # Accumulation

    def _start(self, num_labels: int, sparse: bool) -> None:
        """Set up the sums at the first batch; later, check that the batch is of the same kind."""
        self._cached_ranks = {}
        if self.is_sparse is not None:
            if sparse != self.is_sparse:
                raise ValueError("Dense scores and lists of the best codes cannot be added to the same accumulator.")
            return
        check_threshold(self.threshold, num_labels)
        self.num_labels, self.is_sparse = num_labels, sparse
        if not sparse:
            self._predicted_per_code = np.zeros(num_labels, np.int64)
            self._bin_counts = np.zeros(NUM_CALIBRATION_BINS)
            self._bin_scores = np.zeros(NUM_CALIBRATION_BINS)
            self._sum_of_squares = 0.0
            if self.score_storage == "histogram":
                self._level_counts = np.zeros(NUM_LEVELS, np.int64)
                self._bin_counts_per_code = np.zeros(num_labels * NUM_BINS, np.uint32)
