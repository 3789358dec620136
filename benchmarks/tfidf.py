"""The honest yardstick of the benchmarks: TF-IDF and one linear classifier per code, the plain one or the strong one."""

import numpy as np
from scipy.special import expit

from dataset_scripts import ICDBuilder
from modeling_icd.evaluation import ICDMetricsAccumulator, tune_bagged_threshold
from modeling_icd.evaluation.tfidf import tfidf_scores
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
    num_codes = builder.info.features["codes"].feature.num_classes
    notes, labels = {}, {}
    for name in ("train", "validation", "test"):
        split = builder.as_dataset(split=name)
        notes[name] = list(split["text"])
        labels[name] = multi_hot(list(split["codes"]), num_codes).numpy()
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
    accumulator = ICDMetricsAccumulator(num_codes, threshold=threshold)
    accumulator.add_batch(test, labels["test"])
    return accumulator.compute()
