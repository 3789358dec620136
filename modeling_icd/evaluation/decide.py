"""Fits again how scores become codes, on the validation split, and writes it into the model's config.json.

    modeling-icd decide runs/mine --data_dir DIR --threshold_rule per_code

Training has fitted calibration, thresholds and what is to be reviewed; this replaces them. The weights do not change, and no
other split is read. Results measured before belong to the old decision: evaluate the model again.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from datasets.exceptions import DatasetsError
from transformers import HfArgumentParser, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dataset_scripts.arguments import PROGRAM, HelpFormatter, add_data_options, with_files
from dataset_scripts.builders.public_files import is_invented
from dataset_scripts.command import run_command
from dataset_scripts.files import check_writable, read_json, write_json

from ..decision_icd import RULES, threshold_value
from ..inference.hidden_states import HiddenStates
from ..inference.learned_notes import check_overlap, warn_of_learned
from ..inference.loading import ReaderArguments, load_coder_config, load_model, reader_arguments
from ..inference.loop import check_tokens, logits_of_tokens
from ..inference.model_folder import RUN_FILE, read_run
from ..inference.processes import first_process_first, run_in_processes, this_process
from ..inference.tokens import texts_of_notes, tokenize_notes
from .decisions import DecisionArguments, check_notes, fit_decision
from .icd_metrics.inputs import ClassIds
from .model_data import builder_for, private_cache
from .scoring import add_shared_options, count_empty, gold_columns


def refit_decision(
    folder: Path,
    data_dir: str,
    args: DecisionArguments,
    *,
    options: Sequence[str] = (),
    cache_dir: str | None = None,
    batch_size: int = 8,
    make_store: Callable[..., HiddenStates] | None = None,
    reader: ReaderArguments | None = None,
) -> dict[str, Any]:
    """Fit a decision on the validation split of the data that a model was trained on, and write it to the model's folder.

    Args:
        folder (`Path`): The `output_dir` of a training run.
        data_dir (`str`): The files of the data set that it was trained on.
        options, make_store, reader (*optional*): As in [`~modeling_icd.evaluation.scoring.score_split`].

    Several processes share the notes; the first one writes.

    Returns:
        The fields that `fit_decision` gives.

    Raises:
        FileNotFoundError: where there is no such folder.
        ValueError: where the model does not say what it was trained on, or has learned from the validation notes too.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"No {folder / 'config.json'}: give the `output_dir` of a training run.")
    check_writable(folder / "config.json")
    config = load_coder_config(folder)
    trained_on = config.training_data or {}
    if "dataset" not in trained_on:
        raise ValueError(f"{folder} does not say what it was trained on, so its validation notes are not known.")
    run = read_run(folder)
    if run.get("training", {}).get("refit_on_validation"):
        raise ValueError(
            f"{folder} has learned from its validation notes (`refit_on_validation`): a decision that is fitted on them now "
            "would take them for easier than new ones. Train again with the options given here."
        )
    if args.calibration == "platt" and not training_counts(config):
        raise ValueError(f"{folder} does not say how many training notes each code had, which `platt` needs.")
    cache_dir = cache_dir or private_cache(folder)
    builder = first_process_first(
        lambda: builder_for(config, trained_on["dataset"], data_dir, "validation", None, options, cache_dir)
    )
    records = builder.as_dataset(split="validation")
    about = {"dataset": trained_on["dataset"], "config": builder.config.name, "split": "validation"}
    if not check_overlap(folder, records, **about, is_synthetic=is_invented(builder), allow=True):
        warn_of_learned(folder, texts_of_notes(records))
    model, tokenizer = load_model(folder, reader=reader)
    notes = notes_to_decide_on(records, tokenizer, config.label2id, args)  # now, not after scoring
    store = make_store(model) if make_store is not None and config.has_fixed_states else None
    decision = fit_decision_on(model, tokenizer, notes, args, batch_size=batch_size, store=store)
    if this_process()[0] > 0:  # the first one writes
        return decision
    if run:  # which says how to train such a model
        run["training"] |= {field.name: getattr(args, field.name) for field in fields(DecisionArguments)}
        write_json(run, folder / RUN_FILE)
    write_json(read_json(folder / "config.json", "train again.") | decision, folder / "config.json")
    return decision


class NotesToDecideOn(NamedTuple):
    """Validation notes that have a token, as [`notes_to_decide_on`] finds them fit for a decision."""

    input_ids: list[list[int]]
    gold: ClassIds  # codes of each note that the model knows
    num_unknown: list[int]  # codes of each note that it does not know


def notes_to_decide_on(
    notes: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, label2id: dict[str, int], args: DecisionArguments
) -> NotesToDecideOn:
    """Choose the notes that a model can read, and see that a decision can be fitted on them.

    Of notes without text, or without a word that a word model knows, a model knows nothing, and a decision must not be fitted to
    that.

    Args:
        notes (`datasets.Dataset`): with `text`, and `codes` as strings or ids; see
            [`~modeling_icd.inference.tokens.code_reader`].

    Raises:
        ValueError: where no note has a token, or the tokenizer is another model's; where no code is one that the model knows, or
            the rule promises what these notes cannot show.
    """
    texts = texts_of_notes(notes)
    input_ids = tokenize_notes(tokenizer, texts)
    check_tokens(input_ids, texts, may_lack=True)
    is_empty = np.array([not ids for ids in input_ids], bool)
    check_readable(int(is_empty.sum()), len(texts), args)
    if is_empty.any():
        print(f"Validation: {count_empty(is_empty, texts)}; the decision is fitted without them.")
    rows = np.flatnonzero(~is_empty)
    columns, _ = gold_columns(notes.select(rows), label2id)
    gold = ClassIds([column for column in of_note if column < len(label2id)] for of_note in columns)
    num_unknown = [len(of_note) - len(known) for of_note, known in zip(columns, gold, strict=True)]
    check_notes(gold, args, num_unknown)
    return NotesToDecideOn([input_ids[row] for row in rows], gold, num_unknown)


def check_readable(num_empty: int, num_notes: int, args: DecisionArguments) -> None:
    """Raise a `ValueError` where no note has text, or where the rule promises something, which an empty note would break."""
    if num_empty and (RULES[args.threshold_rule].promises or num_empty == num_notes):
        raise ValueError(
            f"{num_empty} of {num_notes} validation notes are empty, so no decision with `threshold_rule` "
            f"{args.threshold_rule!r} can be fitted: take them out of the data set."
        )


def fit_decision_on(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    notes: datasets.Dataset | NotesToDecideOn,
    args: DecisionArguments | None = None,
    *,
    batch_size: int = 8,
    store: HiddenStates | None = None,
) -> dict[str, Any]:
    """Fit how a model decides on any notes with codes that it has not learned from, and write it into its configuration.

    Save the model afterwards, or its `config` alone, to keep the decision.

    Args:
        notes (`datasets.Dataset`): see [`notes_to_decide_on`], also on what is raised.
        args (`DecisionArguments`, *optional*): what to fit; by default one threshold, for the best micro F1.
        batch_size (`int`): notes scored together.
        store (`HiddenStates`, *optional*): where hidden states of a frozen backbone are kept from run to run.

    Returns:
        The fields that [`~modeling_icd.evaluation.decisions.fit_decision`] gives.
    """
    args = DecisionArguments() if args is None else args
    if not isinstance(notes, NotesToDecideOn):
        notes = notes_to_decide_on(notes, tokenizer, model.config.label2id, args)
    decision = fit_decision(
        logits_of_tokens(model, notes.input_ids, batch_size, store),
        notes.gold,
        args,
        training_counts=training_counts(model.config),
        num_unknown=notes.num_unknown,
    )
    model.config.update(decision)
    return decision


def training_counts(config: PretrainedConfig) -> list[int] | None:
    """How many training notes each code of a model had, `(C,)`; `None` where its configuration does not say."""
    counts = (getattr(config, "training_data", None) or {}).get("code_counts")
    return counts and [counts.get(config.id2label[i], 0) for i in range(config.num_labels)]


def main(arguments: list[str] | None = None) -> int:
    parser = HfArgumentParser(
        DecisionArguments,
        prog=f"{PROGRAM} decide",
        usage=f"{PROGRAM} decide MODEL [--data_dir DIR] [--threshold_rule RULE] [options]",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("model", type=Path, help="the `output_dir` of a training run")
    add_data_options(parser, files=("train_file", "validation_file"))
    add_shared_options(parser)
    return run_command(lambda: run_in_processes(lambda: decide(parser, arguments)), DatasetsError)


def decide(parser: HfArgumentParser, arguments: list[str] | None) -> int:
    """What the command line asks for."""
    args, paths = parser.parse_args_into_dataclasses(arguments)
    decision = refit_decision(
        paths.model,
        paths.data_dir,
        args,
        options=with_files(paths.dataset_options, paths),
        cache_dir=paths.cache_dir,
        batch_size=paths.batch_size,
        reader=reader_arguments(paths),
    )
    print(f"{paths.model / 'config.json'}: rule {decision['threshold_rule']}, threshold {threshold_value(decision)}")
    print("Results measured before are of the old decision: evaluate the model again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
