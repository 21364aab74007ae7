"""The workers that are there: what each says of itself, what it runs now, and asking one to leave.

A worker is one process. In each partition that it serves it is a consumer of its own name (after a
lost lease with `~2`, `~3` … behind it), and says what it is there (`Facts`) when it enters and every
few seconds. What it runs is read from the pending lists, so it is true at this moment and nothing is
written for it.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.errors import NotFound
from penstock.core.events import WorkerDrained, encode
from penstock.core.keys import GROUP, Keys, PartitionKeys

# Of each worker, queue and lane so many running jobs are named; `running` counts all.
MAX_NAMED: Final = 100


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of itself. `started` in Unix ms by its own clock, `memory` in bytes (resident);
    `stuck`: threads that outlived their attempt and still hold a slot."""

    worker: str
    queues: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    slots: int = 0
    host: str = ""
    pid: int = 0
    version: str = ""
    started: int = 0
    memory: int = 0
    stuck: int = 0
    leaving: bool = False


class RunningJob(msgspec.Struct, frozen=True):
    """A job that a worker runs now."""

    id: str
    type: str
    attempt: int
    since: Annotated[str, msgspec.Meta(description="ISO 8601, UTC, by the server's clock")]


class Worker(msgspec.Struct, kw_only=True):
    """A worker, as of now. One that was killed stays in the list until its lease is over, with an old
    `seen_at`; `jobs` names at most 100 for each queue and priority, oldest first."""

    name: str
    queues: tuple[str, ...]
    types: tuple[str, ...]
    slots: Annotated[int, msgspec.Meta(description="how many jobs it runs at once")]
    running: Annotated[int, msgspec.Meta(description="how many it runs now")]
    stuck: Annotated[int, msgspec.Meta(description="slots held by threads whose attempt is over")]
    leaving: Annotated[bool, msgspec.Meta(description="takes no more jobs, ends what it runs")]
    host: str
    pid: int
    version: str
    started_at: str
    seen_at: Annotated[str, msgspec.Meta(description="its last sign of life, by the server's clock")]
    memory: Annotated[int, msgspec.Meta(description="resident memory in bytes, a few seconds old")]
    jobs: list[RunningJob]


class Workers:
    """The workers of one namespace. Safe to share between tasks."""

    _runs: Final = Script("runs")
    _leave: Final = Script("leave")

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis: Final = redis
        self._keys: Final = keys

    async def roster(self) -> list[Worker]:
        """All of them, by name."""
        found: dict[str, Worker] = {}
        async for keys, now, (consumer, seen, facts, running, *jobs) in self._consumers():
            told = _facts(consumer, facts)
            worker = found.setdefault(told.worker, _worker(told))
            worker.seen_at = max(worker.seen_at, _instant(seen))
            worker.leaving |= told.leaving
            worker.running += running
            worker.jobs += _jobs(keys, now, jobs)
        for worker in found.values():
            worker.jobs.sort(key=lambda job: job.since)
        return sorted(found.values(), key=lambda worker: worker.name)

    async def drain(self, name: str, *, by: str = "") -> None:
        """Ask a worker (by its name, or as one of its consumers) to take no more, finish what it runs
        within its grace time, give back the rest with no attempt spent, and exit 0. It is told within
        half a second. Asking again changes nothing. Raises NotFound."""
        asked = False
        async for keys, _, (consumer, _, facts, *_) in self._consumers(0):
            if name not in (_facts(consumer, facts).worker, consumer.decode()):
                continue
            body = encode(WorkerDrained(worker=consumer.decode(), by=by))
            places = (keys.log, keys.workers, keys.told)
            asked |= await self._leave(self._redis, places, (consumer, body)) >= 0
        if not asked:
            raise NotFound(f"no worker {name!r}")

    async def _consumers(self, named: int = MAX_NAMED) -> AsyncIterator[tuple[PartitionKeys, int, list[Any]]]:
        """Each consumer of each partition, as `runs` tells it, and the time of that answer in ms."""
        for queue in sorted(await command(self._redis, "SMEMBERS", self._keys.queues)):
            keys = self._keys.partition(queue.decode())
            places = (keys.epoch, keys.log, *keys.lanes, keys.workers, keys.facts)
            now, *consumers = await self._runs(self._redis, places, (GROUP, max(1, named)))
            for consumer in consumers:
                yield keys, now, consumer


_decode_facts: Final = msgspec.json.Decoder(Facts).decode


def _facts(consumer: bytes, raw: bytes) -> Facts:
    """What a consumer said of itself; its name, where it says nothing (a test run, another version)."""
    return _decode_facts(raw) if raw else Facts(consumer.decode())


def _worker(told: Facts) -> Worker:
    return Worker(
        name=told.worker,
        queues=told.queues,
        types=told.types,
        slots=told.slots,
        running=0,
        stuck=told.stuck,
        leaving=told.leaving,
        host=told.host,
        pid=told.pid,
        version=told.version,
        started_at=_instant(told.started) if told.started else "",
        seen_at="",
        memory=told.memory,
        jobs=[],
    )


def _jobs(keys: PartitionKeys, now: int, told: list[Any]) -> list[RunningJob]:
    return [
        RunningJob(keys.job_id(job.decode()), type.decode(), attempt, _instant(now - idle))
        for job, type, attempt, idle in zip(*(iter(told),) * 4, strict=True)
    ]


def _instant(ms: int) -> str:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
