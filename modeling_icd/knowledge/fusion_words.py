"""Fits the linear classifiers by which a fused model scores the words of notes."""

from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC


MOST_GRAMS = 50_000
"""Single stems and pairs at most, the most frequent ones."""
MOST_CODES = 300
"""Codes with a classifier at most, the most frequent ones: with `MOST_GRAMS` the weights take 60 MB at most."""
NO_WORDS: dict[str, Any] = {
    "grams": torch.zeros(0, 2, dtype=torch.int32),
    "gram_rarity": torch.zeros(0),
    "gram_weights": torch.zeros(0, 0),
    "gram_biases": torch.zeros(0),
    "gram_codes": torch.zeros(0, dtype=torch.int32),
}
"""The tables of a model without such classifiers; see [`~modeling_icd.fusion_tables_icd.Tables`]."""


def fit_words(notes: Sequence[Sequence[tuple[int, int]]], codes: Sequence[Set[int]]) -> dict[str, Any]:
    """The tables `grams` to `gram_codes` of a fused model: TF-IDF and LinearSVC as in evaluation/tfidf.py, in which a rare code weighs
    as much as a frequent one. A code that all notes have is always above 0.

    Args:
        notes: of each note what [`~modeling_icd.fusion_words_icd.grams_of`] gives.
        codes: of each note the numbers of its codes.
    """
    counts = Counter(code for own in codes for code in own)
    chosen = sorted(code for code, _ in counts.most_common(MOST_CODES))
    documents = Counter(gram for grams in notes for gram in set(grams))
    if not chosen or max(documents.values(), default=0) < 2:
        return NO_WORDS
    options: dict[str, Any] = {"lowercase": False, "sublinear_tf": True, "min_df": 2, "max_features": MOST_GRAMS}
    vectorizer = TfidfVectorizer(analyzer=lambda grams: grams, **options)
    features = vectorizer.fit_transform(notes)
    weights = np.zeros((features.shape[1], len(chosen)), np.float32)
    biases = np.ones(len(chosen), np.float32)
    for column, code in enumerate(chosen):
        has_code = np.array([code in own for own in codes])
        if not has_code.all():
            classifier = LinearSVC(C=1.0, class_weight="balanced", random_state=0).fit(features, has_code)
            weights[:, column], biases[column] = classifier.coef_[0], classifier.intercept_[0]
    return {
        "grams": torch.tensor(vectorizer.get_feature_names_out().tolist(), dtype=torch.int32).reshape(-1, 2),
        "gram_rarity": torch.from_numpy(vectorizer.idf_.astype(np.float32)),
        "gram_weights": torch.from_numpy(weights),
        "gram_biases": torch.from_numpy(biases),
        "gram_codes": torch.tensor(chosen, dtype=torch.int32),
    }
