"""The state of log, queues and server, as samples of `telemetry`.

Each projector tells it, all the same: counters come from the views, which are a fold of the log, so they
are what the log says whatever process was killed, and never begin anew. It is read when a scrape asks,
at most once in MIN_AGE_S, over a connection of its own.
"""

import asyncio
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core import telemetry as names
from penstock.core.connection import command, connect
from penstock.core.keys import PARKED, Keys, PartitionKeys
from penstock.core.positions import milliseconds, order
from penstock.core.probes import Sample
from penstock.core.settings import Settings
from penstock.core.telemetry import MAX_CONSUMERS, OTHER
from penstock.projections.figures import QueueDetail, Source, figures, oldest_waiting, read_sources
from penstock.projections.metrics_server import server_samples
from penstock.projections.metrics_types import counted
from penstock.projections.scaling import MINUTES, Load, read_loads

MIN_AGE_S: Final = 1.0
PATIENCE_S: Final = 5.0


class StateProbe:
    """Reads the state of all queues of a namespace; `close` it in the end."""

    def __init__(self, settings: Settings) -> None:
        self._redis: Final[Redis] = connect(settings, max_connections=4)
        self._keys: Final = Keys(settings.namespace)
        self._lease: Final = settings.lease
        self._reading: Final = asyncio.Lock()
        self._samples: list[Sample] = []
        self._read_at = -math.inf

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def read(self) -> list[Sample]:
        """All samples. Where the server does not answer, only that."""
        async with self._reading:
            if time.monotonic() - self._read_at >= MIN_AGE_S:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._samples = await self._read()
                except (RedisError, OSError, TimeoutError):
                    self._samples = [Sample(names.REDIS_UP, 0)]
                self._read_at = time.monotonic()
            return self._samples

    async def _read(self) -> list[Sample]:
        samples = await server_samples(self._redis)
        queues = sorted(name.decode() for name in await command(self._redis, "SMEMBERS", self._keys.queues))
        partitions = [self._keys.partition(queue) for queue in queues]
        sources = await read_sources(self._redis, partitions, MINUTES + 1)
        oldest = await oldest_waiting(self._redis, sources)
        loads = await read_loads(self._redis, partitions, self._lease)
        sizes = await _sizes(self._redis, partitions)
        for number, source in enumerate(sources):
            samples += counted(source.keys.queue, source.stats)
            samples += _of_queue(figures(source, oldest[number]), loads[number])
            samples += _of_log(source, sizes[number])
        return samples


def _of_queue(detail: QueueDetail, load: Load) -> Iterator[Sample]:
    queue, scaling = (detail.queue,), load.scaling
    yield Sample(names.PAUSED, int(detail.paused), queue)
    yield Sample(names.OLDEST, detail.oldest_waiting_s or 0, queue)
    yield Sample(names.LAG, detail.lag_s, queue)
    yield Sample(names.DUE, scaling.due, queue)
    yield Sample(names.WORKERS, scaling.workers, queue)
    yield Sample(names.BACKLOG, scaling.backlog, queue)
    yield Sample(names.LOAD, scaling.load, queue)
    yield Sample(names.THROUGHPUT, scaling.throughput, queue)
    yield Sample(names.PER_WORKER, scaling.backlog_per_worker, queue)
    yield Sample(names.DRAIN_TIME, math.inf if scaling.drain_s is None else scaling.drain_s, queue)
    for consumer, count in bounded(load.pending).items():
        yield Sample(names.PENDING, count, (*queue, consumer))


def _of_log(source: Source, sizes: Mapping[str, int]) -> Iterator[Sample]:
    queue = (source.keys.queue,)
    yield Sample(names.LOG_EVENTS, sizes["events"], queue)
    yield Sample(names.LOG_SIZE, sizes["log"], queue)
    yield Sample(names.VIEWS_SIZE, sizes["rows"], queue)
    yield Sample(names.CRASHED, sizes["crashed"], queue)
    yield Sample(names.READER_LAG, sizes["reader_lag_ms"] / 1000, queue)
    # All that was ever appended, less all that was ever folded: neither forgets what was trimmed.
    unseen = max(1, sizes["appended"] - source.stats.events) if source.unseen else 0
    yield Sample(names.UNSEEN, unseen, queue)


def bounded(pending: Mapping[str, int]) -> dict[str, int]:
    """Jobs by consumer, those beyond MAX_CONSUMERS together."""
    consumers = sorted(name for name in pending if name != PARKED)
    told = {name: pending[name] for name in consumers[:MAX_CONSUMERS]}
    told[PARKED] = pending.get(PARKED, 0)
    if rest := consumers[MAX_CONSUMERS:]:
        told[OTHER] = sum(pending[name] for name in rest)
    return told


async def _sizes(redis: Redis, partitions: Sequence[PartitionKeys]) -> list[dict[str, int]]:
    """Of each partition: events in the log and ever appended, bytes of the log and of the rows, jobs that
    lost a worker, how far the slowest reader is behind."""
    pipeline = redis.pipeline(transaction=False)
    for keys in partitions:
        pipeline.execute_command("XINFO", "STREAM", keys.log)
        pipeline.execute_command("MEMORY", "USAGE", keys.log)
        pipeline.execute_command("MEMORY", "USAGE", keys.jobs)
        pipeline.hlen(keys.crashes)
        pipeline.hvals(keys.readers)
    answers = await pipeline.execute(raise_on_error=False)  # an empty queue has no log
    return [_size(*answers[at : at + 5]) for at in range(0, len(answers), 5)]


def _size(stream: Any, log: Any, rows: Any, crashed: Any, readers: Any) -> dict[str, int]:
    told = dict(zip(stream[::2], stream[1::2], strict=True)) if isinstance(stream, list) else {}
    return {
        "events": told.get(b"length", 0),
        "appended": told.get(b"entries-added", 0),
        "log": log or 0,
        "rows": rows or 0,
        "crashed": crashed,
        "reader_lag_ms": _behind(told, [place.decode() for place in readers]),
    }


def _behind(told: Mapping[bytes, Any], readers: Sequence[str]) -> int:
    """How far the slowest reader is behind the newest event of a log, in ms."""
    if not readers or not told.get(b"first-entry"):
        return 0
    slowest = min(map(order, readers))[0]
    first, last = milliseconds(told[b"first-entry"][0].decode()), told[b"last-generated-id"].decode()
    return max(0, milliseconds(last) - max(first, slowest))
