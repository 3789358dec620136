"""Files of notes that the page codes: read as `modeling-icd predict` reads them, from memory; limits, and what is forgotten."""

import csv
import io
import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_icd.inference.predict_notes import Row, open_notes
from modeling_icd.space import batch as batches
from modeling_icd.space.batch import Batch, BatchError, Batches, batch_csv, read_batch


LIMIT = 1000


def csv_bytes(rows: list[dict], encoding: str = "utf-8") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode(encoding)


def parquet_bytes(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def invented(count: int = 20) -> list[dict]:
    draw = random.Random(2)
    words = ["fever,", "\u00e8", '"cough"', "\U0001f600", "sepsis\nno"]
    return [{"note_id": f"n{i}", "text": " ".join(draw.choices(words, k=5))} for i in range(count)]


@pytest.mark.parametrize("name", ["notes.csv", "Notes.TSV", "notes.jsonl", "notes.parquet"])
def test_rows_are_those_that_predict_reads_from_the_file(name, tmp_path):
    rows = [*invented(), {"note_id": "", "text": "fever"}, {"note_id": "x", "text": " "}]
    kind = name.lower().rpartition(".")[2]
    if kind == "parquet":
        content = parquet_bytes(rows)
    elif kind == "jsonl":
        content = pa.Table.from_pylist(rows).to_pandas().to_json(orient="records", lines=True).encode()
    else:
        content = csv_bytes(rows)
        content = content if kind == "csv" else content.replace(b",", b"\t")
    (tmp_path / name).write_bytes(content)
    read = read_batch(name, content, LIMIT)
    assert list(read.rows) == list(open_notes(tmp_path / name).rows())
    assert [row.reason for row in read.rows if row.reason] == ["has no id", "has no text"]


def test_rows_that_cannot_be_read_are_rejected_and_the_others_kept():
    content = b'id,text\n1,fever\n2,cough,too,many\n3,"has a ""quote"""\n4,' + b"x" * (LIMIT + 1) + b"\n5,\n"
    rows = read_batch("a.csv", content, LIMIT).rows
    assert [row.text for row in rows] == ["fever", "", 'has a "quote"', "", ""]
    reasons = [row.reason for row in rows]
    assert reasons[1].startswith("has 4 columns, and the header 2")
    assert reasons[::2] == ["", "", "has no text"] and reasons[3] == "has a note of more than 1,000 characters"
    assert [row.row for row in rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.xlsx", b"PK", "a.xlsx has a name that ends in none of .csv, .tsv, .jsonl, .parquet"),
        ("a.csv.gz", b"\x1f\x8b", "a.csv.gz has a name that ends in none of"),
        ("a.csv", b"note_id,note\n1,SECRET\n", "a.csv has no column 'text' .* Its columns are 'note_id', 'note'."),
        ("a.csv", b"SECRET is ill,SECRET has fever\n1,2\n", "a.csv has no column 'text' with the notes: name it so in the first line.$"),
        ("a.csv", b"text\n", "a.csv has no note that can be coded: it has no rows"),
        ("a.csv", b"id,text\n1,\n2,\n", "a.csv has no note that can be coded: row 1 has no text"),
        ("a.parquet", b"PAR1 and more", "a.parquet cannot be read as Parquet"),
        ("a.csv", bytes(range(256)), "a.csv has NUL bytes in its first line"),
        ("a.jsonl", b"[1]", "a.jsonl"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_message(name, content, message):
    with pytest.raises(BatchError, match=message) as error:
        read_batch(f"/ward/{name}", content, LIMIT)
    assert "SECRET" not in str(error.value)


def test_files_that_are_too_large_are_refused_before_they_are_read(monkeypatch):
    with pytest.raises(BatchError, match="more than 2,000 rows"):
        read_batch("a.csv", b"text\n" + b"fever\n" * 2001, LIMIT)
    with pytest.raises(BatchError, match="more than 2,000 rows"):
        read_batch("a.parquet", parquet_bytes([{"text": "fever"}] * 2001), LIMIT)
    with pytest.raises(BatchError, match="has 20 MB, and at most 20 MB"):
        read_batch("a.csv", b"x" * (batches.MAX_BATCH_BYTES + 1), LIMIT)
    with pytest.raises(BatchError, match="unpacks to more than 80 MB"):
        read_batch("a.parquet", parquet_bytes([{"text": "x" * (45 << 20)}, {"text": "y" * (45 << 20)}]), LIMIT)
    monkeypatch.setattr(batches, "MAX_BATCH_CHARACTERS", 100)
    with pytest.raises(BatchError, match="holds more than 100 characters"):
        read_batch("a.csv", b"text\n" + b"fever\n" * 50, LIMIT)


def test_a_file_is_given_out_once_and_forgotten_after_a_time(monkeypatch):
    kept = Batches()
    token = kept.add(Batch([Row(1, "1", "fever", "")]))
    assert kept.take(token) is not None and kept.take(token) is None
    monkeypatch.setattr(batches, "KEPT_SECONDS", 0.05)
    token = kept.add(Batch([]))
    deadline = time.monotonic() + 10
    while len(kept) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kept.take(token) is None
    monkeypatch.undo()
    for _ in range(batches.MAX_BATCHES):
        kept.add(Batch([]))
    with pytest.raises(BatchError, match="8 files are waiting"):
        kept.add(Batch([]))


def test_the_csv_has_the_columns_of_predict_and_no_formula():
    code = {"code": "I10", "description": "=x", "score": 0.5, "decision": None, "evidence": None}
    written = batch_csv([(Row(1, "-a", "", ""), [code]), (Row(2, "b", "", ""), [])])
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    assert list(rows[0]) == ["row", "id", "code", "description", "score", "decision", "evidence"]
    assert [(row["row"], row["id"], row["code"], row["description"]) for row in rows] == [
        ("1", "'-a", "I10", "'=x"), ("2", "b", "", "")
    ]  # fmt: skip
