"""Connections to Redis (or Valkey): made here, so that one file knows their traps.

- No automatic retry: redis-py's default retry replays writes, and a replayed append is a second
  event. Whoever calls decides, and every script may be sent again.
- RESP2, bytes in and out, and stream entries as they come, (id, flat list of fields): nothing is
  decoded, and no dict is made, for what only passes through.
- A blocking read has its own connection, whose socket timeout is longer than its BLOCK.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from penstock.core.errors import Misconfigured, Unavailable
from penstock.core.line import TIMEOUT_S, Line
from penstock.core.settings import Settings

BLOCK_S: Final = 2.0

# What a caller may answer by trying again: the server is away, starting, or changing roles.
LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError)
_PASSING: Final = (
    *("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"),
    *("MISCONF", "NOREPLICAS"),
)


def connect(settings: Settings, *, max_connections: int = 1024) -> Redis:
    """A client for `settings.redis_url`; opens no connection yet. Raises Misconfigured."""
    url = settings.redis_url.reveal()
    if not url:
        raise Misconfigured(
            "PENSTOCK_REDIS_URL is not set: give the server's address, like redis://127.0.0.1:6379/0, "
            "or start everything with `penstock up`"
        )
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            max_connections=max_connections,
            **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        )
    except ValueError:
        # Its own words may quote a part of the address, and that may be a part of the password.
        raise Misconfigured(
            "PENSTOCK_REDIS_URL is no address like redis://user:password@host:6379/0, rediss://… or "
            "unix:///path; special characters in a password are written %2F and so on"
        ) from None
    pool.connection_class = _quick(pool.connection_class)
    redis = Redis.from_pool(pool)
    for command in ("XRANGE", "XREVRANGE", "XREAD", "XREADGROUP"):
        redis.response_callbacks.pop(command, None)
    return redis


def _quick(base: type[AbstractConnection]) -> type[AbstractConnection]:
    """A connection that sends at once what redis-py's would send late.

    redis-py packs commands in Python, argument by argument, where hiredis does it in C: with
    hundreds of arguments that is a third of a script call. And it writes under asyncio.wait_for,
    that is in a task of its own, behind whatever is ready to run: a worker's next cycle would wait
    for all the jobs of the last one, instead of running beside them.
    """

    class Quick(base):  # type: ignore[valid-type, misc]
        socket_timeout: float | None

        def pack_command(self, *words: Any) -> list[bytes]:
            # redis-py names commands of two words, like SCRIPT LOAD, in one string.
            return [hiredis.pack_command((*str(words[0]).split(), *words[1:]))]

        async def send_packed_command(self, packed: Any, check_health: bool = True) -> None:
            if self.socket_timeout is None:
                await super().send_packed_command(packed, check_health)
                return
            timeout, self.socket_timeout = self.socket_timeout, None
            try:
                async with asyncio.timeout(timeout):
                    await super().send_packed_command(packed, check_health)
            finally:
                self.socket_timeout = timeout

    return Quick


async def command(redis: Redis | Line, *words: Any) -> Any:
    """Send one command and answer its reply as it comes."""
    return await redis.execute_command(*words)


async def check_server(redis: Redis) -> None:
    """Refuse a server that could lose work. Raises Misconfigured, or Unavailable if it is away."""
    try:
        info = await redis.info("memory")
    except LOST as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    except ResponseError as error:
        raise Unavailable(f"Redis is not ready: {error}") from error
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", 0) and policy != "noeviction":
        raise Misconfigured(
            f"the server's maxmemory-policy is {policy}: it would drop jobs when memory is short; "
            "set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
        )


@contextmanager
def answering() -> Iterator[None]:
    """For callers outside: a server that is away is Unavailable, not an error of the client library."""
    try:
        yield
    except (RedisError, OSError) as error:
        if not passing(error):
            raise
        raise Unavailable(f"Redis does not answer: {error}") from error


def passing(error: RedisError | OSError) -> bool:
    """Whether the server may well answer the same call a moment later."""
    if isinstance(error, LOST):
        return True
    # Of the codes it knows redis-py makes classes, and takes them out of the text.
    code = getattr(error, "status_code", None) or str(error).split(" ", maxsplit=1)[0]
    return code in _PASSING
