"""Projectors for tests: at work while a block runs, or once, over what the views have not seen yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from msgspec.structs import replace
from redis.asyncio import Redis

from histories import dump, folded, until
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import TERMINAL
from penstock.core.settings import Settings
from penstock.projections.projector import PartitionProjector, run_projector
from penstock.projections.rebuild import rebuild
from penstock.projections.retention import Trimmer
from penstock.projections.store import ViewStore

LEAVES_S: Final = 20.0


def soon(settings: Settings, **others: Any) -> Settings:
    """The same with an ended job kept for a millisecond only."""
    kept = {f"retention_{state}": 0.001 for state in sorted(TERMINAL)}
    return replace(settings, **{**kept, **others})


@asynccontextmanager
async def projecting(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A projector process's work, here: it folds and trims, and must end without an error."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_projector(settings, stop=stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, LEAVES_S)


@asynccontextmanager
async def folding(redis: Redis, *partitions: PartitionKeys) -> AsyncIterator[None]:
    """The fold alone: nothing is trimmed."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(PartitionProjector(redis, keys).run(stop)) for keys in partitions]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), LEAVES_S)


async def fold(redis: Redis, keys: PartitionKeys) -> None:
    """Fold what is in the log."""
    await PartitionProjector(redis, keys).catch_up(await ViewStore(redis, keys).load(), asyncio.Event())


async def sweep(settings: Settings, redis: Redis, keys: PartitionKeys) -> None:
    """Trim all that is due, with a projector at work."""
    async with folding(redis, keys):
        await until(lambda: folded(redis, keys), "all is folded")
        await asyncio.wait_for(Trimmer(redis, keys, settings).sweep(asyncio.Event()), LEAVES_S)
        await until(lambda: folded(redis, keys), "all is folded")


async def is_clean_fold(redis: Redis, keys: PartitionKeys) -> bool:
    """Whether the views are, byte for byte, what a rebuild makes of the log."""
    before = await dump(redis, keys)
    await rebuild(redis, keys)
    return bool(before) and before == await dump(redis, keys)
