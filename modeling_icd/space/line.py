"""Who is next: the notes that wait for the model, in the order in which they came, and how one of them is called off."""

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, field


class Cancelled(Exception):
    """Raised where work goes on that was called off."""


class LineIsFull(Exception):
    """Raised where as many wait already as may; the message is for the user."""


@dataclass
class Watch:
    """What the work on one note, or on one file of notes, has come to. The thread that works writes it, others read it.

    Args:
        done, total (`int`): tokens of a note, or rows of a file.
    """

    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.monotonic)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def begin(self, total: int) -> None:
        """Say how much there is to do; the clock starts."""
        self.done, self.total, self.started = 0, total, time.monotonic()

    def cancel(self) -> None:
        """Call the work off: it ends at its next [`check`]."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raise [`Cancelled`] where the work was called off."""
        if self.is_cancelled:
            raise Cancelled

    def seconds_left(self) -> float | None:
        """How long the rest will take if it goes on as it did; `None` before anything is done."""
        if not 0 < self.done <= self.total:
            return None
        return (time.monotonic() - self.started) / self.done * (self.total - self.done)


@dataclass(eq=False)
class Place:
    """A place in the line.

    Args:
        ahead_at_first (`int`): how many were before it when it came.
    """

    ahead_at_first: int
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = 0.0


class Line:
    """The line in front of the model, which codes one note at a time. All of its methods run on the server's event loop.

    Args:
        max_waiting (`int`): how many may wait beside the one whose turn it is.
    """

    def __init__(self, max_waiting: int):
        self.max_waiting = max_waiting
        self._places: list[Place] = []
        self._turns: deque[float] = deque(maxlen=10)  # seconds that the last turns took

    def __len__(self) -> int:
        return len(self._places)

    def join(self) -> Place:
        """Take the last place.

        Raises:
            LineIsFull: where `max_waiting` wait already.
        """
        if len(self._places) > self.max_waiting:
            waiting = "1 note is" if self.max_waiting == 1 else f"{self.max_waiting} notes are"
            raise LineIsFull(f"{waiting} waiting already: try again in a minute.")
        place = Place(len(self._places))
        self._places.append(place)
        self._start_turn()
        return place

    def leave(self, place: Place) -> None:
        """Give a place up, wherever it is; the others move up."""
        if place not in self._places:
            return
        if place.since:
            self._turns.append(time.monotonic() - place.since)
        self._places.remove(place)
        self._move_up()

    def give_way(self, place: Place) -> None:
        """End a turn and go behind all who wait; where nobody waits, the next turn begins at once."""
        if place.since:
            self._turns.append(time.monotonic() - place.since)
            place.since = 0.0
        self._places.remove(place)
        self._places.append(place)
        self._move_up()

    def ahead_of(self, place: Place) -> int:
        """How many are before a place; 0 where it is its turn."""
        return self._places.index(place)

    def seconds_until(self, place: Place) -> float | None:
        """How long a place will wait, by the last turns; `None` before there were any."""
        if not self._turns:
            return None
        return sum(self._turns) / len(self._turns) * self.ahead_of(place)

    async def wait(self, place: Place, seconds: float) -> None:
        """Wait until a place moves up, at most so many seconds."""
        place.moved.clear()
        try:
            await asyncio.wait_for(place.moved.wait(), seconds)
        except TimeoutError:
            return

    def _move_up(self) -> None:
        for place in self._places:
            place.moved.set()
        self._start_turn()

    def _start_turn(self) -> None:
        if self._places and not self._places[0].since:
            self._places[0].since = time.monotonic()
