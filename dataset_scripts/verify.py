"""Compares the counts of a build of MIMIC with published ones, to show that every row was read correctly.

The counts per code and split are a table `code,total,train,dev,test`, such as data/mimic3 of xuzhang0112/GKI-ICD has
it for `full` and `top50` of MIMIC-III; the sizes of the splits are those of CAML's lists, and of Edin et al.'s. Their
`clean` has the admissions of `full` but for those with rare codes alone, so that a code's total is the same in both.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from .builders.admissions import MIN_COUNT
from .builders.caml_splits import SPLIT_LISTS, is_official, read_split_list
from .builders.edin_splits import EDIN_DATA, is_edin, read_edin_list
from .builders.mimic3 import CODE_TABLES, MIMIC3, read_codes
from .builders.mimic4 import MIMIC4


@dataclass(frozen=True)
class Published:
    """What is published about a configuration.

    Args:
        dataset (`str`): Whose configuration it is.
        admissions (`Mapping[str, int]`): Of each split.
        codes, codes_in_train (`int`): How many there are; None where that is not published.
        distribution (`str`): Name of the file with the counts per code; `""` where there is none.
        has_totals (`bool`): Whether that file's splits are others, so that only its totals count.
    """

    dataset: str
    admissions: Mapping[str, int]
    codes: int
    codes_in_train: int | None = None
    distribution: str = ""
    has_totals: bool = False


PUBLISHED = {
    "full": Published(
        dataset="mimic3",
        admissions={"train": 47723, "validation": 1631, "test": 3372},
        codes=8929,
        codes_in_train=8692,
        distribution="mimic3_code_distribution.csv",
    ),
    "top50": Published(
        dataset="mimic3",
        admissions={"train": 8066, "validation": 1573, "test": 1729},
        codes=50,
        codes_in_train=50,
        distribution="mimic3_50_code_distribution.csv",
    ),
    "clean": Published(
        dataset="mimic3",
        admissions=EDIN_DATA["clean"].admissions,
        codes=EDIN_DATA["clean"].codes,
        distribution="mimic3_code_distribution.csv",
        has_totals=True,
    ),
    **{
        config: Published(dataset="mimic4", admissions=EDIN_DATA[config].admissions, codes=EDIN_DATA[config].codes)
        for config in ("icd10", "icd9")
    },
}


@dataclass
class Verification:
    """What differs from the published counts, and what is worth knowing although it does not."""

    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(builder: MIMIC3 | MIMIC4, published_dir: str | Path | None = None) -> Verification:
    """Compare a data set that is built with the published counts.

    Args:
        builder (`MIMIC3` or `MIMIC4`): A configuration of `PUBLISHED`, prepared, with split lists.
        published_dir (`str` or `Path`, *optional*):
            Folder with the counts per code and split. Without it, only the numbers of admissions and of codes are
            compared.
    """
    lists = {} if builder.config.unsplit else _read_lists(builder)
    changes_codes = builder.config.codes is not None or builder.config.min_count not in (None, MIN_COUNT)
    if builder.config.name not in PUBLISHED or not lists or changes_codes or builder.config.subset is not None:
        raise ValueError(
            f"No counts are published for configuration {builder.config.name!r} with these options: "
            f"verify one of {', '.join(PUBLISHED)} with the published split lists."
        )
    published = PUBLISHED[builder.config.name]
    result = Verification(differences=_name_other_lists(builder))
    for split, listed in lists.items():
        if len(listed) != published.admissions[split]:
            result.differences.append(
                f"{split}: {len(listed):,} admissions listed, {published.admissions[split]:,} published."
            )
        _compare_admissions(builder, split, listed, result)

    counts = builder.code_counts
    expected = None
    codes, codes_in_train = published.codes, published.codes_in_train
    if published_dir is not None and published.distribution:
        expected = read_distribution(Path(published_dir) / published.distribution)
    if expected is not None and not published.has_totals:
        codes = sum(any(of_code.values()) for of_code in expected.values())
        codes_in_train = sum(of_code["train"] > 0 for of_code in expected.values())
    built = {code: {split: counts[split][code] for split in counts} for code in counts["train"]}
    for what, number, expected_number in (
        ("codes", sum(any(of_code.values()) for of_code in built.values()), codes),
        ("codes in train", sum(of_code["train"] > 0 for of_code in built.values()), codes_in_train),
    ):
        if expected_number is not None and number != expected_number:
            result.differences.append(f"{number:,} {what} built, {expected_number:,} published.")
    if expected is not None:
        compare = _compare_totals if published.has_totals else _compare_counts
        result.differences += compare(built, expected)
    return result


def _read_lists(builder: MIMIC3 | MIMIC4) -> dict[str, list[int]]:
    """The listed admissions of each split; none where the splits come from no list."""
    if builder.edin_lists is not None:
        return read_edin_list(builder.edin_lists.whole)
    paths = builder.split_lists if isinstance(builder, MIMIC3) else {}
    return {split: read_split_list(path) for split, path in paths.items()}


def _name_other_lists(builder: MIMIC3 | MIMIC4) -> list[str]:
    if builder.edin_lists is not None:
        path = builder.edin_lists.whole
        return [] if is_edin(path) else [f"{path} is not Edin et al.'s list: its SHA-256 is another one."]
    paths = builder.split_lists.values() if isinstance(builder, MIMIC3) else ()
    return [f"{path} is not CAML's list: its SHA-256 is another one." for path in paths if not is_official(path)]


def _compare_counts(built: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say which codes have another count in a split."""
    nowhere = dict.fromkeys(SPLIT_LISTS, 0)
    return [
        f"{code} in {split}: {have:,} admissions built, {want:,} published."
        for code in sorted(built.keys() | expected.keys())
        for split in SPLIT_LISTS
        if (have := built.get(code, nowhere)[split]) != (want := expected.get(code, nowhere)[split])
    ]


def _compare_totals(built: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say which frequent codes have another count over all splits."""
    have = {code: sum(of_code.values()) for code, of_code in built.items()}
    want = {code: total for code, of_code in expected.items() if (total := sum(of_code.values())) >= MIN_COUNT}
    return [
        f"{code}: {have.get(code, 0):,} admissions built, {want.get(code, 0):,} published."
        for code in sorted(have.keys() | want.keys())
        if have.get(code, 0) != want.get(code, 0)
    ]


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


def _compare_admissions(builder: MIMIC3 | MIMIC4, split: str, listed: list[int], result: Verification) -> None:
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
        codes = "50 codes" if builder.config.name == "top50" else "frequent codes"
        why = "a discharge summary" if builder.config.name == "full" else f"a discharge summary or one of the {codes}"
        shown = ", ".join(map(str, sorted(missing)[:3]))
        result.differences.append(f"{split}: {len(missing):,} listed admissions lack {why}, e.g. HADM_ID {shown}.")
