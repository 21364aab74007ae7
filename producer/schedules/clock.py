"""What time it is: by the server's clock, as positions are. Handed in, so that tests can turn it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from redis.asyncio import Redis

from penstock.core.connection import command

Clock: TypeAlias = Callable[[], Awaitable[int]]
"""Answers Unix ms."""


def server_clock(redis: Redis) -> Clock:
    """The clock of a server."""

    async def now() -> int:
        seconds, micros = await command(redis, "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    return now
