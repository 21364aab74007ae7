"""streaQ with its defaults: `python -m bench.peers.streaq_side …`.

A timeout is armed for each task (streaQ has them per task), results are kept for the default five
minutes, several tasks are enqueued by its `enqueue_many`. 100 tasks at a time was the fastest
setting found.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streaq import Worker  # type: ignore[import-not-found]

from bench.program import FILLER, main, note_start, now


async def noop(filler: str) -> None:
    """Nothing at all."""


async def clock(number: int, submitted: int, filler: str) -> None:
    """Says when it began."""
    note_start(number, submitted)


class Streaq:
    """The system's client and worker, one class in streaQ."""

    def __init__(self, url: str) -> None:
        self.worker = worker = Worker(redis_url=url, concurrency=16)
        self.noop = worker.task(timeout=60, silent=True)(noop)
        self.clock = worker.task(timeout=60, silent=True)(clock)

    async def submit(self, count: int) -> None:
        if count == 1:
            await self.noop.enqueue(FILLER)
        else:
            await self.worker.enqueue_many([self.noop.enqueue(FILLER) for _ in range(count)])

    async def submit_clock(self, numbers: list[int]) -> None:
        for number in numbers:
            await self.clock.enqueue(number, now(), FILLER)

    async def work(self) -> None:
        await self.worker.run_async()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Streaq]:
    side = Streaq(url)
    if sys.argv[1] == "work":  # the worker enters its own context
        yield side
    else:
        async with side.worker:
            yield side


if __name__ == "__main__":
    main(opened)
