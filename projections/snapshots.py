"""Snapshots: what the views had counted at some positions of the log, for whoever looks back from there.

Whoever folds keeps one about every EVERY events, in a stream of its own whose ids are the positions: so the
next one after a moment is found at once, and what is before the moment is told by taking away, from there,
some thousand events instead of all that has happened since (past.py). At most MAX_SNAPSHOTS are kept, the
further back, the further apart, and none from before the log begins. Nothing depends on them: without any,
one can look back less far.
"""

from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from penstock.core.connection import command
from penstock.core.keys import PartitionKeys
from penstock.core.positions import START
from penstock.projections.views import SHAPE, Stats, Views, read_stats, write_stats

EVERY: Final = 10_000
MAX_SNAPSHOTS: Final = 2_000


class Snapshot(msgspec.Struct, frozen=True):
    """What was counted up to a position; the tallies are left out."""

    position: str
    stats: Stats


def due(before: int, views: Views) -> bytes | None:
    """A snapshot of views that had counted `before` events a page ago, if it is time for one."""
    if before // EVERY == views.stats.events // EVERY:
        return None
    return write_stats(msgspec.structs.replace(views.stats, tallies={}))


async def keep(redis: Redis, keys: PartitionKeys, position: str, stats: bytes) -> None:
    """Keep a snapshot, unless there is one of a later position."""
    try:
        await command(redis, "XADD", keys.snapshots, position, "stats", stats)
    except ResponseError as error:
        if "equal or smaller" not in str(error):
            raise
    if await command(redis, "XLEN", keys.snapshots) > MAX_SNAPSHOTS:
        await _thin(redis, keys)


async def _thin(redis: Redis, keys: PartitionKeys) -> None:
    """Of the older half every second one goes: the further back, the further apart, but to the beginning."""
    older = await command(redis, "XRANGE", keys.snapshots, "-", "+", "COUNT", MAX_SNAPSHOTS // 2)
    await command(redis, "XDEL", keys.snapshots, *(position for position, _ in older[1::2]))


async def following(redis: Redis, keys: PartitionKeys, position: str) -> Snapshot | None:
    """The first snapshot at or after a position; None if there is none of the present shape."""
    found = await command(redis, "XRANGE", keys.snapshots, position, "+", "COUNT", 1)
    return read_snapshot(found[0][0].decode(), found[0][1][1]) if found else None


def read_snapshot(position: str, raw: bytes) -> Snapshot | None:
    """A snapshot as it was kept; None if it is not of the present shape."""
    stats = read_stats(raw)
    return Snapshot(position, stats) if stats.shape == SHAPE else None


async def oldest(redis: Redis, keys: PartitionKeys) -> Snapshot | None:
    """The first snapshot that is kept, if it is of the present shape."""
    return await following(redis, keys, START)


async def prune(redis: Redis, keys: PartitionKeys) -> None:
    """Drop the snapshots from before the log begins."""
    found = await command(redis, "XRANGE", keys.log, "-", "+", "COUNT", 1)
    if found:
        await command(redis, "XTRIM", keys.snapshots, "MINID", found[0][0])


async def forget(redis: Redis, keys: PartitionKeys) -> None:
    """Drop all of them: they were made from views that were not as the log says. Of those that an archive has
    it is written down up to where they are not to be trusted."""
    checkpoint = await command(redis, "GET", keys.checkpoint)
    pipeline = redis.pipeline(transaction=True)
    pipeline.unlink(keys.snapshots)
    if checkpoint:
        pipeline.set(keys.doubted, checkpoint)
    await pipeline.execute()


async def doubted(redis: Redis, keys: PartitionKeys) -> str:
    """The position up to which snapshots of an archive are not to be trusted."""
    found: bytes | None = await command(redis, "GET", keys.doubted)
    return found.decode() if found else START
