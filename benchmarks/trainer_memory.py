"""Memory that evaluation inside `Trainer` holds for each score, with `batch_eval_metrics` and `make_compute_metrics`.

    python -m benchmarks.trainer_memory            # MIMIC-III's test split in size: 3,372 notes, 8,921 codes

A model that costs nothing scores so many notes and then twice as many, each in a process of its own; the difference, divided
by the scores between them, is what one more score costs: `held` until the metrics are computed, and at the `peak`, when that
takes some memory for each gold code, too. `nothing` computes no metrics: what the Trainer itself
and the allocator take. `all at once` is what a Trainer does without `batch_eval_metrics`: logits and labels of every note, 4
bytes each, and what the metrics need on top.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from typing import Any

import psutil
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.memory import peak
from modeling_icd.evaluation import make_compute_metrics
from modeling_icd.evaluation.icd_metrics.accumulator import SCORE_STORAGES
from modeling_icd.modeling_icd import ICDCodingOutput


WAYS = ("nothing", "uint16", "all at once")


class Notes(torch.utils.data.Dataset):
    """Notes that are their own number."""

    def __init__(self, num_notes: int):
        self.num_notes = num_notes

    def __len__(self) -> int:
        return self.num_notes

    def __getitem__(self, note: int) -> dict[str, int]:
        return {"note": note}


class RandomLogits(nn.Module):
    """Logits that rare codes have, about 16 of them above 0."""

    def __init__(self, num_labels: int):
        super().__init__()
        self.offset = nn.Parameter(torch.full((num_labels,), -3.0))

    def forward(self, note, labels):
        return ICDCodingOutput(loss=note.float().mean(), logits=self.offset + torch.randn(labels.shape))


def collate(notes: list[dict[str, int]], num_labels: int) -> dict[str, torch.Tensor]:
    labels = torch.rand(len(notes), num_labels) < 16 / num_labels
    return {"note": torch.tensor([note["note"] for note in notes]), "labels": labels.float()}


def measure(way: str, num_notes: int, num_labels: int) -> tuple[float, float]:
    """Memory of this process in bytes before the metrics of so many notes are computed, and its peak."""
    torch.manual_seed(0)
    is_batched = way != "all at once"
    storage = way if way in SCORE_STORAGES else "float32"
    compute_metrics: Any = make_compute_metrics(num_labels, tune_threshold=True, score_storage=storage)
    held = 0

    def watch(prediction, compute_result=True):
        nonlocal held
        held = psutil.Process().memory_info().rss
        return {} if way == "nothing" else compute_metrics(prediction, compute_result)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_eval_batch_size=8,
            batch_eval_metrics=is_batched,
            remove_unused_columns=False,
            label_names=["labels"],
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(
            RandomLogits(num_labels),
            arguments,
            data_collator=lambda notes: collate(notes, num_labels),
            eval_dataset=Notes(num_notes),
            compute_metrics=watch,
        ).evaluate()
    return held, peak()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=3372)
    parser.add_argument("--codes", type=int, default=8921)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.notes, args.codes)))
        return
    print(f"{args.codes:,} codes, {args.notes:,} notes and {2 * args.notes:,}.\n")
    print("| kept between batches | peak, GB | peak, twice the notes | bytes a score, held | at the peak |")
    print("|---|---:|---:|---:|---:|")
    for way in WAYS:
        once, twice = (measure_apart(way, num_notes, args.codes) for num_notes in (args.notes, 2 * args.notes))
        held, peak = ((more - less) / (args.notes * args.codes) for less, more in zip(once, twice, strict=True))
        print(f"| {way} | {once[1] / 2**30:.2f} | {twice[1] / 2**30:.2f} | {held:.2f} | {peak:.2f} |")


def measure_apart(way: str, num_notes: int, num_labels: int) -> tuple[float, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.trainer_memory", "--only", way]
    command += ["--notes", str(num_notes), "--codes", str(num_labels)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    held, peak = json.loads(run.stdout.splitlines()[-1])
    return held, peak


if __name__ == "__main__":
    main()
