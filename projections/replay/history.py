"""A log and its archive, read as one: what went from Redis is read from the archive, and nobody who reads
a `Log` has to know.

Retention may take events out while one reads. It takes none that the archive has not got, so a page of
the live log is complete as long as the archive has not moved past its beginning; where it has, the page
is read from the archive.
"""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import Refused
from penstock.core.events import Event, Trimmed, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import legible
from penstock.core.log import PAGE, Entry, Log
from penstock.core.positions import START, order
from penstock.projections.replay.archive import Archive, Segment, Stock, reader_of
from penstock.projections.replay.span import Standing, standing
from penstock.projections.views import listed

_KEPT: Final = 2  # segments in memory

_Loaded = tuple[list[Entry], list[tuple[int, int]]]


class History(Log):
    """The log of one partition, with what the archive has of it."""

    def __init__(self, redis: Redis, keys: PartitionKeys, archive: Archive) -> None:
        super().__init__(redis, keys)
        self._archive: Final = archive
        self._epoch = ""
        self._stock = Stock([], START)
        self._loaded: Final[OrderedDict[Segment, _Loaded]] = OrderedDict()

    async def look(self, now: Standing) -> Standing:
        """See what the archive has of the log as it stands; answers how the two stand together. Where it has
        nothing of this log, the log is all there is. Raises Refused: it is no archive, or cannot be read."""
        self._epoch = now.epoch
        stock = await self._list()
        if stock is None:
            if await asyncio.to_thread(self._archive.is_empty):
                raise Refused(f"{self._archive.url}: there is no archive")
            return now
        first = stock.segments[0].after if stock.segments else now.first
        return msgspec.structs.replace(now, first=first, removed=stock.removed)

    async def entries(self, after: str, count: int = PAGE) -> list[Entry]:
        """Up to `count` entries after a position, from wherever they are."""
        while True:
            if (segment := self._stock.after(after)) is not None:
                found, places = await self._load(segment)
                start = bisect_right(places, order(after))
                return found[start : start + count]
            page = await super().entries(after, count)
            reached: bytes | None = await command(
                self.redis, "HGET", self.keys.readers, reader_of(self._archive.url)
            )
            if reached is None or order(reached.decode()) <= order(after):
                return page
            await self._list()
            if order(self._stock.end) <= order(after):
                return page

    async def pick(self, positions: Sequence[str]) -> list[Entry]:
        """The entries at these positions, wherever they are; what is nowhere is left out."""
        found = {entry[0]: entry for entry in await super().pick(positions)}
        for position in positions:
            name = position.encode()
            segment = self._stock.holding(position) if name not in found else None
            if segment is not None:
                there, places = await self._load(segment)
                at = bisect_right(places, order(position)) - 1
                if at >= 0 and there[at][0] == name:
                    found[name] = there[at]
        return [found[name] for name in dict.fromkeys(it.encode() for it in positions) if name in found]

    async def story(self, position: str) -> list[Event]:
        """All events of a job that is no longer in the live log, oldest first; none if it is nowhere."""
        found = []
        async for entry in self._since(position):
            if len(entry[1]) < 6:
                continue
            if entry[0].decode() == position or entry[1][3].decode(errors="replace") == position:
                found.append(read_entry(*entry))
            elif not found:
                return []  # there is no such event
            elif entry[1][1] == b"trimmed" and _let_go(read_entry(*entry), position):
                return found
        return found

    async def _since(self, position: str) -> AsyncGenerator[Entry, None]:
        """The entries from a position on."""
        ms, seq = order(position)
        after = f"{ms}-{seq - 1}" if seq else f"{ms - 1}-{2**64 - 1}"
        while page := await self.entries(after):
            for entry in page:
                yield entry
            after = page[-1][0].decode()

    async def _list(self) -> Stock | None:
        stock = await asyncio.to_thread(self._archive.stock, self.keys, self._epoch)
        self._stock = stock or self._stock
        return stock

    async def _load(self, segment: Segment) -> _Loaded:
        loaded = self._loaded.pop(segment, None)
        if loaded is None:
            found = await asyncio.to_thread(self._archive.read, self.keys, self._epoch, segment)
            loaded = found, [order(position.decode()) for position, _ in found]
        self._loaded[segment] = loaded
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return loaded


async def opened(redis: Redis, keys: PartitionKeys, archive: Archive | None) -> tuple[Log, Standing]:
    """A log, with its archive where there is one, and how it stands. Raises Refused."""
    if archive is None:
        log = Log(redis, keys)
        return log, await standing(log)
    history = History(redis, keys, archive)
    return history, await history.look(await standing(history))


def _let_go(event: Event, job: str) -> bool:
    """Whether retention let a job go with this event: then nothing of it comes after."""
    body = legible(event)[1]
    return isinstance(body, Trimmed) and job in listed(body.first, body.jobs)
