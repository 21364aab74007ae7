"""The way out to one partition: whoever submits at the same time shares one script call.

Callers put their jobs into the buffer and queue up at the lock. The first one through sends what
all of them put in; the others find their answer waiting. So a lone caller pays one round trip and
nothing else, a crowd pays one round trip per thousand jobs, and one call at a time is under way,
which is what lets the script recognise a batch that was sent again.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import passing
from penstock.core.dispatch import Accepted, Dispatch, Submission
from penstock.core.errors import Unavailable
from penstock.core.keys import PartitionKeys

MAX_JOBS: Final = 1_000
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_BUFFERED: Final = 20_000
PATIENCE_S: Final = 5.0

_Waiting = tuple[Submission, "asyncio.Future[Accepted]"]


class Outlet:
    """Submits to one partition, batched, each batch exactly once while the server comes back
    within PATIENCE_S."""

    def __init__(self, redis: Redis, keys: PartitionKeys, *, once_s: float) -> None:
        self._dispatch: Final = Dispatch(redis, keys)
        self._once_ms: Final = round(once_s * 1000)
        self._producer: Final = secrets.token_hex(8)
        self._batch = 0
        self._buffer: deque[_Waiting] = deque()
        self._turn: Final = asyncio.Lock()

    async def submit(self, jobs: Sequence[Submission]) -> list[Accepted]:
        """Accept jobs. Raises Unavailable when the server stays away, or too many wait already."""
        if len(self._buffer) + len(jobs) > MAX_BUFFERED:
            raise Unavailable(f"{len(self._buffer)} submissions wait for Redis already")
        loop = asyncio.get_running_loop()
        mine: list[asyncio.Future[Accepted]] = [loop.create_future() for _ in jobs]
        self._buffer.extend(zip(jobs, mine, strict=True))
        try:
            async with self._turn:
                while self._buffer and not mine[-1].done():
                    await self._send(self._take())
        except asyncio.CancelledError:
            for future in mine:
                future.cancel()
            raise
        return [future.result() for future in mine]

    def _take(self) -> list[_Waiting]:
        """The next batch, within the bounds. What its caller gave up on is left out."""
        batch: list[_Waiting] = []
        size = 0
        while self._buffer and len(batch) < MAX_JOBS and size < MAX_BYTES:
            job, future = self._buffer.popleft()
            if not future.cancelled():
                batch.append((job, future))
                size += len(job.body)
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            accepted = await self._deliver([job for job, _ in batch])
        except BaseException as error:
            unknown = Unavailable("the submission was cut short; it may have been accepted")
            for _, future in batch:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else unknown)
                    future.exception()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, accepted, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _deliver(self, jobs: list[Submission]) -> list[Accepted]:
        """One batch under one number, sent again until it is answered or patience ends."""
        self._batch += 1
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        pause = 0.05
        while True:
            try:
                return await self._dispatch.submit(
                    jobs, producer=self._producer, batch=self._batch, once_ms=self._once_ms
                )
            except (RedisError, OSError) as error:
                if not passing(error):
                    raise
                if loop.time() + pause > deadline:
                    raise Unavailable(
                        f"Redis does not answer ({error}); what has an idempotency key can safely be sent again"
                    ) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
