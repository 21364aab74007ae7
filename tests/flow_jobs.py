"""Jobs of flows for tests: they answer what they were handed over."""

from typing import Any

import msgspec

from penstock.consumers import Context, handler
from penstock.core import contract


@contract("test.gather", attempts=1)
class Gather(msgspec.Struct):
    """Answers what it was handed over."""


@handler(Gather)
async def gather(job: Gather, context: Context) -> Any:
    return {"needs": context.needs, "unmet": context.unmet}


@contract("test.gather-apart", attempts=1)
class GatherApart(msgspec.Struct):
    """The same, in a process."""


@handler(GatherApart, mode="process")
def gather_apart(job: GatherApart, context: Context) -> Any:
    return {"needs": context.needs, "unmet": context.unmet}


@contract("test.sum", attempts=1)
class Sum(msgspec.Struct):
    """Adds up the numbers it was handed over, and its own."""

    own: int = 0


@handler(Sum)
async def add_up(job: Sum, context: Context) -> int:
    return job.own + sum(int(number) for number in context.needs.values())
