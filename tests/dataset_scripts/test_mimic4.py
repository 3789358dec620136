import csv
import gzip
import logging
import re

import pytest
from faults import assert_clean

from dataset_scripts import MIMIC4, load_builder, load_split
from dataset_scripts.builders.mimic4 import read_titles
from dataset_scripts.synthetic.mimic4 import write_corpus


# (subject, admission, type, seq, text), in the order of the file
NOTES = [
    (1, 101, "DS", 1, 'First note of ___,\nwith a line break and "quotes".\n_____'),
    (2, 102, "AD", 1, "Addendum that comes first in the file."),
    (2, 102, "DS", 2, "Second report."),
    (2, 102, "DS", 1, "First report."),
    (2, 102, "DS", 3, "First report."),
    (3, 103, "DS", 1, "500 mg of Xylophonia."),
    (4, 104, "DS", 1, "Codes of both editions."),
    (5, 105, "DS", 1, "An admission without codes."),
    (6, "", "DS", 1, "A summary of no admission."),
    (7, 107, "DS", 1, ""),
    (8, 108, "RR", 1, "A radiology report."),
    (3, 109, "DS", 2, "Back again, ten years later."),
]
SUBJECTS = {101: 1, 102: 2, 103: 3, 104: 4, 107: 7, 109: 3, 999: 99}
DIAGNOSES = [
    (101, "I10", 10), (101, "E119", 10), (102, "I10", 10), (102, "W19XXXA", 10), (103, "4019", 9), (103, "V4581", 9),
    (103, "E8859", 9), (103, "0389", 9), (104, "I10", 10), (104, "4019", 9), (107, "I10", 10), (109, "E119", 10),
    (109, "B20", 10), (109, "", 10), (999, "I10", 10),
]  # fmt: skip
PROCEDURES = [(101, "0BH17EZ", 10), (101, "0BH17EZ", 10), (103, "0066", 9), (109, "B2011ZZ", 10)]
ICD10 = {101: {"I10", "E11.9", "0BH17EZ"}, 102: {"I10", "W19.XXXA"}, 109: {"E11.9", "B20", "B2011ZZ"}}
ICD9 = {103: {"401.9", "V45.81", "E885.9", "038.9", "00.66"}}
TEXTS = {
    101: NOTES[0][-1],
    102: "First report.\n\nSecond report.\n\nAddendum that comes first in the file.",
    109: "Back again, ten years later.",
}
HEADERS = {
    "discharge": "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
    "diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version",
    "procedures_icd": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version",
    "d_icd_diagnoses": "icd_code,icd_version,long_title",
    "d_icd_procedures": "icd_code,icd_version,long_title",
}
ROWS = {
    "discharge": [
        (f"{subject}-{kind}-{seq}", subject, hadm, kind, seq, "2101-01-01 00:00:00", "", text)
        for subject, hadm, kind, seq, text in NOTES
    ],
    "diagnoses_icd": [(SUBJECTS[hadm], hadm, 1, code, version) for hadm, code, version in DIAGNOSES],
    "procedures_icd": [(SUBJECTS[hadm], hadm, 1, "2101-01-01", code, version) for hadm, code, version in PROCEDURES],
    "d_icd_diagnoses": [("4019", 9, "Hypertension of 9"), ("E119", 10, "Diabetes, the table's words")],
    # 001 and 0010 are of two editions, and the tables of ICD-10-PCS are among its codes.
    "d_icd_procedures": [
        ("0010", 9, "Implantation"), ("001", 10, "Central nervous system, Bypass"), ("B20", 10, "Heart, Plain Radiography"),
        ("0BH17EZ", 10, "Insertion of airway"),
    ],
}  # fmt: skip


def path_of(folder, table):
    return folder / ("note" if table == "discharge" else "hosp") / f"{table}.csv.gz"


@pytest.fixture
def folder(tmp_path):
    """Tables in MIMIC-IV's format and in PhysioNet's folders, small enough to work out by hand."""
    folder = tmp_path / "tables"
    for table, header in HEADERS.items():
        path = path_of(folder, table)
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header.split(","))
            writer.writerows(ROWS[table])
    return folder


@pytest.fixture
def build(folder, tmp_path):
    """Build a data set of the folder; every code counts and no split is made, if not asked otherwise."""

    def build(config="icd10", **options):
        options = {"unsplit": True, "min_count": 1, "splits": "stratified", **options}
        builder = MIMIC4(config, data_dir=folder, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder

    return build


def codes_of(dataset):
    names = dataset.features["codes"].feature.names
    return {record["hadm_id"]: {names[i] for i in record["codes"]} for record in dataset}


def rewrite(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(("config", "expected"), [("icd10", ICD10), ("icd9", ICD9)])
def test_by_hand(build, config, expected):
    builder = build(config)
    dataset = builder.as_dataset(split="unsplit")
    assert codes_of(dataset) == expected
    assert dataset.features["codes"].feature.names == sorted(set().union(*expected.values()))
    for record in dataset:
        assert record["text"] == TEXTS.get(record["hadm_id"], "500 mg of Xylophonia.")
        assert record["codes"] == sorted(record["codes"])
    assert dict(zip(dataset["hadm_id"], dataset["subject_id"], strict=True)) == (
        {101: 1, 102: 2, 109: 3} if config == "icd10" else {103: 3}
    )
    assert list(builder.as_streaming_dataset(split="unsplit")) == list(dataset)


def test_what_is_left_out_is_said_once(build, caplog):
    with caplog.at_level(logging.WARNING, "dataset_scripts"):
        builder = build(codes=["I10", "E11.9", "0BH17EZ", "Z99.9"])
    report = (
        "MIMIC4/icd10: left out, rows that are neither discharge summary nor addendum: 1; "
        "left out, discharge summary rows without an admission id: 1; "
        "left out, discharge summary rows without a text: 1; left out, rows that repeat another one's text: 1; "
        "left out, code rows without a code: 1; left out, code rows that repeat another one: 1; "  # 0BH17EZ of 101
        "coded admissions without a row in procedures_icd: 1; "  # 102
        "left out, admissions with codes of both ICD-9 and ICD-10: 1; "
        "left out, admissions coded in the other edition: 1; left out, admissions without codes: 1; "
        "left out, codes outside of the code set: 3; left out, admissions without a note: 2; codes that no admission has: 1; "  # W19.XXXA, B20, B2011ZZ; Z99.9
        "codes without a description: 1."  # Z99.9
    )
    assert caplog.messages == [report]
    assert builder.info.description.endswith(report)
    assert (
        "In place of its codes: 4 codes given by the caller. The codes are those of a release that neither `release` nor a "
        "folder names. `min_count` is 1. In place of its splits" in builder.info.description
    )


def test_code_rows_of_another_subject_are_counted(build, folder):
    rewrite(path_of(folder, "procedures_icd"), lambda data: data.replace(b"\n1,101,", b"\n8,101,"))
    assert "code rows whose subject_id is not that of the admission's notes: 2;" in build().info.description


def test_descriptions_and_families(build):
    builder = build()
    titles = builder.code_descriptions
    assert titles["E11.9"] == "Diabetes, the table's words"
    assert (titles["001-"], titles["B20-"]) == ("Central nervous system, Bypass", "Heart, Plain Radiography")
    assert "401.9" not in titles and "00.10" not in titles
    assert titles["A00-B99"] == "Certain infectious and parasitic diseases"
    families = builder.code_families
    assert (families["B20"].chapter, families["B20"].category) == ("A00-B99", "B20")
    assert tuple(families["B2011ZZ"]) == ("B", "B2", "B20-")
    titles = build("icd9").code_descriptions
    assert (titles["401.9"], titles["00.10"]) == ("Hypertension of 9", "Implantation")
    assert "E11.9" not in titles
    assert build("icd9").code_families["V45.81"].block == "V40-V49"


def test_code_kinds(build):
    record = build(code_kinds=True).as_dataset(split="unsplit")[0]
    assert record["codes"] == [0, 3, 4]  # 0BH17EZ, E11.9, I10
    assert record["code_kinds"] == [1, 0, 0]


def test_deid_marks(build):
    text = build(deid_token="[DEID]").as_dataset(split="unsplit")[0]["text"]
    assert text.startswith("First note of [DEID],") and text.endswith("\n_____")  # a rule across the page stays
    assert build(text="caml").as_dataset(split="unsplit")[0]["text"] == "first note of with a line break and quotes"


def test_rare_codes_are_dropped(build):
    # I10 and E11.9 are in two admissions with a note and codes of ICD-10 alone; 104 and 107 do not count.
    assert codes_of(build(min_count=2).as_dataset(split="unsplit")) == {
        101: {"I10", "E11.9"},
        102: {"I10"},
        109: {"E11.9"},
    }
    with pytest.raises(ValueError, match=r"no code of ICD-10 is in as many .*the most frequent one is in 2. Lower"):
        build(min_count=3)


def test_top50_ties_go_to_the_code_that_sorts_first(build, monkeypatch):
    monkeypatch.setattr("dataset_scripts.builders.mimic4.TOP_CODES", 1)
    assert codes_of(build("icd10_top50").as_dataset(split="unsplit")) == {101: {"E11.9"}, 109: {"E11.9"}}
    monkeypatch.setattr("dataset_scripts.builders.mimic4.TOP_CODES", 50)
    with pytest.raises(ValueError, match="have 6 codes, fewer than the 50 asked for: use configuration 'icd10'"):
        build("icd10_top50", seed=1)


def test_one_flat_folder_of_plain_tables(build, folder):
    expected = list(build().as_dataset(split="unsplit"))
    for path in list(folder.glob("*/*.csv.gz")):
        (folder / path.stem.upper()).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    (folder / "note").rmdir()
    assert list(build().as_dataset(split="unsplit")) == expected


def test_cache_follows_files_and_options(build, folder):
    first = build()
    assert build().cache_dir == first.cache_dir
    assert len({build(seed=1).cache_dir, build("icd9").cache_dir, first.cache_dir}) == 3
    rewrite(path_of(folder, "discharge"), lambda data: data.replace(b"First note", b"Another note"))
    assert build().as_dataset(split="unsplit")[0]["text"].startswith("Another note")


def test_splits(tmp_path):
    """Subjects whole, shares of the admissions as asked, the same splits whatever the codes, others with another seed."""
    folder = tmp_path / "corpus"
    write_corpus(folder, num_admissions=700, length="short", show_progress=False)

    def splits_of(config, **options):
        builder = load_builder("mimic4", config, data_dir=folder, cache_dir=tmp_path / "cache", **options)
        return builder.as_dataset()

    whole = splits_of("icd10")
    subjects = [set(split["subject_id"]) for split in whole.values()]
    assert len(set().union(*subjects)) == sum(map(len, subjects))
    records = sum(map(len, whole.values()))
    assert [len(split) / records for split in whole.values()] == pytest.approx([0.75, 0.10, 0.15], abs=0.02)
    names = whole["train"].features["codes"].feature.names
    assert {"I10", "0BH17EZ"} <= set(names) and len(names) > 50
    for other in (splits_of("icd10_top50"), splits_of("icd10", codes=["I10", "E11.9", "S72.143A"])):
        for name, split in other.items():
            assert set(split["hadm_id"]) <= set(whole[name]["hadm_id"])
    assert splits_of("icd10", seed=1)["test"]["hadm_id"][:] != whole["test"]["hadm_id"][:]

    everything = load_split("mimic4", "all", "icd10", data_dir=folder, cache_dir=tmp_path / "cache")
    assert set(everything["hadm_id"]) == set().union(*(split["hadm_id"] for split in whole.values()))
    of_icd9 = load_split("mimic4", "all", "icd9", data_dir=folder, cache_dir=tmp_path / "cache", min_count=1)
    assert set(everything["hadm_id"]).isdisjoint(of_icd9["hadm_id"])
    assert 600 < len(everything) + len(of_icd9) <= 700


# ---- faults: one message each, no note in it, nothing cached


FAULTS = {
    "header": ("diagnoses_icd", lambda data: data.replace(b"icd_version", b"version"), "name icd_version once, and names it 0 times"),
    "empty": ("discharge", lambda data: b"", "is empty: expected a CSV table"),
    "no notes": ("discharge", lambda data: data[: data.index(b"\n") + 1], "holds no discharge summary"),
    "no diagnoses": ("diagnoses_icd", lambda data: data[: data.index(b"\n") + 1], "it holds its header alone, and no row"),
    "no procedures": ("procedures_icd", lambda data: data[: data.index(b"\n") + 1], "it holds its header alone, and no row"),
    "other admissions": ("diagnoses_icd", lambda data: re.sub(rb"(?m)^(\d+),1", rb"\1,9", data), "none of its 6 admissions has codes of ICD-10 alone"),
    "other text": ("discharge", lambda data: data.replace(b",DS,2,", b",DS,1,", 1), "two different texts of hadm_id 102 have one note_type"),
    "semicolons": ("discharge", lambda data: data.replace(b",", b";"), "names it 0 times"),
    # record 1 is the header, so Xylophonia's note, the sixth, is record 7
    "columns": ("discharge", lambda data: data.replace(b"00:00:00,,500", b"00:00:00,500"), "record 7 has 7 columns instead of 8"),
    "utf-8": ("discharge", lambda data: data.replace(b"Xylo", b"Xylo\xff"), "record 7 is not valid UTF-8"),
    "quote": ("discharge", lambda data: data.replace(b'\n_____"', b"\n_____"), "record 2 has 9 columns instead of 8"),
    "last quote": ("discharge", lambda data: data.replace(b'later."', b"later."), "in or before record 13 is never closed"),
    "quote in the header": ("discharge", lambda data: data.replace(b",text", b',"text', 1), "cannot be read as a gzipped CSV table"),
    "hadm_id": ("discharge", lambda data: data.replace(b",103,", b",103.0,"), "hadm_id of record 7 is not a whole number"),
    "note_seq": ("discharge", lambda data: data.replace(b"103,DS,1", b"103,DS,x"), "note_seq of record 7 is not a whole number"),
    "version": ("diagnoses_icd", lambda data: data.replace(b"I10,10", b"I10,11", 1), "icd_version of record 2 is none of these: 9, 10"),
    "two subjects": ("discharge", lambda data: data.replace(b",2,102,DS,2", b",8,102,DS,2"), "HADM_ID 102 has two SUBJECT_IDs"),
}  # fmt: skip


@pytest.mark.parametrize("table, change, message", FAULTS.values(), ids=FAULTS.keys())
def test_fault_in_a_table(build, folder, tmp_path, table, change, message):
    path = path_of(folder, table)
    rewrite(path, change)
    if table == "diagnoses_icd" and "none of its" in message:
        rewrite(path_of(folder, "procedures_icd"), change)
        path = path_of(folder, "discharge")
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert_clean(error, path, tmp_path)


@pytest.mark.parametrize("table", ["discharge", "diagnoses_icd", "d_icd_procedures"])
@pytest.mark.parametrize("left", [-1, -8, 100])
def test_cut_gzip(build, folder, tmp_path, table, left):
    path = path_of(folder, table)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        ValueError, match=r"(cut short .* after record [0-9]+|cannot be read .*): download .* checksum"
    ) as error:
        build()
    assert_clean(error, path, tmp_path)


def test_missing_and_doubled_files_are_named(folder):
    path_of(folder, "discharge").rename(folder / "hosp" / "discharge.csv.gz")
    MIMIC4(data_dir=folder, unsplit=True)  # wherever it lies
    (folder / "Discharge.csv").write_text("")
    with pytest.raises(ValueError, match=r"holds Discharge.csv and hosp/discharge.csv.gz: keep one"):
        MIMIC4(data_dir=folder, unsplit=True)
    (folder / "Discharge.csv").unlink()
    (folder / "hosp" / "discharge.csv.gz").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"No discharge.csv.gz .* or its subfolders note and hosp: .*physionet.org/content/mimic-iv",
    ):
        MIMIC4(data_dir=folder, unsplit=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config_name": "full"},
            "MIMIC4 has no configuration 'full': choose from icd10, icd10_top50, icd9, icd9_top50",
        ),
        ({"codes": ["401.9"]}, "'401.9' is not a dotted ICD-10 code"),
        ({"config_name": "icd9", "codes": ["I10"]}, "'I10' is not a dotted ICD-9-CM code"),
        ({"min_count": 0}, r"`min_count` \(0\) must be at least 1"),
        ({"splits": "caml"}, r"`splits` \('caml'\) must be one of 'edin', 'stratified'"),
        ({"subset": "10k"}, "there are train_subset_10k, train_subset_25k, train_subset_50k, train_subset_75k"),
        ({"subset": "train_subset_10k", "splits": "stratified"}, "it needs `splits=edin`"),
        ({"seed": 1}, "`seed` makes splits of our own: give `splits=stratified` with it"),
        ({"descriptions_file": "x"}, "`descriptions_file` is an option of the ICD-9 configurations, not of 'icd10'"),
    ],
)
def test_wrong_argument(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        MIMIC4(data_dir=folder, **arguments)


def test_titles_of_every_length(folder):
    assert read_titles(path_of(folder, "d_icd_procedures"), "procedure", 10) == {
        "001-": "Central nervous system, Bypass",
        "B20-": "Heart, Plain Radiography",
        "0BH17EZ": "Insertion of airway",
    }
