"""What each row of an experiment costs beside what it reaches: processor time, memory and disk, measured on the task's own notes.

    python -m experiments.costs paper_table --task codiesp-en-top50 --output_dir runs/paper_table --data codiesp=DIR

The rows are those that have a trained model in the experiment's folder. Each is measured in a process of its own, with one thread:
reading notes into hidden states that are kept (a frozen backbone alone), a training epoch, and coding as `predict` does it. The
table and the plot mark the rows that no other one beats in micro-F1 at less cost of coding. What is measured is not measured again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.memory import peak, returning_memory
from benchmarks.runs import settings_of
from benchmarks.tfidf import notes_and_labels
from dataset_scripts.command import run_command
from dataset_scripts.files import write_text
from modeling_icd.evaluation.tfidf import tfidf_scores
from modeling_icd.inference.batches import padded_inputs
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.inference.tokens import tokenize_notes

from .plans import Plan, Run, read_plan
from .report import figures_of
from .running import builder_of, data_dir_of, finished, pairs_of


BATCH = 8
# Notes that TF-IDF scores beside those of the task, to see what scoring takes.
TFIDF_NOTES = 2000


def cost_of_model(folder: Path, notes: list[str]) -> dict[str, float]:
    """Processor seconds for 1,000 notes of reading, an epoch and coding; peak memory and what learns, in bytes."""
    model, tokenizer = load_model(folder)
    input_ids = tokenize_notes(tokenizer, notes)
    found = {"reading": 0.0}
    with tempfile.TemporaryDirectory() as scratch:
        store = None
        if model.config.freeze_backbone:
            store, start = HiddenStates(Path(scratch), model), time.process_time()
            store.fill(input_ids)
            found["reading"] = time.process_time() - start
        model.train()
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer, start = torch.optim.AdamW(learned, lr=1e-4), time.process_time()
        for first in range(0, len(input_ids), BATCH):
            batch = input_ids[first : first + BATCH]
            logits = model(**padded_inputs(batch, store, model.config.pad_token_id or 0)).logits
            binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits.float())).backward()
            optimizer.step()
            optimizer.zero_grad()
        found["epoch"] = time.process_time() - start
    model.eval()
    start = time.process_time()
    logits_of_notes(model, tokenizer, notes, batch_size=BATCH)
    found["coding"] = time.process_time() - start
    each = {name: 1000 * seconds / len(notes) for name, seconds in found.items()}
    return {**each, "memory": peak(), "learned": float(sum(w.numel() * w.element_size() for w in learned))}


def cost_of_tfidf(notes: dict[str, list[str]], labels: Mapping[str, Any], strong: bool) -> dict[str, float]:
    """The same of TF-IDF: fitting it is its one epoch."""
    seconds, more = (
        {},
        -(-TFIDF_NOTES // len(notes["test"])),
    )  # fitting takes its time each time: few notes would tell little
    for times in (1, 1 + more):
        start = time.process_time()
        tfidf_scores(notes["train"], labels["train"], notes["test"] * times, strong=strong)
        seconds[times] = time.process_time() - start
    coding = (seconds[1 + more] - seconds[1]) / more / len(notes["test"])
    fitting = (seconds[1] - coding * len(notes["test"])) / len(notes["train"])
    return {"reading": 0.0, "epoch": 1000 * fitting, "coding": 1000 * coding, "memory": peak(), "learned": 0.0}


def measure(run: Run, plan: Plan, data_dir: str, output_dir: Path, num_notes: int) -> dict[str, float]:
    """What a run costs, in this process."""
    torch.set_num_threads(1)
    task, row = plan.tasks[run.task], plan.rows[run.row]
    builder = builder_of(task, run.part, data_dir, output_dir / "cache")
    if row.yardstick is not None:
        return cost_of_tfidf(*notes_and_labels(builder), strong="strong" in row.yardstick)
    return cost_of_model(output_dir / run.name, list(builder.as_dataset(split="test")["text"])[:num_notes])


def apart(run: Run, args: argparse.Namespace) -> dict[str, float]:
    """What a run costs, measured in a process of its own, unless it is."""
    path = args.output_dir / run.name / "costs.json"
    if not path.is_file():
        print(f"{time.strftime('%H:%M:%S')} {run.row}", file=sys.stderr)
        command = [sys.executable, "-m", "experiments.costs", args.name, "--task", args.task, "--only", run.row]
        command += ["--output_dir", str(args.output_dir), "--notes", str(args.notes)]
        command += ["--data", *args.data] if args.data else []
        command += ["--set", *args.set] if args.set else []
        ran = subprocess.run(command, capture_output=True, text=True, env=returning_memory())
        if ran.returncode:
            raise RuntimeError(f"{run.row}: {ran.stderr[-2000:]}")
        write_text(ran.stdout.splitlines()[-1], path)
    return json.loads(path.read_text())


def unbeaten(costs: Mapping[str, float], reached: Mapping[str, float]) -> list[str]:
    """The rows that no other one beats: none costs as little or less and reaches more."""
    order = sorted(costs, key=lambda row: (costs[row], -reached[row]))
    best, kept = float("-inf"), []
    for row in order:
        if reached[row] > best:
            kept.append(row)
            best = reached[row]
    return kept


def epochs_of(plan: Plan, run: Run) -> float:
    """How many epochs a run has at most."""
    row = plan.rows[run.row]
    if row.yardstick is not None:
        return 1.0
    return float(settings_of(row.configs[run.task], plan.options_of(run)).get("num_train_epochs", 3))


def table(found: Mapping[str, dict[str, float]], kept: list[str]) -> list[str]:
    """Lines of the table, in Markdown; rows that no other one beats are bold."""
    lines = [
        "| model | micro-F1 | epochs | training on 1,000 notes, min | coding 1,000 notes, s | peak memory, GB | learned weights, MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row, cost in found.items():
        name = f"**{row}**" if row in kept else row
        training = cost["reading"] + cost["epochs"] * cost["epoch"]
        lines.append(
            f"| {name} | {cost['f1_micro']:.3f} | {cost['epochs']:g} | {training / 60:.1f} | {cost['coding']:.1f} "
            f"| {cost['memory'] / 1e9:.1f} | {cost['learned'] / 1e6:.1f} |"
        )
    return lines


def plot(found: Mapping[str, dict[str, float]], kept: list[str], path: Path) -> None:
    """Micro-F1 over the seconds of coding 1,000 notes, with a line through the rows that no other one beats."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(9, 5.5))
    front = sorted(kept, key=lambda row: found[row]["coding"])
    panel.plot(
        [found[row]["coding"] for row in front], [found[row]["f1_micro"] for row in front], color="#d55e00", zorder=0
    )
    for row, cost in found.items():
        panel.plot(cost["coding"], cost["f1_micro"], "o", color="#d55e00" if row in kept else "#0072b2")
        panel.annotate(row, (cost["coding"], cost["f1_micro"]), fontsize=7, xytext=(4, 3), textcoords="offset points")
    panel.set_xscale("log")
    panel.set_xlabel("processor seconds of coding 1,000 notes, one thread")
    panel.set_ylabel("micro-F1")
    panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the experiment")
    parser.add_argument("--task", required=True)
    parser.add_argument("--output_dir", type=Path, help="default: runs/NAME")
    parser.add_argument("--data", nargs="+", default=[], metavar="DATASET=DIR")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--notes", type=int, default=32, help="that a model reads, learns from and codes")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.output_dir = args.output_dir or Path("runs") / args.name
    plan, _ = read_plan(args.name).filled(pairs_of("--set", args.set))
    if args.task not in plan.tasks:
        raise ValueError(f"{args.name} has no task {args.task}, only {', '.join(plan.tasks)}.")
    task = plan.tasks[args.task]
    results = finished(plan, list(plan.runs([args.task])), args.output_dir)
    rows = {
        run.row: run
        for run in reversed(list(results))
        if plan.rows[run.row].mean_of is None
        and (plan.rows[run.row].yardstick or "tfidf").startswith("tfidf")  # the others cost next to nothing
    }
    if not rows:
        raise ValueError(
            f"{args.output_dir} has no finished run of {args.task}: `python -m experiments {args.name}` first."
        )
    if args.only:
        data_dir = data_dir_of(task, args.task, pairs_of("--data", args.data), args.output_dir)
        print(json.dumps(measure(rows[args.only], plan, data_dir, args.output_dir, args.notes)))
        return 0
    found = {}
    for row in (row for row in plan.rows if row in rows):
        reached = figures_of(results, args.task, row, "f1_micro")
        cost = {"f1_micro": reached.mean if reached else 0.0, "epochs": epochs_of(plan, rows[row])}
        found[row] = {**cost, **apart(rows[row], args)}
    kept = unbeaten(
        {row: cost["coding"] for row, cost in found.items()}, {row: cost["f1_micro"] for row, cost in found.items()}
    )
    lines = table(found, kept)
    write_text("\n".join(lines), args.output_dir / f"costs-{args.task}.md")
    plot(found, kept, args.output_dir / f"costs-{args.task}.png")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
