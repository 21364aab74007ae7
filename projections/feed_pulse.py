"""What happened in one partition lately, for the condensed feed: which jobs changed, and how fast.

No body is read. What changed is told once the views have seen it, so that a row that is told is never
older than one told before, and `told` is a place behind which nothing is owed.
"""

from collections import deque
from collections.abc import Container, Sequence
from itertools import islice
from typing import Final

import msgspec

from penstock.core.events import Event, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import order
from penstock.projections.feed_cursor import Place
from penstock.projections.views import Counts

TICKS_A_SECOND: Final = 10
MAX_CHANGED: Final = 20_000
MAX_EVENTS: Final = 1_000  # of one watched job, until the views have seen them

_COUNTED: Final = {b"submitted": 0, b"started": 1, b"completed": 2, b"failed": 3}


class QueueRates(msgspec.Struct):
    """Events in the last second."""

    submitted: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0


class QueuePulse(msgspec.Struct):
    """A queue now: its jobs by state, and what happened in the last second."""

    counts: Counts
    rates: QueueRates


class Ready(msgspec.Struct):
    """What can be told of a partition, up to a position: jobs (newest change last), how many more
    changed, and the events of those that are watched."""

    upto: str
    jobs: list[str]
    more: int
    events: dict[str, list[Event]]


class Pulse:
    """One partition. `read`: how far its log was listened to; `told`: how far all was told."""

    def __init__(self, keys: PartitionKeys, place: Place) -> None:
        self.keys: Final = keys
        self.read = place
        self.told = place
        self.last: QueuePulse | None = None
        self.fresh = True
        self._changed: Final[dict[str, str]] = {}
        self._skipped = 0
        self._events: Final[dict[str, list[Event]]] = {}
        self._slots: Final[deque[list[int]]] = deque([[0] * len(_COUNTED)], maxlen=TICKS_A_SECOND)

    def take(self, page: Sequence[Entry], place: Place, watched: Container[str] = ()) -> set[str]:
        """Go on by entries of the log; answers the watched jobs with more events than can be kept."""
        slot, full = self._slots[-1], set()
        for position, fields in page:
            job = (fields[3] or position).decode(errors="replace")
            self._changed.pop(job, None)
            self._changed[job] = position.decode()  # the newest stand last
            if fields[1] in _COUNTED:
                slot[_COUNTED[fields[1]]] += 1
            if job in watched:
                events = self._events.setdefault(job, [])
                events.append(read_entry(position, fields))
                if len(events) > MAX_EVENTS:
                    full.add(job)
        for job in list(islice(self._changed, max(0, len(self._changed) - MAX_CHANGED))):
            del self._changed[job]
            self._skipped += 1
        for job in full:
            del self._events[job]
        self.read = place
        return full

    def owe(self, page: Sequence[Entry], told: Place) -> None:
        """These changed before this pulse began, and the views have not seen them yet."""
        self.told = told
        later = dict(self._changed)
        self._changed.clear()
        for position, fields in page:
            self._changed[(fields[3] or position).decode(errors="replace")] = position.decode()
        for job, last in later.items():
            self._changed.pop(job, None)
            self._changed[job] = last

    def restart(self, place: Place) -> None:
        """Begin anew at another place."""
        self.read = self.told = place
        self.fresh = True
        self._changed.clear()
        self._events.clear()

    def tick(self) -> None:
        """A tenth of a second has passed."""
        self._slots.append([0] * len(_COUNTED))

    @property
    def alive(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._changed) or any(map(any, self._slots)) or self._moving

    @property
    def _moving(self) -> bool:
        return self.last is not None and self.last.rates != QueueRates()

    def rates(self) -> QueueRates:
        """What happened in the last second."""
        return QueueRates(*map(sum, zip(*self._slots, strict=True)))

    def ready(self, checkpoint: str) -> Ready:
        """What the views have seen, as far as this pulse has listened."""
        upto = min(checkpoint, self.read.position, key=order)
        seen = order(upto)
        jobs = [job for job, last in self._changed.items() if order(last) <= seen]
        kept = {job: [it for it in some if order(it.position) <= seen] for job, some in self._events.items()}
        return Ready(upto, jobs, self._skipped, {job: some for job, some in kept.items() if some})

    def settle(self, told: Ready) -> None:
        """What was ready counts as told."""
        seen = order(told.upto)
        for job in told.jobs:
            if order(self._changed.get(job, told.upto)) <= seen:  # else it has changed again meanwhile
                self._changed.pop(job, None)
        for job, events in told.events.items():
            if rest := self._events.get(job, [])[len(events) :]:
                self._events[job] = rest
            else:
                self._events.pop(job, None)
        self._skipped -= told.more
        if seen > order(self.told.position):
            self.told = Place(self.read.mark, told.upto)
