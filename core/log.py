"""Reading the log of a partition: by page, by position, by job, and as it grows.

Entries come as Redis gives them (`connect` turns redis-py's parsing into dicts off).
"""

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from penstock.core.connection import BLOCK_S, command
from penstock.core.dispatch import Script
from penstock.core.events import Event, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.line import Line

PAGE: Final = 1_000
_SCAN_PAGE: Final = 2_000

Entry = tuple[bytes, list[bytes]]


class Log:
    """The log of one partition, read only."""

    _history: Final = Script("history")
    _pick: Final = Script("pick")

    def __init__(self, redis: Redis | Line, keys: PartitionKeys) -> None:
        self.redis: Final = redis
        self.keys: Final = keys

    async def page(self, after: str, count: int = PAGE) -> list[Event]:
        """Up to `count` events after a position, oldest first."""
        entries = await self.entries(after, count)
        return [read_entry(position, fields) for position, fields in entries]

    async def entries(self, after: str, count: int = PAGE) -> list[Entry]:
        """The same, as Redis gives them: (position, flat list of fields)."""
        found: list[Entry] = await command(
            self.redis, "XRANGE", self.keys.log, f"({after}", "+", "COUNT", count
        )
        return found

    async def back(self, before: str, count: int = PAGE) -> list[Entry]:
        """Up to `count` entries before a position, the newest of them, oldest first."""
        found: list[Entry] = await command(
            self.redis, "XREVRANGE", self.keys.log, f"({before}", "-", "COUNT", count
        )
        found.reverse()
        return found

    async def read(self, positions: Sequence[str]) -> list[Event]:
        """The events at these positions, in one round trip; what was trimmed is left out."""
        return [read_entry(position, fields) for position, fields in await self.pick(positions)]

    async def pick(self, positions: Sequence[str]) -> list[Entry]:
        """The same, as Redis gives them."""
        found: list[Entry] = await self._pick(self.redis, (self.keys.log,), positions) if positions else []
        return found

    async def history(self, job: str, after: str) -> list[Event]:
        """The events of the job at `job` that come after a position, up to the log's end.

        Looks through the log on the server, 2,000 entries a step: meant for the stretch that
        no view covers yet.
        """
        events: list[Event] = []
        while True:
            reached, end, *entries = await self._history(
                self.redis, (self.keys.log,), (after, _SCAN_PAGE, job)
            )
            events += [read_entry(position, fields) for position, fields in entries]
            if end == b"1":
                return events
            after = reached.decode()

    async def tip(self) -> str:
        """The position of the newest event; 0-0 for an empty log."""
        newest: list[Entry] = await command(self.redis, "XREVRANGE", self.keys.log, "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else "0-0"


async def follow(redis: Redis | Line, keys: PartitionKeys, after: str, count: int = PAGE) -> list[Entry]:
    """Entries after a position; waits up to BLOCK_S for the first one, then answers empty."""
    reply: Any = await command(
        redis, "XREAD", "COUNT", count, "BLOCK", int(BLOCK_S * 1000), "STREAMS", keys.log, after
    )
    return reply[0][1] if reply else []
