import logging
import sys

import pytest

from dataset_scripts import CodiEsp
from dataset_scripts.codes import icd9_hierarchy, icd10_hierarchy
from dataset_scripts.codes.classification import ICD9, ICD10, classification_of
from dataset_scripts.codes.icd9_hierarchy import CodeFamily
from dataset_scripts.codes.icd10_hierarchy import CHAPTERS, family_of, load_titles, parents_of


@pytest.fixture
def no_package(monkeypatch):
    """A Python without simple-icd-10-cm, whose absence has not been noticed yet."""
    caches = (icd10_hierarchy._import_tabular, icd10_hierarchy._block_of, icd10_hierarchy._tabular_titles)
    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize(
    ("code", "parents"),
    [
        ("S72.141A", ("S72.141", "S72.14", "S72.1", "S72", "S70-S79", "S00-T88")),
        ("E11.9", ("E11", "E08-E13", "E00-E89")),
        ("I10", ("I10-I1A", "I00-I99")),
        ("B20", ("B20-B20", "A00-B99")),
        ("C7A.010", ("C7A.01", "C7A.0", "C7A", "C7A-C7A", "C00-D49")),
        ("M01.X0", ("M01.X", "M01", "M00-M02", "M00-M99")),  # the innermost block
        ("V43.52XA", ("V43.52", "V43.5", "V43", "V40-V49", "V00-Y99")),
        ("W19.XXXA", ("W19", "W00-W19", "V00-Y99")),
        ("T81.4XX", ("T81.4", "T81", "T80-T88", "S00-T88")),  # as CodiEsp has it, without its last character
        ("T45.1X5A", ("T45.1X5", "T45.1X", "T45.1", "T45", "T36-T50", "S00-T88")),
        ("0BH17EZ", ("0BH-", "0B", "0")),
        ("BW20", ("BW2-", "BW", "B")),
    ],
)
def test_parents(code, parents):
    pytest.importorskip("simple_icd_10_cm")
    assert parents_of(code) == parents


def test_a_table_of_procedures_is_no_category_of_diagnoses():
    """B20 is HIV disease; the table B20 is plain radiography of the heart."""
    assert family_of("B20").category == "B20"
    assert family_of("B2011ZZ").category == "B20-"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("E119.1", "not a dotted ICD-10 code"),
        ("F00.1", "in no chapter of ICD-10-CM"),  # the chapter starts at F01
        ("U99", "in no chapter"),
        ("E1191ZZ", "in no section of ICD-10-PCS"),
        ("A00-B99", "not a dotted ICD-10 code"),
    ],
)
def test_what_is_no_code(code, message):
    with pytest.raises(ValueError, match=message):
        family_of(code)


def test_without_the_package_the_block_is_the_chapter(no_package, no_published_titles, caplog):
    with caplog.at_level(logging.WARNING, logger="dataset_scripts"):
        assert family_of("E11.9") == CodeFamily(chapter="E00-E89", block="E00-E89", category="E11")
        assert parents_of("S72.141A") == ("S72.141", "S72.14", "S72.1", "S72", "S00-T88")
        assert family_of("0BH17EZ") == CodeFamily("0", "0B", "0BH-")
        assert load_titles() == CHAPTERS
    assert caplog.text.count("`pip install simple-icd-10-cm` brings them") == 1


def test_every_code_of_the_package_has_its_parents():
    """98,186 codes of all lengths: the same sub-codes, category, innermost block and chapter, by structure alone."""
    tabular = pytest.importorskip("simple_icd_10_cm")
    items = dict.fromkeys(tabular.get_all_codes())
    codes = [code for code in items if "-" not in code and not tabular.is_chapter(code)]
    assert len(codes) > 90_000
    for code in codes:
        *above, chapter = tabular.get_ancestors(code)
        line = [code, *above]
        # A block of one category has the category's name, and follows it.
        place = next(i for i in range(1, len(line)) if "-" in line[i] or line[i] == line[i - 1])
        block = line[place] if "-" in line[place] else f"{line[place]}-{line[place]}"
        parents = parents_of(code)
        assert parents[:-1] == (*line[1:place], block)
        assert tabular.get_description(chapter) == f"{CHAPTERS[parents[-1]]} ({parents[-1]})"


def test_titles():
    pytest.importorskip("simple_icd_10_cm")
    titles = load_titles()
    assert [titles[parent] for parent in ("E11.9", *parents_of("E11.9"))] == [
        "Type 2 diabetes mellitus without complications",
        "Type 2 diabetes mellitus",
        "Diabetes mellitus",
        "Endocrine, nutritional and metabolic diseases",
    ]
    assert titles["B20-B20"] == titles["B20"] == "Human immunodeficiency virus [HIV] disease"
    assert titles["0"] == "Medical and Surgical"
    assert "9" in titles and len(CHAPTERS) == 22 + 17  # a section, not the package's number of a chapter
    assert titles["9"] == "Chiropractic"


@pytest.mark.parametrize(
    ("codes", "classification"),
    [
        (["401.9", "96.71", "V45.81"], ICD9),
        (["I10", "E11.9", "0BH17EZ"], ICD10),
        (["V45.81", "I10"], ICD10),  # V45.81 alone could be of either
        (["V45.81"], ICD9),
        (["401.9", "I10"], None),
        (["V4581"], None),
        ([], None),
    ],
)
def test_classification_of(codes, classification):
    assert classification_of(codes) is classification


def test_both_editions_have_one_interface():
    assert ICD9.parents_of("250.00") == icd9_hierarchy.parents_of("250.00")
    for edition, code, kind in ((ICD9, "250.00", "diagnosis"), (ICD10, "E11.9", "diagnosis")):
        assert edition.add_dot(code.replace(".", ""), kind) == code
        assert edition.kind_of(code) == kind
        assert edition.family_of(code).chapter in edition.chapters


# ---- real data


def test_every_code_of_codiesp_has_a_family(shared_dir, tmp_path):
    """2,930 codes (diagnoses and procedures of train and dev), 4 characters of most procedures."""
    builder = CodiEsp("both_en", data_dir=shared_dir / "data/codiesp", cache_dir=tmp_path)
    builder.download_and_prepare()
    families = builder.code_families
    assert classification_of(families.keys()) is ICD10
    kinds = {code: ICD10.kind_of(code) for code in families}
    assert {family.category for code, family in families.items() if kinds[code] == "diagnosis"}.isdisjoint(
        family.category for code, family in families.items() if kinds[code] == "procedure"
    )
    tabular = pytest.importorskip("simple_icd_10_cm")
    blocks = {family.block for code, family in families.items() if kinds[code] == "diagnosis"}
    assert all(tabular.is_block(block) or tabular.is_block(block.split("-")[0]) for block in blocks)
