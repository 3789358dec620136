"""Worker processes that code chunks, each with a model of its own."""

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

import torch

from .predict_coder import Job, NoteCoder, use_device
from .predict_parts import Part


SECONDS_TO_END = 10.0  # that a worker has to remove what it has half written


def code_in_processes(job: Job, numbers: Iterable[int], processes: int) -> Iterator[Part]:
    """Code chunks in worker processes; yields what each part holds, as it is finished.

    A worker ends by itself when this process does, however that ends.

    Args:
        job (`Job`): the run.
        numbers (`Iterable[int]`): of the chunks.
        processes (`int`): how many workers.

    Raises:
        ValueError: a worker's own; or where a worker was killed.
    """
    context = multiprocessing.get_context("spawn")  # a forked process could not use a GPU, nor the threads of torch
    threads = max(1, torch.get_num_threads() // processes)
    workers: dict[Connection, BaseProcess] = {}
    try:
        for worker in range(processes):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(theirs, job, worker, threads), daemon=True)
            process.start()
            theirs.close()  # so that nothing but the worker holds it, and its end is seen here
            workers[ours] = process
        yield from _give_out(numbers, workers)
    except BaseException:
        for process in workers.values():
            process.terminate()
        raise
    finally:
        for connection in workers:
            connection.close()  # which ends a worker that waits for a chunk
        for process in workers.values():
            process.join(SECONDS_TO_END)
            process.kill()


def _give_out(numbers: Iterable[int], workers: Mapping[Connection, BaseProcess]) -> Iterator[Part]:
    """A chunk at a time to each worker, the next one when it is done."""
    left = iter(numbers)
    busy: set[Connection] = set()

    def give(connection: Connection) -> None:
        if (number := next(left, None)) is not None:
            with suppress(BrokenPipeError):  # the worker was killed, which reading from it tells
                connection.send(number)
            busy.add(connection)

    for connection in workers:
        give(connection)
    while busy:
        ready = set(wait(busy))
        for connection in [item for item in busy if item in ready]:
            busy.remove(connection)
            try:
                answer = connection.recv()
            except (EOFError, ConnectionResetError):
                workers[connection].join()
                raise ValueError(_explain_end(workers[connection].exitcode)) from None
            if isinstance(answer, Exception):
                raise answer
            yield answer
            give(connection)


def _explain_end(code: int | None) -> str:
    by = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit status {code}"
    return (
        f"A worker process was ended {by}; the system kills one where memory runs out. The same command goes on from what is "
        "finished: give it fewer --processes."
    )


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    sys.exit()  # so that what is half written is removed


def _work(connection: Connection, job: Job, worker: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the command ends its workers itself
    signal.signal(signal.SIGTERM, _end)
    torch.set_num_threads(threads)
    try:
        use_device(worker)
        coder = NoteCoder(job)
        while True:
            connection.send(coder.code_chunk(connection.recv()))
    except (EOFError, BrokenPipeError):
        return  # the command has ended
    except Exception as error:
        connection.send(error)
