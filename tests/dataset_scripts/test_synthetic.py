"""The synthetic corpus: the bytes of MIMIC-III v1.4, codes that exist, evidence that is where it says, and hard notes."""

import csv
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dataset_scripts.marker import MARKER_FILE
from dataset_scripts.synthetic import LENGTHS, write_corpus
from dataset_scripts.synthetic.admissions import SPLITS
from dataset_scripts.synthetic.checks import BRACKETED
from dataset_scripts.synthetic.content import read_content
from dataset_scripts.synthetic.entries import Concept
from dataset_scripts.synthetic.folder import PARTIAL_FOLDER
from dataset_scripts.synthetic.marks import finish_note, mark
from dataset_scripts.synthetic.mimic3 import CORPUS_FILES, TABLES, _csv_row
from dataset_scripts.synthetic.notes import NoteWriter


CONCEPTS, RULES, LABS = read_content().concepts, read_content().rules, read_content().labs
PROJECT = Path(__file__).resolve().parents[2]
NUM_ADMISSIONS = 600


def read_table(folder: Path, table: str) -> list[dict[str, str]]:
    with gzip.open(folder / f"{table}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_evidence(folder: Path) -> list[dict]:
    with gzip.open(folder / "evidence.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, NUM_ADMISSIONS, seed=3, length="short", show_progress=False)
    return folder


@pytest.fixture(scope="module")
def codes_of(corpus) -> dict[str, set[str]]:
    """HADM_ID to dotted codes."""
    dotted = {(concept.undotted, concept.is_procedure): concept.code for concept in CONCEPTS.values()}
    codes = defaultdict(set)
    for table, is_procedure in (("DIAGNOSES_ICD", False), ("PROCEDURES_ICD", True)):
        for row in read_table(corpus, table):
            codes[row["HADM_ID"]].add(dotted[row["ICD9_CODE"], is_procedure])
    return codes


# ----------------------------------------------------------------------------------------------------------------------
# The concepts


def test_there_are_enough_codes_of_both_sorts():
    procedures = [concept for concept in CONCEPTS.values() if concept.is_procedure]
    assert len(CONCEPTS) >= 150
    assert len(procedures) >= 40
    assert sum(concept.code.startswith("V") for concept in CONCEPTS.values()) >= 10
    assert sum(concept.code.startswith("E") for concept in CONCEPTS.values()) >= 5


def test_numbers_and_titles_are_those_of_the_cms_tables():
    shared = Path(os.environ.get("ICD_SHARED", PROJECT.parent / "shared"))
    files = {False: shared / "data/icd9/CMS32_DESC_LONG_DX.txt", True: shared / "data/icd9/CMS32_DESC_LONG_SG.txt"}
    if not all(path.exists() for path in files.values()):
        pytest.skip(f"the CMS tables are not in {shared}/data/icd9; set ICD_SHARED to the folder that holds data/")
    for is_procedure, path in files.items():
        titles = dict(line.split(maxsplit=1) for line in path.read_text(encoding="latin-1").splitlines() if line)
        for concept in CONCEPTS.values():
            if concept.is_procedure == is_procedure:
                assert titles[concept.undotted].strip() == concept.long_title, concept.code
                before_dot = concept.code.partition(".")[0]
                assert len(before_dot) == (2 if is_procedure else 4 if concept.code[0] == "E" else 3), concept.code


# ----------------------------------------------------------------------------------------------------------------------
# The files


def test_same_arguments_give_the_same_bytes(corpus, tmp_path):
    write_corpus(tmp_path, NUM_ADMISSIONS, seed=3, length="short", show_progress=False)
    assert read_bytes(tmp_path) == read_bytes(corpus)
    assert set(read_bytes(corpus)) == set(CORPUS_FILES)


def test_another_seed_gives_other_notes(tmp_path):
    for seed in (0, 1):
        write_corpus(tmp_path / str(seed), 5, seed=seed, show_progress=False)
    texts = [{row["TEXT"] for row in read_table(tmp_path / str(seed), "NOTEEVENTS")} for seed in (0, 1)]
    assert texts[0].isdisjoint(texts[1])


def test_gzip_headers_hold_no_time_and_the_plain_name(corpus):
    packed = (corpus / "NOTEEVENTS.csv.gz").read_bytes()
    assert packed[4:8] == b"\0\0\0\0"
    assert packed[10:].startswith(b"NOTEEVENTS.csv\0")


def test_headers_and_quoting_are_those_of_mimic3(corpus):
    tables = {name: gzip.decompress((corpus / f"{name}.csv.gz").read_bytes()).decode() for name in TABLES}
    header = '"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CHARTTIME","STORETIME","CATEGORY","DESCRIPTION",'
    assert tables["NOTEEVENTS"].startswith(header + '"CGID","ISERROR","TEXT"\n1,1,')
    first_row = tables["NOTEEVENTS"].split("\n")[1]
    assert re.match(r'1,1,\d{6},2\d{3}-\d\d-\d\d,,,"Discharge summary","Report",,,"\S', first_row)
    for name in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        lines = tables[name].splitlines()
        assert lines[0] == '"ROW_ID","SUBJECT_ID","HADM_ID","SEQ_NUM","ICD9_CODE"'
        assert all(re.fullmatch(r'\d+,\d+,\d{6},\d+,"[EV]?\d{2,5}"', line) for line in lines[1:])
    for name in ("D_ICD_DIAGNOSES", "D_ICD_PROCEDURES"):
        lines = tables[name].splitlines()
        assert lines[0] == '"ROW_ID","ICD9_CODE","SHORT_TITLE","LONG_TITLE"'
        assert all(re.fullmatch(r'\d+,"[EV]?\d{2,5}",".*",".*"', line) for line in lines[1:])
    assert '"0389"' in tables["DIAGNOSES_ICD"]  # leading zeros stay
    assert not any("\r" in text for text in tables.values())


def test_quotes_in_text_are_doubled():
    assert _csv_row((1, None, 'a "b"\nc', "1")) == '1,,"a ""b""\nc","1"\n'


def test_ids_agree_between_tables(corpus):
    notes = read_table(corpus, "NOTEEVENTS")
    summaries = [row for row in notes if row["CATEGORY"] == "Discharge summary"]
    subject_of = {row["HADM_ID"]: row["SUBJECT_ID"] for row in summaries}
    assert len(subject_of) == NUM_ADMISSIONS
    assert len(set(subject_of.values())) < NUM_ADMISSIONS  # some subjects come back
    assert [row["ROW_ID"] for row in notes] == [str(number) for number in range(1, len(notes) + 1)]
    assert Counter(row["HADM_ID"] for row in summaries if row["DESCRIPTION"] == "Report").most_common(1)[0][1] == 1
    assert {row["DESCRIPTION"] for row in summaries} == {"Report", "Addendum"}
    dictionaries = {
        "DIAGNOSES_ICD": {row["ICD9_CODE"] for row in read_table(corpus, "D_ICD_DIAGNOSES")},
        "PROCEDURES_ICD": {row["ICD9_CODE"] for row in read_table(corpus, "D_ICD_PROCEDURES")},
    }
    for table, known in dictionaries.items():
        sequences = defaultdict(list)
        for row in read_table(corpus, table):
            assert subject_of[row["HADM_ID"]] == row["SUBJECT_ID"]
            assert row["ICD9_CODE"] in known
            sequences[row["HADM_ID"]].append(int(row["SEQ_NUM"]))
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sequences.values())


def test_rows_to_be_left_out_are_there(corpus):
    others = [row for row in read_table(corpus, "NOTEEVENTS") if row["CATEGORY"] != "Discharge summary"]
    assert {row["CATEGORY"] for row in others} == {"Nursing/other", "Radiology"}
    assert 0 < len(others) < NUM_ADMISSIONS / 4
    assert {row["ISERROR"] for row in others} == {"", "1"}
    assert any(row["HADM_ID"] == "" for row in others)


def test_no_subject_is_in_two_splits(corpus):
    subject_of = {row["HADM_ID"]: row["SUBJECT_ID"] for row in read_table(corpus, "NOTEEVENTS")}
    ids = {split: (corpus / f"{split}_full_hadm_ids.csv").read_text().split() for split in SPLITS}
    subjects = {split: {subject_of[hadm_id] for hadm_id in ids[split]} for split in SPLITS}
    assert sum(len(set(hadm_ids)) for hadm_ids in ids.values()) == NUM_ADMISSIONS
    for one, other in itertools.combinations(SPLITS, 2):
        assert subjects[one].isdisjoint(subjects[other])
    # 80 / 8 / 12 % of 600, to within a subject's three admissions
    for split, expected in zip(SPLITS, (480, 48, 72), strict=True):
        assert abs(len(ids[split]) - expected) <= 3


def test_lists_of_the_top_50_codes(corpus, codes_of):
    top = (corpus / "TOP_50_CODES.csv").read_text().split()
    train = (corpus / "train_full_hadm_ids.csv").read_text().split()
    counts = Counter(code for hadm_id in train for code in codes_of[hadm_id])
    assert len(set(top)) == 50
    assert min(counts[code] for code in top) >= max(counts[code] for code in set(CONCEPTS) - set(top))
    for split in SPLITS:
        full = (corpus / f"{split}_full_hadm_ids.csv").read_text().split()
        some = (corpus / f"{split}_50_hadm_ids.csv").read_text().split()
        assert some == [hadm_id for hadm_id in full if codes_of[hadm_id] & set(top)]


# ----------------------------------------------------------------------------------------------------------------------
# Codes and words


def test_codes_follow_a_long_tail_and_the_rules(codes_of):
    counts = [count for _, count in Counter(code for codes in codes_of.values() for code in codes).most_common()]
    assert 7.5 <= sum(counts) / NUM_ADMISSIONS <= 12
    assert 0.3 <= counts[0] / NUM_ADMISSIONS <= 0.45
    # About halved from rank 1 to 10, from 10 to 50 and from 50 to 150.
    assert counts[0] > 1.5 * counts[9] > 3 * counts[49] > 5 * counts[149]
    for codes in codes_of.values():
        assert all(len(codes.intersection(group)) <= 1 for group in RULES.exclusive)
        assert all(codes.intersection(needed) for code, needed in RULES.requires.items() if code in codes)


def test_codes_of_one_theme_come_together(codes_of):
    def share(code: str, among: list[set[str]]) -> float:
        return sum(code in codes for codes in among) / len(among)

    everyone = list(codes_of.values())
    shocked = [codes for codes in everyone if "785.52" in codes]
    assert share("584.9", shocked) > share("584.9", everyone)
    assert share("038.9", shocked) == 1


def surface_patterns(concept: Concept) -> list[re.Pattern[str]]:
    """What a mention of the concept may look like, white space and case aside."""
    sentences = [part for text in (*concept.says, *concept.rejects) for part in BRACKETED.findall(text)]
    forms = [*concept.terms, *concept.rare, *concept.drugs, *sentences]
    return [re.compile(re.sub(r"\\\{\w+\\\}", r"[\\w.-]+", re.escape(form)), re.IGNORECASE) for form in forms]


def is_abnormal(concept: Concept, words: str) -> bool:
    """Whether the words are a result of the concept's laboratory test that shows it."""
    name, direction = concept.lab.split(":")
    lab = LABS[name]
    named = next(
        (known for known in sorted(lab.names, key=len, reverse=True) if words.casefold().startswith(known.casefold())),
        None,
    )
    if named is None:
        return False
    values = [float(value) for value in re.findall(r"\d+(?:\.\d+)?", re.sub(r"on day \d", "", words[len(named) :]))]
    if lab.trend:
        return max(values) - min(values) > (1.5 if direction == "rise" else 2) and len(values) == 2
    low, high = lab.abnormal[direction]
    return low <= values[0] <= high


def test_every_span_is_a_mention_of_its_code(corpus, codes_of):
    texts = {row["ROW_ID"]: row for row in read_table(corpus, "NOTEEVENTS")}
    patterns = {code: surface_patterns(concept) for code, concept in CONCEPTS.items()}
    shown = defaultdict(set)
    for line in read_evidence(corpus):
        row = texts[str(line["row_id"])]
        assert row["HADM_ID"] == str(line["hadm_id"])
        for kind in ("codes", "distractors"):
            for code, spans in line[kind].items():
                for start, end in spans:
                    words = " ".join(row["TEXT"][start:end].split())
                    named = any(pattern.fullmatch(words) for pattern in patterns[code])
                    assert named or is_abnormal(CONCEPTS[code], words), (code, words)
        shown[row["HADM_ID"]].update(line["codes"])
    assert shown == codes_of  # every assigned code is shown somewhere, and no other


def test_mentions_that_justify_nothing_are_common(corpus, codes_of):
    lines = read_evidence(corpus)
    evidence = sum(len(spans) for line in lines for spans in line["codes"].values())
    misleading = sum(
        len(spans)
        for line in lines
        for code, spans in line["distractors"].items()
        if code not in codes_of[str(line["hadm_id"])]
    )
    assert 0.45 < misleading / evidence < 1.5


def test_denied_and_family_mentions_are_of_codes_not_assigned(corpus, codes_of):
    texts = {row["ROW_ID"]: row["TEXT"] for row in read_table(corpus, "NOTEEVENTS")}
    found: Counter[str] = Counter()
    for line in read_evidence(corpus):
        for code, spans in line["distractors"].items():
            if code in codes_of[str(line["hadm_id"])]:
                continue
            for start, end in spans:
                before = " ".join(texts[str(line["row_id"])][max(0, start - 40) : start].split())
                after = " ".join(texts[str(line["row_id"])][end : end + 40].split())
                found["negated"] += bool(re.search(r"\b(no|denies|without|w/o|negative for|neg for)\b", before))
                found["ruled out"] += bool(re.search(r"ruled out|excluded|work-up was neg", after))
                found["family"] += bool(re.search(r"(?i)mother|father|sister|brother|uncle|aunt", before))
                found["past"] += bool(re.search(r"^,? (resolved|in \[\*\*2)", after))
    for way in ("negated", "ruled out", "family", "past"):
        assert found[way] > 10, (way, found)


def test_some_codes_are_shown_by_a_drug_or_a_result_alone(corpus):
    by_drug = by_lab = 0
    texts = {row["ROW_ID"]: row["TEXT"] for row in read_table(corpus, "NOTEEVENTS")}
    for line in read_evidence(corpus):
        for code, spans in line["codes"].items():
            words = [" ".join(texts[str(line["row_id"])][start:end].split()) for start, end in spans]
            by_drug += all(word in {d.lower() for d in CONCEPTS[code].drugs} for word in map(str.lower, words))
            by_lab += bool(CONCEPTS[code].lab) and all(is_abnormal(CONCEPTS[code], word) for word in words)
    assert by_drug > 20
    assert by_lab > 20


def test_listed_diagnoses_are_not_the_whole_story(corpus):
    """Between a quarter and three quarters of the diagnoses stand in the list of discharge diagnoses."""
    texts = {row["ROW_ID"]: row["TEXT"] for row in read_table(corpus, "NOTEEVENTS")}
    heading = re.compile(r"discharge diagnos[ie]s:|final diagnoses:", re.IGNORECASE)
    listed = total = 0
    for line in read_evidence(corpus):
        section = heading.search(texts[str(line["row_id"])])
        if section is None:
            continue
        for code, spans in line["codes"].items():
            if not CONCEPTS[code].is_procedure:
                total += 1
                listed += any(section.end() <= start <= section.end() + 250 for start, _ in spans)
    assert 0.25 < listed / total < 0.75


@pytest.mark.parametrize("length", LENGTHS)
def test_notes_are_as_long_as_asked(length, tmp_path):
    write_corpus(tmp_path, 40, length=length, show_progress=False)
    rows = read_table(tmp_path, "NOTEEVENTS")
    summaries = [row for row in rows if row["CATEGORY"] == "Discharge summary" and row["DESCRIPTION"] == "Report"]
    words = [len(row["TEXT"].split()) for row in summaries]
    low, high = LENGTHS[length].words
    assert low <= sum(words) / len(words) <= 1.1 * high


def test_finish_note_keeps_offsets_when_wrapping():
    marked = f"Seen with {mark('486', True, 'pneumonia of the lung')} but no {mark('496', False, 'COPD')}."
    note = finish_note(marked, width=14)
    # "Seen with " is 10 characters, the mention 21, " but no " 8
    assert note.evidence == {"486": [[10, 31]]}
    assert note.distractors == {"496": [[39, 43]]}
    assert note.text[10:31].split() == ["pneumonia", "of", "the", "lung"]
    assert note.text[39:43] == "COPD"
    assert "\n" in note.text


def test_ventilation_time_tells_the_code_apart(corpus):
    texts = {row["ROW_ID"]: row["TEXT"] for row in read_table(corpus, "NOTEEVENTS")}
    hours: dict[str, list[int]] = {"96.71": [], "96.72": []}
    for line in read_evidence(corpus):
        for code in hours:
            for start, end in line["codes"].get(code, ()):
                told = re.match(r"(\d+)\s+hours", texts[str(line["row_id"])][start:end])
                if told:
                    hours[code].append(int(told[1]))
    assert max(hours["96.71"]) < 96 <= min(hours["96.72"])


# ----------------------------------------------------------------------------------------------------------------------
# What may go wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_admissions", 0),
        ("seed", -1),
        ("length", "huge"),
        ("split_fractions", (0.8, 0.3, 0.1)),
        ("split_fractions", (1.2, -0.2, 0.0)),
        ("split_fractions", (0.5, 0.5)),
        ("addendum_rate", 1.5),
        ("other_rows_rate", -0.1),
    ],
)
def test_wrong_arguments_are_named(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}`"):
        write_corpus(tmp_path / "new", show_progress=False, **{"num_admissions": 2, name: value})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["NOTEEVENTS.csv.gz", "NOTEEVENTS.csv", "noteevents.csv.gz", "train_full_hadm_ids.csv"]
)
def test_folder_of_real_tables_is_left_alone(name, tmp_path):
    (tmp_path / name).write_text("theirs")
    with pytest.raises(FileExistsError, match="looks like real MIMIC"):
        write_corpus(tmp_path, 2, show_progress=False)
    assert read_bytes(tmp_path) == {name: b"theirs"}


def test_own_corpus_is_replaced_and_marked(tmp_path):
    write_corpus(tmp_path, 2, show_progress=False)
    write_corpus(tmp_path, 4, seed=5, show_progress=False)
    marker = json.loads((tmp_path / MARKER_FILE).read_text())
    assert marker["num_admissions"] == 4
    assert marker["seed"] == 5
    assert "no patient data" in marker["notice"]
    assert set(read_bytes(tmp_path)) == set(CORPUS_FILES)


def test_interrupted_run_leaves_what_was_there(tmp_path, monkeypatch):
    write_corpus(tmp_path, 3, show_progress=False)
    before = read_bytes(tmp_path)
    write = NoteWriter.write
    calls = itertools.count()

    def write_two(self):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return write(self)

    monkeypatch.setattr(NoteWriter, "write", write_two)
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            write_corpus(folder, 5, seed=1, show_progress=False)
        calls = itertools.count()
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new").rmdir()
    assert read_bytes(tmp_path) == before


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    (tmp_path / PARTIAL_FOLDER).mkdir()
    (tmp_path / PARTIAL_FOLDER / "NOTEEVENTS.csv.gz").write_text("half")
    write_corpus(tmp_path, 1, show_progress=False)
    assert set(read_bytes(tmp_path)) == set(CORPUS_FILES)


def test_summary_counts_what_was_written(tmp_path):
    summary = write_corpus(tmp_path, 30, seed=2, show_progress=False)
    notes = read_table(tmp_path, "NOTEEVENTS")
    assigned = [row for table in ("DIAGNOSES_ICD", "PROCEDURES_ICD") for row in read_table(tmp_path, table)]
    assert summary.num_admissions == 30 == sum(summary.split_sizes.values())
    assert summary.num_note_rows == len(notes)
    assert summary.num_subjects == len({row["SUBJECT_ID"] for row in notes})
    assert summary.codes_per_admission == pytest.approx(len(assigned) / 30)


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dataset_scripts.synthetic", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "12"}
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, env=environment)


def test_command_line_writes_the_same_bytes_in_another_process(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    done = run_command("--output_dir", str(one), "--num_admissions", "30", "--seed", "1", "--length", "short")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 admissions of ")
    write_corpus(other, 30, seed=1, length="short", show_progress=False)
    assert read_bytes(one) == read_bytes(other)


def test_command_line_says_in_one_line_what_is_wrong(tmp_path):
    failed = run_command("--output_dir", str(tmp_path), "--num_admissions", "0")
    assert failed.returncode == 2
    assert failed.stderr == "error: `num_admissions` (0) must be at least 1.\n"
