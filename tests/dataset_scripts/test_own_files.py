"""The user's own notes: every way to give them makes the same records."""

import gzip
import json
import os
import pickle
import socket
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from own_tables import CODES, expected_of, ids_of, make_rows, records_of, write_table

from dataset_scripts import load_split, parse_options
from dataset_scripts.__main__ import main
from dataset_scripts.builders.own_sources import is_hub_id
from modeling_icd.evaluation.cli import main as evaluate
from modeling_icd.evaluation.model_data import builder_for
from modeling_icd.training.run import main as train


SPLIT_ROWS = {"train": make_rows(20), "validation": make_rows(6, start=20), "test": make_rows(6, start=26)}
EXPECTED = {split: expected_of(rows) for split, rows in SPLIT_ROWS.items()}


# ---- where the notes are


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_folder_with_a_table_for_each_split(tmp_path, build_own, suffix):
    for split, rows in SPLIT_ROWS.items():
        write_table(tmp_path / f"{split}{suffix}", rows)
    assert records_of(build_own(tmp_path)) == EXPECTED


@pytest.mark.parametrize("name", ["valid", "val", "dev", "Validation"])
def test_splits_have_other_names_and_parts(tmp_path, build_own, name):
    for part, rows in enumerate((SPLIT_ROWS["train"][:12], SPLIT_ROWS["train"][12:])):
        write_table(tmp_path / f"train-{part:05}-of-00002.jsonl", rows)
    path = write_table(tmp_path / "some.csv", SPLIT_ROWS["validation"])
    (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    write_table(tmp_path / "test.tsv", SPLIT_ROWS["test"])
    assert records_of(build_own(tmp_path)) == EXPECTED


def test_files_are_given_by_options(tmp_path, build_own, monkeypatch):
    paths = {
        split: write_table(tmp_path / f"{number}.csv", rows) for number, (split, rows) in enumerate(SPLIT_ROWS.items())
    }
    assert records_of(build_own(**{f"{split}_file": path for split, path in paths.items()})) == EXPECTED
    monkeypatch.chdir(tmp_path)
    given = parse_options("files", ["train_file=0.csv", "validation_file=1.csv"])
    assert records_of(build_own(**given)).keys() == {"train", "validation"}
    assert records_of(build_own(test_file="2.csv")) == {"test": EXPECTED["test"]}


def test_one_table_is_divided(tmp_path, build_own):
    rows = make_rows(100)
    path = write_table(tmp_path / "train.csv", rows)
    by_file = records_of(build_own(path))
    assert {split: len(records) for split, records in by_file.items()} == {"train": 80, "validation": 10, "test": 10}
    assert sorted(record for records in by_file.values() for record in records) == sorted(expected_of(rows))
    assert records_of(build_own(tmp_path)) == by_file
    # However the table is given: else one would be evaluated on notes that were trained on.
    assert records_of(build_own(train_file=path)) == by_file
    beside = write_table(tmp_path / "predicted.csv", make_rows(1))
    assert records_of(build_own(tmp_path)) == by_file
    beside.unlink()
    assert records_of(build_own(path, unsplit=True)) == {"unsplit": expected_of(rows)}
    assert [row["hadm_id"] for row in load_split("files", "all", data_dir=path, cache_dir=tmp_path / "c")] == [
        row["id"] for row in rows
    ]


def test_a_missing_validation_split_is_cut_from_train(tmp_path, build_own):
    write_table(tmp_path / "train.csv", make_rows(100))
    write_table(tmp_path / "test.csv", make_rows(10, start=100))
    ids = ids_of(build_own(tmp_path))
    assert {split: len(of_split) for split, of_split in ids.items()} == {"train": 90, "validation": 10, "test": 10}
    assert ids["test"] == [f"n{number}" for number in range(100, 110)]


def features(codes):
    strings = dict.fromkeys(("id", "subject_id", "date", "text"), datasets.Value("string"))
    return datasets.Features({**strings, "codes": codes})


@pytest.mark.parametrize("codes", ["strings", "lists", "class labels"])
def test_a_folder_of_save_to_disk(tmp_path, build_own, codes):
    kinds = {
        "strings": datasets.Value("string"),
        "lists": datasets.List(datasets.Value("string")),
        "class labels": datasets.List(datasets.ClassLabel(names=CODES)),
    }

    def convert(row):
        return row["codes"] if codes == "strings" else row["codes"].split(";")

    splits = {
        split: datasets.Dataset.from_list([{**row, "codes": convert(row)} for row in rows], features(kinds[codes]))
        for split, rows in SPLIT_ROWS.items()
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    assert records_of(build_own(tmp_path / "all")) == EXPECTED
    splits["train"].save_to_disk(tmp_path / "one")
    assert {split: len(ids) for split, ids in ids_of(build_own(tmp_path / "one")).items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }


FROM_HUB = """
import json, os, sys
from dataset_scripts import load_builder
builder = load_builder("files", data_dir="someone/notes", cache_dir=sys.argv[1])
splits = {name: split["hadm_id"][:] for name, split in builder.as_dataset().items()}
print(json.dumps([builder.cache_dir, splits]))
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub(tmp_path, monkeypatch):
    """From a server of this machine: once, again out of the cache, and again when there is another revision."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "publishing")
    from hub_server import HubServer

    def commit(revision, rows):
        files = {"train.jsonl": rows, "test.jsonl": SPLIT_ROWS["test"]}
        content = {name: "".join(json.dumps(row) + "\n" for row in rows).encode() for name, rows in files.items()}
        hub.repos["datasets/someone/notes"]["commits"].append((revision * 40, content))

    def load(data_dir="someone/notes"):
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }
        code = FROM_HUB.replace("someone/notes", data_dir)
        command = [sys.executable, "-c", code, str(tmp_path / "cache")]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return json.loads(run.stdout) if run.returncode == 0 else run.stderr

    hub = HubServer()
    try:
        hub.repos["datasets/someone/notes"] = {"private": False, "gated": False, "commits": []}
        commit("a", make_rows(20))
        folder, splits = load()
        assert {split: len(ids) for split, ids in splits.items()} == {"train": 18, "validation": 2, "test": 6}
        assert load() == [folder, splits]
        commit("b", make_rows(12))
        other_folder, splits = load()
        assert other_folder != folder and {split: len(ids) for split, ids in splits.items()}["train"] == 10
        message = load("someone/nothing")
        assert "someone/nothing is no path here: asking the Hub" in message
        assert "someone/nothing cannot be found" in message and "Correct the path, or the name" in message
        assert [request for request in hub.requests if "nothing" in request] == ["GET /api/datasets/someone/nothing"]
    finally:
        hub.close()
    message = load("someone/nothing")  # no server answers
    assert "the Hub could not be asked for a data set of this name" in message and "Retry" not in message
    arrows = list((tmp_path / "cache").rglob("*.arrow"))
    blobs = [path for path in (tmp_path / "home").rglob("blobs/*") if path.is_file()]
    assert len(arrows) > 4 and len(blobs) > 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in arrows + blobs} == {0o600}


def test_a_path_is_not_taken_for_the_id_of_a_data_set(tmp_path, build_own, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ward7").mkdir()
    ids = ["someone/notes", "someone/notes-v1.0", "ward7/johnson_notes", "ward8/notes.xlsx", "a/b/c", "notes", "/a/b"]
    assert [name for name in ids if is_hub_id(name)] == ids[:2]
    with pytest.raises(FileNotFoundError, match=r"`data_dir` \(.*ward7/johnson_notes\) does not exist"):
        build_own("ward7/johnson_notes")
    assert capsys.readouterr().err == ""  # nobody was asked


# ---- the columns


def test_texts_of_several_columns_are_joined_under_their_headings(tmp_path, build_own):
    rows = [
        {"History": " Cough. ", "clinical_impression": "Pneumonia.\n", "codes": "486"},
        {"History": "", "clinical_impression": "Fever.", "codes": "780.6"},
    ]
    path = write_table(tmp_path / "a.csv", rows)
    builder = build_own(test_file=path, **parse_options("files", ["text_column=History,clinical_impression"]))
    assert builder.as_dataset("test")["text"][:] == [
        "HISTORY: Cough.\n\nCLINICAL IMPRESSION: Pneumonia.",
        "CLINICAL IMPRESSION: Fever.",
    ]


def test_columns_are_named_or_found_under_their_usual_names(tmp_path, build_own):
    rows = [
        {"HADM_ID": "7", "patient_id": "3", "TEXT": "a", "icd": "X"},
        {"HADM_ID": "8", "patient_id": "3", "TEXT": "b", "icd": "Y"},
    ]
    path = write_table(tmp_path / "a.csv", rows)
    builder = build_own(test_file=path, codes_column="icd")
    assert records_of(builder)["test"] == [("7", "3", "a", ["X"]), ("8", "3", "b", ["Y"])]
    builder = build_own(test_file=path, codes_column="icd", id_column="TEXT", subject_column="icd")
    assert records_of(builder)["test"] == [("a", "X", "a", ["X"]), ("b", "Y", "b", ["Y"])]


def test_without_ids_the_number_of_the_row_is_one(tmp_path, build_own):
    rows = [{"text": "a", "codes": "X"}, {"text": "b", "codes": "Y"}]
    train, test = write_table(tmp_path / "a.csv", rows), write_table(tmp_path / "b.csv", rows)
    builder = build_own(validation_file=train, test_file=test)
    assert [record[:2] for split in ("validation", "test") for record in records_of(builder)[split]] == [
        ("validation-0-1", "validation-0-1"),
        ("validation-0-2", "validation-0-2"),
        ("test-1-1", "test-1-1"),
        ("test-1-2", "test-1-2"),
    ]
    assert "No column names the patient" in builder.info.description
    assert ids_of(build_own(test_file=test)) == {"test": ["1", "2"]}


def test_ids_may_be_numbers(tmp_path, build_own):
    rows = [
        {"id": 12, "subject_id": 3.0, "text": "a", "codes": ["X"]},
        {"id": 13, "subject_id": None, "text": "b", "codes": ["X"]},
    ]
    builder = build_own(test_file=write_table(tmp_path / "a.parquet", rows))
    assert records_of(builder)["test"] == [("12", "3", "a", ["X"]), ("13", "13", "b", ["X"])]
    assert "each taken for one of its own: 1" in builder.info.description


def test_ids_of_data_frames_are_those_of_the_other_tables(tmp_path, build_own):
    """A column of whole numbers of which one is missing is written as 0.0, 1.0, ... into a csv."""
    rows = [{"id": f"{i}", "subject_id": f"{i}.0", "text": "a", "codes": ""} for i in range(10)]
    train = write_table(tmp_path / "train.csv", rows)
    valid = write_table(tmp_path / "valid.csv", [{**rows[0], "id": "10", "subject_id": "0"}])
    codings = [{"id": f"{i}.0", "code": "X"} for i in range(11)]
    codes = write_table(tmp_path / "codes.csv", codings)
    builder = build_own(train_file=train, validation_file=valid, codes_file=codes)
    assert "patients with notes in two of the given splits: 1" in builder.info.description
    assert records_of(builder)["train"][3] == ("3", "3", "a", ["X"])


@pytest.mark.parametrize(
    "cell, options",
    [
        ("E11.9;I10", {}),
        ("E11.9, I10", {}),
        (" E11.9 | I10 |", {}),
        ("E11.9\tI10\nI10", {}),
        ("['E11.9', 'I10']", {}),
        ("E11.9 + I10", {"code_separator": "+"}),
    ],
)
def test_codes_in_a_string(tmp_path, build_own, cell, options):
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": cell}])
    assert records_of(build_own(test_file=path, **options))["test"][0][3] == ["E11.9", "I10"]


def test_codes_may_be_any_strings(tmp_path, build_own):
    path = write_table(tmp_path / "a.jsonl", [{"text": "a", "codes": ["heart failure", "Größe; klein", "x"]}])
    builder = build_own(test_file=path)
    assert records_of(builder)["test"][0][3] == ["Größe; klein", "heart failure", "x"]
    assert (builder.classification, builder.code_families, builder.code_descriptions) == (None, {}, {})
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": "heart failure / x"}])
    assert records_of(build_own(test_file=path, code_separator="/"))["test"][0][3] == ["heart failure", "x"]


# ---- a second table with a row a code


def write_two_tables(folder):
    notes = [{"note_id": str(number), "text": f"Note {number}."} for number in range(1, 4)]
    # Out of order; a code twice; a note that has none (3), and a code whose note there is not (9).
    codings = [
        ("2", "4019", "diagnosis"),
        ("1", "3893", "procedure"),
        ("1", "3893", "Dx"),
        ("9", "486", "d"),
        ("2", "4019", "D"),
    ]
    rows = [{"note_id": note, "icd9_code": code, "kind": kind} for note, code, kind in codings]
    return write_table(folder / "notes.csv", notes), write_table(folder / "codes.csv", rows)


def test_codes_in_a_second_table(tmp_path, build_own):
    notes, codes = write_two_tables(tmp_path)
    builder = build_own(test_file=notes, codes_file=codes, code_kind_column="kind", code_system="icd9cm")
    assert records_of(builder)["test"] == [("1", "1", "Note 1.", ["38.93", "389.3"]), ("2", "2", "Note 2.", ["401.9"])]
    for said in (
        "code rows that repeat another one: 1",
        "notes without codes: 1",
        "code rows with the id of no note: 1",
    ):
        assert said in builder.info.description
    assert records_of(build_own(tmp_path, codes_file=codes, unsplit=True))["unsplit"][1][3] == ["4019"]


# ---- code systems


def test_icd9_codes_get_their_dots_by_kind(tmp_path, build_own):
    rows = [{"text": "a", "codes": "4019 V4581 e8859 250.00 96.71", "procedures": "9671;0066"}]
    path = write_table(tmp_path / "a.csv", rows)
    builder = build_own(test_file=path, code_system="icd9cm", procedures_column="procedures")
    assert records_of(builder)["test"][0][3] == ["00.66", "250.00", "401.9", "96.71", "E885.9", "V45.81"]
    assert builder.code_families["401.9"].block == "401-405"
    assert builder.classification.name == "ICD-9-CM"


def test_icd10_codes_get_their_dots_and_titles(tmp_path, build_own, no_published_titles):
    rows = [{"text": "a", "codes": "e119 I10", "pcs": "0bh17ez"}]
    path = write_table(tmp_path / "a.csv", rows)
    described = [{"code": "I10", "description": "High blood pressure"}, {"code": "nonsense", "description": "x"}]
    titles = write_table(tmp_path / "titles.csv", described)
    builder = build_own(test_file=path, code_system="icd10cm", procedures_column="pcs", descriptions_file=titles)
    assert records_of(builder)["test"][0][3] == ["0BH17EZ", "E11.9", "I10"]
    assert builder.code_descriptions["E11.9"] == "Type 2 diabetes mellitus without complications"
    assert builder.code_descriptions["I10"] == "High blood pressure"
    assert builder.code_families["E11.9"].chapter == "E00-E89"
    assert "codes without a description: 1" in builder.info.description  # of the procedure
    builder = build_own(test_file=path, codes_column="pcs", code_system="icd10pcs")
    assert records_of(builder)["test"][0][3] == ["0BH17EZ"]


def test_descriptions_of_codes_of_another_system(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": "X1 X2"}])
    titles = write_table(tmp_path / "titles.tsv", [{"code": "X1", "title": "First"}])
    assert build_own(test_file=path, descriptions_file=titles).code_descriptions == {"X1": "First"}


def test_descriptions_may_say_what_is_a_procedure(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": "389.3 38.93"}])
    rows = [{"ICD9_CODE": "3893", "kind": kind, "LONG_TITLE": kind} for kind in ("procedure", "diagnosis")]
    titles = write_table(tmp_path / "titles.csv", rows)
    described = build_own(test_file=path, descriptions_file=titles, code_system="icd9cm").code_descriptions
    assert (described["38.93"], described["389.3"]) == ("procedure", "diagnosis")


# ---- which codes


def test_the_most_frequent_codes_of_train_are_chosen(tmp_path, build_own):
    write_table(tmp_path / "train.csv", [{"text": "a", "codes": codes} for codes in ("A B", "A B", "A C", "C")])
    write_table(tmp_path / "valid.csv", [{"text": "a", "codes": codes} for codes in ("C", "D", "D A", "D")])

    def names(**options):
        return build_own(tmp_path, **options).info.features["codes"].feature.names

    assert names() == ["A", "B", "C", "D"]
    assert names(num_codes=2) == ["A", "B"]  # of B and C, which are in two notes each, the first
    assert names(min_count=2) == ["A", "B", "C"]
    assert names(codes=["D", "E"], unsplit=True) == ["D", "E"]
    description = build_own(tmp_path, num_codes=2).info.description
    for said in ("codes outside of the code set: 2", "notes with none of the chosen codes: 4"):
        assert said in description
    assert "codes that no note has: 1" in build_own(tmp_path, codes=["D", "E"], unsplit=True).info.description


def test_a_model_of_frequent_codes_is_evaluated_on_its_own_codes(tmp_path):
    """On a file without train notes, and not on the codes that are frequent there."""
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": codes} for codes in ("A B", "B C", "C B")])
    config = SimpleNamespace(
        training_data={"dataset": "files", "config": "default", "options": ["num_codes=2"]}, label2id={"A": 0, "B": 1}
    )
    options = [f"test_file={path}"]
    builder = builder_for(config, "files", None, "test", options=options, cache_dir=str(tmp_path / "cache"))
    assert [record[3] for record in records_of(builder)["test"]] == [["A", "B"], ["B"], ["B"]]


def test_a_model_is_trained_on_them_and_evaluated_on_others(tmp_path, backbone, capsys):
    train_file = write_table(tmp_path / "notes.csv", make_rows(60))
    test_file = write_table(tmp_path / "new.jsonl", make_rows(20, start=60))
    options = {"model": "direct", "pooling": "mean", "backbone": backbone, "train_file": train_file, "use_cpu": True}
    options |= {"num_train_epochs": 1, "window_size": 32, "output_dir": tmp_path / "model"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    assert train([*arguments, "--dataset_options", "num_codes=3", "code_system=icd10cm"]) == 0, capsys.readouterr().err
    assert evaluate([str(tmp_path / "model"), "--test_file", str(test_file)]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "model" / "evaluation" / "test" / "results.json").read_text())
    assert (results["num_notes"], results["num_codes"]) == (14, 3)  # six of the 20 notes have none of the three codes


# ---- the same records in other ways


def test_streamed_records_are_those_of_the_built_data_set(tmp_path, build_own):
    path = write_table(tmp_path / "a.jsonl", make_rows(60))
    built = build_own(path)
    cache = tmp_path / "streaming"
    for split in ("train", "validation", "test"):
        streamed = load_split("files", split, data_dir=path, cache_dir=cache, streaming=True)
        assert list(streamed) == list(built.as_dataset(split))
    del streamed
    assert [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"] == []


def test_a_streamed_split_goes_to_another_process(tmp_path):
    path = write_table(tmp_path / "a.csv", make_rows(30))
    streamed = load_split("files", "train", data_dir=path, cache_dir=tmp_path / "cache", streaming=True)
    assert list(pickle.loads(pickle.dumps(streamed))) == list(streamed)


def test_the_index_is_gone_after_a_build(tmp_path, build_own):
    build_own(write_table(tmp_path / "a.csv", make_rows(30)))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".index")] == []


def test_the_index_of_a_killed_build_is_removed_by_the_next_one(tmp_path, build_own):
    with subprocess.Popen(["true"]) as process:
        pass
    folder = tmp_path / "cache" / "own_files"
    left, in_use = (folder / f".index.{socket.gethostname()}-abc-{pid}.tmp" for pid in (process.pid, os.getpid()))
    for path in (left, in_use):
        path.mkdir(parents=True)
    build_own(write_table(tmp_path / "a.csv", make_rows(30)))
    assert not left.exists() and in_use.exists()


def test_a_changed_table_is_another_data_set(tmp_path, build_own):
    path = write_table(tmp_path / "a.csv", make_rows(30))
    assert len(ids_of(build_own(path, unsplit=True))["unsplit"]) == 30
    write_table(path, make_rows(31))
    assert len(ids_of(build_own(path, unsplit=True))["unsplit"]) == 31


def test_it_is_built_and_described_by_the_command_line(tmp_path, capsys):
    path = write_table(tmp_path / "a.csv", make_rows(30))
    arguments = ["--dataset", "files", "--cache_dir", str(tmp_path / "cache"), "--option", "code_system=icd10cm"]
    assert main(["build", "--data_dir", str(path), *arguments]) == 0
    assert "5 codes; records: train 24, validation 4, test 2." in capsys.readouterr().out
    assert main(["describe", str(tmp_path), "--png", str(tmp_path / "files.png"), *arguments]) == 0
    assert "Essential (primary) hypertension" in capsys.readouterr().out
    assert main(["build", *arguments, "--option", f"train_file={path}"]) == 0
    assert "train 24, validation 4, test 2." in capsys.readouterr().out
    assert main(["describe", *arguments]) == 2
    assert "Give the notes either by `data_dir` or by `train_file`" in capsys.readouterr().err


def test_codes_and_titles_with_brackets_are_shown_as_they_are(tmp_path, capsys):
    """To the library that prints the tables, `[b]` is the beginning of bold type."""
    path = write_table(tmp_path / "a.csv", [{"text": "a", "codes": "[b]x y"}])
    titles = write_table(tmp_path / "titles.csv", [{"code": "y", "description": "a [/b] title"}])
    options = [f"test_file={path}", f"descriptions_file={titles}"]
    arguments = [argument for option in options for argument in ("--option", option)]
    png = ["--png", str(tmp_path / "files.png"), "--cache_dir", str(tmp_path / "cache")]
    assert main(["describe", "--dataset", "files", *arguments, *png]) == 0
    shown = capsys.readouterr().out
    assert "[b]x" in shown and "a [/b] title" in shown


def test_dates_of_a_parquet_file(tmp_path, build_own):
    rows = [{**row, "date": date.fromisoformat(row["date"])} for row in make_rows(20)]
    ids = ids_of(build_own(write_table(tmp_path / "a.parquet", rows), split_by="date"))
    assert ids == {"train": [f"n{i}" for i in range(16)], "validation": ["n16", "n17"], "test": ["n18", "n19"]}
