"""Build a data set, count what is in it, or compare a build of MIMIC-III with the published counts.

    modeling-icd build --data_dir DIR --config top50
    modeling-icd describe DIR --config top50
    modeling-icd verify --data_dir DIR --published_dir DIR

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
from .arguments import PROGRAM, HelpFormatter
from .builders.mimic3 import MIMIC3
from .builders.records import ICDBuilder
from .describe import describe, draw_description, print_description
from .verify import PUBLISHED, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if all is well, 1 if `verify` finds a difference, 2 (and a message on stderr) on a fault."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    options: dict[str, Any] = {"description": __doc__, "formatter_class": HelpFormatter}
    build = commands.add_parser("build", help="build a data set into the cache", **options)
    build.add_argument("--data_dir", help="the source files; left out where options give them")
    described = commands.add_parser(
        "describe", help="count what a data set holds, and plot it into a PNG file", **options
    )
    described.add_argument(
        "data_dir", metavar="FOLDER", nargs="?", help="the source files; left out where options give them"
    )
    described.add_argument("--png", type=Path, help="file to draw into; DATASET_CONFIG.png if left out")
    for command in (build, described):
        command.add_argument("--dataset", default="mimic3", choices=list(BUILDERS))
        command.add_argument("--config", help="configuration of the data set; its first if left out")
        command.add_argument(
            "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the configuration"
        )
    verified = commands.add_parser("verify", help="compare a build of MIMIC-III with the published counts", **options)
    verified.add_argument("--data_dir", required=True, help="the tables of MIMIC-III")
    verified.add_argument("--splits_dir", help="CAML's split lists; downloaded if neither here nor in `data_dir`")
    verified.add_argument("--published_dir", help="tables of the counts per code and split")
    verified.add_argument("--config", choices=list(PUBLISHED), help="both if left out")
    verified.add_argument("--max_lines", type=int, default=50, help="how many differences of a configuration to print")
    for command in (build, described, verified):
        command.add_argument("--cache_dir", help="where built data sets are kept; the cache of `datasets` if left out")
    args = parser.parse_args(arguments)

    run = {"build": _build, "describe": _describe, "verify": _verify}[args.command]
    try:
        return run(args, Console())
    except (ValueError, OSError, ImportError, DatasetsError) as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 2


def _build(args: argparse.Namespace, console: Console) -> int:
    builder = _load(args)
    sizes = ", ".join(f"{name} {split.num_examples:,}" for name, split in builder.info.splits.items())
    console.print(builder.info.description, highlight=False, markup=False)
    codes = len(builder.info.features["codes"].feature.names)
    console.print(f"\n{codes:,} codes; records: {sizes}. Kept in {builder.cache_dir}", soft_wrap=True)
    return 0


def _describe(args: argparse.Namespace, console: Console) -> int:
    builder = _load(args)
    description = describe(builder)
    print_description(description, builder, console)
    path = args.png or Path(f"{args.dataset}_{builder.config.name}.png")
    draw_description(description, path)
    console.print(f"Drawn into {path}", soft_wrap=True)
    return 0


def _verify(args: argparse.Namespace, console: Console) -> int:
    differs = False
    for config in [args.config] if args.config else PUBLISHED:
        options = {} if args.splits_dir is None else {"splits_dir": args.splits_dir}
        builder = load_builder("mimic3", config, data_dir=args.data_dir, cache_dir=args.cache_dir, **options)
        assert isinstance(builder, MIMIC3)
        result = verify(builder, args.published_dir)
        depth = "counts of each code and split" if args.published_dir else "numbers of admissions and codes"
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
    options = parse_options(args.dataset, args.option)
    return load_builder(args.dataset, args.config, data_dir=args.data_dir, cache_dir=args.cache_dir, **options)


if __name__ == "__main__":
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)  # what is left out is printed from the builder's info
    sys.exit(main())
