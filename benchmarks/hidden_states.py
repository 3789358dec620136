"""The cache of hidden states and the pass of the backbone that fills it: ratios and memory.

    python -m benchmarks.hidden_states --codiesp_dir DIR --output hidden_states.json
    python -m benchmarks.hidden_states --only keys memory

keys     52,722 notes (as many as MIMIC-III's) through a backbone that costs nothing: peak memory, and how the time grows as
         the notes double: 2 is linear, 4 quadratic.
pass     tokens a second of the backbone: notes of the synthetic corpus as the cache reads them, beside the plain way (8 notes
         padded to the longest, eager attention) and beside windows that are full (the practical limit).
memory   peak memory of SmolLM2 reading one note of 100,000 tokens by a model's forward pass and by the cache, and how much of
         it a note of half as many tokens does not need.
epochs   training notes a second of a label attention head over cached states, beside running the backbone in every step.
decode   milliseconds to read the states of 1,000 tokens in each form.

Both sides of a ratio run by turns in one process, on one thread, and what counts is processor time, so that other work on
the machine changes little. Peak memory is the resident memory of a process that does nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoTokenizer

from benchmarks.heads import seconds_of
from benchmarks.memory import peak
from dataset_scripts import load_builder
from dataset_scripts.synthetic import write_corpus
from modeling_icd import LlamaForICDCoding
from modeling_icd.inference.batches import batches_by_length, padded_inputs
from modeling_icd.inference.gguf import convert_smollm2
from modeling_icd.inference.hidden_states import TOKENS_ON_CPU, TOKENS_TOGETHER, HiddenStates
from modeling_icd.inference.linear import fast_linear_layers
from modeling_icd.inference.tokens import texts_of_notes, tokenize_notes
from modeling_icd.training.arithmetic import fast_steps
from modeling_icd.windows_icd import window_groups


MIMIC_NOTES = 52_722
PARTS = ("keys", "pass", "memory", "epochs", "decode")
FORMATS = ("float32", "float16", "bfloat16", "int8", "pca128-int8", "pca64", "pca64-int8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--codiesp_dir", help="a folder with CodiEsp's `train` and `dev`, for `epochs`")
    parser.add_argument("--notes", type=int, default=48, help="of the corpora that are read")
    parser.add_argument(
        "--layers", type=int, default=9, help="of SmolLM2's 30 that are run; the weights of each take 14 MB"
    )
    parser.add_argument("--window", type=int, default=1024, help="tokens of a window in `pass`, at most 2,048")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures, which are added to those there")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.child:
        name, *numbers = args.child
        children: dict[str, Callable[..., dict[str, float]]]
        children = {"fill": fill_cheaply, "forward": read_long, "cache": keep_long}
        print(json.dumps(children[name](*map(int, numbers))))
        return 0
    known = json.loads(args.output.read_text()) if args.output and args.output.exists() else {}
    figures = known | measure(args)
    for name, figure in figures.items():
        print(f"{name:58} {figure:12,.3f}")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2))
    return 0


def measure(args: argparse.Namespace) -> dict[str, float]:
    """The figures of the parts that are asked for, by name."""
    of_part: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
        "keys": measure_keys,
        "pass": measure_pass,
        "memory": measure_memory,
        "epochs": measure_epochs,
        "decode": measure_decode,
    }
    figures: dict[str, float] = {}
    for part in args.only:
        figures |= of_part[part](args)
    return figures


def in_child(*words: object) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.hidden_states", "--child", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def peak_mb() -> float:
    """The most resident memory that this process has had, MB."""
    return peak() / 1e6


class Notes(Sequence[list[int]]):
    """Invented notes that are made when they are asked for, as those of a data set on disk are read."""

    def __init__(self, count: int, length: int = 40):
        self.number, self.length = count, length

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, row):
        if row >= self.number:
            raise IndexError(row)
        return [row, *range(self.length - row % 17)]


class CheapBackbone:
    """Stands in for a model: its states cost nothing."""

    def __init__(self, width: int = 16):
        self.config = SimpleNamespace(
            **{"window_size": None, "window_stride": None, "hidden_layer": None, "normalize_hidden_states": False},
            **{"bidirectional_attention": False, "layer_mix": False},
            **{"_attn_implementation": "sdpa", "backbone_settings": {}, "hidden_size": width},
        )
        self.model, self.device, self.dtype = nn.Linear(1, 1), torch.device("cpu"), torch.float32

    def read_joined(self, joined: torch.Tensor, lengths: list[int], tokens_per_pass: int | None = None):
        """States `(T, D)` of tokens `(T,)`."""
        return (joined[:, None] % 97).float().expand(-1, self.config.hidden_size)


def fill_cheaply(count: int) -> dict[str, float]:
    """Fill a cache with notes, open it again, and read from it."""
    before = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        notes: Sequence[list[int]] = Notes(count)
        model: Any = CheapBackbone()
        began = time.process_time()
        HiddenStates(Path(folder), model, "float16").fill(notes)
        store = HiddenStates(Path(folder), model, "float16")
        if store.fill(notes):
            raise RuntimeError("what was stored was not found again")
        for row in range(0, count, 100):
            store.read(notes[row])
        seconds = time.process_time() - began
    return {"seconds": seconds, "mb": peak_mb() - before}


def measure_keys(args: argparse.Namespace) -> dict[str, float]:
    half, whole = in_child("fill", MIMIC_NOTES // 2), in_child("fill", MIMIC_NOTES)
    return {
        "keys: MB that 52,722 notes add": whole["mb"],
        "keys: times the processor time of half as many notes": whole["seconds"] / half["seconds"],
    }


def smollm2(layers: int | None, window: int, attention: str = "sdpa") -> LlamaForICDCoding:
    settings: dict[str, Any] = {"hidden_layer": layers, "window_size": window, "window_stride": window * 3 // 4}
    settings |= {"pooling": "label_attention", "freeze_backbone": True, "normalize_hidden_states": True}
    return LlamaForICDCoding.from_pretrained(
        str(convert_smollm2()), num_labels=50, attn_implementation=attention, **settings
    ).eval()


def synthetic_notes(count: int, length: str = "default") -> list[list[int]]:
    """Tokens of notes of the synthetic corpus, in its order."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder, "corpus"), num_admissions=3 * count, length=length, show_progress=False)
        builder = load_builder("mimic3", "full", data_dir=f"{folder}/corpus", cache_dir=f"{folder}/cache")
        return tokens_of(builder, count)


def tokens_of(builder, count: int) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(convert_smollm2())
    texts = texts_of_notes(builder.as_dataset(split="train"))
    return [ids for ids in tokenize_notes(tokenizer, texts[:count]) if ids]


def measure_pass(args: argparse.Namespace) -> dict[str, float]:
    size, stride = args.window, args.window * 3 // 4
    model, plain = smollm2(args.layers, size), smollm2(args.layers, 8192, "eager")
    figures: dict[str, float] = {}
    for corpus in ("default", "long"):
        notes = synthetic_notes(args.notes if corpus == "default" else args.notes // 3, corpus)
        lengths = [len(ids) for ids in notes]
        order = batches_by_length(lengths, max_tokens=TOKENS_TOGETHER)
        groups = [
            group for rows in order for group in window_groups([lengths[i] for i in rows], size, stride, TOKENS_ON_CPU)
        ]
        real = sum(end - start for group in groups for start, end, _ in group)
        padded = sum(len(group) * max(end - start for start, end, _ in group) for group in groups)
        full = torch.full((2048 // size, size), 7)  # 2,048 tokens
        passes = max(1, real // 2048)

        @torch.inference_mode()
        def as_the_cache(notes=notes, order=order):
            with fast_linear_layers(model.device):
                for rows in order:
                    joined = torch.tensor([token for i in rows for token in notes[i]])
                    model.read_joined(joined, [len(notes[i]) for i in rows], TOKENS_ON_CPU)

        @torch.no_grad()
        def padded_to_the_longest(notes=notes):
            for start in range(0, len(notes), 8):
                plain.read_hidden_states(**padded_inputs(notes[start : start + 8]))

        @torch.inference_mode()
        def full_windows(count=passes, full=full):
            with fast_linear_layers(model.device):
                for _ in range(count):
                    model.read_hidden_states(full, torch.ones_like(full))

        rounds = seconds_of({"cache": as_the_cache, "plain": padded_to_the_longest, "full": full_windows}, args.rounds)
        limit = passes * 2048 / rounds["full"]
        figures |= {
            f"pass, {corpus} notes: mean tokens of a note": float(np.mean(lengths)),
            f"pass, {corpus} notes: percent of padding": 100 * (padded - real) / padded,
            f"pass, {corpus} notes: times the notes' tokens/s of the plain way": rounds["plain"] / rounds["cache"],
            f"pass, {corpus} notes: of the windows' tokens/s of full ones": real / rounds["cache"] / limit,
        }
    return figures


def read_long(num_tokens: int, layers: int) -> dict[str, float]:
    """One note through a model's forward pass."""
    model = smollm2(layers, 1024)
    ids = torch.randint(3, 40_000, (1, num_tokens), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), fast_linear_layers(model.device):
        model(ids, torch.ones_like(ids))
    return {"mb": peak_mb()}


def keep_long(num_tokens: int, layers: int) -> dict[str, float]:
    """One note through the cache."""
    model = smollm2(layers, 1024)
    ids = torch.randint(3, 40_000, (num_tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        HiddenStates(Path(folder), model, "float16").fill([ids])
    return {"mb": peak_mb()}


def measure_memory(args: argparse.Namespace) -> dict[str, float]:
    half, whole = (in_child("cache", tokens, args.layers)["mb"] for tokens in (50_000, 100_000))
    return {
        "memory, forward: MB for a note of 100,000 tokens": in_child("forward", 100_000, args.layers)["mb"],
        "memory, cache: MB for a note of 100,000 tokens": whole,
        "memory, cache: MB more than for one of 50,000": whole - half,
        "memory: MB of the states of 50,000 tokens": 50_000 * 576 * 4 / 1e6,
    }


def measure_epochs(args: argparse.Namespace) -> dict[str, float]:
    corpora = {"synthetic": synthetic_notes(args.notes)}
    if args.codiesp_dir:
        with tempfile.TemporaryDirectory() as folder:
            builder = load_builder("codiesp", "diagnoses_en_top50", data_dir=args.codiesp_dir, cache_dir=folder)
            corpora["CodiEsp"] = tokens_of(builder, args.notes)
    model = smollm2(args.layers, 512).train()
    figures = {}
    for corpus, notes in corpora.items():
        with tempfile.TemporaryDirectory() as folder:
            store = HiddenStates(Path(folder), model)
            store.fill(notes)
            batches = batches_by_length([len(ids) for ids in notes], 8)
            sides = {
                "cache": partial(learn, model, notes, batches, store),
                "backbone": partial(learn, model, notes, batches, None),
            }
            rounds = seconds_of(sides, args.rounds)
        figures[f"epochs, {corpus}: times the notes/s of running the backbone"] = rounds["backbone"] / rounds["cache"]
    return figures


def learn(
    model: LlamaForICDCoding, notes: Sequence[list[int]], batches: list[list[int]], store: HiddenStates | None
) -> None:
    """One epoch of training steps."""
    optimizer = torch.optim.AdamW(model.score.parameters(), fused=True)
    for rows in batches:
        inputs = padded_inputs([notes[i] for i in rows], store)
        with fast_steps(model.device):
            loss = model(**inputs, labels=torch.zeros(len(rows), 50)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def measure_decode(args: argparse.Namespace) -> dict[str, float]:
    model = smollm2(1, 512)
    notes = synthetic_notes(args.notes)[: args.notes // 8 * 8]
    batches = [notes[start : start + 8] for start in range(0, len(notes), 8)]
    with tempfile.TemporaryDirectory() as folder:
        stores = {name: HiddenStates(Path(folder), model, name) for name in FORMATS}
        for store in stores.values():
            store.fit(notes)
            store.fill(notes)

        def read(store: HiddenStates) -> Callable[[], object]:
            return lambda: deque((store.read_padded(batch) for batch in batches for _ in range(5)), maxlen=0)

        rounds = seconds_of({name: read(store) for name, store in stores.items()}, args.rounds)
    tokens = 5 * sum(map(len, notes))
    return {f"decode, {name}: ms for 1,000 tokens": 1e6 * rounds[name] / tokens for name in FORMATS}


if __name__ == "__main__":
    sys.exit(main())
