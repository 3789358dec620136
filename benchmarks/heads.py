"""Label attention over the full code set: memory and speed of the explicit way, of chunks of codes, and of this project's.

    python -m benchmarks.heads                     # memory and speed; about 5 minutes
    python -m benchmarks.heads speed --codes 1000 --length 400

`explicit` holds the scores of every code for every word, `(B, C, L)`, as most code of published systems does; `chunks` takes
1,024 codes at a time, and computes them again in the backward pass; `ours` is what the heads of this project do where no
attention weights are asked for; `ours, 16 codes` also gives those of 16 codes of each note, as a pipeline needs them. Random
states of 300 features stand for what the filters of MultiResCNN make of a note.

Memory: the peak of a process of its own that does one forward and backward pass, on one thread, and what it adds to a process
that has the same states and weights and does nothing. Speed: processor time on one thread, the ways in turns in one process,
the median of the rounds; notes a second, beside `explicit`. Each is also given for half as long notes, to show how it grows.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch.utils.checkpoint import checkpoint

from benchmarks.memory import peak as peak_bytes
from dataset_scripts.files import write_text
from modeling_icd.attention_icd import LabelOutput, LabelQueries


FEATURES, CODES_OF_A_CHUNK, CODES_OF_A_NOTE = 300, 1024, 16
ROOT = Path(__file__).resolve().parents[1]


class Attention(torch.nn.Module):
    """Queries and outputs of so many codes."""

    def __init__(self, num_codes: int):
        super().__init__()
        self.queries = LabelQueries(FEATURES, num_codes)
        self.output = LabelOutput(FEATURES, num_codes)


def explicit(head: Attention, states: torch.Tensor, mask: torch.Tensor, codes: slice = slice(None)) -> torch.Tensor:
    """Logits `(B, C)` of states `(B, L, F)`, by scores of every code for every word."""
    scores = head.queries.weight[codes] @ states.mT  # (B, C, L)
    attentions = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min).softmax(dim=-1)
    summaries = attentions @ states
    return (summaries * head.output.weight[codes]).sum(dim=-1) + head.output.bias[codes]


def chunks(head: Attention, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    parts = []
    for start in range(0, len(head.queries.weight), CODES_OF_A_CHUNK):
        codes = slice(start, start + CODES_OF_A_CHUNK)
        if torch.is_grad_enabled():
            parts.append(checkpoint(explicit, head, states, mask, codes, use_reentrant=False))
        else:
            parts.append(explicit(head, states, mask, codes))
    return torch.cat(parts, dim=1)


def ours(head: Attention, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return head.output(head.queries(states, mask, need_attentions=False)[0])


def ours_with_attention(head: Attention, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    asked = torch.arange(len(states) * CODES_OF_A_NOTE).view(len(states), -1) % len(head.queries.weight)
    summaries, _ = head.queries(states, mask, need_attentions=asked)
    return head.output(summaries)


Way = Callable[[Attention, torch.Tensor, torch.Tensor], torch.Tensor]
WAYS: dict[str, Way] = {"explicit": explicit, "chunks": chunks, "ours": ours, "ours_16_codes": ours_with_attention}


def make(batch: int, num_codes: int, length: int) -> tuple[Attention, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    states = torch.tanh(torch.randn(batch, length, FEATURES)).requires_grad_()
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length - length // 20 :] = 0
    return Attention(num_codes), states, mask


def step(way: str, head: Attention, states: torch.Tensor, mask: torch.Tensor) -> None:
    """One forward and backward pass."""
    states.grad = None
    head.zero_grad()
    WAYS[way](head, states, mask).square().mean().backward()


def gradients_of(way: str, head: Attention, states: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    """Of the states and of the weights, after one step."""
    step(way, head, states, mask)
    return [given.grad for given in (states, *head.parameters()) if given.grad is not None]


def peak(way: str, batch: int, num_codes: int, length: int) -> float:
    """Bytes at the peak of this process with one forward and backward pass, or none where the way is `nothing`."""
    torch.set_num_threads(1)
    head, states, mask = make(batch, num_codes, length)
    if way != "nothing":
        step(way, head, states, mask)
    return peak_bytes()


def peak_apart(way: str, batch: int, num_codes: int, length: int) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.heads", "--only", way]
    command += ["--batch_size", str(batch), "--codes", str(num_codes), "--length", str(length)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"The way {way} failed: {run.stderr.strip().splitlines()[-1]}")
    return float(run.stdout)


def seconds_of(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of the processor of each way, which take turns; a first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            started = time.process_time()
            run()
            seconds[way].append(time.process_time() - started)
    return {way: statistics.median(times[1:]) for way, times in seconds.items()}


def measure_memory(batch: int, num_codes: int, length: int) -> dict[str, float]:
    figures = {}
    for suffix, words in {"": length, "_half": length // 2}.items():
        nothing = peak_apart("nothing", batch, num_codes, words)
        for way in WAYS:
            whole = peak_apart(way, batch, num_codes, words)
            figures[f"peak_{way}{suffix}"] = whole
            figures[f"added_{way}{suffix}"] = whole - nothing
    return figures


def infer(way: str, head: Attention, states: torch.Tensor, mask: torch.Tensor) -> None:
    with torch.inference_mode():
        WAYS[way](head, states, mask)


def measure_speed(num_codes: int, length: int, rounds: int) -> dict[str, float]:
    torch.set_num_threads(1)
    figures = {}
    for suffix, words in {"": length, "_half": length // 2}.items():
        given = make(1, num_codes, words)
        for part, run in {"train": step, "inference": infer}.items():
            for way, spent in seconds_of({way: partial(run, way, *given) for way in WAYS}, rounds).items():
                figures[f"{part}_{way}{suffix}"] = 1 / spent
    return figures


def measure_differences(num_codes: int, length: int) -> dict[str, float]:
    """The largest difference from `explicit` of a logit, and of a gradient relative to the largest one."""
    head, states, mask = make(2, num_codes, length)
    logits = explicit(head, states, mask).detach()
    gradients = [given.clone() for given in gradients_of("explicit", head, states, mask)]
    figures = {}
    for way in WAYS:
        figures[f"logits_{way}"] = (WAYS[way](head, states, mask) - logits).abs().max().item()
        own = gradients_of(way, head, states, mask)
        apart = [(a - b).abs().max() / b.abs().max() for a, b in zip(own, gradients, strict=True)]
        figures[f"gradients_{way}"] = max(apart).item()
    return figures


def measure(
    part: str | None = None, batch: int = 8, codes: int = 8921, length: int | None = None, rounds: int = 5
) -> dict[str, float]:
    """Peak memory in bytes of a batch (2,500 words a note, unless `length` is given), and notes a second (1,300 words)."""
    figures: dict[str, float] = {}
    if part in (None, "memory"):
        figures |= measure_memory(batch, codes, length or 2500)
    if part in (None, "speed"):
        figures |= measure_speed(codes, length or 1300, rounds)
        figures |= measure_differences(codes, min(length or 1300, 400))
    return figures


def show(figures: dict[str, float]) -> None:
    console = Console(width=110)
    if "peak_ours" in figures:
        table = Table(title="Peak memory of one forward and backward pass, MB", box=SIMPLE_HEAD)
        columns = ("way", "process", "explicit / it", "added", "explicit / it", "added, half the words")
        for column in columns:
            table.add_column(column, justify="left" if column == "way" else "right")
        for way in WAYS:
            whole, added = figures[f"peak_{way}"], figures[f"added_{way}"]
            table.add_row(
                way,
                f"{whole / 1e6:,.0f}",
                f"{figures['peak_explicit'] / whole:.1f}",
                f"{added / 1e6:,.0f}",
                f"{figures['added_explicit'] / max(added, 1):.1f}",
                f"{figures[f'added_{way}_half'] / 1e6:,.0f}",
            )
        console.print(table)
    if "train_ours" in figures:
        table = Table(title="Notes a second on one thread, by processor time", box=SIMPLE_HEAD)
        of_part = ("/ explicit", "half the words")
        for column in ("way", "train", *of_part, "inference", *of_part, "logits apart", "gradients apart"):
            table.add_column(column, justify="left" if column == "way" else "right")
        for way in WAYS:
            row = [way]
            for part in ("train", "inference"):
                speed = figures[f"{part}_{way}"]
                row += [f"{speed:.2f}", f"{speed / figures[f'{part}_explicit']:.2f}"]
                row += [f"{figures[f'{part}_{way}_half']:.2f}"]
            table.add_row(*row, f"{figures[f'logits_{way}']:.0e}", f"{figures[f'gradients_{way}']:.0e}")
        console.print(table)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("memory", "speed"), help="default: both")
    parser.add_argument("--batch_size", type=int, default=8, help="notes of the part `memory`; speed is that of one")
    parser.add_argument("--codes", type=int, default=8921)
    parser.add_argument("--length", type=int, help="words of a note; default: 2,500 for memory, 1,300 for speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--only", choices=("nothing", *WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        print(peak(args.only, args.batch_size, args.codes, args.length or 2500))
        return 0
    figures = measure(args.part, args.batch_size, args.codes, args.length, args.rounds)
    show(figures)
    if args.output is not None:
        write_text(json.dumps(figures, indent=2), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
