"""Writes files and folders completely or not at all, and makes private those that only their owner may read.

If a write ends early, for example on a full disk, what was there before it stays. `modeling_icd` uses these functions,
too.
"""

import csv
import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


# A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def whole_file(
    path: str | Path, mode: str = "w", *, private: bool = False, sweep: bool = True, **options: Any
) -> Iterator[IO]:
    """Open a file to write, which appears under its name only when the block has ended without an error.

    Args:
        path (`str` or `Path`): Where it is to be; its folder is made where it is missing.
        mode (`str`): `"w"` or `"wb"`.
        private (`bool`): Whether its owner alone may read it, and its folder where that is made (0600 and 0700).
        sweep (`bool`): Whether what killed processes left of writing this file is removed first, for which its folder
            is listed. Who writes many files into one folder says no, and calls [`sweep_folder`] once.
        options: Those of `open`; text is UTF-8 unless they say otherwise.

    Raises:
        OSError: where it cannot be written, e.g. on a full disk; it names the file, and what was there before is left as
            it is.
    """
    path = Path(path)
    make_folder(path.parent, private=private)
    if sweep:
        remove_abandoned(path)
    partial = _partial(path)
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with _errors_name(path, partial):
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666)
            with open(descriptor, mode, **options) as file:
                yield file
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """A new folder to write into, which appears under its name, in place of what was there, when the block has ended.

    Args:
        path (`str` or `Path`): Where it is to be. What stands there is removed once the new one is complete.
        private (`bool`): Whether its owner alone may open it (0700).
    """
    path = Path(path)
    make_folder(path.parent)
    remove_abandoned(path)
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _errors_name(path, partial):
            partial.mkdir(mode=0o700 if private else 0o777)
            yield partial
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _errors_name(path: Path, partial: Path) -> Iterator[None]:
    """Let errors of the system name what is to be written, and not the place where it lies until it is complete."""
    try:
        yield
    except OSError as error:
        place = None if error.filename is None else Path(os.fsdecode(error.filename))
        if error.errno is not None and (place is None or place.is_relative_to(partial)):
            error.filename, error.filename2 = str(path), None
        raise


def check_writable(path: str | Path, *, is_folder: bool = False) -> None:
    """See that a file, or files in a folder, can be written, so that what stands against it shows before hours of work.

    Args:
        path (`str` or `Path`): What is to be written; neither it nor its folder need be there.
        is_folder (`bool`): Whether it is a folder.

    Raises:
        OSError: where something else is there, or its place is not the user's to write to; it has the number that the
            system would give, and the path.
    """
    path = Path(path)
    if path.exists() and path.is_dir() != is_folder:
        raise _system_error(errno.EEXIST if is_folder else errno.EISDIR, path)
    place = next(above for above in (path if is_folder else path.parent, *path.absolute().parents) if above.exists())
    if not place.is_dir():
        raise _system_error(errno.ENOTDIR, path)
    if not os.access(place, os.W_OK | os.X_OK):
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        raise _system_error(errno.EROFS if is_read_only else errno.EACCES, path)


def _system_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed left of writing `path`."""
    sweep_folder(path.parent, glob.escape(path.name))


def sweep_folder(folder: Path, names: str = "*") -> None:
    """Remove what processes of this machine that were killed left of writing into a folder.

    Args:
        folder (`Path`): It is listed once.
        names (`str`): A pattern of the names that the files were to have.
    """
    for partial in folder.glob(f".{names}.{socket.gethostname()}-*.tmp"):
        pid = partial.name.removesuffix(".tmp").rpartition("-")[2]
        with suppress(PermissionError, FileNotFoundError):  # another user's process is alive, or someone was faster
            if not pid.isdigit() or is_running(int(pid)):
                continue
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink()


def is_running(pid: int) -> bool:
    """Whether a process of this machine is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def make_folder(path: str | Path, *, private: bool = False, ours: bool = False) -> Path:
    """Make a folder and those above it. A private one, and one named `*-private`, is its owner's alone (0700).

    A folder that is there keeps its permissions, but for one named `*-private`, which this project made, and for the
    private one itself if `ours` says that nothing but this project makes it.
    """
    path = Path(path)
    for folder in reversed([path, *path.parents]):
        is_ours = folder.name.endswith("-private") or (private and ours and folder == path)
        if not folder.is_dir():
            folder.mkdir(mode=0o700 if is_ours or (private and folder == path) else 0o777, exist_ok=True)
        elif is_ours:
            with suppress(PermissionError):  # another user's, who decides
                folder.chmod(0o700)
    return path


def close_folder(path: str | Path) -> None:
    """Make a folder and everything in it its owner's alone (folders 0700, files 0600)."""
    for folder, _, names in os.walk(path):
        with suppress(PermissionError):  # another user's, who decides
            os.chmod(folder, 0o700)
            for name in names:
                os.chmod(Path(folder, name), 0o600)


def write_text(text: str, path: str | Path, *, private: bool = False) -> Path:
    """Write a text file, whole or not at all; see [`whole_file`]."""
    with whole_file(path, private=private) as file:
        file.write(text)
    return Path(path)


def write_json(content: Any, path: str | Path, *, private: bool = False) -> Path:
    """Write a JSON file, whole or not at all. NaN and infinity, which JSON lacks, are a `ValueError`."""
    return write_text(json.dumps(content, indent=2, allow_nan=False), path, private=private)


def write_csv(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: str | Path, *, private: bool = False
) -> Path:
    """Write a csv file, whole or not at all, whose cells no spreadsheet takes for formulas; see [`safe_cell`]."""
    with whole_file(path, private=private, newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: safe_cell(value) for name, value in row.items()} for row in rows)
    return Path(path)


def safe_cell(value: Any) -> Any:
    """A cell that a spreadsheet shows as text: one that would be a formula gets an apostrophe in front.

    A negative number stays a number.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS):
        return value
    with suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file; `remedy` says what to do where there is none.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not JSON, or not an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No {path.name} in {path.parent}: {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object: {remedy}")
    return content
