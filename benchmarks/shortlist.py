"""Two-stage scoring of label attention: what a shortlist of codes loses, on a trained coder, and how much faster it is.

    python -m benchmarks.shortlist --data_dir CODIESP          # both parts
    python -m benchmarks.shortlist speed                       # needs no data

Loss: the coder `codiesp-en` that comes with the package (1,767 codes), on the validation notes of CodiEsp, on 150 notes of its
background set, and on its test fold, where no choice is made: the share of notes none of whose 15 best codes is missing from
the shortlist, and micro F1 with all codes and with the shortlist, by the coder's own threshold. The coder has learned from the
validation notes, too, at the end of its training; from the others it has not. Lists of several sizes.

Speed: a label attention head of 8,921 codes and a MultiResCNN of as many, without training, since weights change no time; states
of 1,300 words; processor time of one thread, with all codes and with a shortlist of a thirty-second, in turns in one process; the
median of the rounds. The estimates are made in bfloat16: on a processor without its operations the shortlist may be slower.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.heads import seconds_of
from benchmarks.multirescnn import Original, Ours
from dataset_scripts.files import write_text
from modeling_icd.attention_icd import AttendingHead, LabelAttentionHead
from modeling_icd.coders import find_coder
from modeling_icd.evaluation.model_data import builder_for
from modeling_icd.evaluation.shortlist import TOP, f1_micro
from modeling_icd.inference.linear import fast_linear_layers
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.tokens import tokenize_notes


CODER, NUM_CODES, LENGTH = "codiesp-en", 8921, 1300
SPLITS = ("validation", "background", "test")


@torch.no_grad()
def head_states(model, notes: list[list[int]]) -> list[torch.Tensor]:
    """Hidden states `(1, L, D)` of each note."""
    with fast_linear_layers(model.device):
        rows = [torch.tensor([ids]) for ids in notes]
        return [model.read_hidden_states(row, torch.ones_like(row)) for row in rows]


@torch.no_grad()
def logits_of(head: AttendingHead, states: list[torch.Tensor], size: int | None) -> torch.Tensor:
    masks = [torch.ones(note.shape[:2], dtype=torch.long) for note in states]
    rows = [
        head(note, mask, need_attentions=False, shortlist=size)[0] for note, mask in zip(states, masks, strict=True)
    ]
    return torch.cat(rows)


def measure_loss(data_dir: str, sizes: list[int], most_notes: int, cache_dir: str | None = None) -> dict[str, float]:
    """What lists of several sizes lose, on each split."""
    model, tokenizer = load_model(find_coder(CODER))
    model.eval()
    figures: dict[str, float] = {}
    for split in SPLITS:
        builder = builder_for(model.config, "codiesp", data_dir, split, None, (), cache_dir)
        records = builder.as_dataset(split=split)
        records = records.select(range(min(len(records), most_notes)))
        names = records.features["codes"].feature.names
        known = model.config.label2id
        gold = [[known[names[code]] for code in codes if names[code] in known] for codes in records["codes"]]
        states = head_states(model, tokenize_notes(tokenizer, list(records["text"])))
        exact = logits_of(model.score, states, None)
        figures[f"{split}_notes"] = len(states)
        if split != "background":  # which has no codes
            figures[f"{split}_f1_micro"] = f1_micro(exact, gold, model.config)
        for size in sizes:
            short = logits_of(model.score, states, size)
            listed = torch.zeros_like(short, dtype=torch.bool).scatter(1, short.topk(size).indices, True)
            kept = listed.gather(1, exact.topk(TOP).indices).all(dim=1)
            figures[f"{split}_kept_{size}"] = kept.float().mean().item()
            if split != "background":
                figures[f"{split}_f1_micro_{size}"] = f1_micro(short, gold, model.config)
    return figures


def measure_speed(num_codes: int, length: int, rounds: int) -> dict[str, float]:
    """Milliseconds a note of each head, with all codes and with a shortlist, and how many times as fast the second is."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads: dict[str, tuple[AttendingHead, int]] = {
        "label_attention": (LabelAttentionHead(576, num_codes, 256), 576),
        "multirescnn": (Ours(Original(num_codes)).head, 100),
    }
    figures: dict[str, float] = {"size": num_codes // 32}
    for name, (head, width) in heads.items():
        states = [torch.randn(1, length, width)]
        runs = {
            way: partial(logits_of, head.eval(), states, size)
            for way, size in (("all", None), ("short", num_codes // 32))
        }
        with fast_linear_layers(torch.device("cpu")):
            seconds = seconds_of(runs, rounds)
        figures |= {f"{name}_{way}_ms": 1e3 * spent for way, spent in seconds.items()}
        figures[f"{name}_speed_up"] = seconds["all"] / seconds["short"]
    return figures


def measure(
    part: str | None = None,
    data_dir: str | None = None,
    sizes: tuple[int, ...] = (44, 64, 110, 177),
    most_notes: int = 150,
    codes: int = NUM_CODES,
    length: int = LENGTH,
    rounds: int = 5,
    cache_dir: str | None = None,
) -> dict[str, float]:
    figures: dict[str, float] = {}
    if part in (None, "speed"):
        figures |= measure_speed(codes, length, rounds)
    if part in (None, "loss"):
        if data_dir is None:
            raise SystemExit(
                "The part `loss` needs --data_dir: the folder of CodiEsp, as `modeling-icd train` takes it."
            )
        figures |= measure_loss(data_dir, list(sizes), most_notes, cache_dir)
    return figures


def show(figures: dict[str, float], sizes: list[int]) -> None:
    console = Console(width=110)
    if "label_attention_all_ms" in figures:
        for name in ("label_attention", "multirescnn"):
            console.print(
                f"{name}: {figures[f'{name}_all_ms']:.1f} ms a note with all codes, {figures[f'{name}_short_ms']:.1f} ms with a "
                f"shortlist of {figures['size']:.0f}: {figures[f'{name}_speed_up']:.1f} times as fast, on one thread."
            )
    if "validation_notes" in figures:
        table = Table(title=f"{CODER}: what a shortlist loses", box=SIMPLE_HEAD)
        for column in ("size", *(f"{split}: {TOP} best kept" for split in SPLITS), "validation F1", "test F1"):
            table.add_column(column, justify="right")
        for size in sizes:
            kept = [f"{figures[f'{split}_kept_{size}']:.1%}" for split in SPLITS]
            table.add_row(
                str(size), *kept, *(f"{figures[f'{s}_f1_micro_{size}']:.4f}" for s in ("validation", "test"))
            )
        table.add_row("all", "", "", "", *(f"{figures[f'{split}_f1_micro']:.4f}" for split in ("validation", "test")))
        console.print(table)
        console.print(", ".join(f"{figures[f'{split}_notes']:.0f} notes of {split}" for split in SPLITS))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("loss", "speed"), help="default: both")
    parser.add_argument("--data_dir", help="the folder of CodiEsp")
    parser.add_argument("--cache_dir", help="where its built tables are kept")
    parser.add_argument("--sizes", type=int, nargs="+", default=[44, 64, 110, 177])
    parser.add_argument("--notes", type=int, default=150, help="of each split, at most")
    parser.add_argument("--codes", type=int, default=NUM_CODES, help="of the part `speed`")
    parser.add_argument("--length", type=int, default=LENGTH, help="words of its note")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(argv)
    figures = measure(
        args.part, args.data_dir, tuple(args.sizes), args.notes, args.codes, args.length, args.rounds, args.cache_dir
    )
    show(figures, args.sizes)
    if args.output is not None:
        write_text(json.dumps(figures, indent=2), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
