"""The yardstick: what TF-IDF counts in a note, what its classifiers say, and how a model is compared with it."""

import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from modeling_icd.evaluation.tfidf import marked_words, sections_of, tfidf_scores, words_in_sections
from modeling_icd.evaluation.yardsticks import WARNING, compare, map_of_frequencies, training_warning


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


def test_the_map_of_frequencies_by_hand():
    # The table ranks 2, 0, 1. Note 1 has 0 and 1, at ranks 2 and 3: (1/2 + 2/3) / 2. Note 2 has 2, at rank 1. The note
    # without codes counts 0. The note without text, whose codes stand in the order of their ids, has 0: rank 1.
    expected = ((1 / 2 + 2 / 3) / 2 + 1 + 0 + 1) / 4
    assert map_of_frequencies([3, 1, 5], [[0, 1], [2], []], [[0]]) == pytest.approx(expected)
    # Of equal frequencies the lower id comes first: 0, 1, 2.
    assert map_of_frequencies([2, 2, 2], [[1]]) == pytest.approx(1 / 2)


def test_a_model_is_below_a_yardstick_that_it_does_not_reach():
    gold = [[0], [0], [0], [1]]
    right = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], np.float32)
    of_frequencies = np.array([[0.75, 0.25]] * 4, np.float32)
    assert compare(right, right, [3, 1], gold)["below"] == []  # which it reaches
    found = compare(of_frequencies, right, [3, 1], gold)
    assert found["below"] == ["tfidf"]
    # One of two codes at rank 1 for three notes and at rank 2 for one; all four notes get code 0, of which three are right.
    assert found["model"] == pytest.approx({"map": (3 + 1 / 2) / 4, "f1_micro": 2 * 3 / (4 + 4)})
    assert found["frequencies"] == pytest.approx({"map": (3 + 1 / 2) / 4})
    assert found["tfidf"] == {"map": 1.0, "f1_micro": 1.0}
    assert training_warning({"yardsticks": found}) == (
        "On the validation notes the model's micro-F1 0.7500 is below the 1.0000 of TF-IDF with a linear classifier for each "
        "code."
    )
    wrong = compare(1 - right, None, [3, 1], gold)
    assert wrong["below"] == ["frequencies"] and "tfidf" not in wrong
    both = training_warning({"yardsticks": compare(1 - right, right, [3, 1], gold)})
    assert both.startswith("On the validation notes the model's MAP 0.5000 is below the 0.8750 of a table")
    assert ", and its micro-F1 " in both and re.fullmatch(WARNING, both)
    assert (
        training_warning(None) is None and training_warning({"yardsticks": compare(right, None, [3, 1], gold)}) is None
    )
