"""Coordinates the processes of one training (`torchrun`): the first one writes, the others wait and read.

All processes call every function here, in the same order. With one process, a function only does its work.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import datasets
import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed
from transformers import TrainingArguments

from ..inference.hidden_states import HiddenStates


T = TypeVar("T")


class OtherProcessFailed(RuntimeError):
    """Another process has met an error, which it reports itself."""


def first_process_only(args: TrainingArguments, work: Callable[[], T]) -> T:
    """Let the first process do some work while the others wait; its result is given to all.

    Raises:
        OtherProcessFailed: in the others, where the first met an error.
    """
    if args.world_size == 1:
        return work()
    result: Any = None
    error: Exception | None = None
    if args.process_index == 0:
        try:
            result = work()
        except Exception as caught:  # raised again below, once the others know
            error = caught
    result, failure = broadcast_object_list([result, error and str(error)])
    if error is not None:
        raise error
    if failure is not None:
        raise OtherProcessFailed(failure)
    return result


def first_process_first(args: TrainingArguments, work: Callable[[], T]) -> T:
    """Let the first process do some work, then the others, which find what it has written."""
    mine: list[T] = []
    first_process_only(args, lambda: mine.append(work()))
    return mine[0] if mine else work()


def every_process(args: TrainingArguments, work: Callable[[], T]) -> T:
    """Let every process do its share of some work, and wait until all have finished.

    Raises:
        OtherProcessFailed: where another has met an error.
    """
    if args.world_size == 1:
        return work()
    result: Any = None
    error: Exception | None = None
    try:
        result = work()
    except Exception as caught:  # raised again below, once the others know
        error = caught
    failures = gather_object([error and str(error)])
    if error is not None:
        raise error
    if any(failure is not None for failure in failures):
        raise OtherProcessFailed(next(failure for failure in failures if failure is not None))
    return result


def fill_states(states: HiddenStates, parts: Sequence[datasets.Dataset], args: TrainingArguments) -> None:
    """Compute the hidden states of tokenized notes that are missing: each process a share of them. A format that is fitted is
    fitted on the first of these data sets."""
    columns = [part.select_columns("input_ids") for part in parts]

    def fill() -> None:
        states.fit(columns[0]["input_ids"])
        states.fill(datasets.concatenate_datasets(columns)["input_ids"], args.process_index, args.world_size)

    every_process(args, fill)
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
