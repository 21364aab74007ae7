"""Throw the views of a partition away and fold them again: what the log says, and nothing else."""

import asyncio

from redis.asyncio import Redis

from penstock.core.keys import PartitionKeys
from penstock.projections.projector import Overtaken, PartitionProjector
from penstock.projections.store import ViewStore


async def rebuild(redis: Redis, keys: PartitionKeys) -> None:
    """Delete every view of the partition in one step, then fold its log up to its end, beginning
    from what the trimmed part of it had counted.

    A projector may be at work on the same partition: it then begins from nothing too, and the two
    share the work.
    """
    await ViewStore(redis, keys).drop()
    while True:
        try:
            views = await ViewStore(redis, keys).load()
            await PartitionProjector(redis, keys).catch_up(views, asyncio.Event())
        except Overtaken:
            continue
        return
