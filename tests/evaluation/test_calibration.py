import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_icd.decision_icd import calibrated_scores
from modeling_icd.evaluation import ICDMetricsAccumulator
from modeling_icd.evaluation.decisions import fit_platt, fit_temperature


def make_notes(num_notes=4000, seed=0):
    """Logits that are calibrated, and labels drawn from them: two frequent codes and two rare ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal([0, -1, -3, -4], 1.5, size=(num_notes, 4)).astype(np.float32)
    return logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)


def calibration_of(scores, labels):
    accumulator = ICDMetricsAccumulator()
    accumulator.add_batch(scores, labels)
    return accumulator.calibration_metrics()


def test_temperature_is_found_again():
    logits, labels = make_notes()
    fitted = fit_temperature(2.5 * logits, labels)  # too sure of itself
    assert fitted["slopes"] == pytest.approx([1 / 2.5], rel=0.05)
    assert (fitted["intercepts"], fitted["band_of_code"]) == ([0.0], [0, 0, 0, 0])


def test_platt_finds_the_curve_of_each_band_again():
    logits, labels = make_notes()
    counts = [1000, 700, 30, 20]  # two codes in the band above 500, two in that of 11 to 50
    shifted = np.hstack([2 * logits[:, :2], logits[:, 2:] + 1.5])
    fitted = fit_platt(shifted, labels, counts)
    assert fitted["bands"] == ["11-50", ">500"]
    assert fitted["band_of_code"] == [1, 1, 0, 0]
    assert fitted["slopes"] == pytest.approx([1, 0.5], rel=0.1)
    assert fitted["intercepts"] == pytest.approx([-1.5, 0], abs=0.2)
    before = calibration_of(torch.from_numpy(shifted).sigmoid().numpy(), labels)
    after = calibration_of(calibrated_scores(torch.from_numpy(shifted), fitted).numpy(), labels)
    assert after["ece"] < before["ece"] / 4
    assert after["brier"] < before["brier"]


@settings(max_examples=25)
@given(st.integers(0, 1000), st.booleans())
def test_notes_of_a_code_keep_their_order(seed, is_upside_down):
    logits, labels = make_notes(60, seed)
    if is_upside_down:  # the better the worse: the slope still stays above 0
        logits = -logits
    for fitted in (fit_temperature(logits, labels), fit_platt(logits, labels, [1000, 700, 30, 0])):
        scores = calibrated_scores(torch.from_numpy(logits), fitted).numpy()
        for code in range(4):
            order = np.argsort(logits[:, code])
            assert (np.diff(scores[order, code]) >= 0).all()


def test_a_band_with_few_gold_pairs_joins_the_next():
    logits, labels = make_notes()
    labels[:, 2:] = 0
    labels[:19, 2] = 1
    assert fit_platt(logits, labels, [1000, 30, 8, 3])["bands"] == ["1-5 and 6-10 and 11-50", ">500"]
    labels[19, 2] = 1  # the twentieth
    assert fit_platt(logits, labels, [1000, 30, 8, 3])["bands"] == ["1-5 and 6-10", "11-50", ">500"]
    # The most frequent band has nothing above it.
    assert fit_platt(logits[:, ::-1], labels[:, ::-1], [3, 8, 30, 1000])["bands"][0] == "1-5 and 6-10"
    labels[:, 0] = 0
    assert fit_platt(logits, labels, [1000, 30, 8, 3])["bands"][-1] == "11-50 and >500"
    # Nothing at all is still one curve, and a finite one.
    only = fit_platt(logits, np.zeros_like(labels), [1000, 30, 8, 3])
    assert len(only["bands"]) == 1 and np.isfinite(only["intercepts"]).all()


def test_calibrated_scores_by_hand():
    calibration = {"slopes": [2.0, 1.0], "intercepts": [0.0, -1.0], "band_of_code": [0, 1, 1]}
    scores = calibrated_scores(torch.tensor([[0.5, 1.0, 3.0]]), calibration)
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.0, 2.0]]).sigmoid())
    torch.testing.assert_close(calibrated_scores(torch.tensor([2.0]), None), torch.tensor([2.0]).sigmoid())
