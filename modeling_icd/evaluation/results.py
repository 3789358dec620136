"""Computes every figure of `results.json` from a scored split."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..decision_icd import CONFIDENT, REVIEW, decision_of, is_confident, predicted, threshold_value
from .audit_quality import planted_found, recall_of_removed
from .icd_metrics.accumulator import ICDMetricsAccumulator
from .icd_metrics.inputs import ClassIds
from .icd_metrics.metrics import divide, nan_to_none
from .icd_metrics.ranks import NUM_CALIBRATION_BINS, NUM_LEVELS, calibration_bins, count_levels, from_levels
from .intervals import METHOD, bootstrap_intervals, calibration_terms, ranking_terms, ratio_interval
from .outcomes import Outcomes, counts_per_code, counts_per_note, outcomes_of
from .results_file import SCHEMA_VERSION, check_results, code_version, library_versions
from .strata import CodeAttributes, make_errors, make_strata


MEMBERSHIP_FILE = "membership.json"
NUM_CURVE_POINTS = 200


class ScoredSplit(NamedTuple):
    """A split and what a model says about it; a code that only the split has is a column of zeros behind the model's own."""

    scores: np.ndarray  # (N, C) float32
    gold: ClassIds  # of each note
    codes: list[str]  # by class id
    hadm_ids: list[int] | list[str]
    num_words: list[int]
    decision: Mapping[str, Any]  # the fields of `decision_fields`, or some of them; thresholds per code are C
    training_counts: dict[str, int] | None
    attributes: CodeAttributes
    about: dict[str, Any]  # what was scored with what; goes into results.json
    descriptions: Mapping[str, str] = {}  # titles of codes, as far as known
    uncalibrated: np.ndarray | None = None  # (N, C) scores before calibration, where there is one

    @property
    def num_known(self) -> int:
        """Columns that the model knows, the first ones."""
        return len(self.codes) - len(self.about["unknown_codes"])

    def decided(self) -> np.ndarray:
        """Which codes are predicted, `(N, C)` bool; the rule sees the codes that the model knows, and them alone."""
        is_known = np.array([code not in self.about["unknown_codes"] for code in self.codes], bool)
        decision = decision_of(self.decision)
        if not np.isscalar(decision["threshold"]):
            decision["threshold"] = np.asarray(decision["threshold"])[is_known]
        is_predicted = np.zeros(self.scores.shape, bool)
        is_predicted[:, is_known] = predicted(self.scores[:, is_known], decision).numpy()
        return is_predicted


def summarize(split: ScoredSplit, seed: int = 0) -> tuple[dict, Outcomes]:
    """Every figure of a scored split, as `results.json` holds them, and the outcomes that they rest on.

    Args:
        seed (`int`): of the intervals' resamples.
    """
    decision = decision_of(split.decision)
    is_predicted = split.decided()
    accumulator = ICDMetricsAccumulator(len(split.codes))
    accumulator.add_batch(split.scores, split.gold, predicted=is_predicted)
    metrics = accumulator.compute()
    outcomes = outcomes_of(split.scores, split.gold, is_predicted)
    ranking, calibration = ranking_terms(split.scores, outcomes), calibration_terms(split.scores, outcomes)
    strata = make_strata(
        outcomes, split.codes, split.num_words, attributes=split.attributes, training_counts=split.training_counts
    )
    by_code = counts_per_code(outcomes)
    counts, limits = split.training_counts, decision["threshold"]
    review = promise = None
    if decision["review_threshold"] is not None:
        asked = {"threshold": decision["review_threshold"], "precision_asked": decision["review_precision"]}
        review = asked | review_figures(split.scores, outcomes, decision["review_threshold"])
    if decision["target_recall"] is not None and len(outcomes.gold_notes):
        promise = {"target": decision["target_recall"], **recall_figures(outcomes, seed=seed)}
    results = {
        "metrics": metrics,
        "intervals": bootstrap_intervals(outcomes, metrics, ranking=ranking, calibration=calibration, seed=seed),
        "interval_method": METHOD,
        **split.about,
        "threshold": threshold_value(decision),
        "thresholds": None if np.isscalar(limits) else dict(zip(split.codes, map(float, limits), strict=True)),
        "calibration": summarize_calibration(split, decision["calibration"], metrics),
        "review": review,
        "recall_promise": promise,
        "audit": summarize_audit(split, outcomes, seed),
        "seed": seed,
        "schema_version": SCHEMA_VERSION,
        "code_version": code_version(),
        "versions": library_versions(),
        "strata": strata,
        "errors": make_errors(outcomes, split.codes, strata, attributes=split.attributes),
        "descriptions": {code: split.descriptions[code] for code in split.codes if code in split.descriptions},
        "curves": make_curves(split.scores, outcomes, split.uncalibrated),
        "per_code": {
            "codes": split.codes,
            "train": None if counts is None else [counts.get(code, 0) for code in split.codes],
            **{name: getattr(by_code, name).tolist() for name in ("gold", "predicted", "hits")},
        },
    }
    check_results(results)
    return results, outcomes


def summarize_calibration(
    split: ScoredSplit, calibration: Mapping[str, Any] | None, metrics: Mapping[str, float]
) -> dict[str, Any] | None:
    """The method, its numbers by band, and ECE and Brier score before and after it; `None` for a plain sigmoid."""
    if calibration is None or split.uncalibrated is None:
        return None
    before = ICDMetricsAccumulator(len(split.codes), score_storage="uint16")
    before.add_batch(split.uncalibrated, split.gold)
    num_codes = Counter(calibration["band_of_code"])
    bands = zip(*(calibration[name] for name in ("bands", "slopes", "intercepts")), strict=True)
    return {
        "method": calibration["method"],
        "bands": [
            {"band": band, "num_codes": num_codes[i], "slope": slope, "intercept": intercept}
            for i, (band, slope, intercept) in enumerate(bands)
        ],
        "before": nan_to_none(before.calibration_metrics()),
        "after": nan_to_none({name: metrics[name] for name in ("ece", "brier")}),
    }


def summarize_audit(split: ScoredSplit, outcomes: Outcomes, seed: int) -> dict[str, Any] | None:
    """How good an audit's two lists are: see `recall_of_removed`, and under `unsupported` `planted_found`.

    Codes are planted by their number of training notes or, where that is not known, of notes of this split.
    """
    figures = recall_of_removed(outcomes, seed=seed)
    if figures is None:
        return None
    counts = split.training_counts or dict(zip(split.codes, counts_per_code(outcomes)[2].tolist(), strict=True))
    frequency = [counts.get(code, 0) for code in split.codes]
    planted = planted_found(split.scores, outcomes, frequency, num_known=split.num_known, seed=seed)
    return figures | {"unsupported": planted}


def review_figures(scores: np.ndarray, outcomes: Outcomes, review_threshold: float) -> dict[str, dict[str, Any]]:
    """How many predictions of a split get each flag, and how many of these were right."""
    sure = is_confident(scores[outcomes.predicted_notes, outcomes.predicted_codes], review_threshold).numpy()
    is_right = outcomes.predicted_is_hit
    figures = {}
    for name, members in ((CONFIDENT, sure), (REVIEW, ~sure)):
        predicted, hits = int(members.sum()), int(is_right[members].sum())
        figures[name] = {"predicted": predicted, "hits": hits, "precision": hits / predicted if predicted else None}
    return figures


def recall_figures(outcomes: Outcomes, *, seed: int = 0) -> dict[str, Any]:
    """Mean recall of the notes with gold codes, its interval over notes, and how many codes a note gets for it."""
    hits, predicted, gold = counts_per_note(outcomes)
    has_gold = gold > 0
    recall = divide(hits, gold)[has_gold]
    return {
        "recall": float(recall.mean()),
        "interval": ratio_interval(recall[:, None], np.ones(len(recall)), seed=seed)[0].tolist(),
        "num_notes": int(has_gold.sum()),
        "predicted_per_note": float(predicted.mean()),
    }


def make_curves(
    scores: np.ndarray, outcomes: Outcomes, uncalibrated: np.ndarray | None = None
) -> dict[str, list[dict[str, float]]]:
    """Points of curves over all pairs of note and code.

    - `precision_recall`: at most 200 thresholds, about evenly spaced in recall; scores on 63,489 levels.
    - `reliability`: for each of the 15 bins of the ECE that holds scores their number, mean, and share of gold.
    - `reliability_uncalibrated`: the same before calibration, where there was one.
    """
    gold_scores = scores[outcomes.gold_notes, outcomes.gold_codes]
    levels, gold_levels = count_levels(scores), count_levels([gold_scores])
    hits, predicted = np.cumsum(gold_levels[::-1]), np.cumsum(levels[::-1])
    recall, precision = divide(hits, len(gold_scores)), divide(hits, predicted)
    candidates = np.flatnonzero(levels[::-1])
    wanted = np.searchsorted(recall[candidates], np.linspace(0, 1, NUM_CURVE_POINTS))
    chosen = candidates[np.unique(np.minimum(wanted, len(candidates) - 1))] if len(gold_scores) else []
    lowest = from_levels(NUM_LEVELS - 1 - np.arange(NUM_LEVELS))
    points = [
        {"at_least": float(lowest[i]), "precision": float(precision[i]), "recall": float(recall[i])} for i in chosen
    ]
    curves = {"precision_recall": points, "reliability": reliability_points(scores, outcomes)}
    if uncalibrated is not None:
        curves["reliability_uncalibrated"] = reliability_points(uncalibrated, outcomes)
    return curves


def reliability_points(scores: np.ndarray, outcomes: Outcomes) -> list[dict[str, float]]:
    """See `make_curves`."""
    counts, sums = np.zeros(NUM_CALIBRATION_BINS, np.int64), np.zeros(NUM_CALIBRATION_BINS)
    for row in scores:
        bins = calibration_bins(row)
        counts += np.bincount(bins, minlength=NUM_CALIBRATION_BINS)
        sums += np.bincount(bins, row, NUM_CALIBRATION_BINS)
    gold_scores = scores[outcomes.gold_notes, outcomes.gold_codes]
    gold = np.bincount(calibration_bins(gold_scores), minlength=NUM_CALIBRATION_BINS)
    return [
        {
            "num_pairs": int(counts[i]),
            "mean_score": float(sums[i] / counts[i]),
            "share_gold": float(gold[i] / counts[i]),
        }
        for i in np.flatnonzero(counts)
    ]
