"""Retention: jobs that ended long enough ago leave the log and the views.

    look    the indexes tell which jobs have ended, their rows when, and where their events are
    count   these events are folded once more, into the base: totals and minutes stay what they were
    trim    trim.lua takes the events out, updates the base and appends `trimmed`, in one step
    fold    the projector lets the jobs go when it comes to that event

A job goes with all its events or stays with all of them, so what is left of the log tells the rows of
the jobs that are left; with the base to begin from, a rebuild gives the bytes that a projector has
now. Nothing here writes a view. Any number of trimmers may run beside any number of projectors: the
script checks what each began from. Only what the checkpoint and every reader of the log have seen may
go, and nothing that a lane still names (trim.lua).

Of the events that belong to no job the newest `trimmed` stays; the others go when they are older than
any job is kept. Idempotency keys stay for the time they were promised: that a job is forgotten must
not let a late copy of its submission run.

A reader that went away for good holds all this back, and memory grows: so one that does for PATIENCE_MS is
named in the log of the process, again and again, with the way to give it up.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, passing
from penstock.core.events import QueueRetained
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import TERMINAL, Job, read_row
from penstock.core.positions import START, milliseconds, order, packed, unpacked
from penstock.core.settings import Settings
from penstock.core.waiting import pause
from penstock.core.webhooks import READER as WEBHOOK
from penstock.projections.details import instant
from penstock.projections.replay.holds import ARCHIVE, let_go
from penstock.projections.shadow import abandon
from penstock.projections.snapshots import prune
from penstock.projections.trimming import Batch, Trimming, last_event
from penstock.projections.views import Stats, read_stats

# A batch is one call of the script, a few ms of the server's time.
BATCH_JOBS: Final = 500
BATCH_EVENTS: Final = 2_000
_FOLDED_S: Final = 0.01  # how often to look whether the views have seen the last batch
_LONGEST_PAUSE_S: Final = 60.0
_SHORTEST_PAUSE_S: Final = 0.2
_RETRY_S: Final = 5.0
PATIENCE_MS: Final = 3600 * 1000  # how long after its time a job may be held by a reader before that is said
_AGAIN_S: Final = 3600.0

_log: Final = logging.getLogger("penstock.retention")


class Kept(msgspec.Struct, frozen=True):
    """How long a queue keeps ended jobs, in ms by outcome."""

    completed: int
    failed: int
    cancelled: int

    @property
    def shortest(self) -> int:
        """The time of the outcome that is kept for the shortest time."""
        return min(self.completed, self.failed, self.cancelled)

    @property
    def longest(self) -> int:
        """That of the one kept for the longest."""
        return max(self.completed, self.failed, self.cancelled)


def kept(settings: Settings, told: QueueRetained) -> Kept:
    """What was told of the queue, and the settings where nothing was."""
    return Kept(
        round(1000 * (told.completed or settings.retention_completed)),
        round(1000 * (told.failed or settings.retention_failed)),
        round(1000 * (told.cancelled or settings.retention_cancelled)),
    )


class Trimmer:
    """Keeps one partition trimmed."""

    def __init__(self, redis: Redis, keys: PartitionKeys, settings: Settings) -> None:
        self.keys: Final = keys
        self._redis: Final = redis
        self._settings: Final = settings
        self._trimming: Final = Trimming(redis, keys)
        self._overdue = START  # of the jobs that should have gone PATIENCE_MS ago, the end of the last
        self._told: Final[dict[str, float]] = {}  # readers that were named, and when

    async def run(self, stop: asyncio.Event) -> None:
        """Trim now and then until `stop`, whatever happens; a batch begun is finished."""
        while not stop.is_set():
            seconds = _RETRY_S
            try:
                await self.sweep(stop)
                rule = kept(self._settings, (await self._stats()).retention)
                seconds = min(max(rule.shortest / 10_000, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
            except Exception as error:  # the fold goes on, and the next try may do better
                if not (isinstance(error, RedisError | OSError) and passing(error)):
                    _log.error("%s: could not trim", self.keys.name, exc_info=error)
            await pause(stop, seconds)

    async def sweep(self, stop: asyncio.Event) -> None:
        """Let go whose time is over, batch by batch, each as soon as the views have seen the one
        before. Ends early on `stop`, or where something must be seen or done by others first; a rebuild that
        was given up is waited for no longer."""
        if await abandon(self._redis, self.keys):
            _log.warning(
                "%s: nobody went on with a rebuild that was begun; its views are dropped", self.keys.name
            )
        if await let_go(self._redis, self.keys):
            _log.warning("%s: exports were killed; what they held is held no more", self.keys.name)
        await prune(self._redis, self.keys)
        self._overdue = START
        await self._let_go(stop)
        if self._overdue != START:
            await self._name_readers()

    async def _let_go(self, stop: asyncio.Event) -> None:
        async for batch in self._due():
            trimmed = await self._trimming.let_go(batch)
            if trimmed is None:
                return
            while trimmed and order(await self._checkpoint()) < order(trimmed):
                if stop.is_set():
                    return
                await pause(stop, _FOLDED_S)

    async def _checkpoint(self) -> str:
        raw: bytes | None = await command(self._redis, "GET", self.keys.checkpoint)
        return raw.decode() if raw else START

    async def _stats(self) -> Stats:
        raw = await command(self._redis, "GET", self.keys.stats)
        return read_stats(raw) if raw else Stats()

    async def _due(self) -> AsyncIterator[Batch]:
        """What may go by its age."""
        seconds, micros = await self._redis.time()
        now = seconds * 1000 + micros // 1000
        long_ago = now - PATIENCE_MS
        stats = await self._stats()
        rule = kept(self._settings, stats.retention)
        batch, size = Batch({}, await self._loose(now - rule.longest)), 0
        for type in stats.types:
            for state in sorted(TERMINAL):
                async for job, row in self._ended(state, type, now - getattr(rule, state)):
                    batch.jobs[job], end = row, last_event(job, row)
                    if milliseconds(end) < long_ago - getattr(rule, state):
                        self._overdue = max(self._overdue, end, key=order)
                    size += 2 + row.history.count(" ")
                    if size >= BATCH_EVENTS or len(batch.jobs) >= BATCH_JOBS:
                        yield batch
                        batch, size = Batch({}, []), 0
        if batch:
            yield batch

    async def _name_readers(self) -> None:
        """Say which readers have not seen the end of a job that should have gone long ago."""
        readers: dict[bytes, bytes] = await command(self._redis, "HGETALL", self.keys.readers)
        for name, place in ((name.decode(), place.decode()) for name, place in readers.items()):
            due = time.monotonic() - self._told.get(name, -math.inf) >= _AGAIN_S
            if due and order(place) < order(self._overdue):
                self._told[name] = time.monotonic()
                seen = f"up to {instant(milliseconds(place))}" if place != START else "nothing of it"
                _log.warning(
                    "%s: %s has seen %s, and what it has not seen is kept: jobs that ended by %s are still "
                    "in the log. %s",
                    *(self.keys.name, name, seen, instant(milliseconds(self._overdue))),
                    _way_out(self.keys, name),
                )

    async def _ended(self, state: str, type: str, before: int) -> AsyncIterator[tuple[str, Job]]:
        """The jobs of a type that ended so before a time in ms, in the order of their submission."""
        after, last = b"-", _before(before)
        index = self.keys.index(state, type)
        while True:
            places = await command(self._redis, "ZRANGEBYLEX", index, after, last, "LIMIT", 0, BATCH_JOBS)
            if not places:
                return
            rows = await command(self._redis, "HMGET", self.keys.jobs, *places)
            for place, raw in zip(places, rows, strict=True):
                job, row = unpacked(place), read_row(raw) if raw else None
                if row is not None and row.state == state and milliseconds(last_event(job, row)) < before:
                    yield job, row
            after = b"(" + places[-1]

    async def _loose(self, before: int) -> list[str]:
        """The oldest events of no job, if they are older than a time in ms; not the newest `trimmed`."""
        found = await command(
            *(self._redis, "ZRANGEBYLEX", self.keys.loose, "-", _before(before), "LIMIT", 0, BATCH_JOBS)
        )
        newest = await command(self._redis, "HGET", self.keys.base, "trimmed")
        return [it for it in map(unpacked, found) if it.encode() != newest]


def _way_out(keys: PartitionKeys, reader: str) -> str:
    """What to do about a reader that holds retention back."""
    if reader.startswith(ARCHIVE):
        return "Start its archiver, or give the archive up: penstock archiver --to … --leave"
    if reader.startswith(WEBHOOK):
        return "Start penstock webhooks, or remove the endpoint: penstock webhook remove …"
    return f"If nobody reads by that name any more: HDEL {keys.readers} {reader}"


def _before(ms: int) -> bytes:
    """The end of a range of an index: what came before a time."""
    return b"(" + packed(f"{max(ms, 0)}-0")
