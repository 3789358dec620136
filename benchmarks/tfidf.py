"""The honest yardstick: TF-IDF over words and word pairs, and one linear classifier per code."""

import warnings

import numpy as np
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from dataset_scripts import ICDBuilder
from modeling_icd.evaluation import ICDMetricsAccumulator, tune_bagged_threshold
from modeling_icd.training.collator import multi_hot


def tfidf_scores(train_notes: list[str], train_labels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Decision values `(N, C)` of LinearSVC. A code that training lacks gets the lowest of all.

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


def evaluate_tfidf(builder: ICDBuilder, tune_threshold: bool) -> dict[str, float]:
    """Figures of the yardstick on the test split.

    Args:
        builder (`ICDBuilder`): with the splits train, validation and test.
        tune_threshold (`bool`):
            True: fitted on train alone, its threshold chosen on validation, as the models' is. False: fitted on train
            and validation, LinearSVC's own decision.
    """
    num_codes = builder.info.features["codes"].feature.num_classes
    notes, labels = {}, {}
    for name in ("train", "validation", "test"):
        split = builder.as_dataset(split=name)
        notes[name] = list(split["text"])
        labels[name] = multi_hot(list(split["codes"]), num_codes).numpy()
    if tune_threshold:
        decisions = tfidf_scores(notes["train"], labels["train"], notes["validation"] + notes["test"])
        scores = expit(decisions).astype(np.float32)
        validation, test = np.split(scores, [len(notes["validation"])])
        threshold = tune_bagged_threshold(validation, labels["validation"])
    else:
        fitted = np.concatenate([labels["train"], labels["validation"]])
        test = expit(tfidf_scores(notes["train"] + notes["validation"], fitted, notes["test"])).astype(np.float32)
        threshold = 0.5  # of LinearSVC's decision at 0
    accumulator = ICDMetricsAccumulator(num_codes, threshold=threshold)
    accumulator.add_batch(test, labels["test"])
    return accumulator.compute()
