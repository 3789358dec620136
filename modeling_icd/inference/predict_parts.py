"""Keeps what is coded so far, chunk by chunk, so that a run which is killed goes on where it was.

A folder beside the output, its owner's alone, holds a manifest, which says what run it belongs to, and a file for each
finished chunk. Such a file appears whole or not at all. It has a line of JSON for each row, in their order: `{"row", "id",
"codes"}` of a note, `{"row", "id", "reason"}` of a row that cannot be coded; and a last line with the number of the chunk
and a digest of the lines before it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from dataset_scripts.files import make_folder, read_json, remove_abandoned, whole_file, write_json


MANIFEST, LOCK = "manifest.json", "lock"
# What the fields of a manifest are called in a message.
FIELDS = {
    "version": "the version of modeling-icd",
    "model": "the model",
    "weights": "the model's files",
    "notes": "the file of notes",
    "files": "the size or time of the notes",
    "text_columns": "--text_column",
    "id_column": "--id_column",
    "chunk_rows": "--chunk_rows",
}


class Part(NamedTuple):
    """What a finished chunk holds."""

    rows: int
    notes: int


class Parts:
    """The finished chunks of a run.

    Args:
        folder (`Path`): where they are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @contextmanager
    def opened(self, manifest: Mapping[str, Any], start_again: bool) -> Iterator[bool]:
        """The folder, for this process alone; whether it holds parts of this run already.

        Args:
            manifest (`Mapping[str, Any]`): what the results depend on.
            start_again (`bool`): whether parts of another run are thrown away.

        Raises:
            ValueError: where the folder holds parts of another run, or another process is at work in it.
        """
        make_folder(self.folder, private=True, ours=True)
        lock = FileLock(self.folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(f"Another process is at work in {self.folder}: wait until it has ended.") from None
        try:
            yield self._start(json.loads(json.dumps(manifest)), start_again)
        finally:
            lock.release()

    def _start(self, manifest: dict[str, Any], start_again: bool) -> bool:
        path = self.folder / MANIFEST
        if path.is_file():
            earlier = read_json(path, "run the same command with --overwrite.")
            differing = [name for name in manifest if manifest[name] != earlier.get(name)]
            if not differing:
                return True
            if not start_again:
                raise ValueError(
                    f"{self.folder} holds a part of the results of another run, which differs in "
                    f"{', '.join(FIELDS.get(name, f'--{name}') for name in differing)}. Run the command as it was then to go on, "
                    "or with --overwrite to start again."
                )
        for part in self.folder.glob("part-*.jsonl"):
            part.unlink()
        write_json(manifest, path, private=True)
        return False

    def remove(self) -> None:
        """Remove the folder, the manifest first: while that is there, all that was finished is."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:08}.jsonl"

    def write(self, number: int, lines: Iterable[Mapping[str, Any]]) -> Part:
        """Write the file of a chunk."""
        if not self.folder.is_dir():
            raise ValueError(
                f"{self.folder} was removed while this run was at work in it: run the same command again."
            )
        digest, rows, notes = hashlib.sha256(), 0, 0
        with whole_file(self.path(number), private=True) as file:
            for line in lines:
                text = json.dumps(line) + "\n"
                digest.update(text.encode())
                rows, notes = rows + 1, notes + ("codes" in line)
                file.write(text)
            end = {"chunk": number, "rows": rows, "notes": notes, "sha256": digest.hexdigest()}
            file.write(json.dumps(end) + "\n")
        return Part(rows, notes)

    def check(self, number: int) -> Part | None:
        """What a finished chunk holds; `None` if it is not finished, or its file is damaged."""
        path = self.path(number)
        remove_abandoned(path)
        if not path.is_file():
            return None
        digest, last = hashlib.sha256(), b""
        with path.open("rb") as file:
            for line in file:
                digest.update(last)
                last = line
        try:
            end = json.loads(last)
            is_whole = end["chunk"] == number and end["sha256"] == digest.hexdigest()
            return Part(end["rows"], end["notes"]) if is_whole else None
        except (ValueError, TypeError, KeyError):
            return None

    def lines(self, number: int) -> Iterator[dict[str, Any]]:
        """The lines of a finished chunk but for its last."""
        with self.path(number).open(encoding="utf-8") as file:
            for line in file:
                content = json.loads(line)
                if "sha256" not in content:
                    yield content
