"""Questions about the past of a log that has an archive: what retention has removed is told too.

As in travel.py a moment's figures are those of the snapshot that follows it, less what happened in between;
and a list is found from its newest job on. But where that asks the views, which know the jobs that are kept,
this goes through the log backwards, and what a removed job had become is folded from its own events.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from redis.asyncio import Redis

from penstock.core.errors import NotFound
from penstock.core.events import QUEUE_TAGS, AnyBody
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, State, fold_all
from penstock.core.positions import LAST_SEQ, START, milliseconds, order, succeeding
from penstock.projections.details import MAX_EVENTS, JobDetail, detail, instant, summary
from penstock.projections.figures import QueueDetail
from penstock.projections.past import MAX_BACK, Past, let_go
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.grep import pages
from penstock.projections.replay.history import History, named
from penstock.projections.replay.sieve import Sieve, Sought
from penstock.projections.replay.span import Span as Stretch
from penstock.projections.replay.span import Standing, in_reach, standing
from penstock.projections.snapshots import Snapshot, doubted, following, read_snapshot
from penstock.projections.travel import MAX_LOOKED, PastPage, Span, Travel, gone
from penstock.projections.views import Rows, Stats, read, read_stats

_FACTS: Final = frozenset(tag.encode() for tag in QUEUE_TAGS)
_SUBMITTED: Final = frozenset({"submitted"})
_KEPT: Final = 2  # histories, each with some segments
_FIRST: Final = 1_000  # jobs that are looked through together; each time twice as many


class LongPast(Past):
    """A partition at a moment, by its whole history."""

    def __init__(self, redis: Redis, history: History, at: int, upto: str = "") -> None:
        super().__init__(redis, history.keys, at, upto, history)
        self._history: Final = history
        self._then: Rows = {}

    async def reach(self, checkpoint: str) -> None:
        """As in `Past`. Jobs that are no longer in the views are looked for all at once, beforehand."""
        jobs, looked = set[str](), 0
        async with aclosing(pages(self._history, Stretch(self.last, checkpoint))) as reading:
            async for page in reading:
                looked += len(page)
                if looked > MAX_BACK:
                    raise self.too_far()
                bodies = (read(entry)[1] for entry in page if entry[1][1:2] == [b"trimmed"])
                found = {named(entry).decode(errors="replace") for entry in page} | let_go(bodies)
                jobs |= {job for job in found if self.is_before(job)}
        self._then = dict.fromkeys(jobs) | await self.rows_then(sorted(jobs, key=order))
        await super().reach(checkpoint)

    async def rows_then(self, jobs: Sequence[str]) -> Rows:
        rows = {job: self._then[job] for job in jobs if job in self._then}
        unknown = [job for job in jobs if job not in rows]
        rows |= await super().rows_then(unknown)
        lost = sorted((job for job in unknown if job not in rows), key=order)
        fates = await self._history.fates(lost, self.last)
        return rows | {job: row for job, row in fates.rows.items() if job not in fates.gone}

    async def facts(self) -> AsyncGenerator[AnyBody | None, None]:
        before, looked = succeeding(self.last), 0
        while looked < MAX_BACK and (page := await self._history.back(before)):
            for entry in reversed(page):
                if entry[1][1:2] and entry[1][1] in _FACTS:
                    yield read(entry)[1]
            before, looked = page[0][0].decode(), looked + len(page)

    async def before(self) -> Stats:
        base = (await asyncio.to_thread(self._history.beginning)).base
        return read_stats(base["stats"]) if "stats" in base else Stats()


class Chronicle(Travel):
    """Answers about the past by log and archive; of a log that is not archived, by the log alone."""

    def __init__(self, redis: Redis, archive: Archive) -> None:
        super().__init__(redis)
        self._archive: Final = archive
        self._histories: Final[OrderedDict[str, History]] = OrderedDict()

    async def span(self, partitions: Sequence[PartitionKeys]) -> Span:
        """How far back one can look."""
        told = await super().span(partitions)
        for keys in partitions:
            history, _ = await self._history(keys)
            if history.archived:
                told.queues[keys.queue] = instant(milliseconds(await history.first()))
        told.archived = True
        told.from_at = min(told.queues.values(), default=None)
        return told

    async def queue(self, keys: PartitionKeys, at: int, upto: str = "") -> QueueDetail:
        """As in `Travel`. It is not told who had waited longest."""
        history, now = await self._history(keys)
        if not history.archived:
            return await super().queue(keys, at, upto)
        in_reach(keys, now, at)
        past = LongPast(self._redis, history, at, upto)
        end = await self._following(history, past.last)
        if end is None:
            return await super().queue(keys, at, upto)
        async with self._looking:
            await past.reach(end.position)
            then = await past.stats(end.stats)
        return await self._figures(past, then, None)

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
        """As in `Travel`."""
        history, now = await self._history(keys)
        if not history.archived:
            return await super().jobs(keys, at, state=state, type=type, after=after, limit=limit, upto=upto)
        in_reach(keys, now, at)
        past, was, looked, count = LongPast(self._redis, history, at, upto), dict[str, Job](), 0, _FIRST
        sieve = Sieve(Sought(type=type or "", events=_SUBMITTED), history)
        before = after or succeeding(past.last)
        async with self._looking:
            while before != START and len(was) <= limit and looked < MAX_LOOKED:
                jobs, before = await _submitted(history, sieve, before, count)
                rows = await past.rows_then(sorted(jobs, key=order))
                was |= {it: row for it, row in rows.items() if row and state in (None, row.state)}
                looked, count = looked + len(jobs), 2 * count
        newest = sorted(was, key=order, reverse=True)
        page = newest[:limit]
        rest = page[-1] if len(newest) > limit else before if before != START else None
        return PastPage([summary(keys, it, was[it]) for it in page], rest, await self._missing(history, past))

    async def job(self, keys: PartitionKeys, position: str, at: int, upto: str = "") -> JobDetail:
        """As in `Travel`."""
        try:
            return await super().job(keys, position, at, upto)
        except NotFound:
            history, _ = await self._history(keys)
            story = await history.story(position, upto or f"{at}-{LAST_SEQ}") if history.archived else []
            row = fold_all(story)
            if row is None:
                raise
            return detail(keys, row, [story[0], *story[1:][-MAX_EVENTS:]])

    async def _history(self, keys: PartitionKeys) -> tuple[History, Standing]:
        """The history of a log, and how it stands now. Raises Refused."""
        history = self._histories.pop(keys.name, None) or History(self._redis, keys, self._archive)
        now = await history.look(await standing(history))
        self._histories[keys.name] = history
        while len(self._histories) > _KEPT:
            self._histories.popitem(last=False)
        return history, now

    async def _following(self, history: History, position: str) -> Snapshot | None:
        """What the views had counted at or after a position, and where: by a snapshot in the server or the
        archive, else as they are now; None if they are not there yet."""
        doubt = order(await doubted(self._redis, history.keys))
        kept = await asyncio.to_thread(self._archive.following, history.keys, history.epoch, position)
        copy = read_snapshot(*kept) if kept and order(kept[0]) > doubt else None
        found = [it for it in (await following(self._redis, history.keys, position), copy) if it is not None]
        if found:
            return min(found, key=lambda it: order(it.position))
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(history.keys.checkpoint)
        pipeline.get(history.keys.stats)
        checkpoint, raw = await pipeline.execute()
        if not checkpoint or order(checkpoint.decode()) < order(position):
            return None
        return Snapshot(checkpoint.decode(), read_stats(raw))

    async def _missing(self, history: History, past: Past) -> int:
        """How many jobs of the moment had been removed before the archive began, about."""
        if order(past.last) >= order(history.removed):
            return 0
        then, begun = [await self._following(history, it) for it in (past.last, history.removed)]
        return gone(begun.stats) - gone(then.stats) if then is not None and begun is not None else 0


def open_travel(redis: Redis, archive_url: str, *, make: bool = False) -> Travel:
    """Answers about the past, by an archive too where there is an address of one. Raises Refused: see
    `Archive`."""
    return Chronicle(redis, Archive(archive_url, make=make)) if archive_url else Travel(redis)


async def _submitted(history: History, sieve: Sieve, before: str, count: int) -> tuple[list[str], str]:
    """The newest jobs that were submitted before a position, about `count` of them; and before which position
    to go on (0-0 at the log's beginning)."""
    found = list[str]()
    while len(found) < count:
        page = await history.back(before)
        if not page:
            return found, START
        before = page[0][0].decode()
        found += [position.decode() for position, _ in await sieve.sift(page)]
    return found, before
