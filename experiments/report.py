"""What an experiment found: a table for each task with intervals, a plot, and what can be said of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from .plans import Plan, Run


METRICS = {
    "f1_micro": "micro-F1",
    "f1_macro": "macro-F1",
    "map": "MAP",
    "auc_micro": "micro-AUC",
    "precision_at_5": "P@5",
}
LEVEL = 0.95


class Figures(NamedTuple):
    """A metric of a row on a task.

    Args:
        mean (`float`): over its runs.
        low, high (`float`): a 95 % interval; see [`interval`].
        num_runs (`int`): how many runs it rests on.
    """

    mean: float
    low: float
    high: float
    num_runs: int


def interval(values: Sequence[float], of_one: Sequence[float] | None = None) -> tuple[float, float]:
    """A 95 % interval of a mean over runs by Student's t: what another fold or seed would change. Of a single run it is
    `of_one`, which is that of its test notes, or nothing."""
    if len(values) < 2:
        low, high = (values[0], values[0]) if of_one is None else of_one
        return float(low), float(high)
    mean, error = float(np.mean(values)), float(stats.sem(values))
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return mean - reach, mean + reach


def figures_of(results: Mapping[Run, Mapping[str, Any]], task: str, row: str, metric: str) -> Figures | None:
    """The figures of a row, of parts that are each the mean of their seeds; `None` where it has no run.

    Where a task has several parts (folds), the interval is that over parts; else it is that over seeds.
    """
    runs = {run: found for run, found in results.items() if (run.task, run.row) == (task, row)}
    if not runs:
        return None
    by_part: dict[str, list[float]] = {}
    for run, found in runs.items():
        by_part.setdefault(run.part, []).append(float(found["metrics"][metric]))
    values = [float(np.mean(part)) for part in by_part.values()]
    if len(by_part) == 1:
        (values,) = by_part.values()
    of_one = next(iter(runs.values())).get("intervals", {}).get(metric)
    return Figures(float(np.mean(values)), *interval(values, of_one), len(runs))


def difference(
    results: Mapping[Run, Mapping[str, Any]], task: str, first: str, second: str, metric: str = "f1_micro"
) -> tuple[float, float, float] | None:
    """By how much one row is above another on the parts and seeds that both have, and a 95 % interval of it. A row that no
    seed changes is the same for all. `None` with fewer than two pairs."""
    of_row: dict[str, dict[tuple[str, int], float]] = {first: {}, second: {}}
    for run, found in results.items():
        if run.task == task and run.row in of_row:
            of_row[run.row][run.part, run.seed] = float(found["metrics"][metric])
    pairs: dict[str, list[float]] = {}
    for (part, seed), value in of_row[first].items():
        others = [other for (name, number), other in of_row[second].items() if name == part and number == seed]
        others = others or [other for (name, _), other in of_row[second].items() if name == part]
        if others:
            pairs.setdefault(part, []).append(value - float(np.mean(others)))
    values = [float(np.mean(part)) for part in pairs.values()]
    if len(pairs) == 1:
        (values,) = pairs.values()
    if len(values) < 2:
        return None
    return float(np.mean(values)), *interval(values)


def table(plan: Plan, results: Mapping[Run, Mapping[str, Any]], task: str) -> list[str]:
    """Lines of the task's table, in Markdown; the best of each column in bold."""
    shown = {row: found for row in plan.rows if (found := _row_figures(results, task, row))}
    best = {metric: max((found[metric].mean for found in shown.values()), default=0.0) for metric in METRICS}
    lines = [
        f"| model | runs | {' | '.join(METRICS.values())} | saved weights | minutes |",
        f"|---|---:|{'---:|' * (len(METRICS) + 2)}",
    ]
    for row, found in shown.items():
        cells = []
        for metric, figures in found.items():
            mean = f"{figures.mean:.3f}"
            mean = f"**{mean}**" if figures.mean == best[metric] else mean
            reach = "" if figures.low == figures.high else f" ({figures.low:.3f} to {figures.high:.3f})"
            cells.append(mean + reach if metric in ("f1_micro", "f1_macro") else mean)
        own = [result for run, result in results.items() if (run.task, run.row) == (task, row)]
        size = next((f"{result['weights']:,}" for result in own if result.get("weights")), "")
        minutes = np.mean([result.get("training_seconds", 0.0) for result in own]) / 60
        lines.append(f"| {row} | {found['f1_micro'].num_runs} | {' | '.join(cells)} | {size} | {minutes:.1f} |")
    return lines


def _row_figures(results, task: str, row: str) -> dict[str, Figures]:
    found = {metric: figures_of(results, task, row, metric) for metric in METRICS}
    return {metric: figures for metric, figures in found.items() if figures is not None}


def gains_table(plan: Plan, results: Mapping[Run, Mapping[str, Any]], task: str) -> list[str]:
    """Lines of the table of what each row gains over the one that the plan names, with an interval where there are several
    parts or seeds, and of the macro-F1 of codes with so many training notes; none where the plan names no row."""
    base = None if plan.against is None else _row_figures(results, task, plan.against)
    if plan.against is None or not base:
        return []
    bands = {row: bands_of(results, task, row) for row in plan.rows}
    names = list(dict.fromkeys(name for of_row in bands.values() for name in of_row))
    lines = [
        f"Beside {plan.against}; the last columns are the macro-F1 of codes with so many training notes:",
        "",
        f"| model | micro-F1 | macro-F1 | macro-F1, relative |{''.join(f' {name} |' for name in names)}",
        f"|---|---:|---:|---:|{'---:|' * len(names)}",
    ]
    for row in plan.rows:
        found = _row_figures(results, task, row)
        if not found:
            continue
        cells = [_gain(results, task, row, plan.against, found, base, metric) for metric in ("f1_micro", "f1_macro")]
        relative = found["f1_macro"].mean / base["f1_macro"].mean - 1 if base["f1_macro"].mean else float("nan")
        cells += ["" if row == plan.against else f"{relative:+.0%}"]
        cells += [f"{bands[row][name]:.3f}" if name in bands[row] else "" for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return [*lines, ""]


def _gain(results, task: str, row: str, base_row: str, found: dict, base: dict, metric: str) -> str:
    if row == base_row:
        return ""
    apart = difference(results, task, row, base_row, metric)
    reach = "" if apart is None else f" ({apart[1]:+.3f} to {apart[2]:+.3f})"
    return f"{found[metric].mean - base[metric].mean:+.3f}{reach}"


def bands_of(results: Mapping[Run, Mapping[str, Any]], task: str, row: str) -> dict[str, float]:
    """Macro-F1 of the codes of each band of training notes, the mean over a row's runs; none of a yardstick."""
    found: dict[str, list[float]] = {}
    for run, result in results.items():
        if (run.task, run.row) == (task, row):
            for band in result.get("strata", {}).get("frequency", ()):
                found.setdefault(band["stratum"], []).append(band["f1_macro"])
    return {name: float(np.mean(values)) for name, values in found.items()}


def published_table(plan: Plan, task: str) -> list[str]:
    """Lines of the table of what others published for a task; none where the plan has none."""
    others = plan.published.get(task, {})
    if not others:
        return []
    metrics = [
        name
        for name in (*METRICS, "auc_macro", "precision_at_8", "precision_at_15")
        if any(name in row for row in others.values())
    ]
    titles = [METRICS.get(name, name) for name in metrics]
    lines = [
        "Published, not measured here:",
        "",
        f"| model | {' | '.join(titles)} | read in |",
        f"|---|{'---:|' * len(metrics)}---|",
    ]
    for name, found in others.items():
        lines.append(
            f"| {name} | {' | '.join(str(found.get(metric, '')) for metric in metrics)} | {found['read_in']} |"
        )
    return [*lines, ""]


def sentences(plan: Plan, results: Mapping[Run, Mapping[str, Any]], task: str) -> list[str]:
    """What the figures of a task say: the best row, how far it is above the next, and which rows do not reach a yardstick."""
    means = {row: found.mean for row in plan.rows if (found := figures_of(results, task, row, "f1_micro"))}
    if len(means) < 2:
        return []
    first, second = sorted(means, key=lambda row: -means[row])[:2]
    said = [f"{first} has the highest micro-F1, {means[first]:.3f}; next is {second} with {means[second]:.3f}."]
    if not are_alike(plan, results, task, first, second):
        said.append("They were not run on the same parts and seeds, so the order may change.")
    apart = difference(results, task, first, second)
    if apart is not None:
        kept = "does not hold 0" if apart[1] > 0 or apart[2] < 0 else "holds 0"
        said.append(
            f"Their difference, {apart[0]:+.3f}, has the interval {apart[1]:+.3f} to {apart[2]:+.3f}, which {kept}."
        )
    said += _beside_frequencies(plan, results, task)
    return said


def are_alike(plan: Plan, results: Mapping[Run, Mapping[str, Any]], task: str, first: str, second: str) -> bool:
    """Whether two rows have runs on the same parts, and, unless one has a run for all seeds, with the same seeds."""
    of_row = [
        {(run.part, run.seed) for run in results if (run.task, run.row) == (task, row)} for row in (first, second)
    ]
    if not all(plan.rows[row].has_seeds for row in (first, second)):
        of_row = [{(part, 0) for part, _ in runs} for runs in of_row]
    return of_row[0] == of_row[1]


def _beside_frequencies(plan: Plan, results: Mapping[Run, Mapping[str, Any]], task: str) -> list[str]:
    table_row = next((row for row in plan.rows if plan.rows[row].yardstick == "frequencies"), None)
    lowest = None if table_row is None else figures_of(results, task, table_row, "map")
    if lowest is None:
        return []
    others = {
        row: found.mean for row in plan.rows if row != table_row and (found := figures_of(results, task, row, "map"))
    }
    below = [row for row, mean in others.items() if mean < lowest.mean]
    if below:
        return [f"Below the MAP of the table of frequencies, {lowest.mean:.3f}: {', '.join(below)}."]
    last = min(others, key=lambda row: others[row], default=None)
    if last is None:
        return []
    return [
        f"All are above the MAP of the table of frequencies, {lowest.mean:.3f}; nearest to it is {last}, {others[last]:.3f}."
    ]


def plot(plan: Plan, results: Mapping[Run, Mapping[str, Any]], path: Path) -> None:
    """Micro-F1 of the rows with their intervals, a panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = [task for task in plan.tasks if any(run.task == task for run in results)]
    rows = list(plan.rows)
    figure, panels = pyplot.subplots(
        1, len(tasks), figsize=(3 + 3.2 * len(tasks), 1 + 0.3 * len(rows)), sharey=True, squeeze=False
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        for place, row in enumerate(rows):
            found = figures_of(results, task, row, "f1_micro")
            if found is not None:
                panel.plot([found.low, found.high], [place, place], color="#888888")
                panel.plot(found.mean, place, "o", color="#d55e00" if plan.rows[row].yardstick else "#0072b2")
        panel.set_title(task)
        panel.set_xlabel("micro-F1")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(rows)), rows)
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def report(plan: Plan, results: Mapping[Run, Mapping[str, Any]], num_planned: int) -> str:
    """The whole report, in Markdown."""
    lines = [f"# {plan.title}", "", plan.asks, ""]
    lines += [
        f"{len(results)} of {num_planned} runs. Intervals are 95 %: over folds where a task has several, else over seeds; of a "
        "single run over its test notes. Every threshold is chosen on validation notes.",
        "",
    ]
    for task, about in plan.tasks.items():
        if any(run.task == task for run in results):
            lines += [f"## {task}: {about.dataset}, {', '.join(about.parts)}", "", *table(plan, results, task), ""]
            lines += [" ".join(sentences(plan, results, task)), ""]
            lines += [*gains_table(plan, results, task), *published_table(plan, task)]
    return "\n".join(lines)


def as_json(results: Mapping[Run, Mapping[str, Any]]) -> str:
    """The metrics of every run."""
    rows = [
        {**run._asdict(), "metrics": found["metrics"], "seconds": found.get("training_seconds")}
        for run, found in results.items()
    ]
    return json.dumps(rows, indent=2)
