"""One configuration trained and scored, once, and several of them in a table: what the comparisons have in common."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dataset_scripts.files import write_text
from modeling_icd.evaluation.decisions import DecisionArguments, fit_decision
from modeling_icd.evaluation.model_data import builder_for
from modeling_icd.evaluation.results import summarize
from modeling_icd.evaluation.results_file import write_results
from modeling_icd.evaluation.scoring import gold_columns, score_split, scored_split
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.inference.tokens import empty_notes
from modeling_icd.training.run import main as train_main


def settings_of(config: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of `configs/CONFIG.yaml`, and what differs from them."""
    return {**yaml.safe_load(Path(f"configs/{config}.yaml").read_text()), **(options or {})}


def train_and_score(
    config: str, folder: Path, data_dir: str, data_config: str, seed: int, num_processes: int = 1, **differing: object
) -> dict:
    """Trains `configs/CONFIG.yaml` into `folder` and scores it on the test split, unless that is done.

    The built data and the hidden states lie beside the folder, for all runs there. A configuration whose `backbone` is
    the model of another one (`runs/OTHER`) starts from that model's folder beside its own.

    Args:
        folder (`Path`): its name holds the configuration's.
        data_config (`str`): the data set's configuration.
        num_processes (`int`): of the training, by torchrun.
        differing: options of `train.py` that differ from the file's.

    Returns:
        What `folder/results.json` holds, the seconds of training among it.
    """
    results_file = folder / "results.json"
    if results_file.exists():
        return json.loads(results_file.read_text())
    states_dir, cache_dir = folder.parent / "hidden_states", folder.parent / "cache"
    settings = settings_of(config)
    options = {
        "data_dir": data_dir,
        "data_cache_dir": cache_dir,
        "hidden_states_dir": states_dir,
        "dataset_config": data_config,
        "output_dir": folder,
        "seed": seed,
        "tfidf_yardstick": False,  # the tables have it beside the models
        **({"resume_from_checkpoint": "last"} if any(folder.glob("checkpoint-*")) else {}),
        **differing,
    }
    if (Path("configs") / f"{Path(str(settings.get('backbone'))).name}.yaml").exists():
        options["backbone"] = folder.with_name(folder.name.replace(config, Path(settings["backbone"]).name))
    started = time.perf_counter()
    arguments = [f"configs/{config}.yaml", *as_arguments(options)]
    if num_processes == 1:
        status = train_main(arguments)
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
        status = subprocess.run([*torchrun, "-m", "modeling_icd", "train", *arguments]).returncode
    if status:
        sys.exit(status)
    seconds = time.perf_counter() - started
    scored = score_split(
        str(folder),
        str(options.get("dataset", settings.get("dataset"))),
        data_dir,
        "test",
        cache_dir=str(cache_dir),
        make_store=lambda model: HiddenStates(states_dir, model),
    )
    results = {**summarize(scored)[0], "training_seconds": seconds}
    write_results(results, folder)
    return results


def as_arguments(options: Mapping[str, object]) -> list[str]:
    """Options as a command line has them; a list is several words behind its name, and what is `None` is left out."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={value}")
    return words


def logits_of_split(folder: Path, settings: dict, data_dir: str, split: str):
    """A trained model's configuration, the records of a split and the model's logits `(N, C)` of them."""
    model, tokenizer = load_model(folder)
    builder = builder_for(model.config, settings["dataset"], data_dir, split, None, (), str(folder.parent / "cache"))
    records = builder.as_dataset(split=split)
    store = HiddenStates(folder.parent / "hidden_states", model)
    return model.config, records, logits_of_notes(model, tokenizer, list(records["text"]), states=store)


def score_ensemble(folders: Sequence[Path], config: str, data_dir: str, **differing: object) -> dict[str, float]:
    """Metrics, on the test split, of the mean logits of models that differ in their seed alone: what `head_ensemble_size` heads
    give, each of them trained already. Their threshold is chosen on validation, as that of each is; where they have learned
    from validation since (`refit_on_validation`), it is the mean of the thresholds that were chosen before.

    Args:
        differing: options that differ from those of `configs/CONFIG.yaml`, as [`train_and_score`] was given them.
    """
    settings = settings_of(config, differing)
    members = [logits_of_split(folder, settings, data_dir, "test") for folder in folders]
    model_config, records, _ = members[0]
    if settings.get("refit_on_validation"):
        model_config.threshold = float(np.mean([member_config.threshold for member_config, _, _ in members]))
    else:
        model_config.update(decide_together(folders, settings, data_dir))
    about = {"model": config, "dataset": settings["dataset"], "config": "", "split": "test"}
    about |= {"synthetic": False, "reader": {}}  # asked for, and not kept: the metrics alone are
    mean = np.mean([logits for _, _, logits in members], axis=0)
    scored = scored_split(model_config, records, mean, empty_notes(list(records["text"])), about, None)
    return summarize(scored)[0]["metrics"]


def decide_together(folders: Sequence[Path], settings: dict, data_dir: str) -> dict:
    """The decision that is best for the mean logits of several models on validation."""
    members = [logits_of_split(folder, settings, data_dir, "validation") for folder in folders]
    model_config, records, _ = members[0]
    gold, _ = gold_columns(records, model_config.label2id)
    known = [[code for code in of_note if code < model_config.num_labels] for of_note in gold]
    num_unknown = [len(of_note) - len(kept) for of_note, kept in zip(gold, known, strict=True)]
    mean = np.mean([logits for _, _, logits in members], axis=0)
    return fit_decision(mean, known, DecisionArguments(), num_unknown=num_unknown)


def print_summary(figures: dict[str, list[dict]], metrics: Sequence[str], title: str, file: Path) -> None:
    """Prints mean and standard deviation of each model's runs, and writes them, and every run's figure, as JSON.

    Args:
        figures (`dict[str, list[dict]]`): for each model, the metrics of each of its runs.
    """
    table = Table(title=f"{title}: mean (standard deviation)", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", "\n"), justify="right", no_wrap=True)
    summary = {}
    for name, runs in figures.items():
        values = {metric: [run[metric] for run in runs] for metric in metrics}
        summary[name] = {metric: {"mean": np.mean(v), "std": np.std(v), "runs": v} for metric, v in values.items()}
        table.add_row(name, *(f"{np.mean(v):.3f}\n({np.std(v):.3f})" for v in values.values()))
    Console(width=110).print(table)  # wide enough also where the output is a file
    write_text(json.dumps(summary, indent=2), file)
