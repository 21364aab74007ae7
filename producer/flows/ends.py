"""Which of the flows' jobs have ended, learnt within a millisecond or so.

For each partition in which a job of a flow is alive: one blocking read of its log, begun at the log's tip
before the jobs are looked at. So an end is either seen by the look, or comes by the read. A partition
without such jobs is not read: plain jobs cost nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis

from penstock.core.events import Event, read_entry
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL, fold_all
from penstock.core.log import Log, follow
from penstock.core.positions import parse_job_id
from penstock.core.story import find, tell

AT_ONCE: Final = 32  # jobs looked at at the same time


class Ends:
    """Watches jobs by id; calls `ended` for each as soon as it has ended, with its terminal event, or None
    where the log does not hold the job any more."""

    def __init__(
        self, redis: Redis, listening: Redis, keys: Keys, ended: Callable[[str, Event | None], None]
    ) -> None:
        """`listening` is for blocking reads: it needs a connection for each partition."""
        self._redis: Final = redis
        self._listening: Final = listening
        self._keys: Final = keys
        self._ended: Final = ended
        self._alive: Final[dict[str, dict[str, str]]] = {}  # partition → position → job id
        self._readers: Final[dict[str, asyncio.Task[None]]] = {}

    async def watch(self, jobs: Sequence[str]) -> None:
        """Watch these jobs until they end. Returns when those that had ended already were told."""
        for job_id in jobs:
            keys, position = self._place(job_id)
            self._alive.setdefault(keys.name, {})[position] = job_id
            if keys.name not in self._readers:
                tip = await Log(self._redis, keys).tip()
                self._readers[keys.name] = asyncio.create_task(self._read(keys, tip))
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._look(job_id, gate) for job_id in jobs))

    @property
    def readers(self) -> "list[asyncio.Task[None]]":
        """The readers under way: one that ends with an error can tell no more."""
        return list(self._readers.values())

    async def close(self) -> None:
        """Stop reading."""
        for task in self._readers.values():
            task.cancel()
        await asyncio.gather(*self._readers.values(), return_exceptions=True)

    async def _look(self, job_id: str, gate: asyncio.Semaphore) -> None:
        keys, position = self._place(job_id)
        async with gate:
            job = await find(self._redis, keys, position)
            if job is not None and job.state not in TERMINAL:
                return
            events = await tell(self._redis, keys, position)
        if fold_all(events) is None:
            self._tell(keys, position, None)
        else:
            self._tell(keys, position, [event for event in events if event.tag in TERMINAL][-1])

    async def _read(self, keys: PartitionKeys, position: str) -> None:
        """Follow a partition while jobs of it are watched."""
        alive = self._alive[keys.name]
        while alive:
            for entry in await follow(self._listening, keys, position):
                position = entry[0].decode()
                job, tag = entry[1][3].decode(), entry[1][1].decode()
                if job in alive and tag in TERMINAL:
                    self._tell(keys, job, read_entry(*entry))
        del self._readers[keys.name]

    def _tell(self, keys: PartitionKeys, position: str, end: Event | None) -> None:
        job_id = self._alive[keys.name].pop(position, None)
        if job_id is not None:
            self._ended(job_id, end)

    def _place(self, job_id: str) -> tuple[PartitionKeys, str]:
        queue, number, position = parse_job_id(job_id)
        return self._keys.partition(queue, number), position
