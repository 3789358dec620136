"""The configurations for Llama-2-7B and Qwen3-4B, whole models with random weights, by the commands, on one GPU.

    python -m benchmarks.large_models --output_dir runs/large_models
    python -m benchmarks.large_models --output_dir runs/large_models --only llama2_7b_lora

Each configuration is trained for some steps by `modeling-icd train` on invented notes of about 3,000 tokens, in a process of its
own, and scored by `modeling-icd evaluate` in another. Peak memory is the most that torch has had allocated on the GPU. Time, memory
and what is written on disk do not depend on what the weights are; what the model says does, and is not looked at.

Finished measurements are kept in OUTPUT_DIR, so that an interrupted run goes on. Without a GPU `--layers 1` tries the commands, in
`OUTPUT_DIR/1_layers`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel, PreTrainedConfig, Qwen3Config, Qwen3ForCausalLM

from dataset_scripts import load_split
from dataset_scripts.console import main as command
from modeling_icd.inference.model_folder import RUN_FILE

from .llama2_arithmetic import LLAMA2_7B
from .llama2_shape import make_corpus, make_tokenizer


QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
CHAT_TEMPLATE = (
    "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
STEPS = 4
COMMON = {
    "max_steps": STEPS,
    "dataset_config": "top50",
    "report_to": "none",
    "logging_steps": 1,
}
UNSAVED = {"save_strategy": "no", "eval_strategy": "no"}
LORA = {**UNSAVED, "tfidf_yardstick": False, "load_best_model_at_end": False}
GRPO = {
    "dtype": "bfloat16", "dataset": "mimic3", "max_note_tokens": 16_384, "max_codes": 40, "num_generations": 8,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 8, "gradient_checkpointing": True,
    **UNSAVED,
}  # fmt: skip
ROADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama2_7b_frozen": ("llama2", "llama2_7b_frozen", {"tfidf_yardstick": False}),
    "llama2_7b_lora": ("llama2", "llama2_7b_lora", LORA),
    "llama2_7b_qlora": ("llama2", "llama2_7b_qlora", LORA),
    "generative_4b": ("qwen3", "generative_4b", UNSAVED),
    "generative_4b_grpo": ("qwen3", "generative_grpo", GRPO),
}
"""Of each measurement: the backbone, the configuration file, and what differs from it."""


def make_backbone(kind: str, folder: Path, num_layers: int | None) -> Path:
    """Random weights in bfloat16, of the whole shape or with fewer layers, and a tokenizer made from the invented notes."""
    if (folder / "config.json").is_file():
        return folder
    tokenizer = make_tokenizer(make_corpus(folder.parent))
    shape = LLAMA2_7B if kind == "llama2" else QWEN3_4B
    shape = {**shape, "num_hidden_layers": num_layers or shape["num_hidden_layers"], "pad_token_id": 0}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model: LlamaModel | Qwen3ForCausalLM
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        if kind == "llama2":
            model = LlamaModel(_config(LlamaConfig, shape))
        else:
            tokenizer.add_special_tokens({"eos_token": "<end>"})
            tokenizer.chat_template = CHAT_TEMPLATE
            model = Qwen3ForCausalLM(_config(Qwen3Config, {**shape, "eos_token_id": tokenizer.eos_token_id}))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(kind: type[PreTrainedConfig], shape: dict[str, Any]) -> Any:
    return kind(**{**shape, "dtype": "bfloat16"})


def measure(name: str, work: Path, num_layers: int | None) -> dict[str, Any]:
    """Train by the command, in this process, and evaluate in another; what `--measure NAME` prints."""
    kind, config, differing = ROADS[name]
    backbone, folder = make_backbone(kind, work / kind, num_layers), work / name
    corpus = make_corpus(work)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # which making the backbone had, too
    given = {**COMMON, **differing, "backbone": backbone, "data_dir": corpus, "output_dir": folder}
    options = [f"--{key}={value}" for key, value in given.items()]
    start = time.time()
    if command(["train", config, *options, "--overwrite_output_dir=true", "--disable_tqdm=true"]):
        raise RuntimeError(f"`train {config}` ended with an error.")
    seconds = time.time() - start
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    run = json.loads((folder / RUN_FILE).read_text())
    log = next(entry for entry in reversed(run["log"]) if "train_runtime" in entry)
    torch.cuda.empty_cache()
    start = time.time()
    subprocess.run(
        [sys.executable, "-m", "modeling_icd", "evaluate", str(folder), "--data_dir", str(corpus)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    evaluation = json.loads((folder / "evaluation" / "test" / "results.json").read_text())
    return {
        "peak": peak,
        "seconds": seconds,
        "training_seconds": log["train_runtime"],
        "notes": log["epoch"] * len(training_notes(work)),
        "folder": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "evaluation_seconds": time.time() - start,
        "test_notes": evaluation["num_notes"],
        "log": run["log"],
    }


def training_notes(work: Path) -> list[str]:
    split = load_split("mimic3", "train", data_dir=str(work / "corpus"), cache_dir=str(work / "corpus" / "cache"))
    return list(split["text"])


def note_tokens(work: Path) -> float:
    """Tokens of an invented training note, on average."""
    notes, tokenizer = training_notes(work), make_tokenizer(work / "corpus")
    return sum(len(tokenizer(text, verbose=False)["input_ids"]) for text in notes) / len(notes)


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| configuration | peak memory, GB | seconds a step | notes a second, training | the command, seconds | model, GB | evaluate: notes, seconds |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, one in found.items():
        runtime = one["training_seconds"]
        lines.append(
            f"| {name} | {one['peak'] / 1e9:.1f} | {runtime / STEPS:.1f} | {one['notes'] / runtime:.2f} | {one['seconds']:.0f} | "
            f"{one['folder'] / 1e9:.2f} | {one['test_notes']}, {one['evaluation_seconds']:.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/large_models"))
    parser.add_argument("--only", nargs="*", choices=tuple(ROADS), default=tuple(ROADS))
    parser.add_argument("--layers", type=int, help="of the models; all by default")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.layers and not args.measure:  # no measurement of the whole models
        args.output_dir /= f"{args.layers}_layers"
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.measure:
        found = measure(args.measure, args.output_dir, args.layers)
        (args.output_dir / f"{args.measure}.json").write_text(json.dumps(found))
        return
    results = {}
    for name in args.only:
        path = args.output_dir / f"{name}.json"
        if not path.is_file():
            layers = ["--layers", str(args.layers)] if args.layers else []
            given = ["--output_dir", str(args.output_dir), "--measure", name, *layers]
            run = subprocess.run([sys.executable, "-m", "benchmarks.large_models", *given])
            shutil.rmtree(args.output_dir / f"{name}-private", ignore_errors=True)
            if run.returncode:
                print(f"{name} ended with an error", file=sys.stderr)
                continue
        results[name] = json.loads(path.read_text())
    if not results:
        sys.exit(1)
    print("\n".join(table(results)))
    print(f"\n{note_tokens(args.output_dir):,.0f} tokens in a training note on average")


if __name__ == "__main__":
    main()
