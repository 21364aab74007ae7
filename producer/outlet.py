"""The way out to one partition: whoever submits at the same time shares one script call.

A caller who finds no call under way sends what he has; the others put theirs into the buffer, which
a task sends as long as there is anything in it. So a lone caller pays one round trip and nothing
else, a crowd pays one round trip per thousand jobs, and one call at a time is under way, which is what
lets the script recognise a batch that was sent again.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError

from penstock.core.connection import command, passing
from penstock.core.dispatch import Accepted, Dispatch, Submission
from penstock.core.errors import BacklogFull, Unavailable
from penstock.core.keys import PartitionKeys
from penstock.core.line import Line

MAX_JOBS: Final = 1_000
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_BUFFERED: Final = 20_000
PATIENCE_S: Final = 5.0
REPLICA_WAIT_MS: Final = 1_000


class _Ask(msgspec.Struct, eq=False):
    """What one caller put in, at most a batch, and where its answer goes."""

    jobs: Sequence[Submission]
    answer: "asyncio.Future[list[Accepted]]"
    size: int


class Outlet:
    """Submits to one partition, batched, each batch exactly once while the server comes back
    within PATIENCE_S. With `replicas`, a batch is accepted when that many have it too."""

    def __init__(self, redis: Redis, keys: PartitionKeys, *, once_s: float, replicas: int = 0) -> None:
        # One call at a time is under way, and WAIT speaks of the writes of its own connection.
        self._redis: Final = Line(redis)
        self._replicas: Final = replicas
        self._dispatch: Final = Dispatch(self._redis, keys)
        self._once_ms: Final = round(once_s * 1000)
        self._producer: Final = secrets.token_hex(8)
        self._batch = 0
        self._buffer: deque[_Ask] = deque()
        self._buffered = 0
        self._busy = False
        self._sender: asyncio.Task[None] | None = None

    @property
    def buffered(self) -> int:
        """How many submissions wait for the call under way."""
        return self._buffered

    async def submit(self, jobs: Sequence[Submission]) -> list[Accepted]:
        """Accept jobs. Raises Unavailable when the server stays away, or too many wait already."""
        accepted: list[Accepted] = []
        for chunk in _chunks(jobs):
            accepted += await self._ask(chunk)
        return accepted

    async def _ask(self, jobs: Sequence[Submission]) -> list[Accepted]:
        if self._buffered + len(jobs) > MAX_BUFFERED:
            raise Unavailable(f"{self._buffered} submissions wait for Redis already")
        ask = _Ask(jobs, asyncio.get_running_loop().create_future(), sum(len(job.body) for job in jobs))
        if self._busy:
            self._buffer.append(ask)
            self._buffered += len(jobs)
            return await ask.answer
        self._busy = True
        try:
            await self._send([ask])
        finally:
            self._busy = bool(self._buffer)
            if self._busy:
                self._sender = asyncio.create_task(self._send_all())
        return ask.answer.result()

    async def _send_all(self) -> None:
        """What came while a call was under way; a task of its own, so that whoever gives up waiting
        takes nobody along."""
        while self._buffer:
            await self._send(self._take())
            # Whoever got an answer may have more to ask, and others have come: let them join.
            await asyncio.sleep(0)
        self._busy = False

    def _take(self) -> list[_Ask]:
        """The next batch, within the bounds; never empty while somebody waits. What its caller
        gave up on is left out."""
        batch: list[_Ask] = []
        count = size = 0
        while self._buffer:
            ask = self._buffer[0]
            if batch and (count + len(ask.jobs) > MAX_JOBS or size + ask.size > MAX_BYTES):
                break
            self._buffer.popleft()
            self._buffered -= len(ask.jobs)
            if not ask.answer.cancelled():
                batch.append(ask)
                count, size = count + len(ask.jobs), size + ask.size
        return batch

    async def _send(self, batch: list[_Ask]) -> None:
        try:
            accepted = await self._deliver([job for ask in batch for job in ask.jobs])
        except BaseException as error:
            cut = Unavailable("the submission was cut short; it may have been accepted")
            for ask in batch:
                if not ask.answer.done():
                    ask.answer.set_exception(error if isinstance(error, Exception) else cut)
                    ask.answer.exception()  # seen: its caller may be gone
            if not isinstance(error, Exception):
                raise
            return
        at = 0
        for ask in batch:
            if not ask.answer.done():
                ask.answer.set_result(accepted[at : at + len(ask.jobs)])
            at += len(ask.jobs)

    async def _deliver(self, jobs: list[Submission]) -> list[Accepted]:
        """One batch under one number, sent again until it is answered or patience ends."""
        self._batch += 1
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        pause = 0.05
        while True:
            try:
                accepted = await self._dispatch.submit(
                    jobs, producer=self._producer, batch=self._batch, once_ms=self._once_ms
                )
                await self._replicated()
                return accepted
            except (RedisError, OSError) as error:
                if not passing(error):
                    raise _refusal(error) from error
                if loop.time() + pause > deadline:
                    raise Unavailable(
                        f"Redis does not answer ({error}); with an idempotency key a job is safe to resend"
                    ) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _replicated(self) -> None:
        """Wait until as many replicas as asked for have the batch; a batch sent again writes again
        (its memory's life), so that WAIT speaks of it on a new connection too."""
        if self._replicas:
            have = await command(self._redis, "WAIT", self._replicas, REPLICA_WAIT_MS)
            if have < self._replicas:
                raise RedisConnectionError(f"{have} of {self._replicas} replicas have it")


def _refusal(error: RedisError | OSError) -> Exception:
    """What the server's no means to who submits."""
    if isinstance(error, OutOfMemoryError):
        return Unavailable("Redis has reached its maxmemory: no new jobs until there is room", retry_after=10)
    if str(error).startswith("FULL"):
        return BacklogFull(str(error).removeprefix("FULL "), retry_after=5)
    return error


def _chunks(jobs: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    """Jobs in pieces of at most a batch, by count and by bytes."""
    start = size = 0
    for at, job in enumerate(jobs):
        if at > start and (at - start >= MAX_JOBS or size + len(job.body) > MAX_BYTES):
            yield jobs[start:at]
            start, size = at, 0
        size += len(job.body)
    yield jobs[start:]
