"""Throw the views of a partition away and fold them again: what the log says, and nothing else."""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import WatchError

from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES
from penstock.projections.projector import Overtaken, PartitionProjector
from penstock.projections.store import ViewStore
from penstock.projections.views import Stats, read_stats


async def rebuild(redis: Redis, keys: PartitionKeys) -> None:
    """Delete every view of the partition in one step, then fold its log up to its end, beginning
    from what the trimmed part of it had counted.

    A projector may be at work on the same partition: it then begins from nothing too, and the two
    share the work.
    """
    found = {name async for name in redis.scan_iter(match=keys.views, count=1_000)}
    while not await _deleted(redis, keys, found):
        pass
    while True:
        try:
            views = await ViewStore(redis, keys).load()
            await PartitionProjector(redis, keys).catch_up(views, asyncio.Event())
        except Overtaken:
            continue
        return


async def _deleted(redis: Redis, keys: PartitionKeys, found: set[bytes]) -> bool:
    """Delete the views that were found, and all that belong to their stats; False, and nothing is
    deleted, if a projector wrote meanwhile."""
    async with redis.pipeline(transaction=True) as pipeline:
        await pipeline.watch(keys.checkpoint)
        raw = await pipeline.get(keys.stats)
        types = (read_stats(raw) if raw else Stats()).types
        indexes = [keys.index(state, type) for type in types for state in STATES]
        pipeline.multi()  # type: ignore[no-untyped-call]
        pipeline.unlink(keys.checkpoint, keys.jobs, keys.stats, keys.minutes, keys.loose, *indexes, *found)
        pipeline.hincrby(keys.base, "begun", 1)
        try:
            await pipeline.execute()
        except WatchError:
            return False
    return True
