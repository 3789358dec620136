"""Measures membership inference: how much a model's scores reveal of which notes it was trained on.

    modeling-icd membership runs/mine --data_dir DIR

Can one tell from a model's scores which notes it was trained on? Two attacks are tried by someone who has a note, its codes
and the model's scores. Loss-based (arXiv 1709.01604): a note with a low loss is taken for a training note. Reference-based
(difficulty calibration, arXiv 2111.08440): the same after subtracting the loss of a TF-IDF model that has not read the note,
since some notes are easy for any model. An AUC of 0.5 is chance.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetsError
from sklearn.feature_extraction.text import TfidfVectorizer

from dataset_scripts import BUILDERS, ICDBuilder
from dataset_scripts.arguments import add_data_options, command_parser
from dataset_scripts.command import run_command
from dataset_scripts.files import check_writable, write_json

from ..evaluation.model_data import builder_for, name_data, private_cache
from ..evaluation.results import MEMBERSHIP_FILE
from ..evaluation.scoring import add_shared_options, gold_columns, score_notes
from ..inference.loading import load_model, reader_arguments
from ..inference.model_folder import read_run, weights_digest


NUM_FOLDS, NUM_RESAMPLES = 5, 1000
RIDGE = 1.0
# Scores nearer to 0 or 1 than this count as this near: one confident miss must not decide over a note's mean loss.
LEAST_SCORE = 1e-4


def note_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean binary cross-entropy of each note, `(N,)`, of scores and 0/1 labels, both `(N, C)`."""
    scores = np.clip(scores.astype(np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    return -np.where(labels > 0, np.log(scores), np.log1p(-scores)).mean(axis=1)


def reference_losses(notes: list[str], labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Loss of each note `(N,)` under a model that was fitted on the other folds, so that it has read no note that it scores.

    The model is a ridge regression of the labels `(N, C)` on TF-IDF, solved for all codes at once.
    """
    features = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit_transform(notes)
    similarity = np.asarray((features @ features.T).todense())
    fold = np.random.default_rng(seed).permutation(len(notes)) % NUM_FOLDS
    scores = np.zeros(labels.shape)
    for i in range(NUM_FOLDS):
        fitted, held_out = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
        mean = labels[fitted].mean(axis=0)
        kernel = similarity[np.ix_(fitted, fitted)] + RIDGE * np.eye(len(fitted))
        weights = np.linalg.solve(kernel, labels[fitted] - mean)
        scores[held_out] = mean + similarity[np.ix_(held_out, fitted)] @ weights
    return note_losses(scores, labels)


def auc_with_interval(members: np.ndarray, unseen: np.ndarray, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """How often a training note gets the higher value than an unseen one (a tie counts half), and a 95% interval.

    The interval is the percentile one over resamples of both groups of notes, drawn apart.
    """
    wins = (members[:, None] > unseen).astype(np.float32) + 0.5 * (members[:, None] == unseen)
    generator = np.random.default_rng(seed)
    draws = [
        generator.multinomial(n, np.full(n, 1 / n), size=NUM_RESAMPLES).astype(np.float32) / n for n in wins.shape
    ]
    resampled = ((draws[0] @ wins) * draws[1]).sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(wins.mean()), (float(low), float(high))


def measure_membership(args: argparse.Namespace) -> dict[str, Any]:
    """Attack a model with notes that it was trained on and notes that it was not.

    Args:
        args: Of the command line, with `model`, the `output_dir` of a training run, and `data_dir`, the files of the data set
            that it was trained on.

    Returns:
        What `membership.json` holds: counts, both AUCs and their intervals; nothing of a single note.

    Raises:
        ValueError: where the model does not say what it was trained on, the split is one that it was trained on after
            `refit_on_validation`, or there are fewer notes than folds.
    """
    digest = weights_digest(args.model)
    model, tokenizer = load_model(args.model, reader=reader_arguments(args))
    name_data(args, model.config.training_data)
    cache_dir = args.cache_dir or private_cache(args.model)
    builder = builder_for(
        model.config, args.dataset, args.data_dir, "train", args.dataset_config, args.dataset_options, cache_dir
    )
    groups = draw_notes(builder, args.split, read_run(args.model), args.num_notes, args.seed)
    sizes = [len(group) for group in groups]
    notes = [note for group in groups for note in group["text"]]
    labels = np.zeros((len(notes), model.config.num_labels))
    for row, columns in enumerate(c for group in groups for c in gold_columns(group, model.config.label2id)[0]):
        labels[row, [c for c in columns if c < model.config.num_labels]] = 1  # other codes have no score
    losses = note_losses(score_notes(model, tokenizer, notes, args.batch_size), labels)
    calibrated = losses - reference_losses(notes, labels, args.seed)
    results: dict[str, Any] = {"dataset": args.dataset, "config": builder.config.name, "split": args.split}
    results |= {"num_members": sizes[0], "num_unseen": sizes[1], "seed": args.seed, "weights": digest}
    for name, values in (("loss", losses), ("reference", calibrated)):
        auc, interval = auc_with_interval(-values[: sizes[0]], -values[sizes[0] :], args.seed)
        results |= {f"{name}_auc": auc, f"{name}_interval": interval}
    return results


def draw_notes(
    builder: ICDBuilder, split: str, run: Mapping[str, Any], num_notes: int, seed: int
) -> list[datasets.Dataset]:
    """Records that a run was trained on, and records of `split`; at most `num_notes` of each, drawn at random."""
    learned, unseen = builder.as_dataset(split="train"), builder.as_dataset(split=split)
    learned = learned.select(range(min(len(learned), run.get("data", {}).get("max_train_notes") or len(learned))))
    if run.get("training", {}).get("refit_on_validation"):
        if split == "validation":
            raise ValueError("The model was trained on validation too (`refit_on_validation`): take `--split test`.")
        learned = datasets.concatenate_datasets([learned, builder.as_dataset(split="validation")])
    generator = np.random.default_rng(seed)
    groups = [
        records.select(np.sort(generator.permutation(len(records))[:num_notes])) for records in (learned, unseen)
    ]
    sizes = [len(group) for group in groups]
    if min(sizes) < NUM_FOLDS:
        raise ValueError(f"{sizes[0]} training notes and {sizes[1]} others are too few: at least {NUM_FOLDS} of each.")
    return groups


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("membership", __doc__)
    parser.add_argument("model", type=Path, help="the `output_dir` of a training run; membership.json goes there")
    add_data_options(parser, list(BUILDERS))
    parser.add_argument(
        "--split", default="test", help="split of the notes that the model has not seen; default: test"
    )
    parser.add_argument(
        "--num_notes", type=int, default=2000, help="maximal number of seen and of unseen notes; default: 2000"
    )
    add_shared_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws, folds and resamples")
    args = parser.parse_args(arguments)
    return run_command(lambda: report(args), DatasetsError)


def report(args: argparse.Namespace) -> int:
    """Measures, and writes what was measured."""
    check_writable(args.model / MEMBERSHIP_FILE)
    results = measure_membership(args)
    write_json(results, args.model / MEMBERSHIP_FILE)
    print(f"{results['num_members']} training notes, {results['num_unseen']} of {args.split}; AUC, 95% interval:")
    for name in ("loss", "reference"):
        low, high = results[f"{name}_interval"]
        print(f"  {name}-based  {results[f'{name}_auc']:.3f}  {low:.3f} to {high:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
