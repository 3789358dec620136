"""`python evaluate.py MODEL --dataset NAME --data_dir DIR --split NAME --output_dir R`: a model's figures on a split."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dataset_scripts import load_builder

from ..modeling_llama_icd import pad_rows
from . import ICD_METRICS_PATH, nan_to_none


TABLE_ROWS = (
    ["f1_micro", "f1_macro", "f1_macro_caml", "f1_instance", "precision_micro", "recall_micro"]
    + ["auc_micro", "auc_macro"]
    + [f"{name}_at_{k}" for k in (5, 8, 15) for name in ("precision", "recall")]
)


@torch.no_grad()
def score_notes(model, tokenizer, notes: list[str], batch_size: int = 8, store: Any = None) -> np.ndarray:
    """Scores `(N, C)` of whole notes, in the order given; notes of similar length share a batch.

    Args:
        store (`HiddenStates`, *optional*): where hidden states of a frozen backbone are kept from run to run.
    """
    input_ids = [tokenizer(note, verbose=False)["input_ids"] for note in notes]
    if store is not None:
        store.fill(input_ids)
    order = sorted(range(len(notes)), key=lambda i: len(input_ids[i]))
    scores = np.zeros((len(notes), model.config.num_labels), dtype=np.float32)
    for start in tqdm(range(0, len(notes), batch_size), desc="Scoring", unit="batch"):
        rows = order[start : start + batch_size]
        name, read = ("input_ids", torch.as_tensor) if store is None else ("hidden_states", store.read)
        padded, mask = pad_rows([read(input_ids[i]) for i in rows])
        logits = model(**{name: padded.to(model.device)}, attention_mask=mask.to(model.device)).logits
        scores[rows] = logits.float().sigmoid().cpu().numpy()
    return scores


def gold_columns(split, label2id: dict[str, int]) -> tuple[list[list[int]], list[str]]:
    """Gold codes as columns of the score matrix; codes that the model does not know get columns behind its own.

    Returns:
        The columns of each note, and the unknown codes in the order of theirs.
    """
    names = split.features["codes"].feature.names
    used = sorted({code for codes in split["codes"] for code in codes})
    unknown = [names[i] for i in used if names[i] not in label2id]
    columns = {**label2id, **{code: len(label2id) + i for i, code in enumerate(unknown)}}
    return [[columns[names[code]] for code in codes] for codes in split["codes"]], unknown


def evaluate_model(
    model_id: str,
    dataset: str,
    data_dir: str,
    split: str,
    config: str | None = None,
    *,
    cache_dir: str | None = None,
    batch_size: int = 8,
    threshold: float | None = None,
    trust_remote_code: bool = False,
    make_store: Callable | None = None,
) -> dict:
    """Scores a split and computes every metric of `icd_metrics`.

    A gold code that the model never learned counts as missed (score 0): leaving it out would flatter the model.

    Args:
        model_id (`str`): a folder or Hub id.
        split (`str`): a split of the data set, or `all`: every record of the folder.
        config (`str`, *optional*): the data set's configuration; by default the one that the model was trained on.
        cache_dir (`str`, *optional*): where the built data set, notes included, is kept.
        batch_size (`int`): notes scored together.
        threshold (`float`, *optional*): in place of the model's own.
        trust_remote_code (`bool`): whether to run the code that came with the model.
        make_store (`Callable`, *optional*):
            Gives a `HiddenStates` for the model, whose backbone is frozen: notes in it are not run through it again.

    Returns:
        What `results.json` holds: `metrics`, and what they were measured on.
    """
    model = AutoModelForSequenceClassification.from_pretrained(model_id, trust_remote_code=trust_remote_code).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    trained_on = model.config.training_data or {}
    if config is None and trained_on.get("dataset") == dataset:
        config = trained_on["config"]
    builder_options: dict = {"unsplit": True} if split == "all" else {}
    if split == "all" and config == "top50":
        # The 50 codes are those that the model was trained for, not the 50 most frequent of another folder.
        builder_options["codes"] = list(model.config.label2id)
    builder = load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, **builder_options)
    records = builder.as_dataset(split=split)
    gold, unknown = gold_columns(records, model.config.label2id)
    store = make_store(model) if make_store is not None and model.config.freeze_backbone else None
    scores = score_notes(model, tokenizer, list(records["text"]), batch_size, store)
    if unknown:
        print(f"{len(unknown)} codes of this split are not in the model's vocabulary; each counts as missed.")
        scores = np.pad(scores, ((0, 0), (0, len(unknown))))
    decision = model.config.threshold if threshold is None else threshold
    if isinstance(decision, list):
        decision = np.array([*decision, *[1.0] * len(unknown)])
    metric = evaluate.load(ICD_METRICS_PATH)
    metric.add_batch(predictions=scores, references=gold)
    return {
        "metrics": metric.compute(threshold=decision, k=(5, 8, 15)),
        "model": str(model_id),
        "dataset": dataset,
        "config": builder.config.name,
        "split": split,
        "num_notes": len(records),
        "num_codes": scores.shape[1],
        "unknown_codes": unknown,
        "threshold": decision if np.isscalar(decision) else "per code",
        "threshold_source": "model configuration (chosen on validation)" if threshold is None else "--threshold",
    }


def write_results(results: dict, output_dir: Path) -> Path:
    """Writes `results.json`, whole or not at all; a figure that is undefined is null."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=output_dir, suffix=".tmp", delete=False) as file:
        json.dump({**results, "metrics": nan_to_none(results["metrics"])}, file, indent=2)
    path = output_dir / "results.json"
    os.replace(file.name, path)
    path.chmod(0o644)
    return path


def print_table(results: dict) -> None:
    table = Table(
        title=f"{results['dataset']} ({results['config']}), {results['split']}: {results['num_notes']} notes"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name in TABLE_ROWS:
        if name in results["metrics"]:
            table.add_row(name, f"{results['metrics'][name]:.4f}")
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    parser.add_argument("model", help="a model folder or Hub id")
    parser.add_argument("--dataset", required=True, help="mimic3 or cmc2007")
    parser.add_argument("--data_dir", required=True, help="the folder that holds the data set's own files")
    parser.add_argument("--split", default="test", help="train, validation, test, or all: every record of the folder")
    parser.add_argument("--dataset_config", help="default: the configuration that the model was trained on")
    parser.add_argument("--output_dir", type=Path, help="where results.json goes; default: MODEL/evaluation/SPLIT")
    parser.add_argument("--cache_dir", help="where the built data set goes; default: MODEL-private/cache")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threshold", type=float, help="in place of the model's own")
    parser.add_argument("--trust_remote_code", action="store_true")
    args = parser.parse_args(arguments)
    output_dir = args.output_dir or Path(args.model) / "evaluation" / args.split
    try:
        results = evaluate_model(
            args.model,
            args.dataset,
            args.data_dir,
            args.split,
            args.dataset_config,
            batch_size=args.batch_size,
            threshold=args.threshold,
            cache_dir=args.cache_dir or f"{Path(args.model)}-private/cache",
            trust_remote_code=args.trust_remote_code,
        )
    except (ValueError, OSError) as error:  # transformers reports a missing model as an OSError
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_table(results)
    print(write_results(results, output_dir))
    return 0
