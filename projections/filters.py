"""Finding the jobs that fit a filter, a page at a time, in the order in which they were submitted.

`Selection` is all queues that a filter means, `Search` one of them.

The indexes give the jobs of the wanted types and states, their rows the rest that a row knows; only for
tags, errors, and for what a command must know is the log read, by position. Of a job's events those of
progress are dropped at once, so memory stays bounded by the page, whatever the jobs have said.

A page is taken from all indexes in one step: a job that moves from one state to another is seen in
one of them.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from heapq import nsmallest
from typing import Final, Protocol

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.control import Standing, standing
from penstock.core.events import AttemptFailed, Event, Failed, read_entry
from penstock.core.jobs.bulk import QUEUE, Filter
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import Job, State, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import START, before, milliseconds, order, packed, undelta, unpacked
from penstock.projections.views import Counts, Stats, read_stats

PAGE: Final = 200
# How long to wait for views that lag behind, so that what was done before the order counts too.
CATCH_UP_S: Final = 5.0
_LOOK_S: Final = 0.01
# Events are read so many at a time: payloads and results come along.
_SLICE: Final = 400
_SAID: Final = (b"progressed", b"logged")


class Wanted(Protocol):
    """What says which jobs are meant."""

    @property
    def filter(self) -> Filter: ...

    def states(self) -> tuple[State, ...]: ...


class Found(msgspec.Struct):
    """A job that fits: its position, its row, and where it stands, if its events were read."""

    position: str
    row: Job
    standing: Standing | None = None


class Page(msgspec.Struct):
    """Some jobs that fit, how many were looked at for them, and the position of the last one of those.
    `gone`: of how many the events were not there any more, because retention came first."""

    looked: int
    last: str
    found: list[Found]
    gone: int = 0


class Selection:
    """The queues that are meant, as of a moment (Unix ms); `settled` as for `Search`."""

    def __init__(self, redis: Redis, keys: Keys, wanted: Wanted, *, asked: int, settled: bool) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._wanted: Final = wanted
        self._asked: Final = asked
        self._settled: Final = settled
        self._patience = CATCH_UP_S

    async def searches(self, *, full: bool) -> AsyncIterator["Search"]:
        """One for each queue, by name, once its views have seen what its log holds now. Operations are
        meant only by the name of their queue."""
        named = self._wanted.filter.queue
        for name in sorted(await command(self._redis, "SMEMBERS", self._keys.queues)):
            queue = name.decode()
            if queue == named or (not named and queue != QUEUE):
                keys = self._keys.partition(queue)
                await self._seen(keys)
                yield Search(
                    self._redis, keys, self._wanted, asked=self._asked, settled=self._settled, full=full
                )

    async def _seen(self, keys: PartitionKeys) -> None:
        tip = order(await Log(self._redis, keys).tip())
        while self._patience > 0:
            seen: bytes | None = await command(self._redis, "GET", keys.checkpoint)
            if order(seen.decode() if seen else START) >= tip:
                return
            self._patience -= _LOOK_S
            await asyncio.sleep(_LOOK_S)


class Search:
    """A filter on one partition, as of a moment (Unix ms).

    `settled`: only jobs to which nothing has happened since. `full`: events are read in any case.
    """

    archived: Final = False

    def __init__(
        self, redis: Redis, keys: PartitionKeys, wanted: Wanted, *, asked: int, settled: bool, full: bool
    ) -> None:
        self.keys: Final = keys
        self.redis: Final = redis
        self.log: Final = Log(redis, keys)
        self.filter: Final = wanted.filter
        self.states: Final = wanted.states()
        self.full: Final = full or bool(wanted.filter.error or wanted.filter.tag)
        self._asked: Final = asked
        self._settled: Final = settled

    async def size(self) -> int:
        """How many jobs are to be looked at, about."""
        counts = (await self._types()).values()
        return sum(getattr(count, state) for count in counts for state in self.states)

    async def pages(self, after: str = "", count: int = PAGE) -> AsyncIterator[Page]:
        """All that fits, from the job after a position on if one is given; `count` looked at at a time."""
        indexes = [self.keys.index(state, type) for type in await self._types() for state in self.states]
        since, until = self.bounds()
        first, last = b"(" + packed(after or since), b"[" + packed(until)
        while indexes:
            pipeline = self.redis.pipeline(transaction=True)
            for index in indexes:
                pipeline.zrangebylex(index, first, last, 0, count)
            places = nsmallest(count, (place for some in await pipeline.execute() for place in some))
            if not places:
                return
            yield await self._fitting(places)
            first = b"(" + places[-1]

    async def removed(self) -> int:
        """How many jobs that ended as is meant retention has removed since the log began: of any type and
        time, for nothing else is known of them."""
        raw = await command(self.redis, "GET", self.keys.stats)
        trimmed = (read_stats(raw) if raw else Stats()).trimmed
        return sum(getattr(trimmed, state, 0) for state in self.states)

    async def _types(self) -> dict[str, Counts]:
        raw = await command(self.redis, "GET", self.keys.stats)
        types = (read_stats(raw) if raw else Stats()).types
        wanted = self.filter.type
        return {type: counts for type, counts in types.items() if not wanted or type == wanted}

    def bounds(self) -> tuple[str, str]:
        """The positions after which, and up to which, the jobs were submitted that are meant."""
        until = self._asked + 1
        if self.filter.until is not None:
            until = min(until, _ms(self.filter.until))
        return before(_ms(self.filter.since) if self.filter.since is not None else 0), before(until)

    async def _fitting(self, places: Sequence[bytes]) -> Page:
        rows = await command(self.redis, "HMGET", self.keys.jobs, *places)
        found = []
        for place, raw in zip(places, rows, strict=True):
            job = Found(unpacked(place), read_row(raw)) if raw else None
            if job is not None and job.row.state in self.states and self.is_settled(job):
                found.append(job)
        page = Page(len(places), unpacked(places[-1]), found, gone=sum(raw is None for raw in rows))
        if self.full and found:
            page.found = await Reading(self.log, self.filter).fitting(found)
            page.gone += sum(job.standing is None for job in found)
        return page

    def is_settled(self, job: Found) -> bool:
        """Whether nothing has happened to a job since the moment, or that is all the same."""
        _, _, last = job.row.history.rpartition(" ")
        newest = undelta(job.position, last) if last else job.position
        return not self._settled or milliseconds(newest) <= self._asked


class Reading:
    """What a filter must know of jobs beyond their rows, read from their log."""

    def __init__(self, log: Log, wanted: Filter) -> None:
        self._log: Final = log
        self._wanted: Final = wanted

    async def fitting(self, jobs: Sequence[Found]) -> list[Found]:
        """Those that fit by their events too, and where they stand; where a job's events are not there, its
        `standing` stays None."""
        events = await self._events(jobs)
        found = []
        for job in jobs:
            job.standing = standing(events[job.position])
            if job.standing is not None and fits(self._wanted, job.standing, events[job.position]):
                found.append(job)
        return found

    async def _events(self, jobs: Sequence[Found]) -> dict[str, list[Event]]:
        """The events of each job but those of progress, in log order."""
        wanted = sorted((it for job in jobs for it in positions(job.position, job.row)), key=order)
        events: dict[str, list[Event]] = defaultdict(list)
        for start in range(0, len(wanted), _SLICE):
            for position, fields in await self._log.pick(wanted[start : start + _SLICE]):
                if fields[1] not in _SAID:
                    event = read_entry(position, fields)
                    events[event.job].append(event)
        return events


def fits(wanted: Filter, stands: Standing, events: Sequence[Event]) -> bool:
    """Whether a job fits by its tags and its last error."""
    if wanted.tag and wanted.tag not in stands.spec.tags:
        return False
    return not wanted.error or wanted.error in last_error(events)


def last_error(events: Sequence[Event]) -> str:
    """How the last attempt that failed did so, as `Class: message`; empty if none did."""
    for event in reversed(events):
        body = legible(event)[1] if event.tag in {"failed", "attempt_failed"} else None
        if isinstance(body, AttemptFailed | Failed):
            return f"{body.error}: {body.message}"
    return ""


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
