"""The process behind webhooks: reads the logs of all queues for all endpoints (see webhooks.py)."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, connect, passing
from penstock.core.control import Control
from penstock.core.endpoints import Endpoints
from penstock.core.events import QueueLimited
from penstock.core.jobs.webhook import QUEUE
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import follow
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.projections.webhooks import HandOver, PartitionWebhooks, Roster

LOOK_S: Final = 0.5
RETRY_S: Final = 0.2

_log: Final = logging.getLogger("penstock.webhooks")


async def route_webhooks(settings: Settings, hand_over: HandOver, stop: asyncio.Event) -> None:
    """Turn events into deliveries until `stop`. What is cut off in the middle is done again by whoever
    comes next, and written once."""
    keys, roster = Keys(settings.namespace), Roster()
    clients: list[Redis] = []

    def client() -> Redis:
        clients.append(connect(settings, max_connections=8))
        return clients[-1]

    redis = client()
    tasks = {"": asyncio.create_task(_watch(client(), keys, settings, roster))}
    _log.info("ready: events become deliveries in queue %s", QUEUE)
    try:
        while not stop.is_set():
            with suppress(RedisError, OSError):  # the partitions say so themselves
                for name in await command(redis, "SMEMBERS", keys.queues):
                    queue = name.decode()
                    if queue not in tasks:
                        reader = PartitionWebhooks(client(), keys.partition(queue), roster, hand_over)
                        tasks[queue] = asyncio.create_task(reader.run())
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for one in clients:
            await one.aclose()


async def _watch(redis: Redis, keys: Keys, settings: Settings, roster: Roster) -> None:
    """Tell the roster of every change."""
    endpoints = Endpoints(redis, keys, open_seals(settings))
    while True:
        try:
            found = await endpoints.all()
            if found is not roster.endpoints:
                _log.info("%d endpoints: %s", len(found), ", ".join(sorted(found)) or "none")
                if found:
                    await one_at_a_time(redis, keys.partition(QUEUE))
                roster.update(found)
            await follow(redis, endpoints.keys, endpoints.position, 1)
        except (RedisError, OSError) as error:
            if not passing(error):
                _log.error("the endpoints cannot be read", exc_info=error)
            await asyncio.sleep(RETRY_S)


async def one_at_a_time(redis: Redis, queue: PartitionKeys) -> None:
    """Let each group of deliveries be worked in order, unless somebody has set another limit."""
    names = ("per_group", "rate", "burst", "concurrency", "backlog")
    values = await command(redis, "HMGET", queue.control, *names)
    if values[0] is None:
        told = {name: float(value) for name, value in zip(names, values, strict=True) if value}
        limits = msgspec.convert({**told, "per_group": 1, "by": "webhooks"}, QueueLimited, strict=False)
        await Control(redis, queue).limit(limits)
