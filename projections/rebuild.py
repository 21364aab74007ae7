"""Throw the views of a partition away and fold them again: what the log says, and nothing else."""

import asyncio

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.keys import PartitionKeys
from penstock.projections.projector import PartitionProjector
from penstock.projections.views import Views

_SCANNED: int = 1_000


async def rebuild(redis: Redis, keys: PartitionKeys) -> Views:
    """Delete every view of the partition, then fold its log up to its end.

    Raises Overtaken where a projector is at work on the same partition and writes first: it has
    begun from nothing too, so the views it leaves are the same.
    """
    async for name in redis.scan_iter(match=keys.views, count=_SCANNED):
        await command(redis, "UNLINK", name)
    views = Views()
    await PartitionProjector(redis, keys).catch_up(views, asyncio.Event())
    return views
