"""The loop from notes to logits: tokenized notes, or cached hidden states, go through a model in batches."""

import sys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dataset_scripts.counts import counted

from ..generative_icd import is_generative
from ..words_icd import WordReaderConfig
from .batches import batches_by_length, padded_inputs
from .hidden_states import HiddenStates
from .linear import fast_linear_layers
from .processes import this_process
from .tokens import empty_notes, tokenize_notes


# Padded tokens of one batch at most, however many notes were asked for: it bounds the memory that long notes take.
TOKENS_PER_BATCH = 65536

T = TypeVar("T")


def logits_of_notes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    notes: Sequence[str],
    batch_size: int = 8,
    states: HiddenStates | None = None,
) -> np.ndarray:
    """Logits `(N, C)` of whole notes, fp32, in the order given. Several processes share the notes, and each gets all logits.

    An empty note (see `empty_notes`) is not given to the model; its logits are 0 and have no meaning.

    Args:
        states (`HiddenStates`, *optional*): where hidden states of a frozen backbone are kept from run to run.

    Raises:
        ValueError: where the model gives NaN or infinity, or the tokenizer gives no token for a note with text.
    """
    input_ids = tokenize_notes(tokenizer, notes)
    check_tokens(input_ids, notes)
    return logits_of_tokens(model, input_ids, batch_size, states)


def check_tokens(input_ids: Sequence[list[int]], notes: Sequence[str], may_lack: bool = False) -> None:
    """Raise a `ValueError` where a tokenizer has no token for a note with text; with `may_lack`, where that is most of them,
    as with the tokenizer of another model. Some may have none of a word model's words, such as a note of numbers alone."""
    has_text = ~empty_notes(notes)
    is_unread = has_text & ~np.array([bool(ids) for ids in input_ids], bool)
    if 2 * is_unread.sum() > has_text.sum() if may_lack else is_unread.any():
        raise ValueError(
            f"The tokenizer gives no token for {is_unread.sum()} of {len(notes)} notes that have text, the first being note "
            f"{is_unread.argmax()} of the split: it is not the one that the model was trained with."
        )


def logits_of_tokens(
    model: PreTrainedModel, input_ids: Sequence[list[int]], batch_size: int = 8, states: HiddenStates | None = None
) -> np.ndarray:
    """As [`logits_of_notes`], of notes that are tokenized; those of a note without a token are 0 and have no meaning."""
    process, num_processes = this_process()
    if process == 0:
        say_cut(model.config, input_ids)
    if is_generative(model.config):  # before any note is read, since the longest ones come last
        model.check_lengths([len(ids) for ids in input_ids if ids])
    if states is not None:
        states.fill([ids for ids in input_ids if ids], process, num_processes)
        if num_processes > 1:
            PartialState().wait_for_everyone()
            states.reload()
    return predict_logits(model, input_ids, batch_size, states, process=process, num_processes=num_processes)


def say_cut(config, input_ids: Sequence[list[int]]) -> None:
    """Print how many notes have more words than a word model reads, whose tokenizer has cut them."""
    limit = (
        config.max_position_embeddings
        if getattr(config, "backbone_type", None) == WordReaderConfig.model_type
        else None
    )
    num_cut = 0 if limit is None else sum(len(ids) >= limit for ids in input_ids)
    if num_cut:
        print(
            f"{counted(num_cut, f'of {len(input_ids):,} notes has', f'of {len(input_ids):,} notes have')} {limit:,} words or more: this "
            "model reads so many of a note, its first ones.",
            file=sys.stderr,
        )


@torch.inference_mode()
def predict_logits(
    model: PreTrainedModel,
    notes: Sequence[list[int]],
    batch_size: int = 8,
    states: HiddenStates | None = None,
    *,
    process: int = 0,
    num_processes: int = 1,
    show_progress: bool = True,
) -> np.ndarray:
    """Logits `(N, C)` of tokenized notes, fp32, in the order given; notes of similar length share a batch.

    Args:
        model (`PreTrainedModel`): used on its device and in its dtype, in evaluation mode.
        notes: the `input_ids` of each; the logits of a note without a token are 0.
        states (`HiddenStates`, *optional*): holds the hidden states of all these notes; the backbone is not run.
        process, num_processes (`int`): which share of the batches this process computes; every process returns all logits.
        show_progress (`bool`): whether to show a progress bar, in the first process only.

    Raises:
        ValueError: where the model gives NaN or infinity.
    """
    model.eval()
    batches = batches_by_length([len(ids) for ids in notes], batch_size, TOKENS_PER_BATCH)
    # As many batches as every other process, since those that share the weights of a divided model must call it as often.
    each = -(-len(batches) // num_processes)
    own = [min(process + number * num_processes, len(batches) - 1) for number in range(each)]
    found = {}
    for number in tqdm(own, desc="Scoring", unit="batch", disable=process > 0 or not show_progress):
        inputs = padded_inputs([notes[i] for i in batches[number]], states)
        try:
            with fast_linear_layers(model.device):
                output = model(**{name: values.to(model.device) for name, values in inputs.items()})
        except ValueError as error:  # which knows the rows of a batch alone
            raise ValueError(f"{error} The batch holds the notes {batches[number]} of the split.") from None
        found[number] = output.logits.float().cpu().numpy()
    if num_processes > 1:
        found = {number: part for share in gather_object([found]) for number, part in share.items()}
    logits = np.zeros((len(notes), model.config.num_labels), dtype=np.float32)
    for number, part in found.items():
        logits[batches[number]] = part
    check_logits(logits)
    return logits


def check_logits(logits: np.ndarray) -> None:
    """Raise a `ValueError` where the logits of some note are NaN or infinite: no metric may be computed from them."""
    wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"The model gives NaN or infinity for {len(wrong)} of {len(logits)} notes, the first being note {wrong[0]} of the "
            "split: its weights are damaged, training diverged, or the notes overflow its data type."
        )
