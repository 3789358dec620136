"""Codes a file of notes of any size, in constant memory, and keeps their order.

Example:
    modeling-icd predict runs/my_model notes.csv --text_column note -o codes.parquet

MODEL is a model folder, a Hub id, or a coder that comes with the package (codiesp-en). NOTES is a
csv, tsv, jsonl (each also .gz) or parquet file, or a folder of .txt files. OUTPUT gets a row for
each code: row, id, code, description, score, decision, evidence; a note without codes has one row
without a code. In jsonl a line is a note with its codes. If the run is ended, the same command goes
on from the folder OUTPUT.parts. Rows that cannot be read are listed in OUTPUT.rejected.csv. In csv
an id that begins with = + - or @ gets an apostrophe in front, so that no spreadsheet takes it for a
formula. These files quote notes, and only their owner may read them.
"""

import argparse
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub.constants import CONFIG_NAME
from tqdm.auto import tqdm

from dataset_scripts.arguments import command_parser
from dataset_scripts.builders.own_index import hash_id
from dataset_scripts.command import run_command
from dataset_scripts.counts import counted
from dataset_scripts.files import check_writable

from ..coders import find_coder
from ..pipeline_icd import check_number
from ..sharing_icd import RETRIEVER, files_digest
from ..versions_icd import VERSION
from .loading import add_reader_options, load_coder_config, reader_arguments
from .predict_coder import Job, NoteCoder
from .predict_notes import Notes, Row, open_notes
from .predict_outputs import check_output, has_changed_id, rejected_path, write_output, write_rejected
from .predict_parts import Parts
from .predict_ray import LOCAL, code_with_ray, import_ray
from .predict_workers import code_in_processes


# Files of a model folder on which its scores depend.
_FILES = (CONFIG_NAME, "*.safetensors", "*.bin", "tokenizer*", "*.py")
MODEL_FILES = (*_FILES, *(f"{RETRIEVER}/{pattern}" for pattern in _FILES))


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("predict", __doc__, "MODEL NOTES -o OUTPUT [options]")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("notes", type=Path, metavar="NOTES")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .parquet, .csv or .jsonl file")
    parser.add_argument(
        "--text_column", action="append", metavar="NAME", help="default: text; given twice, both are joined"
    )
    parser.add_argument("--id_column", metavar="NAME", help="default: note_id, hadm_id, id, or else the row")
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="default: utf-8")
    parser.add_argument("--threshold", type=float, metavar="X", help="in place of the model's own rule")
    parser.add_argument("--top_k", type=int, metavar="K", help="the K best codes in place of a threshold")
    parser.add_argument("--num_spans", type=int, metavar="N", help="evidence spans of a code; default: 3")
    parser.add_argument("--batch_size", type=int, metavar="N", help="notes read together; default: 32, on a GPU 8")
    parser.add_argument("--processes", type=int, metavar="N", help="models at work, each in a process; default: 1")
    parser.add_argument(
        "--ray", nargs="?", const=LOCAL, metavar="ADDRESS", help="with Ray Data, here or on the cluster at ADDRESS"
    )
    parser.add_argument("--chunk_rows", type=int, default=256, metavar="N", help="rows kept at a time; default: 256")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace OUTPUT, the list of rejected rows, and parts of other runs"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that came with the model")
    add_reader_options(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status: 0 when all notes are coded, also where rows were rejected."""
    args = make_parser().parse_args(arguments)
    parts = parts_of(args.output)
    return run_command(
        lambda: predict(args),
        interrupted=f"What is coded so far is kept in {parts.folder}: the same command goes on from there.",
    )


def parts_of(output: Path) -> Parts:
    return Parts(output.with_name(f"{output.name}.parts"))


def predict(args: argparse.Namespace) -> int:
    """Codes a file of notes as the command line says."""
    args.model = find_coder(args.model)
    check_options(args)
    load_coder_config(args.model, args.trust_remote_code)
    notes = open_notes(args.notes, args.text_column, args.id_column, args.encoding, args.chunk_rows)
    rule = {name: getattr(args, name) for name in ("threshold", "top_k", "num_spans")}
    parts = parts_of(args.output)
    job = Job(
        args.model,
        notes,
        parts,
        {name: value for name, value in rule.items() if value is not None},
        args.batch_size,
        args.trust_remote_code,
        reader_arguments(args),
    )
    manifest = manifest_of(job)
    with parts.opened(manifest, args.overwrite) as goes_on:
        if not args.overwrite and not goes_on:
            check_nothing_is_replaced(args.output, parts)
        plan = make_plan(notes, parts)
        started = time.monotonic()
        code(job, plan, args)
        seconds = time.monotonic() - started
        notes.check_unchanged(manifest["files"])
        write_results(args, parts, plan, seconds)
    return 0


def check_options(args: argparse.Namespace) -> None:
    """Raises a `ValueError` for a wrong option, before anything is read."""
    check_order(args.model, args.notes)
    check_output(args.output)
    check_number("--threshold", args.threshold, Real, "a number in [0, 1]", 0, 1)
    check_number("--num_spans", args.num_spans, Integral, "a whole number of at least 0", 0)
    for name in ("top_k", "batch_size", "processes", "chunk_rows"):
        check_number(f"--{name}", getattr(args, name), Integral, "a whole number of at least 1", 1)
    for path in (args.output, rejected_path(args.output)):
        if args.notes.resolve() == path.resolve():
            raise ValueError(f"--output ({args.output}) would replace the file of notes, {path}: give another name.")
        check_writable(path)
    if args.ray is not None:
        import_ray()


def check_order(model: str, notes: Path) -> None:
    """Raises a `ValueError` where what is given as the model is none, and may well be the notes."""
    folder, fault = Path(model), ""
    if folder.is_file():
        fault = "a file"
    elif folder.is_dir() and not (folder / CONFIG_NAME).is_file() and (notes / CONFIG_NAME).is_file():
        fault = f"a folder without {CONFIG_NAME}"
    if fault:
        raise ValueError(
            f"{model} is given as the model, and is {fault}. The model, a folder or Hub id, comes first, then the notes: "
            "`modeling-icd predict MODEL NOTES -o OUTPUT`."
        )


def check_nothing_is_replaced(output: Path, parts: Parts) -> None:
    """Raises a `ValueError` where a file that is to be written is there already; the empty parts are removed."""
    for path in (output, rejected_path(output)):
        if path.exists():
            parts.remove()
            raise ValueError(f"{path} is there already: give --overwrite to replace it, or another --output.")


def manifest_of(job: Job) -> dict[str, Any]:
    """What the results of a run depend on, the rounding of floating-point numbers aside."""
    notes, folder = job.notes, Path(job.model)
    rule = {name: job.rule.get(name) for name in ("threshold", "top_k", "num_spans")}
    return {
        "version": VERSION,
        "model": str(folder.resolve()) if folder.is_dir() else job.model,
        "weights": model_fingerprint(job.model, job.trust_remote_code),
        "notes": str(notes.path.resolve()),
        "files": notes.fingerprint(),
        "encoding": notes.encoding,
        "text_columns": list(notes.text_columns),
        "id_column": notes.id_column,
        "chunk_rows": notes.chunk_rows,
        **rule,
        **asdict(job.reader),
    }


def model_fingerprint(model_id: str, trust_remote_code: bool) -> str | None:
    """A digest of the files of a model's folder on which its scores depend; of a model on the Hub, its commit."""
    folder = Path(model_id)
    if not folder.is_dir():
        return getattr(load_coder_config(model_id, trust_remote_code), "_commit_hash", None)
    return files_digest(sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)}))


class Plan(NamedTuple):
    """What there is to do.

    Args:
        chunks (`int`): how many chunks the notes have.
        todo (`list[int]`): numbers of those that are not finished.
        notes (`int`): how many can be coded.
        done (`int`): how many of them are in finished chunks.
        mended (`Counter[str]`): rows that were mended on reading.
        repeated_ids (`int`): how many notes have the id of an earlier one.
    """

    chunks: int
    todo: list[int]
    notes: int
    done: int
    mended: Counter[str]
    repeated_ids: int


def make_plan(notes: Notes, parts: Parts) -> Plan:
    """Reads all rows once, so that what is wrong with the file shows before the model has worked for hours.

    Raises:
        ValueError: where no row can be coded, or the file as a whole is wrong.
    """
    mended: Counter[str] = Counter()
    todo: list[int] = []
    chunks = num_notes = done = 0
    rejected: Row | None = None
    ids = array("q")  # 8 bytes a note: what is read at once stays small
    with tqdm(desc="Reading", unit=" rows", delay=2) as progress:
        for number, rows in enumerate(notes.chunks(mended)):
            codable = sum(not row.reason for row in rows)
            if notes.id_column is not None:
                ids.extend(hash_id(row.id) for row in rows if not row.reason)
            rejected = rejected or next((row for row in rows if row.reason), None)
            part = parts.check(number)
            if part is None or (part.rows, part.notes) != (len(rows), codable):
                todo.append(number)
            else:
                done += codable
            chunks, num_notes = number + 1, num_notes + codable
            progress.update(len(rows))
    if num_notes == 0:
        parts.remove()
        why = "it has no rows" if rejected is None else f"row {rejected.row} {rejected.reason}"
        raise ValueError(f"{notes.path} has no note that can be coded: {why}. Is it the right file and column?")
    return Plan(chunks, todo, num_notes, done, mended, len(ids) - len(np.unique(np.frombuffer(ids, np.int64))))


def code(job: Job, plan: Plan, args: argparse.Namespace) -> None:
    """Codes the chunks that are not finished."""
    if plan.done:
        print(f"{plan.done:,} of {plan.notes:,} notes are coded already.", file=sys.stderr)
    if not plan.todo:
        return
    with tqdm(total=plan.notes, initial=plan.done, desc="Coding", unit=" notes", smoothing=0.1) as progress:
        for num_notes in finished(job, plan.todo, args):
            progress.update(num_notes)


def finished(job: Job, todo: list[int], args: argparse.Namespace) -> Iterator[int]:
    """Codes chunks; yields the number of notes in each when it is finished."""
    processes = min(args.processes or 1, len(todo))
    if args.ray is not None:
        yield from code_with_ray(job, todo, args.processes, args.ray)
    elif processes > 1:
        yield from (part.notes for part in code_in_processes(job, todo, processes))
    else:
        coder = NoteCoder(job)
        yield from (coder.code_chunk(number).notes for number in todo)


def write_results(args: argparse.Namespace, parts: Parts, plan: Plan, seconds: float) -> None:
    """Joins the parts to the output, removes them, and says what was done."""
    without = changed_ids = 0
    is_csv = args.output.suffix.lower() == ".csv"

    def lines(kind: str) -> Iterator[dict[str, Any]]:
        """The rows that have codes, or a reason why they have none."""
        nonlocal without, changed_ids
        for number in range(plan.chunks):
            for line in parts.lines(number):
                if kind in line:
                    without += kind == "codes" and not line["codes"]
                    changed_ids += (is_csv or kind == "reason") and has_changed_id(line)
                    yield line

    rejected = write_rejected(lines("reason"), rejected_path(args.output))
    write_output(lines("codes"), args.output)
    parts.remove()
    now = plan.notes - plan.done
    rate = f", {now:,} of them now in {seconds:,.1f} s" if now else ""
    print(f"{counted(plan.notes, 'note')} coded{rate}; {counted(without, 'has', 'have')} no code. {args.output}")
    for what, count in sorted(plan.mended.items()):
        print(f"{count:,} {what}.")
    if rejected:
        print(f"{counted(rejected, 'row was', 'rows were')} rejected: {rejected_path(args.output)} says why.")
    if plan.repeated_ids:
        repeated = counted(plan.repeated_ids, "note has", "notes have")
        print(f"{repeated} the id of an earlier one: the column `row` tells them apart.")
    if changed_ids:
        changed = counted(changed_ids, "id has", "ids have")
        print(f"{changed} an apostrophe in front in csv: take it off before you join by id.")


if __name__ == "__main__":
    sys.exit(main())
