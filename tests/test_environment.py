"""The suite says the same on any machine: whatever the environment, the locale, the time zone or the place of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
HOSTILE = {
    "COLUMNS": "20",
    "FORCE_COLOR": "1",
    "HF_DATASETS_CACHE": "/nowhere",
    "HF_ENDPOINT": "http://127.0.0.1:1",
    "HF_HUB_OFFLINE": "1",
    "HOME": "/home/fever",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONPATH": "/nowhere",
    "PYTHONUTF8": "0",
    "TZ": "Asia/Kolkata",
    "USER": "fever",
    "http_proxy": "http://127.0.0.1:1",
}
# Of a server, the width of lines, text that is not ASCII.
TESTS = [
    "test_mimic3.py::test_lists_are_downloaded_once",
    "test_commands.py::test_build",
    "test_codiesp.py::test_records_by_hand",
]


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files of the project in a path with a space."""
    folder = tmp_path / "a check out"
    for name in ("dataset_scripts", "modeling_icd", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Makefile", "model_card.md", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_no_setting_of_the_user_changes_a_test_and_nothing_is_written_into_the_checkout(checkout):
    files = sorted(checkout.rglob("*"))
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-n", "0"]
    command += [f"tests/dataset_scripts/{name}" for name in TESTS]
    environment = {"PATH": os.environ["PATH"], **HOSTILE}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True)
    assert run.returncode == 0, run.stdout.decode("utf-8", "replace")[-3000:]
    assert sorted(checkout.rglob("*")) == files


def test_a_test_finds_an_environment_of_its_own():
    assert {"USER", "HTTP_PROXY", "HF_HOME", "XDG_CACHE_HOME", "PYTHONPATH"}.isdisjoint(os.environ)
    assert Path.home().name.startswith("home-of-tests-")
