"""The data collator: makes a batch of padded token ids (or hidden states) and multi-hot labels from tokenized notes."""

from dataclasses import dataclass

import torch

from ..inference.batches import padded_inputs
from ..inference.hidden_states import HiddenStates


def multi_hot(label_ids: list[list[int]], num_labels: int) -> torch.Tensor:
    """Floats `(B, C)`, 1 where the note has the code."""
    labels = torch.zeros(len(label_ids), num_labels)
    for row, ids in enumerate(label_ids):
        labels[row, ids] = 1.0
    return labels


def padded_evidence(evidence: list[list[list[int]]]) -> torch.Tensor:
    """Pairs of a code and a token that justifies it, `(B, K, 2)`, -1 where a note has fewer than K."""
    pairs = [torch.tensor(of_note, dtype=torch.long).reshape(-1, 2) for of_note in evidence]
    return torch.nn.utils.rnn.pad_sequence(pairs, batch_first=True, padding_value=-1)


def padded_ids(ids: list[list[int]]) -> torch.Tensor:
    """Class ids of each note, `(B, K)`, -1 where a note has fewer than K."""
    rows = [torch.tensor(of_note, dtype=torch.long) for of_note in ids]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


@dataclass
class ICDCollator:
    """Pads a batch on the right.

    Args:
        num_labels (`int`): C.
        pad_token_id (`int`): what `input_ids` are padded with: any token, since the mask says where.
        hidden_states (`HiddenStates`, *optional*): where given, batches hold its states in place of `input_ids`.
    """

    num_labels: int
    pad_token_id: int = 0
    hidden_states: HiddenStates | None = None

    def __call__(self, notes: list[dict]) -> dict[str, torch.Tensor]:
        """`notes` hold `input_ids` and `label_ids`; `evidence`, pairs of a code and a token, where it is learned from; and
        `unknown_ids`, codes that the model does not know, where it is evaluated with them (`ICDTrainer.prediction_step`).

        Raises:
            ValueError: where a note has no token.
        """
        empty = sum(not len(note["input_ids"]) for note in notes)
        if empty:
            raise ValueError(
                f"{empty} of the {len(notes)} notes of a batch have no token, and cannot be coded: leave them out, e.g. with "
                '`split.filter(lambda note: note["length"] > 0)`.'
            )
        inputs = padded_inputs([note["input_ids"] for note in notes], self.hidden_states, self.pad_token_id)
        batch = {**inputs, "labels": multi_hot([note["label_ids"] for note in notes], self.num_labels)}
        if "evidence" in notes[0]:
            batch["evidence"] = padded_evidence([note["evidence"] for note in notes])
        if "unknown_ids" in notes[0]:
            batch["unknown_ids"] = padded_ids([note["unknown_ids"] for note in notes])
        return batch
