"""Which notes make a text: addenda, sections, categories, CareVue alone."""

import gzip
import re

import pytest
import test_mimic4
from mimic3_tables import TEXTS, codes_of, rewrite, write_table
from test_mimic4 import HEADERS, path_of

from dataset_scripts import MIMIC4, load_split
from dataset_scripts.builders.sections import HEADINGS, PREAMBLE, SectionFilter, check_sections
from dataset_scripts.synthetic import write_corpus


tables4 = test_mimic4.folder  # the fixture, beside that of MIMIC-III

NOTE = """\
Admission Date: [**2101-1-1**]   Discharge Date: [**2101-1-5**]

Sex:   F
HISTORY OF PRESENT ILLNESS:  Cough.
Physical Exam:
HEENT: normal
Brief Hospital Course:
# Pneumonia: treated.
Social History: lives alone
"""


@pytest.fixture
def build4(tables4, tmp_path):
    def build(**options):
        options = {"unsplit": True, "min_count": 1, "splits": "stratified", **options}
        builder = MIMIC4("icd10", data_dir=tables4, cache_dir=tmp_path / "cache", **options)
        builder.download_and_prepare()
        return builder

    return build


def texts_of(builder, split="unsplit"):
    return {record["hadm_id"]: record["text"] for record in builder.as_dataset(split=split)}


# ---- sections


def test_sections_by_hand():
    sections = SectionFilter(["hospital course"])
    assert "".join(part for _, part in sections.divide(NOTE)) == NOTE
    assert [name for name, _ in sections.divide(NOTE)] == [
        PREAMBLE, "admission date", "sex", "history of present illness", "physical exam", "hospital course", "social history",
    ]  # fmt: skip
    assert sections.cut(NOTE) == "Brief Hospital Course:\n# Pneumonia: treated.\n"
    assert SectionFilter(["-hospital course", "-physical exam"]).cut(NOTE) == NOTE.replace(
        "Physical Exam:\nHEENT: normal\nBrief Hospital Course:\n# Pneumonia: treated.\n", ""
    )
    # A heading of the user's own; with it, the exam ends where it begins.
    assert SectionFilter(["heent"]).cut(NOTE) == "HEENT: normal\n"
    assert SectionFilter(["physical exam", "heent"]).cut(NOTE) == "Physical Exam:\nHEENT: normal\n"
    assert SectionFilter(["preamble"]).cut("Seen today.\nSex: F") == "Seen today.\n"


def test_every_heading_is_in_lower_case_and_once():
    headings = [heading for names in HEADINGS.values() for heading in names]
    assert len(set(headings)) == len(headings)
    assert all(heading == " ".join(heading.lower().split()) for heading in headings)
    assert all(name in names for name, names in HEADINGS.items() if name != "procedures")


@pytest.mark.parametrize("sections", [[], ["-"], ["hospital course", "-social history"], ["", "service"]])
def test_wrong_sections(sections):
    with pytest.raises(ValueError, match="`sections` must be names of sections to keep"):
        check_sections(sections)


def test_share_of_the_text_that_goes(build, folder):
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"In no split list.", b"Sex: F\nService: M\n"))
    builder = build(unsplit=True, sections=["-Sex", "-service"])
    kept = texts_of(builder)
    assert kept == TEXTS  # 106 has nothing left
    said = builder.info.description
    assert "Of the sections of a note these are left out: service, sex." in said
    everything = [*TEXTS.values(), "An admission without codes.", "Sex: F\nService: M\n"]
    share = 18 / (sum(map(len, everything)) - len("\n\n"))  # 102 has two rows
    assert f"left out, characters of other sections ({share:.1%} of the text): 18;" in said
    assert "note rows in which no section has a known heading: 5;" in said
    assert "left out, admissions without a text: 1;" in said
    assert len(list(builder.as_streaming_dataset(split="unsplit"))) == len(TEXTS)
    assert builder.info.description == said  # counted anew


def test_a_section_that_no_note_has_is_named(build, folder):
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"In no split list.", b"Sex: F\nService: M\nStay"))
    there = "preamble 5, service 1, sex 1"
    absent = f"note rows without a section 'hospital corse', so all of them (the sections that they have: {there}): 6;"
    assert absent in build(unsplit=True, sections=["-Sex", "-hospital corse"]).info.description
    for section in ("hospital corse", "-hospital corse"):
        with pytest.raises(
            ValueError, match=f"`sections`: no note has 'hospital corse'. .* 6 rows .*: {there}. Spell"
        ):
            build(sections=[section])
    kept = build(unsplit=True, sections=["sex", "service"])
    assert "without a section" not in kept.info.description
    assert texts_of(kept) == {106: "Sex: F\nService: M\nStay"}


def test_sections_of_the_invented_corpora(tmp_path):
    """Nearly every note has its sections found, whatever the wording of their headings."""
    write_corpus(tmp_path / "corpus", num_admissions=60, length="short", show_progress=False)
    options = {"data_dir": tmp_path / "corpus", "cache_dir": tmp_path / "cache"}
    whole = load_split("mimic3", "all", **options)
    course = load_split("mimic3", "all", sections=["hospital course"], text="caml", **options)
    assert set(course["hadm_id"]) == set(whole["hadm_id"])
    assert all(re.match(r"(brief )?hospital course ", text) for text in course["text"])
    without = load_split("mimic3", "all", sections=["-hospital course"], **options)
    for full, rest in zip(whole["text"], without["text"], strict=True):
        assert len(rest) < len(full)
        assert not re.search("hospital course:", rest, re.IGNORECASE)


def test_texts_that_differ_in_what_is_cut_are_not_one_twice(build4, tables4):
    """In MIMIC-IV a row that repeats a text goes: what repeats it only once sections are cut stays, and is no fault."""
    path = path_of(tables4, "discharge")
    for number in (b"First", b"Second"):
        cell = b'"Sex: F\nAllergies: ' + number + b'"'
        rewrite(path, lambda data, number=number, cell=cell: data.replace(number + b" report.", cell))
    builder = build4(sections=["sex"])
    assert texts_of(builder)[102] == "Sex: F\n\n\nSex: F\n"
    assert "left out, rows that repeat another one's text: 1;" in builder.info.description  # as without the option
    rewrite(path, lambda data: data.replace(b"102,DS,2,", b"102,DS,1,"))
    with pytest.raises(ValueError, match="two different texts of hadm_id 102 have one note_type"):
        build4(sections=["sex"])


# ---- addenda and categories


def test_addenda_are_left_out(build):
    builder = build(addenda=False)
    assert texts_of(builder, "validation") == {102: "Report that comes second."}
    assert "Addenda are left out." in builder.info.description
    assert "left out, addenda: 1;" in builder.info.description


def test_addenda_of_mimic4_are_left_out(build4):
    assert texts_of(build4(addenda=False))[102] == "First report.\n\nSecond report."


def test_addenda_need_their_column(build, folder):
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"DESCRIPTION", b"KIND", 1))
    build()
    with pytest.raises(ValueError, match=r"record 1 must be the header and name DESCRIPTION once"):
        build(addenda=False)


def test_other_categories_of_mimic3(build):
    builder = build(note_categories=["Discharge summary", "nursing"])
    assert texts_of(builder, "train") == {101: f"{TEXTS[101]}\n\nA nurse's note."}
    assert "The text is that of these notes: discharge summary, nursing." in builder.info.description
    with pytest.raises(ValueError, match="none of its 1 admissions has a"):
        build(note_categories=["nursing"])  # 101 alone has one
    with pytest.raises(ValueError, match=r"`note_categories` \(nurse\) must be some of case management, consult"):
        build(note_categories=["nurse"])


def test_radiology_of_mimic4(build4, tables4):
    rows = [
        ("1-RR-5", 1, 101, "RR", 5, "", "", "Chest: clear."), ("1-AR-6", 1, 101, "AR", 6, "", "", "Addendum: really."),
        ("2-RR-1", 2, "", "RR", 1, "", "", "Outside."),
    ]  # fmt: skip
    write_table(path_of(tables4, "discharge").with_name("radiology.csv.gz"), HEADERS["discharge"].split(","), rows)
    assert texts_of(build4())[101] == test_mimic4.TEXTS[101]
    both = build4(note_categories=["radiology", "discharge"])
    assert texts_of(both)[101] == f"{test_mimic4.TEXTS[101]}\n\nChest: clear.\n\nAddendum: really."
    assert "left out, note rows without an admission id: 2;" in both.info.description
    alone = build4(note_categories=["radiology"], addenda=False)
    assert texts_of(alone) == {101: "Chest: clear."}


# ---- nothing left


@pytest.mark.parametrize("rule", ["caml", "edin"])
def test_notes_of_which_no_word_is_left(build, folder, rule):
    rewrite(folder / "NOTEEVENTS.csv.gz", lambda data: data.replace(b"In no split list.", b"12345 ---"))
    builder = build(unsplit=True, text=rule)
    assert texts_of(builder).keys() == {101, 102, 103}
    assert "left out, admissions without a text: 1;" in builder.info.description


@pytest.mark.parametrize("rule", ["caml", "edin"])
def test_notes_of_mimic4_of_which_no_word_is_left(build4, tables4, rule):
    rewrite(path_of(tables4, "discharge"), lambda data: data.replace(b"Back again, ten years later.", b"12/3 ___"))
    assert texts_of(build4()).keys() == {101, 102, 109}
    builder = build4(text=rule)
    assert texts_of(builder).keys() == {101, 102}
    assert "left out, admissions without a text: 1;" in builder.info.description


# ---- CareVue


def test_carevue_alone(build, folder):
    with pytest.raises(FileNotFoundError, match=r"No ICUSTAYS.csv.gz"):
        build(carevue=True, unsplit=True)
    stays = [(1, "carevue"), (1, "metavision"), (2, "carevue"), (3, "both"), (6, "carevue"), (9, "carevue")]
    write_table(folder / "ICUSTAYS.csv.gz", ["SUBJECT_ID", "DBSOURCE"], stays)
    builder = build(carevue=True, unsplit=True)
    assert codes_of(builder.as_dataset(split="unsplit")).keys() == {102, 106}
    assert "Only subjects all of whose ICU stays are recorded in CareVue." in builder.info.description
    assert "admissions of subjects with an ICU stay outside of CareVue, or with none: 3;" in builder.info.description
    with gzip.open(folder / "ICUSTAYS.csv.gz", "wt") as file:
        file.write("SUBJECT_ID,DBSOURCE\n1,philips\n")
    with pytest.raises(ValueError, match="DBSOURCE of record 2 is none of these: carevue, metavision, both"):
        build(carevue=True, unsplit=True)
