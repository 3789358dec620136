"""A cache on disk for hidden states of a frozen backbone: computed once per note, read in every later epoch and run.

Hidden states can be turned back into the notes, so they are as confidential as the notes: they are written only where the
user says, and only their owner may read them.
"""

import contextlib
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import get_worker_info
from tqdm.auto import tqdm

from dataset_scripts.files import make_folder

from ..modeling_icd import LlamaICDPreTrainedModel
from .batches import batches_by_length, padded_inputs
from .linear import fast_linear_layers


# Tokens of one padded batch through the backbone: large enough to keep two cores or a GPU busy.
TOKENS_PER_BATCH = 4096


class Entry(NamedTuple):
    """One line of an index: where the states of a note lie.

    Args:
        key (`str`): see [`note_key`].
        start (`int`): number of the first token in the file of vectors.
        length (`int`): tokens of the note.
        checksum (`int`): see [`checksum`].
    """

    key: str
    start: int
    length: int
    checksum: int


def note_key(input_ids: Iterable[int]) -> str:
    """The key of a note, made from its tokens, so that every split, fold and run finds the same states."""
    return hashlib.sha256(np.asarray(input_ids, dtype=np.int64).tobytes()).hexdigest()[:32]


def checksum(key: str, states: bytes) -> int:
    """CRC-32 of a note's states and its key, so that the states of another note are not mistaken for its own."""
    return zlib.crc32(states, zlib.crc32(key.encode()))


def backbone_fingerprint(model: LlamaICDPreTrainedModel) -> str:
    """A digest that changes with every weight of the backbone and every setting on which its hidden states depend."""
    config = model.config
    digest = hashlib.sha256()
    settings = [config.window_size, config.window_stride, config.hidden_layer, config.normalize_hidden_states]
    if config._attn_implementation != "sdpa":  # the default, with which the name stays what it always was
        settings.append(config._attn_implementation)
    digest.update(json.dumps([settings, config.backbone_settings, str(model.dtype)], sort_keys=True).encode())
    for name, weight in sorted(model.model.state_dict().items()):  # of a quantised one with the scales of its weights
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class HiddenStates:
    """A cache on disk of one backbone's hidden states.

    Each process of a run appends to a pair of files of its own: the vectors, and an index with one line a note, written
    after its vectors. So an interruption loses at most one batch, and two processes never write to one file. All states that
    are read are checked against the length and the checksum in the index; those that do not match are computed again.

    Args:
        folder (`Path`): where the stores lie; each backbone and setting has its own subfolder.
        model (`LlamaICDPreTrainedModel`): gives the states; only its frozen backbone is used.
        dtype (`str`): `"float16"` or `"float32"` on disk.
    """

    def __init__(self, folder: Path, model: LlamaICDPreTrainedModel, dtype: str = "float16"):
        folder = make_folder(folder, private=True)
        self.folder = make_folder(folder / f"{backbone_fingerprint(model)}-{dtype}", private=True)
        self.model = model
        self.dtype = np.dtype(dtype)
        self.width = model.config.hidden_size
        self.reload()

    @property
    def _token_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def reload(self) -> None:
        """Read every index again: other processes may have added notes."""
        self._entries: dict[str, list[tuple[Path, Entry]]] = {}
        (self.folder / "index.json").unlink(missing_ok=True)  # of an earlier version, which kept no checksums
        for index in sorted(self.folder.glob("index*.jsonl")):
            for entry in read_index(index):
                self._entries.setdefault(entry.key, []).append((vectors_file(index), entry))

    def fill(self, notes: Iterable[list[int]], process: int = 0, num_processes: int = 1) -> int:
        """Computes the states that are missing or damaged; returns the number of these notes.

        An interrupted run goes on where it stopped. Several processes of one run compute a share each; when all have
        ended, each calls [`reload`].

        Args:
            notes: the `input_ids` of each.
            process (`int`): which share to compute, from 0.
            num_processes (`int`): how many shares there are.

        Raises:
            ValueError: where states are NaN or infinite, or do not fit `float16`; they are not stored.
            OSError: where they cannot be written, e.g. on a full disk; what was written before stays.
        """
        index = self.folder / (f"index-{process}.jsonl" if process else "index.jsonl")
        with FileLock(index.with_suffix(".lock"), mode=0o600):
            self.reload()
            missing: list[tuple[str, int, list[int]]] = []
            seen: set[str] = set()
            for position, ids in enumerate(notes):
                key = note_key(ids)
                if key in seen or int(key[:8], 16) % num_processes != process:
                    continue
                seen.add(key)
                if self._stored(key, len(ids)) is None:
                    missing.append((key, position, ids))
            damaged = [position for key, position, _ in missing if key in self._entries]
            if damaged:
                print(
                    f"warning: the hidden states of {len(damaged)} notes in {self.folder} are damaged (their length or "
                    f"checksum is wrong), of the notes asked for those at {damaged[:5]}{'...' if damaged[5:] else ''}: they "
                    "are computed again.",
                    file=sys.stderr,
                )
            if missing:
                self._append(missing, index, show_progress=process == 0)
        return len(missing)

    def _append(self, notes: list[tuple[str, int, list[int]]], index: Path, show_progress: bool) -> None:
        self.model.model.eval()
        vectors = vectors_file(index)
        size = vectors.stat().st_size // self._token_bytes if vectors.is_file() else 0
        ends = [entry.start + entry.length for entry in read_index(index, quiet=True)]
        end = max((end for end in ends if end <= size), default=0)
        try:
            with (
                open_private(vectors) as vectors_out,
                open_private(index) as index_out,
                tqdm(total=len(notes), desc="Hidden states", unit="note", disable=not show_progress) as progress,
            ):
                if index_out.tell() and not ends_with_newline(index):
                    index_out.write(b"\n")  # the last line was cut short
                # What an interrupted run wrote behind the last note of its index.
                vectors_out.truncate(end * self._token_bytes)
                for rows in batches_by_length([len(ids) for _, _, ids in notes], max_tokens=TOKENS_PER_BATCH):
                    batch = [notes[row] for row in rows]
                    entries = []
                    for (key, _, ids), states in zip(batch, self._compute(batch), strict=True):
                        content = states.tobytes()
                        vectors_out.write(content)
                        entries.append(Entry(key, end, len(ids), checksum(key, content)))
                        end += len(ids)
                    vectors_out.flush()
                    index_out.write("".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
                    index_out.flush()
                    for entry in entries:
                        self._entries.setdefault(entry.key, []).append((vectors, entry))
                    progress.update(len(batch))
        except OSError as error:
            raise OSError(
                f"Hidden states cannot be written to {self.folder} ({error.strerror or error}). Those written before are "
                "complete: make room, or name another folder with `hidden_states_dir`, and start again."
            ) from None

    @torch.no_grad()
    def _compute(self, notes: list[tuple[str, int, list[int]]]) -> list[np.ndarray]:
        """States of notes (key, position, `input_ids`), in the form in which they are written to disk."""
        inputs = padded_inputs([ids for _, _, ids in notes])
        inputs = {name: values.to(self.model.device) for name, values in inputs.items()}
        with fast_linear_layers(self.model.device):
            rows = self.model.read_hidden_states(**inputs).float().cpu().numpy()
        states = []
        for (_, position, ids), row in zip(notes, rows, strict=True):
            found = row[: len(ids)]
            if not np.isfinite(found).all():
                raise ValueError(
                    f"The backbone gives hidden states that are NaN or infinite, first seen in note {position} (from 0, in "
                    "the order of training notes, then validation notes): are its weights whole? In float16 or bfloat16 "
                    "load it in float32, or read a lower `hidden_layer`."
                )
            if np.abs(found).max() > np.finfo(self.dtype).max:
                raise ValueError(
                    f"Hidden states exceed the range of {self.dtype}: use `hidden_states_dtype: float32`, or "
                    "`normalize_hidden_states: true`."
                )
            states.append(found.astype(self.dtype))
        return states

    def read(self, input_ids: list[int]) -> torch.Tensor:
        """States of one note, fp32 `(L, D)`. Those that were damaged since [`fill`] are computed again.

        Raises:
            KeyError: where [`fill`] was not called with this note.
            ValueError: where they were damaged, and this is a worker of a data loader, which has no backbone.
        """
        key = note_key(input_ids)
        if key not in self._entries:
            raise KeyError(key)
        content = self._stored(key, len(input_ids))
        if content is None and get_worker_info() is None:
            self.fill([input_ids])
            content = self._stored(key, len(input_ids))
        if content is None:
            raise ValueError(
                f"Hidden states in {self.folder} were damaged during the training: start it again with "
                "`--resume_from_checkpoint last`, which first computes them again."
            )
        states = np.frombuffer(content, self.dtype).astype(np.float32)
        return torch.from_numpy(states.reshape(len(input_ids), self.width))

    def _stored(self, key: str, length: int) -> bytes | None:
        """The states of a note as they were written, or `None` where they are missing or damaged."""
        for vectors, entry in reversed(self._entries.get(key, [])):
            if entry.length != length or entry.start < 0:
                continue
            with contextlib.suppress(OSError, ValueError, OverflowError), open(vectors, "rb") as file:
                file.seek(entry.start * self._token_bytes)
                content = file.read(length * self._token_bytes)
                if checksum(key, content) == entry.checksum:
                    return content
        return None


def vectors_file(index: Path) -> Path:
    """The file of vectors that belongs to an index."""
    return index.with_name(index.name.replace("index", "vectors").replace(".jsonl", ".bin"))


def read_index(index: Path, quiet: bool = False) -> Iterator[Entry]:
    """The entries of an index. Malformed lines are skipped with a warning, and their notes are computed again."""
    if not index.is_file():
        return
    num_broken = 0
    for line in index.read_bytes().splitlines():
        try:
            key, *numbers = json.loads(line)
            entry = Entry(key, *numbers)
            if not isinstance(key, str) or not all(type(number) is int for number in numbers):
                raise ValueError
        except (ValueError, TypeError):
            num_broken += bool(line)
            continue
        yield entry
    if num_broken and not quiet:
        print(
            f"warning: {num_broken} lines of {index} cannot be read: those notes are computed again.", file=sys.stderr
        )


def open_private(path: Path) -> IO[bytes]:
    """Open a file for appending that only its owner may read."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
