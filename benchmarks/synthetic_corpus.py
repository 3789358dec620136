"""Both models and TF-IDF + LinearSVC on an invented corpus, scored on admissions that none of them saw.

    python -m benchmarks.synthetic_corpus --output_dir runs/synthetic

TF-IDF and the models are fitted on train, and each one's threshold is chosen on validation. What is done is not done again.

The backbone reads all notes before a model is done. So that something is there to see, a model is first trained on the first
admissions alone (`--first_looks`), and scored on notes among them that it has not seen: how much it learns from how few. What
the backbone has read for it is not read again.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import pipeline

from benchmarks.runs import print_summary, score_ensemble, train_and_score
from benchmarks.tfidf import evaluate_tfidf
from dataset_scripts import ICDBuilder, load_builder
from dataset_scripts.command import run_command
from dataset_scripts.counts import counted
from dataset_scripts.synthetic import LENGTHS, write_corpus


CONFIGS = ("synthetic_multirescnn", "synthetic_direct", "synthetic_direct_lora")
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "auc_micro")
FIRST_EPOCHS = 6  # of a first look: half of what the configurations have, since it is to be there soon
console = Console()


def show_note(model: Path, builder: ICDBuilder) -> None:
    """Codes one test note, and prints its codes with the words that each was read from."""
    split = builder.as_dataset(split="test")
    record = split[0]
    names = split.features["codes"].feature.names
    gold = {names[code] for code in record["codes"]}
    coder = pipeline("icd-coding", model=str(model), trust_remote_code=True)
    table = Table(title=f"Admission {record['hadm_id']} of the test split, coded by {model}")
    for column in ("code", "description", "score", "in the gold codes", "evidence"):
        table.add_column(column)
    coded = coder(record["text"])
    for code in coded:
        evidence = "; ".join(" ".join(span["text"].split()) for span in code["evidence"] or [])
        known = "yes" if code["code"] in gold else "no"
        table.add_row(code["code"], code["description"] or "", f"{code['score']:.2f}", known, evidence)
    console.print(table)
    console.print(f"Gold codes that it missed: {', '.join(sorted(gold - {code['code'] for code in coded})) or 'none'}")


def say(started: float, name: str, metrics: dict[str, float]) -> None:
    """One line for a model that is done, with the minutes and seconds since the start."""
    minutes, seconds = divmod(int(time.perf_counter() - started), 60)
    figures = ", ".join(f"{metric} {metrics[metric]:.3f}" for metric in METRICS[:2])
    console.print(f"[bold]{minutes}:{seconds:02}  {name}: {figures}[/bold]", soft_wrap=True)


def corpus_of(args: argparse.Namespace, num_admissions: int) -> Path:
    """The folder of a corpus, which is made where it is not there; a larger one has the admissions of a smaller one, too."""
    corpus = args.output_dir / f"corpus-{num_admissions}-{args.length}-{args.seed}"
    if not corpus.exists():
        write_corpus(corpus, num_admissions, args.seed, args.length, split_fractions=(0.7, 0.1, 0.2))
    return corpus


def builder_of(args: argparse.Namespace, corpus: Path) -> ICDBuilder:
    return load_builder("mimic3", args.code_set, data_dir=corpus, cache_dir=args.output_dir / "cache")


def look_first(args: argparse.Namespace, num_admissions: int, beginning: float) -> None:
    """Train on the first admissions alone, and say what has been learned; what was fitted here is used nowhere else."""
    config = args.show_note or args.configs[0]
    corpus = corpus_of(args, num_admissions)
    builder = builder_of(args, corpus)
    folder = args.output_dir / f"{config}-first-{num_admissions}"
    results = train_and_score(config, folder, str(corpus), args.code_set, 0, num_train_epochs=FIRST_EPOCHS)
    sizes = builder.info.splits
    learned, scored = (counted(sizes[name].num_examples, "note") for name in ("train", "test"))
    say(beginning, f"{config}, first look: learned from {learned}, scored on {scored}", results["metrics"])
    if args.show_note and num_admissions == min(args.first_looks):
        show_note(folder, builder)


def folder_of(output_dir: Path, config: str, seed: int) -> Path:
    """Where the model of a configuration and a training seed lies; that of seed 0 has the configuration's name."""
    return output_dir / (f"{config}-seed{seed}" if seed else config)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/synthetic"))
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="names of files in configs/")
    parser.add_argument("--num_admissions", type=int, default=1000)
    parser.add_argument("--length", choices=LENGTHS, default="short", help="of the notes")
    parser.add_argument("--code_set", choices=("full", "top50"), default="top50")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of training")
    parser.add_argument(
        "--show_note", metavar="CONFIG", help="code one test note with the model of this configuration"
    )
    parser.add_argument(
        "--first_looks", nargs="*", type=int, default=[80, 160, 280], help="numbers of admissions to look at first"
    )
    args = parser.parse_args(arguments)
    beginning = time.perf_counter()
    corpus = corpus_of(args, args.num_admissions)
    builder = builder_of(args, corpus)
    figures: dict[str, list[dict[str, float]]] = {}
    for name, strong in (("tfidf_linearsvc", False), ("tfidf_strong", True)):
        started = time.perf_counter()
        metrics = evaluate_tfidf(builder, tune_threshold=True, strong=strong)
        figures[name] = [{**metrics, "seconds": time.perf_counter() - started}]
        say(beginning, name, metrics)
    for num_admissions in args.first_looks:
        if num_admissions < args.num_admissions:
            look_first(args, num_admissions, beginning)
    folders = {config: [folder_of(args.output_dir, config, seed) for seed in args.seeds] for config in args.configs}
    for config in args.configs:
        for folder, seed in zip(folders[config], args.seeds, strict=True):
            results = train_and_score(config, folder, str(corpus), args.code_set, seed)
            figures.setdefault(config, []).append({**results["metrics"], "seconds": results["training_seconds"]})
            say(beginning, folder.name, results["metrics"])
        if len(args.seeds) > 1:
            figures[f"{config} x {len(args.seeds)}"] = [score_ensemble(folders[config], config, str(corpus))]
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    title = f"Synthetic corpus, {args.code_set}, notes {sizes}, training seeds {args.seeds}: the test split"
    print_summary(figures, METRICS, title, args.output_dir / "summary.json")
    if args.show_note:
        show_note(args.output_dir / args.show_note, builder)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
