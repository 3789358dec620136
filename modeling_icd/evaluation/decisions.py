"""Fits how a model decides, on the validation split: calibration, a threshold rule, and which predictions to review.

The rules themselves are the classes of `modeling_icd/decision_icd.py`; `fit_decision` returns the fields to put into a
model's configuration. Calibration, by a temperature or by Platt scaling, makes a score of 0.8 mean right in 80 % of the cases.
Give these functions the validation split, never the test split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.isotonic import isotonic_regression

from ..decision_icd import CALIBRATIONS, RULES, calibrated_scores, check_rule, decision_fields, predicted, rule_options
from .icd_metrics.inputs import ClassIds, check_scores, gold_pairs
from .icd_metrics.metrics import divide
from .icd_metrics.ranks import (
    best_cuts_of_groups,
    best_threshold,
    cut_between,
    rank_gold,
    rank_in_batches,
    rank_in_columns,
)
from .strata import FREQUENCY_BANDS, band_names, in_bands


SLOPES = (0.01, 100.0)  # never 0 or less: a higher logit of a code is a higher score
MIN_GOLD = 20  # gold pairs that two numbers can be fitted to
NUM_BAGGED = 100  # resamples

_RULE = field(
    default="global",
    metadata={
        "help": "Which codes are predicted, chosen on validation: "
        + ", ".join(f"`{rule.name}` ({rule.help})" for rule in RULES.values())
        + "."
    },
)
# The rule, and the options of all rules: each rule says its own.
RuleArguments: Any = make_dataclass(
    "RuleArguments",
    [
        ("threshold_rule", str, _RULE),
        *(
            (name, option.type, field(default=option.default, metadata={"help": option.help}))
            for name, option in rule_options().items()
        ),
    ],
)


@dataclass
class DecisionArguments(RuleArguments):
    """How codes are decided on; options of `modeling-icd train` and of `modeling-icd decide`."""

    calibration: str = field(
        default="none",
        metadata={
            "help": "How logits become scores: `none` (the sigmoid), `temperature`, or `platt` for each band of training "
            "frequency; fitted on validation."
        },
    )
    review_precision: float | None = field(
        default=None,
        metadata={
            "help": "Mark predictions for review if a smaller share than this of those with such scores was right on validation."
        },
    )

    def __post_init__(self):
        check_rule(self.threshold_rule, self.rule_options())
        if self.review_precision is not None and not 0 < self.review_precision < 1:
            raise ValueError(f"`review_precision` must lie between 0 and 1, got {self.review_precision}.")
        if self.calibration not in ("none", *CALIBRATIONS):
            raise ValueError(
                f"`calibration` must be one of none, {', '.join(CALIBRATIONS)}, got {self.calibration!r}."
            )

    def rule_options(self) -> dict[str, Any]:
        """What is asked of the threshold rule; a rule that was entered after the options were made has its defaults."""
        return {name: vars(self).get(name, option.default) for name, option in rule_options().items()}


@dataclass
class Validation:
    """The validation split, as a threshold rule is fitted on it, and what is best on it.

    Args:
        gold (`ClassIds` of length N): Class ids of each note.
        num_unknown (`Sequence[int]` of length N, *optional*): Gold codes of each note that the model does not know.
        scores (array of shape `(N, C)`, *optional*): Calibrated; not there before the notes are scored.
    """

    gold: ClassIds
    num_unknown: Sequence[int] | None = None
    scores: np.ndarray | None = None

    def best_threshold(self) -> float:
        return tune_bagged_threshold(self.scores, self.gold)

    def best_thresholds_per_code(self, shrinkage: float) -> list[float]:
        return tune_per_code_thresholds(self.scores, self.gold, shrinkage).tolist()

    def best_top_k(self) -> int:
        return tune_top_k(self.scores, self.gold)

    def threshold_for_recall(self, target_recall: float) -> float:
        return conformal_threshold(self.scores, self.gold, target_recall, self.num_unknown)

    def check_recall(self, target_recall: float) -> None:
        missable_notes([len(codes) for codes in self.gold], self.num_unknown, target_recall)


def check_notes(gold: Sequence[Sequence[int]], args: DecisionArguments, num_unknown: Sequence[int] | None) -> None:
    """Raise a `ValueError` where no scores of these notes could give what is asked; arguments as of `fit_decision`."""
    RULES[args.threshold_rule].check_notes(Validation(ClassIds(gold), num_unknown), args.rule_options())


def fit_decision(
    logits: np.ndarray,
    gold: Sequence[Sequence[int]],
    args: DecisionArguments,
    *,
    training_counts: Sequence[int] | None = None,
    num_unknown: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Calibrate scores, choose thresholds on them, and say which predictions are to be reviewed.

    Args:
        logits (array of shape `(N, C)`): Of the validation split.
        gold (`Sequence[Sequence[int]]` of length N): Class ids.
        args (`DecisionArguments`): What to fit.
        training_counts (`Sequence[int]` of length C, *optional*): Training notes of each code, for `platt`.
        num_unknown (`Sequence[int]` of length N, *optional*): Gold codes of each note that the model does not know.

    Returns:
        Every field of `decision_fields`, ready for JSON.
    """
    gold = ClassIds(gold)
    calibration = None
    if args.calibration == "temperature":
        calibration = fit_temperature(logits, gold)
    elif args.calibration == "platt":
        calibration = fit_platt(logits, gold, training_counts)
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    rule = RULES[args.threshold_rule]
    fitted = rule.fit(Validation(gold, num_unknown, scores), args.rule_options())
    decision = decision_fields() | {"threshold_rule": args.threshold_rule, **fitted, "calibration": calibration}
    if args.review_precision is not None:
        is_predicted = predicted(scores, decision).numpy()
        is_gold = multi_hot(gold, scores.shape)
        threshold = tune_review_threshold(scores[is_predicted], is_gold[is_predicted], args.review_precision)
        decision |= {"review_threshold": threshold, "review_precision": args.review_precision}
    return decision


# Calibration: the functions give the field `calibration` of a configuration, which `calibrated_scores` applies.


def fit_temperature(logits: np.ndarray, labels: Any) -> dict[str, Any]:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one slope 1 / T for all codes.

    T minimises the mean binary cross-entropy of sigmoid(logit / T) over all pairs of note and code.

    Args:
        logits (array of shape `(N, C)`): Of the validation split.
        labels (array of shape `(N, C)` or list of `N` lists of class ids): Multi-hot, or class ids.
    """
    is_gold = multi_hot(labels, logits.shape)
    slope, _ = _fit_sigmoid(logits.ravel(), is_gold.ravel().astype(np.float64), intercept=(0.0, 0.0))
    return _calibration("temperature", ["all"], [(slope, 0.0)], [0] * logits.shape[1])


def fit_platt(logits: np.ndarray, labels: Any, training_counts: Sequence[int] | None) -> dict[str, Any]:
    """Platt scaling (Platt 1999), one slope and one intercept for each band of training frequency.

    Rare codes are the ones that a model is too unsure of, or too sure, in a way of their own; one curve for each code would
    need more gold notes than they have. Both numbers of a band minimise the mean binary cross-entropy of
    sigmoid(slope * logit + intercept) over the pairs of its codes, with Platt's targets (n1 + 1) / (n1 + 2) for the n1 gold
    pairs and 1 / (n0 + 2) for the n0 others. A band with fewer than 20 gold pairs joins the next more frequent one, the most
    frequent of all the one before it.

    Args:
        logits, labels: As in `fit_temperature`.
        training_counts (`Sequence[int]` of length C): Training notes of each code.
    """
    if training_counts is None:
        raise ValueError("Calibration by bands of training frequency needs the training notes of each code.")
    is_gold = multi_hot(labels, logits.shape)
    names, band_of_code = _joined_bands(in_bands(training_counts, FREQUENCY_BANDS), is_gold.sum(axis=0))
    fitted = []
    for band in range(len(names)):
        members = np.flatnonzero(band_of_code == band)
        gold = is_gold[:, members].ravel()
        num_gold, num_other = np.count_nonzero(gold), np.count_nonzero(~gold)
        targets = np.where(gold, (num_gold + 1) / (num_gold + 2), 1 / (num_other + 2))
        fitted.append(_fit_sigmoid(logits[:, members].ravel(), targets, intercept=(None, None)))
    return _calibration("platt", names, fitted, band_of_code.tolist())


def _joined_bands(band_of_code: Sequence[str], gold_per_code: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of bands with enough gold pairs each, and the band of each code, as an index into them."""
    of_code = np.array(band_of_code)
    groups: list[list[str]] = [[]]
    for name in band_names(FREQUENCY_BANDS):
        if name in band_of_code:
            groups[-1].append(name)
            if gold_per_code[np.isin(of_code, groups[-1])].sum() >= MIN_GOLD:
                groups.append([])
    thin = groups.pop()
    groups = groups or [[]]
    groups[-1] += thin
    group_of = {name: i for i, group in enumerate(groups) for name in group}
    return [" and ".join(group) for group in groups], np.array([group_of[name] for name in band_of_code])


def _fit_sigmoid(
    logits: np.ndarray, targets: np.ndarray, intercept: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Slope and intercept of the sigmoid that fits targets best, in cross-entropy; the intercept within bounds."""
    logits = logits.astype(np.float64)

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        values = parameters[0] * logits + parameters[1]
        error = expit(values) - targets
        loss = -(log_expit(values) - (1 - targets) * values).mean()
        return loss, np.array([(error * logits).mean(), error.mean()])

    found = minimize(
        loss_and_gradient,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[SLOPES, intercept],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return float(found.x[0]), float(found.x[1])


def _calibration(
    method: str, bands: list[str], fitted: list[tuple[float, float]], band_of_code: list[int]
) -> dict[str, Any]:
    slopes, intercepts = map(list, zip(*fitted, strict=True))
    return {
        "method": method,
        "bands": bands,
        "slopes": slopes,
        "intercepts": intercepts,
        "band_of_code": band_of_code,
    }


# Thresholds. A code is predicted where `score > threshold`, in float32, as everywhere in this package.


def tune_global_threshold(scores: Any, labels: Any) -> float:
    """Return the one threshold for all codes that gives the best micro F1, over all thresholds there are.

    It lies half way between the lowest score predicted and the next lower one. Of several with the same F1 the highest is
    chosen. Where every gold code scores 0, no threshold predicts any, and 0.5 is returned.

    Args:
        scores (array of shape `(N, C)`): Probabilities of the validation split.
        labels (array of shape `(N, C)` or list of `N` lists of class ids): Multi-hot, or class ids.
    """
    scores = check_scores(scores)
    rows, codes = checked_gold_pairs(labels, scores)
    return best_threshold([scores], rank_in_batches([scores], scores[rows, codes]))[0]


def tune_bagged_threshold(scores: Any, labels: Any) -> float:
    """Return the mean of [`tune_global_threshold`] over 100 resamples of the notes (bagging, Breiman 1996).

    On a small split the best threshold is a matter of a few notes: between 0.1 and 0.8 the micro F1 of 80 notes may
    hardly change, and its highest point lies anywhere. The mean of the resamples stays inside the flat part.
    """
    scores = check_scores(scores)
    is_gold = np.zeros(scores.shape, bool)
    is_gold[checked_gold_pairs(labels, scores)] = True
    # Sorted, so that the draws, and with them the threshold, do not depend on the order of the notes.
    order = np.argsort(scores.sum(axis=1), kind="stable")
    scores, is_gold = scores[order], is_gold[order]
    draws = np.random.default_rng(0).integers(0, len(scores), (NUM_BAGGED, len(scores)))
    thresholds = [tune_global_threshold(scores[rows], is_gold[rows]) for rows in draws if is_gold[rows].any()]
    return float(np.mean(thresholds)) if thresholds else tune_global_threshold(scores, labels)


def tune_per_code_thresholds(scores: Any, labels: Any, shrinkage: float = 10.0) -> np.ndarray:
    """Return one threshold for each code, float32 `(C,)`: its own best, drawn toward the global one where it is rare.

    With n_c notes that have code c in the validation split, its own best threshold t_c (best F1 of the code, chosen as in
    `tune_global_threshold`) and the global threshold t:

        threshold_c = (n_c * t_c + shrinkage * t) / (n_c + shrinkage)

    A code without a gold note, or whose gold notes all score 0, gets t.

    Args:
        scores, labels: As in `tune_global_threshold`.
        shrinkage (`float`, defaults to 10.0):
            The number of notes at which a code's own threshold and the global one weigh the same. 0 takes each code's own
            best; infinity gives the global threshold to all.
    """
    if not shrinkage >= 0:
        raise ValueError(f"`shrinkage` must be 0 or more, got {shrinkage}.")
    scores = check_scores(scores)
    overall = tune_global_threshold(scores, labels)
    rows, codes = checked_gold_pairs(labels, scores)
    num_notes, num_labels = scores.shape
    ranks = rank_in_columns([scores], codes, scores[rows, codes])
    cuts, _ = best_cuts_of_groups(ranks, num_notes, num_labels)
    own = cut_between(scores.max(axis=0, initial=0, where=scores < cuts), cuts)
    support = np.bincount(codes, minlength=num_labels)
    weight = np.zeros(num_labels) if np.isinf(shrinkage) else divide(support, support + shrinkage)
    weight[cuts == 0] = 0
    # Not `overall + weight * (own - overall)`: with a weight of 1 that may miss `own` by a rounding step.
    return (weight * own + (1 - weight) * overall).astype(np.float32)


def tune_top_k(scores: Any, labels: Any) -> int:
    """Return how many codes every note should get for the best micro F1: the smallest such number.

    With h(k) gold pairs among the k best codes of their notes, N notes and P gold pairs, F1 = 2 h(k) / (N k + P).
    """
    scores = check_scores(scores)
    rows, codes = gold_pairs(labels, *scores.shape)
    hits = np.cumsum(np.bincount(rank_gold(scores, rows, codes), minlength=scores.shape[1]))
    f1 = 2 * hits / (len(scores) * np.arange(1, scores.shape[1] + 1) + max(len(rows), 1))
    return int(f1.argmax()) + 1


def conformal_threshold(
    scores: Any, labels: Any, target_recall: float, num_unknown: Sequence[int] | None = None
) -> float:
    """Return a threshold for all codes that promises a recall: conformal risk control (arXiv 2208.02814).

    With a = 1 - target_recall and L_i(t) the share of the gold codes of note i that score t or less, the threshold lies below

        sup { t: n / (n + 1) * mean of L_i(t) + 1 / (n + 1) <= a }

    (their equation 4, for a loss of at most 1), half way from the gold score that must not be missed to the next lower
    score. Then, over draws of n validation notes and one more note, all exchangeable, and of scores that none of them had a
    part in, that note's expected recall is at least `target_recall`, whatever the model. It is a promise of the mean, not for
    every note or code. Notes without gold codes are left out, here and in the promise.

    Args:
        scores, labels: As in `tune_global_threshold`.
        target_recall (`float`): Between 0 and 1.
        num_unknown (`Sequence[int]` of length N, *optional*):
            Gold codes of each note that have no column; each is missed at any threshold, and counts as that.

    Raises:
        ValueError: where no threshold can promise that much.
    """
    scores = check_scores(scores)
    rows, codes = gold_pairs(labels, *scores.shape)
    num_known = np.bincount(rows, minlength=len(scores))
    missable = missable_notes(num_known, num_unknown, target_recall)
    values = scores[rows, codes]
    order = np.argsort(values)
    num_gold = num_known + (0 if num_unknown is None else np.asarray(num_unknown))
    missed = np.cumsum(1 / num_gold[rows[order]])
    # Sums of shares are not exact: what is over by a rounding step is not over.
    must_be_found = values[order[np.searchsorted(missed, missable + 1e-9, side="right")]]
    if must_be_found == 0:
        raise ValueError(f"No threshold promises a recall of {target_recall}: too many gold codes score 0.")
    return float(cut_between(scores.max(initial=0, where=scores < must_be_found), must_be_found))


def missable_notes(num_known: Any, num_unknown: Any, target_recall: float) -> float:
    """How much may be missed in all: the sum over notes of shares of their gold codes, beyond the unknown ones.

    Given are the gold codes `(N,)` that the model knows and, unless `None`, those that it does not. Raises a `ValueError` where
    less than nothing may be missed.
    """
    if not 0 < target_recall < 1:
        raise ValueError(f"`target_recall` must lie between 0 and 1, got {target_recall}.")
    num_known = np.asarray(num_known)
    num_unknown = np.zeros_like(num_known) if num_unknown is None else np.asarray(num_unknown)
    has_gold = num_known + num_unknown > 0
    share_unknown = num_unknown[has_gold] / (num_known + num_unknown)[has_gold]
    num_notes = len(share_unknown)
    missable = (1 - target_recall) * (num_notes + 1) - 1 - share_unknown.sum()
    if missable < -1e-9:
        highest = math.floor((1 - (1 + share_unknown.sum()) / (num_notes + 1)) * 1e4) / 1e4
        raise ValueError(
            f"`target_recall` {target_recall} cannot be promised from {num_notes} validation notes of whose codes "
            f"{share_unknown.mean() if num_notes else 0:.1%} were in no training note: at most {max(highest, 0)}."
        )
    return float(missable)


def tune_review_threshold(scores: np.ndarray, is_right: np.ndarray, precision: float) -> float:
    """Return the score above which predictions of any one score are right often enough to be taken without a look.

    Precision as a function of the score is fitted as the closest one that never falls (isotonic regression, Zadrozny and
    Elkan 2002); the threshold is where it first reaches `precision`. So the band of scores below it, down to the decision
    threshold, is the one in which precision is less. It is 1, which no score exceeds, where precision is reached nowhere.

    Args:
        scores (`(Q,)`): Of the predicted pairs of the validation split.
        is_right (`(Q,)`): Whether each is gold.
        precision (`float`): In 0..1.
    """
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    if not len(values):
        return 1.0
    share = np.bincount(place, is_right) / counts
    reached = np.flatnonzero(isotonic_regression(share, sample_weight=counts) >= precision - 1e-9)
    if not len(reached):
        return 1.0
    first = int(reached[0])
    return float(cut_between(values[first - 1] if first else 0, values[first]))


def multi_hot(labels: Any, shape: tuple[int, int]) -> np.ndarray:
    """Which pairs of note and code are gold, `(N, C)` bool; labels as in `tune_global_threshold`."""
    is_gold = np.zeros(shape, bool)
    is_gold[gold_pairs(labels, *shape)] = True
    return is_gold


def checked_gold_pairs(labels: Any, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gold pairs of a split, which must have some."""
    rows, codes = gold_pairs(labels, *scores.shape)
    if not len(rows):
        raise ValueError("A threshold cannot be tuned on a split without a single gold code.")
    return rows, codes
