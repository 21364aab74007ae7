"""Holds: whoever reads a stretch of a log to its end is a reader of the log meanwhile, and retention removes
nothing of it. A process that is killed leaves its hold, which is let go of hours later, when nobody can be at
it any more."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command
from penstock.core.keys import PartitionKeys

READER: Final = "replay:"
ARCHIVE: Final = "archive:"  # how the names of archives among the readers begin (archive.py)
STALE_MS: Final = 6 * 3600 * 1000  # nobody reads for that long: a process was killed


@asynccontextmanager
async def holding(redis: Redis, keys: PartitionKeys, after: str | None) -> AsyncIterator[None]:
    """While the block runs, retention removes nothing after a position; None holds nothing."""
    if after is None:
        yield
        return
    reader = f"{READER}{_now()}:{secrets.token_hex(4)}"
    await command(redis, "HSET", keys.readers, reader, after)
    try:
        yield
    finally:
        with suppress(RedisError, OSError):
            await command(redis, "HDEL", keys.readers, reader)


async def let_go(redis: Redis, keys: PartitionKeys) -> int:
    """Let go of the holds of processes that were killed hours ago; answers how many there were."""
    names = [name.decode(errors="replace") for name in await command(redis, "HKEYS", keys.readers)]
    stale = [name for name in names if _is_stale(name)]
    return int(await command(redis, "HDEL", keys.readers, *stale)) if stale else 0


def _is_stale(name: str) -> bool:
    began = name.removeprefix(READER).partition(":")[0]
    return name.startswith(READER) and began.isdecimal() and int(began) < _now() - STALE_MS


def _now() -> int:
    return time.time_ns() // 1_000_000
