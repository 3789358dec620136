"""README.md: its Python blocks run as they stand, one after another, and it stays short."""

import re
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
