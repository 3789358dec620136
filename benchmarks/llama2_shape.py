"""Every configuration `configs/llama2_7b_*.yaml` run on a Llama of Llama-2-7B's width with few layers and random weights.

    python -m benchmarks.llama2_shape --output_dir runs/llama2_shape              # all of it
    python -m benchmarks.llama2_shape --only states                               # one of: states, memory, roads

- `states`: the same note of 2,500 tokens gives the same 4096-wide vectors in another batch, cut into other passes, in
  another process, and after saving and loading; and how far those of bfloat16 and of 4 bits are from those of float32.
- `memory`: the peak memory of one training step on that note (of filling the cache, where the backbone is frozen) with 1, 2 and
  4 layers, and the line through them beside `benchmarks.llama2_arithmetic`.
- `roads`: `modeling-icd train` and `evaluate` with each configuration on invented notes, with 1 layer; the size of what each
  leaves on disk.

Each measurement runs in a process of its own. Finished ones are kept in OUTPUT_DIR, so that an interrupted run goes on. The paged
optimizer of QLoRA needs a GPU; without one, torch's AdamW stands in its place. `full` trains in float32 on one process here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from dataset_scripts import load_split
from dataset_scripts.synthetic import write_corpus
from modeling_icd import LlamaForICDCoding
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments

from .llama2_arithmetic import CONFIGS, LLAMA2_7B, NOTE_TOKENS, read_road, window_tokens
from .memory import memory, reset_peak, returning_memory


LAYERS = (1, 2, 4)
NUM_CODES = 50
MB = 1e6


def make_backbone(folder: Path, num_layers: int) -> Path:
    """A Llama of Llama-2-7B's width with random weights in bfloat16, and the tokenizer of [`make_tokenizer`]."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        config = LlamaConfig(**{**LLAMA2_7B, "num_hidden_layers": num_layers}, dtype="bfloat16", pad_token_id=0)
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaModel(config)
        torch.set_default_dtype(torch.float32)
        make_tokenizer(make_corpus(folder.parent)).save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def make_tokenizer(corpus: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of pairs of bytes, learned from the invented notes, which it cuts into about as many tokens as others do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    notes = load_split("mimic3", "train", data_dir=str(corpus), cache_dir=str(corpus / "cache"))
    tokenizer.train_from_iterator(notes["text"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def make_corpus(work: Path) -> Path:
    """Invented notes of about 3,000 tokens."""
    if not (work / "corpus").is_dir():
        write_corpus(work / "corpus", num_admissions=30, length="long", show_progress=False)
    return work / "corpus"


def a_note(length: int = NOTE_TOKENS) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(300, 32_000, (length,), generator=generator).tolist()


def arguments_of(config: str, backbone: Path, **differing: Any) -> list[str]:
    """The command line of `modeling-icd train` for one of the configurations, on this machine."""
    options = {"backbone": backbone, "report_to": "none", "disable_tqdm": True, **differing}
    if not torch.cuda.is_available():
        options |= {"use_cpu": True, "optim": "adamw_torch"}
    return [f"configs/{config}.yaml", *(f"--{name}={value}" for name, value in options.items())]


def measure_step(config: str, backbone: Path, work: Path) -> dict[str, float]:
    """Peak memory of this process in one training step on a note, beyond what it held before the model was loaded."""
    from trl import TrlParser

    from modeling_icd.inference.hidden_states import HiddenStates
    from modeling_icd.training.collator import ICDCollator
    from modeling_icd.training.models import add_lora, build_model
    from modeling_icd.training.trainer import make_trainer

    given = arguments_of(config, backbone, output_dir=work, max_steps=1, gradient_accumulation_steps=1)
    given += ["--per_device_train_batch_size=1", "--data_dir=unused"]
    types: Any = (ModelArguments, DataArguments, ICDTrainingArguments)
    model_args, _, args = TrlParser(types).parse_args_and_config(["--config", *given])
    codes = [str(i) for i in range(NUM_CODES)]
    before = memory()["VmRSS"]
    model = add_lora(build_model(model_args, str(backbone), codes, {}, {}), model_args)
    loaded = memory()
    note, start = a_note(), time.process_time()
    reset_peak()
    if model_args.freeze_backbone:
        HiddenStates(work / "states", model).fill([note])
    else:
        rows = [{"input_ids": note, "length": len(note), "label_ids": [0, 3]}]
        import datasets

        trainer = make_trainer(model, args, datasets.Dataset.from_list(rows), None, ICDCollator(NUM_CODES), None)
        trainer.train()
    return {
        "loading": loaded["VmHWM"] - before,
        "step": memory()["VmHWM"] - before,
        "seconds": time.process_time() - start,
    }


def states_of(backbone: Path, work: Path, kind: str) -> dict[str, float]:
    """Distances of a note's vectors from those of the note alone in float32, which `work` holds."""
    options: dict[str, Any] = {
        "window_size": 2048,
        "window_stride": 1536,
        "freeze_backbone": True,
        "num_labels": NUM_CODES,
    }
    loading: dict[str, Any] = {"dtype": torch.float32}
    if kind == "bfloat16":
        loading = {"dtype": torch.bfloat16}
    if kind == "nf4":
        from modeling_icd.inference.loading import ReaderArguments

        loading = ReaderArguments(dtype="float32", load_in_4bit=True).options()
    model = LlamaForICDCoding.from_pretrained(backbone, **options, **loading).eval()
    note = torch.tensor([a_note()])
    reference = work / "alone.npy"
    if kind == "alone":
        with torch.inference_mode():
            np.save(reference, model.read_hidden_states(note, torch.ones_like(note))[0].float().numpy())
        return {}
    alone = torch.from_numpy(np.load(reference))
    if kind == "saved":
        model.save_pretrained(work / "saved")
        model = LlamaForICDCoding.from_pretrained(work / "saved", dtype=torch.float32).eval()
    mask = torch.ones_like(note)
    if kind == "batch":  # beside a shorter and a longer note, padded in front
        others = [a_note(700), a_note(3100)]
        rows = [note[0].tolist(), *others]
        longest = max(map(len, rows))
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        note = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    if kind == "passes":  # one window at a time
        model.tokens_per_pass = 1
    with torch.inference_mode():
        states = model.read_hidden_states(note, mask)[0][mask[0].bool()].float()
    scale = alone.pow(2).mean().sqrt()
    difference = (states - alone).abs()
    return {"largest": float(difference.max()), "relative": float(difference.pow(2).mean().sqrt() / scale)}


STATES = {
    "alone": "the note alone, in float32",
    "process": "in another process",
    "batch": "in a batch of three, padded in front",
    "passes": "one window in each pass",
    "saved": "after saving and loading",
    "bfloat16": "in bfloat16",
    "nf4": "in 4 bits (NF4)",
}


def apart(key: str, work: Path, show: bool = True) -> dict[str, Any]:
    """The result of one measurement, made in a process of its own unless it is there already."""
    path = work / f"{key}.json"
    if not path.is_file():
        if show:
            print(f"{time.strftime('%H:%M:%S')} {key}", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks.llama2_shape", "--output_dir", str(work), "--measure", key]
        run = subprocess.run(command, capture_output=True, text=True, env=returning_memory())
        if run.returncode:
            raise RuntimeError(f"{key}: {run.stderr[-2000:]}")
        path.write_text(run.stdout.splitlines()[-1])
    return json.loads(path.read_text())


def measure(key: str, work: Path) -> dict[str, Any]:
    """What `--measure KEY` prints: `states-KIND`, `memory-CONFIG-LAYERS` or `road-CONFIG`."""
    kind, name, *rest = key.split("-")
    if kind == "states":
        return states_of(make_backbone(work / "backbone-2", 2), work, name)
    if kind == "memory":
        shutil.rmtree(work / key, ignore_errors=True)  # states of an earlier, interrupted run
        return measure_step(name, make_backbone(work / f"backbone-{rest[0]}", int(rest[0])), work / key)
    return walk(name, make_backbone(work / "backbone-1", 1), work)


def walk(config: str, backbone: Path, work: Path) -> dict[str, Any]:
    """Train and evaluate by the commands; sizes of what is left on disk."""
    corpus, folder = make_corpus(work), work / config
    command = [sys.executable, "-m", "modeling_icd"]
    given = arguments_of(
        config, backbone, data_dir=corpus, output_dir=folder, num_train_epochs=1, max_train_notes=4,
        gradient_accumulation_steps=2, tfidf_yardstick=False, overwrite_output_dir=True, dataset_config="top50",
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": "."}
    start = time.time()
    for arguments in (["train", *given], ["evaluate", str(folder), "--data_dir", str(corpus)]):
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
        if run.returncode:
            raise RuntimeError(f"{arguments[0]} with {config}: {run.stderr[-2000:]}")
    size_of = lambda path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())  # noqa: E731
    checkpoints = [size_of(path) for path in folder.glob("checkpoint-*")]
    results = json.loads((folder / "evaluation" / "test" / "results.json").read_text())
    return {
        "backbone": size_of(backbone),
        "checkpoint": max(checkpoints, default=0),
        "folder": size_of(folder) - sum(checkpoints),
        "notes": results["num_notes"],
        "seconds": time.time() - start,
    }


def line_through(points: dict[int, float]) -> tuple[float, float]:
    """Slope and start of the straight line that is nearest to the points."""
    slope, start = np.polyfit(list(points), list(points.values()), 1)
    return float(slope), float(start)


def memory_table(work: Path) -> list[str]:
    lines = [
        "| configuration | 1 layer | 2 layers | 4 layers | each further layer | by arithmetic | measured / arithmetic |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for config in CONFIGS:
        road = read_road(config, on_gpu=torch.cuda.is_available())
        points = {layers: apart(f"memory-{config}-{layers}", work)["step"] for layers in LAYERS}
        slope, _ = line_through(points)
        tokens = window_tokens(road.settings, NOTE_TOKENS)
        parts = road.layer_bytes(LlamaConfig(**LLAMA2_7B), tokens)
        expected = sum(parts.values())
        peaks = " | ".join(f"{points[layers] / MB:,.0f}" for layers in LAYERS)
        lines.append(f"| {config} | {peaks} | {slope / MB:,.0f} | {expected / MB:,.0f} | {slope / expected:.2f} |")
    return lines


def states_table(work: Path) -> list[str]:
    apart("states-alone", work)
    lines = ["| the same note | largest difference | relative (root mean square) |", "|---|---:|---:|"]
    for kind, words in list(STATES.items())[1:]:
        found = apart(f"states-{kind}", work)
        lines.append(f"| {words} | {found['largest']:.1e} | {found['relative']:.1e} |")
    return lines


def roads_table(work: Path) -> list[str]:
    lines = ["| configuration | backbone, MB | checkpoint, MB | model, MB | test notes |", "|---|---:|---:|---:|---:|"]
    for config in CONFIGS:
        found = apart(f"road-{config}", work)
        sizes = " | ".join(f"{found[name] / MB:,.1f}" for name in ("backbone", "checkpoint", "folder"))
        lines.append(f"| {config} | {sizes} | {found['notes']} |")
    return lines


PARTS: dict[str, Callable[[Path], list[str]]] = {
    "states": states_table,
    "memory": memory_table,
    "roads": roads_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/llama2_shape"))
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.measure:
        print(json.dumps(measure(args.measure, args.output_dir)))
        return
    for part in [args.only] if args.only else PARTS:
        print(f"\n{part}\n")
        print("\n".join(PARTS[part](args.output_dir)), flush=True)


if __name__ == "__main__":
    main()
