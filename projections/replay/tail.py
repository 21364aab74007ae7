"""The logs as they grow: every event that is wanted, once, in the order of its log.

Where it begins at a moment of the past, the log is read from there up to where it is now, then followed.
A server that goes away is waited for; that it did, and that a log is another one than before, is
logged (feed_tail.py), since what was written meanwhile may be lost.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Final

import msgspec

from penstock.core.connection import answering, command, connect
from penstock.core.errors import Unavailable
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Entry, Log
from penstock.core.settings import Settings
from penstock.core.waiting import pause
from penstock.projections.feed_events import Facts, Told, Wanted
from penstock.projections.feed_tail import RETRY_S, Tail
from penstock.projections.replay.asking import job_in
from penstock.projections.replay.grep import pages
from penstock.projections.replay.span import Span, partitions, partly, span, standing
from penstock.projections.views import read

LOOK_S: Final = 1.0

_log: Final = logging.getLogger("penstock.replay")

Tell = Callable[[PartitionKeys, Told], None]
"""Takes an event. What it raises ends the following."""


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed: all that fits all that is said. `queues`: none for all there are and will be;
    `events`: names of events, none for all; `since`: from when on (Unix ms), None for from now on."""

    wanted: Wanted = Wanted()
    queues: tuple[str, ...] = ()
    events: frozenset[str] = frozenset()
    since: int | None = None


async def follow_logs(settings: Settings, follow: Follow, tell: Tell, stop: asyncio.Event) -> None:
    """Tell of events until `stop`. Raises NotFound for a queue or a job that cannot be there, Refused for a
    moment before its log begins; Unavailable where the server is not there to begin with."""
    keys = Keys(settings.namespace)
    async with connect(settings) as redis:
        follower = _Follower(follow, tell, lambda partition: Log(redis, partition), stop)
        running = dict[str, asyncio.Task[None]]()

        async def begin(partition: PartitionKeys, *, newest: bool) -> None:
            tail = Tail(redis, partition, follower.news, follower.broken)
            if await tail.begin(newest=newest):
                if newest:
                    await follower.past(tail)
                running[partition.name] = asyncio.create_task(tail.run())

        try:
            with answering():
                known = await command(redis, "SMEMBERS", keys.queues)
                for partition in partitions(keys, known, follower.queues):
                    await begin(partition, newest=True)
            while not stop.is_set():
                for task in running.values():
                    if task.done():  # it follows for ever, unless there was an error
                        task.result()
                with suppress(Unavailable), answering():  # the tails say so themselves
                    for partition in partitions(keys, await command(redis, "SMEMBERS", keys.queues), ()):
                        wanted = not follower.queues or partition.queue in follower.queues
                        if wanted and partition.name not in running:
                            await begin(partition, newest=False)
                await pause(stop, LOOK_S)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)


class _Follower:
    """What the tails of all logs tell to."""

    def __init__(
        self, follow: Follow, tell: Tell, log_of: Callable[[PartitionKeys], Log], stop: asyncio.Event
    ) -> None:
        job = job_in(follow.wanted.job, follow.queues) if follow.wanted.job else None
        self.queues: Final = (job.queue,) if job else follow.queues
        self._follow: Final = follow
        self._tell: Final = tell
        self._log_of: Final = log_of
        self._stop: Final = stop
        self._position: Final = job.position if job else ""
        self._facts: Final[dict[str, Facts]] = {}

    async def past(self, tail: Tail) -> None:
        """Tell what happened from the moment asked for up to where `tail` stands; `tail` goes on there."""
        if self._follow.since is None:
            return
        log = self._log_of(tail.keys)
        now = await standing(log)
        asked = span(tail.keys, now, self._follow.since, None)
        if missing := partly(tail.keys, now, asked):
            _log.warning("%s", missing)
        async with aclosing(pages(log, Span(asked.after, tail.place.position))) as reading:
            async for page in reading:
                await self.news(tail, page)
                if self._stop.is_set():
                    return

    async def news(self, tail: Tail, page: Sequence[Entry]) -> None:
        """Tell what is wanted of a page; a server that goes away meanwhile is waited for."""
        events = [read(entry) for entry in page]
        if self._follow.events:
            events = [it for it in events if it[0].tag in self._follow.events or it[0].tag == "submitted"]
        while True:
            try:
                with answering():
                    told = await self._facts_of(tail.keys).tell(events)
                break
            except Unavailable:
                if self._stop.is_set():
                    return
                await pause(self._stop, RETRY_S)
        for one in told:
            event, _ = one.read
            wanted = not self._follow.events or event.tag in self._follow.events
            if wanted and self._follow.wanted.takes(one, self._position):
                self._tell(tail.keys, one)

    def broken(self, tail: Tail, reason: str) -> None:
        _log.warning("%s: %s; following what comes from now on", tail.keys.name, reason)

    def _facts_of(self, keys: PartitionKeys) -> Facts:
        facts = self._facts.get(keys.name)
        if facts is None:
            facts = self._facts[keys.name] = Facts(self._log_of(keys))
        return facts
