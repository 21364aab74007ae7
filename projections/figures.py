"""The figures of queues: counts, rates, durations, ages. All of them projected; nothing is counted
when it is asked for. The clock is the server's.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.events import QueueLimited, QueueRetained, Trimmed
from penstock.core.keys import PartitionKeys
from penstock.core.positions import START, milliseconds, unpacked
from penstock.projections.histogram import Histogram, merge, quantile
from penstock.projections.tally import Totals
from penstock.projections.views import (
    MINUTE_MS,
    Counts,
    Minute,
    Stats,
    read_minute,
    read_stats,
)

_HOUR: Final = 60

Seconds = Annotated[float, msgspec.Meta(description="seconds")]


class Rates(msgspec.Struct):
    """How many a second, over a window that ends now: the running minute, whole ones before it, and of
    the one on the window's edge the share that lies inside."""

    submitted: float
    started: float
    completed: float
    failed: float
    retried: float


class RateWindows(msgspec.Struct):
    """Rates over the last minute and the last five."""

    last_minute: Rates
    last_5_minutes: Rates


class Quantiles(msgspec.Struct):
    """Durations in ms, within 9.1 %; null where there was none. `count`: of how many."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


class DurationWindows(msgspec.Struct):
    """Durations in the running minute and the 5 or 60 whole ones before it."""

    last_5_minutes: Quantiles
    last_60_minutes: Quantiles


class QueueDetail(msgspec.Struct):
    """The figures of a queue. `wait_ms`: from when a job was ready to when its attempt started;
    `run_ms`: how long attempts ran, however they ended; these and `rates` are null of a past moment whose
    minutes are not kept any more (48 hours). `counts` are those of the jobs that are kept; `totals` count
    those that were trimmed too."""

    queue: str
    paused: bool
    limits: QueueLimited
    retention: QueueRetained
    trimmed: Trimmed
    counts: Counts
    types: dict[str, Counts]
    totals: Totals
    failures: Annotated[dict[str, int], msgspec.Meta(description="jobs given up, by reason")]
    rates: RateWindows | None
    wait_ms: DurationWindows | None
    run_ms: DurationWindows | None
    oldest_waiting_s: Annotated[
        float | None, msgspec.Meta(description="how long ago the oldest waiting job was submitted, in s")
    ]
    lag_s: Annotated[
        float, msgspec.Meta(description="age in s of the oldest event that these figures lack; 0 if none")
    ]


class Source(msgspec.Struct):
    """What the server says of one partition, as of one moment; `minutes` newest first."""

    keys: PartitionKeys
    now: int
    stats: Stats
    minutes: list[Minute]
    unseen: list[Any]


async def read_figures(redis: Redis, partitions: Sequence[PartitionKeys]) -> list[QueueDetail]:
    """The figures of these partitions, in four round trips however many they are."""
    sources = await read_sources(redis, partitions)
    return [
        figures(source, oldest)
        for source, oldest in zip(sources, await oldest_waiting(redis, sources), strict=True)
    ]


async def oldest_waiting(redis: Redis, sources: Sequence[Source]) -> list[bytes | None]:
    """Of each, the job that has waited longest, packed."""
    pipeline = redis.pipeline(transaction=False)
    for source in sources:
        for type in source.stats.types:
            pipeline.zrange(source.keys.index("waiting", type), 0, 0)
    firsts = iter(await pipeline.execute())
    found = [[member for _ in source.stats.types for member in next(firsts)] for source in sources]
    return [min(waiting, default=None) for waiting in found]


async def read_sources(
    redis: Redis, partitions: Sequence[PartitionKeys], count: int = _HOUR + 1
) -> list[Source]:
    """What the server says of these partitions; of the minutes, so many."""
    if not partitions:
        return []
    pipeline = redis.pipeline(transaction=False)
    for keys in partitions:
        pipeline.get(keys.checkpoint)
    seconds, micros = await redis.time()
    now = seconds * 1000 + micros // 1000
    newest = now // MINUTE_MS
    checkpoints = await pipeline.execute()
    for keys, checkpoint in zip(partitions, checkpoints, strict=True):
        after = checkpoint.decode() if checkpoint else START
        pipeline.get(keys.stats)
        pipeline.hmget(keys.minutes, [str(newest - ago) for ago in range(count)])
        pipeline.execute_command("XRANGE", keys.log, f"({after}", "+", "COUNT", 1)
    replies = await pipeline.execute()
    return [
        Source(
            keys,
            now,
            read_stats(replies[3 * n]) if replies[3 * n] else Stats(),
            [read_minute(raw) if raw else Minute() for raw in replies[3 * n + 1]],
            replies[3 * n + 2],
        )
        for n, keys in enumerate(partitions)
    ]


def figures(source: Source, oldest: bytes | None) -> QueueDetail:
    """The figures by what the server says; `oldest`: the job that has waited longest, packed."""
    now, stats, minutes = source.now, source.stats, source.minutes
    share = 1 - now % MINUTE_MS / MINUTE_MS
    waiting = now - milliseconds(unpacked(oldest)) if oldest else None
    lag = now - milliseconds(source.unseen[0][0].decode()) if source.unseen else 0
    return QueueDetail(
        queue=source.keys.queue,
        paused=source.stats.paused,
        limits=source.stats.limits,
        retention=source.stats.retention,
        trimmed=source.stats.trimmed,
        counts=stats.counts(),
        types=stats.types,
        totals=stats.totals,
        failures=stats.reasons,
        rates=RateWindows(rates(minutes, 1, share), rates(minutes, 5, share)),
        wait_ms=_durations([minute.wait for minute in minutes]),
        run_ms=_durations([minute.run for minute in minutes]),
        oldest_waiting_s=max(0, waiting) / 1000 if waiting is not None else None,
        lag_s=max(0, lag) / 1000,
    )


def rates(minutes: Sequence[Minute], window: int, share: float) -> Rates:
    """Rates over `window` minutes; `minutes` newest first, the first one running, and `share` of the
    one on the window's edge inside."""

    def rate(name: str) -> float:
        inside = sum(getattr(minute.totals, name) for minute in minutes[:window])
        edge = share * getattr(minutes[window].totals, name)
        return float(round((inside + edge) / (window * 60), 3))

    return Rates(**{name: rate(name) for name in Rates.__struct_fields__})


def _durations(histograms: Sequence[Histogram]) -> DurationWindows:
    return DurationWindows(quantiles(histograms[:6]), quantiles(histograms[: _HOUR + 1]))


def quantiles(histograms: Sequence[Histogram]) -> Quantiles:
    """Median, 95th and 99th percentile of all histograms together."""
    total = merge(histograms)
    p50, p95, p99 = (_rounded(quantile(total, share)) for share in (0.5, 0.95, 0.99))
    return Quantiles(sum(total.values()), p50, p95, p99)


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)
