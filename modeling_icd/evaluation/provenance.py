"""Records where figures come from: a fingerprint of the data, the version of the code and of its libraries."""

import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path


LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "numpy", "peft", "scikit-learn")


def data_fingerprint(hadm_ids: Iterable[int], texts: Iterable[str], codes: Iterable[Sequence[str]]) -> str:
    """Hash what was scored: ids, text and gold codes of each note, in order. Equal on every machine, and of no use to
    find a note."""
    digest = hashlib.sha256()
    for hadm_id, text, of_note in zip(hadm_ids, texts, codes, strict=True):
        digest.update(f"{hadm_id}\0{len(text)}\0{text}\0{' '.join(sorted(of_note))}\0".encode())
    return digest.hexdigest()


def code_version() -> str:
    """The commit of this checkout (`-dirty` where files differ from it), or the installed version of the package."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git on this machine, or a checkout of another user
    return installed_version("modeling-icd") or "unknown"


def library_versions() -> dict[str, str]:
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
