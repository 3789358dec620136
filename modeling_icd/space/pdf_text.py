"""Reads the text of a PDF in a process of its own, which may take only so much time and memory.

A few kilobytes of PDF can hold millions of operators, or unpack to gigabytes. So `documents` starts this file as a program: the
PDF comes on its standard input, and one line of JSON goes to its standard output. Nothing is written to a disk.
"""

import io
import json
import logging
import subprocess
import sys
import threading
from typing import Any

import pypdf
from pypdf.errors import LimitReachedError


logger = logging.getLogger(__name__)

MAX_PAGES = 1000
MAX_SECONDS = 20  # of processor time; and three times as long by the clock, where the machine is busy
MAX_MEMORY_BYTES = 1 << 30
AT_ONCE = threading.BoundedSemaphore(2)  # PDFs that are read at the same time: they share the machine with the model


def pages_in_child(content: bytes, max_characters: int) -> dict[str, Any]:
    """What [`pages_of`] gives, read in a process of its own; `{"fault": "limits"}` where it needed more than it may, and
    `{"fault": "failed"}` where the process could not be started, or ended by itself without an answer."""
    command = [sys.executable, "-P", __file__, str(max_characters), str(MAX_SECONDS), str(MAX_MEMORY_BYTES)]
    with AT_ONCE:
        try:
            run = subprocess.run(command, input=content, capture_output=True, timeout=3 * MAX_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return {"fault": "limits"}
        except OSError as error:
            logger.error("The program that reads PDFs cannot be started: %s.", error.strerror)
            return {"fault": "failed"}
    try:
        return json.loads(run.stdout)
    except ValueError:  # it said nothing, or half a line
        if run.returncode < 0:  # ended from outside, by the signal of a limit
            return {"fault": "limits"}
        logger.error("The program that reads PDFs failed, with exit status %d.", run.returncode)
        return {"fault": "failed"}


def pages_of(content: bytes, max_characters: int) -> dict[str, Any]:
    """The text of a PDF.

    Returns:
        `{"pages": [str, ...]}`, or `{"fault": word}`: `encrypted` and `unknown encryption`, `pages` (more than `MAX_PAGES`),
        `long` (more than `max_characters`), `limits` (more memory than there is), `damaged`.
    """
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"fault": "encrypted"}
        if len(reader.pages) > MAX_PAGES:
            return {"fault": "pages"}
        pages: list[str] = []
        left = max_characters
        for page in reader.pages:
            pages.append(page.extract_text())
            left -= len(pages[-1])
            if left < 0:
                return {"fault": "long"}
    except (MemoryError, RecursionError, LimitReachedError):
        return {"fault": "limits"}
    except Exception as error:  # a damaged file raises whatever its parts break
        return {"fault": "unknown encryption" if "cryptography" in str(error) else "damaged"}
    return {"pages": pages}


def limit_process(seconds: int, memory_bytes: int) -> None:
    """Bound this process: its processor time and memory; and it writes no file, and no core when it is ended."""
    try:
        import resource
    except ImportError:  # a system without such limits: the clock of the process that started this one is left
        return
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, hard))


def main() -> None:
    """`pdf_text.py MAX_CHARACTERS SECONDS MEMORY_BYTES`: a PDF in, one line of JSON out."""
    max_characters, seconds, memory_bytes = map(int, sys.argv[1:])
    content = sys.stdin.buffer.read()
    limit_process(seconds, memory_bytes)
    try:
        answer = json.dumps(pages_of(content, max_characters))
    except MemoryError:
        answer = '{"fault": "limits"}'
    print(answer)


if __name__ == "__main__":
    main()
