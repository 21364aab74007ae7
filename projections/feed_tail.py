"""The growing end of one partition's log, read once for everyone in this process.

A reader must never be served silently wrong. So a page comes with what the server says of the log at
the same moment, and `gap` tells whether the page really goes on where the reader was: the log may have
been trimmed past that place, be another one (its epoch changed), or have gone back in time (a restart
or failover that lost its tail).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from penstock.core.connection import passing
from penstock.core.keys import PartitionKeys
from penstock.core.log import PAGE, Entry, follow
from penstock.core.positions import START, order
from penstock.projections.feed_cursor import Place, mark_of

RETRY_S: Final = 0.2
LINGER_S: Final = 0.02
# Payloads and results come along: a page is also bounded by its bytes, as the one before foretells.
PAGE_BYTES: Final = 4 * 1024 * 1024
FIRST_PAGE: Final = 100

_log: Final = logging.getLogger("penstock.feed")


class Look(msgspec.Struct):
    """A log as of one moment. `first`, `last`: positions of its oldest event, and of the newest there
    ever was; `deleted`: of the newest that was deleted one by one; `whole`: nothing ever went.
    `entries`: what was asked for, `there` whether the event just before it stands in the log."""

    epoch: str
    first: str
    last: str
    deleted: str
    whole: bool
    there: bool
    entries: list[Entry]


async def look(redis: Redis, keys: PartitionKeys, after: str, upto: str = "+", count: int = 0) -> Look | None:
    """Up to `count` events after one position, up to another one, and the log around them; None where
    the partition is not open."""
    pipeline = redis.pipeline(transaction=True)
    pipeline.get(keys.epoch)
    pipeline.execute_command("XINFO", "STREAM", keys.log)
    pipeline.execute_command("XRANGE", keys.log, after, upto, "COUNT", count + 1)
    epoch, info, entries = await pipeline.execute(raise_on_error=False)
    for reply in (epoch, entries):
        if isinstance(reply, Exception):
            raise reply
    if epoch is None:
        return None
    if isinstance(info, ResponseError) and "no such key" in str(info):
        return Look(epoch.decode(), START, START, START, True, False, [])
    if isinstance(info, Exception):
        raise info
    told = dict(zip(info[::2], info[1::2], strict=True))
    there = bool(entries) and entries[0][0].decode() == after
    first = told[b"first-entry"]
    return Look(
        epoch=epoch.decode(),
        first=first[0].decode() if first else START,
        last=told[b"last-generated-id"].decode(),
        deleted=told[b"max-deleted-entry-id"].decode(),
        whole=told[b"entries-added"] == told[b"length"],
        there=there,
        entries=entries[1:] if there else entries[:count],
    )


def gap(at: Look, place: Place, name: str) -> str:
    """Why a reader at `place` cannot go on as if nothing was; empty if he can."""
    if mark_of(name, at.epoch) != place.mark:
        return "the queue's log is another one"
    position, last = order(place.position), order(at.last)
    if position > last:
        return "the log has gone back in time"
    if position == last or at.whole:
        return "" if at.there or not at.whole or place.position == START else "the log has gone back in time"
    if order(at.deleted) > position or (position < order(at.first) and not at.there):
        return "the log was trimmed past this place"
    if not at.there and order(at.deleted) != position:
        return "the log has gone back in time"
    return ""


def fitting(page: Sequence[Entry]) -> int:
    """How many events the next page may have if they are as big as those of this one."""
    size = sum(len(fields[-1]) for _, fields in page)
    return max(10, min(PAGE, PAGE_BYTES * len(page) // size)) if size else PAGE


class Tail:
    """Reads one partition from `place` on and tells of it: `news` of each page, one after another, and
    `broken` when it had to begin anew, and why. `place` is moved before the page is told."""

    def __init__(
        self,
        redis: Redis,
        keys: PartitionKeys,
        news: "Callable[[Tail, Sequence[Entry]], Awaitable[None]]",
        broken: "Callable[[Tail, str], None]",
    ) -> None:
        self.keys: Final = keys
        self.place = Place("", START)
        self._redis: Final = redis
        self._news: Final = news
        self._broken: Final = broken
        self._count = FIRST_PAGE
        self._lost = False

    async def begin(self, *, newest: bool) -> bool:
        """Stand at the end of the log, or at its beginning; False while the partition is not open."""
        at = await look(self._redis, self.keys, START)
        if at is not None:
            self._stand(at, newest=newest)
        return at is not None

    async def run(self) -> None:
        """Read for ever; a lost server is waited for."""
        while True:
            try:
                await self._follow()
            except (RedisError, OSError) as error:
                if not self._lost:
                    level = logging.WARNING if passing(error) else logging.ERROR
                    _log.log(level, "%s: lost the log (%s); trying again", self.keys.name, error)
                self._lost = True
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        while True:
            page = await self._checked()
            if page:
                short = len(page) < self._count
                self._count = fitting(page)
                await self._tell(page)
                if short:
                    await asyncio.sleep(LINGER_S)  # a busy log is told in pages, not event by event
            else:
                await follow(self._redis, self.keys, self.place.position, 1)

    async def _checked(self) -> list[Entry]:
        """The next page, after a look whether it is the next one indeed."""
        at = await look(self._redis, self.keys, self.place.position, count=self._count)
        if self._lost:
            _log.warning("%s: the log is back", self.keys.name)
        self._lost = False
        if at is None:
            await asyncio.sleep(RETRY_S)  # gone with all its data; it is there again when it is opened
            return []
        reason = gap(at, self.place, self.keys.name)
        if not reason:
            return at.entries
        self._stand(at, newest=True)
        self._broken(self, reason)
        return []

    async def _tell(self, page: Sequence[Entry]) -> None:
        self.place = Place(self.place.mark, page[-1][0].decode())
        await self._news(self, page)

    def _stand(self, at: Look, *, newest: bool) -> None:
        self.place = Place(mark_of(self.keys.name, at.epoch), at.last if newest else START)
