"""Random graphs, random failures, and coordinators that die between any two commands: every node ends
exactly once, after those it waits for, and with their results."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from flows import Crowd, Killed, Mortal, random_flow, read_record
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.producer.flows import Flows
from penstock.producer.flows.coordinator import Coordinator
from penstock.producer.flows.course import position_of

ROUNDS = 400


@pytest.fixture(autouse=True)
async def the_dead_say_nothing() -> None:
    """A task that died with its process tells nobody."""

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Killed):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(tell)


@asynccontextmanager
async def coordinator(
    settings: Settings, listening: Redis, chance: random.Random | None = None, longest: int = 0
) -> AsyncIterator[Coordinator]:
    """One that lives for at most so many commands; for ever without `chance`."""
    async with connect(settings) as redis:
        if chance is not None:
            Mortal(redis, chance, longest)
        one = Coordinator(redis, listening, settings)
        try:
            yield one
        finally:
            await one.close()


async def attempt(settings: Settings, listening: Redis, *mortal: Any) -> bool:
    """Start a coordinator and let it do all it can, or die; whether it died."""
    try:
        async with coordinator(settings, listening, *mortal) as one:
            await one.settle()
    except Killed:
        return True
    return False


@pytest.mark.parametrize("seed", range(7))
async def test_killed_at_any_command_every_node_ends_once(settings: Settings, seed: int) -> None:
    chance = random.Random(seed)
    keys = Keys(settings.namespace)
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(Producer(settings))
        flows = await stack.enter_async_context(Flows(producer))
        listening = await stack.enter_async_context(connect(settings))
        handles = [await flows.submit(random_flow(chance, 16)) for _ in range(3)]
        crowd = Crowd(producer.redis, keys, chance, failing=chance.choice((0, 0.1, 0.4)))
        cancelled = chance.randint(3, 10) if seed % 3 == 0 else -1
        deaths = 0
        for number in range(ROUNDS):
            if number == cancelled:
                await handles[0].cancel(by="ada")
            # Mostly one after the other; now and then two at once.
            racing = chance.choice((1, 1, 2))
            longest = 30 + number  # who always dies before he has looked at all jobs gets nowhere
            tries = [attempt(settings, listening, chance, longest) for _ in range(racing)]
            deaths += sum(await asyncio.gather(*tries))
            await crowd.work()
            if all([(await handle.detail()).ended_at for handle in handles]):
                break
        else:
            raise AssertionError(f"not ended: {[(await handle.detail()).counts for handle in handles]}")
        assert deaths > 2, "hardly any died: this shows little"
        await attempt(settings, listening)
        for handle in handles:
            record = await read_record(producer.redis, keys, position_of(handle.id))
            record.check()


@pytest.mark.parametrize("seed", range(2))
async def test_three_at_once_write_no_more_than_one(settings: Settings, seed: int) -> None:
    chance = random.Random(seed)
    keys = Keys(settings.namespace)
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(Producer(settings))
        flows = await stack.enter_async_context(Flows(producer))
        listening = await stack.enter_async_context(connect(settings))
        three = [await stack.enter_async_context(coordinator(settings, listening)) for _ in range(3)]
        stop = asyncio.Event()
        running = [asyncio.create_task(one.run(stop)) for one in three]
        crowd = Crowd(producer.redis, keys, chance, failing=0.2)
        handles = [await flows.submit(random_flow(chance, 12)) for _ in range(6)]
        async with asyncio.timeout(30):
            while not all([(await handle.detail()).ended_at for handle in handles]):
                await crowd.work()
        stop.set()
        await asyncio.gather(*running)
        for handle in handles:
            (await read_record(producer.redis, keys, position_of(handle.id))).check()
