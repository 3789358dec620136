"""The honest yardstick: TF-IDF over words and word pairs, and one linear classifier per code."""

import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC


def tfidf_scores(train_notes: list[str], train_labels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Decision values `(N, C)` of LinearSVC; a code is predicted above 0. A code that training lacks is never predicted.

    Args:
        train_notes (`list[str]`) and train_labels (`(N_train, C)`, 0/1): what it is fitted on.
        notes (`list[str]`): what it scores.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b"),
        OneVsRestClassifier(LinearSVC(C=1.0)),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        model.fit(train_notes, train_labels)
    return np.asarray(model.decision_function(notes))
