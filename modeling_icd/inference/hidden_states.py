"""A cache on disk for hidden states of a frozen backbone: computed once per note, read in every later epoch and run.

Hidden states can be turned back into the notes, so they are as confidential as the notes: they are written only where the
user says, and only their owner may read them.
"""

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import nn
from torch.utils.data import get_worker_info
from tqdm.auto import tqdm

from dataset_scripts.files import make_folder

from ..modeling_icd import LlamaICDPreTrainedModel
from .batches import batches_by_length
from .linear import fast_linear_layers
from .state_formats import StateCodec, StateFormat, check_foldable, fold_projection
from .state_shards import KEY_BYTES, RECORD, SUFFIX, DamagedShard, Shard, ShardWriter, Stamp, new_shard


# Tokens, at most, of the notes whose windows go through the backbone together, before their states are written: enough windows
# of similar length for batches of them.
TOKENS_TOGETHER = 32768
# Tokens of one pass on a CPU, whose caches hold no more of them; elsewhere it is the model's `tokens_per_pass`.
TOKENS_ON_CPU = 2048
# A killed process loses the shard at work, which has at most this size and took about this long, whichever is less. What is
# computed before it is written is at most one part in so many of either.
SHARD_BYTES, SHARD_SECONDS, SHARD_PARTS = 256 << 20, 60.0, 4
# Tokens of training notes that a format is fitted on.
FIT_TOKENS = 32768
# Files that are mapped at a time, each of which takes a file descriptor.
MAX_MAPS = 256
# Sets of notes whose states are computed again where they are damaged while they are read.
KEPT_IN_MIND = 4
FITTED_FILE = "fitted.safetensors"


class Wanted(NamedTuple):
    """A note whose states are to be there.

    Args:
        key (`bytes`): see [`note_key`].
        position (`int`): in the notes that were asked for.
        length (`int`): its tokens.
    """

    key: bytes
    position: int
    length: int

    def is_of(self, process: int, num_processes: int) -> bool:
        """Whether this process computes it; of several, each has a share that no other has."""
        return int.from_bytes(self.key[:4]) % num_processes == process


def note_key(input_ids: Iterable[int]) -> bytes:
    """The key of a note, made from its tokens, so that every split, fold and run finds the same states."""
    return hashlib.sha256(np.asarray(input_ids, dtype=np.int64).tobytes()).digest()[:KEY_BYTES]


def wanted_notes(notes: Iterable[Sequence[int]]) -> list[Wanted]:
    """The notes that differ, each where it comes first; of their tokens nothing is kept. A note without a token has no states,
    and is left out."""
    found: dict[bytes, Wanted] = {}
    for position, ids in enumerate(notes):
        key = note_key(ids)
        if len(ids) and key not in found:
            found[key] = Wanted(key, position, len(ids))
    return list(found.values())


def backbone_fingerprint(model: LlamaICDPreTrainedModel) -> str:
    """A digest that changes with every weight of the backbone and every setting on which its hidden states depend."""
    config = model.config
    digest = hashlib.sha256()
    settings: list[Any] = [
        config.window_size,
        config.window_stride,
        config.hidden_layer,
        config.normalize_hidden_states,
    ]
    if config._attn_implementation != "sdpa":  # the default, with which the name stays what it always was
        settings.append(config._attn_implementation)
    if config.bidirectional_attention:
        settings.append("bidirectional")
    digest.update(json.dumps([settings, config.backbone_settings, str(model.dtype)], sort_keys=True).encode())
    for name, weight in sorted(model.model.state_dict().items()):  # of a quantised one with the scales of its weights
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class HiddenStates:
    """A cache on disk of one backbone's hidden states.

    It lies in shards (state_shards.py), and each process of a run writes its own: so a killed one loses at most the shard
    at work, and two never write to one file. A shard is compared with its checksums before anything is read from it, by each
    process once, and again when its file has changed. A damaged one is removed, and its notes are computed again.

    Args:
        folder (`Path`): where the stores lie; each backbone, setting and format has its own subfolder.
        model (`LlamaICDPreTrainedModel`): gives the states; only its frozen backbone is used.
        format (`str`): in which form they are kept; see state_formats.py. One that is fitted needs [`fit`] first.
        fingerprint (`str`, *optional*): the model's [`backbone_fingerprint`], where it is known.

    Raises:
        ValueError: where there is no such format, it keeps more directions than the states have, or the model has a `layer_mix`.
    """

    def __init__(
        self, folder: Path, model: LlamaICDPreTrainedModel, format: str = "float16", fingerprint: str | None = None
    ):
        if model.config.layer_mix:
            raise ValueError(
                "The mix of layers that this model reads is learned, so its hidden states cannot be kept."
            )
        self.parent = make_folder(folder, private=True)
        self.model = model
        self.width = model.config.hidden_size
        self.format = StateFormat.of(format)
        self.fingerprint = fingerprint or backbone_fingerprint(model)
        self.name = f"{self.fingerprint}-{format}"
        self._codec: StateCodec | None = None
        codec = StateCodec(self.format, self.width)
        self.token_bytes = codec.token_bytes
        self._shards: dict[Path, Shard] = {}
        self._places: dict[bytes, tuple[Shard, int]] = {}
        self._mapped: list[Shard] = []
        self._asked: list[Sequence[Sequence[int]]] = []  # the last notes that were asked for, to compute them again
        if not self.format.is_fitted:
            self._open(self.name, codec)

    def _open(self, name: str, codec: StateCodec) -> None:
        self._folder = make_folder(self.parent / name, private=True)
        self._codec = codec
        for old in (*self._folder.glob("index*.json*"), *self._folder.glob("vectors*.bin")):
            old.unlink(missing_ok=True)  # of an earlier version
        self.reload()

    @property
    def is_open(self) -> bool:
        """Whether it can be filled and read: at once, or once the format is fitted."""
        return self._codec is not None

    @property
    def codec(self) -> StateCodec:
        """What turns states into bytes and back.

        Raises:
            ValueError: where it has not been fitted.
        """
        if self._codec is None:
            raise ValueError(f"The format {self.format.name} is fitted on training notes: call `fit` first.")
        return self._codec

    @property
    def folder(self) -> Path:
        """Where the shards lie; raises as [`codec`] does."""
        self.codec  # noqa: B018
        return self._folder

    def fit(self, notes: Sequence[Sequence[int]]) -> None:
        """Fit the format on a sample of training notes, unless that is done or there is nothing to fit.

        The sample is chosen by the notes' keys, so that it depends on which notes these are and not on their order; its states
        are computed for this once. What was fitted on other notes lies in another folder.

        Args:
            notes: the `input_ids` of each; those of training alone, since the head learns from what they are fitted to keep.
        """
        if not self.format.is_fitted or self._codec is not None:
            return
        wanted, num_tokens = [], 0
        for note in sorted(wanted_notes(notes)):
            if num_tokens < FIT_TOKENS:
                wanted.append(note)
                num_tokens += note.length
        if not wanted:
            raise ValueError(f"The format {self.format.name} is fitted on training notes, and none has a token.")
        digest = hashlib.sha256(b"".join(note.key for note in wanted)).hexdigest()[:8]
        folder = make_folder(self.parent / f"{self.name}-{digest}", private=True)
        with FileLock(folder / "fit.lock", mode=0o600):  # of several processes one fits, and the others read
            codec = StateCodec.load(self.format, self.width, folder / FITTED_FILE)
            if codec is None:
                for shard in folder.glob(f"*{SUFFIX}"):  # which only what is lost could read
                    shard.unlink()
                parts = [states[:FIT_TOKENS] for _, states in self._computed(wanted, notes)]
                codec = StateCodec.fit(self.format, torch.cat(parts)[:FIT_TOKENS])
                codec.save(folder / FITTED_FILE)
        self._open(folder.name, codec)

    def check_head(self, head: nn.Module) -> None:
        """See whether a head that learns from these states can be applied to whole ones.

        Raises:
            ValueError: where it cannot; see [`~modeling_icd.inference.state_formats.check_foldable`].
        """
        if self.codec.directions is not None:
            check_foldable(head, self.codec.directions, self.format.name)

    def fold_into(self, head: nn.Module) -> None:
        """Make a head that has learned from these states give the same for whole ones; where nothing of them was left out, it
        stays as it is."""
        if self.codec.directions is not None:
            fold_projection(head, self.codec.directions)

    def reload(self) -> None:
        """Look again which shards there are: other processes may have added some."""
        known, self._shards, self._places = self._shards, {}, {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                shard = known.get(path)
                if shard is None or Stamp.of(path) != shard.stamp:
                    shard = Shard(path, self.token_bytes)
            except DamagedShard as damaged:
                self._remove(path, damaged.stamp, "its list of notes")
            except OSError:  # another process has removed it
                pass
            else:
                self._add(shard)

    def _add(self, shard: Shard) -> None:
        self._shards[shard.path] = shard
        for row, key in enumerate(shard.keys()):
            self._places[key] = (shard, row)

    def _remove(self, path: Path, stamp: Stamp, what: str) -> None:
        """Remove a damaged shard, unless another process has done so or the file is no longer the one that was read."""
        try:
            if Stamp.of(path) != stamp:
                return
            path.unlink()
        except FileNotFoundError:
            return
        print(
            f"warning: {path} was damaged ({what} did not match its checksum) and is removed: the hidden states of its notes "
            "are computed again.",
            file=sys.stderr,
        )

    def fill(self, notes: Sequence[Sequence[int]], process: int = 0, num_processes: int = 1) -> int:
        """Computes the states that are missing or damaged; returns the number of these notes.

        It first says how many bytes it will write. An interrupted run goes on where it stopped. Several processes of one run
        compute a share each; when all have ended, each calls [`reload`].

        Args:
            notes: the `input_ids` of each; what is not in memory, such as a column of a data set, stays out of it.
            process (`int`): which share to compute, from 0.
            num_processes (`int`): how many shares there are.

        Raises:
            ValueError: where states are NaN or infinite, or do not fit `float16`; they are not stored.
            OSError: where the disk has less room than they take, or they cannot be written; what was written before stays.
        """
        if not hasattr(notes, "__getitem__"):
            notes = list(notes)
        self._asked = [*(known for known in self._asked if known is not notes), notes][-KEPT_IN_MIND:]
        wanted = wanted_notes(notes)
        with FileLock(self.folder / f"{process}.lock", mode=0o600):
            self.reload()
            missing = self._missing(wanted)
            if missing:
                self._check_room(missing, say=process == 0)
            own = [note for note in missing if note.is_of(process, num_processes)]
            if own:
                self._write(own, notes, process)
        return len(own)

    def _missing(self, wanted: list[Wanted]) -> list[Wanted]:
        """Those of the notes that lie in no whole shard; damaged shards are removed."""
        while damaged := self._damaged(wanted):
            for shard in damaged:
                self._remove(shard.path, shard.stamp, "what it holds of a note")
                self._shards.pop(shard.path)
            self.reload()
        return [note for note in wanted if not self._has(note.key, note.length)]

    def _damaged(self, wanted: list[Wanted]) -> list[Shard]:
        asked = {id(place[0]): place[0] for note in wanted if (place := self._places.get(note.key))}
        return [shard for shard in asked.values() if not shard.is_whole()]

    def _has(self, key: bytes, length: int) -> bool:
        place = self._places.get(key)
        return place is not None and int(place[0].records["length"][place[1]]) == length

    def bytes_of(self, num_notes: int, num_tokens: int) -> int:
        """Bytes on disk of so many notes with so many tokens together."""
        return num_tokens * self.token_bytes + num_notes * RECORD.itemsize

    def _check_room(self, missing: list[Wanted], say: bool) -> None:
        num_tokens = sum(note.length for note in missing)
        needed, free = self.bytes_of(len(missing), num_tokens), shutil.disk_usage(self.folder).free
        what = f"The hidden states of {len(missing):,} notes ({num_tokens:,} tokens, {self.token_bytes:,} bytes each)"
        where = f"in {self.folder}, where {as_size(free)} are free"
        if needed > free:
            raise OSError(
                f"{what} take {as_size(needed)} {where}. Make room, name another folder with `hidden_states_dir`, or keep less of "
                "each token with `hidden_states_format`, such as pca64."
            )
        if say:
            print(f"{what} will take {as_size(needed)} {where}.", file=sys.stderr)

    def _write(self, missing: list[Wanted], notes: Sequence[Sequence[int]], process: int) -> None:
        """Write shards of these notes."""
        writer: ShardWriter | None = None
        began, full = time.monotonic(), 1 - 1 / SHARD_PARTS  # the rest is being computed when a shard is found full
        try:
            with tqdm(total=len(missing), desc="Hidden states", unit="note", disable=process > 0) as progress:
                for batch, states in self._computed(missing, notes):
                    writer = writer or ShardWriter(new_shard(self.folder, process), self.token_bytes)
                    writer.add_all([(note.key, note.length) for note in batch], self.codec.encode(states))
                    if writer.size >= full * SHARD_BYTES or time.monotonic() - began >= full * SHARD_SECONDS:
                        self._finish(writer)
                        writer, began = None, time.monotonic()
                    progress.update(len(batch))
            if writer is not None:
                self._finish(writer)
                writer = None
        except OSError as error:
            raise OSError(
                f"Hidden states cannot be written to {self.folder} ({error.strerror or error}). Those written before are "
                "complete: make room, or name another folder with `hidden_states_dir`, and start again."
            ) from None
        finally:
            if (
                writer is not None and writer.is_open
            ):  # something went wrong: what is complete of it is kept if possible
                with contextlib.suppress(OSError):
                    self._finish(writer)

    def _finish(self, writer: ShardWriter) -> None:
        """Finish a shard, and read it from now on."""
        path = writer.finish()
        if path is not None:
            shard = Shard(path, self.token_bytes)
            shard.checked = shard.stamp  # nor do the workers of a data loader have to compare what was just written
            self._add(shard)

    def _computed(
        self, wanted: list[Wanted], notes: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[Wanted], torch.Tensor]]:
        """Notes of similar length and their states, fp32 on the CPU, one note after the other `(tokens, D)`.

        The backbone reads the notes whose states are not there as `float32`.
        """
        self.model.model.eval()
        exact = self._exact_states()
        for batch in self._groups(wanted):
            input_ids = [notes[note.position] for note in batch]
            if exact is not None and all(exact.has(ids) for ids in input_ids):
                yield batch, torch.cat([exact.read(ids) for ids in input_ids])
            else:
                yield batch, self._compute(batch, input_ids)

    def _groups(self, wanted: list[Wanted]) -> Iterator[list[Wanted]]:
        """Notes of similar length, the shortest first, in groups that take no more than a part of a shard's bytes and, as the
        group before shows, of its time; a longer note is a group of its own."""
        most = SHARD_BYTES // SHARD_PARTS // self.token_bytes
        tokens = min(most, self._tokens_per_pass or self.model.tokens_per_pass)
        for rows in batches_by_length([note.length for note in wanted], max_tokens=TOKENS_TOGETHER):
            while rows:
                lengths = [wanted[row].length for row in rows]
                count = len(batches_by_length(lengths, max_tokens=tokens)[0])
                began = time.monotonic()
                yield [wanted[row] for row in rows[:count]]
                seconds = max(time.monotonic() - began, 1e-6)  # in which they were computed and written
                tokens = min(most, int(sum(lengths[:count]) / seconds * SHARD_SECONDS / SHARD_PARTS))
                rows = rows[count:]

    @property
    def _tokens_per_pass(self) -> int | None:
        """Tokens that the backbone reads at a time, where they are not as many as the model says."""
        return TOKENS_ON_CPU if self.model.device.type == "cpu" else None

    def _exact_states(self) -> "HiddenStates | None":
        """The states of the same backbone that are kept as they are, from which any other format can be made."""
        name = f"{self.fingerprint}-float32"
        if self.format.name == "float32" or not any((self.parent / name).glob(f"*{SUFFIX}")):
            return None
        return HiddenStates(self.parent, self.model, "float32", self.fingerprint)

    def has(self, input_ids: Sequence[int]) -> bool:
        """Whether the states of a note are there."""
        place = self._places.get(note_key(input_ids))
        return place is not None and place[0].is_whole()

    @torch.inference_mode()
    def _compute(self, batch: list[Wanted], input_ids: list[Sequence[int]]) -> torch.Tensor:
        device = self.model.device
        joined = torch.from_numpy(np.concatenate([np.asarray(ids, dtype=np.int64) for ids in input_ids])).to(device)
        lengths = [note.length for note in batch]
        with fast_linear_layers(device):
            states = self.model.read_joined(joined, lengths, self._tokens_per_pass).float().cpu()
        if not states.isfinite().all():
            finite = [part.isfinite().all() for part in states.split(lengths)]
            raise ValueError(
                "The backbone gives hidden states that are NaN or infinite, first seen in note "
                f"{batch[finite.index(False)].position} (from 0, in the order of training notes, then validation notes): are its "
                "weights whole? In float16 or bfloat16 load it in float32, or read a lower `hidden_layer`."
            )
        return states

    def read(self, input_ids: Sequence[int]) -> torch.Tensor:
        """States of one note, fp32 `(L, D)`. Those that were damaged since [`fill`] are computed again.

        Raises:
            KeyError: where [`fill`] was not called with this note.
            ValueError: where they were damaged, and this is a worker of a data loader, which has no backbone.
        """
        states = torch.empty(len(input_ids), self.width)
        self._read_into(input_ids, states)
        return states

    def read_padded(self, notes: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """States of several notes, fp32 `(B, L, D)`, 0 behind the end of each, and their mask `(B, L)`; raises as [`read`]."""
        lengths = [len(ids) for ids in notes]
        states = torch.empty(len(notes), max(lengths), self.width)
        mask = torch.zeros(states.shape[:2], dtype=torch.long)
        for row, (ids, length) in enumerate(zip(notes, lengths, strict=True)):
            self._read_into(ids, states[row, :length])
            states[row, length:] = 0
            mask[row, :length] = 1
        return states, mask

    def _read_into(self, input_ids: Sequence[int], out: torch.Tensor) -> None:
        key = note_key(input_ids)
        if key not in self._places:
            raise KeyError(key.hex())
        if not self._places[key][0].is_whole():
            if get_worker_info() is not None:
                raise ValueError(
                    f"Hidden states in {self.folder} were damaged during the training: start it again with "
                    "`--resume_from_checkpoint last`, which first computes them again."
                )
            for notes in list(self._asked):  # the shard held other notes, too
                self.fill(notes)
        shard, row = self._places[key]
        if shard not in self._mapped:
            self._mapped.append(shard)
            if len(self._mapped) > MAX_MAPS:
                self._mapped.pop(0).close()
        self.codec.decode_into(shard.states_of(row), out)


def as_size(num_bytes: int) -> str:
    """Bytes in the unit that suits their number."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 1e3:,.1f} kB"
