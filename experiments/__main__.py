"""Runs an experiment: every model on every task, and a table with intervals, a plot and what was found.

    python -m experiments paper_table --data cmc2007=DIR codiesp=DIR --output_dir runs/paper_table
    python -m experiments paper_table --dry_run                      # which runs there are, and which are done
    python -m experiments paper_table --minutes 40 --data ...        # starts no run after 40 minutes

Experiments are the files `experiments/*.yaml`. What is done is not done again, so an interrupted experiment goes on where it
was; options that are changed since do not count for runs that are done. Each run's folder holds its model and results.json.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.runs import settings_of
from dataset_scripts.command import run_command
from dataset_scripts.files import make_folder, write_text

from .estimates import MACHINES, estimate
from .plans import Plan, Run, names, read_plan
from .report import as_json, plot, report
from .running import finished, pairs_of, run_all


PAPER = "paper_mimic3"
# Codes, training notes and tokens of a note: CAML's splits; the tokens by Llama-2's tokenizer are assumed.
MIMIC3_SIZES = {"full": (8921, 47_719, 2500), "top50": (50, 8066, 2500)}


def show_plan(
    plan: Plan, runs: list[Run], done: dict[Run, dict[str, Any]], sizes: dict[str, tuple[int, int, int]]
) -> None:
    """Print which runs there are, how long those took that are done, and where `sizes` are known what the others will take.

    Args:
        sizes (`dict[str, tuple]`): by a task's part, its codes, training notes and tokens of a note.
    """
    estimates: dict[tuple[str, str, str], str] = {}
    for run in runs:
        state = f"{done[run]['training_seconds'] / 60:.1f} min" if run in done else "to do"
        row = plan.rows[run.row]
        config = row.configs.get(run.task)
        line = f"{state:>10}  {run.name}  ({row.yardstick or config})"
        if config is not None and row.has_seeds and run not in done and run.part in sizes:
            options = plan.options_of(run)
            key = (config, str(options), run.part)
            if key not in estimates:
                estimates[key] = say_estimate(config, options, sizes[run.part])
            line += f": {estimates[key]}"
        print(line, flush=True)
    print(f"{len(done)} of {len(runs)} runs are done.")
    if sizes:
        print(
            "Estimates count operations: memory is that of weights, gradients and AdamW; 40 % of an A100's rate is more than small "
            "layers and recurrent networks reach; training may stop early."
        )


def say_estimate(config: str, options: dict[str, Any], sizes: tuple[int, int, int]) -> str:
    """One line of what a run takes."""
    found = estimate(config, options, *sizes)
    epochs = float(settings_of(config, options).get("num_train_epochs", 3))
    hours = ", ".join(f"{found.hours(machine, epochs):,.1f} h on {machine}" for machine in MACHINES)
    return f"{found.learned:,} of {found.weights:,} weights learn, {found.gigabytes:.1f} GB, {epochs:g} epochs {hours}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help=f"one of {', '.join(names())}")
    parser.add_argument("--output_dir", type=Path, help="default: runs/NAME")
    parser.add_argument("--data", nargs="+", default=[], metavar="DATASET=DIR", help="where the data sets are")
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--rows", nargs="+", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    parser.add_argument("--minutes", type=float, help="start no run after so many")
    parser.add_argument(
        "--dry_run", action="store_true", help="say which runs there are, and on MIMIC-III what each takes"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="what the plan leaves open, e.g. llama=DIR"
    )
    parser.add_argument("--processes", type=int, default=1, help="of one training, by torchrun: one for each GPU")
    parser.add_argument("--only_report", action="store_true", help="of the runs that are done")
    args = parser.parse_args(arguments)
    plan, lacking = read_plan(args.name).filled(pairs_of("--set", args.set))
    for row, words in lacking.items():
        print(f"left out: {row}, which needs --set {' '.join(f'{word}=...' for word in words)}", file=sys.stderr)
    if named := [row for row in args.rows if row in lacking]:
        raise ValueError(f"{', '.join(named)}: left out, since --set does not give {lacking[named[0]][0]}.")
    for given, known, what in ((args.tasks, plan.tasks, "task"), (args.rows, plan.rows, "row")):
        wrong = [name for name in given if name not in known]
        if wrong:
            raise ValueError(f"{args.name} has no {what} {', '.join(wrong)}, only {', '.join(known)}.")
    output_dir = args.output_dir or Path("runs") / args.name
    runs = list(plan.runs(args.tasks, args.rows, args.seeds))
    if not runs:
        raise ValueError(
            f"{args.name} has no run with --seeds {' '.join(map(str, args.seeds))} of these tasks and rows."
        )
    if args.dry_run:
        show_plan(plan, runs, finished(plan, runs, output_dir), MIMIC3_SIZES if plan.name == PAPER else {})
        return 0
    make_folder(output_dir, private=True)
    if not args.only_report:
        run_all(plan, runs, pairs_of("--data", args.data), output_dir, args.minutes, args.processes)
    results = finished(plan, list(plan.runs()), output_dir)
    text = report(plan, results, len(list(plan.runs())))
    write_text(text, output_dir / "report.md")
    write_text(as_json(results), output_dir / "summary.json")
    if results:
        plot(plan, results, output_dir / f"{plan.name}.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
