"""What the processes of one training (`torchrun`) share: hidden states and buffers; and how it ends."""

from collections.abc import Sequence
from typing import TypeVar

import datasets
import torch
from torch import distributed
from transformers import TrainingArguments

from ..inference.hidden_states import HiddenStates
from ..inference.processes import every_process


T = TypeVar("T")


def fill_states(states: HiddenStates, parts: Sequence[datasets.Dataset], args: TrainingArguments) -> None:
    """Compute the hidden states of tokenized notes that are missing: each process a share of them. A format that is fitted is
    fitted on the first of these data sets."""
    columns = [part.select_columns("input_ids") for part in parts]

    def fill() -> None:
        states.fit(columns[0]["input_ids"])
        states.fill(datasets.concatenate_datasets(columns)["input_ids"], args.process_index, args.world_size)

    every_process(fill)
    states.reload()


def share_buffers(model: torch.nn.Module, args: TrainingArguments) -> None:
    """Copy the first process's buffers to all: their batch norm statistics differ, since each has seen other notes."""
    if args.world_size > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def is_lost_process(args: TrainingArguments, error: RuntimeError) -> bool:
    """Whether an error means that another process no longer answers."""
    is_network = isinstance(error, distributed.DistError) or "gloo" in str(error)
    return args.world_size > 1 and is_network


def end_processes() -> None:
    """Leave the group of processes, where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
