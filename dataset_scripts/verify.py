"""Compares the counts of a build of MIMIC-III with published ones, to show that every row was read correctly.

The counts per code and split are a table `code,total,train,dev,test`, such as data/mimic3 of xuzhang0112/GKI-ICD has
it for `full` and `top50`; the sizes of the splits are those of CAML's lists.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from .builders.caml_splits import SPLIT_LISTS, is_official, read_split_list
from .builders.mimic3 import CODE_TABLES, MIMIC3, read_codes


@dataclass(frozen=True)
class Published:
    """What is published about a configuration."""

    admissions: Mapping[str, int]
    codes: int
    codes_in_train: int
    distribution: str  # name of the file with the counts per code


PUBLISHED = {
    "full": Published(
        admissions={"train": 47723, "validation": 1631, "test": 3372},
        codes=8929,
        codes_in_train=8692,
        distribution="mimic3_code_distribution.csv",
    ),
    "top50": Published(
        admissions={"train": 8066, "validation": 1573, "test": 1729},
        codes=50,
        codes_in_train=50,
        distribution="mimic3_50_code_distribution.csv",
    ),
}


@dataclass
class Verification:
    """What differs from the published counts, and what is worth knowing although it does not."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(builder: MIMIC3, published_dir: str | Path | None = None) -> Verification:
    """Compare a data set that is built with the published counts.

    Args:
        builder (`MIMIC3`): `full` or `top50`, prepared, with split lists.
        published_dir (`str` or `Path`, *optional*):
            Folder with the counts per code and split. Without it, only the numbers of admissions and of codes are
            compared.
    """
    if builder.config.name not in PUBLISHED or not builder.split_lists or builder.config.codes is not None:
        raise ValueError(
            f"No counts are published for configuration {builder.config.name!r} with these options: "
            f"verify {' or '.join(PUBLISHED)} with CAML's split lists."
        )
    published = PUBLISHED[builder.config.name]
    result = Verification()
    for split, path in builder.split_lists.items():
        listed = read_split_list(path)
        if not is_official(path):
            result.differences.append(f"{path} is not CAML's list: its SHA-256 is another one.")
        if len(listed) != published.admissions[split]:
            result.differences.append(
                f"{split}: {len(listed):,} admissions listed, {published.admissions[split]:,} published."
            )
        _compare_admissions(builder, split, listed, result)

    counts = builder.code_counts
    expected = None
    codes, codes_in_train = published.codes, published.codes_in_train
    if published_dir is not None:
        expected = read_distribution(Path(published_dir) / published.distribution)
        codes = sum(any(of_code.values()) for of_code in expected.values())
        codes_in_train = sum(of_code["train"] > 0 for of_code in expected.values())
    built = {code: {split: counts[split][code] for split in counts} for code in counts["train"]}
    for what, number, expected_number in (
        ("codes", sum(any(of_code.values()) for of_code in built.values()), codes),
        ("codes in train", sum(of_code["train"] > 0 for of_code in built.values()), codes_in_train),
    ):
        if number != expected_number:
            result.differences.append(f"{number:,} {what} built, {expected_number:,} published.")
    if expected is not None:
        nowhere = dict.fromkeys(SPLIT_LISTS, 0)
        for code in sorted(built.keys() | expected.keys()):
            for split in SPLIT_LISTS:
                have, want = built.get(code, nowhere)[split], expected.get(code, nowhere)[split]
                if have != want:
                    result.differences.append(f"{code} in {split}: {have:,} admissions built, {want:,} published.")
    return result


def read_distribution(path: Path) -> dict[str, dict[str, int]]:
    """Read how many admissions of each split have each code: a table `code,total,train,dev,test`."""
    columns = {"total": "total", **SPLIT_LISTS}
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path.name} in `published_dir` ({path.parent}): expected a table code,{','.join(columns.values())}."
        )
    distribution = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        if not {"code", *columns.values()} <= set(reader.fieldnames or []):
            raise ValueError(f"{path}: line 1 must be the header code,{','.join(columns.values())}.")
        for row in reader:
            try:
                numbers = {split: int(row[column]) for split, column in columns.items()}
            except (TypeError, ValueError):
                raise ValueError(f"{path}: line {reader.line_num} holds a count that is no whole number.") from None
            if numbers.pop("total") != sum(numbers.values()):
                raise ValueError(f"{path}: line {reader.line_num}: the total is not the sum of the splits.")
            if row["code"] in distribution:
                raise ValueError(f"{path}: line {reader.line_num} repeats the code of an earlier line.")
            distribution[row["code"]] = numbers
    return distribution


def _compare_admissions(builder: MIMIC3, split: str, listed: list[int], result: Verification) -> None:
    """Say which listed admissions have no record; in `full`, those without any code are no difference."""
    missing = set(listed) - set(builder.as_dataset(split=split)["hadm_id"])
    coded: set[int] = set()
    if missing and builder.config.name == "full":
        for table, kind in CODE_TABLES.items():
            for hadm_ids, _, _, is_empty in read_codes(builder.tables[table], kind, missing):
                coded.update(hadm_ids.filter(pc.invert(is_empty)).to_pylist())
        uncoded = missing - coded
        missing &= coded
        if uncoded:
            result.notes.append(f"{split}: {len(uncoded):,} listed admissions without a code make no record.")
    if missing:
        why = "a discharge summary" if builder.config.name == "full" else "a discharge summary or one of the 50 codes"
        shown = ", ".join(map(str, sorted(missing)[:3]))
        result.differences.append(f"{split}: {len(missing):,} listed admissions lack {why}, e.g. HADM_ID {shown}.")
