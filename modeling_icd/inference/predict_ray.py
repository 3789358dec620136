"""Codes chunks with Ray Data: the same stage as an actor of a pool, on one machine or on a cluster.

Only numbers of chunks pass through Ray: every actor reads the notes, and writes the parts, where the user has them. So no
clinical text lies in Ray's object store, nor in what it spills to disk.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .predict_coder import Job, NoteCoder


LOCAL = "local"
# Blocks of chunk numbers at most; where there are more chunks, an actor that is killed has a whole block to look at again.
MAX_BLOCKS = 1000


def import_ray() -> Any:
    """The module `ray` with its Data library.

    Raises:
        ValueError: where it is not installed, with the command that installs it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"--ray needs Ray Data ({error}): pip install modeling-icd[ray]") from None
    return ray


def code_with_ray(job: Job, numbers: Sequence[int], actors: int | None, address: str = LOCAL) -> Iterator[int]:
    """Code chunks with a pool of actors; yields the number of notes in each, as it is finished.

    An actor that is killed is started again, and its chunk coded again.

    Args:
        job (`Job`): the run.
        numbers (`Sequence[int]`): of the chunks.
        actors (`int`, *optional*): how many; by default one for each GPU or, where there is none, each CPU.
        address (`str`): of a cluster, whose machines all have the same paths; `local` starts one on this machine.

    Raises:
        ValueError: where Ray is not installed or cannot be reached, or an actor raises one.
    """
    ray = import_ray()
    was_running = ray.is_initialized()
    if not was_running:
        _start(ray, actors, address)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        size = actors or gpus or max(1, int(resources.get("CPU", 1)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        chunks = ray.data.from_items(
            [{"chunk": number} for number in numbers], override_num_blocks=min(len(numbers), MAX_BLOCKS)
        )
        coded = chunks.map_batches(
            NoteCoder,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=size),
            batch_size=1,
            num_gpus=min(1, gpus / size) if gpus else None,
        )
        for row in coded.iter_rows():
            yield int(row["notes"])
    except ray.exceptions.RayError as error:
        raise ValueError(f"Ray could not code the notes: {_cause_of(error)}") from None
    finally:
        if not was_running:
            ray.shutdown()


def _start(ray: Any, actors: int | None, address: str) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it prints tracebacks of what is raised, too
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": actors}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"Ray cannot be started at {address!r}: {error}") from None


def _cause_of(error: BaseException) -> str:
    """What an actor raised, in one line: Ray's own message ends with it, as a traceback does."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ValueError: ") if lines else type(error).__name__
