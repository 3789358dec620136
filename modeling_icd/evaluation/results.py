"""`results.json`: what is in it, where it came from, and a check that it is whole."""

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_scripts.files import read_json, write_json

from .audit import planted_found, recall_of_removed
from .icd_metrics.accumulator import ICDMetricsAccumulator
from .icd_metrics.inputs import ClassIds
from .icd_metrics.scores import (
    NUM_CALIBRATION_BINS,
    NUM_LEVELS,
    calibration_bins,
    divide,
    from_levels,
    nan_to_none,
    to_levels,
)
from .intervals import METHOD, bootstrap_intervals, calibration_terms, ranking_terms, ratio_interval
from .outcomes import Outcomes, counts_per_code, counts_per_note, outcomes_of, weighted_metrics
from .strata import CodeAttributes, make_errors, make_strata


SCHEMA_VERSION = 2
MEMBERSHIP_FILE = "membership.json"
LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "numpy", "peft", "scikit-learn")
NUM_CURVE_POINTS = 200
CUTOFFS = (5, 8, 15)

# What every file has, and of which type.
SCHEMA: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "model": str,
    "dataset": str,
    "config": str,
    "split": str,
    "num_notes": int,
    "num_codes": int,
    "unknown_codes": list,
    "data_fingerprint": str,
    "synthetic": bool,
    "training_seed": (int, type(None)),
    "threshold": (int, float, str),
    "thresholds": (dict, type(None)),
    "threshold_rule": str,
    "threshold_source": str,
    "calibration": (dict, type(None)),
    "review": (dict, type(None)),
    "recall_promise": (dict, type(None)),
    "audit": (dict, type(None)),
    "seed": int,
    "code_version": str,
    "versions": dict,
    "metrics": dict,
    "intervals": dict,
    "interval_method": str,
    "strata": dict,
    "errors": dict,
    "curves": dict,
    "per_code": dict,
}
STRATUM_COUNTS = ("gold", "predicted", "hits")


class ScoredSplit(NamedTuple):
    """A split and what a model says about it; a code that only the split has is a column of zeros behind the model's own."""

    scores: np.ndarray  # (N, C) float32
    gold: list[list[int]]  # class ids of each note
    codes: list[str]  # by class id
    hadm_ids: list[int]
    num_words: list[int]
    threshold: float | np.ndarray
    training_counts: dict[str, int] | None
    attributes: CodeAttributes
    about: dict[str, Any]  # what was scored with what; goes into results.json
    descriptions: Mapping[str, str] = {}  # titles of codes, as far as known
    top_k: int | None = None  # codes that every note gets, in place of the threshold
    calibration: dict[str, Any] | None = None  # as in the model's configuration
    uncalibrated: np.ndarray | None = None  # (N, C) scores before it
    review: dict[str, float] | None = None  # `threshold`, and the `precision_asked` for
    target_recall: float | None = None


def summarize(split: ScoredSplit, seed: int = 0) -> tuple[dict, Outcomes]:
    """Every figure of a scored split, as `results.json` holds them, and the outcomes that they rest on.

    Args:
        seed (`int`): of the intervals' resamples.
    """
    split = split._replace(gold=ClassIds(split.gold))
    accumulator = ICDMetricsAccumulator(len(split.codes), threshold=split.threshold, k=CUTOFFS)
    accumulator.add_batch(split.scores, split.gold)
    metrics = accumulator.compute()
    outcomes = outcomes_of(split.scores, split.gold, split.threshold, split.top_k)
    if split.top_k is not None:  # the accumulator knows thresholds only
        of_decision = weighted_metrics(outcomes, np.ones((1, outcomes.num_notes)), CUTOFFS)
        metrics |= {name: float(value[0]) for name, value in of_decision.items()}
    ranking, calibration = ranking_terms(split.scores, split.gold), calibration_terms(split.scores, split.gold)
    strata = make_strata(
        outcomes, split.codes, split.num_words, attributes=split.attributes, training_counts=split.training_counts
    )
    hits, predicted, gold = counts_per_code(outcomes)
    counts = split.training_counts
    per_code = None if np.isscalar(split.threshold) else np.asarray(split.threshold).tolist()
    results = {
        "metrics": metrics,
        "intervals": bootstrap_intervals(
            outcomes, metrics, ranking=ranking, calibration=calibration, k=CUTOFFS, seed=seed
        ),
        "interval_method": METHOD,
        **split.about,
        "threshold": name_threshold(split.threshold, split.top_k),
        "thresholds": None if per_code is None else dict(zip(split.codes, per_code, strict=True)),
        "calibration": summarize_calibration(split, metrics),
        "review": summarize_review(split, outcomes),
        "recall_promise": summarize_promise(split, outcomes, seed),
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
            "gold": gold.tolist(),
            "predicted": predicted.tolist(),
            "hits": hits.tolist(),
        },
    }
    check_results(results)
    return results, outcomes


def name_threshold(threshold: Any, top_k: int | None) -> float | str:
    """The threshold as a number, or in words where it is not one number."""
    if top_k is not None:
        return f"top {top_k}"
    return "per code" if np.ndim(threshold) else float(threshold)


def summarize_calibration(split: ScoredSplit, metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """The method, its numbers by band, and ECE and Brier score before and after it; `None` for a plain sigmoid."""
    if split.calibration is None or split.uncalibrated is None:
        return None
    before = ICDMetricsAccumulator(len(split.codes), score_storage="histogram")
    before.add_batch(split.uncalibrated, split.gold)
    num_codes = Counter(split.calibration["band_of_code"])
    bands = zip(*(split.calibration[name] for name in ("bands", "slopes", "intercepts")), strict=True)
    return {
        "method": split.calibration["method"],
        "bands": [
            {"band": band, "num_codes": num_codes[i], "slope": slope, "intercept": intercept}
            for i, (band, slope, intercept) in enumerate(bands)
        ],
        "before": nan_to_none(before.calibration_metrics()),
        "after": nan_to_none({name: metrics[name] for name in ("ece", "brier")}),
    }


def summarize_review(split: ScoredSplit, outcomes: Outcomes) -> dict[str, Any] | None:
    """The band for review, and what came of it; `None` where the model does not say what to review."""
    if split.review is None:
        return None
    figures = review_figures(split.scores, outcomes, split.review["threshold"])
    return dict(split.review) | figures


def summarize_promise(split: ScoredSplit, outcomes: Outcomes, seed: int) -> dict[str, Any] | None:
    """The recall that the threshold promises, and what it gave on this split; `None` where it promises nothing."""
    figures = recall_figures(outcomes, seed=seed) if split.target_recall is not None else None
    return figures and {"target": split.target_recall, **figures}


def summarize_audit(split: ScoredSplit, outcomes: Outcomes, seed: int) -> dict[str, Any] | None:
    """How good an audit's two lists are: see `recall_of_removed`, and under `unsupported` `planted_found`.

    Codes are planted by their number of training notes or, where that is not known, of notes of this split.
    """
    figures = recall_of_removed(outcomes, seed=seed)
    if figures is None:
        return None
    counts = split.training_counts or dict(zip(split.codes, counts_per_code(outcomes)[2].tolist(), strict=True))
    frequency = [counts.get(code, 0) for code in split.codes]
    num_known = len(split.codes) - len(split.about["unknown_codes"])
    return figures | {"unsupported": planted_found(split.scores, outcomes, frequency, num_known=num_known, seed=seed)}


def review_figures(scores: np.ndarray, outcomes: Outcomes, review_threshold: float) -> dict[str, dict[str, Any]]:
    """How many predictions of a split are `confident` and how many are for `review`, and how many of each were right."""
    is_confident = scores[outcomes.predicted_notes, outcomes.predicted_codes] > np.float32(review_threshold)
    is_right = outcomes.predicted_is_hit
    figures = {}
    for name, members in (("confident", is_confident), ("review", ~is_confident)):
        predicted, hits = int(members.sum()), int(is_right[members].sum())
        figures[name] = {"predicted": predicted, "hits": hits, "precision": hits / predicted if predicted else None}
    return figures


def recall_figures(outcomes: Outcomes, *, seed: int = 0) -> dict[str, Any] | None:
    """Mean recall of the notes with gold codes, its interval over notes, and how many codes a note gets for it.

    `None` for a split without gold codes.
    """
    hits, predicted, gold = counts_per_note(outcomes)
    has_gold = gold > 0
    if not has_gold.any():
        return None
    recall = divide(hits, gold)[has_gold]
    return {
        "recall": float(recall.mean()),
        "interval": ratio_interval(recall[:, None], np.ones(len(recall)), seed=seed)[0].tolist(),
        "num_notes": int(has_gold.sum()),
        "predicted_per_note": float(predicted.mean()),
    }


def check_results(results: Mapping[str, Any]) -> None:
    """Raise a `ValueError` that names what is missing from results, or wrong in them."""
    faults = [f"`{name}` is missing" for name in SCHEMA if name not in results]
    faults += [
        f"`{name}` is a {type(results[name]).__name__}"
        for name, kind in SCHEMA.items()
        if name in results
        and (not isinstance(results[name], kind) or isinstance(results[name], bool) != (kind is bool))
    ]
    if not faults:
        try:
            faults = _faults_within(results)
        except (AttributeError, KeyError, TypeError) as error:
            faults = [f"a field inside holds a value of another kind than expected ({error})"]
    if faults:
        raise ValueError(f"Not the results of an evaluation: {'; '.join(faults[:5])}.")


def _faults_within(results: Mapping[str, Any]) -> list[str]:
    faults = []
    if results["schema_version"] != SCHEMA_VERSION:
        faults.append(f"`schema_version` is {results['schema_version']}, expected {SCHEMA_VERSION}: evaluate again")
    if not isinstance(results.get("num_empty_notes", 0), int):
        faults.append("`num_empty_notes` is no number")
    for name, value in results["metrics"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            faults.append(f"metric {name} is no number")
    for name, interval in results["intervals"].items():
        if results["metrics"].get(name) is None:
            faults.append(f"the interval of {name} has no metric")
        elif len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            faults.append(f"the interval of {name} is {interval}")
    if results["threshold"] == "per code" and len(results["thresholds"] or {}) != results["num_codes"]:
        faults.append("`thresholds` does not hold one for each code")
    for name, rows in results["strata"].items():
        if not all(isinstance(row.get("stratum"), str) for row in rows):
            faults.append(f"strata {name} lack a name")
        elif name != "heat_map" and not all(
            isinstance(row.get(count), int) for row in rows for count in STRATUM_COUNTS
        ):
            faults.append(f"strata {name} lack counts")
    sizes = {len(column) for column in results["per_code"].values() if column is not None}
    if sizes != {results["num_codes"]}:
        faults.append(f"`per_code` has columns of {sorted(sizes)} codes, expected {results['num_codes']}")
    return faults


def write_results(results: dict, output_dir: Path) -> Path:
    """Writes `results.json`, whole or not at all; a figure that is undefined is null."""
    path = output_dir / "results.json"
    write_json({**results, "metrics": nan_to_none(results["metrics"])}, path)
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Reads `results.json` and checks it."""
    results = read_json(path, f"write it with `evaluate.py MODEL ... --output_dir {path.parent}`.")
    check_results(results)
    return results


def data_fingerprint(hadm_ids: Iterable[int], texts: Iterable[str], codes: Iterable[Sequence[str]]) -> str:
    """Hash what was scored: ids, text and gold codes of each note, in order. Equal on every machine, and of no use to
    find a note."""
    digest = hashlib.sha256()
    for hadm_id, text, of_note in zip(hadm_ids, texts, codes, strict=True):
        digest.update(f"{hadm_id}\0{len(text)}\0{text}\0{' '.join(sorted(of_note))}\0".encode())
    return digest.hexdigest()


def code_version() -> str:
    """The commit of this checkout (`-dirty` where files differ from it), or the installed version of the package."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git on this machine, or a checkout of another user
    return installed_version("modeling-icd") or "unknown"


def library_versions() -> dict[str, str]:
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def make_curves(
    scores: np.ndarray, outcomes: Outcomes, uncalibrated: np.ndarray | None = None
) -> dict[str, list[dict[str, float]]]:
    """Points of curves over all pairs of note and code.

    - `precision_recall`: at most 200 thresholds, about evenly spaced in recall; scores on 63,489 levels.
    - `reliability`: for each of the 15 bins of the ECE that holds scores their number, mean, and share of gold.
    - `reliability_uncalibrated`: the same before calibration, where there was one.
    """
    levels = np.zeros(NUM_LEVELS, np.int64)
    for row in scores:
        levels += np.bincount(to_levels(row), minlength=NUM_LEVELS)
    gold_scores = scores[outcomes.gold_notes, outcomes.gold_codes]
    gold_levels = np.bincount(to_levels(gold_scores), minlength=NUM_LEVELS)
    hits, predicted = np.cumsum(gold_levels[::-1]), np.cumsum(levels[::-1])
    recall, precision = divide(hits, len(gold_scores)), divide(hits, predicted)
    candidates = np.flatnonzero(levels[::-1])
    wanted = np.searchsorted(recall[candidates], np.linspace(0, 1, NUM_CURVE_POINTS))
    chosen = candidates[np.unique(np.minimum(wanted, len(candidates) - 1))] if len(gold_scores) else []
    points = [
        {
            "at_least": float(from_levels(np.array(NUM_LEVELS - 1 - i))),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
        }
        for i in chosen
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
