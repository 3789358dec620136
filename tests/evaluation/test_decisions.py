import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, pipeline

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.decision_icd import (
    CONFIDENT,
    REVIEW,
    RULES,
    RuleOption,
    ThresholdRule,
    calibrated_scores,
    decision_fields,
    describe_rule,
    flags_of,
    is_confident,
    is_predicted,
    predicted,
)
from modeling_icd.evaluation.decisions import (
    DecisionArguments,
    conformal_threshold,
    fit_decision,
    multi_hot,
    tune_review_threshold,
    tune_top_k,
)
from modeling_icd.evaluation.outcomes import outcomes_of
from modeling_icd.evaluation.results import recall_figures, review_figures, summarize
from modeling_icd.evaluation.scoring import score_split


def make_notes(rng, num_notes, num_codes=6, num_always=1):
    """Logits `(N, C)` and gold codes of notes, each with at least `num_always` of them."""
    labels = rng.random((num_notes, num_codes)) < 0.4
    labels[:, :num_always] = True
    logits = rng.normal(2.0 * labels - 2.5, 1.5).astype(np.float32)
    return logits, [np.flatnonzero(row).tolist() for row in labels]


def scores_of(logits):
    return torch.from_numpy(logits).sigmoid().numpy()


def decided(scores, gold, threshold, top_k=None):
    return outcomes_of(scores, gold, is_predicted(scores, threshold, top_k).numpy())


# Conformal risk control


def test_conformal_threshold_by_hand():
    # Nine notes; to promise 0.75 at most 0.25 * 10 - 1 = 1.5 notes' worth of codes may be missed. Rising gold scores: 0.1 (one
    # of two codes, 0.5), 0.2 (0.5, together 1), 0.3 (1, together 2): so 0.3 must be found. The next lower score is 0.26.
    scores = np.full((9, 3), 0.9, np.float32)
    scores[0, 0], scores[1, 0], scores[2, 0], scores[3, 2] = 0.1, 0.2, 0.3, 0.26
    gold = [[0, 1], [0, 1], [0], *[[1]] * 6]
    assert conformal_threshold(scores, gold, 0.75) == pytest.approx(0.28)
    # A code without a column is missed whatever the threshold: 0.5 more, so 0.2 must be found; the next lower score is 0.1.
    unknown = [0] * 8 + [1]
    assert conformal_threshold(scores, gold, 0.75, unknown) == pytest.approx(0.28)
    assert conformal_threshold(scores, gold, 0.75, [0] * 7 + [1, 1]) == pytest.approx(0.15)
    # Notes without gold codes have no recall, and no part in it.
    more = np.vstack([scores, np.zeros((5, 3), np.float32)])
    assert conformal_threshold(more, [*gold, *[[]] * 5], 0.75) == pytest.approx(0.28)


def test_equal_gold_scores_are_missed_or_found_together():
    scores = np.array([[0.5]] * 5 + [[0.9]] * 14, np.float32)
    # Of 19 notes 0.2 * 20 - 1 = 3 may be missed, but the five at 0.5 only together.
    assert conformal_threshold(scores, np.ones((19, 1)), 0.8) == pytest.approx(0.25)


def held_out_recall(rng, target, *, several_codes, num_calibration=20, num_held_out=20, num_draws=2000):
    """Mean recall of notes that had no part in the choice, for each draw of them and of validation notes."""
    recalls = []
    for _ in range(num_draws):
        labels = rng.random((num_calibration + num_held_out, 6)) < (0.4 if several_codes else 0)
        labels[:, 0] = True
        scores = (1 / (1 + np.exp(-rng.normal(2.0 * labels - 2.5, 1.5)))).astype(np.float32)
        threshold = conformal_threshold(scores[:num_calibration], labels[:num_calibration], target)
        is_found = (scores > np.float32(threshold)) & labels
        recalls.append((is_found.sum(axis=1) / labels.sum(axis=1))[num_calibration:].mean())
    return np.array(recalls)


@pytest.mark.parametrize("several_codes", [False, True])
@pytest.mark.parametrize("target", [0.7, 0.9])
def test_the_promised_recall_is_kept_and_not_by_much_more(target, several_codes):
    recalls = held_out_recall(np.random.default_rng(0), target, several_codes=several_codes)
    error = 4 * recalls.std() / np.sqrt(len(recalls))
    # Theorems 1 and 2 of the paper: at least the target, and at most 2 / (n + 1) more where losses have no common jumps.
    assert target - error < recalls.mean() < target + 2 / 21 + error


def test_without_the_finite_sample_correction_the_promise_would_be_broken():
    # A promise of 20/21 * 0.9 is the threshold whose mean recall on the 20 validation notes themselves is at least 0.9. It
    # lets two of them be missed, which in a new note means 3 chances of 21.
    recalls = held_out_recall(np.random.default_rng(0), 20 / 21 * 0.9, several_codes=False)
    assert recalls.mean() == pytest.approx(18 / 21, abs=0.01)


def test_a_recall_that_cannot_be_promised_is_refused():
    scores = np.full((9, 1), 0.5, np.float32)
    # Nine notes promise 0.9 at most: 0.1 * 10 - 1 = 0.
    conformal_threshold(scores, np.ones((9, 1)), 0.9)
    with pytest.raises(ValueError, match=r"from 9 validation notes .* at most 0\.9\b"):
        conformal_threshold(scores, np.ones((9, 1)), 0.95)
    with pytest.raises(ValueError, match=r"5\.6% were in no training note: at most 0\.85\b"):
        conformal_threshold(scores, np.ones((9, 1)), 0.9, [1] + [0] * 8)
    with pytest.raises(ValueError, match="score 0"):
        conformal_threshold(np.zeros((20, 1), np.float32), np.ones((20, 1)), 0.9)
    for wrong in (0, 1, 1.5):
        with pytest.raises(ValueError, match="`target_recall`"):
            conformal_threshold(scores, np.ones((9, 1)), wrong)


# The other rules


def test_top_k_is_the_best_of_all():
    scores = scores_of(make_notes(np.random.default_rng(3), 50)[0])
    gold = make_notes(np.random.default_rng(3), 50)[1]

    def f1(k):
        outcomes = decided(scores, gold, 0.5, k)
        assert len(outcomes.predicted_codes) == 50 * k
        return 2 * outcomes.is_hit.sum() / (len(outcomes.predicted_codes) + len(outcomes.gold_codes))

    assert tune_top_k(scores, gold) == 1 + int(np.argmax([f1(k) for k in range(1, 7)]))


def test_of_equal_scores_the_lower_class_ids_are_among_the_best():
    outcomes = decided(np.array([[0.2, 0.7, 0.2, 0.2]], np.float32), [[0, 3]], 0.5, 2)
    assert outcomes.predicted_codes.tolist() == [0, 1]
    assert outcomes.is_hit.tolist() == [True, False]


def test_review_threshold_by_hand():
    # Right: 0 of 2 at 0.3, 1 of 1 at 0.4, 0 of 1 at 0.5, 2 of 2 at 0.8. The closest function that never falls: 0, then 1/2 over
    # 0.4 and 0.5, then 1.
    scores = np.array([0.3, 0.3, 0.4, 0.5, 0.8, 0.8], np.float32)
    is_right = np.array([False, False, True, False, True, True])
    assert tune_review_threshold(scores, is_right, 0.5) == pytest.approx(0.35)
    assert tune_review_threshold(scores, is_right, 0.6) == pytest.approx(0.65)
    assert tune_review_threshold(scores[:4], is_right[:4], 0.6) == 1.0
    assert tune_review_threshold(scores[4:], is_right[4:], 0.6) == pytest.approx(0.4)
    assert tune_review_threshold(scores[:0], is_right[:0], 0.6) == 1.0


def test_confident_predictions_are_right_as_often_as_was_asked():
    rng = np.random.default_rng(0)
    logits, gold = make_notes(rng, 4000)
    decision = fit_decision(logits[:2000], gold[:2000], DecisionArguments(review_precision=0.9))
    scores = scores_of(logits[2000:])
    figures = review_figures(scores, decided(scores, gold[2000:], decision["threshold"]), decision["review_threshold"])
    assert figures["confident"]["precision"] > 0.9
    assert figures["review"]["precision"] < 0.9
    assert figures["confident"]["predicted"] > 300 and figures["review"]["predicted"] > 300


@pytest.mark.parametrize("calibration", ["none", "temperature", "platt"])
@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_gives_a_configuration_that_decides_the_same(rule, calibration):
    logits, gold = make_notes(np.random.default_rng(1), 200)
    args = DecisionArguments(
        threshold_rule=rule,
        calibration=calibration,
        target_recall=0.8 if rule == "conformal" else None,
        review_precision=0.7,
    )
    decision = fit_decision(logits, gold, args, training_counts=[600, 600, 40, 40, 3, 0])
    assert tuple(decision) == tuple(decision_fields())
    config = LlamaICDConfig(num_labels=6, **decision)
    scores = calibrated_scores(torch.from_numpy(logits), config.calibration).numpy()
    outcomes = outcomes_of(scores, gold, predicted(scores, config).numpy())
    f1 = 2 * outcomes.is_hit.sum() / (len(outcomes.predicted_codes) + len(outcomes.gold_codes))
    assert f1 > 0.5
    if rule == "conformal":
        assert recall_figures(outcomes)["recall"] >= 0.8


# A rule that this project does not have


class WithinOfBest(ThresholdRule):
    """Codes whose score is at least a share of the note's best."""

    name = "within"
    help = "scores of at least `share_of_best` times the note's best"
    options = {"least_share": RuleOption(float, 0.5, "the lowest share to try.")}
    fields = ("share_of_best",)

    def check(self, values):
        share = values.get("share_of_best")
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"`share_of_best` must lie above 0 and be at most 1, got {share}.")

    def fit(self, validation, options):
        is_gold = multi_hot(validation.gold, validation.scores.shape)

        def f1(share):
            is_predicted = self.apply(torch.from_numpy(validation.scores), {"share_of_best": share}).numpy()
            return (is_predicted & is_gold).sum() / (is_predicted.sum() + is_gold.sum())

        return {"share_of_best": float(max(np.linspace(options["least_share"], 1, 11), key=f1))}

    def apply(self, scores, decision):
        return (scores >= decision["share_of_best"] * scores.amax(dim=-1, keepdim=True)) & (scores > 0)

    def value(self, decision):
        return f"{decision['share_of_best']:g} of the best"

    def describe(self, decision):
        return f"The model suggests the codes that score {self.value(decision)}"


@pytest.fixture
def within(monkeypatch):
    monkeypatch.setitem(RULES, "within", WithinOfBest())


@pytest.fixture
def folder_with_a_rule_of_its_own(within, coder, tmp_path):
    """The model of `coder` with a decision by that rule, and the rule's number."""
    num_codes = LlamaICDConfig.from_pretrained(coder).num_labels
    logits, gold = make_notes(np.random.default_rng(2), 100, num_codes)
    decision = fit_decision(logits, gold, DecisionArguments(threshold_rule="within", review_precision=0.5))
    assert set(decision) == set(decision_fields()) and 0.5 <= decision["share_of_best"] <= 1
    model = LlamaForICDCoding.from_pretrained(coder)
    model.config.update(decision)
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(coder).save_pretrained(tmp_path)
    return tmp_path, decision["share_of_best"]


def test_a_rule_from_outside_is_fitted_saved_and_applied_everywhere(folder_with_a_rule_of_its_own, corpus, tmp_path):
    folder, share = folder_with_a_rule_of_its_own
    coder = pipeline("icd-coding", model=str(folder), trust_remote_code=True)
    config = coder.model.config
    assert (config.threshold_rule, config.share_of_best, config.threshold) == ("within", share, 0.5)
    rows = coder("fever cough sepsis")
    scores = [row["score"] for row in coder("fever cough sepsis", threshold=0)]
    assert [row["score"] for row in rows] == [score for score in scores if score >= np.float32(share) * scores[0]]
    assert len(coder("fever cough sepsis", top_k=2)) == 2

    scored = score_split(str(folder), "mimic3", str(corpus), "all", cache_dir=str(tmp_path / "cache"))
    results, outcomes = summarize(scored)
    is_predicted = scored.scores >= np.float32(share) * scored.scores.max(axis=1, keepdims=True)
    notes, codes = np.nonzero(is_predicted)
    assert (outcomes.predicted_notes.tolist(), outcomes.predicted_codes.tolist()) == (notes.tolist(), codes.tolist())
    f1 = 2 * outcomes.is_hit.sum() / (len(notes) + len(outcomes.gold_codes))
    assert results["metrics"]["f1_micro"] == pytest.approx(f1)
    assert (results["threshold_rule"], results["threshold"]) == ("within", f"{share:g} of the best")
    assert describe_rule(config) == f"The model suggests the codes that score {share:g} of the best"
    # Another threshold takes the place of the rule.
    given = score_split(str(folder), "mimic3", str(corpus), "all", cache_dir=str(tmp_path / "cache"), threshold=0.4)
    results, outcomes = summarize(given)
    assert len(outcomes.predicted_codes) == (given.scores > np.float32(0.4)).sum()
    assert (results["threshold_rule"], results["threshold"]) == ("given", 0.4)


def test_a_rule_from_outside_checks_its_own_fields_and_leaves_those_of_others(within):
    with pytest.raises(ValueError, match=r"`share_of_best` \(None\) and `threshold_rule` 'within' need each other"):
        LlamaICDConfig(num_labels=5, threshold_rule="within")
    with pytest.raises(ValueError, match="`share_of_best` must lie above 0"):
        LlamaICDConfig(num_labels=5, threshold_rule="within", share_of_best=2)
    with pytest.raises(ValueError, match=r"`share_of_best` \(0.5\) and `threshold_rule` 'within' need each other"):
        LlamaICDConfig(num_labels=5, share_of_best=0.5)
    with pytest.raises(ValueError, match="`predict_top_k`"):
        LlamaICDConfig(num_labels=5, threshold_rule="within", share_of_best=0.5, predict_top_k=3)
    earlier = LlamaICDConfig(num_labels=5, threshold_rule="within", share_of_best=0.5)
    assert LlamaICDConfig.from_backbone(earlier, num_labels=3).decision == decision_fields()


def test_a_saved_rule_that_this_code_does_not_know_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(RULES, "within", WithinOfBest())
        LlamaICDConfig(num_labels=5, threshold_rule="within", share_of_best=0.5).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`threshold_rule` must be one of fixed, global, .* got 'within'"):
        LlamaICDConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("score", [0.3, 0.7, np.float32(0.7)])
def test_flags_are_those_of_the_figures(score):
    """A score that equals the threshold in the scores' type is not above it: one answer for pipeline and figures."""
    scores = torch.tensor([0.2, float(score), 0.9])
    flags = flags_of(scores, float(score))
    assert flags == [CONFIDENT if sure else REVIEW for sure in is_confident(scores.numpy(), float(score))]
    assert flags == ["review", "review", "confident"]
    assert flags_of(scores, None) == [None] * 3
