"""What a model says of itself, and the data set that it is held against: by default that of its training, as read then."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dataset_scripts import ICDBuilder, load_builder, parse_options
from dataset_scripts.files import read_json


RUN_FILE = "run.json"


def load_config(model_id: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model; loaded first, so that a wrong path is one message that names it.

    Raises:
        FileNotFoundError: where there is no such folder, and no such model of the Hub within reach.
    """
    try:
        return AutoConfig.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except OSError as error:
        if Path(model_id).is_dir():
            raise
        raise FileNotFoundError(
            f"{model_id} is not a folder, nor a model that the Hub, or the cache of what came from it, could give: is the "
            f"path right? ({str(error).splitlines()[0]})"
        ) from None


def load_model(
    model_id: str | Path, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model to score with, on the GPU where there is one, and its tokenizer; raises as [`load_config`] does."""
    load_config(model_id, trust_remote_code)
    model = AutoModelForSequenceClassification.from_pretrained(model_id, trust_remote_code=trust_remote_code).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model, AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)


def read_run(folder: Path) -> dict[str, Any]:
    """A model folder's `run.json`, which says how it was trained; empty where there is none."""
    path = folder / RUN_FILE
    return read_json(path, "train again.") if path.is_file() else {}


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
    """The data set that a model is held against; by default in the configuration, with the options, of its training.

    The arguments are those of [`~modeling_icd.evaluation.cli.score_split`].
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
