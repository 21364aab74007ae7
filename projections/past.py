"""A partition as it was at a moment: what the views say now, less what has happened since.

The log after the moment is folded once more, on rows as they were then: what that adds up to is taken
away from the figures of now, and each job that it touched is put back where it was. A job that it did
not touch is now as it was then. So looking back costs what has happened since, and not what happened
before; MAX_BACK events at most, which the answer of `reach` turns into a moment. Where the figures were
kept somewhere in between (snapshots.py), what has happened since does not matter: they are taken from there.

Jobs that retention has removed since cannot be put back; `missing` counts them.
"""

import asyncio
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import Refused, Unavailable
from penstock.core.events import (
    AnyBody,
    QueueLimited,
    QueuePaused,
    QueueResumed,
    QueueRetained,
    Trimmed,
)
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, Read, fold_all, positions, read_row
from penstock.core.log import PAGE, Log
from penstock.core.positions import LAST_SEQ, milliseconds, order, packed, unpacked
from penstock.projections.details import instant
from penstock.projections.snapshots import oldest
from penstock.projections.tally import Totals
from penstock.projections.views import (
    MINUTE_MS,
    Counts,
    Minute,
    Rows,
    Stats,
    Touched,
    by_minute,
    count,
    govern,
    listed,
    read,
    read_minute,
    read_stats,
)

MAX_BACK: Final = 300_000
MAX_FACTS: Final = 500  # facts about the queue that are looked through for how it was governed
_SLICE: Final = 400  # events read by position at once
# Facts about the queue, and what of `Stats` they decide.
_GOVERNING: Final = {
    frozenset({QueuePaused, QueueResumed}): ("paused",),
    frozenset({QueueLimited}): ("limits",),
    frozenset({QueueRetained}): ("retention",),
}
_PLACE: Final = re.compile(r"[0-9]{1,14}-[0-9]{1,19}")


class Past:
    """One partition at one moment (Unix ms; what happened in that very ms has happened)."""

    def __init__(
        self, redis: Redis, keys: PartitionKeys, at: int, upto: str = "", log: Log | None = None
    ) -> None:
        """`upto`: not the moment, but right after the event at this position, which is of that ms. `log`: how
        to read it, if in another way."""
        self.keys: Final = keys
        self.at: Final = at
        self.missing = 0
        self.lock: Final = asyncio.Lock()
        self._redis: Final = redis
        self._log: Final = log or Log(redis, keys)
        self.last: Final = upto or f"{at}-{LAST_SEQ}"
        self._reached = self.last
        self._folded = 0
        self._rows: Final[Rows] = {}
        self._touched: Final = Touched()
        self._since: Final = Stats()
        self._governed: Final[set[type]] = set()

    async def reach(self, checkpoint: str) -> None:
        """Take away what happened up to this position; hold `lock`. Raises Refused: that is too much."""
        end = order(checkpoint)
        if self._folded and end < order(self._reached):
            raise Unavailable("the views are made anew; what was can be told when they are done")
        while order(self._reached) < end:
            entries = await self._log.entries(self._reached, PAGE)
            events = [it for it in map(read, entries) if order(it[0].position) <= end]
            if not events:
                return
            self._folded += len(events)
            if self._folded > MAX_BACK:
                raise self.too_far()
            await self._fold(events)
            self._reached = events[-1][0].position

    def too_far(self) -> Refused:
        """What to raise where too much has happened since."""
        return Refused(
            f"{instant(self.at)} is too far back: more than {MAX_BACK:,} events have happened since"
        )

    def touched(self) -> Iterable[tuple[str, Job]]:
        """The jobs that were there and to which something has happened since, as they were."""
        return ((position, row) for position, row in self._touched.rows.items() if row is not None)

    def is_touched(self, position: str) -> bool:
        """Whether something has happened to the job since."""
        return position in self._touched.rows

    async def stats(self, now: Stats) -> Stats:
        """The figures at the moment, by those that the views have at the position that was reached."""
        types = {
            type: dict(zip(Counts.__struct_fields__, _values(it), strict=True))
            for type, it in now.types.items()
        }
        for rows, sign in ((self._rows, -1), (self._touched.rows, 1)):
            for position in self._touched.rows:
                row = rows.get(position)
                if row is not None:
                    counts = types.setdefault(row.type, dict.fromkeys(Counts.__struct_fields__, 0))
                    counts[row.state] += sign
        totals = Totals(
            *(a - b for a, b in zip(_values(now.totals), _values(self._since.totals), strict=True))
        )
        reasons = {name: number - self._since.reasons.get(name, 0) for name, number in now.reasons.items()}
        then = Stats(
            {type: Counts(**counts) for type, counts in types.items() if any(counts.values())},
            totals,
            {name: number for name, number in reasons.items() if number},
        )
        await self._govern(then, now)
        return then

    async def _fold(self, events: Sequence[Read]) -> None:
        gone = {
            job for _, body in events if isinstance(body, Trimmed) for job in listed(body.first, body.jobs)
        }
        fresh = ({event.job for event, _ in events} | gone) - self._rows.keys()
        # An event written by a foreign hand may name anything.
        before = {job for job in fresh if self.is_before(job)}
        self._rows.update(dict.fromkeys(fresh))
        self._rows.update(await self.rows_then(sorted(before, key=order)))
        self.missing += sum(1 for job in gone if order(job) <= order(self.last) and not self._rows[job])
        self._governed.update(type(body) for _, body in events)
        for _, stretch in by_minute(events):
            count(stretch, self._rows, self._touched, self._since, Minute())

    def is_before(self, job: str) -> bool:
        """Whether it is a position, and one up to the moment."""
        return _PLACE.fullmatch(job) is not None and order(job) <= order(self.last)

    async def rows_then(self, jobs: Sequence[str]) -> Rows:
        """The rows of jobs as they were: as they are, where nothing has happened since, else folded from
        their events up to the moment."""
        found: Rows = {}
        for start in range(0, len(jobs), _SLICE):
            some = jobs[start : start + _SLICE]
            rows = await command(self._redis, "HMGET", self.keys.jobs, *map(packed, some))
            wanted: dict[str, list[str]] = {}
            for job, raw in zip(some, rows, strict=True):
                row = read_row(raw) if raw else None
                if row is None:
                    continue
                before = self._until(job, row)
                if len(before) == 1 + len(row.history.split()):
                    found[job] = row
                else:
                    wanted[job] = before
            found.update(await self._folded_rows(wanted))
        return found

    async def facts(self) -> AsyncGenerator[AnyBody | None, None]:
        """What was said about the queue before the moment, newest first; MAX_FACTS at most."""
        upto = b"[" + packed(self.last)
        places = await command(
            self._redis, "ZREVRANGEBYLEX", self.keys.loose, upto, "-", "LIMIT", 0, MAX_FACTS
        )
        for entry in await self._log.pick([unpacked(it) for it in places]):
            yield read(entry)[1]  # of a foreign hand's there is none

    async def before(self) -> Stats:
        """What was counted and said before the events that can be read: retention has removed those."""
        known = await command(self._redis, "HGET", self.keys.base, "stats")
        return read_stats(known) if known else Stats()

    async def _folded_rows(self, wanted: dict[str, list[str]]) -> Rows:
        places = sorted((it for some in wanted.values() for it in some), key=order)
        rows: Rows = {}
        for start in range(0, len(places), _SLICE):
            for event in await self._log.read(places[start : start + _SLICE]):
                rows[event.job] = fold_all([event], rows.get(event.job))
        return rows

    def _until(self, position: str, row: Job) -> list[str]:
        """The positions of a job's events up to the moment."""
        found = positions(position, row)
        return found[: bisect_right(found, order(self.last), key=order)]

    async def _govern(self, then: Stats, now: Stats) -> None:
        """How the queue was governed: as it is, unless that has changed since."""
        then.paused, then.limits, then.retention, then.trimmed = (
            now.paused,
            now.limits,
            now.retention,
            Trimmed(),
        )
        kinds = [kind for kind in _GOVERNING if self._governed & kind]
        if not kinds:
            return
        base = await self.before()
        for kind in kinds:
            for name in _GOVERNING[kind]:
                setattr(then, name, getattr(base, name))
        async for body in self.facts():
            if found := next((kind for kind in kinds if type(body) in kind), None):
                govern(then, body)
                kinds.remove(found)
            if not kinds:
                return


def let_go(bodies: Iterable[AnyBody | None]) -> set[str]:
    """The jobs that these events took out."""
    return {job for body in bodies if isinstance(body, Trimmed) for job in listed(body.first, body.jobs)}


async def earliest(redis: Redis, keys: PartitionKeys) -> int | None:
    """About how far back one can look (Unix ms): to the log's first event, or to the first snapshot, or over
    as many events as the minutes say can be folded; None for an empty log."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.execute_command("XRANGE", keys.log, "-", "+", "COUNT", 1)
    pipeline.hgetall(keys.minutes)
    entries, minutes = await pipeline.execute()
    if not entries:
        return None
    first, left = milliseconds(entries[0][0].decode()), MAX_BACK
    kept = await oldest(redis, keys)
    if kept is not None and kept.stats.events - kept.stats.trimmed.events <= MAX_BACK:
        return first
    for number in sorted(map(int, minutes), reverse=True):
        left -= sum(_values(read_minute(minutes[b"%d" % number]).totals))
        if left < 0:
            back = (number + 1) * MINUTE_MS
            return max(first, back if kept is None else min(back, milliseconds(kept.position)))
    return first


def _values(counts: Counts | Totals) -> list[int]:
    return [getattr(counts, name) for name in counts.__struct_fields__]
