"""What ends a command early is one message and an exit status: a mistake, a full disk, Ctrl-C, a signal."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from dataset_scripts.command import run_command
from dataset_scripts.files import whole_file


class OwnError(Exception):
    pass


def failing(error):
    def command():
        raise error

    return command


def test_a_command_that_works_gives_its_own_status():
    assert run_command(lambda: 0) == 0
    assert run_command(lambda: 1) == 1


def wrapped(cause):
    error = OwnError("An error occurred while generating the dataset")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (ValueError("No such split."), "error: No such split.\n", 2),
        (OwnError("Not pushed."), "error: Not pushed.\n", 2),
        (wrapped(ValueError("No such column.")), "error: No such column.\n", 2),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), "error: the disk is full. ", 2),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "error: the disk is full (/a/b). ", 2),
        (KeyboardInterrupt(), "error: interrupted. ", 130),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "error: /a/b: you have no permission for it. ",
            2,
        ),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "/a/b"),
            "error: /a/b: it is a folder, where a file is ",
            2,
        ),
        (OSError(errno.EROFS, "Read-only", "/a/b"), "error: /a/b: it lies on a disk that can only be read. ", 2),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/a/b"),
            "error: /a/b: it does not exist. Is the path right?",
            2,
        ),
        (OSError(errno.EIO, "Input/output error", "/a/b"), "error: /a/b: Input/output error.\n", 2),
        (FileNotFoundError("No run.json in /a."), "error: No run.json in /a.\n", 2),
    ],
)
def test_what_ends_a_command_is_one_line(error, message, status, capsys):
    assert run_command(failing(error), OwnError) == status
    written = capsys.readouterr().err
    assert written.startswith(message) and written.count("\n") == 1


def test_other_errors_are_faults_of_the_program_and_stay_visible():
    with pytest.raises(OwnError):
        run_command(failing(OwnError()))


def test_a_signal_removes_what_is_half_written_and_leaves_what_was_there(tmp_path, capsys):
    (tmp_path / "figures.json").write_text("before")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        handler = signal.getsignal(number)

        def write(number=number):
            with whole_file(tmp_path / "figures.json") as file:
                file.write("after")
                os.kill(os.getpid(), number)
                time.sleep(10)
            return 0

        assert run_command(write) == 128 + number
        assert "What was there before is as it was" in capsys.readouterr().err
        assert signal.getsignal(number) is handler
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert (tmp_path / "figures.json").read_text() == "before"


def test_a_reader_that_stops_early_is_no_error():
    program = "import sys; from dataset_scripts.command import run_command\n"
    program += "sys.exit(run_command(lambda: print('line\\n' * 100_000, flush=True) or 0))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 128 + signal.SIGPIPE)
