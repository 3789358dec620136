"""Every figure of fixed invented scores, held against those of an earlier version: a change of code may change none."""

import json
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

from modeling_icd.decision_icd import is_predicted
from modeling_icd.evaluation import ICD_METRICS_PATH, ClassIds, ICDMetricsAccumulator
from modeling_icd.evaluation.intervals import (
    bootstrap_intervals,
    calibration_terms,
    randomization_test,
    ranking_terms,
    weighted_calibration,
    weighted_ranking,
)
from modeling_icd.evaluation.outcomes import outcomes_of, weighted_metrics
from modeling_icd.evaluation.results import ScoredSplit, summarize


GOLDEN = Path(__file__).parents[1] / "golden" / "figures.json"
NUM_NOTES, NUM_CODES = 200, 60


def make_scores(seed=11):
    """Scores with many ties, notes without codes, and codes that are never gold or score 0 throughout."""
    random = np.random.default_rng(seed)
    labels = random.random((NUM_NOTES, NUM_CODES)) < 0.4 / np.arange(1, NUM_CODES + 1)
    labels[::17] = False
    labels[:, [20, 40]] = False
    logits = 3 * (labels - 0.7) + random.normal(scale=1.5, size=labels.shape)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    scores[::3] = np.round(scores[::3], 1)
    scores[:, -1] = 0
    return scores, labels.astype(int)


def thresholds_per_code():
    return np.linspace(0.2, 0.8, NUM_CODES)


def make_split(scores, labels, **changes):
    codes = [f"{100 + i // 3}.{i % 3}" for i in range(NUM_CODES)]
    split = ScoredSplit(
        scores=scores,
        gold=ClassIds(np.flatnonzero(row).tolist() for row in labels),
        codes=codes,
        hadm_ids=list(range(NUM_NOTES)),
        num_words=np.random.default_rng(5).integers(20, 2000, NUM_NOTES).tolist(),
        decision={"threshold": 0.5},
        training_counts={code: 2 * i for i, code in enumerate(codes[:-1])},
        attributes={
            code: {
                "chapter": f"chapter {i // 20}",
                "block": f"block {i // 6}",
                "category": code[:3],
                "kind": "procedure" if i > 45 else "diagnosis",
            }
            for i, code in enumerate(codes)
        },
        about={
            "model": "somewhere/coder",
            "dataset": "mimic3",
            "config": "full",
            "split": "test",
            "num_notes": NUM_NOTES,
            "num_codes": NUM_CODES,
            "unknown_codes": codes[-1:],
            "data_fingerprint": "0" * 64,
            "synthetic": False,
            "training_seed": 3,
            "threshold_rule": "global",
            "threshold_source": "model configuration (chosen on validation)",
        },
    )
    return split._replace(**changes)


def accumulated(scores, labels, batch_size=64, **options):
    compute = {name: options.pop(name) for name in ("threshold", "k", "tune_threshold") if name in options}
    accumulator = ICDMetricsAccumulator(**options)
    for first in range(0, len(scores), batch_size):
        accumulator.add_batch(scores[first : first + batch_size], labels[first : first + batch_size])
    return accumulator.compute(**compute)


def figures_of_the_accumulator():
    scores, labels = make_scores()
    per_code = thresholds_per_code()
    stored = ICDMetricsAccumulator(threshold=per_code)
    stored.add_batch(scores, labels)
    return {
        "plain": accumulated(scores, labels),
        "uint16": accumulated(scores, labels, score_storage="uint16", tune_threshold=True),
        "tuned": accumulated(scores, labels, tune_threshold=True, k=(1, 10, 70)),
        "thresholds": accumulated(scores, labels, threshold=per_code),
        "thresholds at construction": stored.compute(),
        "by code": {name: values.tolist() for name, values in stored.per_code().items()},
        "evaluate": evaluate.load(ICD_METRICS_PATH).compute(predictions=scores, references=labels, threshold=0.3),
        "one note": accumulated(scores[:1], labels[:1]),
        "no order": evaluate.load(ICD_METRICS_PATH, num_labels=NUM_CODES).compute(
            predictions=scores > 0.5, references=labels, predictions_format="multi_hot"
        ),
    }


def figures_of_intervals():
    scores, labels = make_scores()
    others, _ = make_scores(seed=12)
    outcomes = outcomes_of(scores, labels, scores > 0.5)
    other = outcomes_of(others, labels, others > thresholds_per_code().astype(np.float32))
    weights = np.random.default_rng(3).integers(0, 3, (4, NUM_NOTES)).astype(float)
    ranking, calibration = ranking_terms(scores, outcomes), calibration_terms(scores, outcomes)
    weighted = {
        **weighted_metrics(outcomes, weights, (5, 8)),
        **weighted_ranking(ranking, weights),
        **weighted_calibration(calibration, weights, NUM_CODES),
    }
    return {
        "weighted": {name: values.tolist() for name, values in weighted.items()},
        "top k": {
            name: values.tolist()
            for name, values in weighted_metrics(
                outcomes_of(scores, labels, is_predicted(torch.from_numpy(scores), 0.5, 4).numpy()), weights
            ).items()
        },
        "intervals": bootstrap_intervals(
            outcomes, accumulated(scores, labels), ranking=ranking, calibration=calibration, num_resamples=60
        ),
        "tests": {
            name: list(test)
            for name, test in randomization_test(
                outcomes, other, ["f1_micro", "f1_macro", "map", "precision_at_5"], num_shuffles=60
            ).items()
        },
    }


def figures_of_results():
    scores, labels = make_scores()
    calibration = {
        "method": "temperature",
        "bands": ["all"],
        "slopes": [0.8],
        "intercepts": [0.0],
        "band_of_code": [0] * NUM_CODES,
    }
    trusted, _ = summarize(
        make_split(
            scores,
            labels,
            uncalibrated=scores**2,
            decision={
                "calibration": calibration,
                "review_threshold": 0.7,
                "review_precision": 0.8,
                "target_recall": 0.9,
            },
        )
    )
    per_code, _ = summarize(make_split(scores, labels, decision={"threshold": thresholds_per_code()}))
    top_k, _ = summarize(make_split(scores, labels, decision={"threshold_rule": "top_k", "predict_top_k": 4}))
    kept = ("metrics", "intervals", "threshold", "thresholds", "strata", "per_code")
    return {
        "whole": {name: value for name, value in trusted.items() if name not in ("code_version", "versions")},
        "per code": {name: per_code[name] for name in kept},
        "top k": {name: top_k[name] for name in kept},
    }


FIGURES = {
    "accumulator": figures_of_the_accumulator,
    "intervals": figures_of_intervals,
    "results": figures_of_results,
}


def assert_equal(found, expected, where):
    """Equal, numbers to 12 digits: another machine may add in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_equal(found[name], value, f"{where}, {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, other, f"{where}, {i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-14, nan_ok=True), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("part", FIGURES)
def test_figures_are_those_of_before(part):
    assert_equal(json.loads(json.dumps(FIGURES[part]())), json.loads(GOLDEN.read_text())[part], part)
