"""README.md: its Python blocks run as they stand, one after another, and it stays short."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What a user puts in place of the paths that the README only hints at.
PLACES = ("path/to/any/llama", "path/to/files", "path/to/private/cache", "runs/mine", "max_steps=100", "my-coder")


def test_it_can_be_read_in_one_go():
    assert README.count("\n") <= 150


def test_every_file_it_names_is_there():
    linked = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)
    named = re.findall(r"`((?:configs|docs|dataset_scripts|modeling_icd|benchmarks)/[\w./]+\.\w+)`", README)
    assert linked
    assert [path for path in [*linked, *named] if not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def blocks():
    found = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 3
    return found


def test_its_python_runs_as_it_stands(blocks, backbone, corpus, tmp_path):
    code = "\n".join(blocks)
    values = (backbone, str(corpus), str(tmp_path / "cache"), str(tmp_path / "mine"), "max_steps=1", "my-coder")
    for place, value in zip(PLACES, values, strict=True):
        assert place in code
        code = code.replace(place, value)
    # The small test backbone reads 64 tokens at most; the README's windows are those of a real one.
    code = code.replace("window_size=1024", "window_size=32")
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(len(scores), 'scores')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.endswith("3 scores\n")


COMMANDS = [
    line.strip().split("#")[0].split()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("    .venv/bin/python ")
]


def help_of(command, monkeypatch, capsys):
    """What a command of the README prints with `--help`: of a script of the project's root, or of a module."""
    words = command[1:]
    target = [words[1]] if words[0] == "-m" else [str(ROOT / words[0])]
    rest = words[2:] if words[0] == "-m" else words[1:]
    if rest and re.fullmatch(r"build|describe|verify|dataset", rest[0]):
        target.append(rest[0])
    monkeypatch.setattr(sys, "argv", [target[0], *target[1:], "--help"])
    with pytest.raises(SystemExit) as end:
        if words[0] == "-m":
            runpy.run_module(target[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(target[0], run_name="__main__")
    assert not end.value.code
    return capsys.readouterr().out


def test_there_are_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_there_and_knows_the_options_that_it_is_given(command, monkeypatch, capsys):
    printed = help_of(command, monkeypatch, capsys)
    assert [word for word in command if word.startswith("--") and word not in printed] == []
