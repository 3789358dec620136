"""Metrics of automatic ICD coding as an `evaluate` module.

`evaluate` copies beside this file what it imports with a leading dot, so that every file of the folder is named here. It reads
one name a line, and takes a comment at the end of such a line for an address: keep those lines bare.
"""

import datasets
import evaluate

from .accumulator import SCORE_STORAGES, ICDMetricsAccumulator
from .inputs import ClassIds
from .metrics import CUTOFFS, nan_to_none
from .ranks import GoldRanks


__all__ = ["CUTOFFS", "SCORE_STORAGES", "ClassIds", "GoldRanks", "ICDMetrics", "ICDMetricsAccumulator", "nan_to_none"]

_DESCRIPTION = """\
Metrics of multi-label classification with very many labels, as used in automatic ICD coding: precision, recall, F1 and
Jaccard index (micro, macro, instance), three kinds of macro F1 told apart, AUC, average precision, precision, recall and nDCG
at k, R-precision, MAP, exact match, ECE and Brier score.
"""

_CITATION = """\
@inproceedings{mullenbach-etal-2018-explainable,
    title = "Explainable Prediction of Medical Codes from Clinical Text",
    author = "Mullenbach, James and Wiegreffe, Sarah and Duke, Jon and Sun, Jimeng and Eisenstein, Jacob",
    booktitle = "Proceedings of NAACL-HLT 2018",
    year = "2018",
    url = "https://arxiv.org/abs/1802.05695",
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (or `prediction_scores`): scores in 0..1, an array `(notes, codes)`.
    references: gold codes. An array, tensor or sparse matrix `(notes, codes)` is multi-hot. Lists, one for each note, are
        multi-hot rows, class ids or code strings, whichever they fit.
    references_format: "multi_hot", "ids" or "codes"; needed where lists fit two, such as `[[0, 1], [1, 0]]`.
    predictions_format: "scores" (default), or as `references_format` where predictions are the predicted codes.
    labels: the codes in the order of the columns, or a model's `id2label`; for code strings.
    threshold: a code is predicted where score > threshold; one number or one for each code. Default 0.5.
    k: cut-offs of the `_at_k` metrics. Default (5, 8, 15).
    tune_threshold: also report the `threshold` with the best micro F1; for validation only.
    per_code: also return arrays with one value for each code.
Returns:
    dict of floats, which the README defines. NaN where the data cannot define a value.
Examples:
    >>> metric = evaluate.load("modeling_icd/evaluation/icd_metrics")
    >>> results = metric.compute(predictions=[[0.9, 0.2, 0.6], [0.1, 0.8, 0.3]], references=[[0], [1, 2]])
    >>> round(results["f1_micro"], 4)
    0.6667
"""


class ICDMetrics(evaluate.Metric):
    """`ICDMetricsAccumulator` behind the interface of `evaluate`; scores stay numpy arrays and never pass through Arrow.

    Args:
        num_labels, threshold, k, score_storage, references_format, predictions_format, labels:
            As in `ICDMetricsAccumulator`; pass them to `evaluate.load`.
        **kwargs: What `evaluate.load` passes to every module.
    """

    def __init__(
        self, *args, num_labels=None, threshold=0.5, k=CUTOFFS, score_storage="float32", labels=None, **kwargs
    ):
        formats = {name: kwargs.pop(name, None) for name in ("references_format", "predictions_format")}
        super().__init__(*args, **kwargs)
        if self.num_process != 1:
            raise ValueError(
                f"This module holds its notes in memory and cannot join {self.num_process} processes through files. "
                "Gather the scores first."
            )
        self.accumulator = ICDMetricsAccumulator(
            num_labels, threshold=threshold, k=k, score_storage=score_storage, labels=labels, **formats
        )

    def __len__(self):
        return len(self.accumulator)

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int32")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1802.05695", "https://arxiv.org/abs/2304.10909"],
        )

    def add(self, *, prediction=None, reference=None, prediction_scores=None, **formats):
        """Add one note: the scores of its codes and its gold codes; `formats` as in `add_batch`."""
        prediction = one_of(prediction, prediction_scores)
        self.add_batch(
            predictions=None if prediction is None else as_batch(prediction),
            references=None if reference is None else as_batch(reference),
            **formats,
        )

    def add_batch(self, *, predictions=None, references=None, prediction_scores=None, **formats):
        """Add a batch of notes: scores `(B, C)` and gold codes; `references_format`, `predictions_format` and `labels` say how
        to read them."""
        unknown = sorted(formats.keys() - {"references_format", "predictions_format", "labels"})
        if unknown:
            raise ValueError(f"Unknown inputs {unknown}: this module takes `predictions` and `references`.")
        predictions = one_of(predictions, prediction_scores)
        if predictions is None or references is None:
            raise ValueError("Both `predictions` (scores) and `references` (gold codes) are needed.")
        self.accumulator.add_batch(predictions, references, **formats)

    def compute(
        self,
        *,
        predictions=None,
        references=None,
        prediction_scores=None,
        threshold=None,
        k=None,
        tune_threshold=False,
        per_code=False,
        **formats,
    ):
        """Return the metrics of all notes added, those given here included, and start afresh; `formats` as in `add_batch`."""
        predictions = one_of(predictions, prediction_scores)
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **formats)
        elif formats:
            raise ValueError(
                f"{sorted(formats)} say how to read the notes of this call, but there are none: give them where notes are "
                "added, or to `evaluate.load`."
            )
        try:
            results = self.accumulator.compute(threshold, k, tune_threshold)
            if per_code:
                return {**results, "per_code": self.accumulator.per_code(threshold)}
            return results
        finally:
            self.accumulator.reset()


def one_of(predictions, prediction_scores):
    """The predictions under either of their names, of which only one may be given."""
    if predictions is not None and prediction_scores is not None:
        raise ValueError("Give either `predictions` or `prediction_scores`: both are the scores.")
    return prediction_scores if predictions is None else predictions


def as_batch(note):
    """One note's values as a batch of one; a sparse row, which is a matrix already, stays as it is."""
    if not hasattr(note, "shape"):
        return [note]
    return note if len(note.shape) == 2 else note[None]
