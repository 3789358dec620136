"""Shows whether a model learns: figures that are logged at each evaluation, and a comparison with yardsticks at the end.

What the figures mean, and what to do about them, is in docs/training.md.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from scipy.special import expit

from ..decision_icd import calibrated_scores
from ..evaluation.decisions import multi_hot
from ..evaluation.icd_metrics.inputs import ClassIds
from ..evaluation.tfidf import tfidf_scores
from ..evaluation.yardsticks import compare, map_of_frequencies, training_warning
from .notes import notes_per_code


MAX_NOTES = 32  # whose attention is looked at
# Pairs of a training note and a code, and characters of all notes: beyond that, TF-IDF would take too long.
MAX_TFIDF_PAIRS, MAX_TFIDF_CHARACTERS = 1_000_000, 20_000_000


def is_of_head(name: str) -> bool:
    """Whether a parameter belongs to the head, or to the mix of layers that it reads; all others are the backbone's."""
    return "score." in name or "layer_mix." in name


@torch.no_grad()
def attention_entropy(model, batches: Iterable[Mapping[str, torch.Tensor]]) -> float | None:
    """How widely the codes attend: entropy of a code's attention over a note, divided by the log of the note's tokens, as
    the mean over notes and codes.

    It is 0 where each code attends to one token, and 1 where it attends to all alike. Notes of a single token are left out.

    Args:
        model: in evaluation mode.
        batches: inputs of the model, each with its `attention_mask`.

    Returns:
        `None` for a model whose head does not attend, and where no note has two tokens.
    """
    shares = []
    for inputs in batches:
        attentions = model(**inputs, output_label_attentions=True).label_attentions  # (B, C, L)
        if attentions is None:
            return None
        num_tokens = inputs["attention_mask"].sum(dim=1)  # (B,)
        entropy = torch.special.entr(attentions.float()).sum(dim=-1).mean(dim=-1)  # (B,)
        is_defined = num_tokens > 1
        shares += (entropy[is_defined] / num_tokens[is_defined].float().log()).tolist()
    return float(np.mean(shares)) if shares else None


def as_whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, or the whole of one that is divided among processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class GradientNorms:
    """Mean norms of the gradients of the head and of the backbone, over steps, before clipping."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add_step(self, model: torch.nn.Module, total: float | torch.Tensor) -> None:
        """Take in the gradients of one step, which are those of the whole batch: of all its parts and processes.

        Clipping scales all gradients alike. So the norm of a part before it is the part's share of `total`.

        Args:
            model: whose gradients may be clipped already. A part without gradients is left out.
            total: norm of all gradients before clipping. A step in which it is infinite is not counted.
        """
        squares: dict[str, list[torch.Tensor]] = {}
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                norm = as_whole(torch.linalg.vector_norm(weight.grad, dtype=torch.float32))
                squares.setdefault("head" if is_of_head(name) else "backbone", []).append(norm.square())
        if not squares:
            return
        device = next(iter(squares.values()))[0].device
        of_part = {
            part: torch.stack([square.to(device) for square in of_weights]).sum()
            for part, of_weights in squares.items()
        }
        of_all = torch.stack(list(of_part.values())).sum()
        whole = as_whole(torch.as_tensor(total)).to(device, torch.float32)
        for part, square in of_part.items():
            norm = torch.where(of_all > 0, whole * (square / of_all).sqrt(), whole)  # without gradients the whole is 0
            is_finite = norm.isfinite()
            # Nothing is read from the device before the next evaluation: training need not wait for it.
            self.sums[part] = self.sums.get(part, 0) + torch.where(is_finite, norm, 0.0)
            self.counts[part] = self.counts.get(part, 0) + is_finite

    def take(self) -> dict[str, float]:
        """`grad_norm_head` and `grad_norm_backbone` of the steps since the last call; what had no gradient is left out."""
        means = {f"grad_norm_{part}": (self.sums[part] / self.counts[part]).item() for part in self.sums}
        self.sums, self.counts = {}, {}
        return {name: mean for name, mean in means.items() if np.isfinite(mean)}


class Diagnostics:
    """The figures that show at each evaluation whether a model learns, beside the metrics.

    Args:
        train_split, validation_split (`datasets.Dataset`): tokenized.
        num_labels (`int`): C.
        empty_gold (`list[list[int]]`): codes of the validation notes without text.
    """

    def __init__(
        self,
        train_split: datasets.Dataset,
        validation_split: datasets.Dataset,
        num_labels: int,
        empty_gold: list[list[int]],
    ):
        counts = notes_per_code(train_split["label_ids"], num_labels)
        self.map_of_frequencies = map_of_frequencies(counts, list(validation_split["label_ids"]), empty_gold)
        rows = np.linspace(0, len(validation_split) - 1, min(MAX_NOTES, len(validation_split))).round().astype(int)
        self.notes = validation_split.select(rows)
        self.gradients = GradientNorms()

    def at_evaluation(self, trainer) -> dict[str, float]:
        """The figures since the last evaluation, for the trainer's model as it is now.

        Every process reads the same notes, so that none waits for another in a model that is divided among them.
        """
        batches = (self._inputs(trainer, note) for note in self.notes)
        with trainer.compute_loss_context_manager():
            entropy = attention_entropy(trainer.model, batches)
        return {
            "map_of_frequencies": self.map_of_frequencies,
            **({} if entropy is None else {"attention_entropy": entropy}),
            **self.gradients.take(),
        }

    @staticmethod
    def _inputs(trainer, note: dict[str, Any]) -> dict[str, torch.Tensor]:
        """A batch of one note, without what only a loss needs."""
        batch = trainer.data_collator([note])
        return trainer._prepare_inputs({key: batch[key] for key in batch if key not in ("labels", "evidence")})


def fit_tfidf(
    train_notes: Sequence[str], train_gold: Sequence[Sequence[int]], notes: Sequence[str], num_labels: int
) -> np.ndarray | None:
    """Scores `(N, C)` of the strong TF-IDF, fitted on the training notes; `None`, and one line that says why, where the
    notes and codes are too many, or the notes too few."""
    is_long = sum(map(len, train_notes)) + sum(map(len, notes)) > MAX_TFIDF_CHARACTERS
    if len(train_notes) * num_labels > MAX_TFIDF_PAIRS or is_long:
        print(
            f"The TF-IDF yardstick is left out: {len(train_notes):,} training notes and {num_labels:,} codes are too many."
        )
        return None
    labels = multi_hot(ClassIds(train_gold), (len(train_notes), num_labels)).astype(np.float32)
    try:
        decisions = tfidf_scores(list(train_notes), labels, list(notes), strong=True)
    except ValueError:  # what scikit-learn makes of notes that share no word; its message is about its own settings
        print("The TF-IDF yardstick is left out: the training notes are too few to share words.")
        return None
    return expit(decisions).astype(np.float32)


def measure_yardsticks(splits, training, validation, logits: np.ndarray, with_tfidf: bool) -> dict[str, Any] | None:
    """Compare a trained model with its yardsticks on the validation notes, as `compare` returns it.

    Args:
        splits (`dict[str, datasets.Dataset]`): `training` and `validation`, with the notes' text.
        training, validation (`TokenizedNotes`): made of these.
        logits (array of shape `(N, C)`): of the notes of `validation`.
        with_tfidf (`bool`): whether TF-IDF is one of them.

    Returns:
        `None` where no validation note has a code that the model knows.
    """
    gold, num_labels = list(validation.tokens["label_ids"]), logits.shape[1]
    if not any(gold):
        return None
    train_gold = list(training.tokens["label_ids"])
    tfidf = None
    if with_tfidf:
        train_notes = splits["training"].select(training.rows)["text"]
        tfidf = fit_tfidf(train_notes, train_gold, splits["validation"].select(validation.rows)["text"], num_labels)
    scores = calibrated_scores(torch.from_numpy(logits), None).numpy()
    return compare(scores, tfidf, notes_per_code(train_gold, num_labels), gold, validation.empty_gold)


def warn_of_yardsticks(training_data: Mapping[str, Any]) -> None:
    """Print one warning if the model did not reach its yardsticks."""
    warning = training_warning(training_data)
    if warning is not None:
        print(f"warning: {warning[0].lower()}{warning[1:]} See docs/training.md on what to do.", file=sys.stderr)
