"""Writes and checks the marker file of an invented corpus, and lists the titles of its codes.

The marker file holds a digest of every table, so that a folder with real tables in it is not taken for invented.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml


MARKER_FILE = "SYNTHETIC"


def write_marker(folder: Path, release: str, tables: Iterable[str], version: str, **arguments: Any) -> None:
    """Write the file that says that these tables are invented, and from which arguments they can be written again."""
    notice = f"Invented text and codes; contains no patient data. Not {release}, only in its format."
    sums = {f"{table}.csv.gz": _sha256(folder / f"{table}.csv.gz") for table in tables}
    marker = {"notice": notice, "version": version, **arguments, "sha256": sums}
    (folder / MARKER_FILE).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def is_synthetic(folder: str | Path | None) -> bool:
    """Whether a folder holds a corpus as it was written here, and no table beside it, which would not be invented.

    No folder, where the data set was made from files that options gave, holds none.
    """
    if folder is None:
        return False
    marker = Path(folder, MARKER_FILE)
    if not marker.is_file():
        return False
    try:
        sums = json.loads(marker.read_text(encoding="utf-8")).get("sha256")
    except (ValueError, AttributeError):
        return False
    if not sums or not isinstance(sums, dict):
        return False
    tables = {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name.lower().endswith((".csv", ".csv.gz")) and not _is_list(path)
    }
    return tables == sums.keys() and all(_sha256(Path(folder, name)) == digest for name, digest in sums.items())


def _is_list(path: Path) -> bool:
    """Whether this is a split list or a list of codes, which holds no notes and may be exchanged."""
    return path.name == "TOP_50_CODES.csv" or path.name.endswith("_hadm_ids.csv") or path.name.startswith("MDace-")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def corpus_titles() -> frozenset[str]:
    """The official titles of the codes of the invented corpora; none in an installed package, which does not carry them."""
    path = Path(__file__).parent / "synthetic" / "concepts.yaml"
    if not path.is_file():
        return frozenset()
    listed = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    titles = {entry[name] for entry in listed["concepts"] for name in ("long_title", "icd10_title") if name in entry}
    return frozenset(titles.union(listed["procedure_tables"].values()))
