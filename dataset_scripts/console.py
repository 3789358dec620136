"""The command `modeling-icd`: trains, evaluates, codes notes, and publishes. `modeling-icd COMMAND --help` says how.

modeling-icd try "Admitted with fever and cough."
modeling-icd train files_direct --data_dir DIR --output_dir runs/mine
modeling-icd evaluate runs/mine --data_dir DIR
modeling-icd predict runs/mine notes.csv -o codes.csv
"""

# It lies beside the data commands, since a module of `modeling_icd` cannot be read without torch: the list of commands and
# the commands about data are there at once. What a command runs is named by a string, and is read when it is asked for.
import importlib
import importlib.util
import logging
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

from .arguments import PROGRAM


class Command(NamedTuple):
    """A command: the module whose `main` runs it, or `module:function`; what it does, in a few words; and the words that are
    given to it before those of the user."""

    run: str
    help: str
    words: tuple[str, ...] = ()


COMMANDS = {
    "train": Command("modeling_icd.__main__:train", "train a model, from a configuration file or by its name"),
    "evaluate": Command("modeling_icd.evaluation.cli", "measure a model on a split: results, report, predictions"),
    "predict": Command("modeling_icd.inference.predict", "code a file of notes, or a folder of text files"),
    "try": Command("modeling_icd.inference.try_note", "code one note, and see which words each code was read from"),
    "terms": Command("modeling_icd.knowledge.cli", "build a coder that needs no training, or show its terms"),
    "space": Command("modeling_icd.space.cli", "open a page on which notes are coded and their codes corrected"),
    "decide": Command("modeling_icd.evaluation.decide", "fit again how scores become codes"),
    "compare": Command("modeling_icd.extras.compare", "compare runs that were evaluated"),
    "describe": Command("dataset_scripts.__main__", "count what a data set holds", ("describe",)),
    "build": Command("dataset_scripts.__main__", "build a data set into the cache", ("build",)),
    "verify": Command("dataset_scripts.__main__", "compare a build of MIMIC with published counts", ("verify",)),
    "synthetic": Command("dataset_scripts.synthetic.__main__", "write an invented corpus"),
    "publish": Command("modeling_icd.publishing.cli", "check a model for patient data and push it to a Hub"),
    "audit": Command(
        "modeling_icd.extras.audit", "find missed and unsupported codes among those that coders assigned"
    ),
    "evidence": Command("modeling_icd.extras.evidence", "measure evidence spans against marked ones"),
    "membership": Command("modeling_icd.extras.membership", "measure what scores reveal about training notes"),
    "gguf": Command("modeling_icd.extras.gguf", "convert a backbone from a GGUF file"),
    "pretrain": Command(
        "modeling_icd.extras.pretrain", "let a language model read notes without codes before it learns to code"
    ),
    "onnx": Command("modeling_icd.extras.onnx", "export a model to ONNX"),
    "physionet": Command("modeling_icd.extras.physionet", "prepare a model of restricted data for PhysioNet"),
}


def help_text() -> str:
    """What `modeling-icd --help` prints."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND ...\n\n{__doc__}\ncommands:\n{listed}\n"


def version() -> str:
    """The version of `modeling_icd`, from its file, since importing the package would import torch."""
    package = importlib.util.find_spec("modeling_icd")
    assert package is not None and package.origin is not None  # they are installed together
    return runpy.run_path(str(Path(package.origin).with_name("versions_icd.py")))["VERSION"]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns its exit status, and 2 where there is no such command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"{PROGRAM} {version()}")
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        print(f"error: no command {arguments[0]!r}: choose from {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    # What a builder leaves out is printed with what it built; bitsandbytes tells everyone that `kernels` is not installed.
    for name in ("dataset_scripts", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    module, _, function = command.run.partition(":")
    try:
        run = getattr(importlib.import_module(module), function or "main")
    except KeyboardInterrupt:  # while libraries are read, which takes seconds
        return 130
    return run([*command.words, *arguments[1:]])
