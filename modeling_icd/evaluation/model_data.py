"""Finds the data set to evaluate a model on: configuration and options are by default those of its training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts import ICDBuilder, load_builder, parse_options


def private_cache(model_id: str | Path) -> str:
    """Where built data sets go by default, which hold the notes: beside the model's folder, never in it."""
    return f"{Path(model_id)}-private/cache"


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
    data_dir: str,
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
    if split == "all":
        given["unsplit"] = True
        if dataset == "mimic4" or (dataset == "mimic3" and config not in (None, "full")):
            # The code set is the one that the model was trained for, not the most frequent codes of another folder.
            given = {name: value for name, value in given.items() if name not in ("num_codes", "codes_file")}
            given["codes"] = list(model_config.label2id)
    return load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, **given)
