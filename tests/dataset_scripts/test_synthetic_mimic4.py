"""The synthetic corpus in MIMIC-IV's format: its bytes, its two editions of ICD, evidence that is where it says."""

import csv
import gzip
import json
import re
from collections import defaultdict

import pytest

from dataset_scripts.codes import icd9, icd10
from dataset_scripts.marker import MARKER_FILE
from dataset_scripts.synthetic.__main__ import main
from dataset_scripts.synthetic.admissions import plan_admissions
from dataset_scripts.synthetic.content import read_content
from dataset_scripts.synthetic.marks import Note
from dataset_scripts.synthetic.mimic4 import CORPUS_FILES, TABLES, blank_marks, write_corpus


CONCEPTS = read_content().concepts
ICD10_CODES = {concept.code: (concept.icd10, concept.icd10_title) for concept in CONCEPTS.values() if concept.icd10}
NUM_ADMISSIONS = 300


def read_table(folder, table):
    with gzip.open(folder / f"{table}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, NUM_ADMISSIONS, seed=3, length="short", mixed_rate=0.03, show_progress=False)
    return folder


def test_codes_of_the_concepts():
    codes = [code for code, _ in ICD10_CODES.values()]
    assert len(set(codes)) == len(codes) == 175
    procedures = [code for code in codes if icd10.kind_of(code) == "procedure"]
    assert {code[:3] for code in procedures} == read_content().procedure_tables.keys() and len(procedures) == 22


def test_titles_of_diagnoses_are_those_of_the_tabular_list():
    tabular = pytest.importorskip("simple_icd_10_cm")
    for code, title in ICD10_CODES.values():
        if icd10.kind_of(code) == "diagnosis":
            assert tabular.get_description(code) == title


def test_same_arguments_give_the_same_bytes(corpus, tmp_path):
    write_corpus(tmp_path, NUM_ADMISSIONS, seed=3, length="short", mixed_rate=0.03, show_progress=False)
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert written.keys() == set(CORPUS_FILES)
    assert written == {name: (corpus / name).read_bytes() for name in CORPUS_FILES}


def test_the_marker_says_what_it_is(corpus):
    marker = json.loads((corpus / MARKER_FILE).read_text())
    assert "contains no patient data. Not MIMIC-IV" in marker["notice"]
    assert (marker["num_admissions"], marker["seed"], marker["mixed_rate"]) == (NUM_ADMISSIONS, 3, 0.03)


def test_headers_and_rows_are_those_of_mimic4(corpus):
    lines = {name: gzip.decompress((corpus / f"{name}.csv.gz").read_bytes()).decode().split("\n") for name in TABLES}
    assert lines["note/discharge"][0] == "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"
    assert re.match(r'(1\d{7})-DS-1,\1,2\d{7},DS,1,2\d{3}-\d\d-\d\d 00:00:00,.{19},"', lines["note/discharge"][1])
    assert lines["hosp/diagnoses_icd"][0] == "subject_id,hadm_id,seq_num,icd_code,icd_version"
    assert lines["hosp/procedures_icd"][0] == "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version"
    for line in lines["hosp/diagnoses_icd"][1:-1]:
        assert re.fullmatch(r"1\d{7},2\d{7},\d+,([EV]?\d{2,5},9|[A-Z]\d[0-9A-Z]{1,5},10)", line)
    assert '"' not in lines["hosp/diagnoses_icd"][1] and any(",0389,9" in line for line in lines["hosp/diagnoses_icd"])
    assert "[**" not in "".join(lines["note/discharge"])


def test_editions(corpus):
    """By admission, ICD-9 and then ICD-10; codes of both in a few; every code with a title."""
    editions = defaultdict(set)
    titles = {
        (row["icd_code"], row["icd_version"], name[11:])
        for name in ("hosp/d_icd_diagnoses", "hosp/d_icd_procedures")
        for row in read_table(corpus, name)
    }
    for name in ("hosp/diagnoses_icd", "hosp/procedures_icd"):
        for row in read_table(corpus, name):
            editions[row["hadm_id"]].add(row["icd_version"])
            assert (row["icd_code"], row["icd_version"], name[5:].removesuffix("_icd")) in titles
    kinds = [tuple(sorted(found)) for found in editions.values()]
    assert len(kinds) == NUM_ADMISSIONS
    assert min(kinds.count(("9",)), kinds.count(("10",))) > NUM_ADMISSIONS / 3
    assert 0 < kinds.count(("10", "9")) < NUM_ADMISSIONS / 10
    in_order = defaultdict(list)
    for row in read_table(corpus, "note/discharge"):
        if row["note_type"] == "DS" and len(editions[row["hadm_id"]]) == 1:
            in_order[row["subject_id"]].append(max(editions[row["hadm_id"]], key=int))
    assert all(sorted(found, key=int) == found for found in in_order.values())


def test_the_admissions_are_those_of_the_other_corpus(corpus):
    rows = [row for row in read_table(corpus, "note/discharge") if row["note_type"] == "DS"]
    planned = [admission for admission, _ in plan_admissions(NUM_ADMISSIONS, 3, (1, 0, 0))]
    assert [int(row["hadm_id"]) - 20_000_000 for row in rows] == [admission.hadm_id for admission in planned]
    codes = defaultdict(set)
    for row in read_table(corpus, "hosp/diagnoses_icd"):
        codes[int(row["hadm_id"])].add((row["icd_code"], row["icd_version"]))
    for admission in planned:
        of_admission = codes[20_000_000 + admission.hadm_id]
        if {version for _, version in of_admission} == {"9"}:
            diagnoses = {CONCEPTS[code].undotted for code in admission.codes if not CONCEPTS[code].is_procedure}
            assert {code for code, _ in of_admission} in (diagnoses, set())


def test_evidence_is_where_it_says(corpus):
    """Each code of an admission has a span in one of its notes, and the span's words are those of the concept."""
    texts = {row["note_id"]: row["text"] for row in read_table(corpus, "note/discharge")}
    shown = defaultdict(set)
    with gzip.open(corpus / "evidence.jsonl.gz", "rt") as file:
        entries = [json.loads(line) for line in file]
    assert [entry["note_id"] for entry in entries] == list(texts)
    words = set()
    for entry in entries:
        shown[entry["hadm_id"]] |= entry["codes"].keys()
        for code, spans in entry["codes"].items():
            for start, end in spans:
                span = texts[entry["note_id"]][start:end]
                assert span == span.strip() != ""
                if code == "I10":
                    words.add(span.lower())
    assert words & {"hypertension", "htn"}
    for table, kind in (("hosp/diagnoses_icd", "diagnosis"), ("hosp/procedures_icd", "procedure")):
        for row in read_table(corpus, table):
            code = {"9": icd9, "10": icd10}[row["icd_version"]].add_dot(row["icd_code"], kind)
            other = {c9: c10 for c9, (c10, _) in ICD10_CODES.items()} | {
                c10: c9 for c9, (c10, _) in ICD10_CODES.items()
            }
            assert {code, other.get(code)} & shown[int(row["hadm_id"])]


def test_blank_marks_by_hand():
    text = "Seen [**2101-1-1**], MI [**2095**] and CAD."
    note = blank_marks(Note(text, {"412": [[21, 34]], "414.01": [[39, 42]]}, {"x": [[0, 4]]}))
    assert note.text == "Seen ___, MI ___ and CAD."
    assert [note.text[start:end] for start, end in (note.evidence["412"][0], note.evidence["414.01"][0])] == [
        "MI ___",
        "CAD",
    ]
    assert note.distractors == {"x": [[0, 4]]}


def test_real_tables_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "hosp").mkdir()
    (tmp_path / "hosp" / "diagnoses_icd.csv").write_text("real")
    assert main(["--format", "mimic4", "--output_dir", str(tmp_path), "--num_admissions", "3"]) == 2
    assert "holds diagnoses_icd.csv but no SYNTHETIC file, so it looks like real MIMIC" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["hosp"]
    assert (
        main(
            ["--format", "mimic4", "--output_dir", str(tmp_path / "new"), "--num_admissions", "3", "--icd10_rate", "2"]
        )
        == 2
    )
    assert "`icd10_rate` (2.0) must be between 0 and 1" in capsys.readouterr().err
    assert main(["--format", "mimic4", "--output_dir", str(tmp_path / "new"), "--num_admissions", "3"]) == 0
    assert "3 admissions of" in capsys.readouterr().out
