import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_icd.evaluation import (
    ClassIds,
    ICDMetricsAccumulator,
    tune_bagged_threshold,
    tune_global_threshold,
    tune_per_code_thresholds,
)


@st.composite
def splits(draw):
    """Scores with many ties, 0 and 1 among them, and labels with at least one gold code."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 5)))
    size = shape[0] * shape[1]
    grid = draw(st.sampled_from([1, 3, 10, 1000]))
    scores = np.array(draw(st.lists(st.integers(0, grid), min_size=size, max_size=size)), np.float32) / grid
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    labels[draw(st.integers(0, size - 1))] = 1
    return scores.reshape(shape), labels.reshape(shape)


def f1_at(scores, labels, threshold):
    predicted = scores > np.float32(threshold)
    hits = (predicted & (labels == 1)).sum()
    return 2 * hits / (predicted.sum() + labels.sum()) if hits else 0.0


def best_f1_by_trying_all(scores, labels):
    candidates = np.unique(np.concatenate([[0], scores.ravel()]))
    return max(f1_at(scores, labels, candidate) for candidate in candidates)


@settings(max_examples=200)
@given(splits())
def test_global_threshold_is_the_best_of_all(split):
    scores, labels = split
    threshold = tune_global_threshold(scores, labels)
    assert 0 <= threshold <= 1
    assert f1_at(scores, labels, threshold) == pytest.approx(best_f1_by_trying_all(scores, labels), abs=1e-12)


def test_bagged_threshold_wanders_less_from_one_small_split_to_the_next():
    generator = np.random.default_rng(0)
    plain, bagged = [], []
    for _ in range(30):
        labels = (generator.random((40, 3)) < 0.3).astype(int)
        # gold scores around 0.7, the others around 0.3: the best threshold of very many notes is near 0.5
        scores = np.clip(generator.normal(0.3 + 0.4 * labels, 0.2), 0, 1)
        plain.append(tune_global_threshold(scores, labels))
        bagged.append(tune_bagged_threshold(scores, labels))
    assert np.std(bagged) < 0.8 * np.std(plain)
    assert np.mean(bagged) == pytest.approx(np.mean(plain), abs=0.03)


def test_bagged_threshold_takes_lists_and_notes_in_any_order():
    scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.3, 0.1]])
    threshold = tune_bagged_threshold(scores, [[0], [1], []])
    assert threshold == tune_bagged_threshold(scores[[2, 0, 1]], np.array([[0, 0], [1, 0], [0, 1]]))
    assert 0.4 <= threshold <= 0.9


@settings(max_examples=100)
@given(splits())
def test_per_code_thresholds_without_shrinkage_are_each_code_s_best(split):
    scores, labels = split
    thresholds = tune_per_code_thresholds(scores, labels, shrinkage=0)
    for code in range(scores.shape[1]):
        column, gold = scores[:, code], labels[:, code]
        assert f1_at(column, gold, thresholds[code]) == pytest.approx(best_f1_by_trying_all(column, gold), abs=1e-12)


@pytest.mark.parametrize("score_storage", ["float32", "uint16"])
@settings(max_examples=50)
@given(split=splits())
def test_accumulator_finds_a_threshold_with_the_f1_it_reports(score_storage, split):
    scores, labels = split
    accumulator = ICDMetricsAccumulator(score_storage=score_storage)
    accumulator.add_batch(scores, labels)
    results = accumulator.compute(tune_threshold=True)
    assert f1_at(scores, labels, results["threshold"]) == pytest.approx(results["f1_micro_tuned"])
    # Grid scores are far apart, so levels cost nothing here.
    assert results["f1_micro_tuned"] == pytest.approx(best_f1_by_trying_all(scores, labels))
    if score_storage == "float32":
        assert results["threshold"] == tune_global_threshold(scores, labels)


def test_threshold_lies_half_way_in_the_gap():
    # Predicting 0.9 and 0.5 gives F1 1; the next lower score is 0.25.
    assert tune_global_threshold([[0.9, 0.25], [0.125, 0.5]], [[0], [1]]) == 0.375


def test_highest_of_equal_thresholds_is_chosen():
    # From 0.8: tp 1 of 1 predicted, F1 2/3. From 0.2: tp 2 of 4 predicted, F1 4/6, the same.
    assert tune_global_threshold([[0.8, 0.6, 0.4, 0.2]], [[0, 3]]) == pytest.approx(0.7)


def test_neighbouring_floats_are_still_told_apart():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    threshold = np.float32(tune_global_threshold(np.array([[low, high]]), [[1]]))
    assert high > threshold and not low > threshold


def test_lowest_score_as_the_cut_leaves_room_below():
    assert tune_global_threshold([[0.5, 0.5]], ClassIds([[0, 1]])) == 0.25


def test_gold_codes_that_all_score_zero_leave_the_default():
    assert tune_global_threshold([[0.0, 0.7]], [[0]]) == 0.5
    np.testing.assert_array_equal(tune_per_code_thresholds([[0.0, 0.7]], [[0]]), [0.5, 0.5])


def test_shrinkage_by_hand():
    # Overall the best cut is at 0.6 (tp 4, no fp), half way to 0.2: 0.4. Code 0: best cut at 0.8, half way to 0.2: 0.5, 3 notes.
    # Code 1: 0.6, half way to 0.1: 0.35, 1 note. Code 2 has no gold note.
    scores = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.9, 0.1, 0.1], [0.2, 0.6, 0.1]])
    labels = [[0], [0], [0], [1]]
    thresholds = tune_per_code_thresholds(scores, labels, shrinkage=1)
    assert thresholds == pytest.approx([(3 * 0.5 + 0.4) / 4, (0.35 + 0.4) / 2, 0.4])
    assert tune_per_code_thresholds(scores, labels, shrinkage=float("inf")) == pytest.approx([0.4, 0.4, 0.4])


def test_errors():
    with pytest.raises(ValueError, match="single gold code"):
        tune_global_threshold([[0.1]], [[]])
    with pytest.raises(ValueError, match="shrinkage"):
        tune_per_code_thresholds([[0.1]], [[0]], shrinkage=-1)
