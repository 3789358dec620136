"""Finds the configuration files that come with this project by their names, and prints the help of `modeling-icd train`."""

import argparse
import importlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import yaml

from dataset_scripts import BUILDERS
from dataset_scripts.arguments import PROGRAM, HelpFormatter

from ..decision_icd import RULES
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments


CHECKOUT = Path(__file__).parents[2] / "configs"
PATTERNS = ("*.yaml", "heads/*.yaml", "peers/*.yaml")  # the others are for other programs
# Models that have a training of their own: the value of `model` in a configuration, and the module whose `run(arguments)` trains it.
OTHER_TRAININGS: dict[str, str] = {
    "fusion": "modeling_icd.training.fusion",
    "generative": "modeling_icd.generative.training",
}
USAGE = f"{PROGRAM} train CONFIG [--data_dir DIR] [--output_dir DIR] [any option]"
# The options that most users need, some in words of their own; `--help_all` lists the others.
SHOWN = {
    "dataset": f"{', '.join(name for name in BUILDERS if name != 'files')}, or files (where a file is given)",
    **dict.fromkeys(("data_dir", "train_file", "validation_file", "test_file", "dataset_config")),
    "dataset_options": "NAME=VALUE ..., e.g. `text_column=report` of `files`",
    "output_dir": "where the model goes; what holds notes goes to OUTPUT_DIR-private",
    "backbone": "folder or Hub id of a checkpoint, `smollm2`, or `words`",
    "model": "`direct`, `multirescnn`, `generic` (any `head`), `generative`, or of words: "
    "`word_multirescnn`, `caml`, `laat`, `cnn`, `gru`",
    **dict.fromkeys(("freeze_backbone", "lora_r")),
    "num_train_epochs": "how often all notes are read",
    "learning_rate": "its highest value",
    "per_device_train_batch_size": "notes of a step, on each device",
    "threshold_rule": f"how codes are decided on: {', '.join(RULES)}",
    "calibration": "how logits become scores: `none`, `temperature` or `platt`",
    "resume_from_checkpoint": "`last`: go on with an interrupted run",
    "overwrite_output_dir": "replace what an earlier run left in OUTPUT_DIR",
}


def configs() -> dict[str, Path]:
    """The configuration files of this project by their names; one of a published model has the name of its folder, too."""
    folder, files = CHECKOUT, [path for pattern in PATTERNS for path in sorted(CHECKOUT.glob(pattern))]
    if not files:
        with suppress(metadata.PackageNotFoundError):
            listed = [Path(str(file.locate())) for file in metadata.files("modeling-icd") or ()]
            files = [
                path
                for pattern in PATTERNS
                for path in sorted(listed)
                if path.match(f"modeling-icd/configs/{pattern}")
            ]
            folder = files[0].parent if files else CHECKOUT
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find_config(given: str) -> Path:
    """The file that is meant by a path, or by the name of a configuration of this project.

    Raises:
        FileNotFoundError: where there is neither; it lists the names that there are.
    """
    path = Path(given)
    if path.is_file():
        return path
    known = configs()
    if given in known:
        return known[given]
    raise FileNotFoundError(f"No configuration file {given}, and none of that name: choose from {', '.join(known)}.")


def trainer_of(arguments: list[str]) -> Callable[[list[str]], int] | None:
    """What trains the model that a configuration names, if it has a training of its own; see `OTHER_TRAININGS`.

    Args:
        arguments (`list[str]`): of `train`, its configuration file found.
    """
    model = given_field(arguments, "model")
    if model not in OTHER_TRAININGS:
        return None
    return importlib.import_module(OTHER_TRAININGS[model]).run


def given_field(arguments: list[str], name: str) -> str | None:
    """The text that a command line, or else its configuration file, gives for a field; `None` where neither does. For a choice that
    must be known before all fields are read.

    Raises:
        ValueError: where the file is not UTF-8.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument(f"--{name}")
    given, _ = parser.parse_known_args(arguments)
    value = getattr(given, name)
    if value is None and given.config is not None:
        try:
            fields = yaml.safe_load(Path(given.config).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"{given.config} is not UTF-8 text: save it as UTF-8.") from None
        except (OSError, yaml.YAMLError):  # of which the training itself tells
            return None
        value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else None


def by_folder(names: Iterable[str]) -> str:
    """Names in one line, those of a folder together, and five or more that begin with one word: `files_direct, peers/{caml, laat}`."""
    names = list(names)
    words = Counter(name.partition("_")[0] for name in names if "/" not in name)
    groups: dict[str, list[str]] = {}
    for name in names:
        folder, slash, last = name.rpartition("/")
        word, underscore, rest = name.partition("_")
        if not folder and words[word] >= 5:
            folder, slash, last = word, underscore, rest
        groups.setdefault(folder + slash, []).append(last)
    return ", ".join(f"{start}{{{', '.join(own)}}}" if start else ", ".join(own) for start, own in groups.items())


def help_text(description: str | None) -> str:
    """What `modeling-icd train --help` prints."""
    parser = argparse.ArgumentParser(
        usage=USAGE, description=description, formatter_class=HelpFormatter, add_help=False
    )
    parser.add_argument("CONFIG", help=f"a YAML file, or one of {by_folder(configs())}")
    options = {
        option.name: option
        for arguments in (ModelArguments, DataArguments, ICDTrainingArguments)
        for option in fields(arguments)
    }
    for name, text in SHOWN.items():
        shown = text or str(options[name].metadata["help"]).rstrip(".")
        parser.add_argument(f"--{name}", metavar="X", help=shown.replace("%", "%%"))
    parser.add_argument("--help_all", action="store_true", help="list every option of CONFIG")
    return parser.format_help()
