"""The jobs that were made from a job: whoever edits one that has ended and runs it again makes another
one, in the same queue and of the same type, whose `origin` names the first.

Nothing lists jobs by their origin, as next to none has one. So those of the type are looked through that
were submitted after the job's first end, the first ones of them; where that was not all, the answer says so.
"""

from collections.abc import Sequence
from heapq import nsmallest
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.errors import NotFound
from penstock.core.events import Event, Submitted
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import STATES, TERMINAL, Job, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import packed, parse_job_id, unpacked
from penstock.core.story import find
from penstock.projections.details import JobSummary, summary

MAX_LOOKED_AT: Final = 5_000
MAX_CHILDREN: Final = 50
MAX_BYTES: Final = 32 * 1024 * 1024  # of first events that are read: payloads come along
_SLICE: Final = 400
_ENDS: Final = 1_000  # events of the job in which its first end is looked for


class Children(msgspec.Struct):
    """Jobs that were made from one, oldest first, at most 50. `looked_at`: how many jobs of its type were
    looked at, from its first end on; `complete`: whether these were all."""

    jobs: list[JobSummary]
    looked_at: int
    complete: bool


async def children(redis: Redis, all_keys: Keys, queue: str, job_id: str) -> Children:
    """What was made from this job of a queue, as far as the views have seen it. Raises NotFound."""
    found_in, number, position = parse_job_id(job_id)
    keys = all_keys.partition(queue, number)
    job = await find(redis, keys, position) if found_in == queue else None
    if job is None:
        raise NotFound(f"no job {job_id} in queue {queue!r}")
    log = Log(redis, keys)
    end = await _first_end(log, position, job)
    if end is None:
        return Children([], 0, complete=True)
    places = await _since(redis, keys, job.type, end)
    found, looked, size = list[str](), 0, 0
    for start in range(0, min(len(places), MAX_LOOKED_AT), _SLICE):
        some = places[start : min(start + _SLICE, MAX_LOOKED_AT)]
        events = await log.read([unpacked(it) for it in some])
        found += [event.position for event in events if _is_child(event, job_id)]
        looked += len(some)
        size += sum(len(event.body) for event in events)
        if size > MAX_BYTES or len(found) >= MAX_CHILDREN:
            break
    told = await _summaries(redis, keys, found[:MAX_CHILDREN])
    return Children(told, looked, complete=looked == len(places) and len(found) <= MAX_CHILDREN)


async def _first_end(log: Log, position: str, job: Job) -> str | None:
    """When the job could first be run again; None if it never could."""
    events = await log.read(positions(position, job)[1:][-_ENDS:])
    return next((event.position for event in events if event.tag in TERMINAL), None)


async def _since(redis: Redis, keys: PartitionKeys, type: str, begin: str) -> list[bytes]:
    """The jobs of a type that were submitted since, oldest first, one more than are looked at. All states
    are read in one step: a job that moves is seen in one of them."""
    pipeline = redis.pipeline(transaction=True)
    for state in STATES:
        pipeline.zrangebylex(keys.index(state, type), b"(" + packed(begin), b"+", 0, MAX_LOOKED_AT + 1)
    return nsmallest(MAX_LOOKED_AT + 1, (it for some in await pipeline.execute() for it in some))


async def _summaries(redis: Redis, keys: PartitionKeys, jobs: Sequence[str]) -> list[JobSummary]:
    if not jobs:
        return []
    pipeline = redis.pipeline(transaction=False)
    pipeline.hmget(keys.jobs, [packed(it) for it in jobs])
    [rows] = await pipeline.execute()
    return [summary(keys, it, read_row(row)) for it, row in zip(jobs, rows, strict=True) if row]


def _is_child(event: Event, of: str) -> bool:
    if of.encode() not in event.body:  # nearly always: then nothing is decoded
        return False
    body = legible(event)[1]
    return isinstance(body, Submitted) and body.origin == of
