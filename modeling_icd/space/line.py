"""Who is next: the notes that wait for the model, in the order in which they came, and how one of them is called off."""

import asyncio
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

from dataset_scripts.counts import counted


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
        words (`int`): of the note that is read at its turn.
        model (`str`): which reads it.
        watch (`Watch`, *optional*): how far the note is; `None` for a file of notes, whose turns are single ones.
    """

    ahead_at_first: int
    words: int = 0
    model: str = ""
    watch: Watch | None = None
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
        # Of the last turns of each model: seconds, and words of the note.
        self._turns: defaultdict[str, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=10))

    def __len__(self) -> int:
        return len(self._places)

    def join(self, words: int = 0, model: str = "", watch: Watch | None = None) -> Place:
        """Take the last place, with what [`Place`] says of the note.

        Raises:
            LineIsFull: where `max_waiting` wait already.
        """
        if len(self._places) > self.max_waiting:
            waiting = counted(self.max_waiting, "note is", "notes are")
            raise LineIsFull(f"{waiting} waiting already: try again in a minute.")
        place = Place(len(self._places), words, model, watch)
        self._places.append(place)
        self._start_turn()
        return place

    def leave(self, place: Place, is_done: bool = False) -> None:
        """Give a place up, wherever it is; the others move up. A turn that came to its end says how long others will take."""
        if place not in self._places:
            return
        if is_done:
            self._end_turn(place)
        self._places.remove(place)
        self._move_up()

    def give_way(self, place: Place, is_done: bool = True) -> None:
        """End a turn and go behind all who wait; where nobody waits, the next turn begins at once. A turn in which nothing was
        coded (`is_done` is `False`) does not say how long others will take."""
        if is_done:
            self._end_turn(place)
        place.since = 0.0
        self._places.remove(place)
        self._places.append(place)
        self._move_up()

    def _end_turn(self, place: Place) -> None:
        if place.since:
            self._turns[place.model].append((time.monotonic() - place.since, place.words))
            place.since = 0.0

    def ahead_of(self, place: Place) -> int:
        """How many are before a place; 0 where it is its turn."""
        return self._places.index(place)

    def seconds_until(self, place: Place) -> float | None:
        """How long a place will wait, by the words of the notes before it; `None` where one of them is past knowing."""
        seconds = 0.0
        for other in self._places[: self.ahead_of(place)]:
            left = self._seconds_left(other)
            if left is None:
                return None
            seconds += left
        return seconds

    def _seconds_left(self, place: Place) -> float | None:
        """How long the turn of a place will take, or still takes: by what is read of its note, else by the last turns."""
        if place.since and place.watch is not None and (left := place.watch.seconds_left()) is not None:
            return left
        turns = self._turns[place.model]
        words = sum(words for _, words in turns)
        if not words:
            return None
        left = sum(seconds for seconds, _ in turns) / words * place.words
        if place.since:
            left -= time.monotonic() - place.since
        return left if left > 0 else None  # it takes longer than expected, and who knows how long

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
