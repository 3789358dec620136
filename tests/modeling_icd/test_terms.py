"""The coder by terms: what it finds in a note, what it leaves out, and how it is built, saved and loaded."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from own_process import run_python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dataset_scripts import load_builder
from dataset_scripts.codes.classification import ICD10
from dataset_scripts.synthetic import write_corpus
from experiments.plans import Row, Task
from experiments.running import yardstick_metrics
from modeling_icd import ICDCodingPipeline
from modeling_icd.extras.evidence import judge_evidence
from modeling_icd.inference.learned_notes import admissions_of, count_learned_admissions
from modeling_icd.inference.loading import ReaderArguments
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.inference.predict_coder import load_pipeline
from modeling_icd.knowledge import cli
from modeling_icd.knowledge import coder as knowledge_coder
from modeling_icd.knowledge.build import (
    PRIORS,
    ROLES,
    count_terms,
    cues_to_read,
    make_coder,
    rows_of,
    save_coder,
    scores_of,
    with_abbreviations,
)
from modeling_icd.knowledge.sources import (
    Term,
    _LabelFinder,
    evidence_terms,
    further_codes,
    official_terms,
    read_synonyms,
    titles_of,
    variants,
)
from modeling_icd.knowledge.stems import stems_of
from modeling_icd.publishing.folder import ModelFolder
from modeling_icd.space.coding import Coder
from modeling_icd.terms_icd import BUT, SMALL


TITLES = {
    "I10": "Essential (primary) hypertension",
    "J18.9": "Pneumonia, unspecified organism",
    "J15.4": "Pneumonia due to other streptococci",
    "S82.201A": "Unspecified fracture of shaft of right tibia, initial encounter for closed fracture",
    "S82.202A": "Unspecified fracture of shaft of left tibia, initial encounter for closed fracture",
    "Z82.49": "Family history of ischemic heart disease",
    "G43.009": "Migraine without aura, not intractable",
    "J44.9": "Chronic obstructive pulmonary disease, unspecified",
    "K85.9": "Acute pancreatitis, unspecified",
}
CODES = list(TITLES)


def terms() -> list[Term]:
    official = [
        Term(code, text, source) for code, title in TITLES.items() for text, source in variants(title, "title")
    ]
    return [
        *official,
        Term("I10", "hipertensión arterial", "synonym"),
        Term("K85.9", "pancreatitis agudas", "evidence"),
        Term("I25.9", "ischemic heart disease", "title"),
    ]


def make(**fields):
    rows, _ = rows_of(terms())
    return make_coder([*CODES, "I25.9"], TITLES, with_abbreviations(rows), **fields)


@pytest.fixture(scope="module")
def coder():
    model, tokenizer, _ = make()
    return ICDCodingPipeline(model=model, tokenizer=tokenizer)


def codes_in(coder, note: str) -> list[str]:
    return sorted(found["code"] for found in coder(note))


@pytest.mark.parametrize(
    ("note", "codes"),
    [
        ("Essential hypertension.", ["I10"]),
        ("HIPERTENSION ARTERIAL tratada", ["I10"]),  # accents and case
        ("Known COPD.", ["J44.9"]),  # an abbreviation
        ("Presenta una pancreatitis aguda", ["K85.9"]),  # number
        ("Pneumonias of both lungs", ["J18.9"]),
        ("Tibia: fracture of the right shaft", ["S82.201A"]),  # any order, and laterality
        ("Fracture of shaft of left tibia", ["S82.202A"]),
        ("Fracture of the tibia.", []),  # no side, no code that asks for one
        ("Pneumonia. Due to other streptococci", ["J18.9"]),  # a term does not reach over the end of a sentence
        ("Pneumonia due to other streptococci", ["J15.4"]),  # the most specific
        ("Migraine without aura, not intractable", ["G43.009"]),  # words that deny are a part of the term
        ("No pneumonia.", []),
        ("No pneumonia but essential hypertension.", ["I10"]),
        ("No fever. Pneumonia.", ["J18.9"]),
        ("Pneumonia was ruled out.", []),
        ("Sin hipertensión arterial", []),
        ("Father had ischemic heart disease.", []),
        ("Family history of ischemic heart disease.", ["Z82.49"]),
        ("Ischemic heart disease.", ["I25.9"]),
        ("Father had migraine, but hypertension of the patient is essential.", ["I10"]),
        ("Father had migraine, the patient has essential hypertension.", ["I10"]),
        ("Father had migraine, asthma, essential hypertension.", []),
        ("Neumonía", ["J18.9"]),  # words from Greek and Latin are one in both languages
    ],
)
def test_a_note_gets_the_codes_that_it_says(coder, note, codes):
    assert codes_in(coder, note) == codes


def test_evidence_is_where_the_term_stands(coder):
    note = "Seen today.\nChronic obstructive pulmonary disease and a fracture of the shaft of the right tibia"
    found = {code["code"]: [span["text"] for span in code["evidence"]] for code in coder(note)}
    assert found == {
        "J44.9": ["Chronic obstructive pulmonary disease"],
        "S82.201A": ["fracture of the shaft of the right tibia"],
    }
    (first,) = coder("x " + note, top_k=1)[0]["evidence"]
    assert ("x " + note)[first["start"] : first["end"]] == first["text"]


def test_denials_can_be_ignored_for_comparison():
    model, tokenizer, _ = make(read_denials=False)
    assert codes_in(ICDCodingPipeline(model=model, tokenizer=tokenizer), "No pneumonia.") == ["J18.9"]


def test_what_is_uncertain_or_past_counts_unless_it_is_told_not_to():
    notes = {"Possible pneumonia.": "J18.9", "History of essential hypertension.": "I10"}
    for field, silent in (("read_uncertain", {"J18.9"}), ("read_past", {"I10"})):
        model, tokenizer, _ = make(**{field: True})
        coder = ICDCodingPipeline(model=model, tokenizer=tokenizer)
        for note, code in notes.items():
            assert codes_in(coder, note) == ([] if code in silent else [code])
    model, tokenizer, _ = make()
    (match,) = model.score.find(tokenizer("Rule out pneumonia.")["input_ids"])
    assert (match.is_uncertain, match.is_past, match.is_denied) == (True, False, False)
    (match,) = model.score.find(
        tokenizer("Family h/o ischemic heart disease.")["input_ids"]
    )  # the term itself says so
    assert not (match.is_past or match.is_denied)


def test_training_notes_say_which_cues_count():
    rows, _ = rows_of(terms())
    model, tokenizer, _ = make_coder([*CODES, "I25.9"], TITLES, rows)
    notes = ["No pneumonia.", "No pneumonia.", "Possible pneumonia.", "Possible pneumonia. Pneumonia."]
    codes = [["J18.9"], [], [], []]
    # Half of the denied ones are coded, and none of the uncertain ones but that which is also said outright; of the past nothing.
    read = cues_to_read(model, tokenizer, notes, codes)
    assert read == {"read_denials": False, "read_uncertain": True, "read_past": False}
    assert cues_to_read(model, tokenizer, notes[1:], codes[1:])["read_denials"]


def test_misspelt_words_are_found_if_asked_for(tmp_path):
    rows, _ = rows_of(terms())
    model, tokenizer, rows = make_coder([*CODES, "I25.9"], TITLES, rows, misspelt_unless=stems_of(["pneumona"])[0])
    save_coder(model, tokenizer, rows, None, {"open": True}, tmp_path / "coder")
    coder = load_pipeline(str(tmp_path / "coder"), True, ReaderArguments())
    assert codes_in(coder, "Essential hyprtension.") == ["I10"]  # a letter is missing
    assert codes_in(coder, "Essential hypertnesion.") == ["I10"]  # two are exchanged
    assert codes_in(coder, "pneumona") == []  # a word itself
    model, tokenizer, _ = make()
    assert codes_in(ICDCodingPipeline(model=model, tokenizer=tokenizer), "Essential hyprtension.") == []


def test_terms_of_icd9_are_those_of_the_mapped_code_of_icd10():
    titles, found = official_terms("icd9cm", ["780.2", "599.0", "486"])
    by_code = {code: {term.text.lower() for term in found if term.code == code} for code in titles}
    assert "fainting" in by_code["780.2"]  # an inclusion term of R55, by the General Equivalence Mappings
    assert "urinary tract infection" in by_code["599.0"]  # and its site not specified
    assert "pneumonia" in by_code["486"]


@pytest.mark.parametrize(
    ("heading", "code"),
    [("J18", "J18.9"), ("D49", "D49.9"), ("E11", "E11.9"), ("I50", "I50.9"), ("K46", "K46.9"), ("J10", None)],
)
def test_a_heading_is_its_code_for_unspecified(heading, code):
    assert finder().label_of(heading) == code


@cache
def finder() -> _LabelFinder:
    return _LabelFinder(ICD10, titles_of("icd10cm"), None)


def test_further_codes_are_written_as_the_labels_are():
    further = set(further_codes("icd10cm", ["I10", "T14.8"]))
    assert {"I11.9", "S82.201"} <= further
    assert not {"I10", "T14.8", "T14.8XXA", "S82.201A", "S82"} & further
    assert "S82.201A" in further_codes("icd10cm", ["S82.202A"])


def test_a_batch_gives_what_each_note_gets_alone(coder):
    notes = ["Essential hypertension.", "Known COPD and pneumonia, and nothing else to speak of.", "x"]
    alone = torch.cat([torch.tensor(logits_of_notes(coder.model, coder.tokenizer, [note])) for note in notes])
    together = torch.tensor(logits_of_notes(coder.model, coder.tokenizer, notes))
    torch.testing.assert_close(together, alone)


def test_words_far_apart_are_no_term(coder):
    assert codes_in(coder, "essential one hypertension") == ["I10"]
    assert coder("essential one two hypertension", threshold=0.4)[0]["code"] == "I10"  # its score is lower
    assert coder("essential one two three hypertension", threshold=0.01) == []  # more than twice its length


def test_what_is_asked_in_vain_is_said(coder):
    with pytest.raises(ValueError, match="attingrad what a code was read from: choose attention"):
        coder("Essential hypertension.", evidence_method="attingrad")
    ids = torch.tensor([[2]])
    with pytest.raises(ValueError, match="nothing to learn"):
        coder.model(ids, labels=torch.ones(1, len(CODES) + 1))


def test_terms_are_weighed_by_training_notes():
    rows, _ = rows_of([Term("I10", "hypertension", "title"), Term("J18.9", "opacity", "evidence")])
    model, tokenizer, rows = make_coder(["I10", "J18.9"], {}, rows)
    notes = ["Hypertension.", "Hypertension.", "No hypertension.", "An opacity.", "Opacity"]
    seen = count_terms(model, tokenizer, notes, [["I10"], [], [], ["J18.9"], ["J18.9"]])
    scores = dict(zip([row.term.text for row in rows], scores_of(rows, seen), strict=True))
    # One right of two, and two notes of the prior; of evidence the note that it is from does not count: one right of one.
    assert scores["hypertension"] == pytest.approx((1 + 2 * PRIORS["title"]) / 4)
    assert scores["opacity"] == pytest.approx((1 + 2 * PRIORS["evidence"]) / 3)


COGNATES = [
    ("chronic", "crónica"),
    ("insufficiency", "insuficiencia"),
    ("asthma", "asma"),
    ("infection", "infección"),
    ("stenosis", "estenosis"),
    ("hypothyroidism", "hipotiroidismo"),
    ("leukocytes", "leucocitos"),
    ("abscess", "absceso"),
    ("h/o", "history of"),
]


@pytest.mark.parametrize("word", ["loss", "all", "off", "Lassa", "pars", "Conn", "per"])
def test_a_word_that_terms_need_has_no_stem_of_one_that_none_needs(word):
    small = {stem for stems in stems_of(ROLES[SMALL] | ROLES[BUT]) for stem in stems}
    assert not small & {*stems_of([f"{word} fever"])[0]}


def test_stems_of_english_and_spanish():
    pairs = [("Fracturas", "fractura"), ("biopsies", "biopsy"), ("anaemia", "anemia"), ("abscesses", "abscess")]
    for one, other in [*pairs, ("type II", "Type 2"), ("lesiones", "lesión"), ("Alzheimer's", "alzheimer"), *COGNATES]:
        assert stems_of([one]) == stems_of([other])
    for one, other in [
        ("renal", "real"),
        ("como", "coma"),
        ("cada", "CAD"),
        ("CKD", "CD"),
        ("hepatitis A", "hepatitis"),
    ]:
        assert stems_of([one]) != stems_of([other])


def test_marked_words_in_several_places_are_one_term():
    note = "Dolor leve, abdominal"
    assert evidence_terms([note], [[("R10.9", [[0, 5], [12, 21]])]]) == [Term("R10.9", "Dolor abdominal", "evidence")]


def test_a_file_of_synonyms_that_is_wrong_is_named(tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("code,term,language\nI10,presión alta,es\nE119,azúcar,es\nZ99,x,es\n")
    found, num_others = read_synonyms(path, ["I10", "E11.9"])
    assert [(term.code, term.text) for term in found] == [("I10", "presión alta"), ("E11.9", "azúcar")]
    assert num_others == 1
    path.write_text("code,word\nI10,x\n")
    with pytest.raises(ValueError, match=r"more\.csv has no column 'term'"):
        read_synonyms(path, ["I10"])
    path.write_text("code,term\nI10,\n")
    with pytest.raises(ValueError, match="row 1 lacks its term"):
        read_synonyms(path, ["I10"])


LOAD = """
import sys
from transformers import pipeline
coder = pipeline("icd-coding", sys.argv[1], trust_remote_code=True)
print(*[code["code"] for code in coder("Known COPD. No pneumonia.")])
"""


def test_a_folder_is_loaded_in_another_process_with_its_own_code(tmp_path):
    model, tokenizer, rows = make()
    save_coder(model, tokenizer, rows, None, {"open": True}, tmp_path / "coder")
    stored = json.loads((tmp_path / "coder/config.json").read_text())
    assert stored["auto_map"]["AutoModelForSequenceClassification"] == "terms_icd.TermsForICD"
    run = run_python("-c", LOAD, tmp_path / "coder", cwd=tmp_path)
    assert run.stdout.split() == ["J44.9"], run.stderr[-2000:]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "coder")
    note = AutoTokenizer.from_pretrained(tmp_path / "coder")(["Known COPD."], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(again(note).logits, model(note).logits)


def test_the_command_builds_shows_and_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(knowledge_coder, "further_codes", lambda system, labels: ["J44.9", "A00.0X"])
    (tmp_path / "codes.csv").write_text("code\nI10\nJ18.9\n")
    (tmp_path / "more.csv").write_text("code,term\nI10,presión alta\n")
    folder = str(tmp_path / "coder")
    files = ["--labels", str(tmp_path / "codes.csv"), "--synonyms", str(tmp_path / "more.csv")]
    options = ["--all_codes", "--cues", "past"]
    assert cli.main(["build", "--system", "icd10cm", "--output_dir", folder, *files, *options]) == 0
    capsys.readouterr()
    assert cli.main([folder, "--search", "Presion"]) == 0
    assert "presión alta" in capsys.readouterr().out
    assert cli.main(["build", "--output_dir", folder]) == 2
    assert "--system" in capsys.readouterr().err
    assert cli.main([str(tmp_path)]) == 2
    assert "no coder by terms" in capsys.readouterr().err
    assert cli.main(["build", "--system", "icd10cm", "--output_dir", str(tmp_path), *files]) == 2
    assert "holds other files, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "codes.csv").is_file()
    assert cli.main(["build", "--system", "icd10cm", "--output_dir", folder, "--all_codes"]) == 2
    assert "adds to the codes of a data set or of `--labels`" in capsys.readouterr().err
    # Terms of the user's own may be phrases of notes.
    config = json.loads((tmp_path / "coder" / "config.json").read_text())
    assert config["training_data"]["open"] is False
    assert list(config["id2label"].values()) == ["I10", "J18.9", "J44.9"]  # a further code without a term is left out
    assert (config["read_denials"], config["read_past"]) == (False, True)
    assert (tmp_path / "coder").stat().st_mode & 0o077 == 0


def test_the_page_shows_where_a_term_was_found(tmp_path):
    model, tokenizer, rows = make()
    save_coder(model, tokenizer, rows, None, {"open": True}, tmp_path / "coder")
    coder = Coder(str(tmp_path / "coder"), trust_remote_code=True)
    note = "\U0001f600 Known COPD. No pneumonia. Fracture of shaft of left tibia"
    result = coder.code_note(note, ["I10", "J44.9"])
    found = {code["code"]: code["evidence"] for code in result["codes"]}
    # The browser counts the first character twice. I10 was assigned, and no other code is said.
    assert found == {"J44.9": [[9, 14, 1.0]], "S82.202A": [[29, 37, 1.0], *found["S82.202A"][1:]], "I10": []}
    assert found["S82.202A"][-1][:2] == [55, 60]
    assert result["audit"] == {"missed": ["S82.202A"], "unsupported": ["I10"]}


def test_evidence_is_judged_as_that_of_other_models():
    model, tokenizer, _ = make()
    notes = ["Seen today. Essential hypertension, and no pneumonia."]
    gold = [{"I10": [[12, 34]], "J18.9": [[43, 52]]}]
    rows = judge_evidence(model, tokenizer, notes, gold, num_spans=(1,))
    figures = {(row["codes"], row["method"]): (row["pairs"], row["precision"], row["recall"]) for row in rows}
    # Of the three gold words "pneumonia" is denied, so that nothing is given for it.
    assert figures["gold", "term"] == (2, 1.0, pytest.approx(2 / 3))
    assert figures["found", "term"] == (1, 1.0, 1.0)
    with pytest.raises(ValueError, match="attingrad"):
        judge_evidence(model, tokenizer, notes, gold, methods=["attingrad"])


@pytest.fixture(scope="module")
def mimic(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    write_corpus(folder, num_admissions=30, length="short", show_progress=False)
    return folder


def test_a_coder_remembers_which_admissions_it_has_read(mimic, tmp_path):
    folder = tmp_path / "coder"
    data = ["--dataset", "mimic3", "--dataset_config", "top50", "--data_dir", str(mimic)]
    assert cli.main(["build", *data, "--output_dir", str(folder)]) == 0
    builder = load_builder("mimic3", "top50", data_dir=str(mimic), cache_dir=str(tmp_path / "cache"))
    train, test = (builder.as_dataset(split=name) for name in ("train", "test"))
    assert count_learned_admissions(folder, admissions_of(train, "mimic3", True)) == len(train)
    assert count_learned_admissions(folder, admissions_of(test, "mimic3", True)) == 0


def test_the_yardstick_weighs_terms_on_training_notes_alone(mimic, tmp_path):
    task = Task("mimic3", ["top50"], [0], {}, {})
    titles, weighed = (
        yardstick_metrics(Row({}, {}, kind), task, "top50", str(mimic), tmp_path)
        for kind in ("terms", "terms_weighed")
    )
    assert 0 < titles["f1_micro"] < weighed["f1_micro"] < 1  # the corpus marks its evidence


@pytest.mark.parametrize("is_open", [True, False])
def test_terms_that_may_be_phrases_of_restricted_notes_stay_at_home(tmp_path, is_open):
    model, tokenizer, rows = make()
    save_coder(
        model, tokenizer, rows, None, {"dataset": "mimic3", "config": "full", "open": is_open}, tmp_path / "coder"
    )
    why = "terms of mimic3 are not known" if is_open else "learned from restricted notes"
    with pytest.raises(ValueError, match=why):
        ModelFolder.read(tmp_path / "coder")
    if not is_open:
        with pytest.raises(ValueError, match="was trained on restricted data"):
            model.push_to_hub("someone/terms")
        with pytest.raises(ValueError, match="was trained on restricted data"):
            ICDCodingPipeline(model=model, tokenizer=tokenizer).tokenizer.push_to_hub("someone/terms")
