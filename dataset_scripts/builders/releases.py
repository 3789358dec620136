"""Finds MIMIC-IV as PhysioNet gives it out, anywhere in a folder, and says which release it is.

    mimiciv/2.2/hosp    mimiciv/3.1/hosp    mimic-iv-note/2.2/note

The codes (`hosp`) and the notes (`note`) are two downloads with versions of their own. Between v2.2 and v3.1 of the codes
(physionet.org/content/mimiciv/3.1, release notes): v3.0 added the stays of 2020 to 2022, 546,028 admissions in place of 431,231,
of which no note is published, so that they make no record; v3.1 took two subjects out that had no row in `patients`, so that
what they had in a list of v2.2 is missing. The notes have stayed v2.2, and the columns that are read here are the same.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .sources import find_tables


RELEASES = ("2.2", "3.1")  # of the codes; both go with the notes of NOTE_RELEASE
NOTE_RELEASE = "2.2"
RELEASE = (
    "MIMIC-IV v2.2 or v3.1 (physionet.org/content/mimiciv, folder hosp) and MIMIC-IV-Note v2.2 "
    "(physionet.org/content/mimic-iv-note/2.2, folder note)"
)
MODULES = ("note", "hosp")
MAX_DEPTH = 6  # of folders below `data_dir` that are looked into
VERSION = re.compile(r"(?:^|[-_])v?([0-9]+\.[0-9]+)$")


def find_release(data_dir: str, names: Sequence[str], release: str | None) -> tuple[dict[str, Path], str | None]:
    """Find the tables: in `data_dir` and its folders `note` and `hosp`, or else in folders of these names further down.

    Args:
        data_dir (`str`): The folder.
        names (`Sequence[str]`): Of the tables.
        release (`str`, *optional*): Which release of the codes to take where there are several.

    Returns:
        The tables by name, and the release of the codes: `release`, or what their folders are called; None where neither says it.

    Raises:
        FileNotFoundError: where a table is missing, in the release that is asked for.
        ValueError: where there are several releases, or only another one than is asked for.
    """
    places = [Path(data_dir), *(Path(data_dir, module) for module in MODULES)]
    modules = {} if _hold_any(places, names) else {module: _find_module(data_dir, module) for module in MODULES}
    if not all(modules.values()) or not modules:
        tables = find_tables(data_dir, names, RELEASE, subfolders=MODULES)
    else:
        hosp = _choose("hosp", modules["hosp"], release, data_dir)
        note = _choose("note", modules["note"], NOTE_RELEASE if len(modules["note"]) > 1 else None, data_dir)
        tables = find_tables(
            str(hosp.parent), names, RELEASE, subfolders=(hosp.name, os.path.relpath(note, hosp.parent))
        )
    found = _version_of(next(path for name, path in tables.items() if name.startswith("diagnoses")))
    if release is not None and found is not None and found != release:
        raise ValueError(
            f"`release` is {release}, and the codes in {data_dir} are those of v{found}: give one of the two."
        )
    return tables, release or found


def _hold_any(places: Sequence[Path], names: Sequence[str]) -> bool:
    wanted = {f"{name}{end}" for name in names for end in (".csv", ".csv.gz")}
    return any(file.name.lower() in wanted for place in places if place.is_dir() for file in place.iterdir())


def _find_module(data_dir: str, module: str) -> list[Path]:
    """Every folder of a module's name below a folder, sorted; hidden folders are passed over."""
    found = []
    for folder, inner, _ in os.walk(data_dir):
        depth = len(Path(folder).relative_to(data_dir).parts)
        inner[:] = [name for name in sorted(inner) if not name.startswith(".")] if depth < MAX_DEPTH else []
        found += [Path(folder, name) for name in inner if name == module]
    return found


def _choose(module: str, folders: Sequence[Path], release: str | None, data_dir: str) -> Path:
    """Choose one of the folders of a module: the only one, or that of a release."""
    right = [folder for folder in folders if len(folders) == 1 or (release and _version_of(folder) == release)]
    if len(right) != 1:
        there = ", ".join(str(folder.relative_to(data_dir)) for folder in folders)
        wanted = (
            f"`release` one of {', '.join(RELEASES)}" if module == "hosp" else "`data_dir` a folder with one of them"
        )
        raise ValueError(f"{data_dir} holds several folders {module}: {there}. Give {wanted}.")
    return right[0]


def _version_of(path: Path) -> str | None:
    """The version that the innermost folder with one in its name has."""
    found = [match[1] for part in path.parent.parts if (match := VERSION.search(part)) and match[1] in RELEASES]
    return found[-1] if found else None
