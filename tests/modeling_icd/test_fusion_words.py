"""The linear scores of words that a fused model adds to its trees."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from modeling_icd.fusion_features_icd import FeatureMaker
from modeling_icd.fusion_text_icd import StemReader
from modeling_icd.fusion_words_icd import UNSURE, WordScorer, grams_of
from modeling_icd.knowledge import fusion_words
from modeling_icd.knowledge.fusion_tables import Knowledge, Notes


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
    return Knowledge(Notes.read(TEXTS, CODES, [[] for _ in TEXTS]), LABELS, with_words=True, **options)


def words_of(knowledge: Knowledge, text: str):
    stems = StemReader().read(text).stems
    return knowledge.finder.words_of(stems, [knowledge.stem_ids.get(stem, 0) for stem in stems])


def test_the_scores_are_those_of_scikit_learn():
    knowledge = learn()
    grams = [grams_of(words_of(knowledge, text)) for text in TEXTS]
    vectorizer = TfidfVectorizer(analyzer=lambda of_note: of_note, sublinear_tf=True, min_df=2)
    features = vectorizer.fit_transform(grams)
    notes = [*TEXTS, "Fever, cough; fever and a left kidney of the kidney.", "Nothing of it"]
    scorer = WordScorer(knowledge.tables)
    own = torch.stack([scorer.score(words_of(knowledge, text), len(LABELS)) for text in notes])
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
    scores = WordScorer(knowledge.tables).score(words_of(knowledge, "Fever."), len(LABELS))
    assert (scores == UNSURE).sum() == len(LABELS) - 1
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


def test_notes_that_share_no_word_or_all_have_the_code_get_none():
    alone = Knowledge(Notes.read(["Cough."], [["786.2"]], [[]]), ["786.2"], with_words=True)
    assert len(alone.tables.gram_codes) == 0
    apart = Knowledge(
        Notes.read(["Cough", "Fever"], [["786.2"], ["780.6"]], [[], []]), ["780.6", "786.2"], with_words=True
    )
    assert len(apart.tables.gram_codes) == 0
