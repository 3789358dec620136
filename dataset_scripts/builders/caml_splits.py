"""Finds, downloads and checks CAML's split lists of MIMIC-III, which most papers report on.

They are in github.com/jamesmullenbach/caml-mimic, folder mimicdata/mimic3 (MIT): ids alone, and so free to download.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ..codes.icd9 import kind_of
from .published_lists import download_list, has_digest
from .sources import list_folder, read_list


SPLIT_LISTS = {"train": "train", "validation": "dev", "test": "test"}  # our name, CAML's name
SPLITS_URL = "https://raw.githubusercontent.com/jamesmullenbach/caml-mimic/master/mimicdata/mimic3"
SPLITS_SOURCE = (
    "CAML's lists are in github.com/jamesmullenbach/caml-mimic, folder mimicdata/mimic3 (MIT); "
    "a folder without them is read as a whole with `unsplit=True`"
)
SPLITS_SHA256 = {
    "train_full_hadm_ids.csv": "abc4601d2cb798c7f26d35a4aa38b84b0050af03e102e455ab70651d654cb964",
    "dev_full_hadm_ids.csv": "5bc77377a675b17631844f6253ecec5c0b2b39c294aebe34aebbd2c733d8efb4",
    "test_full_hadm_ids.csv": "2861293b9057a3aa20b21b397590e4f148aceebdaa705622acf748ccb1b7216c",
    "train_50_hadm_ids.csv": "aee261aa45a2d89368e4da275c6c0a601b8bfc2c22e3af915d89adbc068716d2",
    "dev_50_hadm_ids.csv": "bcd69c3be3f4d8a7d29252ac8b5b99f197875b639ab12cf3ab324ee11612ea9e",
    "test_50_hadm_ids.csv": "cc3d3c22cbf0c68b62508712d4fc27baf5a5cb9705c1c8f8b6fc1618332c49b2",
}
ADVICE = (
    "Get the folder mimicdata/mimic3 of github.com/jamesmullenbach/caml-mimic yourself and give it as `splits_dir`, or read the "
    "tables as a whole with `unsplit=True`."
)

# The codes of CAML's top-50 task, as its baselines predict them (caml-mimic, folder predictions). Its script counted
# code rows after reading codes as numbers: 33.24 and 45.13 are in it, but 93.90 and V45.82 belong to more admissions.
CAML_TOP_50 = frozenset([
    "038.9", "244.9", "250.00", "272.0", "272.4", "276.1", "276.2", "285.1", "285.9", "287.5", "305.1", "311", "33.24",
    "36.15", "37.22", "37.23", "38.91", "38.93", "39.61", "39.95", "401.9", "403.90", "410.71", "412", "414.01",
    "424.0", "427.31", "428.0", "45.13", "486", "496", "507.0", "511.9", "518.81", "530.81", "584.9", "585.9", "599.0",
    "88.56", "88.72", "96.04", "96.6", "96.71", "96.72", "99.04", "99.15", "995.92", "V15.82", "V45.81", "V58.61",
])  # fmt: skip


def list_names(suffix: str) -> dict[str, str]:
    """Name the file of each split: `{train,dev,test}_{suffix}_hadm_ids.csv`, `suffix` being `full` or `50`."""
    return {split: f"{caml}_{suffix}_hadm_ids.csv" for split, caml in SPLIT_LISTS.items()}


def find_split_lists(splits_dir: str, suffix: str) -> dict[str, Path]:
    """Find the three lists of admission ids in a folder."""
    names = list_names(suffix)
    files = {file.name: file for file in list_folder(splits_dir, "splits_dir", f"{', '.join(names.values())}")}
    missing = [name for name in names.values() if name not in files]
    if missing:
        raise FileNotFoundError(f"No {', '.join(missing)} in `splits_dir` ({splits_dir}): {SPLITS_SOURCE}.")
    return {split: files[name] for split, name in names.items()}


def has_split_lists(folder: str, suffix: str) -> bool:
    """Tell whether a folder holds any of the three lists."""
    return any((Path(folder) / name).is_file() for name in list_names(suffix).values())


def download_split_lists(suffix: str, folder: Path) -> dict[str, Path]:
    """Download the three lists into a folder, checked against their SHA-256; those that are there already are kept."""
    lists = {split: folder / name for split, name in list_names(suffix).items()}
    for path in lists.values():
        if not is_official(path):
            download_list(path, f"{SPLITS_URL}/{path.name}", SPLITS_SHA256[path.name], ADVICE)
    return lists


def is_official(path: Path, published: Mapping[str, str] = SPLITS_SHA256) -> bool:
    """Tell whether a list is CAML's, or one of others whose SHA-256 are given by their names, byte for byte."""
    return has_digest(path, published.get(path.name))


def find_top_codes(splits_dir: str) -> Path | None:
    """Find the list of the top-50 task's codes, which CAML's script calls TOP_50_CODES.csv."""
    pattern = re.compile(r"TOP_50_CODES(\.\w+)?\.csv")
    files = [file for file in list_folder(splits_dir, "splits_dir", "split lists") if pattern.fullmatch(file.name)]
    if len(files) > 1:
        raise ValueError(f"{splits_dir} holds {' and '.join(file.name for file in files)}: keep one of them.")
    return files[0] if files else None


def read_split_list(path: Path) -> list[int]:
    """Read one list of admission ids; one without any, as a corpus of few admissions has, is an error that says what to do."""
    if path.stat().st_size == 0:
        raise ValueError(
            f"{path} is empty, so that its split would be, too: give lists with admissions in each, write a corpus of more "
            "admissions, or read the folder as a whole with `unsplit=True`."
        )
    values = read_list(path)
    wrong = [i for i, value in enumerate(values) if not re.fullmatch(r"[0-9]{1,18}", value)]
    if wrong:
        raise ValueError(
            f"{path}: value {wrong[0] + 1} is not an admission id: expected one HADM_ID a line, no header."
        )
    return [int(value) for value in values]


def read_code_list(path: Path, check: Callable[[str], object] = kind_of) -> set[str]:
    """Read one list of dotted codes, or of what `check` takes; it raises a `ValueError` where it does not."""
    codes = read_list(path)
    for code in codes:
        try:
            check(code)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return set(codes)
