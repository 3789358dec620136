"""Invented tables of notes as a user may have them, and a fixture that builds them."""

import csv
import json

import pytest

from dataset_scripts import load_builder


CODES = ["E11.9", "I10", "J18.9", "K21.9", "N39.0"]


def make_rows(count=40, start=0, per_subject=2):
    """Notes `n0`, `n1`, ... of subjects who have so many each; the codes of a note follow from its number."""
    return [
        {
            "id": f"n{number}",
            "subject_id": f"s{number // per_subject}",
            "date": f"2020-{1 + number // 28 % 12:02}-{1 + number % 28:02}",
            "text": f"Note {number}, invented.",
            "codes": ";".join([CODES[number % 5], CODES[number // 5 % 5]][: 1 + number % 2]),
        }
        for number in range(start, start + count)
    ]


def write_table(path, rows, delimiter=","):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else delimiter)
            table.writeheader()
            table.writerows(rows)
    return path


@pytest.fixture
def build_own(tmp_path):
    """Build the user's own notes."""

    def build(data_dir=None, **options):
        return load_builder("files", data_dir=data_dir, cache_dir=tmp_path / "cache", **options)

    return build


def records_of(builder):
    """Id, subject, text and names of the codes of each record, by split."""
    names = builder.info.features["codes"].feature.names
    return {
        split: [(row["hadm_id"], row["subject_id"], row["text"], [names[i] for i in row["codes"]]) for row in dataset]
        for split, dataset in builder.as_dataset().items()
    }


def expected_of(rows):
    return [(row["id"], row["subject_id"], row["text"], sorted(set(row["codes"].split(";")))) for row in rows]


def ids_of(builder):
    return {split: [record[0] for record in records] for split, records in records_of(builder).items()}
