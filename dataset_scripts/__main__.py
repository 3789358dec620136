"""Build a data set, count what is in it, or compare a build of MIMIC with the published counts.

    modeling-icd build DIR --config top50
    modeling-icd describe notes.csv --dataset files
    modeling-icd verify DIR --published_dir DIR

The built data set, with the text of the notes, is stored in the cache: with `--cache_dir`, choose a folder where it may be.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetsError
from rich.console import Console

from . import BUILDERS, load_builder, parse_options
from .arguments import FILE_OPTIONS, PROGRAM, HelpFormatter
from .builders.mimic3 import MIMIC3
from .builders.mimic4 import MIMIC4
from .builders.own_sources import looks_like_own_notes
from .builders.records import ICDBuilder
from .command import run_command
from .counts import counted
from .describe import describe, draw_description, print_description
from .files import check_writable
from .verify import PUBLISHED, verify


DEFAULT_DATASET = "mimic3"
VERIFIED = {"mimic3": ("full", "top50"), "mimic4": ("icd10", "icd9")}  # where no configuration is named


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if `verify` finds a difference, 2 (and a message on stderr) on a fault."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    options: dict[str, Any] = {"description": __doc__, "formatter_class": HelpFormatter}
    build = commands.add_parser("build", help="build a data set into the cache", **options)
    described = commands.add_parser("describe", help="count what a data set holds", **options)
    verified = commands.add_parser("verify", help="compare a build of MIMIC with the published counts", **options)
    for command in (build, described, verified):
        is_verify = command is verified
        left_out = "" if is_verify else "; left out where options give them"
        source = "the tables of MIMIC-III or MIMIC-IV" if is_verify else "the source files: a folder, or a file"
        command.add_argument("source", metavar="DATA", nargs="?", help=f"{source}{left_out}")
        command.add_argument("--data_dir", metavar="DATA", help="the same, as `train` and `evaluate` call it")
    described.add_argument("--png", type=Path, metavar="FILE", help="also draw the counts into this PNG file")
    for command in (build, described):
        command.add_argument(
            "--dataset",
            metavar="NAME",
            choices=list(BUILDERS),
            help=f"{', '.join(BUILDERS)}; default: {DEFAULT_DATASET}",
        )
        command.add_argument(
            "--config", "--dataset_config", metavar="NAME", help="configuration of the data set; its first if left out"
        )
        command.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the configuration"
        )
        command.add_argument(
            "--dataset_options",
            nargs="+",
            action="extend",
            dest="option",
            metavar="NAME=VALUE",
            help="several of them",
        )
    verified.add_argument(
        "--dataset",
        metavar="NAME",
        choices=list(VERIFIED),
        help=f"{', '.join(VERIFIED)}; default: that of the configuration",
    )
    verified.add_argument("--splits_dir", help="the published split lists; downloaded if neither here nor in DATA")
    verified.add_argument("--release", help="of MIMIC-IV, where DATA holds several")
    verified.add_argument("--published_dir", help="tables of the counts per code and split")
    verified.add_argument(
        "--config",
        choices=list(PUBLISHED),
        help=f"default: {' and '.join(map(' and '.join, VERIFIED.values()))}, by data set",
    )
    verified.add_argument("--max_lines", type=int, default=50, help="how many differences of a configuration to print")
    for command in (build, described, verified):
        command.add_argument("--cache_dir", help="where built data sets are kept; the cache of `datasets` if left out")
    args = parser.parse_args(arguments)

    run = {"build": _build, "describe": _describe, "verify": _verify}[args.command]
    return run_command(lambda: run(args, Console()), DatasetsError, ImportError)


def _build(args: argparse.Namespace, console: Console) -> int:
    builder = _load(args)
    sizes = ", ".join(f"{name} {split.num_examples:,}" for name, split in builder.info.splits.items())
    console.print(builder.info.description, highlight=False, markup=False)
    codes = len(builder.info.features["codes"].feature.names)
    console.print(f"\n{counted(codes, 'code')}; records: {sizes}. Kept in {builder.cache_dir}", soft_wrap=True)
    return 0


def _describe(args: argparse.Namespace, console: Console) -> int:
    if args.png is not None:
        check_writable(args.png)
    builder = _load(args)
    description = describe(builder)
    print_description(description, builder, console)
    if args.png is not None:
        draw_description(description, args.png)
        console.print(f"Drawn into {args.png}", soft_wrap=True)
    return 0


def _verify(args: argparse.Namespace, console: Console) -> int:
    differs, data_dir = False, _data_dir(args)
    if data_dir is None:
        raise ValueError("Name the folder with the tables of MIMIC-III or MIMIC-IV: `modeling-icd verify DIR`.")
    dataset = args.dataset or (PUBLISHED[args.config].dataset if args.config else DEFAULT_DATASET)
    if args.config and PUBLISHED[args.config].dataset != dataset:
        raise ValueError(f"`--config {args.config}` is of {PUBLISHED[args.config].dataset}, not of {dataset}.")
    given = {"splits_dir": args.splits_dir, "release": args.release}
    options = {name: value for name, value in given.items() if value is not None}
    for config in [args.config] if args.config else VERIFIED[dataset]:
        published = PUBLISHED[config]
        if published.dataset == "mimic4" or config == "clean":
            options["splits"] = "edin"
        builder = load_builder(dataset, config, data_dir=data_dir, cache_dir=args.cache_dir, **options)
        assert isinstance(builder, MIMIC3 | MIMIC4)
        result = verify(builder, args.published_dir)
        depth = "numbers of admissions and codes"
        if args.published_dir and published.distribution:
            depth = "counts of each code" if published.has_totals else "counts of each code and split"
        number = len(result.differences)
        verdict = f"{number:,} difference{'s' * (number > 1)} from" if number else "agrees with"
        console.print(f"{config}: {verdict} the published {depth}.", soft_wrap=True)
        for line in [*result.notes, *result.differences[: args.max_lines]]:
            console.print(f"  {line}", highlight=False, soft_wrap=True)
        if number > args.max_lines:
            console.print(f"  and {number - args.max_lines:,} more: raise `--max_lines`.")
        differs = differs or number > 0
    return int(differs)


def _load(args: argparse.Namespace) -> ICDBuilder:
    data_dir = _data_dir(args)
    has_file = any(pair.partition("=")[0] in FILE_OPTIONS for pair in args.option)
    dataset = args.dataset or ("files" if has_file else DEFAULT_DATASET)
    options = parse_options(dataset, args.option)
    try:
        return load_builder(dataset, args.config, data_dir=data_dir, cache_dir=args.cache_dir, **options)
    except FileNotFoundError as error:
        if args.dataset is not None or has_file or data_dir is None:
            raise
        if looks_like_own_notes(data_dir):
            tables = "is a table" if Path(data_dir).is_file() else "holds tables"
            fault = (
                f"{data_dir} {tables}, and none of MIMIC-III: if they are notes of your own, give `--dataset files`"
            )
        else:
            fault = f"{error} This is what the data set {dataset}, the default, is built from: for another one give `--dataset`"
        raise FileNotFoundError(f"{fault} (one of {', '.join(BUILDERS)}).") from None


def _data_dir(args: argparse.Namespace) -> str | None:
    """Where the source files are, given with or without the name of the option."""
    if None not in (args.source, args.data_dir) and args.source != args.data_dir:
        raise ValueError(f"The data are given twice, as {args.source} and as `--data_dir {args.data_dir}`: give one.")
    return args.data_dir if args.source is None else args.source


if __name__ == "__main__":
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)  # what is left out is printed from the builder's info
    sys.exit(main())
