"""What is wrong with notes of the user's own: one message without a word of them, nothing cached; or a count that is said."""

import csv
import json
import logging
import re
import sqlite3

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import SECRET, assert_clean, cached_files
from own_tables import ids_of, make_rows, records_of, write_table

from dataset_scripts import BUILDERS
from dataset_scripts.builders import own_index


def secret_rows(count=20):
    return [{**row, "text": f"{SECRET} {row['text']}"} for row in make_rows(count)]


def edited(path, change):
    path.write_bytes(change(path.read_bytes()))
    return path


def refuse(build_own, tmp_path, message, path=None, data_dir=None, kind=ValueError, **options):
    with pytest.raises(kind, match=message) as error:
        build_own(data_dir if data_dir is not None or options else path, **options)
    if path is not None:
        assert str(path) in str(error.value)
    exception = error.value
    while exception is not None:
        assert SECRET not in str(exception)
        exception = exception.__cause__ or exception.__context__
    assert cached_files(tmp_path) == []


# ---- errors: the file as a whole is wrong


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", [{"note": SECRET, "codes": "X"}])
    refuse(build_own, tmp_path, r"has no column 'text': give `text_column` .* which are 'note', 'codes'", path)
    path = write_table(tmp_path / "b.csv", secret_rows())
    there = "'id', 'subject_id', 'date', 'text', 'codes'"
    for option, name in {
        "codes_column": "icd",
        "id_column": "note_id",
        "subject_column": "patient",
        "procedures_column": "procedures",
        "text_column": ["text", "history"],
    }.items():
        wrong = name if isinstance(name, str) else name[1]
        refuse(
            build_own,
            tmp_path,
            rf"has no column '{wrong}': give `{option}` .* which are {there}",
            path,
            path,
            **{option: name},
        )
    refuse(build_own, tmp_path, "has no column 'when'", path, path, split_by="date", date_column="when")


def test_a_table_without_a_header_shows_no_note(tmp_path, build_own):
    path, notes = tmp_path / "a.csv", write_table(tmp_path / "notes.csv", secret_rows())
    for row in (
        f'"{SECRET} {"and more " * 10}","X"',
        f"17,{SECRET} Smith,1950-02-03,I10",
        f"Pt {SECRET},HIV positive",
    ):
        path.write_text(f"{row}\n" * 3)
        columns = 1 + row.count(",")
        message = (
            f"of which there are {columns}; the first line does not look like the names of columns, so it is not shown"
        )
        refuse(build_own, tmp_path, message, path)
        refuse(
            build_own,
            tmp_path,
            f"`code` and `description` among its columns, {message}",
            path,
            notes,
            descriptions_file=path,
        )


def test_two_notes_with_one_id_are_refused(tmp_path, build_own):
    rows = secret_rows()
    path = write_table(tmp_path / "a.csv", [*rows, rows[3], rows[4]])
    refuse(build_own, tmp_path, "2 notes have the id of an earlier one, such as row 21 of .* that of row 4 of", path)


def test_a_note_in_two_splits_is_refused(tmp_path, build_own):
    write_table(tmp_path / "train.csv", secret_rows()[:15])
    test = write_table(tmp_path / "test.csv", secret_rows()[14:])
    refuse(
        build_own,
        tmp_path,
        r"1 note has .* such as row 1 of .*test\.csv that of row 15 of .*train\.csv",
        test,
        tmp_path,
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("codes", [[401.9], [[401.9]], [[4019, 25000]]], ids=["float", "floats", "integers"])
def test_codes_as_numbers_are_refused(tmp_path, build_own, name, codes):
    rows = [{"text": SECRET, "codes": value} for value in codes]
    path = write_table(tmp_path / name, rows)
    refuse(build_own, tmp_path, "the codes of row 1 are not strings", path)


def test_class_ids_without_names_are_refused(tmp_path, build_own):
    datasets.Dataset.from_list([{"text": SECRET, "codes": [1, 2]}]).save_to_disk(tmp_path / "saved")
    refuse(build_own, tmp_path, "the codes of row 1 are not strings", tmp_path / "saved")


def test_most_codes_in_another_form_are_refused(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", secret_rows())
    refuse(
        build_own,
        tmp_path,
        r"30 of 30 codes are not in the form of ICD-9-CM, the first in row 1 of",
        path,
        path,
        code_system="icd9cm",
    )
    refuse(
        build_own, tmp_path, "codes are not in the form of ICD-10-CM", path, path, codes_column="text", code_system="icd10cm"
    )  # fmt: skip


def test_a_text_is_no_code(tmp_path, build_own):
    rows = [{"text": "a", "codes": f"{SECRET} " * 50}] * 20
    path = write_table(tmp_path / "a.csv", rows)
    refuse(
        build_own,
        tmp_path,
        "20 of 20 codes are not in the form of another code system",
        path,
        path,
        code_separator=";",
    )


@pytest.mark.parametrize("column, reason", [("text", "rows without a text"), ("id", "rows without an id")])
def test_most_rows_without_a_value_are_refused(tmp_path, build_own, column, reason):
    rows = secret_rows()
    for row in rows[:11]:
        row[column] = " "
    path = write_table(tmp_path / "a.csv", rows)
    refuse(build_own, tmp_path, f"most of its rows cannot be used, 11 of 20 are {reason}", path)


def test_most_rows_malformed_are_refused(tmp_path, build_own):
    path = tmp_path / "a.csv"
    path.write_text("text,codes\n" + f"{SECRET}, and more,X\n" * 11 + "fine,X\n" * 9)
    refuse(
        build_own, tmp_path, r"11 of 20 are rows that cannot be read\..* The first: row 1 of .* has 3 columns", path
    )


def test_notes_of_which_none_has_a_code_are_refused_with_the_counts(tmp_path, build_own):
    notes = write_table(tmp_path / "notes.csv", [{"id": row["id"], "text": SECRET} for row in make_rows()])
    codes = write_table(tmp_path / "codes.csv", [{"id": f"{row['id']}.0", "code": "X"} for row in make_rows()])
    refuse(
        build_own,
        tmp_path,
        "0 notes with codes are too few to be divided, .* Left out, notes without codes: 40; code rows with the id of no note: 40",
        notes,
        notes,
        codes_file=codes,
    )


def test_too_few_notes_are_not_divided(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", secret_rows(9))
    refuse(build_own, tmp_path, r"9 notes with codes are too few .* expected 10 .* `unsplit=True`", path)
    path = write_table(tmp_path / "b.csv", [{**row, "subject_id": "1"} for row in secret_rows(30)])
    refuse(build_own, tmp_path, "no note with one of the chosen codes would be in split 'validation'", path)


def test_more_codes_than_there_are(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", secret_rows())
    refuse(build_own, tmp_path, "5 codes are in as many notes as asked for", path, path, num_codes=6)
    refuse(build_own, tmp_path, "0 codes are in as many notes as asked for", path, path, min_count=1000)


def test_a_cut_gzip_file(tmp_path, build_own):
    import gzip

    path = write_table(tmp_path / "a.csv", secret_rows())
    path = edited(path, gzip.compress).rename(tmp_path / "a.csv.gz")
    edited(path, lambda data: data[:-6])
    refuse(build_own, tmp_path, "cut short or damaged", path)


def test_a_damaged_folder_of_save_to_disk(tmp_path, build_own):
    datasets.Dataset.from_list(secret_rows()).save_to_disk(tmp_path / "saved")
    edited(next((tmp_path / "saved").glob("*.arrow")), lambda data: data[:50])
    refuse(build_own, tmp_path, r"cannot be read by `datasets\.load_from_disk`", tmp_path / "saved")


def test_a_table_that_changes_during_the_build(tmp_path, build_own, monkeypatch):
    path = write_table(tmp_path / "a.csv", secret_rows())
    generate = BUILDERS["files"]._generate_examples

    def change(self, **options):
        write_table(path, secret_rows()[::-1])
        yield from generate(self, **options)

    monkeypatch.setattr(BUILDERS["files"], "_generate_examples", change)
    with pytest.raises(datasets.exceptions.DatasetGenerationError) as error:
        build_own(path)
    assert "was changed while it was read" in str(error.value.__cause__)
    assert cached_files(tmp_path) == []


# ---- errors: the arguments are wrong


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "Give the notes either by `data_dir` or by `train_file`"),
        ({"train_file": "no.csv"}, r"`train_file` \(.*no\.csv\) is not a file"),
        ({"data_dir": "no/such/folder"}, r"`data_dir` \(.*\) does not exist: expected a folder or file of notes"),
        ({"data_dir": "such/notes.csv"}, r"`data_dir` \(.*\) does not exist: expected a folder or file of notes"),
        ({"train_file": "a.csv", "test_file": "a.csv"}, "One file is given for two splits"),
        ({"train_file": "a.csv", "data_dir": "."}, "Give the notes either by"),
        ({"train_file": "a.csv", "code_system": "icd9"}, "must be one of icd9cm, icd10cm, icd10pcs, other"),
        ({"train_file": "a.csv", "split_by": "random"}, "must be 'codes' or 'date'"),
        ({"train_file": "a.csv", "date_column": "date"}, r"`date_column` is read for `split_by='date'` alone"),
        ({"train_file": "a.csv", "code_separator": ""}, "`code_separator` must not be empty"),
        ({"train_file": "a.csv", "code_kind_column": "kind"}, "`code_kind_column` is a column of `codes_file`"),
        ({"train_file": "a.csv", "codes_file": "a.csv", "procedures_column": "x"}, "`code_kind_column` says the kind"),
        ({"train_file": "a.csv", "codes_file": "no.csv"}, r"`codes_file` \(.*\) is not a file"),
        (
            {"train_file": "a.csv", "descriptions_file": "a.csv"},
            "must have `code` and `description` among its columns, which are 'letter', 'description'",
        ),
        ({"test_file": "a.csv", "num_codes": 2}, "count train notes, and there are none: give `codes`"),
        ({"train_file": "a.csv", "num_codes": 0}, r"`num_codes` \(0\) must be at least 1"),
        ({"train_file": "a.csv", "codes": ["4019"], "code_system": "icd9cm"}, "not written as ICD-9-CM writes them"),
        ({"train_file": "a.csv", "encoding": "utf-99"}, "is not the name of a text encoding"),
        ({"train_file": "a.xlsx"}, "ends in none of"),
    ],
    ids=str,
)
def test_arguments(tmp_path, build_own, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_table(
        tmp_path / "a.csv", [{"id": row["id"], "text": row["text"], "codes": row["codes"]} for row in secret_rows()]
    )
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    if "descriptions_file" in options:
        write_table(tmp_path / "b.csv", [{"letter": "a", "description": "x"}])
        options = {**options, "descriptions_file": "b.csv"}
    with pytest.raises((ValueError, OSError), match=message):
        build_own(**options)
    assert cached_files(tmp_path) == []


def test_a_folder_of_tables_that_are_no_splits(tmp_path, build_own):
    data = tmp_path / "data"
    data.mkdir()
    refuse(
        build_own,
        tmp_path,
        "No notes in `data_dir`.*Name the files train, validation and test",
        data,
        kind=FileNotFoundError,
    )
    for name in ("january", "february"):
        write_table(data / f"{name}.csv", secret_rows())
    refuse(build_own, tmp_path, r"holds 2 tables \(february.csv, january.csv\), and none is named as a split", data)


def test_one_table_in_two_formats_is_refused(tmp_path, build_own):
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"text": SECRET, "codes": row["codes"]} for row in secret_rows()]  # without ids, nothing else would tell
    for name in ("train.csv", "Train.parquet", "test.csv"):
        write_table(data / name, rows)
    refuse(build_own, tmp_path, r"holds 'train' in 2 formats \(Train\.parquet, train\.csv\)", data)


def test_tables_and_splits_that_are_not_read_are_counted(tmp_path, build_own):
    data = tmp_path / "data"
    data.mkdir()
    for split, start in {"train": 0, "validation": 20, "test": 30}.items():
        write_table(data / f"{split}.csv", make_rows(10, start=start))
    assert "not read" not in build_own(data).info.description
    write_table(data / "notes_2020.csv", make_rows(10, start=40))  # after a build, too
    write_table(data / "codes.csv", [{"code": "I10", "description": "x"}])
    builder = build_own(data, descriptions_file=data / "codes.csv")
    said = "tables that are not read, since no split has their name (notes_2020.csv): 1"
    assert said in builder.info.description
    assert {split: len(ids) for split, ids in ids_of(builder).items()} == {"train": 10, "validation": 10, "test": 10}

    rows = {
        name: datasets.Dataset.from_list(make_rows(5, start=i * 5)) for i, name in enumerate(("train", "dev", "test2"))
    }
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "saved")
    description = build_own(tmp_path / "saved").info.description
    assert "splits that are not read, since no split has their name (test2): 1" in description


def test_splits_of_a_data_set_that_are_none(tmp_path, build_own):
    rows = datasets.Dataset.from_list(secret_rows())
    datasets.DatasetDict({"a": rows, "b": rows}).save_to_disk(tmp_path / "saved")
    refuse(build_own, tmp_path, "has the splits a, b: expected train, validation and test", tmp_path / "saved")


def test_most_rows_that_do_not_say_their_kind_are_refused(tmp_path, build_own):
    """`PDX` is the principal diagnosis: as a procedure, 4019 would be another valid code, 40.19."""
    notes = write_table(tmp_path / "notes.csv", [{"id": row["id"], "text": SECRET} for row in make_rows()])
    rows = [
        {"id": row["id"], "code": "4019", "kind": kind} for row in make_rows() for kind in ("PDX", "Principal", "dx")
    ]
    codes = write_table(tmp_path / "codes.csv", rows)
    options = {"codes_file": codes, "code_kind_column": "kind", "code_system": "icd9cm"}
    message = (
        r"80 of 120 rows do not say in column 'kind' .* Expected one of d, dx, cm, .* leave `code_kind_column` out"
    )
    refuse(build_own, tmp_path, message, codes, notes, **options)


def test_a_subject_that_comes_too_late_to_be_found_is_refused(tmp_path, build_own):
    """Else its notes would be divided as those of many subjects, and one be in train and in test."""
    rows = [{"text": SECRET, "codes": "X"} for _ in range(100)] + [
        {"text": SECRET, "codes": "X", "patient_id": "1"}
    ] * 20
    path = write_table(tmp_path / "a.jsonl", rows)
    refuse(build_own, tmp_path, "row 101 has a column 'patient_id', which none of the first 100 rows has", path)
    rows[0]["patient_id"] = None
    write_table(path, rows)
    assert "each taken for one of its own: 100" in build_own(path, unsplit=True).info.description
    named = write_table(tmp_path / "b.jsonl", [{**row, "who": "2"} for row in rows[1:]])
    assert len(ids_of(build_own(named, subject_column="who", unsplit=True))["unsplit"]) == 119


# ---- counts: some rows are wrong


def test_rows_that_make_no_record_are_counted(tmp_path, build_own, caplog):
    rows = secret_rows(40)
    rows[1]["text"], rows[2]["text"], rows[3]["id"], rows[4]["codes"], rows[5]["subject_id"] = "", " \n", "", " ; ", ""
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(rows[0])
        table.writerows(row.values() for row in rows)
        file.write(f"n50,s50,2020-01-01,{SECRET}, unquoted,I10\n")
        file.write(f'n51,s51,2020-01-01,"{SECRET} "quoted" it",I10\n')
    edited(path, lambda data: data.replace(b"Note 7,", b"Note 7 caf\xe9\0,"))
    with caplog.at_level(logging.WARNING, logger="dataset_scripts"):
        builder = build_own(path, unsplit=True)
    assert [record[0] for record in records_of(builder)["unsplit"]] == [
        f"n{i}" for i in range(40) if i not in (1, 2, 3, 4)
    ]
    assert records_of(builder)["unsplit"][3][2] == f"{SECRET} Note 7 café, invented."
    for said in (
        "left out, rows without a text: 2",
        "left out, rows without an id: 1",
        "left out, notes without codes: 1",
        "notes without a patient, each taken for one of its own: 1",
        f"left out, rows that cannot be read (the first: row 41 of {path} has 6 columns, and the header 5",
        "rows with bytes that are not UTF-8, read as Windows-1252: 1",
        "rows with NUL characters, which were taken out: 1",
    ):
        assert said in builder.info.description and said in caplog.text
    assert SECRET not in caplog.text


def test_codes_in_another_form_are_counted(tmp_path, build_own):
    rows = secret_rows()
    rows[0]["codes"] = "E11.9; 99999; E119"
    builder = build_own(write_table(tmp_path / "a.csv", rows), code_system="icd10cm", unsplit=True)
    assert records_of(builder)["unsplit"][0][3] == ["E11.9"]
    said = f"left out, codes that are not of ICD-10-CM (the first: row 1 of {tmp_path / 'a.csv'}, column 'codes'): 1"
    assert said in builder.info.description


DAMAGED = {
    "486.0": "is a number with `.0` behind it (486.0 for 486)",
    "4019.0": "is a number with `.0` behind it (486.0 for 486)",
    "401,9": "has a comma in place of its dot (401,9 for 401.9)",
    "V45,8": "has a comma in place of its dot (401,9 for 401.9)",
    "4.28E+02": "is a number in scientific form (4.28E+02 for 428)",
    "01-Sep": "is a date (01-Sep for 1.9 or 9-1)",
    "Sep-01": "is a date (01-Sep for 1.9 or 9-1)",
    "01-Mrz": "is a date (01-Sep for 1.9 or 9-1)",
    "2024-09-01": "is a date (01-Sep for 1.9 or 9-1)",
}


@pytest.mark.parametrize("damaged", DAMAGED)
@pytest.mark.parametrize("place", ["notes", "codes_file"])
def test_codes_that_a_spreadsheet_damaged_are_refused(tmp_path, build_own, damaged, place):
    rows = [{**row, "codes": "428.0;401.0;96.71"} for row in secret_rows()]
    where = rows if place == "notes" else [{"id": row["id"], "codes": row["codes"]} for row in rows]
    for number in (6, 8):
        where[number]["codes"] = f"428.0; {damaged}"
    notes, options = write_table(tmp_path / "a.csv", rows), {}
    if place == "codes_file":
        options["codes_file"] = write_table(tmp_path / "codes.csv", where)
    path = options.get("codes_file", notes)
    refuse(
        build_own,
        tmp_path,
        re.escape(
            "2 codes were changed by a spreadsheet or a data frame that took them for numbers or dates; the first, in row 7 "
            f"of {path}, column 'codes', {DAMAGED[damaged]}. Others may have lost zeros unseen."
        ),
        path,
        notes,
        code_system="icd9cm",
        **options,
    )


def test_damaged_codes_of_an_unknown_system_are_kept_and_counted(tmp_path, build_own):
    rows = [{**row, "codes": "A1;B2"} for row in secret_rows()]
    for number, damaged in enumerate(name for name in DAMAGED if name != "V45,8"):
        rows[number + 3]["codes"] = f"{damaged};A1"
    path = write_table(tmp_path / "a.csv", rows)
    builder = build_own(path, unsplit=True)
    assert records_of(builder)["unsplit"][3][3] == ["486.0", "A1"]
    assert (
        f"codes that look as if a spreadsheet had changed them (the first, in row 4 of {path}, column 'codes', is a number "
        "with `.0` behind it (486.0 for 486)): 8"
    ) in builder.info.description


@pytest.mark.parametrize("system", ["icd9cm", "other"])
def test_whole_codes_are_not_taken_for_damaged_ones(tmp_path, build_own, system):
    """Also where a comma stands between two codes, and where a decimal is a zero: 401.0, 250.00, and the procedure 99.0."""
    whole = "401.0,250.00,486,038.9,V45.81,E885.9,96.71,99.0,4019,E8859,V08"
    rows = [{**row, "codes": whole if number % 2 else "401,428"} for number, row in enumerate(secret_rows())]
    builder = build_own(write_table(tmp_path / "a.csv", rows), code_system=system, unsplit=True)
    assert len(records_of(builder)["unsplit"][1][3]) >= 10
    assert "changed" not in builder.info.description and "left out" not in builder.info.description


def test_a_wrong_code_of_the_second_table_is_named_by_its_own_row(tmp_path, build_own):
    notes = write_table(tmp_path / "notes.csv", secret_rows())
    rows = [{"id": row["id"], "code": "I10"} for row in secret_rows()]
    rows[11:11] = [{"id": "n3", "code": "none of it"}, {"id": "", "code": "I10"}]
    codes = write_table(tmp_path / "codes.csv", rows)
    edited(codes, lambda data: data.replace(b"n0,", b"\r\nn0,", 1) + b"n4,I10,more\n")  # an empty line is no row
    builder = build_own(notes, codes_file=codes, code_system="icd10cm", unsplit=True)
    for said in (
        f"codes that are not of ICD-10-CM (the first: row 12 of {codes}, column 'code'): 2",
        f"code rows without an id or a code (the first: row 13 of {codes}): 1",
        f"code rows that cannot be read (the first: row 23 of {codes} has 3 columns, and the header 2",
    ):
        assert f"left out, {said}" in builder.info.description


def test_most_wrong_codes_of_the_second_table_are_named_by_its_own_row(tmp_path, build_own):
    notes = write_table(tmp_path / "notes.csv", secret_rows())
    rows = [{"id": row["id"], "code": "4019" if number > 3 else "I10"} for number, row in enumerate(secret_rows())]
    codes = write_table(tmp_path / "codes.csv", rows)
    message = rf"16 of 20 codes are not .*, the first in row 5 of {re.escape(str(codes))}, column 'code'"
    refuse(build_own, tmp_path, message, codes, notes, codes_file=codes, code_system="icd10cm")


def test_subjects_of_two_given_splits_are_counted(tmp_path, build_own):
    for name, rows in {"train": make_rows(21), "dev": make_rows(10, start=21), "test": make_rows(9, start=31)}.items():
        write_table(tmp_path / f"{name}.csv", rows)  # n20 and n21 are of one subject, and so are n30 and n31
    assert "patients with notes in two of the given splits: 2" in build_own(tmp_path).info.description


def test_rows_of_the_second_table_that_are_not_used_are_counted(tmp_path, build_own):
    notes = write_table(tmp_path / "notes.csv", [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}])
    rows = [
        ("1", "4019", "d"),
        ("", "4019", "d"),
        ("2", "", "d"),
        ("2", "4019", " Dx "),
        ("2", "4019", "Primary"),
        ("2", "A", "d"),
        ("2", "486", "d"),
    ]
    codes = write_table(tmp_path / "codes.csv", [dict(zip(("id", "code", "kind"), row, strict=True)) for row in rows])
    edited(codes, lambda data: data + b"2,486\n")
    builder = build_own(test_file=notes, codes_file=codes, code_kind_column="kind", code_system="icd9cm")
    assert [record[3] for record in records_of(builder)["test"]] == [["401.9"], ["401.9", "486"]]
    for said in (
        f"code rows without an id or a code (the first: row 2 of {codes}): 2",
        f"code rows that are neither of a diagnosis nor of a procedure (the first: row 5 of {codes}): 1",
        f"code rows that cannot be read (the first: row 8 of {codes} has 2 columns, and the header 3",
        f"codes that are not of ICD-9-CM (the first: row 6 of {codes}, column 'code'): 1",
    ):
        assert f"left out, {said}" in builder.info.description


def test_rows_without_a_date_are_counted(tmp_path, build_own):
    rows = make_rows(20)
    rows[0]["date"], rows[1]["date"] = "", "03/04/2020"
    builder = build_own(write_table(tmp_path / "a.csv", rows), split_by="date")
    assert "rows without a date in ISO's form (2026-11-26): 2" in builder.info.description
    assert sum(map(len, ids_of(builder).values())) == 18


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ""])
def test_dates_that_python_does_not_have_are_counted_as_missing(tmp_path, build_own, suffix):
    rows, path = make_rows(20), tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        rows[0]["date"], rows[1]["date"] = "0001-01-01T00:00:00+23:00", "9999-12-31T23:00:00-23:00"
        write_table(path, rows)
    else:
        days = pa.array([10**7, 10**8, *range(18)], pa.int32()).cast(pa.date32())
        table = pa.Table.from_pylist([{**row, "date": None} for row in rows]).drop("date").append_column("date", days)
        pq.write_table(table, tmp_path / "b.parquet")
        if suffix:
            (tmp_path / "b.parquet").rename(path)
        else:
            datasets.Dataset(table).save_to_disk(path)
    builder = build_own(path, split_by="date")
    assert "rows without a date in ISO's form (2026-11-26): 2" in builder.info.description
    assert sum(map(len, ids_of(builder).values())) == 18


def test_texts_that_are_no_strings_are_counted(tmp_path, build_own):
    rows = [{"text": text, "codes": ["X"]} for text in ("a", 5, None, ["a"], "b", "c", "d", "e", "f")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    builder = build_own(test_file=path)
    assert len(ids_of(builder)["test"]) == 6
    assert f"row 2 of {path} has a text that is not a string): 2" in builder.info.description


def test_codes_that_only_the_test_split_has_are_counted(tmp_path, build_own):
    for name, code in {"train": "A", "dev": "A", "test": "B"}.items():
        write_table(tmp_path / f"{name}.csv", [{"id": name, "text": "a", "codes": code}])
    assert "codes of other splits missing from train: 1" in build_own(tmp_path).info.description


# ---- the disk


def test_a_full_disk_while_the_index_is_written(tmp_path, build_own, monkeypatch):
    path = write_table(tmp_path / "a.csv", secret_rows(3000))
    connect = sqlite3.connect

    def small(*args, **options):
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr(own_index.sqlite3, "connect", small)
    with pytest.raises(OSError, match=r"The disk of `cache_dir` .* is full") as error:
        build_own(path)
    monkeypatch.undo()
    assert_clean(error, tmp_path / "cache", tmp_path)
    assert list((tmp_path / "cache").rglob(".index*")) == []
    assert len(ids_of(build_own(path))) == 3
