"""Gold codes in every form that users of `evaluate` write: each is read rightly or refused in one message, never guessed."""

import evaluate
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from datasets import Dataset

from modeling_icd.evaluation import ICD_METRICS_PATH, ClassIds, ICDMetricsAccumulator, tune_global_threshold


# Two notes of two codes. As multi-hot, note 0 has code 1 and note 1 code 0, just as the scores say: F1 1. As class ids, both
# notes have both codes: 2 hits, 2 predicted, 4 gold, F1 2/3.
SCORES = [[0.1, 0.9], [0.9, 0.1]]
AMBIGUOUS = [[0, 1], [1, 0]]
F1 = {"multi_hot": 1.0, "ids": pytest.approx(2 / 3)}

# Of three codes: note 0 has code 1, note 1 codes 0 and 2, as the scores say.
WIDE_SCORES = [[0.1, 0.9, 0.2], [0.9, 0.1, 0.8]]
WIDE = [[0, 1, 0], [1, 0, 1]]


@pytest.fixture(scope="module")
def load():
    return lambda **options: evaluate.load(ICD_METRICS_PATH, **options)


def accumulated(scores, references, **options):
    accumulator = ICDMetricsAccumulator()
    accumulator.add_batch(scores, references, **options)
    return accumulator.compute()


def one_by_one(metric, scores, references, **options):
    for score, reference in zip(scores, references, strict=True):
        metric.add(prediction=score, reference=reference, **options)
    return metric.compute()


def in_a_batch(metric, scores, references, **options):
    metric.add_batch(predictions=scores, references=references, **options)
    return metric.compute()


ROADS = {
    "compute": lambda metric, scores, references, **options: metric.compute(
        predictions=scores, references=references, **options
    ),
    "prediction_scores": lambda metric, scores, references, **options: metric.compute(
        prediction_scores=scores, references=references, **options
    ),
    "add_batch": in_a_batch,
    "add": one_by_one,
    "accumulator": lambda metric, scores, references, **options: accumulated(scores, references, **options),
}


@pytest.mark.parametrize("road", ROADS)
def test_lists_that_can_be_read_in_two_ways_are_refused_unless_told(load, road):
    with pytest.raises(ValueError, match=r"as multi-hot rows.*as lists of class ids.*references_format"):
        ROADS[road](load(), SCORES, AMBIGUOUS)
    for references_format, f1 in F1.items():
        assert ROADS[road](load(), SCORES, AMBIGUOUS, references_format=references_format)["f1_micro"] == f1
    assert ROADS[road](load(), SCORES, np.array(AMBIGUOUS))["f1_micro"] == 1


def test_the_format_can_be_told_once_for_all_batches(load):
    for references_format, f1 in F1.items():
        metric = load(references_format=references_format)
        assert metric.compute(predictions=SCORES, references=AMBIGUOUS)["f1_micro"] == f1
        assert evaluate.combine([metric]).compute(predictions=SCORES, references=AMBIGUOUS)["f1_micro"] == f1
    assert accumulated(SCORES, ClassIds(AMBIGUOUS))["f1_micro"] == F1["ids"]


def test_tuning_a_threshold_guesses_no_more_than_the_metric():
    with pytest.raises(ValueError, match=r"two ways.*ClassIds"):
        tune_global_threshold(SCORES, AMBIGUOUS)
    assert tune_global_threshold(SCORES, np.array(AMBIGUOUS)) == 0.5
    assert tune_global_threshold(SCORES, ClassIds(AMBIGUOUS)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "references",
    [
        WIDE,  # as class ids, note 0 would name code 0 twice: only multi-hot fits
        [tuple(row) for row in WIDE],
        [[float(value) for value in row] for row in WIDE],
        [[bool(value) for value in row] for row in WIDE],
        np.array(WIDE),
        np.array(WIDE, bool),
        np.array(WIDE, np.float32),
        list(np.array(WIDE)),
        torch.tensor(WIDE),
        torch.tensor(WIDE, dtype=torch.bfloat16),
        torch.tensor(WIDE).to_sparse(),
        scipy.sparse.csr_matrix(WIDE),
        pd.DataFrame(WIDE),
        [[1], [2, 0]],
        [[1], {0, 2}],
        ([1], (0, 2)),
        (ids for ids in [[1], [0, 2]]),
        [np.array([1]), np.array([0, 2])],
        [torch.tensor([1]), torch.tensor([0, 2])],
        pd.Series([[1], [0, 2]]),
        np.array([[1], [0, 2]], object),
        Dataset.from_dict({"codes": [[1], [0, 2]]})["codes"],
    ],
)
def test_every_form_that_fits_one_reading_is_read(load, references):
    assert load().compute(predictions=WIDE_SCORES, references=references)["f1_micro"] == 1


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor(WIDE_SCORES).bfloat16(),
        scipy.sparse.csr_matrix(WIDE_SCORES),
        pd.DataFrame(WIDE_SCORES),
        Dataset.from_dict({"scores": WIDE_SCORES})["scores"],
        [torch.tensor(row) for row in WIDE_SCORES],
        np.array(WIDE_SCORES) > 0.5,
    ],
)
def test_scores_are_read_from_what_holds_numbers(load, scores):
    assert load().compute(predictions=scores, references=WIDE)["f1_micro"] == 1


@pytest.mark.parametrize("labels", [["401.9", "428.0"], {0: "401.9", 1: "428.0"}, {"428.0": 1, "401.9": 0}])
def test_code_strings_are_read_with_labels(load, labels):
    codes = [["428.0"], ["401.9"]]
    for results in (
        load(labels=labels).compute(predictions=SCORES, references=codes),
        load().compute(predictions=SCORES, references=codes, labels=labels),
        load(labels=labels).compute(predictions=SCORES, references=np.array(codes), references_format="codes"),
        accumulated(SCORES, codes, labels=labels),
    ):
        assert results["f1_micro"] == 1


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        ([[0, 1, 0], [1]], {}, "row 1 has 1 entries"),
        ([[0, 1, 0, 0], [1, 0, 0, 1]], {}, "row 0 has 4 entries"),
        ([[1, 1], [0]], {}, "names class id 1 twice"),
        ([[1, 1], [0]], {"references_format": "ids"}, "names class id 1 twice"),
        ([[3], [0]], {}, "Class id 3 of row 0 is out of range"),
        ([[10**30], [0]], {}, "out of range"),
        ([[1.7], [0.0]], {}, "row 0 of `references` has 1 entries"),
        ([[1.0], [0]], {"references_format": "ids"}, "must be integers"),
        ([[0, 0.5, 1], [1, 0, 0]], {}, "0 and 1 only"),
        ([[True], [False, True]], {}, "row 0 of `references` has 1 entries"),
        ([[True], [False]], {"references_format": "ids"}, "must be integers"),
        ([["401.9"], [1]], {}, "strings and other values"),
        ([["401.9"], ["428.0"]], {}, "`labels` is needed"),
        ([["401.9"], ["V99"]], {"labels": ["401.9", "428.0", "486"]}, r"1 codes .* not in `labels`, e\.g\. \['V99'\]"),
        ([["401.9"], []], {"labels": ["401.9"]}, "1 codes, but there are 3 score columns"),
        ([["401.9"], []], {"labels": ["401.9", "401.9", "486"]}, "twice"),
        ([[1], [0]], {"references_format": "codes", "labels": ["a", "b", "c"]}, "must be strings"),
        ([[1], [0]], {"references_format": "multi_hot"}, "row 0 of `references` has 1 entries"),
        ([["a"] * 3] * 2, {"references_format": "multi_hot"}, "must be numbers"),
        ([[1], [0]], {"references_format": "multihot"}, "one of multi_hot, ids, codes"),
        (np.array([[1], [0]]), {}, 'references_format="ids"'),
        ([0, 1], {}, "one list for each note"),
        (["401.9", "486"], {}, "row 0 is of type str"),
        ([None, [1]], {}, "row 0 is of type NoneType"),
        ("401.9", {}, "one list for each note"),
        ([[1]], {}, "labels of 1 notes and scores of 2"),
    ],
)
def test_what_fits_no_reading_is_one_message(load, references, options, message):
    with pytest.raises(ValueError, match=message):
        load().compute(predictions=WIDE_SCORES, references=references, **options)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "holds no notes"),
        ([[], []], "shape"),
        ([[0, 1], [2]], 'predictions_format="ids"'),
        ([["401.9"], ["486"]], 'predictions_format="ids"'),
        ([[0.1, None, 0.2]], "must be numbers"),
        ([[0.1, np.nan, 0.2]], r"row 0 .* nan .*The model gave no number"),
        ([[0.1, np.inf, 0.2]], "row 0 of the batch holds inf"),
    ],
)
def test_what_is_no_score_is_one_message(load, scores, message):
    with pytest.raises(ValueError, match=message):
        load().compute(predictions=scores, references=[[1]] * len(scores))


def test_predicted_codes_without_scores_give_counts_and_no_order(load):
    # Note 0: predicted 0 and 1, gold 1. Note 1: predicted 2, gold 2. 2 hits, 3 predicted, 2 gold: F1 4/5.
    expected = pytest.approx(4 / 5)
    told = {"predictions_format": "ids", "references_format": "ids"}
    results = load(num_labels=3, **told).compute(predictions=[[0, 1], [2]], references=[[1], [2]])
    assert results["f1_micro"] == expected
    assert results["exact_match"] == 0.5
    assert all(np.isnan(results[name]) for name in ("auc_micro", "map", "precision_at_5", "r_precision", "brier"))
    codes = {"predictions_format": "codes", "labels": ["a", "b", "c"]}
    results = load(num_labels=3).compute(predictions=[["a", "b"], ["c"]], references=[["b"], ["c"]], **codes)
    assert results["f1_micro"] == expected
    with pytest.raises(ValueError, match="`num_labels`"):
        load(**told).compute(predictions=[[0, 1], [2]], references=[[1], [2]])
    # Who writes ids may write the predictions so, too: these fit scores of 0 and 1 as well.
    with pytest.raises(ValueError, match=r"`predictions` .* two ways.*predictions_format"):
        load().compute(predictions=AMBIGUOUS, references=AMBIGUOUS, references_format="ids")


def test_arguments_that_would_do_nothing_are_refused(load):
    metric = load()
    metric.add_batch(predictions=WIDE_SCORES, references=WIDE)
    with pytest.raises(ValueError, match="how to read the notes of this call"):
        metric.compute(references_format="ids")
    with pytest.raises(ValueError, match=r"Unknown inputs \['average'\]"):
        load().compute(predictions=WIDE_SCORES, references=WIDE, average="micro")
    with pytest.raises(ValueError, match="either"):
        load().compute(predictions=WIDE_SCORES, prediction_scores=WIDE_SCORES, references=WIDE)
    with pytest.raises(ValueError, match="`num_labels` is 3"):
        load(num_labels=3, labels=["a"])
