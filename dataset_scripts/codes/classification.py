"""One interface to ICD-9-CM and ICD-10 (kinds, dots, hierarchy); tells which of the two a set of codes is of."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from . import icd9, icd9_hierarchy, icd10, icd10_hierarchy
from .icd9 import Kind
from .icd9_hierarchy import CodeFamily


@dataclass(frozen=True)
class Classification:
    """An edition of ICD: diagnoses and procedures with their dots.

    Args:
        name (`str`): What to call it.
        add_dot, kind_of (`Callable`): See `icd9.py`.
        family_of, parents_of (`Callable`): See `icd9_hierarchy.py`.
        chapters (`Mapping[str, str]`): Titles of the chapters.
        load_titles (`Callable`): Titles by dotted code or range, as far as the installed packages have them.
        load_terms (`Callable`): Other terms for a code, by dotted code; only codes that have some.
    """

    name: str
    add_dot: Callable[[str, Kind], str]
    kind_of: Callable[[str], Kind]
    family_of: Callable[[str], CodeFamily]
    parents_of: Callable[[str], tuple[str, ...]]
    chapters: Mapping[str, str]
    load_titles: Callable[[], dict[str, str]]
    load_terms: Callable[[], dict[str, list[str]]]


ICD9 = Classification(
    "ICD-9-CM",
    icd9.add_dot,
    icd9.kind_of,
    icd9_hierarchy.family_of,
    icd9_hierarchy.parents_of,
    icd9_hierarchy.CHAPTERS,
    icd9_hierarchy.load_titles,
    dict,
)
ICD10 = Classification(
    "ICD-10",
    icd10.add_dot,
    icd10.kind_of,
    icd10_hierarchy.family_of,
    icd10_hierarchy.parents_of,
    icd10_hierarchy.CHAPTERS,
    icd10_hierarchy.load_titles,
    icd10_hierarchy.load_synonyms,
)


def classification_of(codes: Collection[str]) -> Classification | None:
    """Find the classification that all of some dotted codes belong to; None if there is none, or no code.

    A few codes belong to both (V45.0 is a pacemaker in ICD-9-CM and a car accident in ICD-10-CM). A set of nothing
    else is taken for ICD-9-CM.
    """
    for classification in (ICD9, ICD10) if codes else ():
        try:
            for code in codes:
                classification.family_of(code)
        except ValueError:
            continue
        return classification
    return None
