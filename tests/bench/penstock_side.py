"""Penstock as a user has it: a contract, a handler, the Python client, the worker.

`python -m bench.penstock_side …`. All settings but one are the defaults: five attempts, a timeout of
60 s armed for each, every event kept. Of 100, 256 and 512 jobs at a time, 256 was the fastest.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from bench.program import FILLER, main, note_start, now
from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.consumers.worker import run_worker
from penstock.core.contracts import contract
from penstock.core.settings import Secret, Settings
from penstock.producer.client import Producer

CONCURRENCY: Final = 256


@contract("bench.noop")
class Noop(msgspec.Struct, frozen=True):
    """A payload of 200 bytes of JSON."""

    filler: str


@contract("bench.clock")
class Clock(msgspec.Struct, frozen=True):
    """Its number and when it was submitted."""

    number: int
    submitted: int
    filler: str


@handler(Noop)
async def noop(payload: Noop, context: Context) -> None:
    """Nothing at all."""


@handler(Clock)
async def clock(payload: Clock, context: Context) -> None:
    """Says when it began."""
    note_start(payload.number, payload.submitted)


class Penstock:
    """The client and the worker."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.settings: Final = settings
        self.producer: Final = producer

    async def submit(self, count: int) -> None:
        if count == 1:
            await self.producer.submit(Noop(FILLER))
        else:
            await self.producer.submit_many(Noop(FILLER) for _ in range(count))

    async def submit_clock(self, numbers: list[int]) -> None:
        for number in numbers:
            await self.producer.submit(Clock(number, now(), FILLER))

    async def work(self) -> None:
        port = int(os.environ.get("BENCH_METRICS_PORT", "0"))
        if not port:
            await run_worker(self.settings, asyncio.Event())
            return
        from penstock.ui.metrics import serving_metrics

        watched = msgspec.structs.replace(self.settings, metrics_port=port)
        async with serving_metrics(watched, "worker") as metrics:
            await run_worker(watched, asyncio.Event(), probes=metrics.probes)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Penstock]:
    """The side on the server at `url`."""
    settings = Settings(redis_url=Secret(url), concurrency=CONCURRENCY)
    async with Producer(settings) as producer:
        yield Penstock(settings, producer)


if __name__ == "__main__":
    main(opened)
