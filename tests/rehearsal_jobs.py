"""Jobs whose handlers are pure, have a dry mode, or neither; how they behave is the environment's
REHEARSED_VERSION, as another version of the code would. All are on the queue `rehearsed`."""

import asyncio
import os
import time
from typing import Any, Final

import msgspec

from penstock.consumers import Context, handler
from penstock.core import Backoff, Permanent, RetryLater, contract

QUICK: Final = Backoff(kind="fixed", base=0.01, jitter=0)
# What handlers with effects have done to the world.
EFFECTS: Final[list[str]] = []


def version() -> str:
    return os.environ.get("REHEARSED_VERSION", "1")


@contract("rehearsed.square", attempts=2, backoff=QUICK)
class Square(msgspec.Struct):
    """A pure one; version 2 fails for odd numbers and answers another shape, version 0 fails for 7."""

    number: int


@handler(Square, pure=True)
async def square(job: Square, context: Context) -> Any:
    if version() == "2" and job.number % 2:
        raise ValueError(f"{job.number} is odd")
    if version() == "0" and job.number == 7:
        raise Permanent("seven")
    return {"square": job.number**2} | ({"version": 2} if version() == "2" else {})


@contract("rehearsed.letter", attempts=2, backoff=QUICK)
class Letter(msgspec.Struct):
    """One with a dry mode, which finds out what is wrong with it."""

    to: str


def look(job: Letter, context: Context) -> str:
    if version() == "2" and "@" not in job.to:
        raise Permanent(f"{job.to} is no address")
    return "would be sent"


@handler(Letter, dry=look)
async def send(job: Letter, context: Context) -> str:
    EFFECTS.append(job.to)
    return "sent"


@contract("rehearsed.wild")
class Wild(msgspec.Struct):
    """One with neither."""


@handler(Wild)
async def wild(job: Wild, context: Context) -> None:
    EFFECTS.append("wild")


@contract("rehearsed.curious", attempts=3, backoff=QUICK)
class Curious(msgspec.Struct):
    """Tells what it is in; stores an artifact, submits a job, and wants to come back later."""

    text: str


@handler(Curious, pure=True)
async def curious(job: Curious, context: Context) -> list[Any]:
    assert context.artifacts is not None
    if context.rehearsal and context.attempt == 1:
        raise RetryLater("not now", after=3600)
    kept = await context.artifacts.aput(f"{job.text} {context.rehearsal}".encode())
    read = await context.artifacts.aget(kept.id)
    if context.rehearsal:
        await context.jobs.submit(Square(1))
    return [context.job_id, read.decode().split()[0]]


@contract("rehearsed.apart", attempts=1)
class Apart(msgspec.Struct):
    """A pure one in a process of its own."""


@handler(Apart, pure=True, mode="process")
def apart(job: Apart, context: Context) -> bool:
    assert context.artifacts is not None
    context.artifacts.put(f"apart {context.rehearsal}".encode())
    return context.rehearsal


@contract("rehearsed.stuck", attempts=1, timeout=0.2)
class Stuck(msgspec.Struct):
    """A pure one whose thread does not come back in version 2."""


@handler(Stuck, pure=True)
def stuck(job: Stuck, context: Context) -> None:
    if version() == "2":
        time.sleep(3600)


@contract("rehearsed.slow", timeout=60)
class Slow(msgspec.Struct):
    """A pure one that takes for ever in version 2."""


@handler(Slow, pure=True)
async def slow(job: Slow, context: Context) -> None:
    if version() == "2":
        await asyncio.sleep(60)
