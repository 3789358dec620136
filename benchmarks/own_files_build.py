"""Peak memory of building `files`, the data set of the user's own notes, from few and from many rows: it should be the same.

    python -m benchmarks.own_files_build                                # csv, 1,000 and 100,000 rows: 0.5 GB of disk
    python -m benchmarks.own_files_build --rows 1000 2000000            # 10 GB of disk
    python -m benchmarks.own_files_build --form codes_file --code_system icd10cm

Each number of invented rows is written, built in a process of its own, and deleted. Its peak memory includes Python, the
libraries and the titles of the code system.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.memory import peak


ROOT = Path(__file__).resolve().parents[1]
ROWS = (1_000, 100_000)
FORMS = ("csv", "jsonl", "parquet", "codes_file")
NUM_CODES = 1_000
WORDS = "pain cough fever history discharged stable patient chest left right chronic acute with without medication"


def invent_rows(num_rows: int, words: int) -> Iterator[dict[str, str]]:
    """Notes of patients who have one to three each, with five to twelve codes of a long tail."""
    rng = random.Random(0)
    codes = [f"{letter}{number:02}" for letter in "ABCDEGHIJK" for number in range(100)]
    weights = [1 / rank for rank in range(1, NUM_CODES + 1)]
    vocabulary = WORDS.split()
    subject, left = 0, 0
    for number in range(num_rows):
        if not left:
            subject, left = subject + 1, rng.choice((1, 1, 2, 3))
        left -= 1
        chosen = dict.fromkeys(rng.choices(codes, weights, k=rng.randint(5, 12)))
        text = " ".join(rng.choices(vocabulary, k=words))
        yield {"id": f"n{number}", "subject_id": f"p{subject}", "text": text, "codes": ";".join(chosen)}


def write_rows(folder: Path, num_rows: int, words: int, form: str) -> dict[str, str]:
    """Write invented rows; returns the arguments that build them."""
    suffix = "csv" if form == "codes_file" else form
    path, codes_path = folder / f"notes.{suffix}", folder / "codes.csv"
    rows = invent_rows(num_rows, words)
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.string()) for name in ("id", "subject_id", "text", "codes")])
        with pq.ParquetWriter(path, schema) as writer:
            batch = []
            for row in rows:
                batch.append(row)
                if len(batch) == 10_000:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, schema))
    elif form == "jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        with path.open("w", newline="") as file, codes_path.open("w", newline="") as codes_file:
            notes, codings = csv.writer(file), csv.writer(codes_file)
            notes.writerow(["id", "subject_id", "text", "codes"])
            codings.writerow(["id", "code"])
            for row in rows:
                notes.writerow(row.values())
                if form == "codes_file":
                    codings.writerows((row["id"], code) for code in row["codes"].split(";"))
    return {"train_file": str(path), **({"codes_file": str(codes_path)} if form == "codes_file" else {})}


def build(options: dict[str, str], cache_dir: str) -> dict[str, Any]:
    """Build the rows in this process, which does nothing else."""
    from dataset_scripts import load_builder

    data_dir = options.pop("train_file")
    apart = {"train_file": data_dir} if "codes_file" in options else {"data_dir": data_dir}
    builder = load_builder("files", cache_dir=cache_dir, **apart, **options)
    return {
        "records": {name: split.num_examples for name, split in builder.info.splits.items()},
        "peak_gb": peak() / 1e9,
    }


def measure(num_rows: int, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
        options = {"code_system": args.code_system, **write_rows(Path(folder), num_rows, args.words, args.form)}
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e9
        command = [
            sys.executable,
            "-m",
            "benchmarks.own_files_build",
            "--build",
            json.dumps(options),
            f"{folder}/cache",
        ]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        return {"rows": num_rows, "input_gb": size, **json.loads(output.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--words", type=int, default=300, help="of a note")
    parser.add_argument("--form", choices=FORMS, default="csv", help="`codes_file`: csv, the codes in a second table")
    parser.add_argument("--code_system", default="other")
    parser.add_argument("--work_dir", help="folder for what is written and deleted again")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        print(json.dumps(build(json.loads(args.build[0]), args.build[1])))
        return
    measured = [measure(num_rows, args) for num_rows in args.rows]
    table = Table(title=f"Building `files` from {args.form}, notes of {args.words} words")
    for column in ("rows", "input, GB", "records of the splits", "peak memory, GB", "beside the first"):
        table.add_column(column, justify="right")
    for row in measured:
        ratio = row["peak_gb"] / measured[0]["peak_gb"]
        records = ", ".join(f"{number:,}" for number in row["records"].values())
        table.add_row(f"{row['rows']:,}", f"{row['input_gb']:.3f}", records, f"{row['peak_gb']:.3f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
