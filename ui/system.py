"""Handlers of Penstock's own jobs, which need more than a handler can ask of its context."""

from typing import Any, NamedTuple

import msgspec

from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.core.connection import connect
from penstock.core.errors import Permanent, Refused
from penstock.core.events import Event, Submitted, decode
from penstock.core.jobs.bulk import Bulk
from penstock.core.jobs.redrive import Redrive
from penstock.core.keys import Keys
from penstock.core.positions import milliseconds, parse_job_id
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.projections.bulk import Operation, Outcome
from penstock.ui.redriving import Redriven, Redriving, taken_up


class _Asked(NamedTuple):
    """Who asked for an operation, when (Unix ms), and what has happened to it since."""

    by: str
    at: int
    events: list[Event]


def enter_handlers(settings: Settings) -> None:
    """Enter them for a worker with these settings."""
    keys = Keys(settings.namespace)

    @handler(Bulk)
    async def bulk(order: Bulk, context: Context) -> Any:
        """Carry out an order, for whoever submitted it and as of that moment."""

        def report(fraction: float, so_far: Outcome) -> None:
            words = f"{so_far.done:,} of {so_far.matched:,} that fit"
            context.progress(fraction, words, msgspec.to_builtins(so_far))

        async with connect(settings, max_connections=4) as redis, Producer(settings, redis=redis) as producer:
            asked = await _asked(producer, context)
            operation = Operation(redis, keys, order, asked=asked.at, but=context.job_id)
            return await operation.run(asked.by, report)

    @handler(Redrive)
    async def redrive(order: Redrive, context: Context) -> Any:
        """Carry out a redrive, from where an earlier attempt has come to."""

        def report(fraction: float, so_far: Redriven) -> None:
            words = f"{so_far.sent + so_far.known:,} of {so_far.matched:,} that fit"
            context.progress(fraction, words, msgspec.to_builtins(so_far))

        async with connect(settings, max_connections=4) as redis, Producer(settings, redis=redis) as producer:
            asked = await _asked(producer, context)
            seconds, micros = await redis.time()
            memory, seals = settings.idempotency_ttl, producer.seals
            done = taken_up(asked.events, now=seconds * 1000 + micros // 1000, memory=memory, seals=seals)
            id = order.id or context.job_id
            try:
                redriving = Redriving(producer, order, asked=asked.at, id=id, by=asked.by)
            except Refused as refusal:
                raise Permanent(str(refusal)) from None
            return await redriving.run(report, done)


async def _asked(producer: Producer, context: Context) -> _Asked:
    events = await producer.handle(context.job_id).events()
    first = decode(events[0]) if events else None
    if not isinstance(first, Submitted):
        raise Permanent("nobody knows who asked for it: its submission is not in the log")
    return _Asked(first.by, milliseconds(parse_job_id(context.job_id).position), events)
