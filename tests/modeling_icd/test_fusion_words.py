"""The linear scores of words that a fused model adds to its trees."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC
from test_fusion import make_model
from transformers import AutoTokenizer

from modeling_icd import FusionForICD, ICDCodingPipeline, fusion_icd
from modeling_icd.fusion_features_icd import FEATURES, PARTS, FeatureMaker, Scored
from modeling_icd.fusion_icd import tree_sums
from modeling_icd.fusion_text_icd import StemReader
from modeling_icd.fusion_words_icd import ABSENT, WordScorer, grams_of
from modeling_icd.knowledge import fusion_words
from modeling_icd.knowledge.fusion_tables import Knowledge, Notes
from modeling_icd.training import fusion


TEXTS = [
    "Cough and fever for two days. No pneumonia.",
    "Fever. Pneumonia of the left lobe.",
    "Cough, no fever.",
    "Left lobe pneumonia, and cough.",
    "Hydronephrosis of the left kidney.",
    "Urinary infection, fever. No hydronephrosis.",
]
CODES = [["786.2", "780.6"], ["780.6", "486"], ["786.2"], ["486", "786.2"], ["591"], ["599.0", "780.6"]]
LABELS = ["486", "591", "599.0", "780.6", "786.2"]


def learn(**options) -> Knowledge:
    return Knowledge(Notes.read(TEXTS, CODES, [[] for _ in TEXTS]), LABELS, parts=PARTS, **options)


def words_of(knowledge: Knowledge, text: str):
    return knowledge.words_of(StemReader().read(text).stems)


def test_the_scores_are_those_of_scikit_learn():
    knowledge = learn()
    grams = [grams_of(words_of(knowledge, text)) for text in TEXTS]
    vectorizer = TfidfVectorizer(analyzer=lambda of_note: of_note, sublinear_tf=True, min_df=2)
    features = vectorizer.fit_transform(grams)
    notes = [*TEXTS, "Fever, cough; fever and a left kidney of the kidney.", "Nothing of it"]
    scorer = WordScorer(knowledge.tables)
    own = torch.stack([scorer.score(words_of(knowledge, text)) for text in notes])
    scored = vectorizer.transform([grams_of(words_of(knowledge, text)) for text in notes])
    for column, code in enumerate(LABELS):
        classifier = LinearSVC(C=1.0, class_weight="balanced", random_state=0)
        classifier.fit(features, np.array([code in of_note for of_note in CODES]))
        np.testing.assert_allclose(own[:, column], classifier.decision_function(scored), atol=1e-4)


def test_a_denied_word_is_another_one():
    knowledge = learn()
    number = knowledge.stem_ids["pneumoni"]
    assert (2 * number, -1) in grams_of(words_of(knowledge, "Pneumonia."))
    denied = grams_of(words_of(knowledge, "No pneumonia."))
    assert (2 * number + 1, -1) in denied and (2 * number, -1) not in denied


def test_a_code_without_a_classifier_is_given_for_absent(monkeypatch):
    monkeypatch.setattr(fusion_words, "MOST_CODES", 1)
    knowledge = learn()
    scores = WordScorer(knowledge.tables).score(words_of(knowledge, "Fever."))
    assert (scores == ABSENT).sum() == len(LABELS) - 1
    assert knowledge.tables.gram_codes.tolist() == [LABELS.index("780.6")]


def test_no_more_words_are_kept_than_it_says(monkeypatch):
    monkeypatch.setattr(fusion_words, "MOST_GRAMS", 3)
    assert learn().tables.gram_weights.shape == (3, len(LABELS))


@pytest.mark.parametrize(("parts", "is_added"), [(("words",), True), (("neighbours",), False)])
def test_they_are_added_where_they_are_a_part(parts, is_added):
    knowledge = learn()
    maker = FeatureMaker(knowledge.tables, knowledge.finder, knowledge.num_known, parts)
    scored = maker.make(StemReader().read("Cough and fever. Left lobe pneumonia.").stems)
    assert (scored.word_scores != 0).any() == is_added


@pytest.mark.parametrize("text", ["Cough and fever. Left lobe pneumonia.", "Zzz", "."])
def test_a_model_adds_them_to_what_its_trees_give(byte_backbone, text):
    model = make_model(byte_backbone, learn(), ["words"])
    ids = AutoTokenizer.from_pretrained(byte_backbone)(text, return_tensors="pt")["input_ids"]
    scored = model.score.reading[2].make(StemReader().read(text).stems)
    expected = model.score.untold()
    expected[scored.codes] = tree_sums(model.score.trees, scored.features).float() + scored.word_scores
    torch.testing.assert_close(model(ids).logits[0], expected)
    assert len(scored.codes) == (scored.word_scores > 0).sum() == (3 if "Cough" in text else 0)


def test_thresholds_are_chosen_on_sums_with_them(monkeypatch):
    given = {}
    monkeypatch.setattr(fusion, "fit_decision", lambda logits, *_, **__: given.update(logits=logits))
    monkeypatch.setattr(fusion, "check_notes", lambda *_: None)
    monkeypatch.setattr(fusion_icd, "tree_sums", lambda _, features: torch.full((len(features),), 0.5))
    scored = [
        [Scored(torch.tensor([code]), torch.zeros(1, len(FEATURES)), {}, torch.tensor([2.0]))] for code in (0, 1)
    ]
    run = SimpleNamespace(
        folds=[[0], [1]],
        scored_rows=[[0], [1]],
        model_args=SimpleNamespace(num_folds=2),
        notes=SimpleNamespace(codes=[["486"], ["591"]]),
        args=None,
        fit_trees=lambda _: {},
    )
    model = SimpleNamespace(score=SimpleNamespace(untold=lambda: torch.full((2,), -9.0)))
    known, labels = [["486", "591"]] * 2, {"486": 0, "591": 1}
    fusion.Fusion.decide(run, model, scored, known, [[None], [None]], labels, {"code_counts": {}})
    assert given["logits"].tolist() == [[2.5, -9.0], [-9.0, 2.5]]


def test_thresholds_are_chosen_on_trees_that_saw_the_notes_in_no_draw(monkeypatch):
    fits, given = [], {}
    monkeypatch.setattr(fusion, "fit_decision", lambda logits, *_, **__: given.update(logits=logits))
    monkeypatch.setattr(fusion, "check_notes", lambda *_: None)
    monkeypatch.setattr(fusion_icd, "tree_sums", lambda _, features: features[:, 0])
    run = SimpleNamespace(
        folds=[[0, 1], [2, 3], [0, 2], [1, 3]],  # of two draws
        scored_rows=[[0, 1], [2, 3], [0, 2], [1, 3]],
        model_args=SimpleNamespace(num_folds=2),
        notes=SimpleNamespace(codes=[["486"]] * 4),
        args=None,
        fit_trees=lambda parts: fits.append(parts) or {},
    )
    parts = [
        [f"{row} of draw {draw}" for row in rows] for draw, rows in zip((1, 1, 2, 2), run.scored_rows, strict=True)
    ]
    scored = [
        [
            Scored(torch.tensor([0]), torch.full((1, len(FEATURES)), 10.0 * fold + row), {}, torch.zeros(1))
            for row in rows
        ]
        for fold, rows in enumerate(run.scored_rows)
    ]
    model = SimpleNamespace(score=SimpleNamespace(untold=lambda: torch.full((1,), -9.0)))
    fusion.Fusion.decide(run, model, scored, [["486"]] * 4, parts, {"486": 0}, {"code_counts": {}})
    assert fits == [
        ["2 of draw 1", "3 of draw 1", "2 of draw 2", "3 of draw 2"],
        ["0 of draw 1", "1 of draw 1", "0 of draw 2", "1 of draw 2"],
    ]
    assert given["logits"].tolist() == [[0], [1], [12], [13]]  # each once, as the first draw has it


def test_which_words_a_note_has_is_kept_for_neighbours_alone(byte_backbone):
    knowledge = Knowledge(Notes.read(TEXTS, CODES, [[] for _ in TEXTS]), LABELS, parts=["words"])
    assert len(knowledge.tables.notes[1]) == len(knowledge.tables.note_codes[1]) == 0
    model = make_model(byte_backbone, knowledge, ["words"])
    coder = ICDCodingPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(byte_backbone))
    assert {code["code"] for code in coder("Cough and fever. Left lobe pneumonia.", top_k=3)} == {
        "786.2",
        "780.6",
        "486",
    }


def test_a_code_of_all_notes_is_above_0():
    codes = [[*of_note, "V10"] for of_note in CODES]
    knowledge = Knowledge(Notes.read(TEXTS, codes, [[] for _ in TEXTS]), [*LABELS, "V10"], parts=PARTS)
    for text in (*TEXTS, "Nothing of it"):
        assert WordScorer(knowledge.tables).score(words_of(knowledge, text))[-1] == 1


def test_a_folder_of_an_earlier_version_loads(byte_backbone, tmp_path):
    """It lacks the tables of words, in its configuration and in its weights."""
    knowledge = Knowledge(Notes.read(TEXTS, CODES, [[] for _ in TEXTS]), LABELS)
    model = make_model(byte_backbone, knowledge, ["neighbours"])
    model.save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    fields = json.loads(config.read_text())
    fields["tables"] = {name: shape for name, shape in fields["tables"].items() if not name.startswith("gram")}
    config.write_text(json.dumps(fields))
    kept = {name: tensor for name, tensor in load_file(weights).items() if ".gram" not in name}
    assert len(kept) < len(load_file(weights))
    save_file(kept, weights, metadata={"format": "pt"})
    ids = AutoTokenizer.from_pretrained(byte_backbone)(TEXTS[0], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(FusionForICD.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


def test_notes_that_share_no_word_get_none():
    alone = Knowledge(Notes.read(["Cough."], [["786.2"]], [[]]), ["786.2"], parts=PARTS)
    assert len(alone.tables.gram_codes) == 0
    apart = Knowledge(
        Notes.read(["Cough", "Fever"], [["786.2"], ["780.6"]], [[], []]), ["780.6", "786.2"], parts=PARTS
    )
    assert len(apart.tables.gram_codes) == 0
