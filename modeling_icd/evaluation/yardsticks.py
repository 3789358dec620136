"""Yardsticks of a trained model: figures on the validation notes that anyone reaches without it.

Two of them: a table that gives every note the codes' training frequencies, whatever the note says; and TF-IDF with a linear
classifier for each code. What a model and its yardsticks reach is kept in `training_data` of its configuration, from where
training, evaluation and the model card say it in the same sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .decisions import tune_bagged_threshold
from .icd_metrics.accumulator import ICDMetricsAccumulator
from .icd_metrics.inputs import ClassIds
from .icd_metrics.metrics import Counts, Tally, mean_average_precision
from .icd_metrics.ranks import rank_gold


Gold = Sequence[Sequence[int]]
# On which figure a model is compared with each yardstick, and how that is said.
COMPARED = {
    "frequencies": ("map", "MAP", "a table that gives every note the codes' training frequencies"),
    "tfidf": ("f1_micro", "micro-F1", "TF-IDF with a linear classifier for each code"),
}
_SENTENCE, _AND = "On the validation notes the model's {parts}.", ", and its "
_BELOW = "{title} {own} is below the {other} of {yardstick}"
# What such a sentence looks like, as a regular expression.
_PATTERNS = [
    _BELOW.format(title=title, own=r"\d\.\d{4}", other=r"\d\.\d{4}", yardstick=yardstick)
    for _, title, yardstick in COMPARED.values()
]
WARNING = "|".join(_SENTENCE.format(parts=_AND.join(parts)) for parts in (*([part] for part in _PATTERNS), _PATTERNS))


def map_of_frequencies(counts: Sequence[int] | np.ndarray, gold: Gold, empty_gold: Gold = ()) -> float:
    """The MAP of a table that ranks the codes by their training frequency, in the same way for every note.

    Args:
        counts (`Sequence[int]` of length C): training notes of each code.
        gold (`Sequence[Sequence[int]]`): class ids of each note.
        empty_gold (`Sequence[Sequence[int]]`, *optional*):
            Class ids of notes without text. Every code scores 0 for them, as everywhere in this package.
    """
    num_codes = len(counts)
    rank_of_code = rank_gold(np.asarray(counts, float)[None], np.zeros(num_codes, int), np.arange(num_codes))
    with_text, without = (np.array([code for codes in part for code in codes], int) for part in (gold, empty_gold))
    num_gold = np.array([len(codes) for codes in (*gold, *empty_gold)])
    by_code, by_note = np.zeros((1, num_codes), int), np.zeros(len(num_gold), int)
    tally = Tally(
        Counts(by_code, by_code, by_code),
        Counts(by_note, by_note, num_gold),
        np.concatenate([rank_of_code[with_text], without]),  # of equal scores the lower class id comes first
    )
    return float(mean_average_precision(tally)[0])


def figures_at_best(scores: np.ndarray, gold: Gold, empty_gold: Gold = ()) -> dict[str, float]:
    """MAP, and micro-F1 at the threshold that `tune_bagged_threshold` chooses on the same notes.

    Args:
        scores (array of shape `(N, C)`): probabilities.
        gold, empty_gold: as in [`map_of_frequencies`]; the threshold is chosen without the notes that have no text.
    """
    threshold = tune_bagged_threshold(scores, ClassIds(gold))
    accumulator = ICDMetricsAccumulator(scores.shape[1], threshold=threshold)
    accumulator.add_batch(scores, ClassIds(gold))
    if empty_gold:
        accumulator.add_batch(np.zeros((len(empty_gold), scores.shape[1]), np.float32), ClassIds(empty_gold))
    metrics = accumulator.compute()
    return {name: metrics[name] for name in ("map", "f1_micro")}


def compare(
    model: np.ndarray, tfidf: np.ndarray | None, counts: Sequence[int] | np.ndarray, gold: Gold, empty_gold: Gold = ()
) -> dict[str, Any]:
    """Compare a model with its yardsticks on the validation notes.

    Args:
        model (array of shape `(N, C)`): its scores.
        tfidf (array of shape `(N, C)`, *optional*): those of TF-IDF.
        counts, gold, empty_gold: as in [`map_of_frequencies`].

    Returns:
        The figures of `model`, `frequencies` and, where its scores are given, `tfidf`; `below` names the yardsticks that
        the model did not reach.
    """
    found: dict[str, Any] = {
        "model": figures_at_best(model, gold, empty_gold),
        "frequencies": {"map": map_of_frequencies(counts, gold, empty_gold)},
    }
    if tfidf is not None:
        found["tfidf"] = figures_at_best(tfidf, gold, empty_gold)
    below = [name for name, (key, *_) in COMPARED.items() if name in found and found["model"][key] < found[name][key]]
    return {**found, "below": below}


def training_warning(training_data: Mapping[str, Any] | None) -> str | None:
    """The sentence that names the yardsticks which a model did not reach; `None` where it reached all, or has none.

    Args:
        training_data (`Mapping[str, Any]`, *optional*): of the model's configuration.
    """
    found = (training_data or {}).get("yardsticks") or {}
    parts = [
        _BELOW.format(
            title=title, own=f"{found['model'][key]:.4f}", other=f"{found[name][key]:.4f}", yardstick=yardstick
        )
        for name, (key, title, yardstick) in COMPARED.items()
        if name in found.get("below", [])
    ]
    return _SENTENCE.format(parts=_AND.join(parts)) if parts else None
