"""What the command lines of this project have in common: how their help is laid out, and how a data set is named."""

import argparse
import shutil
from collections.abc import Sequence


PROGRAM = "modeling-icd"
MAX_WIDTH = 100

# The files of the data set `files`, by the names of transformers' examples; each is an option of its configuration, too.
FILE_OPTIONS = {
    "train_file": "your own notes to train on (data set `files`)",
    "validation_file": "your own notes to validate on",
    "test_file": "your own notes to test on",
}

PATH_OPTIONS = ("_dir", "_file", "evidence")  # ends of the names of options that are paths


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lays the help out so that it fits a screen: one line for most options, whatever the width of the terminal."""

    def __init__(self, prog: str):
        width = min(MAX_WIDTH, max(60, shutil.get_terminal_size().columns)) - 2
        super().__init__(prog, max_help_position=30, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The first name of an option alone: the others are those of other commands, or have a dash in place of `_`."""
        if len(action.option_strings) < 2 or "-h" in action.option_strings:
            return super()._format_action_invocation(action)
        if isinstance(action, argparse.BooleanOptionalAction):
            return ", ".join(action.option_strings[:2])
        short = [name for name in action.option_strings if not name.startswith("--")]
        name = ", ".join([*short, next(name for name in action.option_strings if name.startswith("--"))])
        values = self._format_args(action, self._get_default_metavar_for_optional(action)) if action.nargs != 0 else ""
        return f"{name} {values}".strip()


def command_parser(name: str, description: str | None, usage: str | None = None, **options) -> argparse.ArgumentParser:
    """The parser of `modeling-icd NAME`.

    Args:
        name (`str`): of the command.
        description (`str`): what stands above the options: what the command does, and an example.
        usage (`str`, *optional*): what must be given, in place of the list of all options.
        options: of `argparse.ArgumentParser`.
    """
    usage = None if usage is None else f"{PROGRAM} {name} {usage}"
    return argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}", usage=usage, description=description, formatter_class=HelpFormatter, **options
    )


def add_data_options(
    parser: argparse.ArgumentParser, names: Sequence[str] = (), *, files: Sequence[str] = tuple(FILE_OPTIONS)
) -> None:
    """Options that say where a data set is: `--data_dir`, files of one's own, `--dataset_options`; and which one it is,
    `--dataset` and `--dataset_config`.

    Args:
        names: of the data sets to choose from; empty where it can only be the one that the model was trained on.
        files: which of `FILE_OPTIONS` the command takes.
    """
    if names:
        default = "default: that of the training, or `files` where a file is given"
        parser.add_argument("--dataset", metavar="NAME", help=f"{', '.join(names)}; {default}")
        parser.add_argument(
            "--dataset_config", metavar="NAME", help="its configuration; default: that of the training"
        )
    parser.add_argument("--data_dir", metavar="DIR", help="the folder that holds the data set's own files")
    for name in files:
        parser.add_argument(f"--{name}", metavar="FILE", help=FILE_OPTIONS[name])
    parser.add_argument(
        "--dataset_options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of the configuration; default: those of the training",
    )


def with_files(options: Sequence[str] | None, args: object) -> list[str]:
    """Options of a data set, `NAME=VALUE`, with those of its files that were given as arguments of their own.

    Args:
        options (`Sequence[str]`, *optional*): as given.
        args: holds the files as attributes, such as a parsed command line.
    """
    files = {name: getattr(args, name, None) for name in FILE_OPTIONS}
    return [*(options or []), *(f"{name}={path}" for name, path in files.items() if path is not None)]
