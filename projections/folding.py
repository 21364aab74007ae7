"""Folding one partition's log into its views, up to its end: a page of up to 1,000 events at a time, as a
line of three stations:

    read page n+1          on the server, while
    fold page n            here, while
    write page n-1         on the server, in one step with the checkpoint (apply.lua)

Projectors and rebuilds fold with this, and any number of them at once: a refused write tells of the others.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from penstock.core.keys import PartitionKeys
from penstock.core.line import Line
from penstock.core.log import PAGE, Entry, Log
from penstock.projections.snapshots import due, keep
from penstock.projections.store import ViewStore
from penstock.projections.tracing import ProjectSpans
from penstock.projections.views import Changes, Views, read

# Payloads and results come along, up to 256 KiB each by default: a page is also bounded by its bytes,
# as far as the one before foretells them.
PAGE_BYTES: Final = 8 * 1024 * 1024
_FIRST_PAGE: Final = 100


class Overtaken(Exception):
    """The views or the log are not what this fold took them for: begin again."""


class Folding:
    """Folds one partition into the views that its keys name; `spans` tell of what was written."""

    def __init__(self, redis: Redis, keys: PartitionKeys, spans: ProjectSpans | None = None) -> None:
        self.store: Final = ViewStore(redis, keys)
        self._reader: Final = Line(redis)  # one page is read at a time
        self._events: Final = Log(self._reader, keys)
        self._spans: Final = spans
        self._count = _FIRST_PAGE

    async def catch_up(self, views: Views, stop: asyncio.Event) -> None:
        """Fold and write, page by page, up to the end of the log, or until `stop`. Raises Overtaken."""
        reading: asyncio.Task[Sequence[Entry]] | None = self._read(views.position)
        writing: asyncio.Task[bool] | None = None
        try:
            while reading is not None:
                page = await reading
                more = len(page) == self._count and not stop.is_set()
                self._count = _fitting(page)
                reading = self._read(page[-1][0].decode()) if more else None
                if page:
                    before = views.stats.events
                    changes = await self._fold(views, page)
                    await _written(writing)
                    writing = asyncio.create_task(self._write(changes, page, due(before, views)))
            await _written(writing)
        finally:
            await ended(reading, writing)

    async def close(self) -> None:
        """Give back the connections; what comes after takes them again."""
        await self._reader.close()
        await self.store.close()

    def _read(self, after: str) -> asyncio.Task[Sequence[Entry]]:
        return asyncio.create_task(self._events.entries(after, self._count))

    async def _fold(self, views: Views, page: Sequence[Entry]) -> Changes:
        events = [read(entry) for entry in page]
        await asyncio.sleep(0)  # the reading and the writing under way are sent now
        rows = await self.store.rows(events)
        changes = views.fold(events, rows)
        self.store.remember(rows)
        return changes

    async def _write(self, changes: Changes, page: Sequence[Entry], snapshot: bytes | None) -> bool:
        written = await self.store.apply(changes)
        if written and snapshot is not None:
            await keep(self.store.redis, self.store.keys, changes.position, snapshot)
        if written and self._spans is not None:
            self._spans.tell(page)
        return written


def _fitting(page: Sequence[Entry]) -> int:
    """How many events the next page may have if they are as big as those of this one."""
    size = sum(len(fields[-1]) for _, fields in page)
    return max(10, min(PAGE, PAGE_BYTES * len(page) // size)) if size else PAGE


async def _written(writing: asyncio.Task[bool] | None) -> None:
    if writing is not None and not await writing:
        raise Overtaken


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel what still runs and wait for its end; whose error counts was raised before."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
