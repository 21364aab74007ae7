"""The ledger of schedules: read up to its end, written only by who has read it.

`commit` is the one way to write. What is to be written is composed from the schedules as they stand,
and appended only if the ledger has not moved on meanwhile; else it is composed again. So any number of
schedulers and APIs write, each decision is made once and on what is true, and nobody leads.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from penstock.core.append import Appender, Fact
from penstock.core.connection import BLOCK_S, command
from penstock.core.errors import Unavailable
from penstock.core.events import Event, read_entry
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.positions import START
from penstock.producer.schedules.facts import KEPT, LEDGER
from penstock.producer.schedules.fold import Book

PAGE: Final = 1_000
TRIES: Final = 50

Compose = Callable[[Book], Sequence[Fact]]


class Ledger:
    """The schedules of a namespace, folded in this process. Safe to share between tasks."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self.redis: Final = redis
        self.keys: Final = Keys(namespace).ledger(LEDGER)
        self.book = Book()
        self.position = START
        self._appender: Final = Appender(redis, self.keys)
        self._log: Final = Log(redis, self.keys)
        self._turn: Final = asyncio.Lock()

    async def refresh(self) -> Book:
        """Fold what is new."""
        async with self._turn:
            await self._read_on()
        return self.book

    async def commit(self, compose: Compose, *, token: str = "") -> list[str]:
        """Append what `compose` makes of the schedules as they stand; answers the positions, none where
        it makes nothing. With a `token`, once for all who give it. Raises Unavailable where others
        are always faster, and what `compose` raises."""
        token = token or secrets.token_hex(12)
        async with self._turn:
            for _ in range(TRIES):
                await self._read_on()
                facts = compose(self.book)
                if not facts:
                    return []
                positions = await self._appender.append(facts, token=token, after=self.position)
                if positions:
                    await self._read_on()
                    return positions
        raise Unavailable("the schedules are being changed by many at once")

    async def wait(self, seconds: float) -> None:
        """Wait until there is something new, or so long (at most BLOCK_S)."""
        block = max(1, round(min(seconds, BLOCK_S) * 1000))
        await command(
            self.redis, "XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self.keys.log, self.position
        )

    async def history(self, name: str, before: str, limit: int) -> list[Event]:
        """The events of a schedule before a position (empty: up to the end), newest first."""
        found: list[Event] = []
        end = f"({before}" if before else "+"
        while len(found) < limit:
            entries: list[Any] = await command(
                self.redis, "XREVRANGE", self.keys.log, end, "-", "COUNT", PAGE
            )
            events = [read_entry(position, fields) for position, fields in entries]
            found += [event for event in events if event.job == name and event.tag not in KEPT]
            if len(entries) < PAGE:
                break
            end = f"({events[-1].position}"
        return found[:limit]

    async def _read_on(self) -> None:
        """Fold up to the end. Where the event read last is not in the log any more (trimmed, or lost by
        the server), all is folded again from what is there."""
        if self.position != START and not await self._log.read([self.position]):
            self.book, self.position = Book(), START
        while True:
            events = await self._log.page(self.position, PAGE)
            self.book.add(events)
            if events:
                self.position = events[-1].position
            if len(events) < PAGE:
                return
