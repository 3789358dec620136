import json
import math
import re
import shutil
import threading
import tracemalloc
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from modeling_icd.evaluation import (
    ICD_METRICS_PATH,
    ClassIds,
    ICDMetricsAccumulator,
    make_compute_metrics,
    nan_to_none,
)
from modeling_icd.evaluation.icd_metrics.metrics import METRICS
from modeling_icd.evaluation.icd_metrics.ranks import from_levels, to_levels


STORAGES = ["float32", "uint16"]
CURVES = ("auc_micro", "auc_macro", "average_precision_micro", "average_precision_macro")
GOLDEN_NAMES = {
    "f1_macro": "f1_macro_caml",
    "prec_inst": "precision_instance",
    "rec_inst": "recall_instance",
    "f1_inst": "f1_instance",
}


def compute(scores, labels, storage="float32", **kwargs):
    accumulator = ICDMetricsAccumulator(score_storage=storage)
    accumulator.add_batch(scores, labels)
    return accumulator.compute(**kwargs)


def assert_same(results, expected):
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def to_lists(labels):
    return ClassIds(np.flatnonzero(row).tolist() for row in labels)


@st.composite
def splits(draw):
    """Scores on a coarse or fine grid (ties, all zeros) and labels: one note, codes and notes without gold included."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(2, 6)))
    size = shape[0] * shape[1]
    grid = draw(st.sampled_from([1, 4, 1000]))
    top = draw(st.sampled_from([0, grid]))
    scores = np.array(draw(st.lists(st.integers(0, top), min_size=size, max_size=size)), np.float32) / grid
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    return scores.reshape(shape), labels.reshape(shape)


# Agreement with others


@pytest.mark.parametrize("name", ["dense50", "rare"])
@pytest.mark.parametrize("storage", STORAGES)
def test_agrees_with_caml(shared_dir, name, storage):
    arrays = np.load(shared_dir / "golden" / "caml_metrics.npz")
    golden = json.loads((shared_dir / "golden" / "caml_metrics.json").read_text())[name]
    results = compute(arrays[f"{name}.s"], arrays[f"{name}.y"], storage)
    for their_name, value in golden.items():
        our_name = GOLDEN_NAMES.get(their_name, their_name)
        for theirs, ours in (("acc_", "jaccard_"), ("prec_", "precision_"), ("rec_", "recall_")):
            our_name = ours + our_name.removeprefix(theirs) if our_name.startswith(theirs) else our_name
        tolerance = 1e-6
        if our_name.startswith("auc") and storage != "float32":
            tolerance += results[f"{our_name}_error"]
        assert results[our_name] == pytest.approx(value, abs=tolerance), our_name


# What `splits` may draw and must not leave to chance.
EDGES = {
    "codes without positives": ([[0.9, 0.2, 0.7], [0.3, 0.6, 0.1]], [[1, 0, 0], [1, 0, 0]]),
    "no positives at all": ([[0.9, 0.2, 0.7], [0.3, 0.6, 0.1]], [[0, 0, 0], [0, 0, 0]]),
    "nothing but positives": ([[0.9, 0.2, 0.7], [0.3, 0.6, 0.1]], [[1, 1, 1], [1, 1, 1]]),
    "all-zero scores": ([[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 1, 1]]),
    "nothing predicted": ([[0.4, 0.2, 0.1], [0.3, 0.5, 0.1]], [[1, 0, 0], [0, 1, 1]]),
    "ties across gold and others": ([[0.5, 0.5, 0.8], [0.8, 0.5, 0.8]], [[1, 0, 0], [0, 1, 1]]),
    "one note": ([[0.9, 0.2, 0.7, 0.2]], [[0, 1, 1, 0]]),
    "one note without codes": ([[0.9, 0.2, 0.7, 0.2]], [[0, 0, 0, 0]]),
}


def with_edges(test):
    for name, (scores, labels) in EDGES.items():
        test = example((np.array(scores, np.float32), np.array(labels))).via(name)(test)
    return test


@with_edges
@settings(max_examples=100)
@given(splits())
def test_agrees_with_scikit_learn(split):
    scores, labels = split
    results = compute(scores, labels)
    predicted = (scores > 0.5).astype(int)
    expected = {"exact_match": sk.accuracy_score(labels, predicted)}
    for ours, theirs in (("micro", "micro"), ("macro", "macro"), ("instance", "samples")):
        options = {"average": theirs, "zero_division": 0}
        expected[f"precision_{ours}"] = sk.precision_score(labels, predicted, **options)
        expected[f"recall_{ours}"] = sk.recall_score(labels, predicted, **options)
        expected[f"jaccard_{ours}"] = sk.jaccard_score(labels, predicted, **options)
        f1_name = "f1_instance_mean" if ours == "instance" else f"f1_{ours}"
        expected[f1_name] = sk.f1_score(labels, predicted, **options)
    support = labels.sum(axis=0)
    with_gold = support > 0
    with_both = with_gold & (support < len(labels))
    expected["f1_macro_seen"] = math.nan
    expected.update(dict.fromkeys(CURVES, math.nan))
    if with_gold.any():
        per_code = sk.f1_score(labels, predicted, average=None, zero_division=0)
        expected["f1_macro_seen"] = per_code[with_gold].mean()
        expected["average_precision_micro"] = sk.average_precision_score(labels.ravel(), scores.ravel())
        expected["average_precision_macro"] = np.mean(
            [sk.average_precision_score(labels[:, code], scores[:, code]) for code in np.flatnonzero(with_gold)]
        )
    if 0 < support.sum() < labels.size:
        expected["auc_micro"] = sk.roc_auc_score(labels.ravel(), scores.ravel())
    if with_both.any():
        expected["auc_macro"] = sk.roc_auc_score(labels[:, with_both], scores[:, with_both], average="macro")
    expected["brier"] = np.mean((scores - labels) ** 2)
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
    assert results["num_codes_in_auc_macro"] == with_both.sum()


@settings(max_examples=200)
@given(splits(), st.integers(1, 8))
def test_ranking_agrees_with_its_definition(split, k):
    scores, labels = split
    results = compute(scores, labels, k=k)
    expected = {name: [] for name in (f"precision_at_{k}", f"recall_at_{k}", f"ndcg_at_{k}", "r_precision", "map")}
    for row, gold in zip(scores, labels, strict=True):
        ranked = [gold[code] for code in sorted(range(len(row)), key=lambda code: (-row[code], code))]
        total = max(sum(ranked), 1)
        discounts = [1 / math.log2(rank + 2) for rank in range(len(row))]
        expected[f"precision_at_{k}"].append(sum(ranked[:k]) / k)
        expected[f"recall_at_{k}"].append(sum(ranked[:k]) / total)
        best = sum(discounts[: min(k, total)])
        gain = sum(is_gold * discount for is_gold, discount in zip(ranked[:k], discounts, strict=False))
        expected[f"ndcg_at_{k}"].append(gain / best)
        expected["r_precision"].append(sum(ranked[: sum(ranked)]) / total)
        hits = np.cumsum(ranked)
        expected["map"].append(sum(hits[rank] / (rank + 1) for rank in range(len(row)) if ranked[rank]) / total)
    for name, values in expected.items():
        assert results[name] == pytest.approx(np.mean(values)), name


def test_ndcg_agrees_with_scikit_learn_without_ties():
    random = np.random.default_rng(0)
    scores = random.permutation(400).reshape(10, 40) / 400
    labels = (random.random((10, 40)) < 0.2).astype(int)
    assert compute(scores, labels, k=7)["ndcg_at_7"] == pytest.approx(sk.ndcg_score(labels, scores, k=7))


# By hand


def test_three_macro_f1_by_hand():
    # Gold: note 0 {0}, note 1 {0, 1}. Predicted: note 0 {0, 1}, note 1 {1}; code 2 is neither.
    # Code 0: tp 1, fn 1: P 1, R 1/2, F1 2/3. Code 1: tp 1, fp 1: P 1/2, R 1, F1 2/3. Code 2: 0.
    results = compute(np.array([[0.9, 0.9, 0.1], [0.1, 0.9, 0.1]]), [[0], [0, 1]])
    assert results["f1_macro"] == pytest.approx(4 / 9)
    assert results["f1_macro_seen"] == pytest.approx(2 / 3)
    assert results["f1_macro_caml"] == pytest.approx(1 / 2)  # both means are (1 + 1/2 + 0) / 3
    assert results["num_codes_seen"] == 2


def test_two_instance_f1_by_hand():
    # Note 0: P 1/2, R 1, F1 2/3. Note 1: P 1, R 1/2, F1 2/3. Means of P and R: 3/4.
    results = compute(np.array([[0.9, 0.9, 0.1], [0.1, 0.9, 0.1]]), [[0], [0, 1]])
    assert results["f1_instance_mean"] == pytest.approx(2 / 3)
    assert results["f1_instance"] == pytest.approx(3 / 4)


def test_ties_rank_the_lower_class_id_first():
    # All four scores are equal: the order is 0, 1, 2, 3, so code 2 has rank 3.
    results = compute(np.full((1, 4), 0.5), [[2]], k=(2, 3))
    assert (results["precision_at_2"], results["recall_at_3"]) == (0, 1)
    assert results["map"] == pytest.approx(1 / 3)
    assert results["auc_micro"] == 0.5
    assert results["average_precision_micro"] == 0.25


def test_many_tied_gold_codes():
    # 20 gold codes in one note, more than are compared one by one: every second of 40, all equal, so ranks 2, 4, ..., 40.
    results = compute(np.full((1, 40), 0.25), [list(range(1, 40, 2))], k=10)
    assert results["recall_at_10"] == 5 / 20
    assert results["map"] == pytest.approx(0.5)


def test_score_at_the_threshold_is_not_predicted():
    assert compute(np.array([[0.5, 0.75]]), [[1, 1]])["recall_micro"] == 0.5
    # 0.1 is no float32: score and threshold are rounded alike, whether the threshold is a number or an array.
    for threshold in (0.1, np.array([0.1, 0.1])):
        assert compute(np.array([[0.1, 0.2]]), [[1, 1]], threshold=threshold)["recall_micro"] == 0.5


def test_note_without_gold_codes_counts_as_zero():
    scores = np.array([[0.9, 0.1], [0.9, 0.1]])
    results = compute(scores, [[0], []], k=1)
    for name in ("recall_instance", "precision_instance", "recall_at_1", "ndcg_at_1", "r_precision", "map"):
        assert results[name] == 0.5, name
    assert results["num_notes_without_codes"] == 1
    assert compute(np.array([[0.1, 0.1]]), [[]])["exact_match"] == 1


def test_k_beyond_the_number_of_codes_still_divides_by_k():
    results = compute(np.array([[0.9, 0.1]]), [[1, 1]], k=4)
    assert results["precision_at_4"] == 0.5
    assert results["recall_at_4"] == results["ndcg_at_4"] == 1


def test_threshold_of_each_code():
    scores = np.array([[0.3, 0.3]])
    assert compute(scores, [[0]], threshold=np.array([0.2, 0.4]))["f1_micro"] == 1
    assert compute(scores, [[0]], threshold=np.array([0.4, 0.2]))["f1_micro"] == 0


def test_calibration_by_hand():
    # Scores 0.25, 0.25, 1 and 0 fall into bins 3, 3, 14 and 0 of 15; gold is one of the first two, and the third.
    # ECE: 2/4 * |1/4 - 1/2| = 1/8. Brier: (9/16 + 1/16) / 4 = 5/32.
    results = compute(np.array([[0.25, 0.25, 1, 0]]), [[0, 2]])
    assert results["ece"] == pytest.approx(1 / 8)
    assert results["brier"] == pytest.approx(5 / 32)


def test_nan_policy_and_json():
    no_gold = compute(np.array([[0.9, 0.2]]), [[]])
    undefined = {name for name, value in no_gold.items() if math.isnan(value)}
    assert undefined == {"f1_macro_seen", *CURVES}
    assert json.loads(json.dumps(nan_to_none(no_gold), allow_nan=False))["auc_macro"] is None
    # One note: both classes are there over all pairs, but in no code.
    one_note = compute(np.array([[0.9, 0.2]]), [[0]])
    assert {name for name, value in one_note.items() if math.isnan(value)} == {"auc_macro"}


def test_all_zero_predictions_are_zero_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = compute(np.zeros((3, 4)), [[0], [1], [1, 2]])
    assert results["f1_micro"] == results["f1_macro"] == results["f1_macro_caml"] == results["f1_instance"] == 0
    assert results["auc_micro"] == results["auc_macro"] == 0.5


def test_per_code():
    accumulator = ICDMetricsAccumulator()
    accumulator.add_batch(np.array([[0.9, 0.9, 0.1], [0.1, 0.9, 0.1]]), [[0], [0, 1]])
    table = accumulator.per_code()
    assert table["tp"].tolist() == [1, 1, 0]
    assert table["fp"].tolist() == [0, 1, 0]
    assert table["fn"].tolist() == [1, 0, 0]
    assert table["f1"] == pytest.approx([2 / 3, 2 / 3, 0])
    assert table["auc"] == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    assert table["average_precision"] == pytest.approx([1, 0.5, math.nan], nan_ok=True)


# Ways in, and what is stored


@pytest.mark.parametrize("storage", STORAGES)
@settings(max_examples=50)
@given(split=splits(), first=st.integers(0, 7))
def test_batches_and_lists_change_nothing(storage, split, first):
    scores, labels = split
    whole = compute(scores, labels, storage, tune_threshold=True)
    batched = ICDMetricsAccumulator(score_storage=storage)
    batched.add_batch(torch.tensor(scores[:first]), torch.tensor(labels[:first]))
    batched.add_batch(scores[first:], to_lists(labels[first:]))
    assert_same(batched.compute(tune_threshold=True), whole)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_binned_scores_cost_no_more_than_the_bound(seed):
    random = np.random.default_rng(seed)
    scores = random.random((40, 5)) ** random.integers(1, 40)
    labels = random.random((40, 5)) < scores * 0.5 + 0.1
    exact, binned = compute(scores, labels.astype(int)), compute(scores, labels.astype(int), "uint16")
    for name, value in exact.items():
        if name.startswith("auc"):
            assert abs(binned[name] - value) <= binned[f"{name}_error"] + 1e-12
        elif name not in CURVES:
            assert binned[name] == pytest.approx(value, nan_ok=True), name


def test_levels_keep_order_and_decisions():
    random = np.random.default_rng(0)
    scores = np.sort(np.concatenate([10.0 ** random.uniform(-12, 0, 20000), [0, 0.5, 1, 2**-31]])).astype(np.float32)
    levels = to_levels(scores)
    assert (np.diff(levels.astype(int)) >= 0).all()
    limits = from_levels(levels)
    assert (limits >= scores).all()
    assert (limits[scores > 2**-31] <= scores[scores > 2**-31] * (1 + 2**-11)).all()
    for threshold in (0.5, 0.25, 0.375):
        assert from_levels(to_levels(np.array([threshold])))[0] == threshold
        np.testing.assert_array_equal(scores > threshold, levels > to_levels(np.array([threshold])))


def test_another_threshold_is_exact_or_refused():
    scores, labels = np.array([[0.3, 0.6], [0.8, 0.1]]), [[0], [0]]
    expected = compute(scores, labels, threshold=0.25)["f1_micro"]
    stored = ICDMetricsAccumulator(score_storage="uint16")
    stored.add_batch(scores, labels)
    assert stored.compute(threshold=0.25)["f1_micro"] == expected
    with pytest.raises(ValueError, match="exactly"):
        stored.compute(threshold=0.3)


def test_predicted_codes_may_be_told_in_place_of_a_threshold():
    # Of note 0 the best two codes, of note 1 none, whatever their scores; gold is code 1 of each. 1 hit, 2 predicted, 2 gold.
    scores, labels = np.array([[0.3, 0.2, 0.1], [0.1, 0.9, 0.8]], np.float32), [[1], [1]]
    accumulator = ICDMetricsAccumulator()
    accumulator.add_batch(scores, labels, predicted=np.array([[True, True, False], [False] * 3]))
    assert accumulator.compute()["f1_micro"] == 0.5
    assert accumulator.per_code()["fp"].tolist() == [1, 0, 0]
    exact = compute(scores, labels)
    assert accumulator.compute()["map"] == exact["map"]
    assert_same(accumulator.compute(threshold=0.5), exact)  # a threshold asked for comes first


# Errors


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, 0.5], [[0]], r"shape \(notes, codes\)"),
        ([[0.5, 0.5, 0.5]], [[0]], "3 columns"),
        ([[0.5, 0.5], [0.5, math.nan]], [[0], [0]], "row 1 of the batch holds nan"),
        ([[0.5, 1.5]], [[0]], "row 0 of the batch holds 1.5"),
        ([[-3.0, 0.5]], [[0]], "sigmoid"),
        ([[0.5, 0.5]], [[0], [1]], "labels of 2 notes and scores of 1"),
        ([[0.5, 0.5]], [[2]], "Class id 2 of row 0 is out of range"),
        ([[0.5, 0.5]], [[-1]], "Class id -1 of row 0"),
        ([[0.5, 0.5]], ClassIds([[1, 1]]), "class id 1 twice"),
        ([[0.5, 0.5]], np.array([[1, 0, 0]]), "Multi-hot labels have shape"),
        ([[0.5, 0.5]], np.array([[0, 2]]), "0 and 1 only"),
    ],
)
def test_wrong_batches_are_refused_and_leave_nothing(scores, labels, message):
    accumulator = ICDMetricsAccumulator(2)
    with pytest.raises(ValueError, match=message):
        accumulator.add_batch(scores, labels)
    with pytest.raises(ValueError, match="No notes were added"):
        accumulator.compute()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="score_storage"):
        ICDMetricsAccumulator(score_storage="float16")
    with pytest.raises(ValueError, match="threshold"):
        ICDMetricsAccumulator(threshold=1.5)
    with pytest.raises(ValueError, match="array of 2 numbers"):
        ICDMetricsAccumulator(2, threshold=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="positive"):
        ICDMetricsAccumulator(k=0)
    accumulator = ICDMetricsAccumulator(2)
    for predicted in ([[1, 0]], [[True]]):
        with pytest.raises(ValueError, match="`predicted` must be true or false for every score"):
            accumulator.add_batch([[0.5, 0.5]], [[0]], predicted=predicted)
    accumulator.add_batch([[0.5, 0.5]], [[0]])
    with pytest.raises(ValueError, match="cannot be added to the same accumulator"):
        accumulator.add_batch([[1]], [[0]], predictions_format="ids", references_format="ids")


# The module of `evaluate`


@pytest.fixture(scope="module")
def load():
    return lambda **kwargs: evaluate.load(ICD_METRICS_PATH, **kwargs)


def test_module_gives_what_the_accumulator_gives(load):
    random = np.random.default_rng(0)
    scores, labels = random.random((9, 20)), (random.random((9, 20)) < 0.2).astype(int)
    expected = compute(scores, labels)
    metric = load()
    assert isinstance(metric, evaluate.Metric)
    metric.add_batch(predictions=scores[:5], references=labels[:5])
    metric.add(prediction=scores[5], reference=labels[5])
    metric.add(prediction=scores[6].tolist(), reference=np.flatnonzero(labels[6]).tolist())
    assert len(metric) == 7
    results = metric.compute(predictions=scores[7:], references=to_lists(labels[7:]), per_code=True)
    assert results.pop("per_code")["tp"].shape == (20,)
    assert_same(results, expected)
    assert all(type(value) in (float, int) for value in results.values())
    # A second round starts afresh, and other modules can stand beside it.
    assert_same(metric.compute(predictions=scores, references=labels), expected)
    assert_same(evaluate.combine([metric]).compute(predictions=scores, references=labels), expected)


def test_module_loads_from_a_space(tmp_path, monkeypatch):
    """The folder as it is, uploaded to the Hub, is the metric; the files that it imports come along."""
    space = tmp_path / "spaces" / "someone" / "icd_metrics" / "resolve" / "main"
    shutil.copytree(ICD_METRICS_PATH, space, ignore=shutil.ignore_patterns("__pycache__"))

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(evaluate.config, "HUB_EVALUATE_URL", url + "/spaces/{path}/resolve/{revision}/{name}")
    metric = evaluate.load("someone/icd_metrics", revision="main", cache_dir=str(tmp_path / "cache"))
    server.shutdown()
    server.server_close()
    assert metric.compute(predictions=[[0.9, 0.2, 0.6]], references=[[0]])["f1_micro"] == pytest.approx(2 / 3)


def test_module_errors(load):
    metric = load()
    with pytest.raises(ValueError, match="No notes were added"):
        metric.compute()
    with pytest.raises(ValueError, match="Both"):
        metric.compute(predictions=[[0.5]])
    with pytest.raises(ValueError, match="Gather"):
        load(num_process=2, process_id=0, experiment_id="two")


def test_readme_names_every_metric():
    readme = Path(ICD_METRICS_PATH, "README.md").read_text(encoding="utf-8")
    results = compute(np.array([[0.9, 0.2]]), [[0]], "uint16", k=8, tune_threshold=True)
    missing = [name for name in results if f"`{name.replace('_at_8', '_at_k')}`" not in readme]
    assert not missing
    table = readme.split("## What is returned")[1].split("ECE and Brier score")[0]
    of_scores = {"auc_micro_error", "auc_macro_error", "f1_micro_tuned", "threshold"}
    named = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split(" | ")[0])
    }
    counts = {name for name in named if name.startswith("num_")}
    assert named - of_scores - counts == {metric.name.format(k="k") for metric in METRICS}


# In `Trainer`


def sigmoid(logits):
    return torch.from_numpy(logits).sigmoid().numpy()


def test_compute_metrics_accumulates_and_starts_afresh():
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 8)).astype(np.float32)
    labels = (random.random((6, 8)) < 0.3).astype(np.float32)
    compute_metrics = make_compute_metrics(8, tune_threshold=True, score_storage="float32")
    for _ in range(2):
        first = SimpleNamespace(predictions=(torch.tensor(logits[:4]), None), label_ids=torch.tensor(labels[:4]))
        assert compute_metrics(first, compute_result=False) == {}
        last = SimpleNamespace(predictions=logits[4:], label_ids=labels[4:])
        results = compute_metrics(last, compute_result=True)
        assert_same(results, compute(sigmoid(logits), labels, tune_threshold=True))
        assert results["f1_micro_tuned"] >= results["f1_micro"]
    half = SimpleNamespace(predictions=torch.tensor(logits).bfloat16(), label_ids=torch.tensor(labels))
    assert compute_metrics(half)["num_notes"] == 6


class FixedLogits(torch.nn.Module):
    """Reads its logits from the inputs."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, features, labels=None):
        logits = features * self.scale
        return {"loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}


def test_trainer_with_batch_eval_metrics(tmp_path):
    from transformers import Trainer, TrainingArguments

    random = np.random.default_rng(0)
    logits = random.normal(size=(7, 6)).astype(np.float32)
    labels = (random.random((7, 6)) < 0.3).astype(np.float32)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        batch_eval_metrics=True,
        per_device_eval_batch_size=2,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        FixedLogits(),
        arguments,
        eval_dataset=[{"features": row, "labels": gold} for row, gold in zip(logits, labels, strict=True)],
        compute_metrics=make_compute_metrics(6, tune_threshold=True),
    )
    expected = compute(sigmoid(logits), labels, "uint16", tune_threshold=True)
    for _ in range(2):  # nothing is left over from the first evaluation
        results = trainer.evaluate()
        for name, value in expected.items():
            assert results[f"eval_{name}"] == pytest.approx(value, abs=1e-6), name


def test_memory_between_batches():
    random = np.random.default_rng(0)
    num_notes, num_labels = 1024, 2048  # room is taken for 2**20 scores at a time: here twice, and filled
    stored = {}
    for storage in STORAGES:
        accumulator = ICDMetricsAccumulator(num_labels, score_storage=storage)
        tracemalloc.start()
        for _ in range(num_notes // 8):
            accumulator.add_batch(random.random((8, num_labels), dtype=np.float32), [[0]] * 8)
        stored[storage] = tracemalloc.get_traced_memory()[0] / (num_notes * num_labels)
        tracemalloc.stop()
    # Bytes a score; what is kept for each note and gold code comes on top, 80 bytes a note at most.
    assert stored["float32"] == pytest.approx(4, abs=0.1)
    assert stored["uint16"] == pytest.approx(2, abs=0.1)
