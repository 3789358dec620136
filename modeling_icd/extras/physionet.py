"""Writes a model's package for PhysioNet.

    modeling-icd physionet runs/mine --output_dir runs/package --data_dir DIR

On PhysioNet, models of restricted data are shared under the data use agreement of those data. The
package holds weights, card, licenses, checksums and provenance, and goes through the same privacy check as a push.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dataset_scripts.command import run_command
from dataset_scripts.files import check_writable, whole_folder

from ..publishing.cli import check, model_parser, prepare
from ..publishing.folder import ModelFolder, name_base_model
from ..publishing.release import Release, as_json, require_weights, training_configs


CHECKSUMS, PROVENANCE = "SHA256SUMS", "PROVENANCE.json"


def plan_physionet_release(folder: ModelFolder, base_model: str | None = None) -> Release:
    """The package for PhysioNet: everything, for those who may have the source data.

    Raises:
        ValueError: where the model was not trained on restricted data, or has no weights.
    """
    if folder.access != "restricted":
        raise ValueError(
            "This model was not trained on restricted data: PhysioNet is not needed, push it to a Hub repository."
        )
    release = Release(
        target="path/to/this/folder",
        access=folder.access,
        with_weights=True,
        base_model=base_model or name_base_model(folder.runs),
        license="other",
        on_physionet=True,
    )
    require_weights(folder, release)
    return release


def describe_provenance(folder: ModelFolder, release: Release, files: Mapping[str, Path | bytes]) -> bytes:
    """Where the weights come from: data, backbone, runs and checksums; no path of this machine."""
    provenance: dict[str, Any] = {
        "trained_on": folder.config.get("training_data"),
        "base_model": release.base_model,
        "training": training_configs(folder, release),
        "results": {key: folder.results[key] for key in ("dataset", "config", "split", "num_notes", "num_codes")},
        **{key: folder.config.get(key) for key in ("transformers_version", "modeling_icd_version")},
        "weights": {
            name: sha256(path)
            for name, path in files.items()
            if isinstance(path, Path) and name.endswith(".safetensors")
        },
    }
    return as_json(provenance)


def check_empty_folder(output_dir: Path) -> None:
    """Raise an `OSError` where the folder is there and not empty, or cannot be made."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"`output_dir` ({output_dir}) exists and is not an empty folder: give another one.")
    check_writable(output_dir, is_folder=True)


def write_package(files: Mapping[str, Path | bytes], output_dir: str | Path) -> Path:
    """Write files and `SHA256SUMS`, all of them or none.

    Raises:
        FileExistsError: where `output_dir` is there and not empty.
    """
    output_dir = Path(output_dir)
    check_empty_folder(output_dir)
    with whole_folder(output_dir) as partial:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, partial / name)
            else:
                (partial / name).write_bytes(content)
        sums = "".join(f"{sha256(partial / name)}  {name}\n" for name in sorted(files))
        (partial / CHECKSUMS).write_text(sums, encoding="utf-8")
    return output_dir


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = model_parser("physionet", __doc__)
    parser.add_argument("--output_dir", required=True, help="a folder that does not exist yet")
    args = parser.parse_args(arguments)
    return run_command(lambda: package(args), interrupted="Nothing has changed here; the same command goes on.")


def package(args: argparse.Namespace) -> int:
    """What the command line asks for; 1 where the privacy check found something."""
    check_empty_folder(Path(args.output_dir))
    folder = ModelFolder.read(args.model, args.results)
    release = plan_physionet_release(folder, args.base_model)
    with TemporaryDirectory() as work_dir:
        files, notes = prepare(folder, release, args, work_dir)
        files[PROVENANCE] = describe_provenance(folder, release, files)
        if check(folder, release, files, notes, args.min_notes_of_word):
            return 1
        print(write_package(files, args.output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
