"""MultiResCNN of this project beside the original's way (arXiv 1912.00862), over words: notes a second, on one thread.

    python -m benchmarks.multirescnn                       # 50 and 8,921 codes, training and inference; about 15 minutes
    python -m benchmarks.multirescnn --codes 50 --rounds 5

The other side, `Original`, is written from the paper's equations and agrees with the outputs of its authors' code: embeddings
of 100, filters of 3, 5, 9, 15, 19 and 25 words with 50 maps each, batch norm, and a softmax over all words of the padded
batch for every code. As its loader does, it takes notes in random order, in batches that are padded to their longest note. Ours
takes the same notes in batches of the same number in training, grouped by length; in inference in batches of so many words at
most. The original's authors score notes one by one, which is given, too.

Lengths are lognormal, as those of MIMIC-III's discharge summaries: 1,300 words on average before they are cut at 2,500. A
training step is forward, binary cross-entropy, backward, and Adam over all weights, those of 50,000 embeddings among them.
Both sides start from the same weights, and take turns over the same notes in one process. Times are those of the processor, so
that what else it does counts for little; the median of the rounds is given.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.heads import seconds_of
from dataset_scripts.files import write_text
from modeling_icd import MultiResCNNHead
from modeling_icd.inference.batches import batches_by_length
from modeling_icd.inference.linear import fast_linear_layers


FILTERS, MAPS, WIDTH, DROPOUT = (3, 5, 9, 15, 19, 25), 50, 100, 0.2
NUM_WORDS, MEAN_WORDS, SPREAD, MOST_WORDS = 50_000, 1_300, 0.5, 2_500
BATCH_SIZE = 16  # notes of a step, as published
BUDGET = 4_096  # padded words of a batch of ours in inference
MUST = {"train_50": 1.6, "train_8921": 1.25, "inference_50": 1.6, "inference_8921": 2.0}


class OriginalBlock(nn.Module):
    """A residual block of the paper, equations 3 to 6: `tanh(norm(conv(tanh(norm(conv x)))) + norm(conv_1 x))`."""

    def __init__(self, in_maps: int, out_maps: int, width: int):
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv1d(in_maps, out_maps, width, padding=width // 2, bias=False),
            nn.BatchNorm1d(out_maps),
            nn.Tanh(),
            nn.Conv1d(out_maps, out_maps, width, padding=width // 2, bias=False),
            nn.BatchNorm1d(out_maps),
        )
        self.shortcut = nn.Sequential(nn.Conv1d(in_maps, out_maps, 1, bias=False), nn.BatchNorm1d(out_maps))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, words):
        return self.dropout(torch.tanh(self.left(words) + self.shortcut(words)))


class OriginalFilter(nn.ModuleDict):
    """One filter width: `tanh` of the base convolution, then the residual block."""

    def __init__(self, in_maps: int, out_maps: int, width: int):
        base = nn.Conv1d(in_maps, in_maps, width, padding=width // 2)
        super().__init__({"baseconv": base, "resconv-0": OriginalBlock(in_maps, out_maps, width)})

    def forward(self, words):
        return self["resconv-0"](torch.tanh(self["baseconv"](words)))


class OriginalOutput(nn.Module):
    """Attention over all words of the padded batch for every code, then an output vector for each, equations 7 to 9."""

    def __init__(self, features: int, num_codes: int):
        super().__init__()
        self.U, self.final = nn.Linear(features, num_codes), nn.Linear(features, num_codes)

    def forward(self, found):
        attention = torch.softmax(self.U.weight @ found.mT, dim=2)  # (B, C, L)
        return (self.final.weight * (attention @ found)).sum(dim=2) + self.final.bias


class Original(nn.Module):
    """The paper's model; its modules have names with which its authors' weights can be loaded."""

    def __init__(self, num_codes: int, width: int = WIDTH, filters: Sequence[int] = FILTERS, maps: int = MAPS):
        super().__init__()
        self.embedding = nn.Embedding(NUM_WORDS, width, padding_idx=0)
        self.dropout = nn.Dropout(DROPOUT)
        self.conv = nn.ModuleDict({f"channel-{size}": OriginalFilter(width, maps, size) for size in filters})
        self.output_layer = OriginalOutput(len(filters) * maps, num_codes)

    def forward(self, words):
        """Ids `(B, L)` to logits `(B, C)`; padding is attended over like words."""
        return self.read(self.embedding(words))

    def read(self, embedded):
        """Embeddings `(B, L, width)` to logits `(B, C)`."""
        words = self.dropout(embedded).mT
        found = torch.cat([channel(words) for channel in self.conv.values()], dim=1).mT  # (B, L, filters * maps)
        return self.output_layer(found)


class Ours(nn.Module):
    """The head of this project over the same embeddings."""

    def __init__(self, original: Original):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(original.embedding.weight.clone(), freeze=False, padding_idx=0)
        weights = {name: value for name, value in original.state_dict().items() if not name.startswith("embedding.")}
        self.head = MultiResCNNHead.from_original(weights, FILTERS, DROPOUT)

    def forward(self, words):
        return self.head(self.embedding(words), (words > 0).long(), need_attentions=False)[0]


Notes = list[torch.Tensor]
Batches = list[list[int]]


def make_notes(count: int, seed: int) -> Notes:
    """Random words `(L,)` of so many notes."""
    draw = random.Random(seed)
    middle = torch.tensor(MEAN_WORDS).log().item() - SPREAD**2 / 2
    lengths = [min(MOST_WORDS, max(1, round(draw.lognormvariate(middle, SPREAD)))) for _ in range(count)]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, NUM_WORDS, (length,), generator=generator) for length in lengths]


def random_batches(count: int, size: int, seed: int) -> Batches:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [order[start : start + size] for start in range(0, count, size)]


def grouped_batches(lengths: list[int], size: int, seed: int) -> Batches:
    """Notes of similar length together, the batches in random order."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    random.Random(seed).shuffle(batches)
    return batches


def padded_words(notes: Notes, batches: Batches) -> Iterator[torch.Tensor]:
    for batch in batches:
        yield nn.utils.rnn.pad_sequence([notes[i] for i in batch], batch_first=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, notes: Notes, batches: Batches, num_codes: int) -> None:
    model.train()
    for words in padded_words(notes, batches):
        labels = (torch.rand(len(words), num_codes) < 16 / num_codes).float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(words), labels).backward()
        optimizer.step()


@torch.inference_mode()
def score(model: nn.Module, notes: Notes, batches: Batches) -> torch.Tensor:
    """Logits `(N, C)` in the order of the notes."""
    model.eval()
    found: dict[int, torch.Tensor] = {}
    for batch, words in zip(batches, padded_words(notes, batches), strict=True):
        found.update(zip(batch, model(words), strict=True))
    return torch.stack([found[i] for i in range(len(notes))])


@torch.inference_mode()
def score_ours(model: nn.Module, notes: Notes, batches: Batches) -> torch.Tensor:
    with fast_linear_layers(torch.device("cpu")):
        return score(model, notes, batches)


def measure_codes(number: int, words: Notes, batches: dict[str, Batches], rounds: int, seed: int) -> dict[str, float]:
    """The figures of `measure` for one number of codes."""
    torch.manual_seed(seed)
    original = Original(number)
    ours = Ours(original)
    few = [[i] for i in range(4)]
    apart = score(original, words[:4], few) - score_ours(ours, words[:4], few)
    figures = {f"difference_{number}": apart.abs().max().item()}
    adam = {side: torch.optim.Adam(side.parameters(), lr=1e-4) for side in (original, ours)}
    ways: dict[str, dict[str, Callable[[], object]]] = {
        "train": {
            "original": lambda: train(original, adam[original], words, batches["random"], number),
            "ours": lambda: train(ours, adam[ours], words, batches["grouped"], number),
        },
        "inference": {
            "original": lambda: score(original, words, batches["random"]),
            "one_by_one": lambda: score(original, words, batches["one_by_one"]),
            "ours": lambda: score_ours(ours, words, batches["budget"]),
        },
    }
    for part, sides in ways.items():
        seconds = seconds_of(sides, rounds)
        for side, spent in seconds.items():
            figures[f"{side}_{part}_{number}"] = len(words) / spent
            if side != "ours":
                beside = "" if side == "original" else f"_beside_{side}"
                figures[f"{part}_{number}{beside}"] = spent / seconds["ours"]
    return figures


def measure(
    codes: Sequence[int] = (50, 8921), notes: int = 128, rounds: int = 3, budget: int = BUDGET, seed: int = 0
) -> dict[str, float]:
    """Notes a second of each way, by `SIDE_PART_CODES`, and ratios of ours to the original's, by `PART_CODES`.

    Args:
        codes (`Sequence[int]`): numbers of codes.
        notes (`int`): how many notes each way reads in a round.
        budget (`int`): padded words of a batch of ours in inference.
    """
    torch.set_num_threads(1)
    words = make_notes(notes, seed)
    lengths = [len(note) for note in words]
    batches = {
        "random": random_batches(notes, BATCH_SIZE, seed),
        "grouped": grouped_batches(lengths, BATCH_SIZE, seed),
        "one_by_one": [[i] for i in range(notes)],
        "budget": batches_by_length(lengths, BATCH_SIZE, budget),
    }
    figures: dict[str, float] = {"words": sum(lengths) / notes}
    for name, of_notes in batches.items():
        read = sum(len(batch) * max(lengths[i] for i in batch) for batch in of_notes)
        figures[f"padding_{name}"] = 1 - sum(lengths) / read
    for number in codes:
        figures |= measure_codes(number, words, batches, rounds, seed)
    return figures


def show(figures: dict[str, float], codes: Sequence[int]) -> None:
    table = Table(title="Notes a second on one thread, by processor time", box=SIMPLE_HEAD)
    for column in ("codes", "part", "original", "one by one", "ours", "ours / original", "/ one by one", "asked for"):
        table.add_column(column, justify="right" if column != "part" else "left")
    for number in codes:
        for part in ("train", "inference"):
            alone = figures.get(f"one_by_one_{part}_{number}")
            table.add_row(
                f"{number:,}",
                part,
                f"{figures[f'original_{part}_{number}']:.2f}",
                "" if alone is None else f"{alone:.2f}",
                f"{figures[f'ours_{part}_{number}']:.2f}",
                f"{figures[f'{part}_{number}']:.2f}",
                "" if alone is None else f"{figures[f'{part}_{number}_beside_one_by_one']:.2f}",
                f"{MUST.get(f'{part}_{number}', '')}",
            )
    console = Console(width=110)
    console.print(table)
    padding = {name: f"{figures[f'padding_{name}']:.1%}" for name in ("random", "grouped", "budget")}
    console.print(
        f"{figures['words']:,.0f} words a note. Padding: {padding['random']} in random batches of {BATCH_SIZE}, "
        f"{padding['grouped']} grouped by length, {padding['budget']} by budget. Time and memory of both sides double with the "
        "words of a note, and their attention's with the codes."
    )
    for number in codes:
        console.print(
            f"{number:,} codes: logits of both sides differ by {figures[f'difference_{number}']:.1e} at most."
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, nargs="+", default=[50, 8921])
    parser.add_argument("--notes", type=int, default=128, help="how many each way reads in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=BUDGET, help="padded words of a batch of ours in inference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(argv)
    figures = measure(args.codes, args.notes, args.rounds, args.budget, args.seed)
    show(figures, args.codes)
    if args.output is not None:
        write_text(json.dumps(figures, indent=2), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
