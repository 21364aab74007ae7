"""The ceiling: raw redis-py that sends the same scripts with the same arguments and does nothing else.

No producer, no worker, no handler, no timeout, no contract: what is left of the time is the
server's work, the client library's, and the arguments'. `python -m bench.ceiling …`
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis

from bench.program import FILLER, main
from penstock.core.connection import connect
from penstock.core.dispatch import Dispatch, Script
from penstock.core.keys import GROUP, PARKED, Keys
from penstock.core.settings import Secret, Settings

TAKE: Final = 128
WORKER: Final = "ceiling"
SUBMITTED: Final = b'{"type":"bench.noop","payload":{"filler":"' + FILLER.encode() + b'"}}'
COMPLETED: Final = b'{"ms":0.01}'


class Ceiling:
    """The scripts, raw."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Final = redis
        self.dispatch: Final = Dispatch(redis, Keys("penstock").partition("bench"))
        self.keys: Final = self.dispatch.keys
        self._submit: Final = Script("submit", entries=True)
        self._cycle: Final = Script("cycle", entries=True)
        self._name: Final = secrets.token_hex(8)
        self._batch = 0

    async def submit(self, count: int) -> None:
        """Submit `count` no-op jobs in one script call."""
        self._batch += 1
        keys = (*self.keys.entries, self.keys.sender(self._name))
        job = ("2", "", "0", "", SUBMITTED)
        await self._submit(self.redis, keys, (GROUP, PARKED, self._batch, 600_000, 0, *(job * count)))

    async def submit_clock(self, numbers: list[int]) -> None:
        """Nothing: there is no handler whose start could be timed."""

    async def work(self) -> None:
        """Complete all that was taken and take the next, in one script call, over and over."""
        await self.dispatch.beat(WORKER, 3_600_000, enter=True)
        answer: list[Any] = [1, 0, 0]
        while True:
            done: list[Any] = []
            for at in range(3, len(answer), 5):
                lane, entry, attempt, job, _ = answer[at : at + 5]
                done += ("completed", lane, entry, attempt, job, 0, COMPLETED)
            args = (GROUP, PARKED, WORKER, TAKE, 0, (len(answer) - 3) // 5, 0, *done)
            answer = await self._cycle(self.redis, self.keys.entries, args)
            if not done and len(answer) == 3:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Ceiling]:
    """A side on the server at `url`, its partition open."""
    redis = connect(Settings(redis_url=Secret(url)))
    side = Ceiling(redis)
    await side.dispatch.open()
    yield side
    await redis.aclose()


if __name__ == "__main__":
    main(opened)
