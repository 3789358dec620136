"""The figures of `make demo`: from the scores of its two models on invented notes to every number of `results.json`."""

import json
from pathlib import Path

import numpy as np
import pytest

from modeling_icd.evaluation import ClassIds
from modeling_icd.evaluation.results import ScoredSplit, summarize
from modeling_icd.evaluation.scoring import code_attributes


FOLDER = Path(__file__).resolve().parents[1] / "golden" / "demo"
# What was scored with what, which the scores do not tell.
ABOUT = (
    "dataset",
    "config",
    "split",
    "num_notes",
    "num_empty_notes",
    "num_codes",
    "unknown_codes",
    "data_fingerprint",
)
ABOUT += ("synthetic", "training_seed", "threshold_rule", "threshold_source")


@pytest.mark.parametrize("name", ["direct", "multirescnn"])
def test_every_figure_is_what_it_was(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    kept = np.load(FOLDER / f"{name}.npz")
    codes = expected["per_code"]["codes"]
    split = ScoredSplit(
        kept["scores"],
        ClassIds(np.flatnonzero(row).tolist() for row in kept["gold"]),
        codes,
        kept["hadm_ids"].tolist(),
        kept["num_words"].tolist(),
        {"threshold": expected["threshold"]},
        training_counts=dict(zip(codes, expected["per_code"]["train"], strict=True)),
        attributes=code_attributes(codes),
        about={"model": name, "reader": None} | {key: expected[key] for key in ABOUT},
        descriptions=expected["descriptions"],
    )
    results, _ = summarize(split, expected["seed"])
    found = json.loads(json.dumps(results))
    assert set(expected) - set(found) == set()
    for key, value in expected.items():
        # Another machine may add numbers in another order, and differ in the last digit.
        assert_close(found[key], value, key)


def assert_close(found, expected, where):
    if isinstance(expected, dict):
        assert found.keys() >= expected.keys(), where
        for key, value in expected.items():
            assert_close(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            assert_close(found[i], value, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12), where
    else:
        assert found == expected, where
