"""Hidden states of a frozen backbone on disk: computed once per note, read in every later epoch and run.

They can be turned back into the notes, so they are as confidential as the notes: they lie only where the user says.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from dataset_scripts.files import write_json

from ..modeling_llama_icd import LlamaICDPreTrainedModel, pad_rows


# Tokens of one padded batch through the backbone: large enough to keep two cores or a GPU busy.
TOKENS_PER_BATCH = 4096
# How often the index is written: what an interruption can cost.
BATCHES_PER_CHECKPOINT = 20


def note_key(input_ids: Iterable[int]) -> str:
    """Names a note by its tokens, so that every split, fold and run finds the same states."""
    return hashlib.sha256(np.asarray(input_ids, dtype=np.int64).tobytes()).hexdigest()[:32]


def backbone_fingerprint(model: LlamaICDPreTrainedModel) -> str:
    """Changes with every weight of the backbone and with every setting that its hidden states depend on."""
    config = model.config
    digest = hashlib.sha256()
    settings = [config.window_size, config.window_stride, config.hidden_layer, config.normalize_hidden_states]
    digest.update(json.dumps([settings, config.rope_parameters, str(model.dtype)], sort_keys=True).encode())
    for name, weight in sorted(model.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class HiddenStates:
    """A store of one backbone's hidden states: an append-only file of vectors, and an index of the notes in it.

    Args:
        folder (`Path`): where the stores lie; each backbone and setting has its own subfolder.
        model (`LlamaICDPreTrainedModel`): gives the states; only its frozen backbone is used.
        dtype (`str`): `"float16"` or `"float32"` on disk.
    """

    def __init__(self, folder: Path, model: LlamaICDPreTrainedModel, dtype: str = "float16"):
        self.folder = Path(folder) / f"{backbone_fingerprint(model)}-{dtype}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = model
        self.dtype = np.dtype(dtype)
        self.width = model.config.hidden_size
        self._index_file = self.folder / "index.json"
        self._vectors_file = self.folder / "vectors.bin"
        self._load_index()

    def _load_index(self) -> None:
        self._index = json.loads(self._index_file.read_text()) if self._index_file.exists() else {}
        self._size = sum(length for _, length in self._index.values())
        self._vectors: np.memmap | None = None

    def _write_index(self) -> None:
        write_json(self._index, self._index_file, private=True)

    def fill(self, notes: Iterable[list[int]]) -> int:
        """Computes what is missing; returns how many notes that were.

        An interrupted run goes on where the index was last written.

        Args:
            notes: the `input_ids` of each.

        Raises:
            ValueError: where a state does not fit `float16`.
        """
        with FileLock(self.folder / "lock"):
            self._load_index()
            missing = {note_key(ids): ids for ids in notes}
            missing = {key: ids for key, ids in missing.items() if key not in self._index}
            if not missing:
                return 0
            self.model.model.eval()
            batches = self._batches(sorted(missing.items(), key=lambda item: len(item[1])))
            with open(self._vectors_file, "ab") as file:
                # What an interrupted run wrote behind the last note of its index.
                file.truncate(self._size * self.width * self.dtype.itemsize)
                file.seek(0, os.SEEK_END)
                progress = tqdm(total=len(missing), desc="Hidden states", unit="note")
                for number, batch in enumerate(batches, 1):
                    for (key, ids), states in zip(batch, self._compute([ids for _, ids in batch]), strict=True):
                        file.write(states.tobytes())
                        self._index[key] = (self._size, len(ids))
                        self._size += len(ids)
                    progress.update(len(batch))
                    if number % BATCHES_PER_CHECKPOINT == 0:
                        file.flush()
                        self._write_index()
                progress.close()
            self._write_index()
            return len(missing)

    @staticmethod
    def _batches(notes):
        batch: list = []
        for key, ids in notes:
            if batch and len(ids) * (len(batch) + 1) > TOKENS_PER_BATCH:
                yield batch
                batch = []
            batch.append((key, ids))
        yield batch

    @torch.no_grad()
    def _compute(self, notes: list[list[int]]) -> list[np.ndarray]:
        device = self.model.device
        ids, mask = pad_rows([torch.as_tensor(ids) for ids in notes])
        states = self.model.read_hidden_states(ids.to(device), mask.to(device)).float().cpu().numpy()
        if np.abs(states[mask.numpy() == 1]).max() > np.finfo(self.dtype).max:
            raise ValueError(
                f"Hidden states exceed the range of {self.dtype}: use `hidden_states_dtype: float32`, or "
                "`normalize_hidden_states: true`."
            )
        return [states[row, : len(ids)].astype(self.dtype) for row, ids in enumerate(notes)]

    def read(self, input_ids: list[int]) -> torch.Tensor:
        """States of one note, fp32 `(L, D)`.

        Raises:
            KeyError: where [`fill`] has not seen it.
        """
        start, length = self._index[note_key(input_ids)]
        if self._vectors is None:
            self._vectors = np.memmap(self._vectors_file, self.dtype, mode="r")
        states = self._vectors[start * self.width : (start + length) * self.width].astype(np.float32)
        return torch.from_numpy(states.reshape(length, self.width))
