"""The rate limit: so many requests a second for each API key or address, over all processes.

A client that does not use its rate saves up, to at most a burst. The answer's headers are those of
draft-ietf-httpapi-ratelimit-headers-10: the burst as quota `q` over the window `w` in which it is
filled again, and what remains `r`, with the seconds `t` until all of it is back.
"""

import math
from typing import Final, Self

import msgspec
from redis.asyncio import Redis

from penstock.core.dispatch import Script
from penstock.core.keys import Keys
from penstock.core.settings import Settings


class Verdict(msgspec.Struct, frozen=True):
    """May it pass, how many more may, and when (seconds) one more and all of the burst may again."""

    allowed: bool
    remaining: int
    retry_after: float
    reset: float


class RateLimit:
    """`rate` requests a second, `burst` at once, for each `who`."""

    _script: Final = Script("ratelimit")

    def __init__(self, redis: Redis, keys: Keys, *, rate: float, burst: int) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._args: Final = (max(1, round(1_000_000 / rate)), burst)
        self._policy: Final = f'"default";q={burst};w={math.ceil(burst / rate)}'

    @classmethod
    def of(cls, settings: Settings, redis: Redis) -> Self | None:
        """The one that the settings ask for, if any."""
        if not settings.rate_limit:
            return None
        keys = Keys(settings.namespace)
        return cls(redis, keys, rate=settings.rate_limit, burst=settings.rate_burst)

    async def ask(self, who: str) -> Verdict:
        """Count one request of `who`. Raises the errors of redis-py."""
        answer = await self._script(self._redis, (self._keys.rate(who),), self._args)
        allowed, remaining, retry_us, reset_us = answer
        return Verdict(allowed == 1, remaining, retry_us / 1e6, reset_us / 1e6)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """The header fields that tell a client where it stands."""
        state = f'"default";r={verdict.remaining};t={math.ceil(verdict.reset)}'
        return {"RateLimit-Policy": self._policy, "RateLimit": state}
