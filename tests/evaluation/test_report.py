"""From a scored split to results.json, predictions, report and comparison; no model is needed."""

import csv
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_icd.decision_icd import calibrated_scores
from modeling_icd.evaluation import ClassIds, ICDMetricsAccumulator, predictions
from modeling_icd.evaluation.cli import print_table
from modeling_icd.evaluation.icd_metrics import metrics
from modeling_icd.evaluation.icd_metrics.metrics import EVERYWHERE, METRICS, Metric
from modeling_icd.evaluation.outcomes import Outcomes, outcomes_of
from modeling_icd.evaluation.predictions import PREDICTIONS_FILE, read_predictions, write_predictions
from modeling_icd.evaluation.report import markdown_cell, write_report
from modeling_icd.evaluation.results import ScoredSplit, make_curves, summarize
from modeling_icd.evaluation.results_file import check_results, data_fingerprint, read_results, write_results
from modeling_icd.extras.compare import (
    PUBLISHED,
    Run,
    Setting,
    compare_runs,
    make_groups,
    read_published,
    render_comparison,
    run_names,
    threshold_rule_of,
    write_comparison,
)
from modeling_icd.publishing import card


ICD9 = {
    "038.9": ("001-139 Infectious diseases", "030-041", "diagnosis"),
    "250.00": ("240-279 Endocrine diseases", "249-259", "diagnosis"),
    "250.01": ("240-279 Endocrine diseases", "249-259", "diagnosis"),
    "401.9": ("390-459 Circulatory diseases", "401-405", "diagnosis"),
    "E885.9": ("E000-E999 External causes", "E880-E888", "diagnosis"),
    "V45.81": ("V01-V91 Other factors", "V40-V49", "diagnosis"),
    "96.71": ("87-99 Other procedures", "87-99", "procedure"),
}
NOTE = "secretword of the note"


def make_split(num_notes=60, *, procedures=True, seed=0, skill=3.0, model="coder", threshold=0.5) -> ScoredSplit:
    """A split shaped like MIMIC-III's, or, without procedures, like CMC's; the last code is unknown to the model."""
    codes = [code for code, (_, _, kind) in ICD9.items() if procedures or kind == "diagnosis"]
    data = np.random.default_rng(7)  # the same gold codes for every model
    labels = data.random((num_notes, len(codes))) < 0.35
    noise = np.random.default_rng(seed).normal(scale=1.5, size=labels.shape)
    scores = (1 / (1 + np.exp(-skill * (labels - 0.5) - noise))).astype(np.float32)
    scores[:, -1] = 0
    gold = ClassIds(np.flatnonzero(row).tolist() for row in labels)
    hadm_ids = list(range(100_000, 100_000 + num_notes))
    texts = [f"{NOTE} {i}" for i in range(num_notes)]
    return ScoredSplit(
        scores=scores,
        gold=gold,
        codes=codes,
        hadm_ids=hadm_ids,
        num_words=data.integers(20, 2000, num_notes).tolist(),
        decision={"threshold": threshold},
        training_counts={code: 3**i for i, code in enumerate(codes[:-1])},
        attributes={
            code: {"chapter": chapter, "block": block, "category": code.split(".")[0], "kind": kind}
            for code, (chapter, block, kind) in ICD9.items()
        },
        about={
            "model": f"somewhere/{model}",
            "dataset": "mimic3" if procedures else "cmc2007",
            "config": "full" if procedures else "fold0",
            "split": "test",
            "num_notes": num_notes,
            "num_codes": len(codes),
            "unknown_codes": codes[-1:],
            "data_fingerprint": data_fingerprint(hadm_ids, texts, [[codes[c] for c in row] for row in gold]),
            "synthetic": False,
            "training_seed": 3,
            "threshold_rule": "global",
            "threshold_source": "model configuration (chosen on validation)",
        },
    )


def write_run(folder: Path, split: ScoredSplit, predictions_folder: Path | None = None) -> dict:
    results, outcomes = summarize(split)
    write_results(results, folder)
    write_predictions(predictions_folder or folder, split, outcomes)
    return results


def assert_same(first: Outcomes, second: Outcomes) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


# Results


@pytest.mark.parametrize("threshold", [0.5, np.full(7, 0.4)])
def test_results_survive_the_disk_and_their_check(threshold, tmp_path):
    split = make_split(threshold=threshold)
    results, _ = summarize(split, seed=5)
    loaded = read_results(write_results(results, tmp_path))
    accumulator = ICDMetricsAccumulator(threshold=threshold)
    accumulator.add_batch(split.scores, split.gold)
    assert loaded["metrics"]["f1_micro"] == accumulator.compute()["f1_micro"]
    assert loaded["seed"] == 5
    assert {"numpy", "torch"} <= loaded["versions"].keys()
    for name, (low, high) in loaded["intervals"].items():
        assert low <= loaded["metrics"][name] <= high, name
    assert all(name.startswith("num_") for name in loaded["metrics"].keys() - loaded["intervals"].keys())
    if np.ndim(threshold):
        assert loaded["threshold"] == "per code" and loaded["thresholds"]["401.9"] == pytest.approx(0.4)
    else:
        assert (loaded["threshold"], loaded["thresholds"]) == (0.5, None)
    assert sum(row["gold"] for row in loaded["strata"]["frequency"]) == sum(map(len, split.gold))
    assert loaded["strata"]["frequency"][0]["stratum"] == "0"  # the code that the model does not know


def test_a_metric_is_one_row_of_the_table(tmp_path, monkeypatch, capsys):
    def f2_micro(tally):
        hits, predicted, gold = (counts.sum(axis=1) for counts in tally.by_code)
        return 5 * hits / (4 * gold + predicted)

    own = Metric("f2_micro", "F2, micro", "recall counts four times", "counts", f2_micro, EVERYWHERE)
    monkeypatch.setattr(metrics, "METRICS", [*METRICS, own])
    split = make_split(150)
    results = [
        write_run(tmp_path / name, split._replace(decision={"threshold": t}))
        for name, t in (("one", 0.5), ("two", 0.3))
    ]
    precision, recall = (results[0]["metrics"][f"{name}_micro"] for name in ("precision", "recall"))
    value = results[0]["metrics"]["f2_micro"]
    assert value == pytest.approx(5 * precision * recall / (4 * precision + recall))
    low, high = results[0]["intervals"]["f2_micro"]
    assert low < value < high
    report, _ = write_report(results[0], tmp_path)
    assert f"F2, micro: recall counts four times | {value:.4f} | {low:.4f} to {high:.4f}" in report.read_text()
    print_table(results[0])
    assert "f2_micro" in capsys.readouterr().out
    row = card.reported_metrics(results[0])[-1]
    assert (row["name"], row["definition"], row["value"]) == ("F2, micro", "recall counts four times", f"{value:.4f}")
    comparison = render_comparison(compare_runs([tmp_path / "one", tmp_path / "two"]))
    assert "| f2_micro |" in comparison


def make_trusted_split(**changes) -> ScoredSplit:
    """A split of a model with calibrated scores, a promised recall and a threshold for review."""
    split = make_split()
    calibration = {
        "method": "platt",
        "bands": ["1-5", ">500"],
        "slopes": [0.7, 0.9],
        "intercepts": [-0.5, 0.25],
        "band_of_code": [0, 0, 1, 1, 1, 1],
    }
    logits = np.log(split.scores[:, :-1]) - np.log1p(-split.scores[:, :-1])
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    trusted = split._replace(
        scores=np.pad(scores, ((0, 0), (0, 1))),
        uncalibrated=split.scores,
        decision={
            "calibration": calibration,
            "review_threshold": 0.8,
            "review_precision": 0.9,
            "target_recall": 0.85,
        },
        about={**split.about, "threshold_rule": "conformal", "synthetic": True},
    )
    return trusted._replace(**changes)


def test_results_say_what_calibration_promise_and_review_came_to(tmp_path):
    split = make_trusted_split()
    summarized, _ = summarize(split)
    results = read_results(write_results(summarized, tmp_path))
    for when, scores in (("before", split.uncalibrated), ("after", split.scores)):
        accumulator = ICDMetricsAccumulator()
        accumulator.add_batch(scores, split.gold)
        expected = accumulator.calibration_metrics()
        assert results["calibration"][when] == pytest.approx(expected)
    assert results["calibration"]["bands"][1] == {"band": ">500", "num_codes": 4, "slope": 0.9, "intercept": 0.25}
    recalls = [np.mean(split.scores[i, codes] > 0.5) for i, codes in enumerate(split.gold) if codes]
    assert results["recall_promise"]["recall"] == pytest.approx(np.mean(recalls))
    low, high = results["recall_promise"]["interval"]
    assert low < results["recall_promise"]["recall"] < high
    assert results["review"]["confident"]["predicted"] == (split.scores > 0.8).sum()
    parts = [results["review"][name] for name in ("confident", "review")]
    assert sum(part["predicted"] for part in parts) == (split.scores > 0.5).sum()
    markdown, _ = write_report(results, tmp_path)
    text = markdown.read_text()
    for title in (
        "Calibration: platt",
        "Promised recall",
        "Confident or to review",
        "Audit: missed codes",
        "Audit: unsupported codes",
    ):
        assert f"## {title}" in text
    assert "60 synthetic notes" in text and f"{results['calibration']['before']['ece']:.5f}" in text
    assert "before calibration" in (tmp_path / "plots" / "reliability.svg").read_text()


def test_the_best_codes_of_every_note_are_a_decision_too(tmp_path):
    split = make_split()._replace(decision={"threshold_rule": "top_k", "predict_top_k": 2})
    results = write_run(tmp_path, split)
    predicted = np.zeros(split.scores.shape, bool)
    np.put_along_axis(predicted, np.argsort(-split.scores, axis=1, kind="stable")[:, :2], True, axis=1)
    accumulator = ICDMetricsAccumulator()  # scores of 0 and 1 make the same decision with a threshold
    accumulator.add_batch(predicted.astype(np.float32), split.gold)
    expected = accumulator.compute()
    names = [metric.name for metric in METRICS if metric.group == "counts"]
    assert [results["metrics"][name] for name in names] == pytest.approx([expected[name] for name in names])
    assert results["threshold"] == "top 2"
    loaded = read_predictions(tmp_path / PREDICTIONS_FILE)
    assert_same(loaded.outcomes, outcomes_of(split.scores, split.gold, predicted))


@pytest.mark.parametrize(
    ("rule", "decision", "words"),
    [
        ("global", {"threshold": 0.4}, "tuned on validation"),
        ("given", {"threshold": 0.4}, "0.4"),
        ("fixed", {}, "0.5"),
        ("per_code", {"threshold": np.full(7, 0.4)}, "per code, tuned on validation"),
        ("top_k", {"threshold_rule": "top_k", "predict_top_k": 3}, "top 3, tuned on validation"),
        ("conformal", {"target_recall": 0.9}, "recall of 0.9 promised on validation"),
    ],
)
def test_runs_with_different_threshold_rules_are_told_apart(rule, decision, words):
    split = make_split()
    results, _ = summarize(split._replace(decision=decision, about={**split.about, "threshold_rule": rule}))
    assert threshold_rule_of(results) == words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, "seed"),
        ({"metrics": {"f1_micro": "0.5"}}, "f1_micro"),
        ({"intervals": {"f1_micro": [0.6, 0.4]}}, "f1_micro"),
        ({"intervals": {"made_up": [0.4, 0.6]}}, "made_up"),
        ({"schema_version": 99}, "99"),
        ({"strata": {"kind": [{"stratum": "diagnosis"}]}}, "counts"),
        ({"threshold": "per code"}, "thresholds"),
        ({"synthetic": "no"}, "synthetic"),
        ({"calibration": 1.0}, "calibration"),
        ({"per_code": {"codes": ["401.9"]}}, "per_code"),
    ],
)
def test_a_fault_in_results_is_named(change, message):
    results, _ = summarize(make_split())
    check_results(results)
    with pytest.raises(ValueError, match=message):
        check_results({**results, **change})
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"`{name}` is missing"):
        check_results({key: value for key, value in results.items() if key != name})


def test_the_fingerprint_is_of_everything_that_was_scored():
    one = data_fingerprint([1, 2], ["a", "b"], [["401.9"], []])
    assert one == data_fingerprint([1, 2], ["a", "b"], [["401.9"], []])
    others = [
        ([1, 3], ["a", "b"], [["401.9"], []]),
        ([1, 2], ["a", "c"], [["401.9"], []]),
        ([1, 2], ["a", "b"], [[], []]),
    ]
    assert one not in {data_fingerprint(*other) for other in others}


def test_curves_by_hand():
    # Sorted: 0.9 gold, 0.8, 0.7 gold, 0.1. At recall 1/2 precision is 1; at recall 1 it is 2/3.
    curves = make_curves(
        scores := np.array([[0.9, 0.8], [0.7, 0.1]], np.float32), outcomes_of(scores, [[0], [0]], scores > 0.5)
    )
    points = {point["recall"]: point["precision"] for point in curves["precision_recall"]}
    assert points[0.5] == 1 and points[1.0] == pytest.approx(2 / 3)
    assert sum(point["num_pairs"] for point in curves["reliability"]) == 4
    top = curves["reliability"][-1]  # 15 bins: 0.9 alone in [13/15, 14/15)
    assert (top["num_pairs"], top["share_gold"]) == (1, 1) and top["mean_score"] == pytest.approx(0.9)


# Predictions


@pytest.mark.parametrize("max_complete", [1 << 22, 0])
def test_predictions_come_back_as_the_same_outcomes(max_complete, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "MAX_COMPLETE", max_complete)
    monkeypatch.setattr(predictions, "NUM_BEST", 2)
    split = make_split(threshold=np.array([0.5, 0.1, 0.9, 0.5, 0.5, 0.5, 1.0]))
    write_run(tmp_path, split)
    loaded = read_predictions(tmp_path / PREDICTIONS_FILE)
    assert_same(
        loaded.outcomes, outcomes_of(split.scores, split.gold, split.scores > np.float32(split.decision["threshold"]))
    )
    assert loaded.codes == split.codes
    assert loaded.hadm_ids.tolist() == split.hadm_ids
    assert loaded.about["is_complete"] == (max_complete > 0)
    content = (tmp_path / PREDICTIONS_FILE).read_bytes()
    assert NOTE.encode() not in content


def test_psv_is_what_caml_s_reader_expects(tmp_path):
    scores = np.array([[0.9, 0.1, 0.8], [0.1, 0.2, 0.3]], np.float32)
    path = tmp_path / "preds_test.psv"
    predictions.write_psv(path, [11, 12], ["401.9", "486", "96.71"], outcomes_of(scores, [[0], []], scores > 0.5))
    with path.open(newline="") as file:
        assert list(csv.reader(file, delimiter="|")) == [["11", "401.9", "96.71"], ["12", ""]]


def test_a_validation_split_is_caml_s_dev(tmp_path):
    split = make_split()
    write_run(tmp_path, split._replace(about={**split.about, "split": "validation"}))
    assert (tmp_path / "preds_dev.psv").is_file()


def test_a_file_of_another_origin_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="modeling-icd evaluate MODEL"):
        read_predictions(tmp_path / PREDICTIONS_FILE)


# The report


class Page(HTMLParser):
    """Collects tags and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("procedures", [True, False])
def test_the_report_holds_figures_plots_and_no_note(procedures, tmp_path):
    results, _ = summarize(make_split(procedures=procedures)._replace(descriptions={"96.71": "Ventilation"}))
    markdown, html = write_report(results, tmp_path)
    page = Page(html.read_text())
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    plots = sorted(path.stem for path in (tmp_path / "plots").iterdir())
    assert plots == sorted(["f1_by_frequency", "f1_by_length", "hierarchy", "precision_recall", "reliability"])
    assert len(images) == 5 and all(image["src"].startswith("data:image/svg") and image["alt"] for image in images)
    for name in plots:
        assert f"(plots/{name}.svg)" in markdown.read_text()
        ET.parse(tmp_path / "plots" / f"{name}.svg")
    for text in ("".join(page.text), markdown.read_text()):
        assert f"{results['metrics']['f1_micro']:.4f}" in text
        assert ("96.71 Ventilation" in text) == procedures  # gold, and never predicted
        assert "By training frequency" in text and "Diagnoses and procedures" in text
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or "secretword" not in path.read_text()


def test_a_split_of_which_little_is_known_still_gets_a_report(tmp_path):
    """One note, no gold code, no hierarchy, no training counts: ICD-10 from a model trained elsewhere."""
    split = make_split(1)._replace(gold=[[]], training_counts=None, attributes={})
    results, _ = summarize(split)
    markdown, _ = write_report(results, tmp_path)
    assert "By training frequency" not in markdown.read_text()
    assert not (tmp_path / "plots" / "hierarchy.svg").exists()


def test_markup_in_a_name_is_escaped(tmp_path):
    results, _ = summarize(make_split(model="<script>alert(1)</script>|x"))
    markdown, html = write_report(results, tmp_path)
    assert "<script" not in html.read_text()
    assert not [tag for tag, _ in Page(html.read_text()).tags if tag == "script"]
    assert "\\|x" in markdown.read_text()
    assert markdown_cell("a|b\n<c>") == "a\\|b \\<c\\>"


def test_the_same_results_give_the_same_report(tmp_path):
    results, _ = summarize(make_split())
    first, second = write_report(results, tmp_path / "a"), write_report(results, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# Comparison


def test_comparison_of_a_run_with_itself_and_a_better_one(tmp_path):
    for name, skill in (("base", 2.0), ("same", 2.0), ("better", 6.0)):
        write_run(tmp_path / name, make_split(skill=skill, model=name))
    comparison = compare_runs([tmp_path / name for name in ("base", "same", "better")])
    same, better = comparison["tests"]
    for cell in same["metrics"].values():
        assert cell == {"difference": pytest.approx(0, abs=1e-12), "p_value": 1, "p_holm": 1}
    assert better["metrics"]["f1_micro"]["difference"] > 0
    # Two comparisons: Holm doubles the smaller p.
    assert better["metrics"]["f1_micro"]["p_holm"] == pytest.approx(2 * better["metrics"]["f1_micro"]["p_value"])
    assert better["metrics"]["f1_micro"]["p_holm"] < 0.01
    own = next(group for group in comparison["groups"] if group["is_ranked"] and group["rows"][0]["source"] is None)
    assert [row["name"] for row in own["rows"]] == ["better", "base", "same"]
    path = write_comparison(comparison, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == json.loads(json.dumps(comparison))
    assert "| better | f1\\_micro | +" in path.read_text()


def test_runs_with_other_vocabularies_are_tested_on_the_union(tmp_path):
    split = make_split()
    order = [6, 3, 0, 1, 2, 5, 4]
    turned = split._replace(
        codes=[split.codes[i] for i in order],
        scores=split.scores[:, order],
        gold=[sorted(order.index(c) for c in row) for row in split.gold],
    )
    write_run(tmp_path / "a", split)
    write_run(tmp_path / "b", turned)
    (test,) = compare_runs([tmp_path / "a", tmp_path / "b"])["tests"]
    assert all(cell["difference"] == pytest.approx(0, abs=1e-12) for cell in test["metrics"].values())


def test_runs_on_other_notes_are_shown_apart_and_not_tested(tmp_path):
    write_run(tmp_path / "a", make_split(60))
    write_run(tmp_path / "b", make_split(50))
    comparison = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert not comparison["tests"][0]["is_paired"]
    own = [group for group in comparison["groups"] if any(row["source"] is None for row in group["rows"])]
    assert len(own) == 2
    assert "no test" in render_comparison(comparison)


def test_predictions_of_a_model_folder_are_found_in_its_private_neighbour(tmp_path):
    for name in ("a", "b"):
        write_run(
            tmp_path / name / "evaluation" / "test",
            make_split(model=name),
            tmp_path / f"{name}-private" / "evaluation" / "test",
        )
    folders = [tmp_path / name / "evaluation" / "test" for name in ("a", "b")]
    assert run_names(folders) == ["a/evaluation/test", "b/evaluation/test"]
    assert len(compare_runs(folders)["tests"]) == 1


def test_mixed_up_files_are_refused(tmp_path):
    write_run(tmp_path / "a", make_split(60))
    write_run(tmp_path / "b", make_split(50))
    (tmp_path / "b" / PREDICTIONS_FILE).replace(tmp_path / "a" / PREDICTIONS_FILE)
    with pytest.raises(ValueError, match="not of the same run"):
        compare_runs([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match="at least 2"):
        compare_runs([tmp_path / "a"])
    with pytest.raises(ValueError, match="twice"):
        compare_runs([tmp_path / "a", tmp_path / "a"])


def make_run(**setting) -> Run:
    results, _ = summarize(make_split())
    given = {"dataset": "mimic3", "code_set": "full", "split": "CAML test", "threshold_rule": "0.5", **setting}
    return Run("ours", results, predictions=None, setting=Setting(**given))


def test_our_run_is_ranked_with_published_rows_of_the_same_setting_only():
    groups = make_groups([make_run()], read_published())
    with_ours = [group for group in groups if any(row["source"] is None for row in group["rows"])]
    assert [(group["macro_f1_kind"], group["is_ranked"]) for group in with_ours] == [("f1_macro_caml", True)]
    rows = {row["name"]: row for row in with_ours[0]["rows"]}
    assert {"ours", "CAML", "DR-CAML", "MultiResCNN"} == set(rows)
    # The figure beside CAML's macro F1 is the one that is computed as CAML's.
    assert rows["ours"]["metrics"]["f1_macro"] == make_run().results["metrics"]["f1_macro_caml"]
    assert rows["ours"]["intervals"]["f1_macro"] == make_run().results["intervals"]["f1_macro_caml"]


@pytest.mark.parametrize("change", [{"split": "test 12345678"}, {"threshold_rule": "0.3"}, {"code_set": "other"}])
def test_a_run_of_another_setting_is_ranked_with_no_published_row(change):
    for group in make_groups([make_run(**change)], read_published()):
        assert len({row["source"] is None for row in group["rows"]}) == 1


def test_rows_of_which_something_is_not_stated_are_never_ranked():
    groups = make_groups([make_run()], read_published())
    for group in groups:
        assert group["is_ranked"] == (group["macro_f1_kind"] is not None and None not in group["setting"].values())
    assert any(not group["is_ranked"] for group in groups)


def test_published_rows_are_whole():
    rows = json.loads(PUBLISHED.read_text())
    keys = {"model", "dataset", "code_set", "split", "macro_f1_kind", "threshold_rule", "source", "remark", "metrics"}
    for row in rows:
        assert set(row) == keys
        assert row["source"] and row["macro_f1_kind"] in ("f1_macro", "f1_macro_caml", None)
        assert "f1_micro" in row["metrics"] and all(0 < value < 1 for value in row["metrics"].values())
    assert len({(row["model"], row["code_set"], row["split"]) for row in rows}) == len(rows)
