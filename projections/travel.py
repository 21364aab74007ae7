"""Questions about the past: the same answers as about now, as of a moment.

A moment's `Past` is kept for a while: a page, its next page and the figures beside it are one look back.
A moment that lies far back is told another way: figures from the snapshot that follows it, and lists job by
job, each by its own events.
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
from penstock.core.positions import LAST_SEQ, START, order, packed, succeeding, unpacked
from penstock.core.story import find
from penstock.projections.details import MAX_EVENTS, JobDetail, JobSummary, detail, instant, summary
from penstock.projections.figures import QueueDetail, Source, figures
from penstock.projections.past import Past, earliest
from penstock.projections.replay.span import in_reach, standing
from penstock.projections.snapshots import EVERY, Snapshot, following
from penstock.projections.views import (
    MINUTE_MS,
    MINUTES_KEPT,
    Minute,
    Stats,
    minute_of,
    read_minute,
    read_stats,
)

KEPT: Final = 4
_AT_ONCE: Final = 2
_PAGE: Final = 500
_FIRST: Final = 50  # of each index
_LEAST: Final = 10
_HOUR: Final = 60
_FAR: Final = 2 * EVERY
MAX_LOOKED: Final = 20_000  # jobs that are looked through for one page of a moment far back


class Span(msgspec.Struct):
    """What can be asked about: from when to when, by the queue with the longest memory, and each; `archived`:
    there is an archive, so that what retention has removed is told too."""

    from_at: str | None
    to_at: str
    queues: dict[str, str]
    archived: bool = False


class PastPage(msgspec.Struct):
    """Some jobs of a queue, newest first, as they were. `missing`: jobs of that time that retention has
    removed since. `next`: the position after which the next page begins, if there is one; a page that was
    looked for long enough may have fewer jobs than wanted."""

    jobs: list[JobSummary]
    next: str | None
    missing: int


class Far(msgspec.Struct, frozen=True):
    """What tells of a moment far back: the snapshot that follows it, the types of jobs that there are now,
    and how many jobs retention has removed since."""

    snapshot: Snapshot
    types: list[str]
    missing: int


class Travel:
    """Answers over one client. Safe to share between tasks."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Final = redis
        self._pasts: Final[OrderedDict[tuple[str, int, str], Past]] = OrderedDict()
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

    async def queue(self, keys: PartitionKeys, at: int, upto: str = "") -> QueueDetail:
        """A queue's figures at a moment (Unix ms; with `upto` right after the event at that position, which
        is of that ms); rates and durations are those of the whole minutes before it, and of a moment far
        back it is not told who had waited longest. Raises Refused: too far back."""
        in_reach(keys, await standing(Log(self._redis, keys)), at)
        past = self._past(keys, at, upto)
        if far := await self._far(past):
            long_ago = Past(self._redis, keys, at, upto)
            await self._reach(long_ago, far.snapshot.position.encode())
            return await self._figures(long_ago, await long_ago.stats(far.snapshot.stats), None)
        async with past.lock:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.get(keys.checkpoint)
            pipeline.get(keys.stats)
            checkpoint, raw = await pipeline.execute()
            await self._reach(past, checkpoint)
            now = read_stats(raw) if raw else Stats()
            then = await past.stats(now)
            oldest = await self._oldest(past, now.types)
        return await self._figures(past, then, oldest)

    async def _figures(self, past: Past, then: Stats, oldest: str | None) -> QueueDetail:
        newest = past.at // MINUTE_MS - 1
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(past.keys.minutes, [str(newest - ago) for ago in range(_HOUR + 1)])
        pipeline.get(past.keys.checkpoint)
        minutes, checkpoint = await pipeline.execute()
        told = [read_minute(it) if it else Minute() for it in minutes]
        detail = figures(Source(past.keys, past.at, then, told, []), packed(oldest) if oldest else None)
        if checkpoint and newest - _HOUR <= minute_of(checkpoint.decode()) - MINUTES_KEPT:
            detail.rates = detail.wait_ms = detail.run_ms = None  # those minutes are kept no longer
        return detail

    async def jobs(
        self,
        keys: PartitionKeys,
        at: int,
        *,
        state: State | None = None,
        type: str | None = None,
        after: str = "",
        limit: int = 50,
        upto: str = "",
    ) -> PastPage:
        """Up to `limit` jobs of a queue at a moment (as for `queue`), newest first. Raises Refused: too far
        back, or before the log begins."""
        in_reach(keys, await standing(Log(self._redis, keys)), at)
        past, found = self._past(keys, at, upto), dict[str, Job]()
        if far := await self._far(past):
            return await self._long_ago(past, far, state, type, after, limit)
        first = below = after or succeeding(past.last)
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

    async def job(self, keys: PartitionKeys, position: str, at: int, upto: str = "") -> JobDetail:
        """A job at a moment (as for `queue`). Raises NotFound: there is none, or there was none then."""
        job_id, last = keys.job_id(position), order(upto or f"{at}-{LAST_SEQ}")
        now = await find(self._redis, keys, position)
        if now is None or order(position) > last:
            raise NotFound(f"there was no job {job_id} at {instant(at)}")
        told = [it for it in positions(position, now) if order(it) <= last]
        log, row = Log(self._redis, keys), None
        for start in range(0, len(told), _PAGE):
            row = fold_all(await log.read(told[start : start + _PAGE]), row)
        events = await log.read([told[0], *told[1:][-MAX_EVENTS:]])
        if row is None or events[0].position != position:
            raise NotFound(f"{job_id}: its beginning is no longer in the log")
        return detail(keys, row, events)

    async def _far(self, past: Past) -> Far | None:
        """How to tell of a moment that lies far back; None for one that does not, or has no snapshot."""
        raw = await command(self._redis, "GET", past.keys.stats)
        now, snapshot = (
            read_stats(raw) if raw else Stats(),
            await following(self._redis, past.keys, past.last),
        )
        if snapshot is None or now.events - snapshot.stats.events < _FAR:
            return None
        return Far(snapshot, list(now.types), gone(now) - gone(snapshot.stats))

    async def _long_ago(
        self, past: Past, far: Far, state: State | None, type: str | None, after: str, limit: int
    ) -> PastPage:
        """Jobs of a moment far back, each told by its own events."""
        newest = Newest(self._redis, past.keys, [it for it in far.types if type is None or it == type])
        below, was, looked = after or succeeding(past.last), dict[str, Job](), 0
        while len(was) <= limit and looked < MAX_LOOKED:
            places = await newest.page(b"(" + packed(below))
            if not places:
                below = ""
                break
            below, looked = unpacked(places[-1]), looked + len(places)
            rows = await past.rows_then([unpacked(it) for it in places])
            was |= {it: row for it, row in rows.items() if row is not None and _wanted(row, state, type)}
        found = sorted(was, key=order, reverse=True)
        page = found[:limit]
        jobs = [summary(past.keys, it, was[it]) for it in page]
        return PastPage(jobs, page[-1] if len(found) > limit else below or None, far.missing)

    def _past(self, keys: PartitionKeys, at: int, upto: str) -> Past:
        past = self._pasts.pop((keys.name, at, upto), None) or Past(self._redis, keys, at, upto)
        self._pasts[keys.name, at, upto] = past
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
        waiting = [it for it in still if order(it) <= order(past.last) and not past.is_touched(it)]
        waiting += [it for it, row in past.touched() if row.state == "waiting"]
        return min(waiting, key=order, default=None)


class Newest:
    """The jobs of these types, whatever their state, newest first and a page at a time. A page is read from
    all indexes in one step, so a job that moves from one to another is in one of them; from each about as
    many as the page before had from there."""

    def __init__(self, redis: Redis, keys: PartitionKeys, types: Iterable[str]) -> None:
        self._redis: Final = redis
        self._counts: Final = {keys.index(state, type): _FIRST for type in types for state in STATES}

    async def page(self, upto: bytes) -> list[bytes]:
        """Some of the newest up to a place, without a gap; none if there are none."""
        pipeline = self._redis.pipeline(transaction=True)
        for index, count in self._counts.items():
            pipeline.zrevrangebylex(index, upto, b"-", 0, count)
        found = dict(zip(self._counts, await pipeline.execute(), strict=True))
        # Of an index that has more, what is below its last one here is not known.
        cut = [some[-1] for index, some in found.items() if len(some) == self._counts[index]]
        floor = max(cut, default=b"")
        page = nlargest(_PAGE, (it for some in found.values() for it in some if it >= floor))
        for index, some in found.items():
            used = sum(it >= page[-1] for it in some) if page else 0
            self._counts[index] = min(_PAGE, 2 * used + _LEAST)
        return page


def gone(stats: Stats) -> int:
    """How many jobs retention had removed."""
    return stats.trimmed.completed + stats.trimmed.failed + stats.trimmed.cancelled


def _wanted(row: Job, state: State | None, type: str | None) -> bool:
    return (state is None or row.state == state) and (type is None or row.type == type)
