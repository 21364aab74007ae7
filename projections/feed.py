"""The exact feed: every event, live, each once and in the order of its log.

A client comes with a cursor or with none, and

    resume      begins where its cursor says, or at this moment; a cursor that cannot be gone on from
                gets one `reset` message, and the stream goes on from now
    catch up    reads what the logs have between its places and those up to which all was told
    join        is put among those who follow the same; in between nothing can be told

From then on a page of the log is encoded once for all who follow the same, and given to each as the
same bytes. The id of a message is the cursor behind it, over all partitions that the client follows.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

import msgspec

from penstock.core.connection import LOST
from penstock.core.errors import Unavailable
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry, Log
from penstock.core.positions import START, order, parse_job_id
from penstock.projections.feed_cursor import (
    Place,
    Places,
    resumed,
    scoped,
    write_cursor,
    write_place,
)
from penstock.projections.feed_events import Facts, Told, Wanted, write
from penstock.projections.feed_hub import Hub
from penstock.projections.feed_stream import Outlet, opening, reset
from penstock.projections.feed_tail import FIRST_PAGE, RETRY_S, Tail, fitting, gap, look
from penstock.projections.views import read

MAX_CLIENTS: Final = 1_000
_CATCHING_UP: Final = 4  # clients that read what they missed, at a time


class _Client(msgspec.Struct):
    """One who catches up: how far he is in each log, and how many events his next page may have."""

    wanted: Wanted
    places: Places
    count: int = FIRST_PAGE

    def elsewhere(self, told: Places) -> str | None:
        """A partition in which he is not where all was told; None if there is none."""
        for name, place in scoped(self.wanted.scope, told).items():
            mine = self.places.setdefault(name, Place(place.mark, START))
            if mine != place:
                return name
        return None


class Feed:
    """Serves the exact feed over one hub; `close` ends all streams."""

    def __init__(self, hub: Hub) -> None:
        self.drops = 0  # clients that did not keep up, ever
        self._hub: Final = hub
        self._places: Final[Places] = {}
        self._facts: Final[dict[str, Facts]] = {}
        self._following: Final[dict[Wanted, set[Outlet]]] = {}
        self._outlets: Final[set[Outlet]] = set()
        self._reading: Final = asyncio.Semaphore(_CATCHING_UP)
        self._closed = False

    @property
    def clients(self) -> int:
        """How many are served."""
        return len(self._outlets)

    def close(self) -> None:
        """End every stream: what waits is sent, and no more."""
        self._closed = True
        for outlet in self._outlets:
            outlet.end()

    async def ready(self, wanted: Wanted) -> None:
        """Raises Unavailable where one client more cannot be served, Refused for more queues than a
        cursor can name."""
        if self._closed or self.clients >= MAX_CLIENTS:
            raise Unavailable(f"{self.clients} clients are served already", retry_after=5.0)
        await self._hub.start()
        self._hub.check_scope(wanted.scope)

    async def stream(self, wanted: Wanted, last: str) -> AsyncGenerator[bytes, None]:
        """What a client is sent; `last` is the cursor it comes with, empty for none."""
        outlet = Outlet(lambda: self._cursor(wanted))
        self._outlets.add(outlet)
        try:
            async with self._hub.attended(self):
                yield opening()
                client, told = self._resume(wanted, last)
                if told:
                    yield told
                # The last answer comes without a pause, so nothing is told before this client has joined.
                while not self._closed and (chunk := await self._missed(client)) is not None:
                    if chunk:
                        yield chunk
                self._following.setdefault(wanted, set()).add(outlet)
                if self._closed:
                    outlet.end()
                async for chunk in outlet.chunks():
                    yield chunk
        finally:
            self._leave(wanted, outlet)

    def joined(self, tail: Tail) -> None:
        """Part of Listener."""
        self._places[tail.keys.name] = tail.place

    async def news(self, tail: Tail, page: Sequence[Entry]) -> None:
        """Part of Listener: give the page to all who follow something in it."""
        name, place = tail.keys.name, tail.place
        told = await self._tell(tail.keys, page)
        self._places[name] = place
        others: dict[bool, bytes] = {}
        for wanted, outlets in self._following.items():
            whole = not wanted.scope
            if not whole and wanted.scope != name:
                continue
            if whole not in others:
                others[whole] = _others(self._places, name, whole=whole)
            chunk = _encode(wanted, tail.keys, place.mark, told, others[whole])
            if chunk:
                for outlet in outlets:
                    outlet.push(chunk)

    def broken(self, tail: Tail, reason: str) -> None:
        """Part of Listener: who follows this log has to load anew."""
        self._places[tail.keys.name] = tail.place
        for wanted, outlets in self._following.items():
            if wanted.scope in ("", tail.keys.name):
                for outlet in outlets:
                    outlet.push(reset(reason, self._cursor(wanted)))

    def _resume(self, wanted: Wanted, last: str) -> tuple[_Client, bytes]:
        """Where a client begins, and what it is told first."""
        now = scoped(wanted.scope, self._places)
        places = resumed(last, now, whole=not wanted.scope)
        if places is None:
            told = reset("this cursor is none of these logs", self._cursor(wanted)) if last else b""
            return _Client(wanted, now), told
        return _Client(wanted, places), b""

    async def _missed(self, client: _Client) -> bytes | None:
        """A page of what a client has not got; None, at once, if that is nothing."""
        name = client.elsewhere(self._places)
        if name is None:
            return None
        async with self._reading:
            try:
                return await self._read_on(client, name)
            except LOST:
                await asyncio.sleep(RETRY_S)
                return b""

    async def _read_on(self, client: _Client, name: str) -> bytes:
        keys, mine, upto = self._hub.keys_of(name), client.places[name], self._places[name]
        ahead = mine.mark == upto.mark and order(mine.position) > order(upto.position)
        end = mine.position if ahead else upto.position
        at = await look(self._hub.redis, keys, mine.position, end, client.count)
        reason = "the queue's log is gone" if at is None else gap(at, mine, name)
        if at is None or reason:
            client.places.update(scoped(client.wanted.scope, self._places))
            return reset(reason, write_cursor(client.places.values(), whole=not client.wanted.scope))
        if ahead:  # of this hub, not of the log: it was told by another process, or by this one before
            await asyncio.sleep(RETRY_S / 10)
            return b""
        client.count = fitting(at.entries)
        client.places[name] = Place(mine.mark, at.entries[-1][0].decode()) if at.entries else upto
        told = await self._tell(keys, at.entries)
        rest = _others(client.places, name, whole=not client.wanted.scope)
        return _encode(client.wanted, keys, mine.mark, told, rest)

    async def _tell(self, keys: PartitionKeys, page: Sequence[Entry]) -> list[Told]:
        if keys.name not in self._facts:
            self._facts[keys.name] = Facts(Log(self._hub.redis, keys))
        return await self._facts[keys.name].tell([read(entry) for entry in page])

    def _cursor(self, wanted: Wanted) -> str:
        """The cursor behind all that was told."""
        return write_cursor(scoped(wanted.scope, self._places).values(), whole=not wanted.scope)

    def _leave(self, wanted: Wanted, outlet: Outlet) -> None:
        self._outlets.discard(outlet)
        self.drops += outlet.dropped
        if outlets := self._following.get(wanted):
            outlets.discard(outlet)
            if not outlets:
                del self._following[wanted]
        if not self._outlets:
            self._places.clear()
            self._facts.clear()


def _others(places: Places, name: str, *, whole: bool) -> bytes:
    """What a cursor says of all partitions but one, as its end."""
    rest = [write_place(place) for other, place in places.items() if other != name] if whole else []
    return "".join(f".{entry}" for entry in rest).encode()


def _encode(wanted: Wanted, keys: PartitionKeys, mark: str, page: Iterable[Told], rest: bytes) -> bytes:
    """Of a page what is followed, as SSE messages."""
    position = parse_job_id(wanted.job).position if wanted.job else ""
    scope = b"one" if wanted.scope else b"all"
    chunks: list[bytes] = []
    for told in page:
        if wanted.takes(told, position):
            place = write_place(Place(mark, told.read[0].position)).encode()
            tag, line = write(keys, told)
            chunks.append(b"id: %s.%s%s\nevent: %s\ndata: %s\n\n" % (scope, place, rest, tag, line))
    return b"".join(chunks)
