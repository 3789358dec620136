"""What is wrong in a folder of MIMIC-III: one message each, no note in it, nothing cached; or a count that is said."""

import gzip
import logging

import pytest
from faults import assert_clean
from mimic3_tables import NOTE_COLUMNS, rewrite, write_table

from dataset_scripts import MIMIC3, load_builder
from dataset_scripts.__main__ import main
from dataset_scripts.builders.admissions import choose_most_frequent
from dataset_scripts.builders.published_lists import check_subjects
from dataset_scripts.synthetic import write_corpus


def header_of(data):
    return data[: data.index(b"\r\n") + 2]


FAULTS = {
    "header": ("DIAGNOSES_ICD", lambda data: data.replace(b"ICD9_CODE", b"ICD10_CODE"), "must be the header and name ICD9_CODE once"),
    "quote in the header": ("NOTEEVENTS", lambda data: data.replace(b'"TEXT"', b'"TEXT'), "cannot be read as a gzipped CSV table"),
    "header twice": ("DIAGNOSES_ICD", lambda data: data.replace(b"SEQ_NUM", b"icd9_code"), "and names it 2 times"),
    "empty": ("NOTEEVENTS", lambda data: b"", "is empty: expected a CSV table"),
    "no notes": ("NOTEEVENTS", lambda data: data[: data.index(b"\r\n") + 2], "holds no discharge summary"),
    # record 1 is the header, so Xylophonia's note, the sixth, is record 7
    "columns": ("NOTEEVENTS", lambda data: data.replace(b'"","","500', b'"500'), "record 7 has 9 columns instead of 11"),
    "utf-8": ("NOTEEVENTS", lambda data: data.replace(b"Xylo", b"Xylo\xff"), "record 7 is not valid UTF-8"),
    "quote": ("NOTEEVENTS", lambda data: data.replace(b'12/2."', b"12/2."), "record 7 has|record 7 is never closed"),
    "last quote": ("NOTEEVENTS", lambda data: data[:-3], "in or before record 11 is never closed"),
    "hadm_id": ("NOTEEVENTS", lambda data: data.replace(b'"103"', b'"103.0"'), "HADM_ID of record 7 is not a whole number"),
    "no hadm_id": ("PROCEDURES_ICD", lambda data: data.replace(b'"103"', b'""'), "HADM_ID of record 5 is empty"),
    "two subjects": ("NOTEEVENTS", lambda data: data.replace(b'"4","2","102"', b'"4","8","102"'), "HADM_ID 102 has two SUBJECT_IDs"),
    "code": ("DIAGNOSES_ICD", lambda data: data.replace(b'"E8859"', b'"E88599"'), "ICD9_CODE of record 6: 'E88599' is not an"),
    "lost zero": ("PROCEDURES_ICD", lambda data: data.replace(b'"0066"', b'"6"'), "record 2: '6' is not .* leading zeros were lost"),
    "no diagnoses": ("DIAGNOSES_ICD", header_of, "it holds its header alone, and no row"),
    "no procedures": ("PROCEDURES_ICD", header_of, "it holds its header alone, and no row"),
    # Six of the discharge summary rows are read: one is flagged as an error, one has no admission.
    "rows twice": ("NOTEEVENTS", lambda data: data + data[len(header_of(data)) :], "6 discharge summary rows have the ROW_ID of an earlier"),
    "iserror": ("NOTEEVENTS", lambda data: data.replace(b'"1","Entered', b'"banana","Entered'), "ISERROR of record 6 is none of these: empty, 0, 1"),
    "semicolons": ("NOTEEVENTS", lambda data: data.replace(b'","', b'";"'), "cannot be read as a gzipped CSV table, commas between its columns"),
    "tabs": ("DIAGNOSES_ICD", lambda data: data.replace(b'","', b"\t").replace(b'"', b""), "names it 0 times"),
    "utf-16": ("NOTEEVENTS", lambda data: data.decode().encode("utf-16"), "cannot be read as a gzipped CSV table"),
    "title": ("D_ICD_DIAGNOSES", lambda data: data.replace(b'"0389"', b'"A"'), "ICD9_CODE of record 2: 'A' is not an"),
}  # fmt: skip


@pytest.mark.parametrize("table, change, message", FAULTS.values(), ids=FAULTS.keys())
def test_fault_in_a_table(build, folder, tmp_path, table, change, message):
    path = folder / f"{table}.csv.gz"
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert_clean(error, path, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4] + b"\xff\xff\xff\xff",  # length
        lambda data: data[:40] + bytes(20) + data[60:],
        lambda data: b"not a gzip file",
        lambda data: b"",
    ],
    ids=["half", "trailer", "damaged", "no gzip", "empty"],
)
def test_damaged_gzip(build, folder, tmp_path, change):
    path = folder / "NOTEEVENTS.csv.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"checksum|empty") as error:
        build()
    assert_clean(error, path, tmp_path)


def test_a_note_longer_than_a_block(build, folder, monkeypatch):
    monkeypatch.setattr("dataset_scripts.builders.sources.BLOCK_SIZE", 200)
    assert len(build().as_dataset(split="train")) == 1  # many blocks, each longer than a record
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b'12/2."', b"12/2."))
    with pytest.raises(ValueError, match=r"a quote in it is never closed|columns instead of 11"):
        build()


def test_missing_files_are_named(folder, tmp_path):
    (folder / "NOTEEVENTS.csv.gz").unlink()
    (folder / "D_ICD_PROCEDURES.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"No NOTEEVENTS.csv.gz, D_ICD_PROCEDURES.csv.gz .* \(physionet"):
        MIMIC3("full", data_dir=folder)
    with pytest.raises(
        FileNotFoundError, match=r"`data_dir` .* does not exist: expected a folder with the tables NOTEEVENTS"
    ):
        MIMIC3("full", data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        MIMIC3("full", data_dir=folder / "DIAGNOSES_ICD.csv.gz")


def test_missing_lists_are_named(folder, tmp_path):
    (folder / "dev_50_hadm_ids.csv").unlink()
    MIMIC3("full", data_dir=folder, cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No dev_50_hadm_ids.csv in `splits_dir` .*caml-mimic.*unsplit=True"):
        MIMIC3("top50", data_dir=folder, cache_dir=tmp_path)


def test_two_of_one_table(folder):
    write_table(folder / "noteevents.csv", NOTE_COLUMNS, [], opener=open)
    with pytest.raises(ValueError, match=r"holds NOTEEVENTS.csv.gz and noteevents.csv: keep one"):
        MIMIC3("full", data_dir=folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hadm_id\n102\n", "value 1 is not an admission id"),
        ("102\n102\n", "line 2 repeats line 1"),
        ("\n", "is empty"),
        ("555\n", "none of its 1 admissions has a discharge summary"),
        (
            "104\n102\n",
            "1 admissions are in both .*train_full_hadm_ids.csv and .*dev_full_hadm_ids.csv, e.g. HADM_ID 104",
        ),
    ],
)
def test_fault_in_a_list(build, folder, content, message):
    (folder / "dev_full_hadm_ids.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        build()


def test_an_admission_without_a_note_in_two_lists(build, folder):
    for name in ("train", "test"):
        with (folder / f"{name}_full_hadm_ids.csv").open("a") as file:
            file.write("900\n")
    with pytest.raises(
        ValueError, match=r"1 admissions are in both .*train_full.* and .*test_full.*, e.g. HADM_ID 900\."
    ):
        build()


def test_subject_in_two_splits():
    subjects = {"train": {1, 2, 3}, "validation": {4}, "test": {3, 2}}
    paths = {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}
    with pytest.raises(ValueError, match=r"2 subjects have admissions in both a.csv and c.csv, e.g. SUBJECT_ID 2"):
        check_subjects(subjects, paths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"config_name": "top100"},
            "MIMIC3 has no configuration 'top100': choose from full, top50, top50_corrected, clean, custom",
        ),
        ({"text": "tokens"}, r"`text` \('tokens'\) must be one of 'raw', 'caml', 'edin'"),
        (
            {"split": "x"},
            "MIMIC3 has no option split: choose from addenda, carevue, code_kinds, codes, codes_file, deid_token, ",
        ),
        ({"codes": ["4019"]}, "'4019' is not a dotted ICD-9-CM code"),
        ({"num_codes": 3}, "`num_codes` is an option of configuration 'custom', not of 'full'"),
        ({"config_name": "top50", "seed": 1}, "`seed` is an option of configuration 'clean', not of 'top50'"),
        ({"config_name": "clean", "min_count": 0}, r"`min_count` \(0\) must be at least 1"),
        ({"config_name": "custom"}, "'custom' needs one of `num_codes`, `codes_file` and `codes`"),
        ({"config_name": "custom", "num_codes": 3, "codes": ["401.9"]}, "'custom' needs one of"),
    ],
)
def test_wrong_argument(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        MIMIC3(data_dir=folder, **arguments)


def test_wrong_name(folder, build):
    with pytest.raises(ValueError, match="Unknown data set 'mimic2': choose from mimic3, mimic4, cmc2007"):
        load_builder("mimic2", data_dir=folder)
    with pytest.raises(
        ValueError, match=r"No split 'dev' in configuration 'full' .*: choose from train, validation, test"
    ):
        build().as_dataset(split="dev")
    assert len(build().as_dataset(split="train+test[:1]")) == 2


def test_most_frequent_wants_enough_codes():
    assert choose_most_frequent({"401.9": 2, "038.9": 1}, 1, "") == {"401.9"}
    with pytest.raises(ValueError, match=r"have 2 codes, fewer than the 3 asked for: take fewer\."):
        choose_most_frequent({"401.9": 2, "038.9": 1}, 3, "take fewer")


def test_missing_files_of_options_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`codes_file` .*none.csv\) is not a file"):
        MIMIC3("custom", data_dir=folder, codes_file=tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"`descriptions_file` .*none.txt\) is not a file"):
        MIMIC3(data_dir=folder, descriptions_file=tmp_path / "none.txt")


# ---- what is no error is counted, and `describe` says the counts


def add_note(folder, row_id, hadm_id, category, text):
    row = f'"{row_id}","{hadm_id - 100}","{hadm_id}","2101-01-01","","","{category}","Report","","","{text}"\r\n'
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data + row.encode())


def test_describe_says_every_count_also_of_a_cached_data_set(build, folder, tmp_path, capsys, caplog):
    add_note(folder, 20, 103, "Discharge_summary", "Misspelt.")
    add_note(folder, 21, 999, "Discharge summary", " \t\n\xa0")  # its only text; it has the diagnosis 250.00
    with (folder / "train_full_hadm_ids.csv").open("a") as file:
        file.write("900\n901\n999\n")
    expected = (
        "left out, rows of a CATEGORY that MIMIC-III does not have: 1",
        "left out, discharge summary rows flagged as errors: 1",
        "left out, admissions without a text: 1",
        "left out, code rows that repeat another one: 1",
        "coded admissions without a row in PROCEDURES_ICD: 2",
        "listed admissions without a discharge summary: 2",
    )
    with caplog.at_level(logging.WARNING, "dataset_scripts"):
        assert 999 not in build().as_dataset(split="train")["hadm_id"]
    assert all(count in caplog.text for count in expected)
    command = ["describe", str(folder), "--cache_dir", str(tmp_path / "cache"), "--png", str(tmp_path / "x.png")]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(count in said for count in expected)


def test_every_row_twice_under_other_row_ids_or_none_is_counted(build, folder):
    """The six rows that are read, each a second time."""
    counted = "kept, discharge summary rows that repeat the text of another one: 6;"
    path = folder / "NOTEEVENTS.csv.gz"
    once = gzip.decompress(path.read_bytes())
    rows = once[len(header_of(once)) :]
    path.write_bytes(gzip.compress(once + rows.replace(b'\r\n"', b'\r\n"9').replace(b'"1",', b'"91",', 1)))
    assert counted in build().info.description
    renamed = header_of(once).replace(b'"ROW_ID"', b'"NUMBER"')
    path.write_bytes(gzip.compress(renamed + rows + rows))
    assert counted in build().info.description


def test_a_table_cut_between_two_rows_is_counted(build, folder, no_published_titles):
    rewrite(folder / "DIAGNOSES_ICD.csv.gz", lambda data: b"".join(data.splitlines(keepends=True)[:4]))
    assert "coded admissions without a row in DIAGNOSES_ICD: 2;" in build(unsplit=True).info.description  # 102, 103


def test_code_rows_of_another_subject_are_counted(build, folder):
    """As where one column of a table was sorted alone: the codes of 101 and 102 are exchanged."""

    def exchange(data):
        return data.replace(b'"101"', b'"x"').replace(b'"102"', b'"101"').replace(b'"x"', b'"102"')

    rewrite(folder / "DIAGNOSES_ICD.csv.gz", exchange)
    counted = "code rows whose SUBJECT_ID is not that of the admission's notes: 6;"
    assert counted in build(unsplit=True).info.description
    rewrite(folder / "DIAGNOSES_ICD.csv.gz", lambda data: data.replace(b"SUBJECT_ID", b"PERSON"))
    assert (
        "code rows whose SUBJECT_ID" not in build(unsplit=True).info.description
    )  # without the column, none is known


def test_a_note_without_a_word_makes_no_record_of_words(build, folder):
    """The splits are those of the notes as written: only the record is left out."""
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"In no split list.", b"12345 ---"))
    assert build(unsplit=True).as_dataset(split="unsplit")["hadm_id"][:] == [101, 102, 103, 106]
    words = build(unsplit=True, text="caml")
    assert words.as_dataset(split="unsplit")["hadm_id"][:] == [101, 102, 103]
    assert "left out, admissions without a text: 1;" in words.info.description


def test_a_byte_order_mark_and_line_feeds_change_no_record(build, folder):
    expected = {name: list(split) for name, split in build().as_dataset().items()}
    for path in folder.glob("*.csv.gz"):
        rewrite(path, lambda data: b"\xef\xbb\xbf" + data.replace(b"\r\n", b"\n"))
    for path in folder.glob("*_hadm_ids.csv"):
        rewrite(path, lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    assert {name: list(split) for name, split in build().as_dataset().items()} == expected


def test_a_folder_that_is_too_small_for_splits_says_what_to_do(tmp_path):
    write_corpus(tmp_path / "few", 3, length="short", show_progress=False)
    options = {"data_dir": tmp_path / "few", "cache_dir": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"dev_full_hadm_ids.csv is empty, .* whole with `unsplit=True`"):
        load_builder("mimic3", "full", **options)
    for min_count, num_coded in ((None, 0), (1, 3)):
        with pytest.raises(
            ValueError, match=rf"\({num_coded} in all have one\)\. .*`min_count=1` .* `unsplit=True`\."
        ):
            load_builder("mimic3", "clean", min_count=min_count, **options)
    assert (
        load_builder("mimic3", "clean", min_count=1, unsplit=True, **options).info.splits["unsplit"].num_examples == 3
    )
