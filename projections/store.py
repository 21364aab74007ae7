"""The views of one partition in Redis: read what is needed to go on, write by compare-and-set.

There is one way to write a view, `apply`, whoever folds: a projector, two that race, a rebuild. Views
that an older or newer version made in another shape are dropped where one would go on from them, and
folded again from the log.
"""

import re
from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import WatchError

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.events import Trimmed
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES, TERMINAL, Read, read_row
from penstock.core.line import Line
from penstock.core.positions import START, packed
from penstock.projections.base import read_base
from penstock.projections.views import (
    SHAPE,
    Changes,
    Move,
    Rows,
    Stats,
    Views,
    listed,
    minute_of,
    read_minute,
    read_stats,
)

_CACHED: Final = 16_384
_POSITION: Final = re.compile(r"[0-9]{1,14}-[0-9]{1,19}")


class ViewStore:
    """Reads and writes the views of one partition.

    Remembers rows of jobs that live: at least the last 16,384 that changed, at most twice as many.
    """

    _apply: Final = Script("apply")

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.redis: Final = redis
        self.keys: Final = keys
        self._writer: Final = Line(redis)  # one page is written at a time
        self._recent: Rows = {}
        self._older: Rows = {}
        self._ended: list[str] = []

    async def load(self) -> Views:
        """The views as they stand, rows left out; forgets every row it remembers, and drops views of
        another shape."""
        self._recent, self._older, self._ended = {}, {}, []
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.get(self.keys.checkpoint)
        pipeline.get(self.keys.stats)
        pipeline.hkeys(self.keys.minutes)
        pipeline.hgetall(self.keys.base)
        position, stats, fields, raw = await pipeline.execute()
        base = read_base(raw)
        if position is not None and _shape(stats) != SHAPE:
            await self.drop(outdated=True)
            return await self.load()
        if position is None:
            return Views(START, base.stats, base.minutes, None, base.minutes, base.begun)
        now = minute_of(position.decode())
        newest = await command(self.redis, "HGET", self.keys.minutes, now)
        # Whoever pruned that minute in between moved the checkpoint, and `apply` will be refused.
        minute = read_minute(newest) if newest else None
        ahead = {number: told for number, told in base.minutes.items() if number > now}
        return Views(position.decode(), read_stats(stats), map(int, fields), minute, ahead, base.begun)

    async def drop(self, *, outdated: bool = False) -> None:
        """Delete every view in one step, so that the next fold begins from the log; with `outdated` only
        those of another shape."""
        found = {name async for name in self.redis.scan_iter(match=self.keys.views, count=1_000)}
        while not await self._dropped(found, outdated=outdated):
            pass

    async def _dropped(self, found: set[bytes], *, outdated: bool) -> bool:
        """Delete the views that were found, and all that belong to their stats; False, and nothing is
        deleted, if a projector wrote meanwhile."""
        keys = self.keys
        async with self.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(keys.checkpoint)
            raw = await pipeline.get(keys.stats)
            if outdated and _shape(raw) == SHAPE:
                return True
            types = (read_stats(raw) if raw else Stats()).types
            indexes = [keys.index(state, type) for type in types for state in STATES]
            pipeline.multi()  # type: ignore[no-untyped-call]
            pipeline.unlink(
                *(keys.checkpoint, keys.jobs, keys.stats, keys.minutes, keys.loose), *indexes, *found
            )
            pipeline.hincrby(keys.base, "begun", 1)
            try:
                await pipeline.execute()
            except WatchError:
                return False
        return True

    async def checkpoint(self) -> str:
        """The last position that the views have seen."""
        position: bytes | None = await command(self.redis, "GET", self.keys.checkpoint)
        return position.decode() if position else START

    async def rows(self, events: Iterable[Read]) -> Rows:
        """The row of each job that the events name, and of those that were trimmed."""
        recent, older = self._recent, self._older
        rows: Rows = {}
        unknown: list[str] = []
        for event, body in events:
            job = event.job
            if isinstance(body, Trimmed):
                unknown += listed(body.first, body.jobs)
            if job in rows:
                continue
            rows[job] = row = recent.get(job) or older.get(job)
            # An event written by a foreign hand may name anything.
            if row is None and job != event.position and _POSITION.fullmatch(job):
                unknown.append(job)
        if unknown:
            found = await command(self.redis, "HMGET", self.keys.jobs, *map(packed, unknown))
            rows.update((job, read_row(row)) for job, row in zip(unknown, found, strict=True) if row)
        return rows

    def remember(self, rows: Rows) -> None:
        """Keep the rows of a page for the next ones; those of jobs that ended for one page only,
        for as long as they may not be written yet."""
        for job in self._ended:
            self._recent.pop(job, None)
            self._older.pop(job, None)
        self._ended = [job for job, row in rows.items() if row is not None and row.state in TERMINAL]
        self._recent.update(rows)
        if len(self._recent) >= _CACHED:
            self._older, self._recent = self._recent, {}

    async def apply(self, changes: Changes) -> bool:
        """Write; False, and nothing written, if the views or the log are not what the changes began
        from: then `load` again. May be sent again: it is written once."""
        keys = self.keys
        names = [keys.checkpoint, keys.log, keys.jobs, keys.stats, keys.minutes, keys.base]
        args: list[str | bytes | int] = [
            *(changes.expected, changes.position, changes.stats, changes.begun),
            *(len(changes.rows) // 2, len(changes.forgotten)),
            *(len(changes.minutes) // 2, len(changes.pruned)),
        ]
        for (state, type), move in changes.moves.items():
            names.append(keys.index(state, type))
            args += _written(move)
        if changes.loose.removed or changes.loose.added:
            names.append(keys.loose)
            args += _written(changes.loose)
        args += (*changes.minutes, *changes.pruned, *changes.rows, *changes.forgotten)
        written: int = await self._apply(self._writer, names, args)
        return written == 1


def _shape(raw: bytes | str | None) -> int:
    return read_stats(raw).shape if raw else 0


def _written(move: Move) -> list[str | bytes | int]:
    return [len(move.removed), len(move.added) // 2, *move.removed, *move.added]
