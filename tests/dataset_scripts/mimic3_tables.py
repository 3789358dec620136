"""Tables in MIMIC-III's format, small enough to work out by hand, and what the tests of them share."""

import csv
import gzip

import pytest

from dataset_scripts import MIMIC3


NOTE_COLUMNS = [
    "ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "STORETIME", "CATEGORY", "DESCRIPTION", "CGID",
    "ISERROR", "TEXT",
]  # fmt: skip
# (subject, admission, category, description, iserror, text), in the order of the file
NOTES = [
    (1, 101, "Discharge summary", "Report", "", "First note,\nwith a line break and \"quotes\"."),
    (2, 102, "Discharge summary", "Addendum", "", "Addendum that comes first."),
    (1, 101, "Nursing", "Report", "", "A nurse's note."),
    (2, 102, "Discharge summary", "Report", "", "Report that comes second."),
    (2, 102, "Discharge summary", "Report", "1", "Entered in error."),
    (3, 103, "Discharge summary", "Report", "", "500 mg of 250mg Xylophonia on 12/2."),
    (4, 104, "Discharge summary", "Report", "", "An admission without codes."),
    (5, "", "Discharge summary", "Report", "", "A summary of no admission."),
    (6, 106, "Discharge summary", "Report", "", "In no split list."),
    (7, "", "Radiology", "Report", "", "An outpatient."),
]  # fmt: skip
DIAGNOSES = [
    (101, "0389"), (101, "4019"), (101, "V4581"), (102, "4019"), (102, "E8859"), (102, ""), (103, "0389"), (104, ""),
    (106, "4019"), (999, "25000"),
]  # fmt: skip
PROCEDURES = [(101, "0066"), (102, "0066"), (102, "0066"), (103, "4019")]
# Admissions with a discharge summary: three with 401.9, two with 00.66 (which one of them has twice) and with 038.9,
# one each with V45.81, E885.9 and the procedure 40.19; 250.00 belongs to an admission without a note.
FULL = {
    101: {"038.9", "401.9", "V45.81", "00.66"},
    102: {"401.9", "E885.9", "00.66"},
    103: {"038.9", "40.19"},
}
TEXTS = {
    101: 'First note,\nwith a line break and "quotes".',
    102: "Addendum that comes first.\n\nReport that comes second.",
    103: "500 mg of 250mg Xylophonia on 12/2.",
}


def write_table(path, header, rows, opener=gzip.open):
    with opener(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path):
    """A folder of tables in MIMIC-III's format, small enough to work out by hand, and its split lists."""
    folder = tmp_path / "tables"
    folder.mkdir()
    notes = [
        (row, subject, hadm, "2101-01-01", "", "", category, description, "", error, text)
        for row, (subject, hadm, category, description, error, text) in enumerate(NOTES, start=1)
    ]
    write_table(folder / "NOTEEVENTS.csv.gz", NOTE_COLUMNS, notes)
    code_columns = ["ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"]
    for name, rows in (("DIAGNOSES_ICD", DIAGNOSES), ("PROCEDURES_ICD", PROCEDURES)):
        table = [(row, hadm - 100, hadm, 1, code) for row, (hadm, code) in enumerate(rows, start=1)]
        write_table(folder / f"{name}.csv.gz", code_columns, table)
    title_columns = ["ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"]
    titles = [(1, "0389", "Septicemia NOS", "Unspecified septicemia"), (2, "4019", "Hypertension NOS", "Hypertension")]
    write_table(folder / "D_ICD_DIAGNOSES.csv.gz", title_columns, titles)
    titles = [(1, "0066", "PTCA", "Angioplasty, coronary"), (2, "4019", "Lymph", "Other lymphatic diagnostics")]
    write_table(folder / "D_ICD_PROCEDURES.csv.gz", title_columns, titles)
    for size in ("full", "50"):
        for name, ids in (("train", "101\n104\n"), ("dev", "102\n"), ("test", "103\n")):
            (folder / f"{name}_{size}_hadm_ids.csv").write_text(ids)
    return folder


@pytest.fixture
def build(folder, tmp_path):
    """Build a data set of the folder; cached where the test can look."""

    def build(config="full", **options):
        builder = MIMIC3(config, data_dir=folder, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder

    return build


def codes_of(dataset):
    """Give each admission's dotted codes."""
    names = dataset.features["codes"].feature.names
    return {record["hadm_id"]: {names[i] for i in record["codes"]} for record in dataset}


def rewrite(path, change):
    """Change the bytes of a table."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = file.read()
    with opener(path, "wb") as file:
        file.write(change(data))
