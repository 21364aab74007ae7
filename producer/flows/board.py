"""The board: all flows of the ledger, folded in memory as far as the log goes.

Whoever wants to know about flows (the coordinator, the API, a Python client) has a board of its own and
lets it catch up before it looks. There is nothing to rebuild and nothing to lose, and what is looked at
is never older than the moment of asking.

It remembers no payloads and no results, and forgets a flow `keep_s` after its end, by the time of the
facts. So its size is that of the flows that are alive or recent, and the ledger may be cut there: `oldest`
says where.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.events import read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry, follow
from penstock.core.positions import START, milliseconds, order
from penstock.producer.flows.course import Course, fold_flow
from penstock.producer.flows.facts import read_fact

# A graph may have a MiB, a result 256 KiB: so much is read at once, no more.
PAGE: Final = 200
FORGET_MS: Final = 60_000


class Board:
    """Flows by position, oldest first."""

    def __init__(self, redis: Redis, keys: PartitionKeys, *, keep_s: float) -> None:
        self.flows: dict[str, Course] = {}
        self.position = START
        self._redis: Final = redis
        self._keys: Final = keys
        self._keep_ms: Final = round(keep_s * 1000)
        self._since = START
        self._forget_at = 0
        self._turn: Final = asyncio.Lock()
        self._listening: asyncio.Task[Sequence[Entry]] | None = None

    async def catch_up(self, since: str = START) -> set[str]:
        """Fold what is new, up to the end of the ledger; answers the positions of the flows it was about.

        Flows submitted before `since` need not be known; who asks for one flow need not read all
        that came before. The board begins where the earliest of those who asked wanted it to.
        """
        async with self._turn:
            if not self._knows(since):
                self._begin(since)
            changed: set[str] = set()
            while True:
                page = await self._page()
                changed |= {self._fold(entry) for entry in page}
                if len(page) < PAGE:
                    self._forget()
                    return changed & self.flows.keys()

    async def news(self) -> None:
        """Return when the ledger has gone on, after a while, or when the board is closed; all callers
        share one blocking read."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(follow(self._redis, self._keys, self.position, 1))
            # Its error is seen, even where all who waited are gone.
            self._listening.add_done_callback(lambda task: task.cancelled() or task.exception())
        listening = self._listening
        await asyncio.wait([listening])  # whoever gives up waiting does not end it for the others
        if not listening.cancelled():
            listening.result()

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    @property
    def oldest(self) -> str:
        """The position of the first flow that is remembered; that of the newest fact if none is."""
        return next(iter(self.flows), self.position)

    def _knows(self, since: str) -> bool:
        return self.position != START and order(self._since) <= order(since)

    def _begin(self, since: str) -> None:
        self.flows = {}
        self._since = since
        ms, seq = order(since)
        # The place just before: its fact, if there is one, need not be there.
        self.position = START if since == START else f"{ms}-{seq - 1}" if seq else f"{ms - 1}-{2**64 - 1}"

    async def _page(self) -> Sequence[Entry]:
        """The next facts. The last one that was read is asked for again: where it is gone, this is not
        the log it was (a server that lost its data, a cut beyond this board), and all begins anew."""
        if not self.flows:
            return await self._range(f"({self.position}")
        last, *page = await self._range(self.position, 1) or [(b"", [])]
        if last[0].decode() == self.position:
            return page
        self._begin(self._since)
        return await self._range(f"({self.position}")

    async def _range(self, start: str, more: int = 0) -> list[Entry]:
        found: list[Entry] = await command(
            self._redis, "XRANGE", self._keys.log, start, "+", "COUNT", PAGE + more
        )
        return found

    def _fold(self, entry: Entry) -> str:
        event = read_entry(*entry)
        self.position = event.position
        course = fold_flow(self.flows.get(event.job), event, read_fact(event))
        if course is not None:
            self.flows[event.job] = course
        return event.job

    def _forget(self) -> None:
        """Drop the flows that ended long before the newest fact; looked for once a minute of the facts."""
        now = milliseconds(self.position)
        if now < self._forget_at:
            return
        self._forget_at = now + FORGET_MS
        before = now - self._keep_ms
        for name in [name for name, course in self.flows.items() if 0 < course.ended_ms < before]:
            del self.flows[name]
