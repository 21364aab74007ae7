"""Jobs that tests submit: contracts and their handlers, for workers in this process and in others.

All are on the queue `test` but `Elsewhere`, which is on `other`.
"""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.consumers import Context, handler
from penstock.core import Backoff, Permanent, RetryLater, contract

QUICK: Final = Backoff(kind="fixed", base=0.05, jitter=0)


@contract("test.echo", attempts=3, backoff=QUICK)
class Echo(msgspec.Struct):
    """Answers its value."""

    value: Any = None


@handler(Echo)
async def echo(job: Echo, context: Context) -> Any:
    return job.value


@contract("other.echo", queue="other")
class Elsewhere(msgspec.Struct):
    """The same on another queue, after a while."""

    seconds: float = 0.0


@contract("test.nap", attempts=3, backoff=QUICK)
class Nap(msgspec.Struct):
    """Takes a while, as a coroutine."""

    seconds: float


class Meter:
    """How many handlers run at once, and how many at most did."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def nap(self, seconds: float) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1


METER: Final = Meter()


@handler(Nap)
async def nap(job: Nap, context: Context) -> str:
    await METER.nap(job.seconds)
    return "rested"


@handler(Elsewhere)
async def elsewhere(job: Elsewhere, context: Context) -> None:
    await METER.nap(job.seconds)


@contract("test.block", attempts=2, backoff=QUICK)
class Block(msgspec.Struct):
    """Takes a while, in a thread."""

    seconds: float


@handler(Block)
def block(job: Block, context: Context) -> str:
    time.sleep(job.seconds)
    return "woke"


@contract("test.hang", attempts=1)
class Hang(msgspec.Struct):
    """Takes a while, in a process, whose id it writes to a file. `die` ends the process instead."""

    file: str
    seconds: float = 0.0
    die: bool = False
    say: float = 0.0


@handler(Hang, mode="process")
def hang(job: Hang, context: Context) -> int:
    Path(job.file).write_text(str(os.getpid()))
    if job.say:
        context.progress(job.say)
        context.log("from another process")
    if job.die:
        os._exit(3)
    time.sleep(job.seconds)
    return os.getpid()


@contract("test.flaky", attempts=3, backoff=QUICK)
class Flaky(msgspec.Struct):
    """Fails `times` times, then succeeds."""

    times: int


@handler(Flaky)
async def flaky(job: Flaky, context: Context) -> int:
    if context.attempt <= job.times:
        raise ValueError(f"attempt {context.attempt} of {context.attempts} fails")
    return context.attempt


@contract("test.hopeless", attempts=3)
class Hopeless(msgspec.Struct):
    """Fails for good at its first attempt."""


@handler(Hopeless)
async def hopeless(job: Hopeless, context: Context) -> None:
    raise Permanent("there is no such thing")


@contract("test.busy", attempts=3)
class Busy(msgspec.Struct):
    """Its remote service says when to come again."""

    after: float


@handler(Busy)
async def busy(job: Busy, context: Context) -> int:
    if context.attempt == 1:
        raise RetryLater("come back later", after=job.after)
    return context.attempt


@contract("test.talk")
class Talk(msgspec.Struct):
    """Says a lot, from a coroutine."""

    words: int


@handler(Talk)
async def talk(job: Talk, context: Context) -> None:
    for number in range(1, job.words + 1):
        context.progress(number / job.words, f"word {number}", {"number": number})
        if number % 10 == 0:
            context.log(f"line {number}")


@contract("test.large", attempts=3)
class Large(msgspec.Struct):
    """Answers a text of so many bytes."""

    size: int


@handler(Large)
async def large(job: Large, context: Context) -> str:
    return "x" * job.size


@contract("test.odd", attempts=2, backoff=QUICK)
class Odd(msgspec.Struct):
    """Ends in a way that few handlers do."""

    how: str


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("I cannot say")


@handler(Odd)
async def odd(job: Odd, context: Context) -> Any:
    match job.how:
        case "exit":
            raise SystemExit(3)
        case "cancelled":
            raise asyncio.CancelledError
        case "unencodable result":
            return object()
        case "half a character":
            raise ValueError("\udcff in a file's name")
        case "mute":
            raise Mute
        case "unencodable progress":
            context.progress(0.5, data=object())
        case "progress of no number":
            context.progress(float("nan"))
    return job.how


@contract("test.gate", attempts=2, backoff=QUICK, timeout=60)
class Gate(msgspec.Struct):
    """Runs until the file is there."""

    file: str


@handler(Gate)
async def gate(job: Gate, context: Context) -> str:
    while not Path(job.file).exists():  # noqa: ASYNC240 (looks, and reads nothing)
        await asyncio.sleep(0.01)
    return "through"


@contract("test.lethal", attempts=5)
class Lethal(msgspec.Struct):
    """Kills its worker."""


@handler(Lethal)
async def lethal(job: Lethal, context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contract("test.family")
class Family(msgspec.Struct):
    """Submits so many more jobs."""

    children: int


@handler(Family)
async def family(job: Family, context: Context) -> list[str]:
    return [await context.jobs.submit(Echo(number)) for number in range(job.children)]


@contract("test.tidy", attempts=1)
class Tidy(msgspec.Struct):
    """Waits as a coroutine, and writes down that it was cancelled."""

    file: str


@handler(Tidy)
async def tidy(job: Tidy, context: Context) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0)  # cleaning up may take turns of the loop
        Path(job.file).write_text("cleaned up")  # noqa: ASYNC240 (a few bytes)
        raise


@contract("test.attentive", attempts=1)
class Attentive(msgspec.Struct):
    """Waits in a thread until it is cut short, and writes that down."""

    file: str


@handler(Attentive)
def attentive(job: Attentive, context: Context) -> None:
    deadline = time.monotonic() + 60
    while not context.cancelled:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    Path(job.file).write_text("noticed")
