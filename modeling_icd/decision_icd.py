"""From logits to predicted codes: calibrated scores, the rules that choose codes by them, and which to review.

The configuration, fitting on validation, the pipeline, evaluation, the report and the card all use these functions. A way to
choose codes is one subclass of `ThresholdRule`, entered in `RULES`: options of `modeling-icd train`, fields of the configuration, checks
and descriptions follow from that class.
"""

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch


CALIBRATIONS = ("temperature", "platt")
CONFIDENT, REVIEW = FLAGS = ("confident", "review")
"""What a predicted code is marked with: taken as it is, or to be looked at by a person."""


# Scores


def calibrated_scores(logits: torch.Tensor, calibration: Mapping[str, Any] | None) -> torch.Tensor:
    """Scores in [0, 1], fp32: the sigmoid of the logits, calibrated where the model's configuration says how.

    With b(c) the band of code c and a slope above 0, so that the notes of one code keep their order:

        score = sigmoid(slope_b(c) * logit + intercept_b(c))

    Args:
        logits (`torch.Tensor` of shape `(..., C)`): of every code.
        calibration (`dict`, *optional*): the field of the configuration; `None`: the sigmoid alone.
    """
    logits = logits.float()
    if calibration is None:
        return logits.sigmoid()
    band = torch.as_tensor(calibration["band_of_code"], device=logits.device)
    slope, intercept = (torch.tensor(calibration[name], device=logits.device) for name in ("slopes", "intercepts"))
    return (slope.float()[band] * logits + intercept.float()[band]).sigmoid()


# Rules: which codes are predicted


@dataclass(frozen=True)
class RuleOption:
    """An option of a rule: an argument of `modeling-icd train` and of `modeling-icd decide`.

    An option whose default is `None` must be given with its rule, and may not be given with any other.
    """

    type: Any
    default: Any
    help: str


class ThresholdRule:
    """Base class of the rules that choose codes by their scores. By default: a threshold for all codes, or one for each.

    The argument `decision` of its methods is that of a configuration: `threshold`, the rules' `fields` and others.
    """

    name = ""
    """Its key in `RULES`, and the `threshold_rule` of a configuration."""
    help = ""
    """A few words for the help of `modeling-icd train`."""
    options: Mapping[str, RuleOption] = {}
    """What `fit` may be asked for."""
    fields: tuple[str, ...] = ()
    """Fields of the configuration that this rule needs and every other one leaves `None`."""
    promises = ""
    """What it promises of new notes, if anything: then the model learns from no validation note, and none is left out."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where a given option or field of the rule is out of range."""

    def check_notes(self, validation: Any, options: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where the rule cannot be fitted on these notes, whatever their scores will be."""

    def fit(self, validation: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """`threshold` and the fields of the rule, chosen on the validation split.

        Args:
            validation (`Validation` of `evaluation/decisions.py`): scores, gold codes, and what is best on them.
            options (`dict`): values of the rule's options.
        """
        raise NotImplementedError(f"The threshold rule {self.name!r} does not say how it is fitted.")

    def apply(self, scores: torch.Tensor, decision: Mapping[str, Any]) -> torch.Tensor:
        """Which codes are predicted, bool `(..., C)`, of the scores' shape. A score of 0 stands for a note without text, or
        for a code that the model does not know: such a code is never predicted."""
        return scores > torch.as_tensor(decision["threshold"], dtype=scores.dtype, device=scores.device)

    def value(self, decision: Mapping[str, Any]) -> float | str:
        """The threshold as a number, or in words where it is not one number; so `results.json` shows it."""
        threshold = decision["threshold"]
        return "per code" if isinstance(threshold, Sized) else float(threshold)

    def describe(self, decision: Mapping[str, Any]) -> str:
        """A sentence for the model's card, without its full stop."""
        greater = "a code is suggested when its score is greater"
        value = self.value(decision)
        if isinstance(value, str):
            return f"The model has a threshold of its own for each code, in `config.json`: {greater}"
        return f"The model's threshold is {value:.4f}, in `config.json`: {greater}"


class Fixed(ThresholdRule):
    """A fixed threshold, which the user gives."""

    name = "fixed"
    help = "score above 0.5"

    def fit(self, validation, options):
        return {"threshold": 0.5}


class Global(ThresholdRule):
    """One threshold for all codes, with the best micro-F1."""

    name = "global"
    help = "one threshold with the best micro-F1"

    def fit(self, validation, options):
        return {"threshold": validation.best_threshold()}


class PerCode(ThresholdRule):
    """A threshold for each code, with its best F1, drawn toward the global one where the code is rare."""

    name = "per_code"
    help = "each code's best, rare ones drawn toward the global one"
    options = {
        "threshold_shrinkage": RuleOption(
            float, 10.0, "validation notes at which a code's own threshold weighs as much as the global."
        )
    }

    def check(self, values):
        shrinkage = values.get("threshold_shrinkage", 0)
        if not shrinkage >= 0:
            raise ValueError(f"`threshold_shrinkage` must be 0 or more, got {shrinkage}.")

    def fit(self, validation, options):
        return {"threshold": validation.best_thresholds_per_code(options["threshold_shrinkage"])}


class TopK(ThresholdRule):
    """The k best codes of every note; of equal scores the lower class ids."""

    name = "top_k"
    help = "as many codes for every note"
    fields = ("predict_top_k",)

    def check(self, values):
        top_k = values.get("predict_top_k")
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`predict_top_k` must be a whole number of at least 1, got {top_k!r}.")

    def fit(self, validation, options):
        return {"predict_top_k": validation.best_top_k()}

    def apply(self, scores, decision):
        top_k = decision["predict_top_k"]
        if top_k >= scores.shape[-1]:
            return scores > 0
        last = scores.topk(top_k, dim=-1).values[..., -1:]
        above, equal = scores > last, scores == last
        room = top_k - above.sum(dim=-1, keepdim=True)
        return (above | (equal & (equal.cumsum(dim=-1) <= room))) & (scores > 0)

    def value(self, decision):
        return f"top {decision['predict_top_k']}"

    def describe(self, decision):
        return f"The model suggests the {decision['predict_top_k']} best codes of every note"


class Conformal(ThresholdRule):
    """One threshold for all codes that promises a mean recall of new notes: conformal risk control."""

    name = "conformal"
    help = "one threshold that promises `target_recall`"
    options = {"target_recall": RuleOption(float | None, None, "the mean recall of notes that is promised, e.g. 0.9.")}
    fields = ("target_recall",)
    promises = "a recall"

    def check(self, values):
        target = values.get("target_recall")
        if target is not None and not 0 < target < 1:
            raise ValueError(f"`target_recall` must lie between 0 and 1, got {target}.")

    def check_notes(self, validation, options):
        validation.check_recall(options["target_recall"])

    def fit(self, validation, options):
        target = options["target_recall"]
        return {"threshold": validation.threshold_for_recall(target), "target_recall": target}

    def describe(self, decision):
        return (
            f"{super().describe(decision)}. On notes drawn as the validation notes were, that promises a mean recall of "
            f"{decision['target_recall']:g} (conformal risk control)"
        )


RULES: dict[str, ThresholdRule] = {rule.name: rule for rule in (Fixed(), Global(), PerCode(), TopK(), Conformal())}
"""Every rule by its name."""


def decision_fields() -> dict[str, Any]:
    """The fields of a configuration that say how scores become codes, with their values before anything is fitted."""
    return {
        "threshold": 0.5,
        "threshold_rule": Fixed.name,
        **{name: None for rule in RULES.values() for name in rule.fields},
        "calibration": None,
        "review_threshold": None,
        "review_precision": None,
    }


def rule_options() -> dict[str, RuleOption]:
    """The options of all rules by name; the help of each says to which rule it belongs."""
    return {
        name: RuleOption(option.type, option.default, f"`{rule.name}`: {option.help}")
        for rule in RULES.values()
        for name, option in rule.options.items()
    }


def decision_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `config.json` that say how scores become codes."""
    return {name: values.get(name, default) for name, default in decision_fields().items()}


def rule_in_force(
    config: Any, threshold: Any = None, top_k: int | None = None
) -> tuple[ThresholdRule, Mapping[str, Any]]:
    """The rule to apply and its fields: the model's own, unless a threshold or k is given.

    A configuration object brings its rule itself. The pipeline may run from the copy of this file that came with a saved
    model, and that copy does not know the rules which a user has added to `RULES`.
    """
    if top_k is not None:
        return RULES[TopK.name], {"predict_top_k": top_k}
    if threshold is not None:
        return RULES[Fixed.name], {"threshold": threshold}
    if isinstance(config, Mapping):
        decision = decision_of(config)
        return RULES[decision["threshold_rule"]], decision
    return config.rule, config.decision


def predicted(scores: Any, config: Any, threshold: Any = None, top_k: int | None = None) -> torch.Tensor:
    """Which codes of each note are predicted, by the model's own rule unless another one is given.

    Args:
        scores (tensor or array of shape `(..., C)`): calibrated.
        config (`LlamaICDConfig` or `dict`): of the model, or its `decision`.
        threshold (`float` or sequence of C, *optional*): a code is predicted when its score is greater, in place of the rule;
            compared in the scores' type.
        top_k (`int`, *optional*): the k best codes of each note, in place of the rule and of `threshold`.

    Returns:
        `torch.BoolTensor` of the shape of `scores`.
    """
    rule, decision = rule_in_force(config, threshold, top_k)
    return rule.apply(torch.as_tensor(scores), decision)


def is_predicted(scores: Any, threshold: Any, top_k: int | None = None) -> torch.Tensor:
    """As `predicted`, but by a given threshold or the k best codes, without a model's configuration."""
    return predicted(scores, {}, threshold, top_k)


def predicted_codes(
    scores: torch.Tensor, config: Any, threshold: float | None = None, top_k: int | None = None
) -> list[int]:
    """Class ids of the predicted codes of one note, by falling score; `scores` is `(C,)`. See `predicted`."""
    order = scores.argsort(descending=True, stable=True)
    return order[predicted(scores, config, threshold, top_k)[order]].tolist()


def threshold_value(config: Any, threshold: Any = None, top_k: int | None = None) -> float | str:
    """The threshold that `predicted` applies, as a number, or in words where it is not one number."""
    rule, decision = rule_in_force(config, threshold, top_k)
    return rule.value(decision)


def describe_rule(config: Any) -> str:
    """How the model decides, as a sentence without its full stop."""
    rule, decision = rule_in_force(config)
    return rule.describe(decision)


# Flags: which predictions a person should look at


def is_confident(scores: Any, review_threshold: float) -> torch.Tensor:
    """Which predictions are `"confident"`, by their scores (a tensor or array); the others are marked `"review"`."""
    scores = torch.as_tensor(scores)
    return scores > torch.as_tensor(review_threshold, dtype=scores.dtype, device=scores.device)


def flags_of(scores: torch.Tensor, review_threshold: float | None) -> list[str | None]:
    """`"confident"` or `"review"` for each of a note's predictions; `None` without a fitted review. `scores`: `(Q,)`."""
    if review_threshold is None:
        return [None] * len(scores)
    return [CONFIDENT if sure else REVIEW for sure in is_confident(scores, review_threshold).tolist()]


# Checks


def check_rule(name: str, values: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for an unknown rule, and for options or fields that are out of range or belong to another rule.

    Args:
        values (`dict`): options of fitting, or fields of a configuration; those that are missing are not checked.
    """
    if name not in RULES:
        raise ValueError(f"`threshold_rule` must be one of {', '.join(RULES)}, got {name!r}.")
    for rule in RULES.values():
        own = dict.fromkeys([*rule.fields, *(key for key, option in rule.options.items() if option.default is None)])
        for key in own:
            if key in values and (rule.name == name) != (values[key] is not None):
                raise ValueError(f"`{key}` ({values[key]}) and `threshold_rule` {rule.name!r} need each other.")
        rule.check(values)


def check_decision(decision: Mapping[str, Any], num_labels: int) -> None:
    """Raises a `ValueError` that names the field of a configuration's `decision` that is out of range."""
    threshold = decision["threshold"]
    if isinstance(threshold, list) and len(threshold) != num_labels:
        raise ValueError(
            f"`threshold` holds {len(threshold)} values for {num_labels} codes: give one number, or one per code."
        )
    if not all(0 <= value <= 1 for value in (threshold if isinstance(threshold, list) else [threshold])):
        raise ValueError(f"`threshold` must be in [0, 1], got {threshold}.")
    check_rule(decision["threshold_rule"], decision)
    review = {name: decision[name] for name in ("review_threshold", "review_precision")}
    if len({value is None for value in review.values()}) > 1:
        given = " and ".join(f"`{name}` ({value})" for name, value in review.items())
        raise ValueError(f"{given} need each other.")
    for name, value in review.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
    if decision["calibration"] is not None:
        check_calibration(decision["calibration"], num_labels)


def check_calibration(calibration: dict[str, Any], num_labels: int) -> None:
    """Raises a `ValueError` where the `calibration` of a configuration is malformed, or does not cover every code."""
    keys = {"method", "bands", "slopes", "intercepts", "band_of_code"}
    if not isinstance(calibration, dict) or set(calibration) != keys:
        raise ValueError(f"`calibration` must be a dict with the keys {', '.join(sorted(keys))}.")
    if calibration["method"] not in CALIBRATIONS:
        raise ValueError(f"`calibration` knows the methods {', '.join(CALIBRATIONS)}, got {calibration['method']!r}.")
    slopes, intercepts, bands = calibration["slopes"], calibration["intercepts"], calibration["band_of_code"]
    if not len(slopes) == len(intercepts) == len(calibration["bands"]):
        raise ValueError("`calibration` needs one slope and one intercept for each band.")
    if not all(math.isfinite(slope) and slope > 0 for slope in slopes):
        raise ValueError(f"`calibration` needs slopes above 0, or a code's notes would change their order: {slopes}.")
    if not all(math.isfinite(intercept) for intercept in intercepts):
        raise ValueError(f"`calibration` needs finite intercepts, got {intercepts}.")
    if len(bands) != num_labels or not all(band in range(len(slopes)) for band in bands):
        raise ValueError(
            f"`calibration` needs one of its {len(slopes)} bands for each of {num_labels} codes in `band_of_code`."
        )
