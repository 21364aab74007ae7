"""taskiq with its Redis stream broker and result backend: `python -m bench.peers.taskiq_side …`.

A timeout is armed for each task (taskiq has them per task), results are kept. There is no call
for several tasks, so a batch is a gather. Of 16, 50, 100 and 300 tasks at a time, 16 to 100 were alike
and 300 slower; its validation of parameters is off.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq.api import run_receiver_task  # type: ignore[import-not-found]
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker  # type: ignore[import-not-found]

from bench.program import FILLER, main, note_start, now


async def noop(filler: str) -> None:
    """Nothing at all."""


async def clock(number: int, submitted: int, filler: str) -> None:
    """Says when it began."""
    note_start(number, submitted)


class Taskiq:
    """The system's client and worker."""

    def __init__(self, broker: RedisStreamBroker) -> None:
        self.broker = broker
        self.noop = broker.task(task_name="noop", timeout=60)(noop)
        self.clock = broker.task(task_name="clock", timeout=60)(clock)

    async def submit(self, count: int) -> None:
        if count == 1:
            await self.noop.kiq(FILLER)
        else:
            await asyncio.gather(*(self.noop.kiq(FILLER) for _ in range(count)))

    async def submit_clock(self, numbers: list[int]) -> None:
        for number in numbers:
            await self.clock.kiq(number, now(), FILLER)

    async def work(self) -> None:
        await run_receiver_task(self.broker, validate_params=False, max_async_tasks=100, max_prefetch=100)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Taskiq]:
    # redis-py's default of 5 s cuts off the blocking read of a worker that was stopped meanwhile.
    broker = RedisStreamBroker(url, socket_timeout=120).with_result_backend(RedisAsyncResultBackend(url))
    await broker.startup()
    yield Taskiq(broker)
    await broker.shutdown()


if __name__ == "__main__":
    main(opened)
