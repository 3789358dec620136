"""Writes, reads and checks the file `results.json`; the table of its fields, and of these what says where figures come from."""

import hashlib
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from dataset_scripts.files import read_json, write_json

from .icd_metrics.metrics import nan_to_none


SCHEMA_VERSION = 2
LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "numpy", "peft", "scikit-learn")

# What every file has, and of which type.
SCHEMA: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "model": str,
    "dataset": str,
    "config": str,
    "split": str,
    "num_notes": int,
    "num_codes": int,
    "unknown_codes": list,
    "data_fingerprint": str,
    "synthetic": bool,
    "training_seed": (int, type(None)),
    "threshold": (int, float, str),
    "thresholds": (dict, type(None)),
    "threshold_rule": str,
    "threshold_source": str,
    "calibration": (dict, type(None)),
    "review": (dict, type(None)),
    "recall_promise": (dict, type(None)),
    "audit": (dict, type(None)),
    "seed": int,
    "code_version": str,
    "versions": dict,
    "metrics": dict,
    "intervals": dict,
    "interval_method": str,
    "strata": dict,
    "errors": dict,
    "curves": dict,
    "per_code": dict,
}
STRATUM_COUNTS = ("gold", "predicted", "hits")


def check_results(results: Mapping[str, Any]) -> None:
    """Raise a `ValueError` that names what is missing from results, or wrong in them."""
    faults = [f"`{name}` is missing" for name in SCHEMA if name not in results]
    faults += [
        f"`{name}` is a {type(results[name]).__name__}"
        for name, kind in SCHEMA.items()
        if name in results
        and (not isinstance(results[name], kind) or isinstance(results[name], bool) != (kind is bool))
    ]
    if not faults:
        try:
            faults = _faults_within(results)
        except (AttributeError, KeyError, TypeError) as error:
            faults = [f"a field inside holds a value of another kind than expected ({error})"]
    if faults:
        raise ValueError(f"Not the results of an evaluation: {'; '.join(faults[:5])}.")


def _faults_within(results: Mapping[str, Any]) -> list[str]:
    faults = []
    if results["schema_version"] != SCHEMA_VERSION:
        faults.append(f"`schema_version` is {results['schema_version']}, expected {SCHEMA_VERSION}: evaluate again")
    if not isinstance(results.get("num_empty_notes", 0), int):
        faults.append("`num_empty_notes` is no number")
    if not isinstance(results.get("num_learned_notes"), int | None):
        faults.append("`num_learned_notes` is no number")
    for name, value in results["metrics"].items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            faults.append(f"metric {name} is no number")
    for name, interval in results["intervals"].items():
        if results["metrics"].get(name) is None:
            faults.append(f"the interval of {name} has no metric")
        elif len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
            faults.append(f"the interval of {name} is {interval}")
    if results["threshold"] == "per code" and len(results["thresholds"] or {}) != results["num_codes"]:
        faults.append("`thresholds` does not hold one for each code")
    for name, rows in results["strata"].items():
        if not all(isinstance(row.get("stratum"), str) for row in rows):
            faults.append(f"strata {name} lack a name")
        elif name != "heat_map" and not all(
            isinstance(row.get(count), int) for row in rows for count in STRATUM_COUNTS
        ):
            faults.append(f"strata {name} lack counts")
    sizes = {len(column) for column in results["per_code"].values() if column is not None}
    if sizes != {results["num_codes"]}:
        faults.append(f"`per_code` has columns of {sorted(sizes)} codes, expected {results['num_codes']}")
    return faults


def write_results(results: dict, output_dir: Path) -> Path:
    """Writes `results.json`, whole or not at all; a figure that is undefined is null."""
    path = output_dir / "results.json"
    write_json({**results, "metrics": nan_to_none(results["metrics"])}, path)
    return path


def read_results(path: Path) -> dict[str, Any]:
    """Reads `results.json` and checks it."""
    results = read_json(path, f"write it with `modeling-icd evaluate MODEL ... --output_dir {path.parent}`.")
    check_results(results)
    return results


# Where figures come from


def data_fingerprint(hadm_ids: Iterable[int | str], texts: Iterable[str], codes: Iterable[Sequence[str]]) -> str:
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
