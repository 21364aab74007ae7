"""The process `penstock webhooks`: what reads the logs for the endpoints, and the worker that sends.

Both may run in any number of these processes at once. They belong together only because neither is of
use without the other.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.consumers.webhooks import Sender, register
from penstock.consumers.worker import run_worker
from penstock.core.connection import connect, passing
from penstock.core.contracts import declaration
from penstock.core.endpoints import Endpoints
from penstock.core.errors import Refused
from penstock.core.jobs.webhook import DeliverWebhook
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.probes import Probes
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.producer.intake import JobRequest
from penstock.projections.webhook_router import one_at_a_time, route_webhooks
from penstock.projections.webhooks import Delivery, HandOver

# Each endpoint has eight deliveries under way at most, and each waits for an answer.
SLOTS: Final = 256
RETRY_S: Final = 0.5


async def serve_webhooks(settings: Settings, stop: asyncio.Event, *, probes: Probes | None = None) -> None:
    """Route and send until `stop`; deliveries under way have the grace time."""
    contract = declaration(DeliverWebhook)
    slots = settings.concurrency or SLOTS
    sending = msgspec.structs.replace(settings, queues=(contract.queue,), concurrency=slots)
    async with connect(settings) as redis, Producer(settings, redis=redis) as producer:
        endpoints = Endpoints(redis, Keys(settings.namespace), open_seals(settings))
        register(Sender(endpoints, allow_private=settings.fetch_private))
        await _in_order(redis, producer.keys.partition(contract.queue), stop)
        async with asyncio.TaskGroup() as group:
            group.create_task(run_worker(sending, stop, probes=probes))
            group.create_task(route_webhooks(settings, handing_over(producer), stop))


async def _in_order(redis: Redis, queue: PartitionKeys, stop: asyncio.Event) -> None:
    """Set the queue's limits before anything is taken from it; waits for the server."""
    while not stop.is_set():
        try:
            await one_at_a_time(redis, queue)
        except (RedisError, OSError) as error:
            if not passing(error):
                raise
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)
        else:
            return


def handing_over(producer: Producer) -> HandOver:
    """Submits deliveries as jobs; those whose key is known are answered by the first."""
    contract = declaration(DeliverWebhook)

    def asked(delivery: Delivery) -> JobRequest:
        return JobRequest(
            type=contract.type,
            payload=msgspec.Raw(msgspec.json.encode(delivery.payload)),
            key=delivery.key,
            group=delivery.group,
            tags=delivery.tags,
        )

    async def hand_over(deliveries: Sequence[Delivery]) -> list[str]:
        ids = []
        for answer in await producer.accept(contract.queue, [*map(asked, deliveries)], by="webhooks"):
            if isinstance(answer, Refused):
                raise answer
            ids.append(answer.id)
        return ids

    return hand_over
