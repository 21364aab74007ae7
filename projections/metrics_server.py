"""What the server says of itself, as samples. A server that refuses a question (a managed one may) is
silent on that point; that it does not answer at all is for who asks to tell."""

import math
from collections.abc import Iterator
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from penstock.core import telemetry as names
from penstock.core.connection import command
from penstock.core.probes import Distribution, Sample

# LATENCY HISTOGRAM counts in doublings of 1.024 µs and tells their whole µs.
_FIRST_US: Final = 1.024
_DOUBLINGS: Final = 22
_BOUNDS_S: Final = tuple(_FIRST_US * 2**power / 1e6 for power in range(_DOUBLINGS))


async def server_samples(redis: Redis) -> list[Sample]:
    """The samples. Raises RedisError or OSError where it is away."""
    info = {**await redis.info(), **await redis.info("commandstats")}
    policy = await _asked(redis, "CONFIG", "GET", "appendfsync")
    scripts = await _asked(redis, "LATENCY", "HISTOGRAM", "evalsha")
    return [*_told(info), *_loss_window(info, policy), *_scripts(info, scripts)]


async def _asked(redis: Redis, *words: str) -> Any:
    try:
        return await command(redis, *words)
    except ResponseError:
        return None


def _told(info: dict[str, Any]) -> Iterator[Sample]:
    yield Sample(names.REDIS_UP, 1)
    yield Sample(names.REDIS_MEMORY, info["used_memory"])
    if info.get("maxmemory"):
        yield Sample(names.REDIS_LIMIT, info["maxmemory"])
    yield Sample(names.REDIS_CLIENTS, info["connected_clients"])
    if info.get("aof_enabled"):
        fine = {info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status")} <= {"ok"}
        yield Sample(names.AOF_OK, int(fine))


def _loss_window(info: dict[str, Any], policy: Any) -> Iterator[Sample]:
    if not info.get("aof_enabled"):
        yield Sample(names.LOSS_WINDOW, math.inf)
    elif policy:
        seconds = {b"always": 0.0, b"everysec": 1.0}
        yield Sample(names.LOSS_WINDOW, seconds.get(policy[1], math.inf))


def _scripts(info: dict[str, Any], told: Any) -> Iterator[Sample]:
    if not told:
        return
    _, (_, _, _, pairs) = told[:2]
    within = dict(zip(map(_power, pairs[::2]), pairs[1::2], strict=True))
    counts, before = [], 0
    for power in range(_DOUBLINGS):
        upto = within.get(power, before)
        counts.append(upto - before)
        before = upto
    counts.append(max(within.values(), default=0) - before)
    busy_us = info.get("cmdstat_evalsha", {}).get("usec", 0)
    yield Sample(names.SCRIPTS, Distribution(_BOUNDS_S, counts, busy_us / 1e6))


def _power(bound_us: int) -> int:
    return round(math.log2(bound_us / _FIRST_US))
