"""`modeling-icd predict`: a file of notes becomes a file of codes, those that the pipeline gives, whatever ends it between."""

import csv
import json
import os
import random
import resource
import signal
import socket
import stat
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import WORDS, assert_same, byte_tokenizer, coder_with
from transformers import AutoModelForSequenceClassification

from modeling_icd.inference import predict, predict_notes
from modeling_icd.inference.predict import main
from modeling_icd.inference.predict_notes import ChunkReader, open_notes
from modeling_icd.inference.predict_parts import Parts


@pytest.fixture(scope="module")
def coder():
    return coder_with(tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def model(coder, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    coder.model.save_pretrained(folder)
    coder.tokenizer.save_pretrained(folder)
    return str(folder)


def invented(count: int) -> list[str]:
    """Notes of one word to several windows."""
    draw = random.Random(5)
    return [" ".join(draw.choices(WORDS, k=draw.choice([1, 3, 8, 30, 90]))) for _ in range(count)]


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def notes(tmp_path) -> Path:
    texts = invented(60)
    return write_table(tmp_path / "notes.csv", [{"id": f"n{i}", "text": text} for i, text in enumerate(texts)])


def read_output(path: Path) -> list[dict]:
    """Notes with their codes, as a line of jsonl has them, from an output of any format."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        with path.open(newline="") as file:
            rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
        for row in rows:
            row["row"] = int(row["row"])
            row["score"] = None if row["score"] is None else float(row["score"])
            row["evidence"] = None if row["evidence"] is None else json.loads(row["evidence"])
    coded: dict[int, dict] = {}
    for row in rows:
        note = coded.setdefault(row.pop("row"), {"id": row.pop("id"), "codes": []})
        row.pop("id", None)
        note["codes"] += [row] if row["code"] is not None else []
    return [{"row": row, **note} for row, note in coded.items()]


def outcome(capsys) -> str:
    """What a command printed, without the progress bars."""
    printed = capsys.readouterr()
    return printed.out + "".join(line + "\n" for line in printed.err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("options", [[], ["--top_k=2", "--num_spans=1"], ["--threshold=0.6"]])
def test_the_codes_are_the_pipelines_in_the_order_of_the_notes(kind, options, coder, model, notes, tmp_path, capsys):
    output = tmp_path / f"codes.{kind}"
    assert main([model, str(notes), "-o", str(output), "--chunk_rows=16", *options]) == 0
    coded = read_output(output)
    assert [note["id"] for note in coded] == [f"n{i}" for i in range(60)]
    assert [note["row"] for note in coded] == list(range(1, 61))
    call = {name: float(value) for name, value in (option[2:].split("=") for option in options)}
    call = {name: int(value) if value.is_integer() else value for name, value in call.items()}
    assert_same([note["codes"] for note in coded], [coder(text, **call) for text in invented(60)])
    assert "60 notes coded" in outcome(capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.csv", output.name}


def test_the_formats_hold_the_same_and_a_note_without_a_code_is_told_from_one_not_read(model, notes, tmp_path, capsys):
    outputs = [tmp_path / f"codes.{kind}" for kind in ("csv", "jsonl", "parquet")]
    for output in outputs:
        assert main([model, str(notes), "-o", str(output), "--threshold=0.66"]) == 0
    contents = [read_output(output) for output in outputs]
    assert contents[0] == contents[1] == contents[2]
    without = sum(not note["codes"] for note in contents[0])
    assert 0 < without < 60 and f"{without} have no code" in outcome(capsys)
    table = pq.read_table(outputs[2])
    assert table.column_names == ["row", "id", "code", "description", "score", "decision", "evidence"]
    assert table["code"].null_count == without
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in outputs)


ROWS = [
    {"id": "a", "text": "acute fever"},
    {"id": "=b", "text": "  "},
    {"id": "", "text": "secret cough"},
    {"id": "d", "text": None},
    {"id": "e", "text": ["secret", "list"]},
    {"id": "a", "text": "sepsis due to pneumonia"},
]


def test_rows_that_cannot_be_coded_are_listed_with_the_reason_and_never_with_their_text(model, tmp_path, capsys):
    source = write_table(tmp_path / "notes.jsonl", ROWS)
    with source.open("a") as file:
        file.write('{"id": "g", "text": "secret\n')
    output = tmp_path / "codes.jsonl"
    assert main([model, str(source), "-o", str(output), "--chunk_rows=2"]) == 0
    assert [(note["row"], note["id"]) for note in read_output(output)] == [(1, "a"), (6, "a")]
    rejected = tmp_path / "codes.jsonl.rejected.csv"
    assert list(csv.reader(rejected.open())) == [
        ["row", "id", "reason"],
        ["2", "'=b", "has no text"],
        ["3", "", "has no id"],
        ["4", "d", "has no text"],
        ["5", "e", "has a text that is not a string"],
        ["7", "", "is not JSON"],
    ]
    assert stat.S_IMODE(rejected.stat().st_mode) == 0o600
    printed = capsys.readouterr()
    assert f"5 rows were rejected: {rejected} says why." in printed.out
    assert "secret" not in printed.out + printed.err
    write_table(source, [ROWS[0]])
    assert main([model, str(source), "-o", str(output), "--overwrite"]) == 0
    assert not rejected.exists()  # it was of other notes


@pytest.mark.parametrize(
    ("rows", "why"),
    [([{"id": "a", "text": ""}, {"id": "b", "text": 3}], "row 1 has no text"), ([], "it has no rows")],
)
def test_a_file_without_any_note_is_an_error_and_leaves_nothing(rows, why, model, tmp_path, capsys):
    source = tmp_path / "notes.parquet"
    table = pa.table({"text": ["", " "], "id": ["a", "b"]}) if rows else pa.table({"text": pa.array([], pa.string())})
    pq.write_table(table, source)
    assert main([model, str(source), "-o", str(tmp_path / "codes.csv")]) == 2
    assert f"{source} has no note that can be coded: {why}." in outcome(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.parquet"]


def test_a_folder_of_text_files_is_read_in_the_order_of_their_names(coder, model, tmp_path, capsys):
    folder = tmp_path / "notes"
    (folder / "b").mkdir(parents=True)
    texts = {"10.txt": "acute fever", "9.txt": "caf\xe9 fever, 5 \x80", "b/1.txt": "sepsis", "empty.txt": " \n"}
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    (folder / ".hidden.txt").write_text("secret")
    (folder / "other.md").write_text("secret")
    output = tmp_path / "codes.jsonl"
    assert main([model, str(folder), "-o", str(output), "--top_k=1"]) == 0
    coded = read_output(output)
    assert [(note["row"], note["id"]) for note in coded] == [(1, "10"), (2, "9"), (3, "b/1")]
    read = ["acute fever", "caf\xe9 fever, 5 \u20ac", "sepsis"]  # bytes that are not UTF-8 are Windows-1252
    assert_same([note["codes"] for note in coded], coder(read, top_k=1))
    assert (tmp_path / "codes.jsonl.rejected.csv").read_text().splitlines()[1:] == ["4,empty,has no text"]
    assert "1 rows with bytes that are not UTF-8" in outcome(capsys)


def test_columns_by_name_are_joined_and_offsets_are_places_in_the_joined_text(coder, model, tmp_path):
    rows = [
        {"stay": 17, "history": "acute fever", "plan": "rule out sepsis"},
        {"stay": 18, "history": "", "plan": "cough"},
    ]
    source = write_table(tmp_path / "notes.parquet", rows)
    output = tmp_path / "codes.jsonl"
    options = ["--text_column=history", "--text_column=plan", "--id_column=stay", "--top_k=2"]
    assert main([model, str(source), "-o", str(output), *options]) == 0
    joined = ["HISTORY: acute fever\n\nPLAN: rule out sepsis", "PLAN: cough"]
    coded = read_output(output)
    assert [note["id"] for note in coded] == ["17", "18"]
    for text, note in zip(joined, coded, strict=True):
        spans = [span for code in note["codes"] for span in code["evidence"]]
        assert spans and all(text[span["start"] : span["end"]] == span["text"] for span in spans)
    assert_same([note["codes"] for note in coded], coder(joined, top_k=2))


def test_without_a_column_of_ids_the_number_of_the_row_is_the_id(model, tmp_path):
    source = write_table(tmp_path / "notes.csv", [{"text": "fever"}, {"text": "cough"}])
    assert main([model, str(source), "-o", str(tmp_path / "codes.jsonl")]) == 0
    assert [note["id"] for note in read_output(tmp_path / "codes.jsonl")] == ["1", "2"]


def run_and_kill(arguments: list[str], parts: Path, more: int, wait: float) -> int | None:
    """Runs the command in a process of its own, and kills it when `more` further chunks are finished and `wait` seconds have
    passed; the exit status if it was done before."""
    there = len(list(parts.glob("part-*")))
    process = os.fork()
    if process == 0:
        os._exit(main(arguments))
    try:
        while len(list(parts.glob("part-*"))) < there + more:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        time.sleep(wait)
    finally:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_run_killed_five_times_gives_the_bytes_of_one_run(kind, model, tmp_path, capfd):
    rows = [{"id": f"n{i}", "text": text if i % 7 else " "} for i, text in enumerate(invented(240))]
    source = write_table(tmp_path / "notes.csv", rows)
    whole, output = tmp_path / f"whole.{kind}", tmp_path / f"codes.{kind}"
    assert main([model, str(source), "-o", str(whole), "--chunk_rows=8"]) == 0
    arguments = [model, str(source), "-o", str(output), "--chunk_rows=8"]
    draw = random.Random(kind)
    for _ in range(5):
        assert (
            run_and_kill(arguments, tmp_path / f"{output.name}.parts", draw.randint(1, 5), draw.random() / 50) is None
        )
        assert not output.exists()
    finished = len(list((tmp_path / f"{output.name}.parts").glob("part-*")))
    assert 5 <= finished < 30
    capfd.readouterr()
    assert main(arguments) == 0
    printed = capfd.readouterr()
    already = int(printed.err.partition(" of 205 notes are coded already.")[0].rsplit(maxsplit=1)[-1])
    assert (finished - 1) * 6 <= already <= finished * 7  # of 8 rows one or two are blank
    assert output.read_bytes() == whole.read_bytes()
    rejected = [path.with_name(f"{path.name}.rejected.csv").read_bytes() for path in (output, whole)]
    assert rejected[0] == rejected[1] and rejected[0].count(b"has no text") == 35
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["notes.csv", *(f"{path.name}{end}" for path in (output, whole) for end in ("", ".rejected.csv"))]
    )


@pytest.fixture
def ended(model, notes, tmp_path, monkeypatch, capsys):
    """The command, ended by SIGTERM when three of its eight chunks were finished, and where its parts are."""
    arguments = [model, str(notes), "-o", str(tmp_path / "codes.jsonl"), "--chunk_rows=8"]
    write = Parts.write

    def end(self, number, lines):
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(self, number, lines)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", end)
        assert main(arguments) == 143
    return arguments, tmp_path / "codes.jsonl.parts"


def test_a_signal_is_one_line_that_says_how_to_go_on_and_what_was_done_is_private(ended, tmp_path, capsys):
    arguments, parts = ended
    assert outcome(capsys) == (
        f"error: ended by SIGTERM. What is coded so far is kept in {parts}: the same command goes on from there.\n"
    )
    names = {path.name for path in parts.iterdir()}
    assert names == {"lock", "manifest.json", *(f"part-0000000{i}.jsonl" for i in range(3))}
    assert stat.S_IMODE(parts.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in parts.glob("*.json*"))
    assert main(arguments) == 0
    assert "60 notes coded, 36 of them now" in outcome(capsys)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-30],
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"0.6", b"0.7", 1),
        lambda content: b"",
        lambda content: b"[1]\n",
        lambda content: b"\n".join(content.split(b"\n")[1:]),
    ],
)
def test_a_damaged_part_is_made_again(damage, ended, model, notes, tmp_path, capsys):
    arguments, parts = ended
    part = parts / "part-00000001.jsonl"
    content = part.read_bytes()
    part.write_bytes(damage(content))
    assert part.read_bytes() != content
    assert main(arguments) == 0
    assert "60 notes coded, 44 of them now" in outcome(capsys)  # two of the three finished chunks of 8 were whole
    assert main([model, str(notes), "-o", str(tmp_path / "whole.jsonl"), "--chunk_rows=8"]) == 0
    assert (tmp_path / "codes.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_run_is_told_apart_by_what_differs(ended, model, notes, tmp_path, capsys):
    arguments, parts = ended
    capsys.readouterr()
    assert main([*arguments, "--threshold=0.3", "--top_k=3", "--chunk_rows=9"]) == 2
    message = outcome(capsys)
    assert (
        f"{parts} holds a part of the results of another run, which differs in --chunk_rows, --threshold, --top_k."
        in message
    )
    assert "--overwrite" in message and len(list(parts.glob("part-*"))) == 3
    with notes.open("a") as file:
        file.write("n60,fever\n")
    assert main(arguments) == 2
    assert "differs in the size or time of the notes." in outcome(capsys)
    changed = AutoModelForSequenceClassification.from_pretrained(model)
    changed.config.threshold = 0.3
    other = tmp_path / "other"
    changed.save_pretrained(other)
    coder_with(tokenizer=byte_tokenizer()).tokenizer.save_pretrained(other)
    assert main([str(other), *arguments[1:]]) == 2
    assert "differs in the model, the model's files, the size or time of the notes" in outcome(capsys)
    assert main([*arguments, "--overwrite"]) == 0
    assert "61 notes coded, 61 of them now" in outcome(capsys)


def test_an_output_that_is_there_is_kept_unless_told_otherwise(model, notes, tmp_path, capsys):
    output = tmp_path / "codes.csv"
    output.write_text("mine")
    arguments = [model, str(notes), "-o", str(output)]
    assert main(arguments) == 2
    assert f"{output} is there already: give --overwrite to replace it, or another --output." in outcome(capsys)
    assert output.read_text() == "mine" and not (tmp_path / "codes.csv.parts").exists()
    assert main([*arguments, "--overwrite"]) == 0
    assert len(read_output(output)) == 60


def test_two_processes_do_not_work_at_one_output(model, notes, tmp_path, capsys):
    with Parts(tmp_path / "codes.csv.parts").opened({}, False):
        assert main([model, str(notes), "-o", str(tmp_path / "codes.csv")]) == 2
    assert f"Another process is at work in {tmp_path / 'codes.csv.parts'}" in outcome(capsys)


def test_a_full_disk_is_one_message_and_the_run_goes_on_when_there_is_space(
    model, notes, tmp_path, capsys, monkeypatch
):
    """No file may be longer than the limit, which a chunk's part keeps and the output does not."""
    output = tmp_path / "codes.jsonl"
    arguments = [model, str(notes), "-o", str(output), "--chunk_rows=8"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = predict.write_results

    def full_from_here(*given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        full(*given)

    monkeypatch.setattr(predict, "write_results", full_from_here)
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    assert "error: " in outcome(capsys) and not output.exists()
    assert main(arguments) == 0
    assert "60 notes coded; " in outcome(capsys)  # none of them now
    assert len(read_output(output)) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o=codes.xlsx"], "--output (codes.xlsx) must end in .parquet, .csv, .jsonl"),
        (["--threshold=1.5"], "`--threshold` must be a number in [0, 1], got 1.5."),
        (["--top_k=0"], "`--top_k` must be a whole number of at least 1, got 0."),
        (["--processes=0"], "`--processes` must be a whole number of at least 1, got 0."),
        (["--text_column=note"], "has no column 'note': give `--text_column` the name of one of its columns, which are 'id', 'text'."),
        (["--encoding=utf-99"], "is not the name of a text encoding"),
        (["--dtype=float8"], "`dtype` must be one of"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_message_before_the_model_is_loaded(options, message, model, notes, tmp_path, capsys):
    assert main([model, str(notes), "-o", str(tmp_path / "codes.csv"), *options]) == 2
    assert message in outcome(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.csv"]


def test_what_is_no_file_of_notes_is_named(model, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("fever")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "none.csv": "does not exist: give a table of notes, or a folder of .txt files.",
        "one.txt": "is one text file: give the folder that it is in",
        "empty": f"No .txt file in {tmp_path / 'empty'}",
    }.items():
        assert main([model, str(tmp_path / name), "-o", str(tmp_path / "codes.csv")]) == 2
        assert message in outcome(capsys)
    assert main([str(tmp_path / "empty"), str(tmp_path / "one.txt"), "-o", str(tmp_path / "codes.csv")]) == 2


def test_without_ray_the_command_that_installs_it_is_named(model, notes, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([model, str(notes), "-o", str(tmp_path / "codes.csv"), "--ray"]) == 2
    assert "pip install modeling-icd[ray]" in outcome(capsys)


def test_a_folder_that_holds_other_files_is_refused_and_stays_as_it_was(model, notes, tmp_path, capsys):
    parts = tmp_path / "z.csv.parts"
    parts.mkdir(mode=0o755)
    arguments = [model, str(notes), "-o", str(tmp_path / "z.csv")]
    for name, content in {
        "mine.txt": "mine",
        "manifest.json": '{"name": "my app"}',
        "part-00000000.jsonl": "",
    }.items():
        (parts / name).write_text(content)
        for options in ([], ["--overwrite"]):
            assert main([*arguments, *options]) == 2
            assert outcome(capsys) == (
                f"error: {parts} is where the parts of the results are kept, but what it holds is not of this command: "
                "move it away, or give another --output.\n"
            )
        assert [path.read_text() for path in parts.iterdir()] == [content]
        assert stat.S_IMODE(parts.stat().st_mode) == 0o755 and not (tmp_path / "z.csv").exists()
        (parts / name).unlink()
    assert main(arguments) == 0  # an empty folder is nobody's
    assert not parts.exists()


def test_a_file_that_someone_puts_among_the_parts_stays(ended, tmp_path):
    arguments, parts = ended
    for name in ("mine.txt", "part-mine.jsonl"):
        (parts / name).write_text("mine")
    assert main(arguments) == 0
    assert len(read_output(tmp_path / "codes.jsonl")) == 60
    assert {path.name: path.read_text() for path in parts.iterdir()} == {"mine.txt": "mine", "part-mine.jsonl": "mine"}


def test_what_a_killed_process_of_another_machine_left_of_a_part_is_removed_with_the_parts(ended, tmp_path):
    arguments, parts = ended
    (parts / ".part-00000003.jsonl.elsewhere-1.tmp").write_text("half a note")
    assert main(arguments) == 0
    assert not parts.exists()


def test_a_list_of_rejected_rows_is_replaced_only_where_told_and_never_when_it_is_the_input(
    model, notes, tmp_path, capsys
):
    output, rejected = tmp_path / "y.csv", tmp_path / "y.csv.rejected.csv"
    rejected.write_bytes(notes.read_bytes())
    for options in ([], ["--overwrite"]):
        assert main([model, str(rejected), "-o", str(output), *options]) == 2
        assert outcome(capsys) == (
            f"error: --output ({output}) would replace the file of notes, {rejected}: give another name.\n"
        )
    assert main([model, str(notes), "-o", str(output)]) == 2
    assert f"{rejected} is there already: give --overwrite to replace it, or another --output." in outcome(capsys)
    assert rejected.read_bytes() == notes.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.csv", "y.csv.rejected.csv"}
    assert main([model, str(notes), "-o", str(output), "--overwrite"]) == 0
    assert output.exists() and not rejected.exists()


def test_a_run_that_was_ended_after_its_list_of_rejected_rows_was_written_goes_on(
    model, tmp_path, capsys, monkeypatch
):
    source = write_table(tmp_path / "notes.csv", [{"id": "a", "text": "fever"}, {"id": "b", "text": " "}])
    arguments = [model, str(source), "-o", str(tmp_path / "codes.csv")]
    with monkeypatch.context() as patch:
        patch.setattr(predict, "write_output", lambda *given: os.kill(os.getpid(), signal.SIGTERM))
        assert main(arguments) == 143
    assert (tmp_path / "codes.csv.rejected.csv").exists()
    assert main(arguments) == 0
    assert "1 row was rejected" in outcome(capsys)


def test_notes_that_change_while_they_are_coded_give_no_output(model, notes, tmp_path, capsys, monkeypatch):
    """The second half of the notes is another one when its turn comes; there are as many rows as before."""
    content, write = notes.read_text(), Parts.write

    def change(self, number, lines):
        if number == 3:
            notes.write_text(content.replace("n50,", "n50,fever "))
        return write(self, number, lines)

    arguments = [model, str(notes), "-o", str(tmp_path / "codes.csv"), "--chunk_rows=8"]
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", change)
        assert main(arguments) == 2
    assert outcome(capsys) == (
        f"error: {notes} has changed while it was read: run the same command with --overwrite.\n"
    )
    assert not (tmp_path / "codes.csv").exists()
    assert main(arguments) == 2
    assert "differs in the size or time of the notes." in outcome(capsys)
    assert main([*arguments, "--overwrite"]) == 0
    assert "60 notes coded, 60 of them now" in outcome(capsys)


def test_the_parts_are_not_listed_for_each_of_them(model, notes, tmp_path, monkeypatch):
    listed: Counter[str] = Counter()
    list_folder = Path.glob

    def count(self, *given, **options):
        listed[self.name] += 1
        return list_folder(self, *given, **options)

    monkeypatch.setattr(Path, "glob", count)
    for name, chunk_rows in (("few.csv", 30), ("many.csv", 2)):  # 2 and 30 parts
        assert main([model, str(notes), "-o", str(tmp_path / name), f"--chunk_rows={chunk_rows}"]) == 0
    assert listed["few.csv.parts"] == listed["many.csv.parts"] > 0


def test_what_a_killed_run_left_half_written_is_gone_when_it_goes_on(ended, monkeypatch):
    arguments, parts = ended
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    abandoned = parts / f".part-00000003.jsonl.{socket.gethostname()}-{process}.tmp"
    abandoned.write_text("half a note")
    write = Parts.write

    def is_gone(self, number, lines):
        assert not abandoned.exists()
        return write(self, number, lines)

    monkeypatch.setattr(Parts, "write", is_gone)
    assert main(arguments) == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_ids_that_csv_changes_are_counted(kind, model, tmp_path, capsys):
    ids = ["-a", "=b", "-5", "c", "@d", "+e"]
    texts = ["fever", "cough", "fever", "sepsis", " ", "fever"]
    source = write_table(
        tmp_path / "notes.csv", [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
    )
    output = tmp_path / f"codes.{kind}"
    assert main([model, str(source), "-o", str(output), "--top_k=2"]) == 0
    is_csv = kind == "csv"
    changed = ["'-a", "'=b", "-5", "c", "'+e"] if is_csv else ["-a", "=b", "-5", "c", "+e"]
    assert [note["id"] for note in read_output(output)] == changed
    assert "5,'@d,has no text" in (tmp_path / f"codes.{kind}.rejected.csv").read_text()
    printed = outcome(capsys)
    many = "4 ids have" if is_csv else "1 id has"  # the rejected rows are csv whatever the output is
    assert f"\n{many} an apostrophe in front in csv: take it off before you join by id.\n" in printed
    write_table(source, [{"id": "c", "text": "fever"}])
    assert main([model, str(source), "-o", str(output), "--overwrite"]) == 0
    assert "apostrophe" not in outcome(capsys)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 9), st.data())
def test_chunks_hold_every_row_once_and_are_the_same_in_whatever_order_they_are_read(lengths, chunk_rows, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_notes, "CHUNK_CHARACTERS", 20)
        folder = Path(os.environ["HOME"], "chunks")
        folder.mkdir(exist_ok=True)
        source = write_table(
            folder / "notes.csv", [{"id": i, "text": "x" * length} for i, length in enumerate(lengths)]
        )
        notes = open_notes(source, chunk_rows=chunk_rows)
        chunks = list(notes.chunks(Counter()))
        assert [row.row for chunk in chunks for row in chunk] == list(range(1, len(lengths) + 1))
        for chunk in chunks:
            assert len(chunk) <= chunk_rows and sum(len(row.text) for row in chunk[:-1]) < 20
        reader = ChunkReader(notes)
        for number in data.draw(st.lists(st.integers(0, len(chunks) - 1), max_size=8)):
            assert reader.read(number) == chunks[number]
        with pytest.raises(ValueError, match="has changed while it was read"):
            reader.read(len(chunks))


def test_help_fits_a_screen(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 48 and max(map(len, lines)) <= 100
    assert "    modeling-icd predict runs/my_model notes.csv --text_column note -o codes.parquet" in lines
