"""How many workers a queue needs: what a scaler goes by, read from the queue itself and not from its views,
so that it holds even where no projector runs.

    fresh     in the lanes, and given to no worker: what was added less what is pending
    due       parked, and its time has come
    backlog   fresh and due; of a paused queue nothing could run, so 0
    running   given to workers
    load      backlog and running: divided by the jobs a worker should have, the number of workers

The throughput is that of the projected minutes.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.keys import GROUP, PARKED, PartitionKeys
from penstock.projections.figures import rates
from penstock.projections.views import MINUTE_MS, Minute, read_minute

MINUTES: Final = 5


class Scaling(msgspec.Struct):
    """What workers a queue has, and what for."""

    queue: str
    workers: Annotated[int, msgspec.Meta(description="that gave a sign of life within their lease")]
    running: int
    due: Annotated[int, msgspec.Meta(description="retries and delayed jobs whose time has come")]
    backlog: Annotated[int, msgspec.Meta(description="jobs that could run now and do not")]
    load: Annotated[int, msgspec.Meta(description="backlog and running")]
    backlog_per_worker: Annotated[float, msgspec.Meta(description="with no worker, the backlog")]
    throughput: Annotated[float, msgspec.Meta(description="jobs that ended in the last minute, a second")]
    drain_s: Annotated[
        float | None,
        msgspec.Meta(description="backlog by the throughput of five minutes; null where nothing has ended"),
    ]


class Load(msgspec.Struct):
    """The same, and how many jobs are pending, by consumer."""

    scaling: Scaling
    pending: dict[str, int]


async def read_loads(redis: Redis, partitions: Sequence[PartitionKeys], lease_s: float) -> list[Load]:
    """Of each partition, in two round trips however many they are."""
    seconds, micros = await redis.time()
    now = seconds * 1000 + micros // 1000
    pipeline = redis.pipeline(transaction=False)
    for keys in partitions:
        for lane in keys.lanes:
            pipeline.xlen(lane)
        for lane in keys.lanes:
            pipeline.execute_command("XPENDING", lane, GROUP)
        pipeline.zcount(keys.due, "-inf", now)
        pipeline.zcount(keys.workers, now - lease_s * 1000, "+inf")
        pipeline.hget(keys.control, "paused")
        pipeline.hmget(keys.minutes, [str(now // MINUTE_MS - ago) for ago in range(MINUTES + 1)])
    # A lane may be lost with its group (FLUSHALL): then nothing is pending there.
    answers = await pipeline.execute(raise_on_error=False)
    of_each = len(answers) // len(partitions) if partitions else 0
    return [
        _load(keys, now, answers[number * of_each : (number + 1) * of_each])
        for number, keys in enumerate(partitions)
    ]


def _load(keys: PartitionKeys, now: int, answers: Sequence[Any]) -> Load:
    lanes = len(keys.lanes)
    lengths, rows, (due, workers, paused, minutes) = (
        *(answers[:lanes], answers[lanes : 2 * lanes]),
        answers[2 * lanes :],
    )
    pending: dict[str, int] = {}
    for row in rows:
        for consumer in row["consumers"] if isinstance(row, dict) else ():
            name = consumer["name"].decode()
            pending[name] = pending.get(name, 0) + consumer["pending"]
    fresh = max(0, sum(lengths) - sum(pending.values()))
    backlog = 0 if paused == b"1" else fresh + due
    running = sum(count for name, count in pending.items() if name != PARKED)
    told = [read_minute(one) if one else Minute() for one in minutes]
    share = 1 - now % MINUTE_MS / MINUTE_MS
    lately, before = rates(told, 1, share), rates(told, MINUTES, share)
    ended = before.completed + before.failed
    scaling = Scaling(
        queue=keys.queue,
        workers=workers,
        running=running,
        due=due,
        backlog=backlog,
        load=backlog + running,
        backlog_per_worker=round(backlog / max(1, workers), 3),
        throughput=round(lately.completed + lately.failed, 3),
        drain_s=0.0 if not backlog else round(backlog / ended, 3) if ended else None,
    )
    return Load(scaling, pending)
