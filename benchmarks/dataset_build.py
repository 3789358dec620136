"""Time and memory of building `MIMIC3` at MIMIC-III's size, beside a csv-module pipeline that does CAML's steps.

    python -m benchmarks.dataset_build --published_dir DIR                        # 1/8, 1/4, 1/2 and all of it
    python -m benchmarks.dataset_build --published_dir DIR --fractions 0.125      # under a minute

For each fraction an invented corpus is written (`mimic3_sized.py`; the whole takes 1.2 GB of disk, and 1.6 GB more what is made
of it), measured and deleted. Each step runs in a process of its own; its seconds leave out the start of Python and the
imports, its peak memory includes them. The largest fraction is also loaded again from the cache, streamed, and built with
`text="caml"` beside the csv pipeline.

Unpacking the gzip files is the floor: it cannot be divided between cores, and takes as long whatever is read.
"""

import argparse
import csv
import gzip
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak


ROOT = Path(__file__).resolve().parents[1]
TABLES = ("NOTEEVENTS", "DIAGNOSES_ICD", "PROCEDURES_ICD")
FRACTIONS = (0.125, 0.25, 0.5, 1.0)


def unpack(corpus: Path, work: Path) -> dict[str, Any]:
    """Only unpack the tables, as the builder does it: the floor."""
    import pyarrow as pa

    started = time.perf_counter()
    size = 0
    for table in TABLES:
        with pa.CompressedInputStream(pa.OSFile(str(corpus / f"{table}.csv.gz")), "gzip") as file:
            while block := file.read(1 << 22):
                size += len(block)
    return {"seconds": time.perf_counter() - started, "bytes": size}


def build(corpus: Path, work: Path, text: str = "raw") -> dict[str, Any]:
    from dataset_scripts import load_builder

    started = time.perf_counter()
    builder = load_builder("mimic3", "full", data_dir=corpus, cache_dir=work / "cache", text=text)
    seconds = time.perf_counter() - started
    peak = _peak()  # before the built data set is read again
    checksum = 0
    if text == "caml":
        for split in builder.as_dataset().values():
            checksum ^= _checksum((record["hadm_id"], record["text"]) for record in split)
    return {
        "seconds": seconds,
        "peak_gb": peak,
        "records": {name: split.num_examples for name, split in builder.info.splits.items()},
        "codes": len(builder.info.features["codes"].feature.names),
        "checksum": checksum,
    }


def build_caml(corpus: Path, work: Path) -> dict[str, Any]:
    return build(corpus, work, text="caml")


def load_again(corpus: Path, work: Path) -> dict[str, Any]:
    """Load what `build` left in the cache, and read a record of each split."""
    from dataset_scripts import load_builder

    started = time.perf_counter()
    builder = load_builder("mimic3", "full", data_dir=corpus, cache_dir=work / "cache")
    for split in builder.as_dataset().values():
        split[0]
    return {"seconds": time.perf_counter() - started}


def stream_one(corpus: Path, work: Path) -> dict[str, Any]:
    """Look at the first record of train, without a cache."""
    from dataset_scripts import load_split

    started = time.perf_counter()
    next(iter(load_split("mimic3", "train", "full", data_dir=corpus, cache_dir=work / "unbuilt", streaming=True)))
    return {"seconds": time.perf_counter() - started}


def csv_pipeline(corpus: Path, work: Path) -> dict[str, Any]:
    """CAML's steps with the csv module and a word tokenizer, one row at a time.

    After get_discharge_summaries.py, concat_and_split.py and reformat() of datasets.py in caml-mimic: discharge summaries are
    cut into words by nltk's RegexpTokenizer(r"\\w+"), which is `re.findall`; numbers are dropped, the rest lower-cased; rows
    of one admission are joined; codes get their dots; admissions with a code are written to a file for each split, in the
    order of subject and admission. Kept in memory between the steps where CAML writes and reads a file, which only
    favours it.
    """
    csv.field_size_limit(1 << 27)
    started = time.perf_counter()
    word = re.compile(r"\w+")
    texts: dict[tuple[int, int], list[str]] = {}
    with gzip.open(corpus / "NOTEEVENTS.csv.gz", "rt", newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            if row[6] == "Discharge summary":
                words = [token.lower() for token in word.findall(row[10]) if not token.isnumeric()]
                texts.setdefault((int(row[1]), int(row[2])), []).append(" ".join(words))
    codes: dict[int, list[str]] = {}
    for table, digits in (("DIAGNOSES_ICD", 3), ("PROCEDURES_ICD", 2)):
        with gzip.open(corpus / f"{table}.csv.gz", "rt", newline="", encoding="utf-8") as file:
            for fields in csv.DictReader(file):
                code = fields["ICD9_CODE"]
                place = 4 if code.startswith("E") else digits
                dotted = f"{code[:place]}.{code[place:]}" if len(code) > place else code
                codes.setdefault(int(fields["HADM_ID"]), []).append(dotted)
    split_of = {
        int(line): split
        for split in ("train", "dev", "test")
        for line in (corpus / f"{split}_full_hadm_ids.csv").read_text().split()
    }
    paths = {split: work / f"{split}_full.csv" for split in ("train", "dev", "test")}
    files = {split: path.open("w", newline="", encoding="utf-8") for split, path in paths.items()}
    writers = {split: csv.writer(file) for split, file in files.items()}
    records = dict.fromkeys(files, 0)
    for subject_id, hadm_id in sorted(texts):
        if hadm_id in codes:
            split = split_of[hadm_id]
            text = " ".join(texts[subject_id, hadm_id])
            writers[split].writerow([subject_id, hadm_id, text, ";".join(codes[hadm_id])])
            records[split] += 1
    for file in files.values():
        file.close()
    seconds = time.perf_counter() - started
    checksum = 0
    for path in paths.values():
        with path.open(newline="", encoding="utf-8") as file:
            checksum ^= _checksum((int(row[1]), row[2]) for row in csv.reader(file))
        path.unlink()
    return {"seconds": seconds, "records": records, "checksum": checksum}


def write(corpus: Path, work: Path, fraction: float, published_dir: Path, splits_dir: Path | None) -> dict[str, Any]:
    from benchmarks.mimic3_sized import write_sized_corpus

    started = time.perf_counter()
    written = write_sized_corpus(corpus, fraction, published_dir, splits_dir)
    return {"seconds": time.perf_counter() - started, **asdict(written)}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "write": write,
    "unpack": unpack,
    "build": build,
    "load again": load_again,
    "stream one": stream_one,
    "build, caml": build_caml,
    "csv pipeline": csv_pipeline,
}
AT_EACH_FRACTION = ("unpack", "build")
AT_THE_LARGEST = ("load again", "stream one", "build, caml", "csv pipeline")


def _checksum(notes: Any) -> int:
    """One number for all texts, whatever their order."""
    total = 0
    for hadm_id, text in notes:
        total ^= zlib.crc32(f"{hadm_id} {text}".encode())
    return total


def _peak() -> float:
    """Peak resident memory of this process, in GB."""
    return peak() / 1e9


def run_step(step: str, corpus: Path, work: Path, **options: Any) -> dict[str, Any]:
    """Run one step in a process of its own; gives its seconds, peak memory and seconds with the start of Python."""
    command = [sys.executable, "-m", "benchmarks.dataset_build", "--step", step, "--corpus", str(corpus)]
    command += ["--work_dir", str(work)]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name}", str(value)]
    started = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    if result.returncode:
        raise ChildProcessError(f"Step {step!r} failed.")
    return {**json.loads(result.stdout), "process_seconds": time.perf_counter() - started}


def measure(fraction: float, work_dir: Path, steps: tuple[str, ...], **options: Any) -> dict[str, dict[str, Any]]:
    """Write a fraction, run the steps on it, delete it."""
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="dataset_build_") as folder:
        corpus, work = Path(folder, "corpus"), Path(folder, "work")
        corpus.mkdir()
        work.mkdir()
        results = {"write": run_step("write", corpus, work, fraction=fraction, **options)}
        for step in steps:
            results[step] = run_step(step, corpus, work)
    rows = results["write"]["rows"]
    for step in results.keys() - {"load again", "stream one"}:
        results[step]["rows_per_second"] = rows / results[step]["seconds"]
    return results


def check(results: dict[str, dict[str, Any]]) -> None:
    """See that both pipelines made the same data set of the largest fraction."""
    ours, theirs = results["build, caml"], results["csv pipeline"]
    if list(ours["records"].values()) != list(theirs["records"].values()) or ours["checksum"] != theirs["checksum"]:
        raise ValueError(
            "The csv pipeline made other records than `MIMIC3` with text='caml': do not compare their times."
        )


def print_results(results: dict[float, dict[str, dict[str, Any]]], console: Console) -> None:
    table = Table(title=f"MIMIC3, configuration full, from csv.gz; {len(os.sched_getaffinity(0))} cores")
    table.add_column("step", no_wrap=True)
    for column in ("fraction", "rows", "records", "seconds", "rows / s", "peak GB"):
        table.add_column(column, justify="right", no_wrap=True)
    for fraction, steps in results.items():
        for step, result in steps.items():
            table.add_row(
                step,
                f"{fraction:g}",
                f"{steps['write']['rows']:,}",
                f"{sum(result['records'].values()):,}" if "records" in result else "",
                f"{result['seconds']:.2f}",
                f"{result['rows_per_second']:,.0f}" if "rows_per_second" in result else "",
                f"{result['peak_gb']:.2f}",
            )
        table.add_section()
    console.print(table)
    largest = results[max(results)]
    written = largest["write"]
    sizes = f"{written['packed_bytes'] / 1e9:.2f} GB of csv.gz, {written['unpacked_bytes'] / 1e9:.2f} GB unpacked"
    console.print(f"NOTEEVENTS of fraction {max(results):g}: {sizes}.")
    times = largest["csv pipeline"]["seconds"] / largest["build, caml"]["seconds"]
    console.print(
        f"With text='caml': {times:.1f} times the throughput of the csv pipeline, the same records and texts."
    )
    share = largest["unpack"]["seconds"] / largest["build"]["seconds"]
    console.print(f"Unpacking alone takes {share:.0%} of the seconds of the build.")


def run_here(args: argparse.Namespace) -> int:
    """Run one step in this process, and print what it gives."""
    logging.getLogger("dataset_scripts").setLevel(logging.ERROR)
    options = {}
    if args.step == "write":
        splits_dir = Path(args.splits_dir) if args.splits_dir else None
        options = {"fraction": args.fraction, "published_dir": Path(args.published_dir), "splits_dir": splits_dir}
    try:
        result = STEPS[args.step](args.corpus, args.work_dir, **options)
    except (ValueError, OSError) as error:
        print(f"{args.step}: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"peak_gb": _peak(), **result}))
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published_dir", help="folder with mimic3_code_distribution.csv")
    parser.add_argument("--splits_dir", help="CAML's split lists; lists of their length are made up if left out")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS, help="of MIMIC-III, at most 1")
    parser.add_argument(
        "--work_dir", type=Path, help="where the corpora go while they are measured; the temporary folder if left out"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/dataset_build.json"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fraction", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.step:
        return run_here(args)
    if args.published_dir is None:
        parser.error("--published_dir is needed: the codes get its counts")
    if not all(0 < fraction <= 1 for fraction in args.fractions):
        parser.error(f"--fractions {args.fractions}: each must be above 0 and at most 1")
    console = Console()
    folders = {"published_dir": Path(args.published_dir).resolve()}
    if args.splits_dir is not None:
        folders["splits_dir"] = Path(args.splits_dir).resolve()
    if args.work_dir is not None:
        args.work_dir.mkdir(parents=True, exist_ok=True)
    results = {}
    for fraction in sorted(args.fractions):
        steps: tuple[str, ...] = AT_EACH_FRACTION
        if fraction == max(args.fractions):
            steps += AT_THE_LARGEST
        try:
            with console.status(f"fraction {fraction:g}"):
                results[fraction] = measure(fraction, args.work_dir, steps, **folders)
        except ChildProcessError as error:
            print(f"dataset_build: {error}", file=sys.stderr)
            return 2
    check(results[max(results)])
    print_results(results, console)
    from dataset_scripts.files import write_json  # here: a step's peak memory is to include its own imports only

    write_json({"cores": len(os.sched_getaffinity(0)), "fractions": results}, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
