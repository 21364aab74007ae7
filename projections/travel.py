"""Questions about the past: the same answers as about now, as of a moment.

A moment's `Past` is kept for a while: a page, its next page and the figures beside it are one look back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import NotFound
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES, Job, State, fold_all, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import START, milliseconds, order, packed, unpacked
from penstock.core.story import find
from penstock.projections.details import MAX_EVENTS, JobDetail, JobSummary, detail, instant, summary
from penstock.projections.figures import QueueDetail, Source, figures
from penstock.projections.past import Past, earliest
from penstock.projections.views import MINUTE_MS, Minute, Stats, read_minute, read_stats

KEPT: Final = 4
_AT_ONCE: Final = 2
_PAGE: Final = 500
_HOUR: Final = 60


class Span(msgspec.Struct):
    """What can be asked about: from when to when, by the queue with the longest memory, and each."""

    from_at: str | None
    to_at: str
    queues: dict[str, str]


class PastPage(msgspec.Struct):
    """Some jobs of a queue, newest first, as they were. `missing`: jobs of that time that retention has
    removed since. `next`: the position after which the next page begins, if there is one."""

    jobs: list[JobSummary]
    next: str | None
    missing: int


class Travel:
    """Answers over one client. Safe to share between tasks."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Final = redis
        self._pasts: Final[OrderedDict[tuple[str, int], Past]] = OrderedDict()
        self._looking: Final = asyncio.Semaphore(_AT_ONCE)

    async def span(self, partitions: Sequence[PartitionKeys]) -> Span:
        """How far back one can look."""
        seconds, micros = await self._redis.time()
        found = {keys.queue: await earliest(self._redis, keys) for keys in partitions}
        known = {queue: at for queue, at in found.items() if at is not None}
        return Span(
            from_at=instant(min(known.values())) if known else None,
            to_at=instant(seconds * 1000 + micros // 1000),
            queues={queue: instant(at) for queue, at in known.items()},
        )

    async def queue(self, keys: PartitionKeys, at: int) -> QueueDetail:
        """A queue's figures at a moment; rates and durations are those of the whole minutes before it.
        Raises Refused: too far back."""
        past = self._past(keys, at)
        async with past.lock:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.get(keys.checkpoint)
            pipeline.get(keys.stats)
            checkpoint, raw = await pipeline.execute()
            await self._reach(past, checkpoint)
            now = read_stats(raw) if raw else Stats()
            then = await past.stats(now)
            oldest = await self._oldest(past, now.types)
        newest = at // MINUTE_MS - 1
        minutes = await command(
            self._redis, "HMGET", keys.minutes, *(newest - ago for ago in range(_HOUR + 1))
        )
        source = Source(keys, at, then, [read_minute(it) if it else Minute() for it in minutes], [])
        return figures(source, packed(oldest) if oldest else None)

    async def jobs(
        self,
        keys: PartitionKeys,
        at: int,
        *,
        state: State | None = None,
        type: str | None = None,
        after: str = "",
        limit: int = 50,
    ) -> PastPage:
        """Up to `limit` jobs of a queue at a moment, newest first. Raises Refused: too far back."""
        past, found = self._past(keys, at), dict[str, Job]()
        first = below = after or f"{at + 1}-0"
        while True:
            rows = await self._page(past, state, type, below)
            found |= rows
            below = min(rows, key=order) if rows else START
            settled = [it for it in found if not past.is_touched(it)]
            if below == START or len(settled) > limit:
                break
        was = {it: found[it] for it in settled}
        was |= {it: row for it, row in past.touched() if order(below) <= order(it) < order(first)}
        fitting = [it for it, row in was.items() if _wanted(row, state, type)]
        newest = sorted(fitting, key=order, reverse=True)
        page = newest[:limit]
        jobs = [summary(keys, it, was[it]) for it in page]
        return PastPage(jobs, page[-1] if len(newest) > limit else None, past.missing)

    async def job(self, keys: PartitionKeys, position: str, at: int) -> JobDetail:
        """A job at a moment. Raises NotFound: there is none, or there was none then."""
        job_id = keys.job_id(position)
        now = await find(self._redis, keys, position)
        if now is None or milliseconds(position) > at:
            raise NotFound(f"there was no job {job_id} at {instant(at)}")
        told = [it for it in positions(position, now) if milliseconds(it) <= at]
        log, row = Log(self._redis, keys), None
        for start in range(0, len(told), _PAGE):
            row = fold_all(await log.read(told[start : start + _PAGE]), row)
        events = await log.read([told[0], *told[1:][-MAX_EVENTS:]])
        if row is None or events[0].position != position:
            raise NotFound(f"{job_id}: its beginning is no longer in the log")
        return detail(keys, row, events)

    def _past(self, keys: PartitionKeys, at: int) -> Past:
        past = self._pasts.pop((keys.name, at), None) or Past(self._redis, keys, at)
        self._pasts[keys.name, at] = past
        while len(self._pasts) > KEPT:
            self._pasts.popitem(last=False)
        return past

    async def _reach(self, past: Past, checkpoint: bytes | None) -> None:
        async with self._looking:
            await past.reach(checkpoint.decode() if checkpoint else START)

    async def _page(self, past: Past, state: State | None, type: str | None, below: str) -> dict[str, Job]:
        """Some of the jobs before a position that are now what is asked for; `past` has then seen what
        happened before they were read."""
        keys = past.keys
        raw = await command(self._redis, "GET", keys.stats)
        types = (read_stats(raw) if raw else Stats()).types
        pipeline = self._redis.pipeline(transaction=True)
        for name in types if type is None else {type} & types.keys():
            for one in STATES if state is None else (state,):
                pipeline.zrevrangebylex(keys.index(one, name), b"(" + packed(below), b"-", 0, _PAGE)
        places = nlargest(_PAGE, (it for some in await pipeline.execute() for it in some))
        rows = await command(self._redis, "HMGET", keys.jobs, *places) if places else []
        # A job that has moved on since it was found in an index is one that was touched.
        async with past.lock:
            await self._reach(past, await command(self._redis, "GET", keys.checkpoint))
        return {unpacked(it): read_row(raw) for it, raw in zip(places, rows, strict=True) if raw}

    async def _oldest(self, past: Past, types: Iterable[str]) -> str | None:
        """The job that waited longest."""
        pipeline = self._redis.pipeline(transaction=False)
        for type in types:
            pipeline.zrange(past.keys.index("waiting", type), 0, _PAGE)
        still = [unpacked(it) for some in await pipeline.execute() for it in some]
        waiting = [it for it in still if milliseconds(it) <= past.at and not past.is_touched(it)]
        waiting += [it for it, row in past.touched() if row.state == "waiting"]
        return min(waiting, key=order, default=None)


def _wanted(row: Job, state: State | None, type: str | None) -> bool:
    return (state is None or row.state == state) and (type is None or row.type == type)
