"""The honest yardsticks of the benchmarks: TF-IDF and one linear classifier per code, the plain one or the strong one; the coder by
terms, which needs no training; and a table of the codes' training frequencies, which is the same for every note."""

from typing import Any

import numpy as np
from scipy.special import expit

from dataset_scripts import ICDBuilder
from modeling_icd.evaluation import ICDMetricsAccumulator, tune_bagged_threshold
from modeling_icd.evaluation.scoring import score_notes
from modeling_icd.evaluation.tfidf import tfidf_scores
from modeling_icd.knowledge.coder import build_coder, system_of
from modeling_icd.training.collator import multi_hot


def evaluate_tfidf(builder: ICDBuilder, tune_threshold: bool, strong: bool = False) -> dict[str, float]:
    """Figures of the yardstick on the test split.

    Args:
        builder (`ICDBuilder`): with the splits train, validation and test.
        tune_threshold (`bool`):
            True: fitted on train alone, its threshold chosen on validation, as the models' is. False: fitted on train
            and validation, LinearSVC's own decision.
        strong (`bool`): whether to take the strong one, see `modeling_icd/evaluation/tfidf.py`.
    """
    notes, labels = notes_and_labels(builder)
    if tune_threshold:
        decisions = tfidf_scores(notes["train"], labels["train"], notes["validation"] + notes["test"], strong=strong)
        scores = expit(decisions).astype(np.float32)
        validation, test = np.split(scores, [len(notes["validation"])])
        threshold = tune_bagged_threshold(validation, labels["validation"])
    else:
        fitted = np.concatenate([labels["train"], labels["validation"]])
        decisions = tfidf_scores(notes["train"] + notes["validation"], fitted, notes["test"], strong=strong)
        test = expit(decisions).astype(np.float32)
        threshold = 0.5  # of LinearSVC's decision at 0
    return figures(test, labels["test"], threshold)


def evaluate_terms(builder: ICDBuilder, use_notes: bool = True, **fields: Any) -> dict[str, float]:
    """Figures of the coder by terms on the test split.

    Args:
        builder (`ICDBuilder`): with the splits train, validation and test.
        use_notes (`bool`):
            True: marked evidence of train is among its terms, all are weighed on train, and its threshold is chosen on validation.
            False: it has the titles and inclusion terms alone, weights and threshold as they were set by hand.
        fields: of its configuration, as `build_coder` takes them.
    """
    notes, labels = notes_and_labels(builder)
    systems = system_of(builder.info.features["codes"].feature.names)
    coder = build_coder(systems, builder=builder, use_notes=use_notes, **fields)
    scores = {name: score_notes(coder.model, coder.tokenizer, notes[name]) for name in ("validation", "test")}
    threshold = tune_bagged_threshold(scores["validation"], labels["validation"]) if use_notes else 0.5
    return figures(scores["test"], labels["test"], threshold)


def evaluate_frequencies(builder: ICDBuilder) -> dict[str, float]:
    """Figures, on the test split, of a table that scores each code by the share of training notes that have it, with the
    threshold that is best on validation."""
    _, labels = notes_and_labels(builder)
    shares = labels["train"].mean(axis=0, keepdims=True).astype(np.float32)
    validation, test = (np.repeat(shares, len(labels[name]), axis=0) for name in ("validation", "test"))
    return figures(test, labels["test"], tune_bagged_threshold(validation, labels["validation"]))


def notes_and_labels(builder: ICDBuilder) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """The notes of each split, and their codes `(N, C)`."""
    num_codes = builder.info.features["codes"].feature.num_classes
    notes, labels = {}, {}
    for name in ("train", "validation", "test"):
        split = builder.as_dataset(split=name)
        notes[name] = list(split["text"])
        labels[name] = multi_hot(list(split["codes"]), num_codes).numpy()
    return notes, labels


def figures(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    accumulator = ICDMetricsAccumulator(labels.shape[1], threshold=threshold)
    accumulator.add_batch(scores, labels)
    return accumulator.compute()
