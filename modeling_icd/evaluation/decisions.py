"""Which codes of a note are predicted, and which of those a person should look at: rules fitted on the validation split.

`fit_decision` gives the fields of a model's configuration (`DECISION_FIELDS`). Give these functions the validation split,
never the test split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression

from ..configuration_icd import CALIBRATIONS, THRESHOLD_RULES
from ..decision_icd import calibrated_scores, is_predicted
from .calibration import fit_platt, fit_temperature
from .icd_metrics.inputs import ClassIds, check_scores, gold_pairs
from .icd_metrics.ranks import cut_between, rank_gold
from .outcomes import outcomes_of
from .thresholds import tune_bagged_threshold, tune_per_code_thresholds


@dataclass
class DecisionArguments:
    """How codes are decided on; options of `train.py` and of `python -m modeling_icd.evaluation.decide`."""

    threshold_rule: str = field(
        default="global",
        metadata={
            "help": "Which codes are predicted, chosen on validation: `fixed` (score above 0.5), `global` (one threshold "
            "with the best micro-F1), `per_code` (each code's best, rare ones drawn toward the global one), `top_k` (as many "
            "codes for every note) or `conformal` (one threshold that promises `target_recall`)."
        },
    )
    threshold_shrinkage: float = field(
        default=10.0,
        metadata={
            "help": "`per_code`: validation notes at which a code's own threshold weighs as much as the global."
        },
    )
    target_recall: float | None = field(
        default=None, metadata={"help": "`conformal`: the mean recall of notes that is promised, e.g. 0.9."}
    )
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
            "help": "Predictions with scores of which a smaller share than this was right on validation are marked for review."
        },
    )

    def __post_init__(self):
        if self.threshold_rule not in THRESHOLD_RULES:
            raise ValueError(
                f"`threshold_rule` must be one of {', '.join(THRESHOLD_RULES)}, got {self.threshold_rule!r}."
            )
        if not self.threshold_shrinkage >= 0:
            raise ValueError(f"`threshold_shrinkage` must be 0 or more, got {self.threshold_shrinkage}.")
        if (self.threshold_rule == "conformal") != (self.target_recall is not None):
            raise ValueError("`threshold_rule: conformal` and `target_recall` need each other.")
        for name, value in (("target_recall", self.target_recall), ("review_precision", self.review_precision)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")
        if self.calibration not in ("none", *CALIBRATIONS):
            raise ValueError(
                f"`calibration` must be one of none, {', '.join(CALIBRATIONS)}, got {self.calibration!r}."
            )


def fit_decision(
    logits: np.ndarray,
    gold: list[list[int]],
    args: DecisionArguments,
    *,
    training_counts: Sequence[int] | None = None,
    num_unknown: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Calibrate scores, choose thresholds on them, and say which predictions are to be reviewed.

    Args:
        logits (array of shape `(N, C)`): Of the validation split.
        gold (`list[list[int]]` of length N): Class ids.
        args (`DecisionArguments`): What to fit.
        training_counts (`Sequence[int]` of length C, *optional*): Training notes of each code, for `platt`.
        num_unknown (`Sequence[int]` of length N, *optional*): Gold codes of each note that the model does not know.

    Returns:
        Every field of `DECISION_FIELDS`, ready for JSON.
    """
    gold = ClassIds(gold)
    fitted = None
    if args.calibration == "temperature":
        fitted = fit_temperature(logits, gold)
    elif args.calibration == "platt":
        if training_counts is None:
            raise ValueError("Calibration by bands of training frequency needs the training notes of each code.")
        fitted = fit_platt(logits, gold, training_counts)
    scores = calibrated_scores(torch.from_numpy(logits), fitted).numpy()
    threshold: float | list[float] = 0.5
    top_k = None
    if args.threshold_rule == "global":
        threshold = tune_bagged_threshold(scores, gold)
    elif args.threshold_rule == "per_code":
        threshold = tune_per_code_thresholds(scores, gold, args.threshold_shrinkage).tolist()
    elif args.threshold_rule == "top_k":
        top_k = tune_top_k(scores, gold)
    elif args.target_recall is not None:
        threshold = conformal_threshold(scores, gold, args.target_recall, num_unknown)
    review_threshold = None
    if args.review_precision is not None:
        outcomes = outcomes_of(scores, gold, is_predicted(torch.from_numpy(scores), threshold, top_k).numpy())
        review_threshold = tune_review_threshold(
            scores[outcomes.predicted_notes, outcomes.predicted_codes],
            outcomes.predicted_is_hit,
            args.review_precision,
        )
    return {
        "threshold": threshold,
        "threshold_rule": args.threshold_rule,
        "predict_top_k": top_k,
        "target_recall": args.target_recall,
        "calibration": fitted,
        "review_threshold": review_threshold,
        "review_precision": args.review_precision,
    }


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
        scores (array of shape `(N, C)`): Of the validation split.
        labels (array of shape `(N, C)` or list of `N` lists of class ids): Multi-hot, or class ids.
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

    Args:
        num_known, num_unknown (`(N,)`): Gold codes of each note that the model knows, and that it does not (or `None`).

    Raises:
        ValueError: where that is less than nothing.
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
