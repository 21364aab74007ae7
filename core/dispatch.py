"""Dispatch: the atomic scripts of a partition, behind typed calls.

The Lua lives in `core/lua/`, one atomic step a file, each with its keys, arguments, answer and
promise. This module only puts values into arguments and answers into values. It never retries a
lost connection: every call says what may be sent again.
"""

import hashlib
import secrets
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from penstock.core.connection import command
from penstock.core.keys import GROUP, LANES, PARKED, PartitionKeys
from penstock.core.line import Line

Outcome = Literal["completed", "failed", "attempt_failed", "released"]

RECLAIM_PAGE: Final = 200
SENDER_MEMORY_MS: Final = 600_000
LANE_NUMBER: Final = {name: str(number) for number, name in enumerate(LANES, 1)}


class Submission(msgspec.Struct, frozen=True):
    """One job to accept. `body` is its `submitted` event; `when` and `extra` as in submit.lua."""

    lane: str
    body: bytes
    when: str = ""
    key: str = ""
    extra: bytes = b""


class Accepted(msgspec.Struct, frozen=True):
    """Where a job's first event stands; `known` if its idempotency key had been seen before."""

    position: str
    known: bool


class Finished(msgspec.Struct, frozen=True):
    """How an attempt ended. `delay_ms` counts for attempt_failed and released."""

    outcome: Outcome
    lane: int
    entry: bytes
    attempt: int
    job: bytes
    body: bytes
    delay_ms: int = 0


class Note(msgspec.Struct, frozen=True):
    """Something an attempt under way says: an event that is not its end."""

    lane: int
    entry: bytes
    job: bytes
    tag: str
    body: bytes


class Arrival(msgspec.Struct, frozen=True):
    """An entry that the worker's blocking read brought. `job` is set if the entry had the job's body
    along and the worker has begun it."""

    lane: int
    entry: bytes
    job: bytes = b""


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """An attempt given to this worker, its `started` event written. Compared by identity: the
    same entry may come again while an earlier attempt of it still runs."""

    lane: int
    entry: bytes
    attempt: int
    job: bytes
    body: bytes


class Cycle(msgspec.Struct, frozen=True):
    """The answer of `cycle`: still alive?, how many reports came too late, whether the queue is
    governed (paused, or has limits) and for that gives nothing now, what to do next, and after how
    many ms to ask again if it is held."""

    alive: bool
    late: int
    governed: bool
    held: bool
    deliveries: list[Delivery]
    again_ms: int = 0


class Beat(msgspec.Struct, frozen=True):
    """The answer of `beat`: still alive?, which of its entries (`lane:entry`) were cancelled, which
    other consumers fell silent, and whether it is asked to leave."""

    alive: bool
    cancelled: list[bytes]
    silent: list[str]
    leave: bool = False


class Script:
    """One Lua file, called by its digest and loaded again when the server forgot it.

    With `entries`, what the scripts that move jobs share (entries.lua) stands in front of it.
    """

    def __init__(self, name: str, *, entries: bool = False) -> None:
        text = _lua(name)
        if entries:
            first_line, rest = text.split("\n", 1)
            text = f"{first_line}\n{_lua('entries')}\n{rest}"
        self.source: Final = text
        self.sha: Final = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis | Line, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await command(redis, "EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            await command(redis, "SCRIPT", "LOAD", self.source)
            return await command(redis, "EVALSHA", self.sha, len(keys), *keys, *args)


def _lua(name: str) -> str:
    return (files("penstock.core") / "lua" / f"{name}.lua").read_text()


class Dispatch:
    """The scripts of one partition. Safe to share between tasks."""

    _open: Final = Script("open")
    _submit: Final = Script("submit", entries=True)
    _cycle: Final = Script("cycle", entries=True)
    _beat: Final = Script("beat")
    _reclaim: Final = Script("reclaim", entries=True)
    _release: Final = Script("release", entries=True)

    def __init__(self, redis: Redis | Line, keys: PartitionKeys) -> None:
        self.redis: Final = redis
        self.keys: Final = keys

    async def open(self) -> str:
        """Make the partition ready and known; answers its epoch. Idempotent.

        The registry of queues comes first: no partition with work in it is ever unknown.
        """
        if not await command(self.redis, "SISMEMBER", self.keys.queues, self.keys.queue):
            await command(self.redis, "SADD", self.keys.queues, self.keys.queue)
        token = secrets.token_hex(6)
        epoch: bytes = await self._open(self.redis, (self.keys.epoch, *self.keys.lanes), (GROUP, token))
        return epoch.decode()

    async def submit(
        self, jobs: Sequence[Submission], *, producer: str, batch: int, once_ms: int
    ) -> list[Accepted]:
        """Accept jobs, all or nothing. The same `batch` of a `producer` may be sent again."""
        keys = [*self.keys.entries, self.keys.sender(producer)]
        args: list[Any] = [GROUP, PARKED, batch, SENDER_MEMORY_MS, once_ms]
        for job in jobs:
            if job.key:
                keys.append(self.keys.once(job.key))
            args += (LANE_NUMBER[job.lane], job.when, "1" if job.key else "0", job.extra, job.body)
        answer: bytes = await self.call(self._submit, keys, args)
        return [
            Accepted(position[1:], True) if position[0] == "=" else Accepted(position, False)
            for position in answer.decode().split()
        ]

    async def cycle(
        self,
        consumer: str,
        want: int,
        *,
        notes: Sequence[Note] = (),
        finished: Sequence[Finished] = (),
        arrivals: Sequence[Arrival] = (),
    ) -> Cycle:
        """Report and take in one step.

        After a lost answer, `finished` may be sent again and counts once; what the answer had
        taken is pending, and `release` gives it back. Notes and arrivals are not sent again.
        """
        args: list[Any] = [GROUP, PARKED, consumer, want, len(notes), len(finished), len(arrivals)]
        for note in notes:
            args += (note.lane, note.entry, note.job, note.tag, note.body)
        for end in finished:
            args += (end.outcome, end.lane, end.entry, end.attempt, end.job, end.delay_ms, end.body)
        for arrival in arrivals:
            args += (arrival.lane, arrival.entry, arrival.job)
        answer = await self.call(self._cycle, self.keys.entries, args)
        deliveries = [Delivery(*answer[at : at + 5]) for at in range(3, len(answer), 5)]
        state = answer[2]
        return Cycle(answer[0] == 1, answer[1], state >= 1, state > 1, deliveries, state if state > 1 else 0)

    async def beat(self, consumer: str, lease_ms: int, *, enter: bool = False, facts: bytes = b"") -> Beat:
        """Give a sign of life, say what is new (`facts`: see core.workers), and learn what others say."""
        keys = (self.keys.epoch, self.keys.workers, self.keys.told, self.keys.facts, *self.keys.lanes)
        args = (consumer, lease_ms, "1" if enter else "0", facts, GROUP, PARKED)
        answer = await self.call(self._beat, keys, args)
        names = 2 + answer[1]
        cancelled = [it for it in answer[2:names] if not it.startswith(b"leave:")]
        silent = [name.decode() for name in answer[names:]]
        return Beat(answer[0] == 1, cancelled, silent, len(cancelled) < answer[1])

    async def reclaim(self, silent: str, lease_ms: int, crash_limit: int) -> tuple[int, int]:
        """Park a silent consumer's entries; answers how many were parked and dead-lettered."""
        parked = dead = 0
        while True:
            args = (GROUP, PARKED, silent, lease_ms, RECLAIM_PAGE, crash_limit)
            again, lost, more = await self.call(self._reclaim, (*self.keys.entries, self.keys.facts), args)
            parked, dead = parked + again, dead + lost
            if not more:
                return parked, dead

    async def release(
        self, consumer: str, reason: str, *, running: Sequence[bytes] = (), leave: bool = False
    ) -> int:
        """Give back what `consumer` holds but does not run (`running`: as `lane:entry`); `leave`
        drops the consumer. Answers how many were given back."""
        given = 0
        count: int
        while True:
            args = (GROUP, PARKED, consumer, RECLAIM_PAGE, reason, "1" if leave else "0", *running)
            count, more = await self.call(self._release, (*self.keys.entries, self.keys.facts), args)
            given += count
            if not more:
                return given

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Call a script; open the partition first where it is new or the server lost it."""
        try:
            return await script(self.redis, keys, args)
        except ResponseError as error:
            if not str(error).startswith(("NOTOPEN", "NOGROUP")):
                raise
        await self.open()
        return await script(self.redis, keys, args)
