import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_icd.evaluation import ICDMetricsAccumulator
from modeling_icd.evaluation.intervals import (
    bootstrap_intervals,
    calibration_terms,
    holm,
    randomization_test,
    ranking_terms,
    weighted_calibration,
    weighted_ranking,
)
from modeling_icd.evaluation.outcomes import outcomes_of, weighted_metrics


def make_split(rng, num_notes, num_codes=6, noise=0.6):
    """Notes whose codes are drawn independently, rarer and rarer, and scores that know about them."""
    labels = (rng.random((num_notes, num_codes)) < 0.5 / np.arange(1, num_codes + 1)).astype(int)
    return 1 / (1 + np.exp(-3 * (labels - 0.5) - rng.normal(scale=3 * noise, size=labels.shape))), labels


def metrics_of(scores, labels, threshold=0.5):
    accumulator = ICDMetricsAccumulator(threshold=threshold)
    accumulator.add_batch(np.asarray(scores), np.asarray(labels))
    return accumulator.compute()


@st.composite
def weighted_splits(draw):
    """Few notes and codes, tied scores, notes without codes, and how often each note is drawn."""
    num_notes, num_codes = draw(st.tuples(st.integers(1, 6), st.integers(1, 5)))
    grid = st.integers(0, 4).map(lambda value: value / 4)
    scores = draw(st.lists(grid, min_size=num_notes * num_codes, max_size=num_notes * num_codes))
    labels = draw(st.lists(st.integers(0, 1), min_size=num_notes * num_codes, max_size=num_notes * num_codes))
    weights = draw(st.lists(st.integers(0, 3), min_size=num_notes, max_size=num_notes).filter(any))
    shape = (num_notes, num_codes)
    return np.array(scores, np.float32).reshape(shape), np.array(labels).reshape(shape), np.array(weights)


@settings(max_examples=150)
@given(weighted_splits())
def test_weighted_metrics_are_those_of_repeated_notes(split):
    scores, labels, weights = split
    drawn = np.repeat(np.arange(len(scores)), weights)
    expected = metrics_of(scores[drawn], labels[drawn])
    weighted = weighted_metrics(outcomes_of(scores, labels, scores > 0.5), weights[None])
    assert {"f1_micro", "f1_macro", "f1_macro_caml", "f1_instance", "precision_at_8", "f1_at_8", "map"} <= set(
        weighted
    )
    for name, value in weighted.items():
        assert value[0] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_a_model_that_predicts_everything_takes_the_dense_way_to_the_same_figures():
    scores, labels = make_split(np.random.default_rng(0), 50)
    weights = np.random.default_rng(1).integers(0, 3, size=(4, 50))
    weighted = weighted_metrics(outcomes_of(scores, labels, scores > 0.0), weights)
    for row, expected_weights in enumerate(weights):
        drawn = np.repeat(np.arange(50), expected_weights)
        expected = metrics_of(scores[drawn], labels[drawn], 0.0)
        assert weighted["f1_macro"][row] == pytest.approx(expected["f1_macro"])


def test_ranking_terms_give_the_figures_themselves_and_nearly_those_of_resamples():
    rng = np.random.default_rng(0)
    scores, labels = make_split(rng, 400)
    scores[:, -1] = 0.5  # a code with nothing but ties
    terms = ranking_terms(scores, outcomes_of(scores, labels, scores > 0.5))
    whole = weighted_ranking(terms, np.ones((1, 400)))
    expected = metrics_of(scores, labels)
    for name, value in whole.items():  # micro figures are on levels; intervals are centred
        assert value[0] == pytest.approx(expected[name], abs=1e-3 if "micro" in name else 1e-12), name
    assert whole.keys() == {f"{name}_{mean}" for name in ("auc", "average_precision") for mean in ("micro", "macro")}
    exact, projected = {name: [] for name in whole}, {name: [] for name in whole}
    for _ in range(60):
        drawn = rng.integers(400, size=400)
        resample = metrics_of(scores[drawn], labels[drawn])
        estimate = weighted_ranking(terms, np.bincount(drawn, minlength=400)[None].astype(float))
        for name in exact:
            exact[name].append(resample[name])
            projected[name].append(estimate[name][0])
    for name in exact:
        assert np.corrcoef(exact[name], projected[name])[0, 1] > 0.98, name
        assert np.std(projected[name]) == pytest.approx(np.std(exact[name]), rel=0.1), name


def test_calibration_terms_give_the_figures_of_repeated_notes():
    rng = np.random.default_rng(0)
    scores, labels = make_split(rng, 40)
    repeats = rng.integers(0, 3, 40)
    weighted = weighted_calibration(
        calibration_terms(scores, outcomes_of(scores, labels, scores > 0.5)),
        np.stack([np.ones(40), repeats.astype(float)]),
        scores.shape[1],
    )
    for row, drawn in enumerate((np.arange(40), np.repeat(np.arange(40), repeats))):
        expected = metrics_of(scores[drawn], labels[drawn])
        for name in ("ece", "brier"):
            assert weighted[name][row] == pytest.approx(expected[name], abs=1e-6), name


def test_intervals_cover_the_expected_figure():
    """95 % intervals of 150 splits of 100 notes: the share that holds the mean over splits lies near 95 %."""
    rng = np.random.default_rng(0)
    names = ("f1_micro", "f1_macro", "f1_macro_seen", "f1_instance", "auc_micro", "auc_macro", "map", "precision_at_5")
    names += ("ece", "brier", "average_precision_micro", "average_precision_macro")
    figures, intervals = [], []
    for seed in range(150):
        scores, labels = make_split(rng, 100, num_codes=12)
        figures.append(metrics_of(scores, labels))
        outcomes = outcomes_of(scores, labels, scores > 0.5)
        intervals.append(
            bootstrap_intervals(
                outcomes,
                figures[-1],
                ranking=ranking_terms(scores, outcomes),
                calibration=calibration_terms(scores, outcomes),
                seed=seed,
                num_resamples=200,
            )
        )
    for name in names:
        expected = np.mean([figure[name] for figure in figures])
        covered = np.mean([low <= expected <= high for low, high in (interval[name] for interval in intervals)])
        # Binomial(150, 0.95) has a standard deviation of 1.8 %; 12 rare codes and 200 resamples cost a little.
        assert covered >= 0.89, (name, covered)
        widths = [interval[name][1] - interval[name][0] for interval in intervals]
        assert np.mean(widths) < 6 * np.std([figure[name] for figure in figures]), name


def test_an_interval_holds_the_figure_even_where_rare_codes_drop_out_of_resamples():
    scores = np.eye(20) * 0.8 + 0.1  # 20 codes, each gold and predicted in one note: a perfect model
    labels = np.eye(20, dtype=int)
    figures = metrics_of(scores, labels)
    intervals = bootstrap_intervals(outcomes_of(scores, labels, scores > 0.5), figures)
    assert figures["f1_macro"] == 1
    assert intervals["f1_macro"][0] < 1 == intervals["f1_macro"][1]
    assert intervals["f1_micro"] == [1, 1]


def test_intervals_depend_on_the_seed_alone_and_narrow_with_more_notes():
    scores, labels = make_split(np.random.default_rng(0), 80)
    figures = metrics_of(scores, labels)
    outcomes = outcomes_of(scores, labels, scores > 0.5)
    intervals = bootstrap_intervals(outcomes, figures, seed=3)
    assert intervals == bootstrap_intervals(outcomes, figures, seed=3)
    assert intervals != bootstrap_intervals(outcomes, figures, seed=4)
    assert not {"auc_micro", "average_precision_macro", "ece"} & intervals.keys()
    more = bootstrap_intervals(
        outcomes_of(*(np.tile(part, (9, 1)) for part in (scores, labels, scores > 0.5))), figures, seed=3
    )
    low, high = intervals["f1_micro"]
    assert more["f1_micro"][1] - more["f1_micro"][0] == pytest.approx((high - low) / 3, rel=0.2)


def test_figures_without_a_value_get_no_interval():
    scores, labels = np.full((3, 2), 0.4), np.zeros((3, 2), int)
    intervals = bootstrap_intervals(
        outcomes_of(scores, labels, scores > 0.5),
        metrics_of(scores, labels),
        ranking=ranking_terms(scores, outcomes_of(scores, labels, scores > 0.5)),
    )
    assert not {"auc_micro", "auc_macro", "f1_macro_seen"} & intervals.keys()
    assert intervals["f1_micro"] == [0, 0]


def test_paired_test_finds_nothing_between_equal_runs():
    scores, labels = make_split(np.random.default_rng(0), 60)
    outcomes = outcomes_of(scores, labels, scores > 0.5)
    for result in randomization_test(outcomes, outcomes, ["f1_micro", "f1_macro", "map"]).values():
        assert result == (0.0, 1.0)


def test_paired_test_keeps_its_level_and_finds_a_real_difference():
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(100):
        scores, labels = make_split(rng, 40)
        others = 1 / (
            1 + np.exp(-3 * (labels - 0.5) - rng.normal(scale=1.8, size=labels.shape))
        )  # the same noise, new
        first, second = outcomes_of(scores, labels, scores > 0.5), outcomes_of(others, labels, others > 0.5)
        p_values.append(
            randomization_test(first, second, ["f1_micro"], seed=seed, num_shuffles=200)["f1_micro"].p_value
        )
    # Under no difference p is uniform: 5 of 100 below 0.05 expected, standard deviation 2.2.
    assert np.mean(np.array(p_values) < 0.05) <= 0.12
    assert 0.35 < np.mean(p_values) < 0.65
    scores, labels = make_split(rng, 300, noise=1.0)
    better = 1 / (1 + np.exp(-3 * (labels - 0.5) - rng.normal(scale=1.2, size=labels.shape)))
    result = randomization_test(
        outcomes_of(scores, labels, scores > 0.5), outcomes_of(better, labels, better > 0.5), ["f1_micro", "map"]
    )
    assert all(test.difference > 0 and test.p_value < 0.01 for test in result.values())


def test_paired_test_by_hand():
    # Two notes, one code, gold in both. Run 1 misses both, run 2 finds both: F1 0 and 1. Of the four ways to exchange
    # outputs two give |difference| 1 (none, both), two give 0: p is about 1/2.
    first, second = (
        outcomes_of(np.full((2, 1), score), [[1], [1]], np.full((2, 1), score > 0.5)) for score in (0.1, 0.9)
    )
    result = randomization_test(first, second, ["f1_micro"], num_shuffles=2000)["f1_micro"]
    assert result.difference == 1
    assert result.p_value == pytest.approx(0.5, abs=0.05)


def test_runs_on_other_notes_are_refused():
    first, second = (outcomes_of([[0.9, 0.1]], gold, np.array([[True, False]])) for gold in ([[0]], [[1]]))
    with pytest.raises(ValueError, match="same gold codes"):
        randomization_test(first, second, ["f1_micro"])


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04: times 3, 2, 1 gives 0.03, 0.04, 0.04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_errors():
    outcomes = outcomes_of([[0.9]], [[1]], np.array([[True]]))
    with pytest.raises(ValueError, match="level"):
        bootstrap_intervals(outcomes, {}, level=1.5)
    with pytest.raises(ValueError, match="num_resamples"):
        bootstrap_intervals(outcomes, {}, num_resamples=1)
