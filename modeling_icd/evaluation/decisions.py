"""Fits how a model decides, on the validation split: calibration, a threshold rule, and which predictions to review.

The rules themselves are the classes of `modeling_icd/decision_icd.py`; `fit_decision` returns the fields to put into a
model's configuration. Give it the validation split, never the test split. Calibration, by a temperature or by Platt scaling,
makes a score of 0.8 mean right in 80 % of the cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from ..decision_icd import (
    CALIBRATIONS,
    RULES,
    calibrated_scores,
    check_rule,
    decision_fields,
    predicted,
    rule_options,
)
from .icd_metrics.inputs import ClassIds
from .strata import FREQUENCY_BANDS, band_names, in_bands
from .thresholds import (
    conformal_threshold,
    missable_notes,
    multi_hot,
    tune_bagged_threshold,
    tune_per_code_thresholds,
    tune_review_threshold,
    tune_top_k,
)


SLOPES = (0.01, 100.0)  # never 0 or less: a higher logit of a code is a higher score
MIN_GOLD = 20  # gold pairs that two numbers can be fitted to

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
    """How codes are decided on; options of `train.py` and of `python -m modeling_icd.evaluation.decide`."""

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
