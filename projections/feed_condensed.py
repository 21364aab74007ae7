"""The condensed feed: what a screen needs of a busy log, at most ten messages a second.

One beat (feed_beat.py) for all clients together, ten times a second while something happens. The id
of a message is a cursor, as in the exact feed. Who comes back with one is told in one message what
changed meanwhile; after a long absence, or where that cannot be known, to load anew (`reset`).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Final

from redis.exceptions import RedisError

from penstock.core.connection import LOST
from penstock.core.errors import Unavailable
from penstock.core.events import Event, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import START, order
from penstock.projections.feed_beat import MAX_LOOKED_AT, Beat, changes, figures, gather, rows_of, settle_in
from penstock.projections.feed_cursor import Place, Places, resumed, scoped, write_cursor
from penstock.projections.feed_events import Wanted
from penstock.projections.feed_hub import Hub
from penstock.projections.feed_pulse import TICKS_A_SECOND, Pulse
from penstock.projections.feed_stream import Outlet, message, opening, reset
from penstock.projections.feed_tail import Tail, gap, look

MAX_CLIENTS: Final = 1_000
MAX_MISSED: Final = 20_000  # events that are looked through for who comes back, of each partition


class Condensed:
    """Serves the condensed feed over one hub; `close` ends all streams."""

    def __init__(self, hub: Hub) -> None:
        self.drops = 0  # clients that did not keep up, ever
        self._hub: Final = hub
        self._pulses: Final[dict[str, Pulse]] = {}
        self._following: Final[dict[Wanted, set[Outlet]]] = {}
        self._watched: Final[dict[str, set[str]]] = {}
        self._news: Final = asyncio.Event()
        self._settling: Final = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def clients(self) -> int:
        """How many are served."""
        return sum(map(len, self._following.values()))

    def close(self) -> None:
        """End every stream: what waits is sent, and no more."""
        self._closed = True
        for outlets in self._following.values():
            for outlet in outlets:
                outlet.end()

    async def stop(self) -> None:
        """Stop beating."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def ready(self, wanted: Wanted) -> None:
        """Raises Unavailable where one client more cannot be served, Refused for too many queues."""
        if self._closed or self.clients >= MAX_CLIENTS:
            raise Unavailable(f"{self.clients} clients are served already", retry_after=5.0)
        await self._hub.start()
        self._hub.check_scope(wanted.scope)

    async def stream(self, wanted: Wanted, last: str) -> AsyncGenerator[bytes, None]:
        """What a client is sent; `last` is the cursor it comes with, empty for none."""
        async with self._hub.attended(self):
            outlet = Outlet(lambda: self._cursor(wanted))
            read = self._join(wanted, outlet)
            try:
                # What is told from now on waits in the outlet; what was told before is read.
                yield opening()
                yield await self._first(wanted, last, read)
                async for chunk in outlet.chunks():
                    yield chunk
            finally:
                self._leave(wanted, outlet)

    def joined(self, tail: Tail) -> None:
        """Part of Listener."""
        self._pulses[tail.keys.name] = Pulse(tail.keys, tail.place)
        self._news.set()

    async def news(self, tail: Tail, page: Sequence[Entry]) -> None:
        """Part of Listener."""
        name = tail.keys.name
        full = self._pulses[name].take(page, tail.place, self._watched.get(name, ()))
        self._news.set()
        for wanted in [it for it in self._following if it.watched[0] == name and it.watched[1] in full]:
            self._reset(wanted, "more events of this job at a time than can be told")

    def broken(self, tail: Tail, reason: str) -> None:
        """Part of Listener."""
        self._pulses[tail.keys.name].restart(tail.place)
        self._news.set()
        for wanted in [it for it in self._following if it.scope in ("", tail.keys.name)]:
            self._reset(wanted, reason)

    async def _beat(self) -> None:
        """Tell what is new, as long as there is somebody to tell."""
        ticked = time.monotonic()
        while self._following:
            await asyncio.sleep(1 / TICKS_A_SECOND)
            pulses = [pulse for pulse in self._pulses.values() if pulse.alive]
            if not pulses:
                self._news.clear()
                await self._news.wait()
                ticked = time.monotonic()
                continue
            with suppress(RedisError, OSError):  # it stays to be told; the hub says that the server is away
                await self._settle_in()
                self._tell(await gather(self._hub.redis, pulses, self._watched))
            while ticked + 1 / TICKS_A_SECOND <= time.monotonic():
                ticked += 1 / TICKS_A_SECOND
                for pulse in self._pulses.values():
                    pulse.tick()

    def _tell(self, beats: Sequence[Beat]) -> None:
        for wanted, outlets in self._following.items():
            told = changes(wanted, beats)
            if told is not None:
                chunk = message("changes", told, self._cursor(wanted))
                for outlet in outlets:
                    outlet.push(chunk)

    def _reset(self, wanted: Wanted, reason: str) -> None:
        for outlet in self._following[wanted]:
            outlet.push(reset(reason, self._cursor(wanted)))

    async def _settle_in(self) -> None:
        async with self._settling:
            await settle_in(self._hub.redis, [*self._pulses.values()])

    async def _first(self, wanted: Wanted, last: str, read: str) -> bytes:
        """What a client is told when it comes: the figures, and what changed since its cursor. Behind
        `read` the events of the job that it watches are kept for it."""
        with suppress(*LOST):  # said below
            await self._settle_in()
        told = self._places(wanted)
        cursor = write_cursor(told.values(), whole=not wanted.scope)
        places = resumed(last, told, whole=not wanted.scope) if last else told
        if places is None:
            return reset("this cursor is none of these logs", cursor)
        try:
            partitions = [self._pulses[name].keys for name in told]
            now = await figures(self._hub.redis, partitions)
            beats = [
                await self._missed(wanted, keys, places[keys.name], told[keys.name], read if last else START)
                for keys in partitions
            ]
        except LOST as error:
            return reset(f"Redis does not answer: {error}", cursor)
        if None in beats:
            return reset("too much has changed since", cursor)
        found = changes(wanted, [beat for beat in beats if beat is not None], always=True)
        assert found is not None  # noqa: S101 - it is told always
        found.queues = now
        return message("changes", found, cursor)

    async def _missed(
        self, wanted: Wanted, keys: PartitionKeys, mine: Place, told: Place, read: str
    ) -> Beat | None:
        """What changed in a partition between two places, and the watched job's events up to `read`; None
        if that cannot be told."""
        beat = Beat(keys, None, 0, [], {})
        partition, watched = wanted.watched
        upto = max(mine.position, told.position, key=order)
        if partition == keys.name:
            upto = max(upto, read, key=order)
        if mine == told and mine.position == upto:
            return beat
        at = await look(self._hub.redis, keys, mine.position, upto, MAX_MISSED + 1)
        if at is None or gap(at, mine, keys.name) or len(at.entries) > MAX_MISSED:
            return None
        changed: dict[str, None] = {}
        events: list[Event] = []
        for position, fields in at.entries:
            job = (fields[3] or position).decode(errors="replace")
            if order(position.decode()) <= order(told.position):
                changed.pop(job, None)
                changed[job] = None
            if job == watched and partition == keys.name:
                events.append(read_entry(position, fields))
        newest = [it for it in [watched] if it in changed] if wanted.job else [*changed][-MAX_LOOKED_AT:]
        beat.changed, beat.events = len(changed), {watched: events}
        beat.rows = await rows_of(self._hub.redis, keys, newest)
        return beat

    def _places(self, wanted: Wanted) -> Places:
        return scoped(wanted.scope, {name: pulse.told for name, pulse in self._pulses.items()})

    def _cursor(self, wanted: Wanted) -> str:
        return write_cursor(self._places(wanted).values(), whole=not wanted.scope)

    def _join(self, wanted: Wanted, outlet: Outlet) -> str:
        """Answers how far the log was read in which the watched job is."""
        pulse = self._pulses.get(wanted.watched[0])
        self._following.setdefault(wanted, set()).add(outlet)
        self._watch()
        if self._closed:
            outlet.end()
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat())
        return pulse.read.position if pulse is not None else START

    def _leave(self, wanted: Wanted, outlet: Outlet) -> None:
        self.drops += outlet.dropped
        self._following[wanted].discard(outlet)
        if not self._following[wanted]:
            del self._following[wanted]
            self._watch()
        if not self._following:
            self._pulses.clear()
            self._news.set()

    def _watch(self) -> None:
        """Note whose events are wanted one by one."""
        self._watched.clear()
        for partition, job in {it.watched for it in self._following}:
            self._watched.setdefault(partition, set()).add(job)
