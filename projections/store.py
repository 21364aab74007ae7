"""The views of one partition in Redis: read what is needed to go on, write by compare-and-set.

There is one way to write a view, `apply`, whoever folds: a projector, two that race, a rebuild. From views
that an older or newer version made in another shape nobody goes on: they are made anew (rebuild.py).
"""

import re
from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.events import Trimmed
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import TERMINAL, Read, read_row
from penstock.core.line import Line
from penstock.core.positions import START, packed
from penstock.projections.base import read_base
from penstock.projections.views import (
    SHAPE,
    Changes,
    Rows,
    Views,
    listed,
    minute_of,
    read_minute,
    read_stats,
)

_CACHED: Final = 16_384
_POSITION: Final = re.compile(r"[0-9]{1,14}-[0-9]{1,19}")


class OtherShape(Exception):
    """The views are of another version's shape."""


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

    async def close(self) -> None:
        """Give back the connection that writes; what comes after takes one again."""
        await self._writer.close()

    async def load(self) -> Views:
        """The views as they stand, rows left out; forgets every row it remembers. Raises OtherShape."""
        self._recent, self._older, self._ended = {}, {}, []
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.get(self.keys.checkpoint)
        pipeline.get(self.keys.stats)
        pipeline.hkeys(self.keys.minutes)
        pipeline.hgetall(self.keys.base)
        position, stats, fields, raw = await pipeline.execute()
        base = read_base(raw)
        if position is not None and shape_of(stats) != SHAPE:
            raise OtherShape
        if position is None:
            return Views(START, base.stats, base.minutes, None, base.minutes, base.begun)
        now = minute_of(position.decode())
        newest = await command(self.redis, "HGET", self.keys.minutes, now)
        # Whoever pruned that minute in between moved the checkpoint, and `apply` will be refused.
        minute = read_minute(newest) if newest else None
        ahead = {number: told for number, told in base.minutes.items() if number > now}
        return Views(position.decode(), read_stats(stats), map(int, fields), minute, ahead, base.begun)

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
            if type(body) is Trimmed:
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
        # Few long arguments: to pack thousands of short ones takes as long as a tenth of the fold.
        args: list[str | bytes | int] = [
            *(changes.expected, changes.position, changes.stats, changes.begun),
            *(b"".join(changes.rows[::2]), b"\n".join(changes.rows[1::2]), b"".join(changes.forgotten)),
            *(len(changes.minutes) // 2, len(changes.pruned), *changes.minutes, *changes.pruned),
        ]
        moves = [(keys.index(state, type), move) for (state, type), move in changes.moves.items()]
        for name, move in (*moves, (keys.loose, changes.loose)):
            if move.removed or move.added:
                names.append(name)
                args += (b"".join(move.removed), b"".join(move.added))
        written: int = await self._apply(self._writer, names, args)
        return written == 1


def shape_of(raw: bytes | str | None) -> int:
    """By which `SHAPE` of views these stats were written."""
    return read_stats(raw).shape if raw else 0
