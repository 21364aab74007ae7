"""What every measured system is asked to do, as a command line, so that all are asked the same way.

    <program> bulk N      submit N no-op jobs in batches of 100, each awaited before the next
    <program> single N    submit N no-op jobs, each awaited before the next
    <program> greet N     submit N clock jobs in batches, numbered -1: they only warm the workers
    <program> clock N     submit N clock jobs one by one, a random 5 to 15 ms apart
    <program> work        run a worker until it is killed

The server's address is in BENCH_URL; `bulk` and `single` print how many jobs they submitted a
second, their first call left out, because that one connects. A clock job carries its number and
the time just before it was submitted; its handler calls `note_start`, which appends one line to
`$BENCH_DIR/<pid>.clock`. Both processes read CLOCK_MONOTONIC, which all processes of a Linux
machine share.

This file needs the standard library alone: the peers' environments have nothing else of ours. The
Node program (`peers/bullmq/bench.mjs`) follows the same page.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path
from typing import Final, Protocol

BATCH: Final = 100
# With the name of the field around it, {"filler":"…"}, a payload of 200 bytes of JSON.
FILLER: Final = "x" * (200 - len('{"filler":""}'))


class Side(Protocol):
    """One system as its program drives it."""

    async def submit(self, count: int) -> None:
        """Submit `count` no-op jobs, in one call where the system has one for several."""

    async def submit_clock(self, numbers: list[int]) -> None:
        """Submit clock jobs, each with its number and `now()`."""

    async def work(self) -> None:
        """Run a worker, for ever."""


Opener = Callable[[str], AbstractAsyncContextManager[Side]]


def now() -> int:
    """CLOCK_MONOTONIC in ns."""
    return time.monotonic_ns()


def note_start(number: int, submitted: int) -> None:
    """The clock handler's body: one line with the job's number and its latency in ns."""
    latency = now() - submitted
    os.write(_clock_file(), b"%d %d\n" % (number, latency))


def main(opened: Opener) -> None:
    """Do what the command line says."""
    import uvloop

    uvloop.run(_run(opened, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))


async def _run(opened: Opener, verb: str, count: int) -> None:
    async with opened(os.environ["BENCH_URL"]) as side:
        match verb:
            case "bulk":
                print(await _submit(side, count, BATCH))
            case "single":
                print(await _submit(side, count, 1))
            case "greet":
                await side.submit_clock([-1] * count)
            case "clock":
                await _clock(side, count)
            case "work":
                await side.work()
            case _:
                raise SystemExit(__doc__)


async def _submit(side: Side, count: int, size: int) -> float:
    """Submit, `size` jobs a call; answers the rate after the first call, 0 where it was the only one."""
    first = min(size, count)
    await side.submit(first)
    began = time.perf_counter()
    for done in range(first, count, size):
        await side.submit(min(size, count - done))
    return (count - first) / (time.perf_counter() - began)


async def _clock(side: Side, count: int) -> None:
    spacing = random.Random(7)
    for number in range(count):
        await asyncio.sleep(spacing.uniform(0.005, 0.015))
        await side.submit_clock([number])


@cache
def _clock_file() -> int:
    path = Path(os.environ["BENCH_DIR"]) / f"{os.getpid()}.clock"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
