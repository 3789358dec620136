"""Checks the arguments of a corpus, and writes its folder: all files or none, and never over real tables."""

import gzip
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..marker import MARKER_FILE
from .content import read_content
from .notes import LENGTHS


CORPUS_VERSION = "1.0"
PARTIAL_FOLDER = ".synthetic-partial"


def check_arguments(num_admissions: int, seed: int, length: str, **rates: float) -> None:
    """Check the arguments that every corpus has, and what it is to say, before anything is written."""
    if num_admissions < 1:
        raise ValueError(f"`num_admissions` ({num_admissions}) must be at least 1.")
    if seed < 0:
        raise ValueError(f"`seed` ({seed}) must not be negative.")
    if length not in LENGTHS:
        raise ValueError(f"`length` ({length!r}) must be one of {', '.join(LENGTHS)}.")
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"`{name}` ({rate}) must be between 0 and 1.")
    read_content()


@contextmanager
def complete_folder(output_dir: Path, files: Sequence[str], folders: Sequence[str] = ()) -> Iterator[Path]:
    """Open a folder to write some files into, which appear in `output_dir` only when all are complete.

    The marker must be named first: a folder with our tables is never without it. Folders that may be written besides are
    replaced as a whole, and removed where they are not written.
    """
    _refuse_foreign_tables(output_dir, files)
    output_dir.mkdir(parents=True, exist_ok=True)
    partial = output_dir / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for name in files:
            (output_dir / name).parent.mkdir(exist_ok=True)
            os.replace(partial / name, output_dir / name)
        for name in folders:
            shutil.rmtree(output_dir / name, ignore_errors=True)
            if (partial / name).is_dir():
                os.replace(partial / name, output_dir / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_foreign_tables(output_dir: Path, files: Sequence[str]) -> None:
    """Keep real MIMIC, and split lists made for it, from being overwritten."""
    if output_dir.exists() and not output_dir.is_dir():
        raise NotADirectoryError(f"`output_dir` ({output_dir}) is a file; give a folder.")
    if not output_dir.exists() or (output_dir / MARKER_FILE).exists():
        return
    ours = {Path(name).name.lower().removesuffix(".gz") for name in files}
    folders = {output_dir, *(output_dir / Path(name).parent for name in files)}
    inside = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    found = sorted(path.name for path in inside if path.name.lower().removesuffix(".gz") in ours)
    if found:
        raise FileExistsError(
            f"`output_dir` ({output_dir}) holds {found[0]} but no {MARKER_FILE} file, so it looks like real MIMIC. "
            "Nothing was written; give another folder."
        )


@contextmanager
def open_gzip(path: Path) -> Iterator[IO[str]]:
    """Open a gzip file for text, whose bytes depend on nothing but the text and the name."""
    name = path.name.removesuffix(".gz")
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename=name, mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        yield text
