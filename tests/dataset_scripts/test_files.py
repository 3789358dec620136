"""Files are written whole or not at all, and private ones are their owner's alone."""

import csv
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from dataset_scripts.files import (
    check_writable,
    make_folder,
    read_json,
    sweep_folder,
    whole_file,
    whole_folder,
    write_csv,
    write_json,
    write_text,
)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_write_leaves_what_was_there(tmp_path, error):
    write_text("before", tmp_path / "a.txt")
    with pytest.raises(type(error)), whole_file(tmp_path / "a.txt") as file:
        file.write("after")
        raise error
    with pytest.raises(type(error)), whole_folder(tmp_path / "folder") as folder:
        (folder / "b.txt").write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_an_error_of_the_system_names_what_was_to_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError) as beneath, whole_file(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(IsADirectoryError) as replaced, whole_file(tmp_path / "folder") as file:
        file.write("a")
    with pytest.raises(OSError) as full, whole_file(tmp_path / "b.txt"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError) as inside, whole_folder(tmp_path / "c") as folder:
        (folder / "none" / "d.txt").write_text("")
    named = [error.value.filename for error in (beneath, replaced, full, inside)]
    assert [str(name) for name in named] == [str(tmp_path / name) for name in ("file", "folder", "b.txt", "c")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    ("name", "is_folder", "error"),
    [
        ("new.csv", False, None),
        ("new/er/new.csv", False, None),
        ("file", False, None),
        ("folder", True, None),
        ("new/folder", True, None),
        ("folder", False, IsADirectoryError),
        ("file", True, FileExistsError),
        ("file/below.csv", False, NotADirectoryError),
        ("file/below/folder", True, NotADirectoryError),
    ],
)
def test_what_cannot_be_written_is_known_before(name, is_folder, error, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    if error is None:
        check_writable(tmp_path / name, is_folder=is_folder)
        # Root may write everywhere, so that no folder can be closed to whoever runs the tests.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        error = PermissionError
    with pytest.raises(error) as refused:
        check_writable(tmp_path / name, is_folder=is_folder)
    assert refused.value.filename == str(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


WRITE_AND_WAIT = """
import sys, time
from dataset_scripts.files import whole_file, whole_folder
with whole_folder(sys.argv[1] + "/folder"), whole_file(sys.argv[1] + "/a.txt") as file:
    file.write("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_gone_after_the_next_write(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2  # nobody can clean up after itself when killed in this way
    write_text("whole", tmp_path / "a.txt")
    with whole_folder(tmp_path / "folder"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_one_sweep_clears_a_folder_and_a_name_is_no_pattern(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    abandoned = tmp_path / f".a[1].txt.{socket.gethostname()}-{process.pid}.tmp"
    abandoned.touch()
    with whole_file(tmp_path / "a[1].txt", sweep=False):
        pass
    assert len(list(tmp_path.iterdir())) == 4  # that file and the three of the killed process
    write_text("whole", tmp_path / "[ab].txt")
    write_text("whole", tmp_path / "a[1].txt")
    assert len(list(tmp_path.iterdir())) == 4 and not abandoned.exists()
    sweep_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["[ab].txt", "a[1].txt"]


def test_the_partial_file_of_a_living_process_stays(tmp_path):
    with whole_file(tmp_path / "a.txt") as file:
        file.write("first")
        with subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"writing\n"
            time.sleep(0.1)
            other.kill()
    assert (tmp_path / "a.txt").read_text() == "first"


def test_private_files_and_folders_are_their_owners_alone(tmp_path):
    old = os.umask(0o022)
    try:
        private = write_text("x", tmp_path / "model-private" / "deep" / "a.txt", private=True)
        public = write_json({}, tmp_path / "model" / "a.json")
    finally:
        os.umask(old)
    assert permissions(private) == 0o600
    assert permissions(tmp_path / "model-private") == permissions(tmp_path / "model-private" / "deep") == 0o700
    assert (permissions(public), permissions(public.parent)) == (0o644, 0o755)
    (tmp_path / "old-private").mkdir(mode=0o755)
    assert permissions(make_folder(tmp_path / "old-private")) == 0o700


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    cells = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "-1.5", "a=b", 3]
    path = write_csv([{"cell": cell} for cell in cells], ["cell"], tmp_path / "a.csv")
    with path.open(newline="") as file:
        read = [row["cell"] for row in csv.DictReader(file)]
    assert read == ["'=1+1", "'+cmd", "'-2+3", "'@SUM(A1)", "'\tx", "-1.5", "a=b", "3"]


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_what_is_no_json_object_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json is not .*: do this"):
        read_json(tmp_path / "a.json", "do this")
    with pytest.raises(FileNotFoundError, match="do this"):
        read_json(tmp_path / "b.json", "do this")
