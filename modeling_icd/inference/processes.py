"""Coordinates the processes that torchrun has started: the first one writes and speaks, the others wait and read.

All processes call every function here, in the same order. With one process, a function only does its work.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


T = TypeVar("T")


def this_process() -> tuple[int, int]:
    """Which of the processes that torchrun has started this one is, and how many there are."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    state = PartialState(cpu=not torch.cuda.is_available())
    return state.process_index, state.num_processes


class OtherProcessFailed(RuntimeError):
    """Another process has met an error, which it reports itself."""


def first_process_only(work: Callable[[], T]) -> T:
    """Let the first process do some work while the others wait; its result is given to all.

    Raises:
        OtherProcessFailed: in the others, where the first met an error.
    """
    process, num_processes = this_process()
    if num_processes == 1:
        return work()
    result: Any = None
    error: Exception | None = None
    if process == 0:
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


def first_process_first(work: Callable[[], T]) -> T:
    """Let the first process do some work, then the others, which find what it has written."""
    mine: list[T] = []
    first_process_only(lambda: mine.append(work()))
    return mine[0] if mine else work()


def every_process(work: Callable[[], T]) -> T:
    """Let every process do its share of some work, and wait until all have finished.

    Raises:
        OtherProcessFailed: where another has met an error.
    """
    if this_process()[1] == 1:
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


def run_in_processes(command: Callable[[], int]) -> int:
    """Run what a command line asks for in every process; the first alone prints. Returns the exit status."""
    with nullcontext() if this_process()[0] == 0 else redirect_stdout(StringIO()):
        try:
            return command()
        except OtherProcessFailed:  # which says why
            return 2
