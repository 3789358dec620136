"""The command `modeling-icd`: trains, evaluates, codes notes, and publishes. `modeling-icd COMMAND --help` says how.

modeling-icd train files_direct --data_dir DIR --output_dir runs/mine
modeling-icd evaluate runs/mine --data_dir DIR
modeling-icd predict runs/mine notes.csv -o codes.csv
"""

import importlib
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

from dataset_scripts.arguments import PROGRAM


def train(arguments: list[str]) -> int:
    """Training may end in a push, but the parts that train and that push know nothing of each other."""
    from .publishing.after_training import plan_push
    from .training.run import main

    return main(arguments, plan_push)


class Command(NamedTuple):
    """A command: what runs it, or the module whose `main` does; what it does, in a few words; and the words that are given
    to it before those of the user."""

    run: str | Callable[[list[str]], int]
    help: str
    words: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(train, "train a model, from a configuration file or by its name"),
    "evaluate": Command("modeling_icd.evaluation.cli", "measure a model on a split: results, report, predictions"),
    "predict": Command("modeling_icd.inference.predict", "code a file of notes, or a folder of text files"),
    "try": Command("modeling_icd.coders.try_note", "code one note, and see which words each code was read from"),
    "decide": Command("modeling_icd.evaluation.decide", "fit again how scores become codes"),
    "compare": Command("modeling_icd.extras.compare", "compare runs that were evaluated"),
    "describe": Command("dataset_scripts.__main__", "count what a data set holds", ("describe",)),
    "build": Command("dataset_scripts.__main__", "build a data set into the cache", ("build",)),
    "verify": Command("dataset_scripts.__main__", "compare MIMIC-III with published counts", ("verify",)),
    "synthetic": Command("dataset_scripts.synthetic.__main__", "write an invented corpus"),
    "publish": Command("modeling_icd.publishing.cli", "check a model for patient data and push it to a Hub"),
    "audit": Command(
        "modeling_icd.extras.audit", "find missed and unsupported codes among those that coders assigned"
    ),
    "evidence": Command("modeling_icd.extras.evidence", "measure evidence spans against marked ones"),
    "membership": Command("modeling_icd.extras.membership", "measure what scores reveal about training notes"),
    "gguf": Command("modeling_icd.extras.gguf", "convert a backbone from a GGUF file"),
    "onnx": Command("modeling_icd.extras.onnx", "export a model to ONNX"),
    "physionet": Command("modeling_icd.extras.physionet", "prepare a model of restricted data for PhysioNet"),
}


def help_text() -> str:
    """What `modeling-icd --help` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND ...\n\n{__doc__}\ncommands:\n{listed}\n"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns its exit status, and 2 where there is no such command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from . import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"error: no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    # What a builder leaves out is printed with what it built; bitsandbytes tells everyone that `kernels` is not installed.
    for name in ("dataset_scripts", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        run = importlib.import_module(command.run).main if isinstance(command.run, str) else command.run
    except KeyboardInterrupt:  # while libraries are read, which takes seconds
        return 130
    return run([*command.words, *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main())
