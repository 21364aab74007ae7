"""For your tests: run all that is due, here and now, and count how it ended.

    async with Producer() as producer:
        await producer.submit(Greet(name="Ada"))
        counts = await run_due(producer.redis)
        assert counts == Counts(completed=1)

It runs the worker's own executor, without its loop: the same scripts, the same events, the same
outcomes. What fails and is due later stays parked; jobs that a handler submits are run too when
`submitter` is given.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.consumers.attempts import Attempts
from penstock.consumers.context import Report, Submitter
from penstock.consumers.executors import Executors
from penstock.consumers.handlers import handlers
from penstock.consumers.outbox import Outbox
from penstock.core.artifacts import Artifacts
from penstock.core.dispatch import Delivery, Dispatch, Finished
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.sealing import open_seals
from penstock.core.settings import read_settings

_AT_ONCE: Final = 16
_LEASE_MS: Final = 3_600_000


class Counts(msgspec.Struct, frozen=True):
    """How many attempts ended which way."""

    completed: int = 0
    failed: int = 0
    attempt_failed: int = 0
    released: int = 0


async def run_due(
    redis: Redis,
    *,
    queues: Sequence[str] | None = None,
    namespace: str = "",
    artifacts: Artifacts | None = None,
    submitter: Submitter | None = None,
) -> Counts:
    """Run every job of `queues` (default: those of all handlers) that is due, until none is.

    `namespace`: that of PENSTOCK_NAMESPACE if empty.
    """
    settings = read_settings()
    keys = Keys(namespace or settings.namespace)
    known = handlers()
    executors = Executors(_AT_ONCE)
    seals = open_seals(settings)
    attempts = Attempts(known, executors, artifacts=artifacts, submitter=submitter, seals=seals)
    names = queues if queues is not None else sorted({it.contract.queue for it in known.values()})
    counted: Counter[str] = Counter()
    try:
        while True:
            before = counted.total()
            for name in names:
                counted += await _run_partition(redis, keys.partition(name), attempts)
            if counted.total() == before:
                return Counts(**counted)
    finally:
        executors.close()


async def _run_partition(redis: Redis, keys: PartitionKeys, attempts: Attempts) -> Counter[str]:
    dispatch = Dispatch(redis, keys)
    consumer = f"testing-{secrets.token_hex(3)}"
    await dispatch.beat(consumer, _LEASE_MS, enter=True)
    outbox = Outbox(lambda: None)
    counted: Counter[str] = Counter()
    while True:
        finished = outbox.take_finished()
        counted.update(end.outcome for end in finished)
        cycle = await dispatch.cycle(consumer, _AT_ONCE, notes=outbox.take_notes(finished), finished=finished)
        if not cycle.deliveries:
            await dispatch.release(consumer, "the test run is over", leave=True)
            return counted
        for end in await asyncio.gather(
            *(_run(attempts, it, keys, consumer, outbox) for it in cycle.deliveries)
        ):
            outbox.finish(end)


async def _run(
    attempts: Attempts, delivery: Delivery, keys: PartitionKeys, consumer: str, outbox: Outbox
) -> Finished:
    loop = asyncio.get_running_loop()

    def report(said: Report) -> None:
        loop.call_soon_threadsafe(outbox.say, delivery, said)

    return await attempts.execute(delivery, keys, consumer, report)
