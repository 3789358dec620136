"""Does the runs of an experiment, one after the other, and reads what those found that are done."""

import json
import time
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks.runs import score_ensemble, train_and_score
from benchmarks.tfidf import evaluate_frequencies, evaluate_terms, evaluate_tfidf
from dataset_scripts import ICDBuilder, load_builder, parse_options
from dataset_scripts.files import make_folder, write_text
from dataset_scripts.synthetic import write_corpus

from .plans import Plan, Row, Run, Task


def pairs_of(option: str, pairs: list[str]) -> dict[str, str]:
    """The values by name, of NAME=VALUE.

    Raises:
        ValueError: where one has no `=`.
    """
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"`{option}` must be NAME=VALUE, got {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs)


def data_dir_of(task: Task, name: str, given: dict[str, str], output_dir: Path) -> str:
    """The folder of a task's data; an invented corpus is written where it is not there.

    Raises:
        ValueError: where the folder of a data set was not given.
    """
    if not task.synthetic:
        if task.dataset not in given:
            raise ValueError(f"The task {name} needs the data set {task.dataset}: give --data {task.dataset}=DIR.")
        return given[task.dataset]
    folder = output_dir / f"corpus-{name}"
    if not (folder / "done").exists():
        write_corpus(folder, **task.synthetic)
        (folder / "done").touch()
    return str(folder)


def builder_of(task: Task, part: str, data_dir: str, cache_dir: Path) -> ICDBuilder:
    """The data of a part of a task."""
    options = parse_options(task.dataset, task.options.get("dataset_options", ()), "dataset_options")
    return load_builder(task.dataset, part, data_dir=data_dir, cache_dir=str(cache_dir), **options)


def do(run: Run, plan: Plan, data_dir: str, output_dir: Path, num_processes: int) -> dict[str, Any]:
    """Train and score one run, unless that is done."""
    task, row = plan.tasks[run.task], plan.rows[run.row]
    folder = output_dir / run.name
    if row.has_seeds:
        options = {"dataset": task.dataset, "disable_tqdm": True, **plan.options_of(run)}
        return train_and_score(
            row.configs[run.task], folder, data_dir, run.part, run.seed, num_processes=num_processes, **options
        )
    file = folder / "results.json"
    if not file.exists():
        started = time.perf_counter()
        if row.mean_of is None:
            metrics = yardstick_metrics(row, task, run.part, data_dir, output_dir / "cache")
        else:
            metrics = mean_metrics(run, plan, data_dir, output_dir)
        make_folder(folder)
        write_text(json.dumps({"metrics": metrics, "training_seconds": time.perf_counter() - started}), file)
    return json.loads(file.read_text())


def yardstick_metrics(row: Row, task: Task, part: str, data_dir: str, cache_dir: Path) -> dict[str, float]:
    """Fit and score a row that is no model of ours."""
    builder = builder_of(task, part, data_dir, cache_dir)
    if row.yardstick == "frequencies":
        return evaluate_frequencies(builder)
    kind = str(row.yardstick)
    if kind.startswith("terms"):
        return evaluate_terms(builder, use_notes=kind == "terms_weighed")
    return evaluate_tfidf(builder, tune_threshold=not kind.endswith("refitted"), strong="strong" in kind)


def mean_metrics(run: Run, plan: Plan, data_dir: str, output_dir: Path) -> dict[str, float]:
    """Score the mean of the logits of a row's seeds.

    Raises:
        ValueError: where one of them is not done.
    """
    members = {member: output_dir / member.name for member in plan.members(run)}
    missing = [member.name for member, folder in members.items() if not (folder / "results.json").exists()]
    if missing:
        raise ValueError(
            f"{run.name} averages {missing[0]}, which is not done: name its row, too, or leave --rows out."
        )
    options = {"dataset": plan.tasks[run.task].dataset, **plan.options_of(run)}
    return score_ensemble(list(members.values()), plan.rows[run.row].configs[run.task], data_dir, **options)


def finished(plan: Plan, runs: list[Run], output_dir: Path) -> dict[Run, dict[str, Any]]:
    """What the runs that are done found."""
    folders = {run: output_dir / run.name for run in runs if (output_dir / run.name / "results.json").exists()}
    return {
        run: {**json.loads((folder / "results.json").read_text()), "weights": num_weights(folder)}
        for run, folder in folders.items()
    }


def num_weights(folder: Path) -> int:
    """How many weights a folder holds: of a frozen backbone, none."""
    number = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            number += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dictionary
    return number


def run_all(
    plan: Plan, runs: list[Run], data: dict[str, str], output_dir: Path, minutes: float | None, num_processes: int
) -> None:
    """Do the runs one after the other, and say each one's figures."""
    places = {
        name: data_dir_of(plan.tasks[name], name, data, output_dir) for name in dict.fromkeys(run.task for run in runs)
    }
    started = time.monotonic()
    for number, run in enumerate(runs, 1):
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            print(f"{number - 1} of {len(runs)} runs after {minutes:g} minutes: the same command goes on.", flush=True)
            return
        found = do(run, plan, places[run.task], output_dir, num_processes)["metrics"]
        at = time.strftime("%H:%M:%S")
        print(
            f"{at} {number}/{len(runs)} {run.name}: f1_micro {found['f1_micro']:.3f}, map {found['map']:.3f}",
            flush=True,
        )
