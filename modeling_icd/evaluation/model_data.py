"""Finds the data set to evaluate a model on: configuration and options are by default those of its training."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts import ICDBuilder, load_builder, parse_options
from dataset_scripts.arguments import FILE_OPTIONS, with_files


def private_cache(model_id: str | Path) -> str:
    """Where built data sets go by default, which hold the notes: beside the model's folder, never in it."""
    return f"{Path(model_id)}-private/cache"


def name_data(args: argparse.Namespace, training_data: Mapping[str, Any] | None) -> None:
    """Complete what a command line says of the data: files become options of the data set, which is by default `files` where
    one is given, and elsewhere the one that the model was trained on.

    Args:
        args (`argparse.Namespace`): with the options of `add_data_options`; it is changed.
        training_data (`Mapping[str, Any]`, *optional*): of the model's configuration.

    Raises:
        ValueError: where it is not said which data set is meant, or where its files are.
    """
    options = with_files(args.dataset_options, args)
    has_file = len(options) > len(args.dataset_options)
    args.dataset = args.dataset or ("files" if has_file else (training_data or {}).get("dataset"))
    args.dataset_options = options
    if args.dataset is None:
        raise ValueError(f"{args.model} does not say what it was trained on: name the data set with `--dataset`.")
    if not args.data_dir and not any(pair.partition("=")[0] in FILE_OPTIONS for pair in options):
        raise ValueError(
            f"`--data_dir` is missing: name the folder that holds the files of the data set {args.dataset!r}"
            + (", or a file, such as `--test_file`." if args.dataset == "files" else ".")
        )


def as_in_training(
    training_data: Mapping[str, Any] | None, dataset: str, config: str | None, options: Sequence[str] = ()
) -> tuple[str | None, list[str]]:
    """Configuration of a data set and its options, `NAME=VALUE`: where they are those of training, the options are too.

    Args:
        training_data (`Mapping[str, Any]`, *optional*): of the model's configuration.
        dataset (`str`): its name.
        config (`str`, *optional*): asked for; by default the one that the model was trained on, if that was this data set.
        options (`Sequence[str]`): asked for; they come after those of training, and so win.
    """
    trained_on = training_data or {}
    if trained_on.get("dataset") == dataset and config in (None, trained_on["config"]):
        return trained_on["config"], [*trained_on.get("options", []), *options]
    return config, list(options)


def builder_for(
    model_config,
    dataset: str,
    data_dir: str | None,
    split: str,
    config: str | None = None,
    options: Sequence[str] = (),
    cache_dir: str | None = None,
) -> ICDBuilder:
    """The data set to evaluate a model on; by default with the configuration and options of its training.

    The arguments are those of [`~modeling_icd.evaluation.scoring.score_split`].
    """
    config, options = as_in_training(model_config.training_data, dataset, config, options)
    given = parse_options(dataset, options, "--dataset_options")
    if dataset == "files" and given.keys() & {"num_codes", "min_count"}:
        # These count train notes, which need not be there: the code set is the one that the model was trained for.
        given = {name: value for name, value in given.items() if name not in ("num_codes", "min_count")}
        given["codes"] = list(model_config.label2id)
    if split == "all":
        given["unsplit"] = True
        if dataset == "mimic4" or (dataset == "mimic3" and (config not in (None, "full") or "min_count" in given)):
            # The code set is the one that the model was trained for, not the most frequent codes of another folder.
            given = {
                name: value for name, value in given.items() if name not in ("num_codes", "codes_file", "min_count")
            }
            given["codes"] = list(model_config.label2id)
    return load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, **given)
