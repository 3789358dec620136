import csv
import gzip

import pytest

from dataset_scripts.builders import mimic3
from dataset_scripts.builders.sources import find_tables
from dataset_scripts.codes.icd9 import add_dot, kind_of
from dataset_scripts.codes.icd9_hierarchy import (
    BLOCKS,
    CHAPTERS,
    CodeFamily,
    family_of,
    load_titles,
    parents_of,
    read_descriptions,
)


@pytest.mark.parametrize(
    ("code", "parents"),
    [
        ("250.00", ("250.0", "250", "249-259", "240-279")),
        ("038.9", ("038", "030-041", "001-139")),
        ("486", ("480-488", "460-519")),
        ("042", ("042-042", "001-139")),
        ("280.1", ("280", "280-289")),  # a chapter without blocks
        ("V45.81", ("V45.8", "V45", "V40-V49", "V01-V91")),
        ("E885.9", ("E885", "E880-E888", "E000-E999")),
        ("E849", ("E849-E849", "E000-E999")),
        ("00.66", ("00.6", "00", "00-00")),
        ("96.71", ("96.7", "96", "87-99")),
        ("17.1", ("17", "17-17")),
    ],
)
def test_parents(code, parents):
    assert parents_of(code) == parents


def test_family():
    assert family_of("250.00") == CodeFamily(chapter="240-279", block="249-259", category="250")
    assert family_of("40.19") == CodeFamily(chapter="40-41", block="40-41", category="40")  # a procedure
    assert family_of("401.9") == CodeFamily(chapter="390-459", block="401-405", category="401")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("4019", "not a dotted ICD-9-CM code"),
        ("000.1", "in no chapter of ICD-9-CM"),
        ("V99.1", "in no chapter"),
        ("001-139", "not a dotted ICD-9-CM code"),
    ],
)
def test_what_is_no_code(code, message):
    with pytest.raises(ValueError, match=message):
        family_of(code)


def test_blocks_lie_in_one_chapter_and_do_not_overlap():
    """Every category of a block is in the block's chapter, and in no other block."""
    seen = set()
    for block in BLOCKS:
        first, last = block.split("-")
        assert family_of(first).block == family_of(last).block == block
        assert family_of(first).chapter == family_of(last).chapter
        assert first not in seen
        seen |= {first, last}
    assert len(CHAPTERS) == 19 + 18


def test_titles_come_from_tables_and_file(tmp_path, no_published_titles):
    for table, code, title in (("DIAGNOSES", "0389", "Septicemia"), ("PROCEDURES", "0066", "PTCA")):
        with gzip.open(tmp_path / f"D_ICD_{table}.csv.gz", "wt") as file:
            file.write(f'"ICD9_CODE","LONG_TITLE"\n"{code}","{title}"\n')
    path = tmp_path / "descriptions.txt"
    path.write_text("@\tRoot\n001-139.99\tINFECTIOUS\n038\tSepticemia, any\n038.9\tAnother title\n")
    titles = mimic3.load_titles(find_tables(str(tmp_path), list(mimic3.TITLE_TABLES)), path)
    assert titles["038.9"] == "Septicemia"
    assert [titles.get(parent) for parent in parents_of("038.9")] == [
        "Septicemia, any", "Other bacterial diseases", "Infectious and parasitic diseases",
    ]  # fmt: skip
    assert load_titles(descriptions_file=path)["038.9"] == "Another title"
    assert "038.9" not in load_titles()


@pytest.mark.parametrize(
    ("text", "message"),
    [("038.9 Septicemia\n", "line 1: A value of 16 characters is not"), ("401\tx\n038.9\n", "line 2 has no tab")],
)
def test_fault_in_descriptions(tmp_path, text, message):
    path = tmp_path / "descriptions.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"descriptions.txt: {message}"):
        read_descriptions(path)
    with pytest.raises(FileNotFoundError, match=r"is not a file: expected ICD9_descriptions.txt"):
        read_descriptions(tmp_path / "none")


# ---- real data


# A published table divides some chapters otherwise: ICD-9-CM ends the mental disorders at 319, has no blocks in 280-289
# and 740-759, one for 170-176, two for 290-299 and for 320-327, and tells E849 and E979 from the rest of theirs.
OTHER_CHAPTERS = {"290-359", "360-389"}
OTHER_BLOCKS = {
    "042-044", "170-175", "176-176", "280-285", "286-287", "288-289", "290-299", "320-327", "740-742", "743-744",
    "745-747", "748-748", "749-751", "752-752", "753-753", "754-756", "757-757", "758-758", "759-759", "E846-E849",
    "E970-E979",
}  # fmt: skip


def test_published_hierarchy(shared_dir):
    """All 8,929 codes of MIMIC-III: the same category, chapter and block, but for the known differences."""
    with open(shared_dir / "data/mimic3_published/mimic3_code_hierarchy.csv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 8929
    differing_chapters, differing_blocks = set(), set()
    for row in rows:
        family = family_of(row["code"])
        assert row["code1"].strip() in (family.category, "")  # none where the code is its own category
        if kind_of(row["code"]) == "procedure":
            assert family.chapter == family.block == row["proc"].strip()
            continue
        chapter = row["diag1"].strip().replace("V01-V99", "V01-V91")
        if family.chapter != chapter:
            differing_chapters.add(chapter)
        if family.block != row["diag2"].strip():
            differing_blocks.add(row["diag2"].strip())
    assert differing_chapters == OTHER_CHAPTERS
    assert differing_blocks == OTHER_BLOCKS


def test_published_descriptions(shared_dir):
    """21,164 rows of CAML's file, of which 191 are the root and ranges of an older edition, and the codes in them."""
    path = shared_dir / "data/icd9/ICD9_descriptions.txt"
    titles = read_descriptions(path)
    assert len(titles) == 21164 - 191
    assert titles["250.0"] == "Diabetes mellitus without mention of complication"
    assert titles["250"] == "Diabetes mellitus"
    for code in titles:
        family_of(code)
    ranges = [line.split("\t")[0] for line in path.read_text().splitlines() if "-" in line.split("\t")[0]]
    shortened = {"-".join(part.split(".")[0] for part in span.split("-")) for span in ranges}
    assert shortened - BLOCKS.keys() - CHAPTERS.keys() == {
        "00-99", "001-999", "800-829", "870-897",  # levels that we do not have
        "050-057", "058-058", "250-259", "530-538", "610-611", "630-677", "E800-E999", "V01-V86",  # since made longer
        "290-299",  # above 290-294 and 295-299
    }  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "number"), [("DX", "diagnosis", 14567), ("SG", "procedure", 3882)])
def test_every_code_has_a_chapter(shared_dir, name, kind, number):
    lines = (shared_dir / f"data/icd9/CMS32_DESC_LONG_{name}.txt").read_text(encoding="latin-1").splitlines()
    codes = [add_dot(line.split()[0], kind) for line in lines if line.strip()]
    assert len(codes) == number
    blocks = {family_of(code).block for code in codes}
    assert kind == "procedure" or BLOCKS.keys() <= blocks
