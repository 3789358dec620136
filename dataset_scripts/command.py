"""Runs the command lines of this project: errors and signals end them with a message and an exit status, not a traceback."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


# What a message says of an error of the system, by its number, behind the path.
OF_SYSTEM = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM), "you have no permission for it. Give another path, or have it opened to you"
    ),
    errno.EROFS: "it lies on a disk that can only be read. Give another path",
    errno.EISDIR: "it is a folder, where a file is expected. Give the path of a file",
    errno.ENOTDIR: "a part of this path is a file, where a folder is expected. Give another path",
    errno.EEXIST: "a file is there, where a folder is expected. Give another path",
    errno.ENOTEMPTY: "it is a folder that holds files. Give another path",
    errno.ENOENT: "it does not exist. Is the path right?",
    errno.ENAMETOOLONG: "its name is too long. Give a shorter one",
}


class Ended(BaseException):
    """A signal that asks the process to end; raised in its place, so that what is half written is removed on the way out."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_command(
    command: Callable[[], int], *errors: type[Exception], interrupted: str = "What was there before is as it was."
) -> int:
    """Run what a command line asks for; returns its exit status.

    A user's mistake (`ValueError`, `OSError`, and `errors` besides) is one message on stderr and status 2. Ctrl-C is status
    130, SIGTERM 143 and SIGHUP 129, each with one line; files that were being written are removed, those before them stay.

    Args:
        command (`Callable`): Does the work; its return value is the exit status.
        errors: Further exceptions whose message is meant for the user.
        interrupted (`str`): What to say of the state in which Ctrl-C or a signal leaves things.
    """
    for_the_user: tuple[type[Exception], ...] = (ValueError, OSError, *errors)
    try:
        with _ended_by_signals():
            return command()
    except KeyboardInterrupt:
        return _fail(f"interrupted. {interrupted}", 128 + signal.SIGINT)
    except Ended as ended:
        return _fail(f"ended by {ended}. {interrupted}", 128 + ended.number)
    except BrokenPipeError:  # as in `... | head`: nobody reads on, and Python must not try to write the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except for_the_user as error:
        if not isinstance(error, (ValueError, OSError)) and isinstance(error.__cause__, (ValueError, OSError)):
            error = error.__cause__  # what `datasets` wraps in "an error occurred"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" ({error.filename})" if error.filename else ""
            return _fail(
                f"the disk is full{place}. What was there before is as it was: free some space, and try again.", 2
            )
        return _fail(_explain(error), 2)


def _explain(error: Exception) -> str:
    """The message of an error; one of the system, which has a number and a path, in words that say what to do."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | os.PathLike):
        return str(error)
    said = OF_SYSTEM.get(error.errno or 0, f"{error.strerror}")
    return f"{os.fspath(error.filename)}: {said}{'' if said.endswith('?') else '.'}"


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise [`Ended`]; a signal that is ignored, as under `nohup`, stays so."""

    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Ended(number)
        signal.signal(number, signal.SIG_DFL)  # a worker forked since: it ends as it would have
        os.kill(os.getpid(), number)

    replaced = {}
    if threading.current_thread() is threading.main_thread():  # no other may set what a signal does
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        replaced = {number: signal.getsignal(number) for number in numbers}
    for number, handler in replaced.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
