"""All logs of this process's namespace, each read once, told to whoever attends.

The hub reads while somebody attends, and for IDLE_S more; an API that nobody watches reads nothing.
Queues that are there at its start are told from their ends on, one that appears later from its
beginning: nothing of it was told before.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import LOST, command, connect
from penstock.core.errors import Refused, Unavailable
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Entry
from penstock.core.settings import Settings
from penstock.projections.feed_cursor import MAX_PARTITIONS
from penstock.projections.feed_tail import Tail

LOOK_S: Final = 0.5
IDLE_S: Final = 30.0
_CONNECTIONS: Final = 2 * MAX_PARTITIONS + 32


class Listener(Protocol):
    """Who attends. `news` is called for one page of a partition after another, and the next one is
    not read before it returns."""

    def joined(self, tail: Tail) -> None:
        """A partition is there; `tail.place` is where its news will begin."""

    async def news(self, tail: Tail, page: Sequence[Entry]) -> None:
        """The log went on."""

    def broken(self, tail: Tail, reason: str) -> None:
        """What follows does not go on where the last page ended."""


class Hub:
    """Reads the logs. `redis` may be used by who attends."""

    def __init__(self, settings: Settings) -> None:
        self.keys: Final = Keys(settings.namespace)
        self.redis: Final[Redis] = connect(settings, max_connections=_CONNECTIONS)
        self._tails: Final[dict[str, Tail]] = {}
        self._readers: Final[list[asyncio.Task[None]]] = []
        self._listeners: Final[dict[Listener, int]] = {}
        self._starting: Final = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop reading and close all connections."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._stop()
        await self.redis.aclose()

    async def start(self) -> None:
        """Return when the logs are read. Raises Unavailable."""
        async with self._starting:
            if self._watch is None:
                try:
                    await self._look(newest=True)
                except LOST as error:
                    await self._stop()
                    raise Unavailable(f"Redis does not answer: {error}") from error
                self._watch = asyncio.create_task(self._keep_looking())

    @asynccontextmanager
    async def attended(self, listener: Listener) -> AsyncIterator[None]:
        """Tell `listener` while the block runs; it may attend several times over and is told once.
        Raises Unavailable."""
        await self.start()
        if listener not in self._listeners:
            for tail in self._tails.values():
                if tail.place.mark:
                    listener.joined(tail)
        self._listeners[listener] = self._listeners.get(listener, 0) + 1
        try:
            yield
        finally:
            self._listeners[listener] -= 1
            if not self._listeners[listener]:
                del self._listeners[listener]

    def keys_of(self, name: str) -> PartitionKeys:
        """The keys of a partition that is read."""
        return self._tails[name].keys

    def check_scope(self, scope: str) -> None:
        """Raises Refused: to follow all partitions is more than a cursor can hold."""
        if not scope and len(self._tails) > MAX_PARTITIONS:
            raise Refused(f"more than {MAX_PARTITIONS} queues: follow one of them, with ?queue=")

    async def _keep_looking(self) -> None:
        idle = 0.0
        while idle < IDLE_S:
            await asyncio.sleep(LOOK_S)
            idle = 0.0 if self._listeners else idle + LOOK_S
            try:
                await self._look(newest=False)
            except (RedisError, OSError):
                continue  # the tails say so themselves
        self._watch = None
        await self._stop()

    async def _look(self, *, newest: bool) -> None:
        """Begin to read what queues there are."""
        for member in await command(self.redis, "SMEMBERS", self.keys.queues):
            keys = self.keys.partition(member.decode())
            if keys.name not in self._tails:
                tail = Tail(self.redis, keys, self._news, self._broken)
                if await tail.begin(newest=newest) and keys.name not in self._tails:
                    self._tails[keys.name] = tail
                    for listener in self._listeners:
                        listener.joined(tail)
                    self._readers.append(asyncio.create_task(tail.run()))

    async def _stop(self) -> None:
        readers = [*self._readers]
        self._tails.clear()
        self._readers.clear()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _news(self, tail: Tail, page: Sequence[Entry]) -> None:
        for listener in list(self._listeners):
            await listener.news(tail, page)

    def _broken(self, tail: Tail, reason: str) -> None:
        for listener in list(self._listeners):
            listener.broken(tail, reason)
