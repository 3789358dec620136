"""Compares settings on the CMC 2007 reports without their test folds: five inner folds over the reports outside of each one.

    python -m benchmarks.cmc_nested cmc_direct --data_dir DIR --output_dir runs/cmc_nested
    python -m benchmarks.cmc_nested cmc_direct --data_dir DIR --output_dir runs/cmc_nested --options head_dropout=0.5

Every report outside of a test fold is predicted once, by a model that has not seen it, at the threshold that is best on the
other inner folds. So each fold gives about 620 predictions in place of the 75 of its validation split, by which small gains
cannot be told from chance. The test folds are never read. What is done is not trained again.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.special import expit
from transformers import AutoTokenizer, set_seed
from trl import TrlParser

from benchmarks.runs import print_summary
from dataset_scripts.command import run_command
from dataset_scripts.files import make_folder, write_text
from modeling_icd.evaluation import ICDMetricsAccumulator, tune_bagged_threshold
from modeling_icd.inference.tokens import texts_of_notes
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.collator import ICDCollator, multi_hot
from modeling_icd.training.models import build_model
from modeling_icd.training.notes import build_dataset, describe_training_data, readable_notes
from modeling_icd.training.run import fill_store, find_backbone, ready_to_learn
from modeling_icd.training.trainer import make_trainer, predict_split


INNER_FOLDS = 5
METRICS = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "auc_micro", "map")


class Setting:
    """A configuration of `configs/` with other values of some options, on one fold of the data set.

    Args:
        config (`str`): the file's name.
        options (`Sequence[str]`): NAME=VALUE.
        train_share (`float`): share of the reports of each inner fold's training part to learn from.
    """

    def __init__(
        self, config: str, options: Sequence[str], fold: int, data_dir: str, folder: Path, train_share: float = 1.0
    ):
        parser = TrlParser([ModelArguments, DataArguments, ICDTrainingArguments])
        given = [f"--{option}" for option in options]
        given += [f"--data_dir={data_dir}", f"--dataset_config=fold{fold}", f"--output_dir={folder}"]
        given += ["--eval_strategy=no", "--load_best_model_at_end=false", "--disable_tqdm=true"]
        self.model_args, self.data_args, self.args = parser.parse_args_and_config(
            ["--config", f"configs/{config}.yaml", *given]
        )
        self.builder = build_dataset(self.data_args, folder / "cache")
        splits = [self.builder.as_dataset(split=name) for name in ("train", "validation")]
        self.reports = datasets.concatenate_datasets(splits)
        self.gold = multi_hot(list(self.reports["codes"]), self.builder.info.features["codes"].feature.num_classes)
        self.fold, self.folder, self.train_share = fold, folder, train_share
        self.names = self.reports.features["codes"].feature.names

    def inner_folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows of the reports to learn from, and of those to predict."""
        gold = self.gold.numpy().astype(int)
        folds = MultilabelStratifiedKFold(n_splits=INNER_FOLDS, shuffle=True, random_state=100 + self.fold)
        return list(folds.split(gold, gold))

    def logits(self, learned: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
        """Train a model on some rows; its logits of others, one column for each code of the data set."""
        self.args.seed = seed
        set_seed(seed)
        learned = learned[: round(self.train_share * len(learned))]
        splits = [self.reports.select(rows) for rows in (learned, held_out)]
        training_data = describe_training_data(self.data_args, self.builder, splits[:1])
        codes = list(training_data["code_counts"])
        backbone = find_backbone(self.model_args, self.args, lambda: texts_of_notes(splits[0]), self.folder)
        tokenizer = AutoTokenizer.from_pretrained(backbone)
        model = build_model(self.model_args, backbone, codes, self.builder.code_descriptions, training_data)
        parts = [readable_notes(split, tokenizer, model.config.label2id, "CMC") for split in splits]
        states, tokens = self.data_args.hidden_states_format, [part.tokens for part in parts]
        store = fill_store(self.folder / "hidden_states", model, states, tokens, self.args)
        model = ready_to_learn(model, self.model_args, parts[0].tokens, store, tokenizer, self.args)
        trainer = make_trainer(model, self.args, parts[0].tokens, None, ICDCollator(len(codes), 0, store), tokenizer)
        trainer.train()
        logits = np.full((len(held_out), len(self.names)), -20.0, dtype=np.float32)  # of a code that was not learned
        logits[:, [self.names.index(code) for code in codes]] = predict_split(trainer, parts[1].tokens)
        return logits


def judge(logits: Sequence[np.ndarray], gold: Sequence[np.ndarray]) -> dict[str, float]:
    """Metrics of all inner folds together, each at the threshold that is best on the other ones.

    Scores are moved so that this threshold is 0.5 in every one of them.
    """
    accumulator = ICDMetricsAccumulator(gold[0].shape[1], threshold=0.5)
    for number, (of_fold, labels) in enumerate(zip(logits, gold, strict=True)):
        others = [i for i in range(len(logits)) if i != number]
        scores = expit(np.concatenate([logits[i] for i in others]))
        threshold = tune_bagged_threshold(scores, np.concatenate([gold[i] for i in others]))
        accumulator.add_batch(expit(of_fold - np.log(threshold / (1 - threshold))).astype(np.float32), labels)
    return accumulator.compute()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of a file in configs/")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/cmc_nested"))
    parser.add_argument(
        "--options", nargs="+", default=[], help="options of `modeling-icd train` that differ, as NAME=VALUE"
    )
    parser.add_argument(
        "--folds", nargs="+", type=int, default=range(1, 5), help="test folds to leave out, each in turn"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--train_share", type=float, default=1.0, help="share of the training reports to learn from")
    args = parser.parse_args(arguments)
    folder = make_folder(args.output_dir, private=True)
    setting = {"config": args.config, "options": sorted(args.options), "train_share": args.train_share}
    # Logits are kept by the setting and the file that it changes; after a change of the code begin with a new folder.
    described = json.dumps(setting) + Path(f"configs/{args.config}.yaml").read_text()
    name = f"{args.config}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
    write_text(json.dumps(setting, indent=2), folder / f"{name}.json")
    figures: dict[str, list[dict]] = {args.config: []}
    for fold in args.folds:
        task = Setting(args.config, args.options, fold, args.data_dir, folder, args.train_share)
        inner = task.inner_folds()
        gold = [task.gold[rows].numpy() for _, rows in inner]
        of_seeds = []
        for seed in args.seeds:
            file = folder / f"{name}-fold{fold}-seed{seed}.npz"
            if not file.exists():
                found = [task.logits(learned, held_out, seed) for learned, held_out in inner]
                np.savez(file, *found)
            stored = np.load(file)
            of_seeds.append([stored[f"arr_{i}"] for i in range(INNER_FOLDS)])
            figures[args.config].append(judge(of_seeds[-1], gold))
        if len(of_seeds) > 1:
            together = [np.mean(logits, axis=0) for logits in zip(*of_seeds, strict=True)]
            figures.setdefault(f"{args.config} x {len(of_seeds)}", []).append(judge(together, gold))
    title = f"CMC 2007, inner folds without the test folds {list(args.folds)}, seeds {list(args.seeds)}; {setting}"
    print_summary(figures, METRICS, title, folder / f"{name}-summary.json")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
