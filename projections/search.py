"""A search through all jobs, newest first, told as it goes on: what was found, how far it is, and an end.

What a row knows (state, type, time) is asked of the indexes; for tag, worker, error and text the job's
own events are read, a page of jobs at a time. So it is bounded in memory whatever the log holds, it can
be stopped at any time by going away, and it ends by itself after a number of matches or some time, with
a cursor from which the next one goes on.
"""

import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.errors import FieldProblem, InvalidJob
from penstock.core.events import Event, Started, Submitted
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import STATES, Job, State, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import milliseconds, order, packed, unpacked
from penstock.projections.details import JobSummary, instant, summary
from penstock.projections.filters import last_error
from penstock.projections.views import Stats, read_stats

PAGE: Final = 200
MAX_EVENTS: Final = 200  # of one job: its first and its last ones
MAX_SECONDS: Final = 60.0
PROGRESS_S: Final = 0.25
_SLICE: Final = 400  # events read at once: payloads and results come along


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for: jobs that fit all that is said. `since`, `until`: submitted from, and before
    (Unix ms). `error`: a part of the last error as `Class: message`; `text`: a part of what was said to
    it or by it: payload, result, error, progress and log, without regard to case. `origin`: the job or
    flow that it was made from, or the redrive, by its name or the id of its job."""

    queue: str = ""
    state: State | None = None
    type: str = ""
    tag: str = ""
    worker: str = ""
    error: str = ""
    text: str = ""
    origin: str = ""
    since: int = 0
    until: int = 0

    @property
    def deep(self) -> bool:
        """Whether events must be read."""
        return bool(self.tag or self.worker or self.error or self.text or self.origin)

    @property
    def shallow(self) -> bool:
        """Whether a job's first event tells enough."""
        return not (self.worker or self.error or self.text)


class Progress(msgspec.Struct):
    """How far a search is: jobs looked at, of about so many, back to when, and how many were found.
    `next`: the cursor from which another one goes on, if this one is stopped here."""

    looked: int
    of: int
    at: str | None
    found: int
    next: str


class Match(msgspec.Struct):
    """A job that fits, and where its text was found: the name of an event."""

    job: JobSummary
    found_in: str | None = None


class End(msgspec.Struct):
    """The end of a search. `next`: the cursor from which to go on; null where all was looked at."""

    looked: int
    found: int
    next: str | None


class _Source:
    """The jobs of one partition that the indexes say fit, newest first."""

    def __init__(
        self, redis: Redis, keys: PartitionKeys, sought: Sought, stats: Stats, newest: bytes
    ) -> None:
        self.keys: Final = keys
        self.places: Final[deque[bytes]] = deque()
        self._redis: Final = redis
        types = [name for name in stats.types if not sought.type or name == sought.type]
        states = STATES if sought.state is None else (sought.state,)
        self.size: Final = sum(getattr(stats.types[type], state) for type in types for state in states)
        self._indexes: Final = [keys.index(state, type) for type in types for state in states]
        self._newest = newest
        self._oldest: Final = b"[" + packed(f"{sought.since}-0") if sought.since else b"-"

    async def fill(self) -> None:
        """Have a page at hand, if there is more. All indexes are read in one step, so a job that moves
        from one to another is seen in one of them."""
        if self.places or not self._indexes:
            return
        pipeline = self._redis.pipeline(transaction=True)
        for index in self._indexes:
            pipeline.zrevrangebylex(index, self._newest, self._oldest, 0, PAGE)
        found = sorted({it for some in await pipeline.execute() for it in some}, reverse=True)[:PAGE]
        self.places.extend(found)
        if found:
            self._newest = b"(" + found[-1]
        else:
            self._indexes.clear()


class Search:
    """One search over the queues of a namespace."""

    def __init__(self, redis: Redis, keys: Keys, sought: Sought, limit: int) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._sought: Final = sought
        self._limit: Final = limit
        self._looked = self._found = 0
        self._at: str | None = None

    async def run(
        self, queues: Sequence[str], cursor: str = ""
    ) -> AsyncGenerator[Match | Progress | End, None]:
        """Matches as they are found, and how far it is. Raises InvalidJob for a cursor that is none."""
        sources = await self._sources(queues, cursor)
        total, began, told = sum(source.size for source in sources), time.monotonic(), 0.0
        while page := await self._page(sources):
            source, places = page
            for match in await self._fitting(source.keys, places):
                self._found += 1
                yield match
                if self._found >= self._limit:
                    yield End(self._looked, self._found, _write_cursor(source.keys, match.job.id))
                    return
            self._looked += len(places)
            self._at = instant(milliseconds(unpacked(places[-1])))
            now, here = time.monotonic(), f"{source.keys.queue}.{unpacked(places[-1])}"
            if now - told >= PROGRESS_S:
                told = now
                yield Progress(self._looked, max(total, self._looked), self._at, self._found, here)
            if now - began >= MAX_SECONDS:
                yield End(self._looked, self._found, here)
                return
        yield End(self._looked, self._found, None)

    async def _sources(self, queues: Sequence[str], cursor: str) -> list[_Source]:
        partitions = [self._keys.partition(queue) for queue in queues]
        pipeline = self._redis.pipeline(transaction=False)
        for keys in partitions:
            pipeline.get(keys.stats)
        sought, replies = self._sought, await pipeline.execute()
        return [
            _Source(
                self._redis, keys, sought, read_stats(raw) if raw else Stats(), _newest(keys, sought, cursor)
            )
            for keys, raw in zip(partitions, replies, strict=True)
        ]

    async def _page(self, sources: Sequence[_Source]) -> tuple[_Source, list[bytes]] | None:
        """The newest jobs that are not looked at yet, of one partition; None at the end."""
        for source in sources:
            await source.fill()
        heads = sorted(
            ((it.places[0], it.keys.queue, it) for it in sources if it.places),
            key=lambda it: it[:2],
            reverse=True,
        )
        if not heads:
            return None
        source, second = heads[0][2], heads[1][0] if len(heads) > 1 else b""
        taken = [source.places.popleft()]
        while source.places and source.places[0] > second:
            taken.append(source.places.popleft())
        return source, taken

    async def _fitting(self, keys: PartitionKeys, places: Sequence[bytes]) -> list[Match]:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(keys.jobs, places)
        [rows] = await pipeline.execute()
        jobs = {unpacked(it): read_row(row) for it, row in zip(places, rows, strict=True) if row}
        state = self._sought.state
        jobs = {it: job for it, job in jobs.items() if state is None or job.state == state}
        if not self._sought.deep:
            return [Match(summary(keys, it, job)) for it, job in jobs.items()]
        events = await self._events(keys, jobs)
        matches = []
        for position, job in jobs.items():
            fits, where = fits_by_events(self._sought, events[position])
            if fits:
                matches.append(Match(summary(keys, position, job), where))
        return matches

    async def _events(self, keys: PartitionKeys, jobs: dict[str, Job]) -> dict[str, list[Event]]:
        some = _first if self._sought.shallow else _some
        wanted = sorted((it for position, job in jobs.items() for it in some(position, job)), key=order)
        found: dict[str, list[Event]] = defaultdict(list)
        for start in range(0, len(wanted), _SLICE):
            for event in await Log(self._redis, keys).read(wanted[start : start + _SLICE]):
                found[event.job].append(event)
        return found


def fits_by_events(sought: Sought, events: Sequence[Event]) -> tuple[bool, str | None]:
    """Whether a job fits by its events, and the event in which the text is."""
    if sought.error and sought.error not in last_error(events):
        return False, None
    if (sought.tag or sought.worker or sought.origin) and not _is_such(sought, events):
        return False, None
    if not sought.text:
        return True, None
    text = sought.text.casefold()
    where = next((event.tag for event in events if text in _readable(event.body).casefold()), None)
    return where is not None, where


def _is_such(sought: Sought, events: Sequence[Event]) -> bool:
    bodies = [legible(event)[1] for event in events]
    asked = [it for it in bodies if isinstance(it, Submitted)]
    return (
        (not sought.tag or any(sought.tag in it.tags for it in asked))
        and (not sought.origin or any(_is_from(sought.origin, it) for it in asked))
        and (not sought.worker or any(isinstance(it, Started) and _ran_on(it, sought) for it in bodies))
    )


def _is_from(origin: str, it: Submitted) -> bool:
    return it.origin == origin or (bool(it.origin) and it.key == f"redrive:{origin}:{it.origin}")


def _ran_on(it: Started, sought: Sought) -> bool:
    """Whether it was this worker, also as it is called after a lost lease (`name~2`)."""
    return sought.worker in (it.worker, it.worker.rpartition("~")[0])


def _readable(body: bytes) -> str:
    """The JSON as people read it; where it has escapes, without them."""
    text = body.decode(errors="replace")
    if "\\" not in text:
        return text
    try:
        return text + _said(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return text


def _said(value: Any) -> str:
    """All texts of a decoded JSON value."""
    waiting, found = [value], list[str]()
    while waiting:
        match waiting.pop():
            case str() as text:
                found.append(text)
            case list() as items:
                waiting += items
            case dict() as fields:
                waiting += fields.values()
    return "\n".join(["", *found])


def _first(position: str, job: Job) -> list[str]:
    return [position]


def _some(position: str, job: Job) -> list[str]:
    """The first of a job's events, and its last ones."""
    first, *others = positions(position, job)
    return [first, *others[-MAX_EVENTS:]]


def _newest(keys: PartitionKeys, sought: Sought, cursor: str) -> bytes:
    """Where in an index of this partition to begin: before `until`, and behind the cursor."""
    newest = b"(" + packed(f"{sought.until}-0") if sought.until else b"+"
    if not cursor:
        return newest
    queue, _, position = cursor.rpartition(".")
    try:
        place = packed(position)
    except (ValueError, OverflowError):
        raise InvalidJob([FieldProblem("cursor", "is not one that a search has given")]) from None
    # Of two jobs at the same position in two queues, the one of the later name was looked at first.
    return (b"[" if keys.queue < queue else b"(") + place


def _write_cursor(keys: PartitionKeys, job_id: str) -> str:
    return f"{keys.queue}.{job_id.rpartition('.')[2]}"
