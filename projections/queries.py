"""The questions that the views answer, each in a round trip or two.

A job is never staler than the log: where the views lag behind, its own events after the checkpoint
are folded on top, so a job can be read as soon as it was accepted and never goes back to a state it
had left. Lists and figures are as fresh as the views; `lag_s` says how fresh that is.
"""

import asyncio
import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from heapq import nlargest
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.endings import Endings
from penstock.core.errors import FieldProblem, InvalidJob, NotFound
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import STATES, TERMINAL, Job, State, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import START, order, packed, parse_job_id, unpacked
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.core.story import find
from penstock.projections.details import (
    MAX_EVENTS,
    EventDetail,
    JobDetail,
    JobSummary,
    detail,
    event_detail,
    summary,
)
from penstock.projections.figures import QueueDetail, read_figures
from penstock.projections.replay.chronicle import open_travel
from penstock.projections.scaling import Scaling, read_loads
from penstock.projections.travel import Span
from penstock.projections.views import Stats, read_stats

_POSITION: Final = re.compile(r"\d{1,15}-\d{1,10}")
_PLACE_BYTES: Final = len(packed(START))


class JobPage(msgspec.Struct):
    """Some jobs of a queue, newest first. `next`: the cursor of the page after this one, if any.
    `missing`: of a past moment, jobs of that time that retention has removed since."""

    jobs: list[JobSummary]
    next: str | None
    missing: int = 0


class EventPage(msgspec.Struct):
    """Some events of a job, oldest first. `next`: `after` of the page after this one, if any."""

    events: list[EventDetail]
    next: str | None


class QueueList(msgspec.Struct):
    """All queues, by name."""

    queues: list[QueueDetail]


class Queries:
    """Answers over one client. Safe to share between tasks; `close` it in the end.

    `reveal`: show what is sealed, as far as the keys are here.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis: Final = redis
        self._keys: Final = Keys(settings.namespace)
        self._lease: Final = settings.lease
        self._seals: Final = open_seals(settings)
        # Where no archiver has been yet, there is a folder for it.
        self._travel: Final = open_travel(redis, settings.archive_url, make=True)
        self._endings: Final[dict[str, Endings]] = {}

    async def close(self) -> None:
        """Stop waiting for ends."""
        for endings in self._endings.values():
            await endings.close()

    async def job(self, job_id: str, *, reveal: bool = False) -> JobDetail:
        """A job as the log has it now. Of one with more than 1,000 events, what only older ones than
        the last 1,000 tell (beside the first) is missing. Raises NotFound."""
        keys, position, job = await self._find(job_id)
        first, *others = positions(position, job)
        events = await Log(self._redis, keys).read([first, *others[-MAX_EVENTS:]])
        if not events or events[0].position != position:
            raise NotFound(_none(job_id))
        return detail(keys, job, events, self._seals if reveal else None)

    async def wait(self, job_id: str, seconds: float, *, reveal: bool = False) -> JobDetail:
        """A job once it has ended, or as it is after `seconds`. Raises NotFound."""
        keys, position, job = await self._find(job_id)
        if job.state not in TERMINAL and seconds > 0:
            async with self._endings_of(keys).watch(position) as ended:
                _, _, job = await self._find(job_id)
                if job.state not in TERMINAL:
                    await asyncio.wait([ended], timeout=seconds)
                    if ended.done() and not ended.cancelled():
                        ended.result()  # the reader could not go on: say so, rather than answer late
        return await self.job(job_id, reveal=reveal)

    async def events(
        self, job_id: str, *, after: str = "", limit: int = 100, reveal: bool = False
    ) -> EventPage:
        """Up to `limit` events of a job after a position, straight from the log.

        Raises NotFound, and InvalidJob for an `after` that is no position.
        """
        if after and not _POSITION.fullmatch(after):
            raise InvalidJob([FieldProblem("after", f"{after!r} is no position (like 1795477369681-0)")])
        keys, position, job = await self._find(job_id)
        beyond = order(after or START)
        wanted = [it for it in positions(position, job) if order(it) > beyond]
        events = await Log(self._redis, keys).read(wanted[:limit])
        more = len(wanted) > limit
        seals = self._seals if reveal else None
        told = [event_detail(event, job.type, seals) for event in events]
        return EventPage(told, wanted[limit - 1] if more else None)

    async def jobs(
        self,
        queue: str,
        *,
        state: State | None = None,
        type: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Up to `limit` jobs of a queue, newest first, of one state and one type if given.

        Pages are exact: whatever is submitted or moves on meanwhile, no job that stays comes twice
        or is left out. Raises NotFound, and InvalidJob for a cursor that is none.
        """
        keys = await self._partition(queue)
        newest = b"(" + _read_cursor(cursor) if cursor else b"+"
        stats = _stats(await command(self._redis, "GET", keys.stats))
        pipeline = self._redis.pipeline(transaction=True)
        for name in stats.types if type is None else {type} & stats.types.keys():
            for one in STATES if state is None else (state,):
                pipeline.zrevrangebylex(keys.index(one, name), newest, b"-", 0, limit + 1)
        found: list[bytes] = nlargest(limit + 1, (it for some in await pipeline.execute() for it in some))
        rows = await self._rows(keys, found[:limit])
        # Between index and row a job may have moved on: then it is no longer what was asked for.
        jobs = [summary(keys, it, job) for it, job in rows if state is None or job.state == state]
        return JobPage(jobs, _write_cursor(found[limit - 1]) if len(found) > limit else None)

    async def queue(self, name: str) -> QueueDetail:
        """The figures of one queue. Raises NotFound."""
        [figures] = await read_figures(self._redis, [await self._partition(name)])
        return figures

    async def queues(self) -> QueueList:
        """The figures of all queues."""
        names = await self._names()
        return QueueList(await read_figures(self._redis, [self._keys.partition(name) for name in names]))

    async def scaling(self, name: str) -> Scaling:
        """What a scaler goes by. Raises NotFound."""
        [load] = await read_loads(self._redis, [await self._partition(name)], self._lease)
        return load.scaling

    async def job_at(self, job_id: str, at: int) -> JobDetail:
        """A job as it was at a moment (Unix ms). Raises NotFound."""
        queue, number, position = parse_job_id(job_id)
        return await self._travel.job(self._keys.partition(queue, number), position, at)

    async def jobs_at(
        self,
        queue: str,
        at: int,
        *,
        state: State | None = None,
        type: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """`jobs` at a moment. Raises NotFound, InvalidJob, and Refused: too far back."""
        after = unpacked(_read_cursor(cursor)) if cursor else ""
        keys = await self._partition(queue)
        page = await self._travel.jobs(keys, at, state=state, type=type, after=after, limit=limit)
        return JobPage(page.jobs, _write_cursor(packed(page.next)) if page.next else None, page.missing)

    async def queue_at(self, name: str, at: int) -> QueueDetail:
        """The figures of one queue at a moment. Raises NotFound, and Refused: too far back."""
        return await self._travel.queue(await self._partition(name), at)

    async def queues_at(self, at: int) -> QueueList:
        """The figures of all queues at a moment. Raises Refused: too far back."""
        names = await self._names()
        return QueueList([await self._travel.queue(self._keys.partition(name), at) for name in names])

    async def span(self) -> Span:
        """How far back one can look."""
        return await self._travel.span([self._keys.partition(name) for name in await self._names()])

    async def _names(self) -> list[str]:
        return sorted(name.decode() for name in await command(self._redis, "SMEMBERS", self._keys.queues))

    async def _find(self, job_id: str) -> tuple[PartitionKeys, str, Job]:
        """The job, brought up to the end of the log."""
        queue, number, position = parse_job_id(job_id)
        keys = self._keys.partition(queue, number)
        job = await find(self._redis, keys, position)
        if job is None:
            raise NotFound(_none(job_id))
        return keys, position, job

    async def _rows(self, keys: PartitionKeys, places: Sequence[bytes]) -> list[tuple[str, Job]]:
        if not places:
            return []
        rows = await command(self._redis, "HMGET", keys.jobs, *places)
        return [(unpacked(it), read_row(row)) for it, row in zip(places, rows, strict=True) if row]

    async def _partition(self, queue: str) -> PartitionKeys:
        if not await command(self._redis, "SISMEMBER", self._keys.queues, queue):
            raise NotFound(f"no queue {queue!r}")
        return self._keys.partition(queue)

    def _endings_of(self, keys: PartitionKeys) -> Endings:
        if keys.name not in self._endings:
            self._endings[keys.name] = Endings(Log(self._redis, keys))
        return self._endings[keys.name]


def _none(job_id: str) -> str:
    return f"no job {job_id}: there never was one, or it ended and is kept no longer (the queue's retention)"


def _stats(raw: bytes | None) -> Stats:
    return read_stats(raw) if raw is not None else Stats()


def _write_cursor(place: bytes) -> str:
    return urlsafe_b64encode(place).rstrip(b"=").decode()


def _read_cursor(cursor: str) -> bytes:
    try:
        place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        place = b""
    if len(place) != _PLACE_BYTES:
        raise InvalidJob([FieldProblem("cursor", "is not one that a page of jobs has given")])
    return place
