"""What a model says of itself, and the data set that it is held against: by default that of its training, as read then."""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
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
        ValueError: where the configuration holds what cannot be.
    """
    try:
        return AutoConfig.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except StrictDataclassError as error:
        raise ValueError(f"{model_id}: config.json holds a wrong value. {first_line(error)}") from None
    except ValueError as error:  # of our configuration class
        raise ValueError(f"{model_id}: {error}") from None
    except OSError as error:
        if Path(model_id).is_dir():
            raise
        raise FileNotFoundError(
            f"{model_id} is not a folder, nor a model that the Hub, or the cache of what came from it, could give: is the "
            f"path right? ({first_line(error)})"
        ) from None


def load_coder_config(model_id: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model that codes, each column of its scores one code; raises as [`load_config`] does.

    Checked here, too, and not only in our configuration class: a model may bring a class of its own.
    """
    config = load_config(model_id, trust_remote_code)
    check_codes(config, model_id)
    return config


def check_codes(config: PretrainedConfig, model_id: str | Path) -> None:
    """Raise a `ValueError` where the columns of a model's scores are not each one code, and each code one column."""
    id2label, label2id = config.id2label, config.label2id
    where = f"{model_id}: `id2label` in config.json"
    if not id2label:
        return
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(f"{where} must number its codes from 0 to {len(id2label) - 1}: copy it from training again.")
    repeated = [code for code, count in Counter(id2label.values()).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{where} gives {len(repeated)} codes to more than one column, e.g. {repeated[:3]}, so that figures of a code "
            "cannot be told: copy it from training again."
        )
    if label2id != {code: i for i, code in id2label.items()}:
        raise ValueError(
            f"{where} and `label2id` disagree about which code a column is: copy both from training again."
        )


def load_model(
    model_id: str | Path, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model to score with, on the GPU where there is one, and its tokenizer; raises as [`load_config`] does.

    Raises:
        ValueError: where two columns are one code; where weights are damaged, missing, left over or of another shape than the configuration says: a model
            whose head is newly initialised, or which reads half of its weights, would be evaluated without a word.
    """
    load_coder_config(model_id, trust_remote_code)
    with _readable(model_id, "weights"):
        model, info = _load_weights(model_id, trust_remote_code)
    check_loaded(info, model_id)
    with _readable(model_id, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def _load_weights(model_id: str | Path, trust_remote_code: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "output_loading_info": True}
    # Weights that do not fit are named by `check_loaded`, those of any model in the same words.
    return AutoModelForSequenceClassification.from_pretrained(model_id, ignore_mismatched_sizes=True, **options)


def check_loaded(info: Mapping[str, Any], model_id: str | Path) -> None:
    """Raise a `ValueError` where `from_pretrained` says that weights and configuration do not belong together."""
    faults = {
        "mismatched_keys": "have another shape in its weights than by config.json, e.g. for another number of codes",
        "missing_keys": "are not in its weights, so they would be random",
        "unexpected_keys": "are in its weights and have no place in the model",
    }
    for kind, fault in faults.items():
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(kind) or ())
        if names:
            raise ValueError(
                f"{model_id}: {len(names)} parameters {fault}: {', '.join(names[:3])}{' ...' if names[3:] else ''}. config.json "
                "and the weights are not of one model: copy both from the same training run."
            )


@contextlib.contextmanager
def _readable(model_id: str | Path, what: str) -> Iterator[None]:
    """Turn whatever a reader of files raises over a damaged one into a `ValueError` that names the file where it can."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # safetensors, pickle, json and tokenizers have their own, the last a plain Exception
        for path in sorted(Path(model_id).glob("*.safetensors")) if what == "weights" else ():
            try:
                with safe_open(path, "pt"):
                    pass
            except (SafetensorError, OSError) as damage:
                raise ValueError(
                    f"{path} is cut short or damaged ({first_line(damage)}): copy or download it again."
                ) from None
        raise ValueError(
            f"{model_id}: the {what} cannot be loaded, since files of the folder are missing, damaged or not of one model: "
            f"copy it from the training run again. ({first_line(error)})"
        ) from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line; libraries add advice of many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that scores notes; each is taken under `train.py`'s name, too."""
    parser.add_argument(
        "--cache_dir", "--data_cache_dir", help="where the built data set goes; default: MODEL-private/cache"
    )
    parser.add_argument(
        "--batch_size", "--per_device_eval_batch_size", type=int, default=8, help="notes scored together; default: 8"
    )


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
