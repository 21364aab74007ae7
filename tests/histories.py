"""Histories for tests of the views: written by the real scripts, and read back as plain values."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.dispatch import Delivery, Dispatch, Finished, Note, Submission
from penstock.core.events import AttemptFailed, Completed, Failed, Progressed, Submitted, encode
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, read_row
from penstock.core.log import Log
from penstock.core.positions import unpacked
from penstock.projections.store import ViewStore
from penstock.projections.views import Stats, read_stats

TYPES: Final = ("mail.send", "mail.bulk", "mail.check")
ONCE_MS: Final = 600_000


class Author:
    """Plays producer and worker on one partition; what happens is drawn from a seed."""

    def __init__(self, redis: Redis, keys: PartitionKeys, seed: int = 1) -> None:
        self.redis: Final = redis
        self.keys: Final = keys
        self.dispatch: Final = Dispatch(redis, keys)
        self.jobs: Final[list[str]] = []
        self._chance: Final = random.Random(seed)
        self._batches = 0
        self._workers = 0

    async def submit(self, count: int, *, type: str = "", delay: float = 0, payload: Any = None) -> list[str]:
        """Submit jobs, of a type drawn for each unless given; answers their positions."""
        batch = []
        for _ in range(count):
            body = Submitted(
                type=type or self._chance.choice(TYPES),
                payload=msgspec.Raw(
                    msgspec.json.encode({"to": "ada@example.org"} if payload is None else payload)
                ),
                delay=delay,
            )
            when = f"+{round(delay * 1000)}" if delay else ""
            batch.append(Submission("normal", encode(body), when))
        self._batches += 1
        accepted = await self.dispatch.submit(batch, producer="author", batch=self._batches, once_ms=ONCE_MS)
        self.jobs.extend(one.position for one in accepted)
        return [one.position for one in accepted]

    async def enter(self) -> str:
        """A new worker, by name."""
        self._workers += 1
        name = f"worker-{self._workers}"
        await self.dispatch.beat(name, 60_000, enter=True)
        return name

    async def take(self, worker: str, count: int) -> list[Delivery]:
        return (await self.dispatch.cycle(worker, count)).deliveries

    async def finish(self, worker: str, ends: list[Finished], notes: list[Note] | None = None) -> None:
        await self.dispatch.cycle(worker, 0, finished=ends, notes=notes or [])

    async def scene(self, count: int = 40) -> None:
        """Some of everything: jobs submitted, now and later, and every way an attempt can go."""
        await self.submit(count)
        await self.submit(3, delay=0.02)
        await self.submit(2, delay=3600)
        worker = await self.enter()
        taken = await self.take(worker, count)
        notes = [progress(one, self._chance.random()) for one in taken if self._chance.random() < 0.5]
        await self.finish(worker, [self._end(one) for one in taken[:-4]], notes)
        if self._chance.random() < 0.5:
            await self.dispatch.release(worker, "its worker left", leave=True)
        else:
            await self.redis.zadd(self.keys.workers, {worker: 1})  # silent since 1970
            await self.dispatch.reclaim(worker, 1000, self._chance.choice((1, 3)))

    def _end(self, one: Delivery) -> Finished:
        draw, ms = self._chance.random(), round(self._chance.expovariate(0.05), 3)
        if draw < 0.6:
            return completed(one, ms)
        if draw < 0.8:
            body = AttemptFailed(one.attempt, "TimeoutError", "no answer", 0.01, ms=ms)
            return Finished("attempt_failed", one.lane, one.entry, one.attempt, one.job, encode(body), 10)
        if draw < 0.9:
            dead = Failed("permanent", "ValueError", "no such mailbox", one.attempt, ms=ms)
            return Finished("failed", one.lane, one.entry, one.attempt, one.job, encode(dead))
        return Finished(
            "released", one.lane, one.entry, one.attempt, one.job, b'{"worker":"w","reason":"busy"}'
        )


def completed(one: Delivery, ms: float = 1.0, result: Any = None) -> Finished:
    """The end of an attempt that returned `result`."""
    body = Completed(one.attempt, ms, msgspec.Raw(msgspec.json.encode(result)))
    return Finished("completed", one.lane, one.entry, one.attempt, one.job, encode(body))


def progress(one: Delivery, fraction: float, message: str = "") -> Note:
    """A sign of progress of an attempt."""
    return Note(one.lane, one.entry, one.job, "progressed", encode(Progressed(fraction, message)))


async def until(condition: Callable[[], Awaitable[Any]], what: str, timeout: float = 20.0) -> Any:
    """The first true answer of `condition`, asked every few milliseconds; fails after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (answer := await condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.01)
    return answer


async def dump(redis: Redis, keys: PartitionKeys) -> dict[str, Any]:
    """Every view of the partition: its key and its bytes."""
    views: dict[str, Any] = {}
    async for name in redis.scan_iter(match=keys.views, count=1000):
        match await redis.type(name):
            case b"string":
                views[name.decode()] = await redis.get(name)
            case b"hash":
                views[name.decode()] = await redis.hgetall(name)
            case b"zset":
                views[name.decode()] = await redis.zrange(name, 0, -1, withscores=True)
            case other:
                raise AssertionError(f"a view of type {other!r}")
    return views


async def rows(redis: Redis, keys: PartitionKeys) -> dict[str, Job]:
    """All rows, by the job's position."""
    written = await command(redis, "HGETALL", keys.jobs)
    return {unpacked(place): read_row(row) for place, row in written.items()}


async def stats(redis: Redis, keys: PartitionKeys) -> Stats:
    """What the views count."""
    return read_stats(await command(redis, "GET", keys.stats))


async def folded(redis: Redis, keys: PartitionKeys) -> bool:
    """Whether the views have seen the whole log."""
    newest = await Log(redis, keys).tip()
    return await ViewStore(redis, keys).checkpoint() == newest
