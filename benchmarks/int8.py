"""The backbone in dynamic int8 on a CPU: tokens a second, and micro F1 beside fp32.

    python -m benchmarks.int8 --data_dir CODIESP

The coder `codiesp-en` that comes with the package reads notes of CodiEsp's test fold with its backbone, the first layers of
SmolLM2-135M, in four ways: fp32 by torch's own choice (MKL), fp32 by oneDNN, as `predict` and `evaluate` have it where that is
faster, bfloat16, and with its linear layers in dynamic int8 (`torch.ao.quantization.quantize_dynamic`: weights to 8 bits by
tensor, activations as they come). The head stays as it is, and so does the threshold; nothing is chosen on these notes. Tokens
a second are by processor time on one thread, over the first notes, the ways in turns in one process, the median of the rounds.
"""

import argparse
import copy
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.heads import seconds_of
from benchmarks.shortlist import CODER
from dataset_scripts.files import write_text
from modeling_icd.coders import find_coder
from modeling_icd.evaluation.model_data import builder_for
from modeling_icd.evaluation.shortlist import f1_micro
from modeling_icd.inference.linear import fast_linear_layers
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.tokens import tokenize_notes


WAYS = ("fp32", "fp32_onednn", "bf16", "int8")


def make_ways(model) -> dict[str, nn.Module]:
    """The model in each way."""
    narrow, small = copy.deepcopy(model), copy.deepcopy(model)
    narrow.model.bfloat16()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated")
        warnings.filterwarnings("ignore", "torch.quantize_per")
        torch.ao.quantization.quantize_dynamic(small.model, {nn.Linear}, dtype=torch.qint8, inplace=True)
    return {"fp32": model, "fp32_onednn": model, "bf16": narrow, "int8": small}


@torch.inference_mode()
def logits_of(model, way: str, notes: list[list[int]]) -> torch.Tensor:
    """Logits `(N, C)` of notes, one by one."""
    with fast_linear_layers(model.device) if way == "fp32_onednn" else nullcontext():
        rows = []
        for ids in notes:
            row = torch.tensor([ids])
            states = model.read_hidden_states(row, torch.ones_like(row)).float()
            rows.append(model(hidden_states=states).logits)
    return torch.cat(rows)


def measure(
    data_dir: str, num_timed: int = 8, rounds: int = 3, most_notes: int = 1000, cache_dir: str | None = None
) -> dict[str, float]:
    torch.set_num_threads(1)
    model, tokenizer = load_model(find_coder(CODER))
    builder = builder_for(model.config, "codiesp", data_dir, "test", None, (), cache_dir)
    records = builder.as_dataset(split="test")
    records = records.select(range(min(len(records), most_notes)))
    notes = tokenize_notes(tokenizer, list(records["text"]))
    names, known = records.features["codes"].feature.names, model.config.label2id
    gold = [[known[names[code]] for code in codes if names[code] in known] for codes in records["codes"]]
    ways = make_ways(model.eval())
    timed = notes[:num_timed]
    runs: dict[str, Callable[[], object]] = {way: partial(logits_of, ways[way], way, timed) for way in WAYS}
    seconds = seconds_of(runs, rounds)
    figures: dict[str, float] = {"notes": len(notes)}
    exact = logits_of(ways["fp32_onednn"], "fp32_onednn", notes)
    for way in WAYS:
        logits = exact if way.startswith("fp32") else logits_of(ways[way], way, notes)
        figures[f"{way}_tokens_per_second"] = sum(map(len, timed)) / seconds[way]
        figures[f"{way}_f1_micro"] = f1_micro(logits, gold, model.config)
        figures[f"{way}_difference"] = (logits - exact).abs().mean().item()
    return figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="the folder of CodiEsp")
    parser.add_argument("--cache_dir", help="where its built tables are kept")
    parser.add_argument("--timed", type=int, default=8, help="notes whose time is taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--notes", type=int, default=1000, help="of the test fold, at most")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(argv)
    figures = measure(args.data_dir, args.timed, args.rounds, args.notes, args.cache_dir)
    table = Table(title=f"{CODER} on {figures['notes']:.0f} notes, one thread", box=SIMPLE_HEAD)
    for column in ("way", "tokens/s", "/ fp32", "micro F1", "mean difference of a logit"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in WAYS:
        speed = figures[f"{way}_tokens_per_second"]
        ratio = speed / figures["fp32_tokens_per_second"]
        table.add_row(
            way,
            f"{speed:,.0f}",
            f"{ratio:.2f}",
            f"{figures[f'{way}_f1_micro']:.4f}",
            f"{figures[f'{way}_difference']:.3f}",
        )
    Console(width=110).print(table)
    if args.output is not None:
        write_text(json.dumps(figures, indent=2), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
