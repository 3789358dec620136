"""The command `modeling-icd`, as `pip install` brings it: its help, its messages, and one's own notes from csv to codes."""

import csv
import json
import random
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from modeling_icd.__main__ import COMMANDS, main


SCREEN = 48  # lines, of 100 characters
FINDINGS = {
    "401.9": "renal failure",
    "428.0": "acute failure",
    "486": "pneumonia",
    "038.9": "sepsis",
    "780.6": "fever",
    "786.2": "cough",
}


@pytest.fixture
def console(installed, tmp_path):
    """Runs the installed command in an empty folder."""

    def run(*arguments) -> subprocess.CompletedProcess:
        command = [str(installed / "modeling-icd"), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


def write_notes(path: Path, numbers: range, seed: int) -> None:
    """Invented notes of a few words, which name what they are coded with."""
    draw = random.Random(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["note_id", "text", "codes"])
        for number in numbers:
            codes = draw.sample(sorted(FINDINGS), draw.randint(1, 3))
            words = ", ".join(f"the patient has {FINDINGS[code]}" for code in codes)
            writer.writerow(
                [f"N{number}", f"{words}, no evidence of the {draw.choice(['out', 'ruled', 'due'])}", ";".join(codes)]
            )


def test_from_a_csv_of_300_notes_to_codes_and_a_dry_run_in_a_fresh_environment(console, backbone, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for seed, (name, numbers) in enumerate(
        {"train": range(200), "validation": range(200, 250), "test": range(250, 300)}.items()
    ):
        write_notes(notes / f"{name}.csv", numbers, seed)
    model = tmp_path / "mine"
    tiny = ["--backbone", backbone, "--hidden_layer", 1, "--window_size", 32, "--window_stride", 24]
    steps = [
        ["describe", notes, "--dataset", "files", "--cache_dir", tmp_path / "cache"],
        [
            "train",
            "files_direct",
            "--data_dir",
            notes,
            "--output_dir",
            model,
            "--use_cpu",
            "true",
            "--disable_tqdm",
            "true",
            *tiny,
        ],
        ["evaluate", model, "--data_dir", notes],
        ["decide", model, "--data_dir", notes, "--threshold_rule", "per_code"],
        ["evaluate", model, "--test_file", notes / "test.csv"],
        ["predict", model, notes / "test.csv", "-o", tmp_path / "codes.parquet"],
        ["publish", model, "--repo_id", "owner/name", "--base_model", "owner/tiny", "--data_dir", notes, "--dry_run"],
    ]
    printed = []
    for step in steps:
        run = console(*step)
        assert run.returncode == 0, (step[0], run.stderr[-3000:])
        printed.append(run.stdout)
    assert "200" in printed[0] and "401.9" in printed[0]
    results = json.loads((model / "evaluation/test/results.json").read_text())
    assert (results["num_notes"], results["num_codes"], results["threshold_rule"]) == (50, 6, "per_code")
    assert results["metrics"]["f1_micro"] > 0.8  # each code is named by words of its own
    codes = pq.read_table(tmp_path / "codes.parquet").to_pydict()
    assert list(dict.fromkeys(codes["id"])) == [f"N{number}" for number in range(250, 300)]
    assert set(codes["code"]) - {None} <= set(FINDINGS)
    config = json.loads((model / "config.json").read_text())
    assert config["training_data"]["dataset"] == "files" and not config["training_data"].get("open")
    assert "trained on restricted data" in printed[-1] and "weights: no" in printed[-1]
    assert "Dry run: nothing was pushed." in printed[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_fits_a_screen_and_has_an_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    try:
        status = main([name, "--help"])
    except SystemExit as end:
        status = end.code
    assert not status
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: modeling-icd {name}")
    assert any(line.startswith(f"    modeling-icd {name} ") for line in lines)
    assert len(lines) <= SCREEN


def test_the_list_of_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in printed] == []
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: no command 'trian': choose from train, evaluate,")


def test_configurations_are_found_by_name_and_a_wrong_name_lists_them(console):
    run = console("train", "files_indirect")
    assert run.returncode == 2
    assert run.stderr == (
        "error: No configuration file files_indirect, and none of that name: choose from "
        f"{', '.join(sorted(path.stem for path in (Path(__file__).parents[1] / 'configs').glob('*.yaml')))}.\n"
    )
    run = console("train", "files_direct")
    assert (run.returncode, run.stderr) == (
        2,
        "error: `data_dir` is missing: --data_dir names the folder that holds the data set's files.\n",
    )


def test_every_option_of_train_is_listed_where_it_is_asked_for(capsys):
    assert main(["train", "--help_all"]) == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--gradient_checkpointing", "--head_start", "--data_cache_dir"))
