"""One batch of retention: count what goes into the base, then let trim.lua take it out of the log.

The events of the batch are folded once more, job by job from nothing, as the views once did: so what
the base gains is exactly what the views had counted for them.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.events import Trimmed, encode
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import TERMINAL, Job, positions
from penstock.core.log import Entry, Log
from penstock.core.positions import START, delta, order, undelta
from penstock.projections.base import Base, read_base
from penstock.projections.views import (
    MINUTES_KEPT,
    Minute,
    Rows,
    Stats,
    Touched,
    by_minute,
    count,
    minute_of,
    read,
    read_stats,
    write_minute,
    write_stats,
)

# Payloads and results come along when events are read: so many at a time.
_SLICE: Final = 250
_PLACING: Final = frozenset({"submitted", "requeued", "rescheduled"})


class Batch(msgspec.Struct):
    """What may go together: ended jobs by position, and positions of events that belong to no job."""

    jobs: dict[str, Job]
    loose: list[str]

    def __bool__(self) -> bool:
        return bool(self.jobs or self.loose)

    def names(self) -> list[str]:
        """The jobs and the events of none, in log order."""
        return sorted([*self.jobs, *self.loose], key=order)

    def positions(self) -> list[str]:
        """All events, in log order."""
        found = [*self.loose]
        for job, row in self.jobs.items():
            found += positions(job, row)
        return sorted(found, key=order)

    def seen(self, upto: str) -> "Batch":
        """What of it lies before or at a position with all its events."""
        limit = order(upto)
        jobs = {job: row for job, row in self.jobs.items() if order(last_event(job, row)) <= limit}
        return Batch(jobs, [position for position in self.loose if order(position) <= limit])

    def without(self, name: str) -> "Batch":
        jobs = {job: row for job, row in self.jobs.items() if job != name}
        return Batch(jobs, [position for position in self.loose if position != name])


class Hold(msgspec.Struct):
    """What may still need a job, for the script to look at: events that may stand in a lane, and ends
    with the event that took each up ('' for none)."""

    placing: list[str] = []
    ends: dict[str, str] = {}

    def add(self, position: str, tag: str) -> None:
        """The job's next event."""
        newest = next(reversed(self.ends), "")
        if newest and not self.ends[newest] and tag in {"requeued", "cancelled"}:
            self.ends[newest] = position
        if tag in TERMINAL:
            self.ends[position] = ""
        if tag in _PLACING:
            self.placing.append(position)


class Situation(msgspec.Struct):
    """Where the views and the base stand: the checkpoint, what it and all readers have `seen`, and the
    minutes of the base that are too `old` for the views."""

    checkpoint: str
    seen: str
    stats: Stats
    base: Base
    old: list[int]


class Trimming:
    """Lets batches go, of one partition."""

    _trim: Final = Script("trim")

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.redis: Final = redis
        self.keys: Final = keys
        self._events: Final = Log(redis, keys)

    async def let_go(self, batch: Batch) -> str | None:
        """Trim what of a batch may go; answers the position of the `trimmed` event, '' if nothing of it
        may go now, None if nothing at all may: the views have not seen the last `trimmed` event yet,
        or another was faster."""
        while True:
            now = await self._situation(batch)
            last = now.base.trimmed
            if last and order(now.checkpoint) < order(last):
                return None
            batch = batch.seen(now.seen)
            if not batch:
                return ""
            # The next `trimmed` says the sums again, so the last goes with the rest.
            going = batch
            if last and order(last) <= order(now.seen):
                going = Batch(batch.jobs, [*batch.loose, last])
            answer = await self._send(going, now)
            if isinstance(answer, bytes):
                return answer.decode()
            if answer == 0:
                return None
            batch = batch.without(going.names()[answer - 1])

    async def _situation(self, batch: Batch) -> Situation:
        trimmed: bytes | None = await command(self.redis, "HGET", self.keys.base, "trimmed")
        touched = {minute_of(position) for position in batch.positions()}
        if trimmed:
            touched.add(minute_of(trimmed.decode()))
        fields = [b"stats", b"trimmed", *(b"%d" % minute for minute in touched)]
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.get(self.keys.checkpoint)
        pipeline.hvals(self.keys.readers)
        pipeline.get(self.keys.stats)
        pipeline.hmget(self.keys.base, fields)
        pipeline.hkeys(self.keys.base)
        checkpoint, readers, stats, told, names = await pipeline.execute()
        reached = checkpoint.decode() if checkpoint else START
        oldest = minute_of(reached) - MINUTES_KEPT
        return Situation(
            reached,
            min((reached, *(it.decode() for it in readers)), key=order),
            read_stats(stats) if stats else Stats(),
            read_base({name: value for name, value in zip(fields, told, strict=True) if value}),
            [int(name) for name in names if name.isdigit() and int(name) <= oldest],
        )

    async def _send(self, going: Batch, now: Situation) -> bytes | int:
        """Count and trim; the answer is that of trim.lua."""
        known, wanted = now.base.trimmed, going.positions()
        oldest = minute_of(now.checkpoint) - MINUTES_KEPT
        holds = await self._count(going, wanted, now.base)
        minutes = {it: told for it, told in now.base.minutes.items() if it > oldest}
        told = _told(going, wanted, now.stats.trimmed)
        args: list[Any] = [known, wanted[-1], write_stats(now.base.stats), len(minutes), len(now.old)]
        args += (len(holds), encode(told))
        for minute, value in minutes.items():
            args += (minute, write_minute(value))
        args += now.old
        keys = [self.keys.checkpoint, self.keys.log, self.keys.base, self.keys.readers, *self.keys.lanes]
        for hold in holds.values():
            args += (len(hold.placing), *hold.placing, len(hold.ends), *hold.ends.values())
            keys += map(self.keys.marker, hold.ends)
        answer: bytes | int = await self._trim(self.redis, keys, [*args, *wanted])
        return answer

    async def _count(self, going: Batch, wanted: Sequence[str], base: Base) -> dict[str, Hold]:
        """Add to the base what the events that go had counted; answers what may hold each job."""
        holds = {name: Hold() for name in going.names()}
        rows: Rows = {}
        for start in range(0, len(wanted), _SLICE):
            entries = await self._events.pick(wanted[start : start + _SLICE])
            events = [read(entry) for entry in entries]
            for entry, (event, _) in zip(entries, events, strict=True):
                rows.setdefault(event.job, None)
                hold = holds.get(event.job) or holds[event.position]
                hold.add(event.position, _tag(entry))
            for minute, stretch in by_minute(events) if events else ():
                count(stretch, rows, Touched(), base.stats, base.minutes.setdefault(minute, Minute()))
        return holds


def last_event(job: str, row: Job) -> str:
    """The position of a job's last event."""
    _, _, text = row.history.rpartition(" ")
    return undelta(job, text) if text else job


def _tag(entry: Entry) -> str:
    """As it is written, also of an event that cannot be read: what the scripts look at."""
    return entry[1][1].decode(errors="replace") if len(entry[1]) > 1 else ""


def _told(going: Batch, wanted: Sequence[str], before: Trimmed) -> Trimmed:
    """The event that says what goes, and the sums of all that ever went."""
    first = wanted[0]
    states = [row.state for row in going.jobs.values()]
    return Trimmed(
        completed=before.completed + states.count("completed"),
        failed=before.failed + states.count("failed"),
        cancelled=before.cancelled + states.count("cancelled"),
        events=before.events + len(wanted),
        first=first,
        last=wanted[-1],
        jobs=" ".join(delta(first, job) for job in sorted(going.jobs, key=order)),
        loose=" ".join(delta(first, position) for position in sorted(going.loose, key=order)),
    )
