"""A log and its archive, read as one: what went from Redis is read from the archive, and nobody who reads
a `Log` has to know.

Retention may take events out while one reads. It takes none that the archive has not got, so a page of
the live log is complete as long as the archive has not moved past its beginning; where it has, the page
is read from the archive.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence, Set
from contextlib import aclosing
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import Refused
from penstock.core.events import AnyBody, Event, Trimmed, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, fold, legible
from penstock.core.log import PAGE, Entry, Log
from penstock.core.positions import START, order, preceding, succeeding
from penstock.projections.replay.archive import (
    Archive,
    Beginning,
    Segment,
    SegmentGone,
    Stock,
    reader_of,
)
from penstock.projections.replay.grep import pages
from penstock.projections.replay.holds import ARCHIVE
from penstock.projections.replay.span import Span, Standing, standing
from penstock.projections.views import listed, read

_KEPT: Final = 2  # segments in memory

_Places = list[tuple[int, int]]
_Loaded = tuple[list[Entry], _Places]
_Read = tuple[Segment, list[Entry], _Places]


class Fates(msgspec.Struct):
    """What became of jobs: the row of each that was found, as it was in the end, and which of them retention
    had let go by then."""

    rows: dict[str, Job] = {}
    gone: set[str] = set()

    def add(self, page: Sequence[Entry], wanted: Set[bytes]) -> None:
        """Go on by some entries."""
        for entry in page:
            job = named(entry)
            if job in wanted:
                self._fold(job.decode(), *read(entry))
            elif len(entry[1]) > 1 and entry[1][1] == b"trimmed":
                body = read(entry)[1]
                gone = listed(body.first, body.jobs) if isinstance(body, Trimmed) else []
                self.gone.update(job for job in gone if job.encode() in wanted)

    def _fold(self, job: str, event: Event, body: AnyBody | None) -> None:
        row = fold(self.rows.get(job), event, body)
        if row is not None:
            self.rows[job] = row


class History(Log):
    """The log of one partition, with what the archive has of it."""

    def __init__(self, redis: Redis, keys: PartitionKeys, archive: Archive) -> None:
        super().__init__(redis, keys)
        self._archive: Final = archive
        self.epoch = ""
        self._stock = Stock([], START)
        self._loaded: Final[OrderedDict[Segment, _Loaded]] = OrderedDict()

    @property
    def archived(self) -> bool:
        """Whether the archive has anything of the log."""
        return bool(self._stock.segments)

    @property
    def removed(self) -> str:
        """The newest position that was removed before it came into the archive."""
        return self._stock.removed

    def beginning(self) -> Beginning:
        """Where the archive begins. Raises Refused: it cannot be read."""
        return self._archive.beginning(self.keys, self.epoch)

    async def first(self) -> str:
        """The position of the oldest event there is; 0-0 if there is none."""
        first = self._stock.first
        if first == START and (page := await self.entries(START, 1)):
            return page[0][0].decode()
        return first

    async def look(self, now: Standing) -> Standing:
        """See what the archive has of the log as it stands; answers how the two stand together. Where it has
        nothing of this log, the log is all there is. Raises Refused: it cannot be read."""
        if now.epoch != self.epoch:
            self.epoch, self._stock = now.epoch, Stock([], START)
            self._loaded.clear()
        stock = await self._list()
        if stock is None:
            return now
        return msgspec.structs.replace(now, first=await self.first(), removed=stock.removed)

    async def entries(self, after: str, count: int = PAGE) -> list[Entry]:
        """Up to `count` entries after a position, from wherever they are."""
        while True:
            if (loaded := await self._read(Stock.after, after)) is not None:
                _, found, places = loaded
                start = bisect_right(places, order(after))
                return found[start : start + count]
            page = await super().entries(after, count)
            if not await self._moved(after):
                return page
            await self._list()
            if order(self._stock.end) <= order(after):
                return page

    async def back(self, before: str, count: int = PAGE) -> list[Entry]:
        """Up to `count` entries before a position, from wherever they are; fewer where a segment begins."""
        while order(before) > order(end := self._stock.end):
            page = await super().back(before, count)
            if await self._moved(end):
                await self._list()
                if self._stock.end != end:
                    continue
            if live := [entry for entry in page if order(entry[0].decode()) > order(end)]:
                return live
            break
        while (loaded := await self._read(Stock.upto, preceding(before))) is not None:
            segment, found, places = loaded
            size = bisect_left(places, order(before))
            if size:
                return found[max(0, size - count) : size]
            before = succeeding(segment.after)
        return []

    async def fates(self, jobs: Sequence[str], upto: str) -> Fates:
        """What had become of jobs (positions, in order) after the event at a position."""
        told = Fates()
        async with aclosing(following(self, jobs, told, upto)) as reading:
            async for _ in reading:
                pass
        return told

    async def pick(self, positions: Sequence[str]) -> list[Entry]:
        """The entries at these positions, wherever they are; what is nowhere is left out."""
        found = {entry[0]: entry for entry in await super().pick(positions)}
        for position in positions:
            name = position.encode()
            loaded = await self._read(Stock.holding, position) if name not in found else None
            if loaded is not None:
                _, there, places = loaded
                at = bisect_right(places, order(position)) - 1
                if at >= 0 and there[at][0] == name:
                    found[name] = there[at]
        return [found[name] for name in dict.fromkeys(it.encode() for it in positions) if name in found]

    async def story(self, position: str, upto: str = "") -> list[Event]:
        """All events of a job that is no longer in the live log, oldest first; none if it is nowhere. With
        `upto` those up to this position, and none if retention had let it go by then."""
        found = list[Event]()
        async for entry in self._mentioning(position):
            if upto and order(entry[0].decode()) > order(upto):
                return found
            if len(entry[1]) < 6:
                continue
            if entry[0].decode() == position or entry[1][3].decode(errors="replace") == position:
                found.append(read_entry(*entry))
            elif not found:
                return []  # there is no such event
            elif entry[1][1] == b"trimmed" and _let_go(read_entry(*entry), position):
                return [] if upto else found
        return found

    async def _mentioning(self, position: str) -> AsyncGenerator[Entry, None]:
        """From a job's first event on whatever may be about it, and what retention removed. Of the archive
        the rest is not even taken apart: the job may have ended long before it was removed."""
        texts = (b'"job":"%b"' % self.keys.job_id(position).encode(), b'"event":"trimmed"')
        after = preceding(position)
        while (segment := self._stock.after(after)) is not None:
            try:
                found = await asyncio.to_thread(
                    self._archive.mentioning, self.keys, self.epoch, segment, texts
                )
            except SegmentGone:
                if not await self._listed_anew():
                    raise
                continue
            for entry in found:
                if order(entry[0].decode()) > order(after):
                    yield entry
            after = segment.last
        while page := await self.entries(after):
            for entry in page:
                yield entry
            after = page[-1][0].decode()

    async def _moved(self, position: str) -> bool:
        """Whether an archiver has come past a position, so that retention may have removed what is there. Of
        this archive, if it is known by the address that it has here; else of any."""
        readers: dict[bytes, bytes] = await command(self.redis, "HGETALL", self.keys.readers)
        ours = readers.get(reader_of(self._archive.url).encode())
        others = [it for name, it in readers.items() if name.startswith(ARCHIVE.encode())]
        return any(order(it.decode()) > order(position) for it in ([ours] if ours else others))

    async def _list(self) -> Stock | None:
        stock = await asyncio.to_thread(self._archive.stock, self.keys, self.epoch)
        self._stock = stock or self._stock
        return stock

    async def _read(self, find: Callable[[Stock, str], Segment | None], position: str) -> _Read | None:
        """The segment that `find` finds for a position, and what is in it."""
        while (segment := find(self._stock, position)) is not None:
            try:
                return segment, *await self._load(segment)
            except SegmentGone:
                if not await self._listed_anew():
                    raise
        return None

    async def _listed_anew(self) -> bool:
        """Whether there is something else than was listed: segments are merged now and then."""
        before = self._stock
        await self._list()
        return self._stock != before

    async def _load(self, segment: Segment) -> _Loaded:
        loaded = self._loaded.pop(segment, None)
        if loaded is None:
            found = await asyncio.to_thread(self._archive.read, self.keys, self.epoch, segment)
            loaded = found, [order(position.decode()) for position, _ in found]
        self._loaded[segment] = loaded
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return loaded


async def following(log: Log, jobs: Sequence[str], told: Fates, upto: str) -> AsyncGenerator[None, None]:
    """Fill in what became of jobs (positions, in order) up to a position, page by page. Goes through all that
    was written since the first of them was submitted, until retention has let all of them go: meant for jobs
    of which no view tells any more."""
    wanted = {job.encode() for job in jobs}
    if not wanted:
        return
    async with aclosing(pages(log, Span(preceding(jobs[0]), upto))) as reading:
        async for page in reading:
            told.add(page, wanted)
            if len(told.gone) == len(wanted):
                return
            yield


async def opened(redis: Redis, keys: PartitionKeys, archive: Archive | None) -> tuple[Log, Standing]:
    """A log, with its archive where there is one, and how it stands. Raises Refused; that nothing is there is
    no fault as long as nothing has been removed from the log."""
    if archive is None:
        log = Log(redis, keys)
        return log, await standing(log)
    history = History(redis, keys, archive)
    now = await history.look(await standing(history))
    if not history.archived and now.removed != START and await asyncio.to_thread(archive.is_empty):
        raise Refused(f"{archive.url}: there is no archive")
    return history, now


def named(entry: Entry) -> bytes:
    """The job that an entry is about: the position of its first event; of a fact about the queue its own."""
    position, fields = entry
    return (fields[3] if len(fields) > 3 else b"") or position


def _let_go(event: Event, job: str) -> bool:
    """Whether retention let a job go with this event: then nothing of it comes after."""
    body = legible(event)[1]
    return isinstance(body, Trimmed) and job in listed(body.first, body.jobs)
