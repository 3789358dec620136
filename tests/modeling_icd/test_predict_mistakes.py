"""`modeling-icd predict`: what is wrong with the command line or the input is said before a model works for hours."""

import logging

import pytest
from test_pipeline import save_coder

from modeling_icd.inference.predict import main


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_coder(tmp_path_factory.mktemp("model"))


def table_of(path, ids):
    path.write_text("id,text\n" + "".join(f"{note_id},fever {number}\n" for number, note_id in enumerate(ids)))
    return str(path)


def failure(capsys, *arguments) -> str:
    assert main([*arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_repeated_ids_are_counted_and_keep_their_rows(model, tmp_path, capsys):
    notes = table_of(tmp_path / "notes.csv", ["a", "b", "a", "c", "a", "b"])
    for name in ("whole.csv", "again.csv"):  # whatever the number of chunks
        assert main([model, notes, "-o", str(tmp_path / name), f"--chunk_rows={6 if name == 'whole.csv' else 2}"]) == 0
        printed = capsys.readouterr().out
        assert "3 notes have the id of an earlier one: the column `row` tells them apart." in printed
    with open(tmp_path / "whole.csv") as file:
        assert list(dict.fromkeys(tuple(line.split(",")[:2]) for line in file))[1:] == [
            (str(row), note_id) for row, note_id in enumerate("abacab", start=1)
        ]
    notes = table_of(tmp_path / "notes.csv", ["a", "b", "c"])
    assert main([model, notes, "-o", str(tmp_path / "none.csv")]) == 0
    assert "id of an earlier one" not in capsys.readouterr().out


def test_a_model_in_the_place_of_the_notes_is_recognised(model, tmp_path, capsys):
    notes, output = table_of(tmp_path / "notes.csv", ["a"]), str(tmp_path / "codes.csv")
    order = "The model, a folder or Hub id, comes first, then the notes: `modeling-icd predict MODEL NOTES -o OUTPUT`."
    for second in (model, "owner/name"):
        assert failure(capsys, notes, second, "-o", output) == (
            f"error: {notes} is given as the model, and is a file. {order}\n"
        )
    assert failure(capsys, str(tmp_path), model, "-o", output) == (
        f"error: {tmp_path} is given as the model, and is a folder without config.json. {order}\n"
    )


def test_an_output_that_cannot_be_written_is_known_before_the_model_is_loaded(model, tmp_path, capsys, monkeypatch):
    notes = table_of(tmp_path / "notes.csv", ["a"])
    (tmp_path / "codes.csv").mkdir()
    (tmp_path / "a.csv.rejected.csv").mkdir()
    monkeypatch.setattr("modeling_icd.inference.predict_coder.load_model", None)  # which nothing here may call
    for output, said in (
        (tmp_path / "codes.csv", f"{tmp_path / 'codes.csv'}: it is a folder, where a file is expected"),
        (tmp_path / "a.csv", f"{tmp_path / 'a.csv.rejected.csv'}: it is a folder"),
        (tmp_path / "notes.csv/b.csv", f"{tmp_path / 'notes.csv/b.csv'}: a part of this path is a file"),
    ):
        assert failure(capsys, model, notes, "-o", str(output), "--overwrite").startswith(f"error: {said}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv.rejected.csv", "codes.csv", "notes.csv"]


def test_what_bitsandbytes_says_of_each_note_is_kept_off_the_console(model, tmp_path):
    logging.getLogger("bitsandbytes").setLevel(logging.NOTSET)
    notes = table_of(tmp_path / "notes.csv", ["a"])
    assert main([model, notes, "-o", str(tmp_path / "codes.csv")]) == 0
    assert not logging.getLogger("bitsandbytes.autograd").isEnabledFor(logging.WARNING)
