"""The package for PhysioNet, where models of restricted data are shared under the agreement of those data."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_scripts.files import whole_folder

from .folder import ModelFolder
from .release import Release, training_configs


CHECKSUMS, PROVENANCE = "SHA256SUMS", "PROVENANCE.json"


def describe_provenance(folder: ModelFolder, release: Release, files: Mapping[str, Path | bytes]) -> bytes:
    """Where the weights come from: data, backbone, runs and checksums; no path of this machine."""
    provenance: dict[str, Any] = {
        "trained_on": folder.config.get("training_data"),
        "base_model": release.base_model,
        "training": training_configs(folder, release),
        "results": {key: folder.results[key] for key in ("dataset", "config", "split", "num_notes", "num_codes")},
        "transformers_version": folder.config.get("transformers_version"),
        "modeling_icd_version": folder.config.get("modeling_icd_version"),
        "weights": {name: sha256(content) for name, content in files.items() if name.endswith(".safetensors")},
    }
    return (json.dumps(provenance, indent=2) + "\n").encode()


def write_package(files: Mapping[str, Path | bytes], output_dir: str | Path) -> Path:
    """Write files and `SHA256SUMS`, all of them or none.

    Raises:
        FileExistsError: where `output_dir` is there and not empty.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"`output_dir` ({output_dir}) exists and is not an empty folder: give another one.")
    with whole_folder(output_dir) as partial:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, partial / name)
            else:
                (partial / name).write_bytes(content)
        sums = "".join(f"{sha256(partial / name)}  {name}\n" for name in sorted(files))
        (partial / CHECKSUMS).write_text(sums, encoding="utf-8")
    return output_dir


def sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
