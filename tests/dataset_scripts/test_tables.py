"""The user's own tables are read row by row, whatever their format; what is wrong with them names no value of a row."""

import csv
import gzip
import io
import json
import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_scripts.tables import LONGEST_VALUE, MIXED, NULS, BadRow, column_names, is_table, quote_names, read_table


ROWS = [
    {"id": "a", "text": 'Cough, "dry".\r\nFever; chills | rigor\tshake', "codes": "486"},
    {"id": "b", "text": "Café, naïve, 38 °C\u2028next\x0bnext", "codes": ""},
    {"id": "c", "text": "", "codes": "401.9;250.00"},
]
NAMES = list(ROWS[0])
SECRET = "Xylophonia"


def write(path, rows=ROWS, delimiter=",", encoding="utf-8"):
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    buffer = io.StringIO(newline="")
    if ".jsonl" in path.name:
        buffer.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        table = csv.DictWriter(buffer, list(rows[0]), delimiter="\t" if ".tsv" in path.name else delimiter)
        table.writeheader()
        table.writerows(rows)
    data = buffer.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def written(path, data):
    path.write_bytes(data)
    return path


FILES = ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.TSV.gz", "a.jsonl.gz", "a.parquet"]


@pytest.mark.parametrize("name", FILES)
def test_every_format_holds_the_same_rows(tmp_path, name):
    path = write(tmp_path / name.replace("TSV", "tsv"))
    path = path.rename(tmp_path / name)
    assert list(read_table(path)) == ROWS
    assert column_names(path) == NAMES
    assert list(read_table(str(path), columns=["text"])) == [{"text": row["text"]} for row in ROWS]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_is_divided_as_its_header(tmp_path, delimiter):
    assert list(read_table(write(tmp_path / "a.csv", delimiter=delimiter))) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz"])
def test_a_byte_order_mark_is_heeded(tmp_path, name, encoding):
    path = write(tmp_path / name, encoding=encoding)
    assert list(read_table(path)) == ROWS
    assert column_names(path) == NAMES


def test_another_encoding_is_given(tmp_path):
    rows = [{"text": "Müller, 5 µg", "codes": "486"}]
    assert list(read_table(write(tmp_path / "a.csv", rows, encoding="cp1252"), "cp1252")) == rows
    assert list(read_table(write(tmp_path / "b.csv", rows, encoding="utf-16-le"), "utf-16-le")) == rows


def test_bytes_outside_of_utf8_are_read_as_windows_1252_and_their_rows_counted(tmp_path):
    # The third row has a proper é and a byte of Windows-1252 besides; 0x81 is no character there.
    path = written(tmp_path / "a.csv", b"id,text\n1,plain\n2,caf\xe9 \x80\n3,\xc3\xa9 \xe9\xe9 \x81\n4,\xc3\xa9\n")
    counts = Counter()
    texts = [row["text"] for row in read_table(path, counts=counts)]
    assert texts == ["plain", "café €", "é éé \ufffd", "é"]
    assert counts == {MIXED: 2}
    path = written(tmp_path / "a.jsonl", b'{"text": "caf\xe9"}\n{"text": "b"}\n')
    assert [row["text"] for row in read_table(path, counts=counts)] == ["café", "b"]
    assert counts == {MIXED: 3}


def test_nul_bytes_are_taken_out_and_their_rows_counted(tmp_path):
    counts = Counter()
    rows = list(read_table(written(tmp_path / "a.csv", b"id,text\n1,a\0b\0\n2,c\n"), counts=counts))
    assert rows == [{"id": "1", "text": "ab"}, {"id": "2", "text": "c"}]
    assert counts == {NULS: 1}


def test_a_long_note_is_read(tmp_path):
    rows = [{"id": "1", "text": "word " * 100_000}]  # the module csv alone refuses more than 131,072 characters
    assert list(read_table(write(tmp_path / "a.csv", rows))) == rows


BAD_CSV = {
    "a value more": (b"id,text\n1,a\n2,a,%s\n3,c\n", 2, "has 3 columns, and the header 2"),
    "a value less": (b"id,text\n1,a\n%s\n3,c\n", 2, "has 1 columns, and the header 2"),
    "a quote not doubled": (b'id,text\n1,a\n2,"say "%s" now"\n3,c\n', 2, "has a quote within a value that is not doubled"),
    "a quote escaped by a backslash": (b'id,text\n1,a\n2,"say \\"%s\\" now"\n3,c\n', 2, "that is not doubled"),
    "a quote never closed": (b'id,text\n1,a\n3,c\n2,"%s\nand more\n', 3, "has a quote that is never closed"),
}  # fmt: skip


@pytest.mark.parametrize("data, number, reason", BAD_CSV.values(), ids=BAD_CSV.keys())
def test_a_bad_row_of_a_csv_is_yielded_in_its_place(tmp_path, data, number, reason):
    rows = list(read_table(written(tmp_path / "a.csv", data % SECRET.encode())))
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [row.row for row in bad] == [number] and rows[number - 1] is bad[0]
    assert reason in bad[0].reason and SECRET not in bad[0].reason
    assert [row for row in rows if row not in bad] == [{"id": "1", "text": "a"}, {"id": "3", "text": "c"}]


@pytest.mark.parametrize(
    "line, reason",
    [
        ('{"text": "Xylophonia', "is not JSON"),
        ('"Xylophonia"', "is not a JSON object"),
        ("[" * 100_000, "is not JSON"),
        ('{"text": "\\ud83d Xylophonia"}', "one half of a character"),
    ],
    ids=["cut short", "no object", "deep", "half a character"],
)
def test_a_bad_row_of_a_jsonl_is_yielded_in_its_place(tmp_path, line, reason):
    good = '{"text": "a \\ud83d\\ude00"}'
    rows = list(read_table(written(tmp_path / "a.jsonl", f"{good}\n\n{line}\n{good}".encode())))
    assert [rows[0], rows[2]] == [{"text": "a 😀"}] * 2
    assert rows[1].row == 2 and reason in rows[1].reason and SECRET not in rows[1].reason


def test_a_quote_never_closed_does_not_fill_the_memory(tmp_path):
    path = written(tmp_path / "a.csv", b'id,text\n1,"' + b"word word\n" * (LONGEST_VALUE // 4))  # 80 MB
    earlier = csv.field_size_limit(131_072)  # of the whole process: another test may have raised it
    tracemalloc.start()
    bad = next(read_table(path))
    csv.field_size_limit(earlier)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(bad, BadRow) and "is probably never closed" in bad.reason
    assert peak < 6 * LONGEST_VALUE


FAULTS = {
    "missing": ("a.csv", None, FileNotFoundError, "a.csv does not exist"),
    "format": ("a.xlsx", b"x", ValueError, "ends in none of .csv, .tsv, .jsonl, .parquet"),
    "empty": ("a.csv", b"", ValueError, "is empty"),
    "empty lines": ("a.csv", b"\n\n", ValueError, "must name the columns"),
    "header": ("a.csv", b'id,"text\n1,Xylophonia\n', ValueError, "must name the columns"),
    "twice": ("a.csv", b"id,text,id\n", ValueError, "names 'id' twice"),
    "a note for a header": ("a.csv", b'"%s","%s"\n' % ((b"Xylophonia " * 9,) * 2), ValueError, "a name of 98 characters"),
    "gzip": ("a.csv.gz", b"id,text\n1,Xylophonia\n", ValueError, "a gzip stream that is cut short or damaged after row 0"),
    "gzip cut": ("a.csv.gz", gzip.compress(b"id,text\n1,Xylophonia\n")[:-4], ValueError, "cut short or damaged after row 1"),
    "list": ("a.jsonl", b'[{"text": "Xylophonia"}]', ValueError, "expected one JSON object a line"),
    "utf-16": ("a.csv", "id,text\n1,Xylophonia\n".encode("utf-16-le"), ValueError, "encoding=utf-16-le"),
    "utf-16 cut": ("a.csv", "id,text\n1,Xylophonia\n".encode("utf-16")[:-1], ValueError, "are not utf-16"),
    "parquet": ("a.parquet", b"Xylophonia" * 100, ValueError, "cannot be read as Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("name, data, kind, message", FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_with_the_file_is_one_message(tmp_path, name, data, kind, message):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(kind) as error:
        list(read_table(path))
    assert str(path) in str(error.value) and message in str(error.value)
    exception = error.value
    while exception is not None:
        assert SECRET not in str(exception)
        exception = exception.__cause__ or exception.__context__


def test_a_damaged_parquet_file_is_one_message(tmp_path):
    path = write(tmp_path / "a.parquet", [{"text": f"{SECRET} {i}" * 50} for i in range(500)])
    data = bytearray(path.read_bytes())
    data[20:2000] = bytes(1980)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged after row 0") as error:
        list(read_table(path))
    assert SECRET not in str(error.value)


def test_an_encoding_that_is_none_is_refused(tmp_path):
    path = write(tmp_path / "a.csv")
    for encoding in ("utf-99", "base64"):
        with pytest.raises(ValueError, match=r"`encoding` .* is not the name of a text encoding"):
            list(read_table(path, encoding))
    with pytest.raises(ValueError, match="holds bytes after row 0 that are not ascii"):
        list(read_table(path, "ascii"))


def test_a_table_of_its_header_alone_has_no_row(tmp_path):
    path = written(tmp_path / "a.csv", b"id,text\n")
    assert list(read_table(path)) == [] and column_names(path) == ["id", "text"]


def test_columns_of_a_data_frame_and_of_rows_that_differ(tmp_path):
    path = written(tmp_path / "a.csv", b",text, codes \r\n0,a,b\r\n")  # pandas writes its index without a name
    assert list(read_table(path)) == [{"text": "a", "codes": "b"}] and column_names(path) == ["text", "codes"]
    path = written(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b", "codes": ["486"]}\n')
    assert column_names(path) == ["text", "codes"]


def test_names_of_tables():
    from pathlib import Path

    names = ["a.csv", "a.CSV.GZ", "a.tsv.gz", "a.jsonl", "a.parquet", "a.parquet.gz", "a.csv.zip", "csv", "a.txt"]
    assert [name for name in names if is_table(Path(name))] == names[:5]
    assert quote_names(["text", "x" * 41]) == "'text', a name of 41 characters"


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"id": CELLS, "text": CELLS}), min_size=1, max_size=5))
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.parquet"])
def test_whatever_was_written_is_read(tmp_path, name, rows):
    assert list(read_table(write(tmp_path / name, rows))) == rows
