"""Reads and checks the arguments of metrics: scores, gold codes in their several forms, thresholds and cut-offs.

An argument that can be read in two ways is never guessed: it is a `ValueError` that names both readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np


REFERENCES_FORMATS = ("multi_hot", "ids", "codes")
PREDICTIONS_FORMATS = ("scores", *REFERENCES_FORMATS)
MULTI_HOT_ARRAY = "An array, a tensor or a sparse matrix is always multi-hot, and `ClassIds(lists)` always class ids."

PREDICTED_CODES = 'If they are the predicted codes of each note, say which: `predictions_format="ids"` or `"codes"`.'


class ClassIds(list):
    """Lists of class ids, one for each note, that say so: they are never taken for multi-hot rows."""


# Scores


def to_numpy(array: Any) -> np.ndarray:
    """Return a numpy view or copy of an array, a list, a sparse matrix or a torch tensor (bfloat16, sparse and device ones too)."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.to_dense() if str(array.layout) != "torch.strided" else array
        array = array.float() if array.is_floating_point() else array
        return array.numpy()
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array)


def check_scores(scores: Any, num_labels: int | None = None) -> np.ndarray:
    """Return scores as a float32 matrix `(B, C)` after checking its shape and that all lie in 0..1."""
    matrix = to_numbers(scores, "Scores", PREDICTED_CODES)
    if matrix.shape == (0,):
        raise ValueError("There are no scores: the batch holds no notes.")
    if matrix.ndim != 2 or (len(matrix) and not matrix.shape[1]):
        raise ValueError(f"Scores must have shape (notes, codes), got {matrix.shape}.")
    if num_labels is not None and matrix.shape[1] != num_labels:
        raise ValueError(f"Scores have {matrix.shape[1]} columns, expected one for each of {num_labels} codes.")
    matrix = matrix.astype(np.float32, copy=False)
    if matrix.size and not (matrix.min() >= 0 and matrix.max() <= 1):  # a NaN fails both comparisons
        raise ValueError(fault_of_scores(matrix))
    return matrix


def to_numbers(values: Any, name: str, remedy: str = "") -> np.ndarray:
    """Return an array of numbers, or raise a `ValueError` with a remedy."""
    try:
        array = to_numpy(values)
    except ValueError:  # rows of several lengths
        array = np.empty(0, object)
    if array.dtype.kind in "biuf":
        return array
    raise ValueError(f"{name} must be numbers, in rows of the same length. {remedy}".rstrip())


def fault_of_scores(matrix: np.ndarray) -> str:
    """Name the first row with a NaN or a value outside 0..1."""
    wrong = ~((matrix >= 0) & (matrix <= 1))
    row, column = np.argwhere(wrong)[0]
    remedy = "Pass the sigmoid of the logits."
    if np.isnan(matrix[row, column]):
        remedy = "The model gave no number there: look at its weights and at that note."
    return (
        f"Scores must lie in 0..1, but row {row} of the batch holds {float(matrix[row, column]):.4g} (in all "
        f"{int(wrong.any(axis=1).sum())} of its rows do). {remedy}"
    )


def check_predicted(predicted: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return which codes are predicted, as a bool matrix of the shape of the scores."""
    matrix = to_numpy(predicted)
    if matrix.dtype != bool or matrix.shape != shape:
        raise ValueError(
            f"`predicted` must be true or false for every score: expected bool of shape {shape}, got {matrix.dtype} of shape "
            f"{matrix.shape}."
        )
    return matrix


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


def check_format(value: str | None, name: str, allowed: Sequence[str]) -> None:
    """Raise a `ValueError` where a `*_format` argument is not one of those there are."""
    if value is not None and value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}.")


def check_predictions_are_scores(scores: Any, references_format: str | None) -> None:
    """Raise a `ValueError` where a list of predictions fits scores of 0 and 1 as well as class ids.

    Only where the references are told to be ids or codes: who writes those as lists may write the predictions so, too.
    """
    if references_format in ("ids", "codes") and not hasattr(scores, "shape"):
        rows = as_rows(scores, "predictions")
        if may_be_ids_of_full_width(rows, len(rows[0]) if rows else 0):
            raise ValueError(
                "`predictions` can be read in two ways: as scores of 0 and 1 for every code, or as lists of class ids. Say "
                'which: `predictions_format="scores"` or `predictions_format="ids"`.'
            )


# Gold codes


def gold_pairs(
    references: Any,
    num_notes: int,
    num_labels: int,
    *,
    references_format: str | None = None,
    label2id: Mapping[str, int] | None = None,
    name: str = "references",
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class ids of the gold pairs, by row and then by class id.

    Args:
        references, references_format: As in `ICDMetricsAccumulator.add_batch`; [`ClassIds`] are always class ids.
        label2id (`Mapping[str, int]`, *optional*): From a code to its class id.
        name (`str`): How errors call the argument.

    Raises:
        ValueError: where references cannot be read, or can be read in two ways.
    """
    check_format(references_format, f"{name}_format", REFERENCES_FORMATS)
    if isinstance(references, ClassIds):
        references_format = "ids"
    if is_matrix(references):
        if references_format in (None, "multi_hot"):
            return pairs_of_matrix(references, num_notes, num_labels)
        references = to_numpy(references)
    rows = as_rows(references, name)
    if len(rows) != num_notes:
        raise ValueError(f"Got labels of {len(rows)} notes and scores of {num_notes}.")
    reading = references_format or reading_of(rows, num_labels, name)
    if reading == "multi_hot":
        check_widths(rows, num_labels, name)
        matrix = to_numbers(rows or np.empty((0, num_labels)), f"Multi-hot `{name}`")
        return pairs_of_matrix(matrix, num_notes, num_labels)
    values = list(chain.from_iterable(rows))
    ids = ids_of_codes(values, num_labels, label2id, name) if reading == "codes" else checked_ids(values, name)
    return pairs_of_ids(np.repeat(np.arange(num_notes), np.fromiter(map(len, rows), np.int64)), ids, num_labels)


def is_matrix(references: Any) -> bool:
    """Whether references are an array of numbers, dense or sparse, and not one of lists or strings."""
    if not hasattr(references, "shape"):
        return False
    if hasattr(references, "detach") or hasattr(references, "toarray"):
        return True
    return np.asarray(references).dtype.kind in "biuf"


def as_rows(references: Any, name: str) -> list[Sequence]:
    """Return one list, or set, for each note; rows that are arrays become lists."""
    if isinstance(references, (str, bytes, Mapping)) or not hasattr(references, "__iter__"):
        raise ValueError(f"`{name}` must hold one list for each note, got {type(references).__name__}.")
    rows = list(references)
    for i, row in enumerate(rows):
        if hasattr(row, "shape"):
            rows[i] = row = to_numpy(row).tolist()
        if isinstance(row, (str, bytes, Mapping)) or not hasattr(row, "__len__"):
            raise ValueError(
                f"`{name}` must hold one list for each note, but row {i} is of type {type(row).__name__}."
            )
    return rows


def reading_of(rows: list[Sequence], num_labels: int, name: str) -> str:
    """Return the one form that lists fit: `"multi_hot"`, `"ids"` or `"codes"`."""
    has_full_width = bool(rows) and num_labels > 0 and all(len(row) == num_labels for row in rows)
    if has_full_width and not any(isinstance(row, (set, frozenset)) for row in rows):
        try:
            matrix = np.array(rows)
        except (ValueError, OverflowError):  # rows in rows, or no number of this machine
            matrix = np.empty(0, object)
        if matrix.dtype.kind in "bf":
            return "multi_hot"
        if matrix.dtype.kind in "iu" and ((matrix == 0) | (matrix == 1)).all():
            if may_be_ids_of_full_width(rows, num_labels):
                raise ValueError(
                    f"`{name}` can be read in two ways: as multi-hot rows, with 0 or 1 for every code, or as lists of class "
                    f'ids. Say which: `{name}_format="multi_hot"` or `{name}_format="ids"`. {MULTI_HOT_ARRAY}'
                )
            return "multi_hot"
    kinds = set(map(type, chain.from_iterable(rows)))
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return "codes"
    if all(is_integer_type(kind) for kind in kinds):
        check_lists_of_ids(rows, num_labels, name)
        return "ids"
    if any(issubclass(kind, str) for kind in kinds):
        raise ValueError(f"`{name}` hold strings and other values ({names_of(kinds)}): give either codes or numbers.")
    check_widths(rows, num_labels, name)
    raise ValueError(
        f"`{name}` hold values of type {names_of(kinds)}: give class ids, 0 and 1 for every code, or codes."
    )


def may_be_ids_of_full_width(rows: list[Sequence], num_labels: int) -> bool:
    """Whether integer rows of 0 and 1 for every code are lists of class ids as well: no id twice, so two codes at most."""
    return 0 < num_labels <= 2 and all(
        len(row) == num_labels and set(row) == set(range(num_labels)) and is_integer_type(type(next(iter(row))))
        for row in rows
    )


def check_lists_of_ids(rows: list[Sequence], num_labels: int, name: str) -> None:
    """Raise a `ValueError` where lists that nobody called ids have an id twice: they may be meant as multi-hot."""
    other_width = next((i for i, row in enumerate(rows) if len(row) != num_labels), None)
    fault = (
        "it holds another number" if other_width is None else f"row {other_width} has {len(rows[other_width])} entries"
    )
    for i, row in enumerate(rows):
        if len(set(row)) < len(row):
            repeated = next(code for place, code in enumerate(row) if code in list(row)[:place])
            raise ValueError(
                f"Row {i} of `{name}` names class id {repeated} twice, so it is no list of class ids; nor are the "
                f"rows multi-hot, with 0 or 1 for each of {num_labels} codes: {fault}."
            )


def check_widths(rows: list[Sequence], num_labels: int, name: str) -> None:
    """Raise a `ValueError` that names the first row which has not one entry for every code."""
    for i, row in enumerate(rows):
        if len(row) != num_labels or isinstance(row, (set, frozenset)):
            raise ValueError(
                f"Multi-hot rows hold 0 or 1 for each of {num_labels} codes, but row {i} of `{name}` has {len(row)} entries."
            )


def checked_ids(values: list, name: str) -> np.ndarray:
    """Return class ids as an array after checking that they are integers."""
    check_kinds(values, is_integer_type, "Class ids must be integers", name)
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise ValueError(f"A class id in `{name}` is out of range: ids are numbers of score columns.") from None


def ids_of_codes(values: list, num_labels: int, label2id: Mapping[str, int] | None, name: str) -> np.ndarray:
    """Return the class ids of code strings."""
    if label2id is None:
        raise ValueError(
            f"`{name}` hold codes, so `labels` is needed: the codes in the order of the score columns, such as "
            "`[config.id2label[i] for i in range(config.num_labels)]`."
        )
    if len(label2id) != num_labels:
        raise ValueError(f"`labels` holds {len(label2id)} codes, but there are {num_labels} score columns.")
    check_kinds(values, lambda kind: issubclass(kind, str), "Codes must be strings", name)
    unknown = sorted(set(values) - label2id.keys())
    if unknown:
        raise ValueError(
            f"{len(unknown)} codes of `{name}` are not in `labels`, e.g. {unknown[:3]}. Leave them out, or give each a column "
            "of zeros in the scores, so that it counts as missed."
        )
    return np.array([label2id[code] for code in values], np.int64)


def check_kinds(values: list, is_right: Callable[[type], bool], rule: str, name: str) -> None:
    """Raise a `ValueError` with the rule that values of some type break."""
    kinds = {kind for kind in map(type, values) if not is_right(kind)}
    if kinds:
        raise ValueError(f"{rule}, but `{name}` hold values of type {names_of(kinds)}.")


def read_labels(labels: Any) -> dict[str, int] | None:
    """Return class ids by code from `labels`: codes in the order of their columns, or a model's `id2label` or `label2id`."""
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        is_id2label = all(isinstance(value, str) for value in labels.values())
        by_id = {int(k): v for k, v in labels.items()} if is_id2label else {v: k for k, v in labels.items()}
        if sorted(by_id) != list(range(len(labels))):
            raise ValueError(f"`labels` must number its codes from 0 to {len(labels) - 1}, each number once.")
        labels = [by_id[i] for i in range(len(by_id))]
    names = [labels] if isinstance(labels, str) else list(labels)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("`labels` must be the codes as strings, in the order of the score columns.")
    label2id = {code: i for i, code in enumerate(names)}
    if len(label2id) != len(names):
        raise ValueError(
            f"`labels` names {len(names) - len(label2id)} codes twice: every column has a code of its own."
        )
    return label2id


def pairs_of_matrix(matrix: Any, num_notes: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class ids of the ones in a multi-hot matrix."""
    if tuple(matrix.shape) != (num_notes, num_labels):
        raise ValueError(
            f"Multi-hot labels have shape {tuple(matrix.shape)}, scores {(num_notes, num_labels)}: they must be the same. "
            'Class ids in an array need `references_format="ids"`.'
        )
    values = to_numpy(matrix)
    is_gold = values != 0
    if not np.array_equal(values, is_gold):
        raise ValueError("Multi-hot labels may hold 0 and 1 only. Pass class ids as a list of lists.")
    rows, codes = np.nonzero(is_gold)
    return rows, codes


def pairs_of_ids(rows: np.ndarray, codes: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class ids, by row and then by class id, after checking that ids are in range and given once."""
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
            f"Row {row} names class id {code} twice. It was read as class ids: multi-hot rows have an entry for every code."
        )
    return keys // num_labels, keys % num_labels


def is_integer_type(kind: type) -> bool:
    """Whether values of a type can be class ids; `bool` cannot."""
    return issubclass(kind, (int, np.integer)) and not issubclass(kind, bool)


def names_of(kinds: Iterable[type]) -> str:
    """The names of types, for a message."""
    return ", ".join(sorted(kind.__name__ for kind in kinds))
