"""Writes an invented corpus in the shape of MIMIC-III v1.4, or of MIMIC-IV v2.2 and MIMIC-IV-Note v2.2.

    modeling-icd synthetic --output_dir runs/invented --num_admissions 1000 --seed 0
    modeling-icd synthetic --format mimic4 --output_dir runs/invented

No patient, hospital or note in it is real.
"""

import argparse
import sys
from collections.abc import Sequence
from inspect import signature

from ..arguments import command_parser
from ..command import run_command
from ..files import check_writable
from . import mimic3, mimic4
from .notes import LENGTHS


# The options that one format alone has.
ONLY_OF = {
    **dict.fromkeys(("split_fractions", "other_rows_rate", "num_codes", "codes", "mdace_charts"), "mimic3"),
    **dict.fromkeys(("icd10_rate", "mixed_rate"), "mimic4"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the corpus was written, 2 (and one line on stderr) when it was not."""
    # What is left out is the function's own default.
    parser = command_parser("synthetic", __doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("--output_dir", required=True, help="folder for the corpus")
    parser.add_argument(
        "--format", choices=("mimic3", "mimic4"), default="mimic3", help="format of the tables (mimic3)"
    )
    parser.add_argument(
        "--num_admissions", type=int, help=f"how many admissions to write {_default_of('num_admissions')}"
    )
    parser.add_argument("--seed", type=int, help=f"random seed {_default_of('seed')}")
    parser.add_argument("--length", help=f"length of the notes: {', '.join(LENGTHS)} {_default_of('length')}")
    parser.add_argument(
        "--addendum_rate", type=float, help=f"share of admissions with an addendum {_default_of('addendum_rate')}"
    )
    own = parser.add_argument_group("mimic3 alone")
    own.add_argument(
        "--split_fractions",
        type=float,
        nargs=3,
        metavar=("TRAIN", "DEV", "TEST"),
        help=f"shares of the admissions {_default_of('split_fractions')}",
    )
    own.add_argument(
        "--other_rows_rate",
        type=float,
        help=f"nursing and radiology rows per admission {_default_of('other_rows_rate')}",
    )
    own.add_argument(
        "--num_codes", type=int, help="codes that there may be, most of them rare; by default those worded by hand"
    )
    own.add_argument(
        "--codes", help="full: as many codes as MIMIC-III has, as rare as there; worded: those worded by hand"
    )
    own.add_argument(
        "--mdace_charts", type=int, help=f"admissions to write in MDACE's files, too {_default_of('mdace_charts')}"
    )
    own = parser.add_argument_group("mimic4 alone")
    own.add_argument(
        "--icd10_rate", type=float, help=f"share of admissions coded in ICD-10, about {_default_of('icd10_rate')}"
    )
    own.add_argument(
        "--mixed_rate", type=float, help=f"share of admissions with codes of both editions {_default_of('mixed_rate')}"
    )
    options = vars(parser.parse_args(arguments))
    form = options.pop("format")
    return run_command(lambda: write(form, options), interrupted="No table was written.")


def write(form: str, options: dict) -> int:
    """What the command line asks for."""
    for name in options:
        if ONLY_OF.get(name, form) != form:
            raise ValueError(f"`--{name}` is for `--format {ONLY_OF[name]}` alone.")
    check_writable(options["output_dir"], is_folder=True)
    print(_write(form, options))
    return 0


def _default_of(name: str) -> str:
    """The default of an option for the help: one value, or that of each format."""
    found = [signature(write).parameters.get(name) for write in (mimic3.write_corpus, mimic4.write_corpus)]
    values = dict.fromkeys(str(parameter.default) for parameter in found if parameter)
    return f"({', in mimic4 '.join(values)})"


def _write(form: str, options: dict) -> str:
    """Write the corpus and say in a line what was written."""
    if form == "mimic4":
        coded = mimic4.write_corpus(**options)
        return (
            f"{coded.num_admissions} admissions of {coded.num_subjects} subjects ({coded.editions['9']} in ICD-9, "
            f"{coded.editions['10']} in ICD-10, {coded.editions['mixed']} in both), {coded.num_note_rows} note rows: "
            f"{coded.output_dir}"
        )
    if "split_fractions" in options:
        options["split_fractions"] = tuple(options["split_fractions"])
    summary = mimic3.write_corpus(**options)
    sizes = ", ".join(f"{split} {size}" for split, size in summary.split_sizes.items())
    return (
        f"{summary.num_admissions} admissions of {summary.num_subjects} subjects ({sizes}), {summary.num_note_rows} note "
        f"rows, {summary.num_codes} codes, {summary.codes_per_admission:.1f} per admission: {summary.output_dir}"
    )


if __name__ == "__main__":
    sys.exit(main())
