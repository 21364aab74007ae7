"""The archiver: follows every log and keeps what is written there in an archive, segment by segment.

    read      from where the archive ends, until a segment is full or its oldest event is old enough
    check     that nothing of it can have been removed meanwhile: its place among the readers is where it was
    put       one object, under a name that says what is in it; then new snapshots of the figures
    move on   the place among the readers: from now on retention may remove these events

Killed at any point, it begins again at the archive's end, which the names of the segments tell: an event
that was put is not put again, and one that was not is still in the log, because the place among the readers
moves last. Any number may run on one archive; two that do the same work do it twice, and harm nothing.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, connect, passing
from penstock.core.errors import PenstockError
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START, order
from penstock.core.settings import Settings
from penstock.core.waiting import pause, server_ready
from penstock.projections.feed_tail import FIRST_PAGE, fitting
from penstock.projections.replay.archive import Archive, Beginning, Stock, reader_of
from penstock.projections.replay.compacting import compact
from penstock.projections.replay.copies import legible
from penstock.projections.replay.draft import SEGMENT_EVENTS, Draft
from penstock.projections.replay.span import Standing, standing

LOOK_S: Final = 1.0
RETRY_S: Final = 1.0
RESTART_S: Final = 30.0
MAX_COPIES: Final = 500  # snapshots that are copied at once

_log: Final = logging.getLogger("penstock.archiver")


class Moved(Exception):
    """The archive or the log is not where this archiver took it to be: look again."""


class PartitionArchiver:
    """Archives one partition."""

    def __init__(self, redis: Redis, keys: PartitionKeys, archive: Archive, every: float) -> None:
        """`every`: after how many seconds an event is in the archive, at the latest."""
        self.keys: Final = keys
        self._redis: Final = redis
        self._archive: Final = archive
        self._every: Final = every
        self._reader: Final = reader_of(archive.url)
        self._log: Final = Log(redis, keys)
        self._epoch = ""
        self._position = START
        self._copied = ""  # the newest snapshot in the archive; not looked up yet
        self._draft = self._begun("", START)
        self._lost = False

    async def run(self, stop: asyncio.Event) -> None:
        """Archive, whatever happens, until `stop`; what is in the log then is put too."""
        while not stop.is_set():
            try:
                await self.enter()
                await self._follow(stop)
            except Moved:
                _log.debug("%s: looking again where the archive is", self.keys.name)
            except Exception as error:  # whatever it is, the other partitions go on
                await pause(stop, self._say(error))

    async def enter(self) -> None:
        """Find out where the archive ends, and hold what comes after. Raises Refused or Moved."""
        now = await standing(self._log)
        stock = await asyncio.to_thread(self._archive.stock, self.keys, now.epoch)
        if stock is not None:
            await asyncio.to_thread(self._archive.settle, self.keys, now.epoch)
        await self._hold(stock.end if stock is not None else START)
        # What another archiver put before this hold, retention may have removed since.
        if await asyncio.to_thread(self._archive.stock, self.keys, now.epoch) != stock:
            raise Moved
        # Only what is removed from here on is held: what was before, is said.
        epoch, now = now.epoch, await standing(self._log)
        if now.epoch != epoch:
            raise Moved
        if stock is None:
            await self._begin(now)
            stock = Stock([], now.removed)
        elif order(now.removed) > max(order(stock.end), order(stock.removed)):
            _log.warning(
                "%s: events after %s were removed before they were archived", self.keys.name, stock.end
            )
            await asyncio.to_thread(self._archive.note_gap, self.keys, epoch, stock.end, now.removed)
        if order(stock.end) > order(now.last):
            _log.warning("%s: the log has gone back in time; the archive keeps what it lost", self.keys.name)
        self._draft = self._begun(now.epoch, stock.end)
        self._epoch, self._position, self._copied = now.epoch, stock.end, ""
        if self._lost:
            _log.warning("%s: goes on", self.keys.name)
        self._lost = False

    async def step(self, *, due: bool = False) -> bool:
        """Put one segment, if there is enough for one, or anything that is old enough or `due`. Raises
        Moved."""
        draft, count = self._draft, FIRST_PAGE
        while not draft.full and (page := await self._log.entries(draft.reached, count)):
            draft.add(page)
            count = fitting(page)
        if not draft.total.events or not (draft.full or due or draft.age >= self._every):
            return False
        place: bytes | None = await command(self._redis, "HGET", self.keys.readers, self._reader)
        epoch: bytes | None = await command(self._redis, "GET", self.keys.epoch)
        if place != self._position.encode() or epoch != self._epoch.encode():
            raise Moved
        manifest, data = draft.finish()
        await asyncio.to_thread(self._archive.add, self.keys, manifest, data)
        self._draft, self._position = self._begun(self._epoch, manifest.upto), manifest.upto
        await self._copy(manifest.upto)
        await self._hold(manifest.upto)
        return True

    async def _copy(self, upto: str) -> None:
        """Keep the snapshots of the figures up to a position, before retention may drop them. Where that
        fails, one can look back all the same."""
        try:
            self._copied = self._copied or await asyncio.to_thread(
                self._archive.copied, self.keys, self._epoch
            )
            found = await command(
                *(self._redis, "XRANGE", self.keys.snapshots, f"({self._copied}", upto, "COUNT", MAX_COPIES)
            )
            copies = [(place.decode(), fields[1]) for place, fields in found]
            if sound := legible(copies):
                await asyncio.to_thread(self._archive.copy, self.keys, self._epoch, sound)
            self._copied = copies[-1][0] if copies else self._copied
        except (PenstockError, RedisError, OSError) as error:
            _log.warning("%s: could not copy snapshots: %s", self.keys.name, error)

    async def _follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self.step():
                await pause(stop, min(LOOK_S, self._every))
        draft = self._draft
        while await self.step(due=True) and draft.full:  # what comes meanwhile is left to whoever comes next
            draft = self._draft

    def _begun(self, epoch: str, after: str) -> Draft:
        return Draft(self.keys, epoch, after, SEGMENT_EVENTS)

    async def _hold(self, position: str) -> None:
        await command(self._redis, "HSET", self.keys.readers, self._reader, position)

    async def _begin(self, now: Standing) -> None:
        """Write where the archive of this log begins. The hold comes first, so nothing is removed between
        what the base counts and the first segment."""
        fields: dict[bytes, bytes] = await command(self._redis, "HGETALL", self.keys.base)
        base = {name.decode(): value.decode() for name, value in sorted(fields.items()) if name != b"begun"}
        beginning = Beginning(self.keys.queue, self.keys.number, now.epoch, now.removed, base, now.first)
        await asyncio.to_thread(self._archive.begin, self.keys, beginning)

    def _say(self, error: Exception) -> float:
        """Log why this partition does not go on; answers after how many seconds to try again."""
        if isinstance(error, RedisError | OSError) and passing(error):
            if not self._lost:
                _log.warning("%s: lost Redis (%s); trying again", self.keys.name, error)
            self._lost = True
            return RETRY_S
        trace = None if isinstance(error, PenstockError) else error
        _log.error("%s: %s; next try in %d s", self.keys.name, error, RESTART_S, exc_info=trace)
        self._lost = True
        return RESTART_S


async def run_archiver(settings: Settings, url: str, every: float, stop: asyncio.Event) -> None:
    """Archive the logs of all queues until `stop`. Raises Refused for an address that is none, Misconfigured
    for a server that could lose work."""
    keys, archive = Keys(settings.namespace), await asyncio.to_thread(Archive, url, make=True)
    running: dict[str, asyncio.Task[None]] = {}
    async with connect(settings) as redis:
        await server_ready(redis, stop, _log)
        _log.info("ready: archiving to %s", url)
        compacting = asyncio.create_task(compact(redis, keys, archive, stop))
        while not stop.is_set():
            with suppress(RedisError, OSError):  # the partitions say so themselves
                for name in await command(redis, "SMEMBERS", keys.queues):
                    queue = name.decode()
                    if queue not in running:
                        archiver = PartitionArchiver(redis, keys.partition(queue), archive, every)
                        running[queue] = asyncio.create_task(archiver.run(stop))
            await pause(stop, LOOK_S)
        await asyncio.gather(*running.values(), compacting)


async def leave(settings: Settings, url: str) -> int:
    """Hold nothing for this archive any more, so that retention removes what it has not got; answers of how
    many queues it was a reader."""
    keys, left = Keys(settings.namespace), 0
    async with connect(settings) as redis:
        for name in await command(redis, "SMEMBERS", keys.queues):
            left += await command(redis, "HDEL", keys.partition(name.decode()).readers, reader_of(url))
    return left
