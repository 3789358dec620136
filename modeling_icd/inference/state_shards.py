"""The files in which hidden states are kept: shards of many notes each, which are whole or not there.

A shard holds the states of its notes one after the other, then one record a note (key, first token, tokens, CRC-32), then
a footer with a CRC-32 of the records. It is written under another name and renamed once it is complete: what a killed
process leaves is an unfinished file, which the next one removes. Finished shards are never changed.
"""

import contextlib
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np


SUFFIX, UNFINISHED = ".states", ".unfinished"
KEY_BYTES = 16
RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("start", "<i8"), ("length", "<i8"), ("checksum", "<u4")])
FOOTER = struct.Struct("<8sIIqq")  # magic word, CRC-32 of the records, bytes of a token, notes, tokens
MAGIC = b"ICDSTATE"


def checksum(key: bytes, states) -> int:
    """CRC-32 of a note's states and its key, so that the states of another note are not mistaken for its own."""
    return zlib.crc32(states, zlib.crc32(key))


def open_private(path: Path) -> IO[bytes]:
    """Open a new file to write that only its owner may read."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))


class Stamp(NamedTuple):
    """What changes of a file when it is written to."""

    size: int
    time: int
    number: int

    @classmethod
    def of(cls, file: Path | int) -> "Stamp":
        """The stamp of a file that has this path or is open under this number."""
        found = os.stat(file)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class DamagedShard(ValueError):
    """A shard whose bytes are not those that were written.

    Args:
        path (`Path`): its file.
        stamp (`Stamp`): of the file that was read, which another process may have removed since.
    """

    def __init__(self, path: Path, stamp: Stamp):
        super().__init__(path)
        self.stamp = stamp


class Shard:
    """A finished shard, read through a memory map.

    Args:
        path (`Path`): its file.
        token_bytes (`int`): bytes of the states of one token.

    Raises:
        DamagedShard: where the records or the size of the file are not those that were written.
        OSError: where it cannot be read.
    """

    def __init__(self, path: Path, token_bytes: int):
        self.path, self.token_bytes = path, token_bytes
        self.checked: Stamp | None = None  # of the file when all of it was last seen to be what was written
        self._map: mmap.mmap | None = None
        with open(path, "rb") as file:
            self.stamp = Stamp.of(file.fileno())  # of the file that was last read
            self.size = self.stamp.size
            file.seek(max(0, self.size - FOOTER.size))
            footer = file.read(FOOTER.size)
            if len(footer) < FOOTER.size:
                raise DamagedShard(path, self.stamp)
            magic, crc, of_token, notes, tokens = FOOTER.unpack(footer)
            size = tokens * of_token + notes * RECORD.itemsize + FOOTER.size
            if magic != MAGIC or of_token != token_bytes or size != self.size or min(notes, tokens) < 0:
                raise DamagedShard(path, self.stamp)
            file.seek(tokens * of_token)
            content = file.read(notes * RECORD.itemsize)
        if zlib.crc32(footer[12:], zlib.crc32(content)) != crc:
            raise DamagedShard(path, self.stamp)
        self.records = np.frombuffer(content, RECORD)

    def keys(self) -> Iterator[bytes]:
        """The keys of its notes, in the order of `records`."""
        keys = self.records["key"].tobytes()
        return (keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))

    def is_whole(self) -> bool:
        """Whether every note's bytes are those that were written; compared anew where the file has changed since the last
        time."""
        try:
            if Stamp.of(self.path) == self.checked:
                return True
            with open(self.path, "rb") as file:
                self.stamp = Stamp.of(file.fileno())
                if self.stamp.size != self.size:
                    return False
                for key, (_, start, length, crc) in zip(self.keys(), self.records.tolist(), strict=True):
                    file.seek(start * self.token_bytes)
                    if checksum(key, file.read(length * self.token_bytes)) != crc:
                        return False
        except OSError:
            return False
        self.checked = self.stamp
        return True

    def states_of(self, row: int) -> memoryview:
        """The bytes of one note's states, within the memory map.

        Only a file that [`is_whole`] may be read so: of one that was cut short the system would end the process.
        """
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start, length = int(self.records["start"][row]), int(self.records["length"][row])
        return memoryview(self._map)[start * self.token_bytes : (start + length) * self.token_bytes]

    def close(self) -> None:
        """Give the memory map back; it is made again when it is needed."""
        self._map = None


class ShardWriter:
    """Writes one shard note by note.

    Args:
        path (`Path`): what it is called once it is finished.
        token_bytes (`int`): bytes of the states of one token.
    """

    def __init__(self, path: Path, token_bytes: int):
        self.path, self.token_bytes = path, token_bytes
        self.partial = path.with_suffix(UNFINISHED)
        self.records: list[tuple[bytes, int, int, int]] = []
        self.tokens = 0
        self.file = open_private(self.partial)

    @property
    def is_open(self) -> bool:
        """Whether it has been neither finished nor abandoned."""
        return not self.file.closed

    @property
    def size(self) -> int:
        """Bytes of the states that were added."""
        return self.tokens * self.token_bytes

    def add(self, key: bytes, length: int, states) -> None:
        """Write the states of a note, `length` tokens."""
        self.file.write(states)
        self.records.append((key, self.tokens, length, checksum(key, states)))
        self.tokens += length

    def add_all(self, notes: Iterable[tuple[bytes, int]], states) -> None:
        """Write the states of several notes, key and tokens of each, that lie one after the other in `states`."""
        start = 0
        for key, length in notes:
            end = start + length * self.token_bytes
            self.add(key, length, states[start:end])
            start = end

    def finish(self) -> Path | None:
        """Make it a shard that can be read, of all notes that were added; of none, none.

        Raises:
            OSError: where it cannot be written; nothing is left of it.
        """
        if not self.records:
            self.abandon()
            return None
        try:
            self._end()
        except OSError:
            self.abandon()
            raise
        os.replace(self.partial, self.path)
        return self.path

    def _end(self) -> None:
        with self.file as file:
            file.seek(self.size)
            file.truncate()  # what an error left of a note
            content = np.array(self.records, RECORD).tobytes()
            rest = struct.pack("<Iqq", self.token_bytes, len(self.records), self.tokens)
            crc = zlib.crc32(rest, zlib.crc32(content))
            file.write(content + MAGIC + struct.pack("<I", crc) + rest)
            file.flush()
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Remove it."""
        self.partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # of what could not be written
            self.file.close()


def new_shard(folder: Path, process: int) -> Path:
    """The name of the next shard of a process; of those there, its unfinished ones are removed.

    One process at a time may use a number, so that no other one is writing to them. No name is given twice, not even that of a
    shard that was removed: who still knows the old one must not mistake the new one for it.
    """
    for left in folder.glob(f"{process}-*{UNFINISHED}"):
        left.unlink(missing_ok=True)
    numbers = [int(path.stem.split("-")[1]) for path in folder.glob(f"{process}-*{SUFFIX}")]
    return folder / f"{process}-{max(numbers, default=-1) + 1:06d}-{secrets.token_hex(4)}{SUFFIX}"
