"""The command that writes an invented corpus."""

import argparse
import sys
from collections.abc import Sequence

from . import mimic3, mimic4
from .notes import LENGTHS


# The options that one format alone has.
ONLY_OF = {"split_fractions": "mimic3", "other_rows_rate": "mimic3", "icd10_rate": "mimic4", "mixed_rate": "mimic4"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the corpus was written, 2 (and one line on stderr) when it was not."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.synthetic",
        description="Write an invented corpus in the shape of MIMIC-III v1.4, or of MIMIC-IV v2.2 and MIMIC-IV-Note v2.2.",
        argument_default=argparse.SUPPRESS,  # what is left out is the function's own default
    )
    parser.add_argument("--output_dir", required=True, help="folder for the corpus")
    parser.add_argument("--format", choices=("mimic3", "mimic4"), default="mimic3", help="of the tables; mimic3")
    parser.add_argument("--num_admissions", type=int, help="1000")
    parser.add_argument("--seed", type=int, help="0")
    parser.add_argument("--length", help=f"words per note: {', '.join(LENGTHS)}")
    parser.add_argument("--addendum_rate", type=float, help="admissions with an addendum; 0.1, in mimic4 0.05")
    own = parser.add_argument_group("mimic3 alone")
    own.add_argument("--split_fractions", type=float, nargs=3, metavar=("TRAIN", "DEV", "TEST"), help="0.8 0.08 0.12")
    own.add_argument("--other_rows_rate", type=float, help="nursing and radiology rows per admission; 0.1")
    own = parser.add_argument_group("mimic4 alone")
    own.add_argument("--icd10_rate", type=float, help="admissions coded in ICD-10, about; 0.5")
    own.add_argument("--mixed_rate", type=float, help="admissions with codes of both editions; 0.005")
    options = vars(parser.parse_args(arguments))
    form = options.pop("format")
    try:
        for name in options:
            if ONLY_OF.get(name, form) != form:
                raise ValueError(f"`--{name}` is for `--format {ONLY_OF[name]}` alone.")
        print(_write(form, options))
    except (ValueError, OSError) as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 2
    return 0


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
