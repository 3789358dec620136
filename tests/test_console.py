"""The command `modeling-icd`, as `pip install` brings it: its help and its messages. tests/test_readme.py runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from dataset_scripts.console import COMMANDS, main
from modeling_icd.versions_icd import VERSION


ROOT = Path(__file__).parents[1]
SCREEN = 48  # lines, of 100 characters


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


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"modeling-icd {VERSION}\n"


def test_the_list_of_commands_and_the_data_commands_do_without_torch(corpus, tmp_path):
    """They print before torch could be read, which takes seconds."""
    data = [f"--data_dir={corpus}", f"--cache_dir={tmp_path / 'cache'}"]
    written = ["synthetic", f"--output_dir={tmp_path / 'corpus'}", "--num_admissions=20", "--length=short"]
    given = [["--help"], ["--version"], ["build", *data], ["describe", *data], ["verify", *data], written]
    code = (
        "import sys; from dataset_scripts.console import main; "
        f"print([main(arguments) for arguments in {given!r}]); "
        "print({'torch', 'transformers', 'modeling_icd'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    *_, statuses, loaded = run.stdout.splitlines()
    assert (statuses, loaded) == ("[0, 0, 0, 0, 1, 0]", "set()")  # `verify` finds that this is not MIMIC-III


def test_every_option_of_train_is_listed_where_it_is_asked_for(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help_all"])
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--gradient_checkpointing", "--head_start", "--data_cache_dir"))


def test_a_mistake_in_the_options_of_train_is_one_message(capsys):
    assert main(["train"]) == 2
    assert "Give a configuration: `modeling-icd train files_direct" in capsys.readouterr().err
    assert main(["train", "files_direct", "--data_dir", "x", "--code_system", "icd9cm"]) == 2
    said = capsys.readouterr().err
    assert "no option --code_system" in said and "`--dataset_options NAME=VALUE`" in said and "icd9cm" not in said


def test_a_mistyped_path_is_not_asked_for_at_the_hub(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    (tmp_path / "runs/ward7").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, message in (
        ("runs/nothere", "is not a folder: is the path right?"),
        ("runs/ward7", "has no config.json"),
    ):
        assert main(["evaluate", name, "--data_dir", "x"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {name} {message}")
