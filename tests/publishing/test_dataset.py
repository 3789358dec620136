"""The data set's repository: what goes out, and what the guard never lets out."""

import ast
import gzip

import pyarrow as pa
import pytest
from own_process import run_python

from dataset_scripts import load_split
from modeling_icd.publishing import dataset
from modeling_icd.publishing.cli import main
from modeling_icd.publishing.credentials import SECRET
from modeling_icd.publishing.dataset import ID_LIST, LONG_TEXT, NO_TEXT, NOT_LISTED, VOCABULARY, check_dataset
from modeling_icd.publishing.privacy import (
    DEIDENTIFIED,
    RECORD_ID,
    SPAN,
    LocalNames,
    TrainingNotes,
    check_files,
)


REPO = "someone/icd-builders"


def test_card_builders_and_metric_go_out_private_and_nothing_else(hub, capsys):
    assert main(["dataset", "--repo_id", REPO]) == 0
    repository = hub.repos[f"datasets/{REPO}"]
    assert (repository["private"], repository["gated"]) == (True, False)
    names = hub.files(f"datasets/{REPO}").keys()
    assert {
        "README.md",
        "LICENSE",
        "requirements.txt",
        "dataset_scripts/builders/mimic3.py",
        "dataset_scripts/codes/icd9.py",
        "icd_metrics/icd_metrics.py",
    } <= names
    assert {name.rpartition(".")[2] for name in names} == {"py", "md", "txt", "LICENSE"}
    assert hub.files(f"datasets/{REPO}")["README.md"].startswith(b"---\npretty_name: ")


def test_a_dry_run_shows_all_and_asks_nothing_of_the_hub(hub, capsys):
    assert main(["dataset", "--repo_id", REPO, "--no-private", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert (
        "a data set: public" in shown
        and "dataset_scripts/builders/records.py" in shown
        and "nothing was pushed" in shown
    )
    assert shown.splitlines()[-1].startswith("READY: without `--dry_run`, ")
    assert hub.requests == []


USE = """
import importlib.util
assert importlib.util.find_spec("modeling_icd") is None
import evaluate
from dataset_scripts import load_split
notes = load_split("mimic3", "all", "full", data_dir="DATA", cache_dir="cache")
metric = evaluate.load("icd_metrics", num_labels=2)
metric.add_batch(predictions=[[0.9, 0.1]], references=[[0]])
print(len(notes), metric.compute()["f1_micro"])
"""


def test_what_was_published_builds_and_measures_without_the_project(notes, hub, tmp_path):
    assert main(["dataset", "--repo_id", REPO]) == 0
    for name, data in hub.files(f"datasets/{REPO}").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    run = run_python("-c", USE.replace("DATA", str(notes)), cwd=tmp_path, environment=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["30", "1.0"]


def records_file(path):
    """A built split as the cache keeps it."""
    table = pa.table({"text": ["an invented note"], "hadm_id": [100001]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path.read_bytes()


IDS = "".join(f"{100001 + i}\n" for i in range(9))
WORDS = [f"word{i}" for i in range(400)]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("cache/mimic3-train.arrow", records_file, NOT_LISTED),
        ("dataset_scripts/cache.py", records_file, NO_TEXT),
        ("dataset_scripts/notes.py", lambda path: gzip.compress(b"ROW_ID,TEXT\n1,a note\n" * 9), NO_TEXT),
        ("dataset_scripts/train_full_hadm_ids.csv", IDS, NOT_LISTED),
        ("requirements.txt", IDS, ID_LIST),
        ("dataset_scripts/splits.py", f"TRAIN = [{IDS.replace(chr(10), ', ')}]", ID_LIST),
        ("dataset_scripts/example.py", f"NOTE = {' '.join(WORDS[:250])!r}", LONG_TEXT),
        ("dataset_scripts/example.py", "NOTE = 'seen by Dr. [**Last Name**]'", DEIDENTIFIED),
        ("dataset_scripts/words.py", f"WORDS = {WORDS}", VOCABULARY),
        ("dataset_scripts/words.py", f"WORDS = {dict.fromkeys(WORDS, 1)}", VOCABULARY),
        ("dataset_scripts/table.py", "ROW_ID,SUBJECT_ID,TEXT\n1,2,a note with words\n", NO_TEXT),
        ("tokenizer.json", "{}", NOT_LISTED),
        ("dataset_scripts/note_145834.py", "", NOT_LISTED),
        ("icd_metrics/example.py", "# hadm_id: 145834", RECORD_ID),
        ("icd_metrics/example.py", f"TOKEN = 'hf_{'a' * 34}'", SECRET),
    ],
)
def test_the_guard_refuses(name, content, kind, tmp_path):
    data = content(tmp_path / "file") if callable(content) else content.encode()
    findings = check_dataset({name: data}, LocalNames())
    assert kind in {finding.kind for finding in findings}
    assert {finding.file for finding in findings} == {name}


def test_a_file_beside_the_builders_is_not_taken_along_and_one_that_holds_data_blocks(
    hub, tmp_path, monkeypatch, capsys
):
    (tmp_path / "README.md").write_text("---\nlicense: other\nlanguage: en\n---\n")
    (tmp_path / "train_full_hadm_ids.csv").write_text(IDS)
    monkeypatch.setattr(dataset, "FOLDERS", {"dataset_scripts": tmp_path})
    assert main(["dataset", "--repo_id", REPO]) == 0
    assert hub.files(f"datasets/{REPO}").keys() == {"README.md", "LICENSE", "requirements.txt"}
    (tmp_path / "splits.py").write_text(f"TRAIN = '''{IDS}'''")
    commits = len(hub.repos[f"datasets/{REPO}"]["commits"])
    assert main(["dataset", "--repo_id", REPO]) == 1
    error = capsys.readouterr().err
    assert f"dataset_scripts/splits.py: {ID_LIST} (9)" in error and "100001" not in error
    assert len(hub.repos[f"datasets/{REPO}"]["commits"]) == commits


def test_a_piece_of_the_users_own_notes_is_found_even_in_a_docstring(notes, hub, tmp_path, monkeypatch, capsys):
    text = load_split("mimic3", "all", "top50", data_dir=notes, cache_dir=tmp_path / "cache")["text"][0]
    code = repr(" ".join(text.split()[20:40]))
    assert isinstance(ast.parse(code).body[0], ast.Expr)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "README.md").write_text("---\nlicense: other\nlanguage: en\n---\n")
    (tmp_path / "code" / "mimic3.py").write_text(code)
    monkeypatch.setattr(dataset, "FOLDERS", {"dataset_scripts": tmp_path / "code"})
    compared = ["--data_dir", str(notes), "--dataset_config", "top50"]
    assert main(["dataset", "--repo_id", REPO, *compared]) == 2
    assert "--cache_dir" in capsys.readouterr().err
    assert main(["dataset", "--repo_id", REPO, *compared, "--cache_dir", str(tmp_path / "cache")]) == 1
    assert f"dataset_scripts/mimic3.py: {SPAN}" in capsys.readouterr().err
    assert hub.repos == {}


def test_the_article_number_that_every_card_of_mimic3_cites_is_no_admission():
    records = [{"text": "", "hadm_id": 160035, "subject_id": 1}, {"text": "", "hadm_id": 160036, "subject_id": 2}]
    card = b"volume={3}, pages={160035}, year={2016}"
    assert check_files({"README.md": card}, LocalNames(), TrainingNotes(records)) == []
    assert check_files({"README.md": b"the note 160036"}, LocalNames(), TrainingNotes(records)) != []


def test_a_wrong_name_is_one_message(capsys):
    assert main(["dataset", "--repo_id", "builders"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
