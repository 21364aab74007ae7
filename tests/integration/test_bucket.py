"""The token bucket that reckons without a server agrees with cycle.lua's, on real servers."""

import asyncio
import random

import pytest

from floor import Floor, floor_on
from penstock.core.bucket import Bucket, take
from penstock.core.events import QueueLimited
from servers import RealServer

LIMITS = [(5.0, 1), (142.857142857143, 3), (0.7, 2), (4_000.0, 50), (333.3, 1_000)]


async def left(floor: Floor) -> Bucket | None:
    """What the queue has kept."""
    tokens, at = await floor.redis.hmget(floor.keys.control, "tokens", "at")
    return Bucket(float(tokens), int(at)) if tokens is not None else None


@pytest.mark.parametrize(("rate", "burst"), LIMITS)
async def test_both_let_the_same_jobs_go_and_keep_the_same_rest(
    server: RealServer, namespace: str, rate: float, burst: int
) -> None:
    chance = random.Random(round(rate))
    async with floor_on(server, namespace, "w1") as floor:
        await floor.put(1_500)
        await floor.control.limit(QueueLimited(rate=rate, burst=burst))
        before = await left(floor)
        assert before is None
        for _ in range(40):
            want = chance.choice((1, 2, 7, 30))
            cycle = await floor.dispatch.cycle("w1", want)
            after = await left(floor)
            assert after is not None
            taken = take(before, want, after.at, rate=rate, burst=burst)
            assert (taken.jobs, taken.bucket) == (len(cycle.deliveries), after)
            assert cycle.again_ms == taken.again_ms or not cycle.held
            assert cycle.held == (taken.again_ms > 0)
            before = after
            await asyncio.sleep(chance.choice((0, 0.001, 0.02)))  # any time will do


async def test_a_clock_set_back_adds_nothing_and_takes_nothing(server: RealServer, namespace: str) -> None:
    async with floor_on(server, namespace, "w1") as floor:
        await floor.put(10)
        await floor.control.limit(QueueLimited(rate=1, burst=5))
        assert len(await floor.take("w1", 3)) == 3
        before = await left(floor)
        assert before is not None
        ahead = Bucket(before.tokens, before.at + 3_600_000)
        await floor.redis.hset(floor.keys.control, "at", ahead.at)
        assert len(await floor.take("w1", 1)) == 1
        after = await left(floor)
        assert after is not None
        assert take(ahead, 1, after.at, rate=1, burst=5).bucket == after
