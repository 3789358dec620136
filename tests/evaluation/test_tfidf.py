"""The yardstick: what TF-IDF counts in a note, what its classifiers say, and how a model is compared with it."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from modeling_icd.evaluation.tfidf import marked_words, sections_of, tfidf_scores, words_in_sections


NOTES = ["cough and fever today", "no cough but fever today", "cough today", "fever today and cough", "well today"] * 2
LABELS = np.array([[1, 1], [0, 1], [1, 0], [1, 1], [0, 0]] * 2, dtype=np.float32)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("No cough or fever. Wheezing.", "no not_cough not_or not_fever wheezing"),
        ("no cough but fever", "no not_cough but fever"),
        ("No\nfever\n\nCough", "no not_fever cough"),  # a wrapped line goes on, a paragraph ends
        ("without a 2.5 cm mass", "without not_a not_2 not_5 not_cm not_mass"),  # no sentence ends in a number
        ("no a b c d e f g h i", "no not_a not_b not_c not_d not_e not_f not_g not_h i"),
        ("paciente sin fiebre, pero con tos", "paciente sin not_fiebre pero con tos"),
        ("", ""),
    ],
)
def test_what_is_denied_is_marked(text, words):
    assert marked_words(text) == words.split()


def test_a_heading_stands_before_the_words_of_its_section():
    note = "Seen today\nHISTORY: Cough.\n\nFINAL  IMPRESSION:\nNo fever at 10:30"
    assert [(heading, text.split()) for heading, text in sections_of(note)] == [
        ("", ["Seen", "today"]),
        ("history", ["Cough."]),
        ("final impression", ["No", "fever", "at", "10:30"]),
    ]
    assert words_in_sections("Seen today\nHISTORY: Dry cough") == [
        *("seen", "today", "seen today", "dry", "cough", "dry cough"),
        *("history: dry", "history: cough", "history: dry cough"),
    ]


def test_the_plain_one_is_a_linear_svc_of_words_and_word_pairs():
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
    fitted = features.fit_transform(NOTES)
    scored = features.transform(["cough", "fever"])
    expected = [LinearSVC().fit(fitted, LABELS[:, code]).decision_function(scored) for code in range(2)]
    np.testing.assert_allclose(tfidf_scores(NOTES, LABELS, ["cough", "fever"]), np.transpose(expected), atol=1e-3)


@pytest.mark.parametrize("strong", [False, True])
def test_a_code_that_training_lacks_is_last_and_one_that_all_notes_have_first(strong):
    labels = np.insert(LABELS, [1, 2], [0, 1], axis=1)  # codes: cough, none, fever, all
    scores = tfidf_scores(NOTES, labels, NOTES, strong=strong)
    learned = scores[:, [0, 2]]
    assert (scores[:, 1] == learned.min()).all() and (scores[:, 3] == learned.max()).all()
    assert ((learned > 0) == (LABELS > 0)).mean() > 0.8


def test_the_strong_one_tells_what_is_denied_and_says_the_same_twice():
    first, again = (tfidf_scores(NOTES, LABELS, ["cough", "no cough"], strong=True) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first[0, 0] > 0 > first[1, 0]
