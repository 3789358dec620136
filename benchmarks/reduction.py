"""What smaller forms of the cached hidden states cost: bytes, reconstruction error and F1, on CodiEsp and CMC 2007.

    python -m benchmarks.reduction --codiesp_dir DIR --cmc_dir DIR --output_dir runs/reduction

For every form, task and seed a head is trained on what the cache gives back, its threshold is chosen on validation notes,
and it is scored on the test notes as anyone would use it: from their text, by the backbone's own states. The backbone reads
each note once: all forms are made from its states in float32. Forms are fitted on training notes alone. The validation
figure, the best of its epochs as training saw it, is the one to choose a form by. What is done is not trained again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch


matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.runs import train_and_score
from dataset_scripts import load_builder
from dataset_scripts.command import run_command
from dataset_scripts.files import make_folder, write_text
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.tokens import texts_of_notes, tokenize_notes


FORMATS = (
    *("float32", "float16", "bfloat16", "int8", "pca256", "pca128", "pca64", "pca32", "pca16"),
    *("pca256-int8", "pca128-int8", "pca64-int8", "pca32-int8", "pca288-int4", "pca256-int4", "pca128-int4"),
)
# Of each task: the configuration in `configs/`, the data set and the data set's configuration.
TASKS = {
    "codiesp": ("codiesp_direct", "codiesp", "diagnoses_en_top50"),
    "codiesp-multirescnn": ("codiesp_multirescnn", "codiesp", "diagnoses_en_top50"),
    **{f"cmc-fold{fold}": ("cmc_direct", "cmc2007", f"fold{fold}") for fold in range(5)},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codiesp_dir", required=True)
    parser.add_argument("--cmc_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/reduction"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(3))
    parser.add_argument("--only_table", action="store_true", help="of the runs that are done")
    args = parser.parse_args(arguments)
    folder = make_folder(args.output_dir, private=True)
    data_dirs = {"codiesp": args.codiesp_dir, "cmc2007": args.cmc_dir}
    for seed in () if args.only_table else args.seeds:
        for task in args.tasks:
            for format in args.formats:
                run(task, format, seed, data_dirs[TASKS[task][1]], folder)
    rows = [row for task in args.tasks for row in rows_of(task, args.formats, args.seeds, folder)]
    write_text(json.dumps(rows, indent=2), folder / "summary.json")
    text = table(rows)
    write_text(text, folder / "table.md")
    plot(rows, folder / "reduction.png")
    print(text)
    return 0


def run(task: str, format: str, seed: int, data_dir: str, output_dir: Path) -> None:
    """Train and score one head, and measure the form that it learns from, unless that is done."""
    config, dataset, data_config = TASKS[task]
    folder = output_dir / f"{config}-{task}-{format}-seed{seed}"
    if not (folder / "results.json").exists():
        torch.set_num_threads(1)
        train_and_score(
            config,
            folder,
            data_dir,
            data_config,
            seed,
            hidden_states_format=format,
            dataset=dataset,
            disable_tqdm=True,
        )
    measured = output_dir / f"{task}-{format}.json"
    if not measured.exists():
        write_text(json.dumps(measure(folder, dataset, data_config, data_dir, format)), measured)


def measure(folder: Path, dataset: str, data_config: str, data_dir: str, format: str) -> dict[str, float]:
    """Bytes of a token, and the squared error of the states that are read back, as a share of their variance, on
    validation notes."""
    model, tokenizer = load_model(folder)
    builder = load_builder(dataset, data_config, data_dir=data_dir, cache_dir=str(folder.parent / "cache"))
    training, validation = (
        [ids for ids in tokenize_notes(tokenizer, texts_of_notes(builder.as_dataset(split=split))) if ids]
        for split in ("train", "validation")
    )
    exact, store = (HiddenStates(folder.parent / "hidden_states", model, name) for name in ("float32", format))
    store.fit(training)
    store.fill(validation)
    exact.fill(validation)
    states = torch.cat([exact.read(ids) for ids in validation]).double()
    back = torch.cat([store.read(ids) for ids in validation]).double()
    error, spread = ((states - other).square().sum().item() for other in (back, states.mean(dim=0)))
    return {"bytes": store.token_bytes, "raw_bytes": exact.token_bytes, "error": error / spread}


def rows_of(task: str, formats: Sequence[str], seeds: Sequence[int], folder: Path) -> list[dict]:
    """For each form with a finished run: its measures, and validation and test figures of every seed."""
    rows = []
    for format in formats:
        folders = [folder / f"{TASKS[task][0]}-{task}-{format}-seed{seed}" for seed in seeds]
        done = [path for path in folders if (path / "results.json").exists()]
        if done and (folder / f"{task}-{format}.json").exists():
            rows.append(
                {
                    "task": task,
                    "format": format,
                    **json.loads((folder / f"{task}-{format}.json").read_text()),
                    "validation": [best_validation(path) for path in done],
                    "test": [json.loads((path / "results.json").read_text())["metrics"]["f1_micro"] for path in done],
                }
            )
    return rows


def best_validation(folder: Path) -> float:
    """The best micro-F1 on validation notes of a run's epochs."""
    log = json.loads((folder / "run.json").read_text())["log"]
    return max(entry["eval_f1_micro_tuned"] for entry in log if "eval_f1_micro_tuned" in entry)


def table(rows: Sequence[dict]) -> str:
    """The figures as Markdown."""
    lines = [
        "| task | form | bytes a token | of float32 | error | runs | F1-micro, validation | F1-micro, test |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        validation, test = (f"{np.mean(row[name]):.3f} ({np.std(row[name]):.3f})" for name in ("validation", "test"))
        lines.append(
            f"| {row['task']} | `{row['format']}` | {row['bytes']:,} | 1/{row['raw_bytes'] / row['bytes']:.0f} | "
            f"{100 * row['error']:.3g} % | {len(row['test'])} | {validation} | {test} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[dict], file: Path) -> None:
    """Validation and test F1 over the bytes of a token, one panel a task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    if not tasks:
        return
    figure, panels = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        of_task = sorted((row for row in rows if row["task"] == task), key=lambda row: row["bytes"])
        for name, marker in (("validation", "o"), ("test", "s")):
            means, spreads = ([fold(row[name]) for row in of_task] for fold in (np.mean, np.std))
            panel.errorbar([row["bytes"] for row in of_task], means, spreads, fmt=marker, label=name, capsize=2)
        for row in of_task:
            panel.annotate(row["format"], (row["bytes"], np.mean(row["test"])), fontsize=6, rotation=30)
        panel.axvline(of_task[0]["raw_bytes"] / 16, color="grey", linestyle=":", label="1/16 of float32")
        panel.set(xscale="log", xlabel="bytes a token", ylabel="F1-micro", title=task)
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(run_command(main))
