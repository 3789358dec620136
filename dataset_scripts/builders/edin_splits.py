"""Finds, downloads, checks and reads the splits of Edin et al. (arXiv 2304.10909), which newer papers report on.

They are in github.com/JoakimEdin/medical-coding-reproducibility, folder files/data (Apache-2.0): admission ids and the names of
their splits, as Feather files, and so free to download.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.feather

from .published_lists import download_list, has_digest
from .sources import list_folder


EDIN_URL = "https://raw.githubusercontent.com/JoakimEdin/medical-coding-reproducibility/HEAD/files/data"
EDIN_SHA256 = {
    "mimiciii_clean_splits.feather": "deedf0fe76f80470ca85e71ff10fc2f9de70d28644d4143f5ccf6db635333b9e",
    "mimiciv_icd10_split.feather": "f913edf80c41f52c0865c2c802ab65d0d7b24fdfc03307564d2808bb9a672b61",
    "mimiciv_icd9_split.feather": "b60d01628b76aa8874cb52bb06aa07f9d18ed03a441cbf0884e9b748300ab4bf",
}
ADVICE = (
    "Get the folder files/data of github.com/JoakimEdin/medical-coding-reproducibility yourself and give it as `splits_dir`, make "
    "splits of our own with `splits=stratified`, or read the tables as a whole with `unsplit=True`."
)
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}  # Edin et al.'s name, our name


@dataclass(frozen=True)
class EdinData:
    """What is published of one of Edin et al.'s data sets.

    Args:
        folder (`str`): Of files/data that holds its lists.
        whole (`str`): The file with the splits.
        subsets (`tuple[str, ...]`): Names of smaller train splits, each a file `{folder}_{name}.feather`.
        admissions (`dict[str, int]`): How many admissions each split has.
        codes (`int`): How many codes at least 10 admissions have.
    """

    folder: str
    whole: str
    subsets: tuple[str, ...]
    admissions: dict[str, int]
    codes: int


# Sizes are those of the lists; numbers of codes are those of files/model_checkpoints/*/*/target2index.json in the repository.
EDIN_DATA = {
    "clean": EdinData(
        "mimiciii_clean",
        "mimiciii_clean_splits.feather",
        tuple(f"subsplit_0.{i}" for i in (2, 4, 6, 8)),
        {"train": 38_401, "validation": 5577, "test": 8734},
        3681,
    ),
    "icd10": EdinData(
        "mimiciv_icd10",
        "mimiciv_icd10_split.feather",
        tuple(f"train_subset_{size}k" for size in (10, 25, 50, 75)),
        {"train": 89_099, "validation": 13_378, "test": 19_802},
        7942,
    ),
    "icd9": EdinData(
        "mimiciv_icd9",
        "mimiciv_icd9_split.feather",
        tuple(f"train_subset_{size}k" for size in (10, 25, 50, 75, 100, 125)),
        {"train": 154_542, "validation": 21_980, "test": 32_804},
        6150,
    ),
}


@dataclass(frozen=True)
class EdinLists:
    """The files that hold the splits: `whole`, and `subset` where a smaller train split was asked for."""

    whole: Path
    subset: Path | None = None

    @property
    def files(self) -> list[Path]:
        return [self.whole, *([self.subset] if self.subset else [])]


def is_edin(path: Path) -> bool:
    """Tell whether a file holds the published splits, byte for byte."""
    return has_digest(path, EDIN_SHA256.get(path.name))


def find_edin_lists(
    data: EdinData, subset: str | None, splits_dir: str | None, data_dir: str, downloads_dir: Path
) -> EdinLists:
    """Find the lists: in `splits_dir` if it is given, else beside the tables, else in the downloads, where they are put if need be.

    Args:
        data (`EdinData`): Whose lists.
        subset (`str`, *optional*): One of its `subsets`.
        splits_dir (`str`, *optional*): A folder with the files, or with files/data's subfolders of them.
        data_dir (`str`): The folder of the tables.
        downloads_dir (`Path`): The folder of downloads.
    """
    names = [data.whole, *([f"{data.folder}_{subset}.feather"] if subset else [])]
    if splits_dir is not None:
        list_folder(splits_dir, "splits_dir", " and ".join(names))
    found = []
    for name in names:
        places = [Path(splits_dir or data_dir, name), Path(splits_dir or data_dir, data.folder, name)]
        path = next((place for place in places if place.is_file()), None)
        if path is None and splits_dir is not None:
            raise FileNotFoundError(f"No {name} in `splits_dir` ({splits_dir}). {ADVICE}")
        if path is None:
            path = downloads_dir / name
            digest = EDIN_SHA256.get(name)
            if not (has_digest(path, digest) if digest else path.is_file()):
                download_list(path, f"{EDIN_URL}/{data.folder}/{name}", digest, ADVICE)
        found.append(path)
    return EdinLists(*found)


def read_edin_lists(lists: EdinLists) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Read the admissions of each split, in the order of the file, and those of the subset, which are the same without one.

    Raises:
        ValueError: where a file is not such a list, or a subset is not one of the whole.
    """
    whole = read_edin_list(lists.whole)
    if lists.subset is None:
        return whole, whole
    subset = read_edin_list(lists.subset)
    for split in SPLIT_NAMES.values():
        strange = set(subset[split]) - set(whole[split])
        lost = set() if split == "train" else set(whole[split]) - set(subset[split])
        if strange or lost:
            raise ValueError(
                f"{lists.subset}: its {split} split is not of {lists.whole.name}: {len(strange):,} admissions too many, "
                f"{len(lost):,} missing. Both must come from one copy of the repository."
            )
    return whole, subset


def read_edin_list(path: Path) -> dict[str, list[int]]:
    """Read one file: a column `_id` of admission ids, each once, and a column `split` of `train`, `val` and `test`."""
    table = None
    with suppress(pa.ArrowException, OSError):
        table = pyarrow.feather.read_table(path, memory_map=False)
    if table is None:
        raise ValueError(f"{path} cannot be read as Feather: download it again and compare its checksum.")
    if not {"_id", "split"} <= set(table.column_names) or not pa.types.is_integer(table.schema.field("_id").type):
        raise ValueError(f"{path} must have a column `_id` of whole numbers and a column `split`: it is another file.")
    splits: dict[str, list[int]] = {name: [] for name in SPLIT_NAMES.values()}
    for hadm_id, split in zip(table["_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        if split not in SPLIT_NAMES or hadm_id is None:
            raise ValueError(f"{path}: every row must have an `_id`, and a `split` of {', '.join(SPLIT_NAMES)}.")
        splits[SPLIT_NAMES[split]].append(hadm_id)
    ids = [hadm_id for split in splits.values() for hadm_id in split]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: {len(ids) - len(set(ids)):,} rows repeat the `_id` of an earlier one.")
    return splits


def edin_text(text: str) -> str:
    """Cut a note as Edin et al. do: lower-cased runs of the letters a to z and digits, and no number that white space encloses.

    A number at the very beginning or end stays (prepare_data/utils.py of their repository, `TextPreprocessor`).
    """
    words = re.sub(r"[^a-z0-9]+", " ", text.lower())
    return re.sub(r"\s+", " ", re.sub(r"(?:\s\d+)+\s", " ", words)).strip()


def name_splits(path: Path) -> Mapping[str, str]:
    """What to call each split of a file in messages."""
    return {name: f"split {theirs!r} of {path}" for theirs, name in SPLIT_NAMES.items()}
