"""Fits how a model decides, on the validation split: calibration, a threshold rule, and which predictions to review.

The rules themselves are the classes of `modeling_icd/decision_icd.py`; `fit_decision` returns the fields to put into a
model's configuration. Give it the validation split, never the test split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import numpy as np
import torch

from ..decision_icd import (
    CALIBRATIONS,
    RULES,
    calibrated_scores,
    check_rule,
    decision_fields,
    predicted,
    rule_options,
)
from .calibration import fit_platt, fit_temperature
from .icd_metrics.inputs import ClassIds
from .thresholds import (
    conformal_threshold,
    missable_notes,
    multi_hot,
    tune_bagged_threshold,
    tune_per_code_thresholds,
    tune_review_threshold,
    tune_top_k,
)


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
        if training_counts is None:
            raise ValueError("Calibration by bands of training frequency needs the training notes of each code.")
        calibration = fit_platt(logits, gold, training_counts)
    scores = calibrated_scores(torch.from_numpy(logits), calibration).numpy()
    rule = RULES[args.threshold_rule]
    fitted = rule.fit(Validation(gold, num_unknown, scores), args.rule_options())
    decision = decision_fields() | {"threshold_rule": args.threshold_rule, **fitted, "calibration": calibration}
    if args.review_precision is not None:
        is_predicted = predicted(scores, decision).numpy()
        is_gold = multi_hot(gold, scores.shape)
        decision |= {
            "review_threshold": tune_review_threshold(
                scores[is_predicted], is_gold[is_predicted], args.review_precision
            ),
            "review_precision": args.review_precision,
        }
    return decision
