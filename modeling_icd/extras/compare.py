"""Compares evaluated runs with each other and with published figures, as `modeling-icd evaluate --compare` does.

    modeling-icd compare runs/A/evaluation/test runs/B/evaluation/test

Figures compare where data set, code set, split, kind of macro F1 and threshold rule are the same, and only there does this
module rank. A published row of which one of these is not known is shown, and never ranked.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command
from dataset_scripts.files import write_json, write_text

from ..evaluation.icd_metrics.metrics import divide, shown_in
from ..evaluation.intervals import holm, randomization_test
from ..evaluation.outcomes import Outcomes, renumber_codes
from ..evaluation.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from ..evaluation.report import bounds_text, markdown_cell
from ..evaluation.results_file import read_results


PUBLISHED = Path(__file__).parent / "published.json"
CAML_TEST_NOTES = {"full": 3372, "top50": 1729}
TUNED = "tuned on validation"


class Setting(NamedTuple):
    """What two figures must share to be compared; None is not known, and `macro_f1_kind` of our runs is both."""

    dataset: str
    code_set: str
    split: str | None
    threshold_rule: str | None


class Run(NamedTuple):
    """One evaluated run."""

    name: str
    results: dict[str, Any]
    predictions: Predictions
    setting: Setting


def compare_runs(folders: Sequence[Path], *, seed: int = 0) -> dict[str, Any]:
    """Compare runs that `modeling-icd evaluate` wrote.

    Args:
        folders (`Sequence[Path]`): Each with `results.json`, and `predictions.parquet` there or in the private neighbour
            of the model folder that it lies in. The first run is the one that the others are tested against.
        seed (`int`): Of the tests' shuffles.

    Returns:
        `groups`, each with its `setting`, `macro_f1_kind`, `is_ranked` and `rows`; and `tests`, for each run on the notes
        of the first its differences from it, p-values and p-values after Holm over the runs of this comparison.
    """
    if len(folders) < 2:
        raise ValueError(f"A comparison needs at least 2 runs, got {len(folders)}.")
    names = run_names(folders)
    runs = [read_evaluation(folder, name) for folder, name in zip(folders, names, strict=True)]
    return {"groups": make_groups(runs, read_published()), "tests": paired_tests(runs, seed), "seed": seed}


def read_evaluation(folder: Path, name: str) -> Run:
    results = read_results(folder / "results.json")
    predictions = read_predictions(find_predictions(folder))
    if predictions.about["data_fingerprint"] != results["data_fingerprint"]:
        raise ValueError(f"{folder}: results.json and {PREDICTIONS_FILE} are not of the same run: evaluate again.")
    outcomes = predictions.outcomes
    f1 = divide(2 * outcomes.is_hit.sum(), len(outcomes.gold_codes) + len(outcomes.predicted_codes))
    if not np.isclose(f1, results["metrics"]["f1_micro"], atol=1e-9):  # an evaluation that was ended between the two
        raise ValueError(
            f"{folder}: {PREDICTIONS_FILE} gives a micro F1 of {f1:.4f}, results.json says "
            f"{results['metrics']['f1_micro']:.4f}: they are not of the same run, evaluate again."
        )
    return Run(name, results, predictions, setting_of(results))


def find_predictions(folder: Path) -> Path:
    """The predictions of a run, beside its results or, for a run inside of a model folder, in `MODEL-private`."""
    folder = folder.resolve()
    candidates = [folder / PREDICTIONS_FILE]
    for parent in folder.parents:
        candidates.append(Path(f"{parent}-private") / folder.relative_to(parent) / PREDICTIONS_FILE)
    return next((path for path in candidates if path.is_file()), candidates[0])


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [folder.resolve().parts[1:] or ("/",) for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("A run is given twice.")


def setting_of(results: Mapping[str, Any]) -> Setting:
    """The setting of a run of ours.

    A test split of MIMIC-III of the size of CAML's is taken for CAML's; any other split is told by its fingerprint.
    """
    dataset, code_set, split = results["dataset"], results["config"], results["split"]
    if dataset == "mimic3" and split == "test" and results["num_notes"] == CAML_TEST_NOTES.get(code_set):
        split_name = "CAML test"
    else:
        split_name = f"{split} {results['data_fingerprint'][:8]}"
    return Setting(dataset, code_set, split_name, threshold_rule_of(results))


def threshold_rule_of(results: Mapping[str, Any]) -> str | None:
    """The threshold rule in the words of `published.json`; None where it cannot be told."""
    rule, threshold = results["threshold_rule"], results["threshold"]
    if rule == "global":
        return TUNED
    if rule == "conformal":
        promise = results["recall_promise"]
        return promise and f"recall of {promise['target']:g} promised on validation"
    if isinstance(threshold, str):  # per code, top k
        return threshold if rule == "fixed" else f"{threshold}, {TUNED}"
    return f"{threshold:g}"


def read_published() -> list[dict[str, Any]]:
    """Published rows: model, source, data set, code set, split, kind of macro F1, threshold rule (null: not stated), figures."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def make_groups(runs: Sequence[Run], published: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that may be compared, group by group; within a ranked one by falling micro F1.

    Our runs report each kind of macro F1, so they join the published rows of either kind, with that kind's figure.
    """
    keys: dict[tuple[Setting, str | None], list[dict[str, Any]]] = {}
    for row in published:
        if not any(row["dataset"] == run.setting.dataset for run in runs):
            continue
        setting = Setting(*(row[name] for name in Setting._fields))
        shown = {
            "name": row["model"],
            **{name: row[name] for name in ("source", "remark", "metrics")},
            "intervals": {},
        }
        keys.setdefault((setting, row["macro_f1_kind"]), []).append(shown)
    for run in runs:
        found = [key for key in keys if key[0] == run.setting and key[1] is not None]
        for key in found or [(run.setting, "f1_macro")]:
            keys.setdefault(key, []).append(_own_row(run, key[1] or "f1_macro"))
    groups = []
    for (setting, kind), rows in keys.items():
        is_ranked = kind is not None and None not in setting
        if is_ranked:
            rows = sorted(rows, key=lambda row: -row["metrics"]["f1_micro"])
        groups.append({"setting": setting._asdict(), "macro_f1_kind": kind, "is_ranked": is_ranked, "rows": rows})
    return sorted(
        groups, key=lambda group: (not any(row["source"] is None for row in group["rows"]), not group["is_ranked"])
    )


def _own_row(run: Run, kind: str) -> dict[str, Any]:
    """A row of ours; its `f1_macro` is of the group's kind."""
    names = {metric.name: metric.name for metric in shown_in("comparison")} | {"f1_macro": kind}
    metrics, intervals = run.results["metrics"], run.results["intervals"]
    return {
        "name": run.name,
        "source": None,
        "remark": None,
        "metrics": {column: metrics[name] for column, name in names.items() if metrics.get(name) is not None},
        "intervals": {column: intervals[name] for column, name in names.items() if name in intervals},
    }


def paired_tests(runs: Sequence[Run], seed: int) -> list[dict[str, Any]]:
    """Paired tests of every run against the first, where both read the same notes with the same gold codes."""
    first, *others = runs
    names = [metric.name for metric in shown_in("test")]
    tested = []
    for run in others:
        same_notes = run.results["data_fingerprint"] == first.results["data_fingerprint"]
        row: dict[str, Any] = {"name": run.name, "against": first.name, "is_paired": same_notes, "metrics": {}}
        if same_notes:
            codes = list(dict.fromkeys(first.predictions.codes + run.predictions.codes))
            baseline, other = (align(of_run.predictions, codes) for of_run in (first, run))
            for name, test in randomization_test(baseline, other, names, seed=seed).items():
                row["metrics"][name] = {"difference": test.difference, "p_value": test.p_value}
        tested.append(row)
    for name in names:
        cells = [row["metrics"][name] for row in tested if row["is_paired"]]
        for cell, adjusted in zip(cells, holm([cell["p_value"] for cell in cells]), strict=True):
            cell["p_holm"] = adjusted
    return tested


def align(predictions: Predictions, codes: Sequence[str]) -> Outcomes:
    """Outcomes of a run with the class ids of a longer list of codes."""
    ids = {code: i for i, code in enumerate(codes)}
    new_ids = np.array([ids[code] for code in predictions.codes], np.int64)
    return renumber_codes(predictions.outcomes, new_ids, len(codes))


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    lines = ["# Comparison", ""]
    for group in comparison["groups"]:
        lines += _group_lines(group)
    lines += ["## Paired tests", ""]
    for row in comparison["tests"]:
        if not row["is_paired"]:
            name, against = markdown_cell(row["name"]), markdown_cell(row["against"])
            lines += [f"{name} was not scored on the notes of {against}: no test.", ""]
    cells = [
        [row["name"], name, f"{cell['difference']:+.4f}", _p(cell["p_value"]), _p(cell["p_holm"])]
        for row in comparison["tests"]
        for name, cell in row["metrics"].items()
    ]
    if cells:
        lines += [
            f"Against {markdown_cell(comparison['tests'][0]['against'])}: approximate randomisation over notes, two-sided, seed "
            f"{comparison['seed']}; Holm over the runs of this table. AUCs are not tested so: scores of two models are not on one "
            "scale.",
            "",
            *_markdown_table(["run", "metric", "difference", "p", "p (Holm)"], cells),
            "",
        ]
    return "\n".join(lines)


def _group_lines(group: Mapping[str, Any]) -> list[str]:
    kinds = {"f1_macro": "mean of per-code F1", "f1_macro_caml": "of macro precision and recall", None: None}
    known = {**group["setting"], "macro F1": kinds[group["macro_f1_kind"]]}
    title = ", ".join(f"{name.replace('_', ' ')}: {value or 'not stated'}" for name, value in known.items())
    names = [metric.name for metric in shown_in("comparison")]
    names = [name for name in names if any(name in row["metrics"] for row in group["rows"])]
    note, places = "Not ranked: these rows may differ in what is not stated.", [""] * len(group["rows"])
    if group["is_ranked"]:
        note, places = "Ranked by micro F1.", [str(place) for place, _ in enumerate(group["rows"], start=1)]
    rows = [
        [place, row["name"], *(_with_interval(row, name) for name in names), row["source"] or "this comparison"]
        for place, row in zip(places, group["rows"], strict=True)
    ]
    table = _markdown_table(["", "model", *names, "source"], rows)
    return [f"## {markdown_cell(title)}", "", note, "", *table, ""]


def write_comparison(comparison: Mapping[str, Any], output_dir: Path) -> Path:
    """Write `comparison.json` and `comparison.md`; returns the second."""
    write_json(comparison, output_dir / "comparison.json")
    path = output_dir / "comparison.md"
    write_text(render_comparison(comparison), path)
    return path


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    value = row["metrics"].get(name)
    if value is None:
        return ""
    interval = row["intervals"].get(name)
    # Published figures have three digits: more would be made up.
    return f"{value:.4f} ({bounds_text(interval)})" if interval else f"{value:g}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *([markdown_cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders with results.json")
    parser.add_argument("--output_dir", type=Path, help="folder to write the comparison into as well")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random resamples for the tests")
    args = parser.parse_args(arguments)
    return run_command(lambda: report(args.runs, args.seed, args.output_dir))


def report(folders: Sequence[Path], seed: int, output_dir: Path | None) -> int:
    """Compares runs that were evaluated before, and shows the comparison."""
    comparison = compare_runs(folders, seed=seed)
    print(render_comparison(comparison))
    if output_dir is not None:
        print(write_comparison(comparison, output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
