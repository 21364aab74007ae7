"""The token bucket of a queue's rate limit, as cycle.lua has it, for whoever reckons without a server.

It is filled by `rate` jobs per second up to `burst`, and what a worker takes goes out of it. Redis keeps what
is left as text of 14 digits; so does this, and both agree to the last digit (a property test holds it).
"""

import math
from typing import NamedTuple


class Bucket(NamedTuple):
    """What was left at a moment (ms); at first a bucket is full."""

    tokens: float
    at: int


class Taken(NamedTuple):
    """How many jobs may start now, what is left, and after how many ms to ask again where that is less than
    one (0: it is not)."""

    jobs: int
    bucket: Bucket
    again_ms: int


def take(bucket: Bucket | None, want: int, now: int, *, rate: float, burst: int) -> Taken:
    """Up to `want` (at least 1) jobs out of the bucket at `now` (ms); one from before `now` is filled, and a
    clock set back adds nothing. `rate` above 0, `burst` at least 1."""
    waited = max(0, now - bucket.at) if bucket is not None else 0
    tokens = min(burst, (bucket.tokens if bucket is not None else burst) + waited * rate / 1000)
    jobs = min(want, math.floor(tokens))
    left = tokens - jobs
    again_ms = max(2, math.ceil((1 - left) * 1000 / rate)) if left < 1 else 0
    return Taken(jobs, Bucket(float(f"{left:.14g}"), now), again_ms)
