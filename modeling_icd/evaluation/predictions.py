"""Writes and reads a model's predictions for each note: ids and scores, never text.

`predictions.parquet` has one row a note:

- `hadm_id` (int64; a string where the data set's ids are), `num_words` (length of the note), `gold` (class ids) and
  `gold_ranks` (rank of each in the note, from 0);
- `predicted`: class ids of the codes that the model decided for;
- `codes` and `scores`: class ids and their scores. All codes of a small set; of a large one the 100 best above 0, the predicted
  and the gold ones, so that every count, rank and metric of the decision can be made again, but not the AUCs.

Its metadata hold the code vocabulary, the threshold, and what was scored. Gold codes by admission are patient data: the file
is as confidential as the data set, and its place is not the folder of a model that is published.

`preds_test.psv` is CAML's format: `hadm_id|code|code...`, one line a note (`write_preds` in jamesmullenbach/caml-mimic). An id
with a `|`, a quote or a line break in it is quoted, as in csv.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dataset_scripts.files import whole_file

from ..decision_icd import decision_of, is_predicted
from .outcomes import Outcomes, outcomes_of_pairs
from .results import ScoredSplit


PREDICTIONS_FILE = "predictions.parquet"
METADATA_KEY = b"modeling_icd"
MAX_COMPLETE = 1 << 22  # scores; above, only the best codes of a note are written
NUM_BEST = 100  # as CAML's pred_100_scores
CAML_FOLDS = {"validation": "dev"}


class Predictions(NamedTuple):
    """What `read_predictions` finds."""

    hadm_ids: np.ndarray  # (N,), whole numbers or strings
    num_words: np.ndarray  # (N,)
    codes: list[str]  # by class id
    outcomes: Outcomes
    about: dict[str, Any]  # what was scored: model, data set, split, fingerprint


def write_predictions(folder: Path, split: ScoredSplit, outcomes: Outcomes) -> Path:
    """Write `predictions.parquet` and CAML's `preds_SPLIT.psv` into a folder; returns the first."""
    is_listed = listed_codes(split.scores, outcomes)
    rows, ids = np.nonzero(is_listed)
    gold_per_note = np.bincount(outcomes.gold_notes, minlength=outcomes.num_notes)
    predicted_per_note = np.bincount(outcomes.predicted_notes, minlength=outcomes.num_notes)
    metadata = {
        **{name: split.about[name] for name in ("model", "dataset", "config", "split", "data_fingerprint")},
        "codes": list(split.codes),
        "threshold": np.asarray(decision_of(split.decision)["threshold"], np.float64).tolist(),
        "is_complete": bool(is_listed.all()),
    }
    table = pa.table(
        {
            "hadm_id": pa.array(split.hadm_ids, pa.string() if are_strings(split.hadm_ids) else pa.int64()),
            "num_words": pa.array(split.num_words, pa.int32()),
            "gold": _lists(outcomes.gold_codes, gold_per_note, pa.int32()),
            "gold_ranks": _lists(outcomes.gold_ranks, gold_per_note, pa.int32()),
            "predicted": _lists(outcomes.predicted_codes, predicted_per_note, pa.int32()),
            "codes": _lists(ids, is_listed.sum(axis=1), pa.int32()),
            "scores": _lists(split.scores[rows, ids], is_listed.sum(axis=1), pa.float32()),
        }
    ).replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    path = folder / PREDICTIONS_FILE
    with whole_file(path, "wb", private=True) as file:
        pq.write_table(table, file, compression="zstd")
    name = split.about["split"]
    write_psv(folder / f"preds_{CAML_FOLDS.get(name, name)}.psv", split.hadm_ids, split.codes, outcomes)
    return path


def are_strings(hadm_ids: Sequence[int] | Sequence[str]) -> bool:
    """Whether the ids of a split are strings, as those of the user's own notes are."""
    return len(hadm_ids) > 0 and isinstance(hadm_ids[0], str)


def write_psv(path: Path, hadm_ids: Sequence[int] | Sequence[str], codes: Sequence[str], outcomes: Outcomes) -> None:
    """Write the predicted codes of each note in CAML's format; a note without any has an empty second field."""
    bounds = np.searchsorted(outcomes.predicted_notes, np.arange(outcomes.num_notes + 1))
    with whole_file(path, private=True, newline="") as file:
        writer = csv.writer(file, delimiter="|")
        for hadm_id, start, stop in zip(hadm_ids, bounds[:-1], bounds[1:], strict=True):
            writer.writerow([hadm_id, *([codes[c] for c in outcomes.predicted_codes[start:stop]] or [""])])


def read_predictions(path: Path) -> Predictions:
    """Read `predictions.parquet`."""
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path}: write it with `modeling-icd evaluate MODEL ... --output_dir {path.parent}`."
        )
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        raise ValueError(f"{path} is cut short or damaged: evaluate again.") from None
    packed = (table.schema.metadata or {}).get(METADATA_KEY)
    if packed is None or "predicted" not in table.column_names:
        raise ValueError(f"{path} was not written by this version: evaluate again.")
    about = json.loads(packed)
    codes = about.pop("codes")
    ranks = _flat(table["gold_ranks"]).astype(np.int64)
    return Predictions(
        hadm_ids=table["hadm_id"].to_numpy(),
        num_words=table["num_words"].to_numpy(),
        codes=codes,
        outcomes=outcomes_of_pairs(
            table.num_rows, len(codes), _pairs(table["gold"]), ranks, _pairs(table["predicted"])
        ),
        about=about,
    )


def listed_codes(scores: np.ndarray, outcomes: Outcomes) -> np.ndarray:
    """Return which scores are written, `(N, C)`; of a large set none that are 0, unless gold."""
    if scores.size <= MAX_COMPLETE:
        return np.ones(scores.shape, bool)
    is_listed = is_predicted(torch.from_numpy(scores), 0, NUM_BEST).numpy()
    is_listed[outcomes.gold_notes, outcomes.gold_codes] = True
    is_listed[outcomes.predicted_notes, outcomes.predicted_codes] = True
    return is_listed


def _lists(values: np.ndarray, lengths: np.ndarray, value_type: pa.DataType) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values, value_type))


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _pairs(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lengths)), lengths), _flat(column).astype(np.int64)
