"""Memory of a process, for the benchmarks; Linux alone tells it so."""

import ctypes
import os
import re
from pathlib import Path


def memory() -> dict[str, float]:
    """Memory of this process in bytes, now (`VmRSS`) and at its peak (`VmHWM`) since it was started, or since [`reset_peak`].

    What `resource.getrusage` calls a peak also holds that of the process which has started this one.
    """
    found = re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {name: 1024.0 * int(value) for name, value in found}


def returning_memory() -> dict[str, str]:
    """The environment of a process that gives large pieces back to the system when they are freed, so that a peak is what is needed
    at one time, and not what the allocator has kept."""
    return {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}


def peak() -> float:
    """The most resident memory that this process has had, in bytes."""
    return memory()["VmHWM"]


def reset_peak() -> None:
    """Let the peak be counted from now on, without what is free and only kept by the allocator."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
