"""Builds a coder that needs no training, from the terms of codes; or shows the terms of one.

    modeling-icd terms build --system icd10cm --output_dir runs/terms
    modeling-icd terms build --dataset codiesp --dataset_config diagnoses_es --data_dir DIR --output_dir runs/terms
    modeling-icd terms runs/terms --code I10     its terms of a code, or those that hold some words (--search)

With a data set the coder has its codes, the words that are marked as evidence in its training notes
are terms, too, and every term is weighed by how often it is right in these notes. `--codes_only`
takes its codes alone. A file of synonyms is a table with the columns code and term.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

from datasets.exceptions import DatasetsError
from rich.console import Console
from rich.table import Table

from dataset_scripts import BUILDERS, ICDBuilder, load_builder, parse_options
from dataset_scripts.arguments import add_data_options, command_parser, with_files
from dataset_scripts.codes.systems import CODE_SYSTEMS
from dataset_scripts.command import run_command
from dataset_scripts.counts import counted
from dataset_scripts.files import check_writable, make_folder
from dataset_scripts.tables import BadRow, read_table

from ..inference.learned_notes import admissions_of, write_learned
from ..inference.tokens import texts_of_notes
from .build import COLUMNS, CUES, TERMS_FILE, run_of, save_coder
from .coder import build_coder, record_of, system_of
from .stems import stems_of


SYSTEMS = [name for name, system in CODE_SYSTEMS.items() if system.classification is not None]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["build"]:
        args = make_build_parser().parse_args(arguments[1:])
        return run_command(lambda: build(args), DatasetsError)
    args = make_parser().parse_args(arguments)
    return run_command(lambda: show(args))


def make_build_parser() -> argparse.ArgumentParser:
    parser = command_parser("terms build", __doc__, "[--system NAME] --output_dir DIR [options]")
    parser.add_argument(
        "--system",
        action="append",
        choices=SYSTEMS,
        help="whose titles are terms; given twice, both; default: that of the data set",
    )
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="the folder of the coder")
    parser.add_argument(
        "--synonyms", type=Path, metavar="FILE", help="more terms: a table with the columns code, term"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="its codes alone: a table with the column code")
    parser.add_argument("--codes_only", action="store_true", help="of the data set take the codes, and no note")
    parser.add_argument(
        "--all_codes",
        action="store_true",
        help="beside the data set's codes all that can be billed, seen in training or not",
    )
    parser.add_argument(
        "--cues",
        nargs="*",
        choices=CUES,
        metavar="CUE",
        help=f"what has a term not count: of {', '.join(CUES)}; default: what training notes say, else denials",
    )
    parser.add_argument(
        "--misspelt", action="store_true", help="find words with a letter left out, or with two exchanged, too"
    )
    parser.add_argument("--cache_dir", metavar="DIR", help="where the data set is built; default: DIR-private/cache")
    add_data_options(parser, list(BUILDERS))
    return parser


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("terms", __doc__, "build ... | MODEL [options]")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the folder of a coder by terms")
    parser.add_argument("--code", metavar="CODE", help="the terms of this code alone")
    parser.add_argument("--search", metavar="WORDS", help="the terms that hold these words")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most; default: 50")
    return parser


def build(args: argparse.Namespace) -> int:
    """Build a coder as the command line says."""
    started = time.monotonic()
    check_writable(args.output_dir, is_folder=True)
    if args.output_dir.is_dir() and any(args.output_dir.iterdir()) and not (args.output_dir / TERMS_FILE).is_file():
        raise FileExistsError(
            f"`output_dir` ({args.output_dir}) holds other files, which would be lost: give another folder, or that of a coder by terms."
        )
    options = with_files(args.dataset_options, args)
    builder = open_builder(args, options)
    if builder is None and not args.system:
        raise ValueError(f"Name a code system with `--system` ({', '.join(SYSTEMS)}), or a data set with `--dataset`.")
    labels = None if args.labels is None else read_labels(args.labels)
    systems = args.system or system_of(labels or codes_of(builder))
    uses_notes = builder is not None and not args.codes_only
    if args.all_codes and builder is None and labels is None:
        raise ValueError(
            "`--all_codes` adds to the codes of a data set or of `--labels`: without either all are there."
        )
    fields = {} if args.cues is None else {field: cue in args.cues for cue, field in CUES.items()}
    coder = build_coder(
        systems,
        labels,
        args.synonyms,
        builder,
        uses_notes,
        say=True,
        all_codes=args.all_codes,
        misspelt=args.misspelt,
        **fields,
    )
    record = record_of(builder if uses_notes else None, coder.code_counts, options, args.synonyms is not None)
    switches = {name: vars(args)[name] for name in ("codes_only", "all_codes", "misspelt")}
    name, config = (None, None) if builder is None else (builder.name, builder.config.name)
    run = run_of(systems, name, config, switches, args.output_dir, time.monotonic() - started)
    save_coder(coder.model, coder.tokenizer, coder.rows, coder.seen, record, args.output_dir, run)
    if uses_notes and builder is not None:
        train, private_dir = builder.as_dataset(split="train"), Path(f"{args.output_dir}-private")
        named = admissions_of(train, args.dataset or "files", record["synthetic"])
        write_learned(texts_of_notes(train), make_folder(private_dir, private=True), named)
    if not record["open"]:
        print(f"{args.output_dir} may hold phrases of notes: only you can read it, and it is not published.")
    print(args.output_dir)
    return 0


def open_builder(args: argparse.Namespace, options: list[str]) -> ICDBuilder | None:
    """The data set that the command line names; `None` where it names none."""
    if args.dataset is None and len(options) == len(args.dataset_options):
        if args.data_dir or args.dataset_config or args.codes_only:
            raise ValueError(f"Which data set is meant? Name it with `--dataset`: {', '.join(BUILDERS)}.")
        return None
    name = args.dataset or "files"
    cache_dir = args.cache_dir or f"{args.output_dir}-private/cache"
    given = parse_options(name, options, "--dataset_options")
    return load_builder(name, args.dataset_config, data_dir=args.data_dir, cache_dir=cache_dir, **given)


def codes_of(builder: ICDBuilder | None) -> list[str]:
    return [] if builder is None else builder.info.features["codes"].feature.names


def read_labels(path: Path) -> list[str]:
    """The codes of a table with a column `code`, each once, in its order."""
    codes = []
    for number, row in enumerate(read_table(path, columns=["code"]), start=1):
        if isinstance(row, BadRow):
            raise ValueError(f"{path}: row {number} {row.reason}: mend it, or leave it out.")
        if not (code := str(row.get("code") or "").strip()):
            raise ValueError(
                f"{path}: row {number} has nothing in the column `code`: give one code a row, with its dot."
            )
        codes.append(code)
    if not codes:
        raise ValueError(f"{path} has no row: give one code a row, with its dot, under the heading `code`.")
    return list(dict.fromkeys(codes))


def show(args: argparse.Namespace) -> int:
    """Print the terms of a coder as a table, those that are most often right first."""
    path = args.model / TERMS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{args.model} has no {TERMS_FILE}, so it is no coder by terms: `modeling-icd terms build` makes one."
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if args.code is not None:
        rows = [row for row in rows if row["code"] == args.code]
    if args.search is not None:
        (asked,) = stems_of([args.search])
        held = stems_of(row["term"] for row in rows)
        rows = [row for row, stems in zip(rows, held, strict=True) if set(asked) <= set(stems)]
    rows.sort(key=lambda row: (-float(row["score"]), row["code"], row["term"]))
    table = Table(title=f"{path}: {counted(len(rows), 'term')}")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("score", "notes", "right") else "left")
    for row in rows[: args.limit]:
        table.add_row(*(row[name] for name in COLUMNS))
    Console().print(table)
    if len(rows) > args.limit:
        print(f"{len(rows) - args.limit:,} more: see --limit, --code and --search, or the file itself.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
