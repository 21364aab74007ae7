"""One beat of the condensed feed: what the views make of what the logs told, read for everyone at once,
and the message that each client is told of it.
"""

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.events import Event
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import read_row
from penstock.core.positions import START, order, packed
from penstock.projections.details import EventDetail, JobSummary, event_detail, summary
from penstock.projections.feed_cursor import Place
from penstock.projections.feed_events import Wanted
from penstock.projections.feed_pulse import MAX_CHANGED, Pulse, QueuePulse, QueueRates, Ready
from penstock.projections.feed_tail import look
from penstock.projections.views import Stats, read_stats

MAX_JOBS: Final = 200
MAX_LOOKED_AT: Final = 1_000  # rows that are read, so that who follows one type finds his among them


class Changes(msgspec.Struct, omit_defaults=True):
    """A message of the condensed feed. `at`: Unix ms of this process's clock; `queues` whose figures
    changed; `jobs` that changed, as they are now, at most 200, the last changed last; `more`: how many
    others changed; `job_events`: new ones of the job that is followed or watched, which may come twice
    after a reconnection."""

    at: int
    queues: dict[str, QueuePulse]
    jobs: list[JobSummary]
    more: int
    job_events: list[EventDetail] | None = None


class Beat(msgspec.Struct):
    """What is new of one partition. `pulse`: None if no figure has changed; `changed`: how many jobs
    did, of which `rows` are the newest."""

    keys: PartitionKeys
    pulse: QueuePulse | None
    changed: int
    rows: list[JobSummary]
    events: dict[str, list[Event]]


async def settle_in(redis: Redis, pulses: Iterable[Pulse]) -> None:
    """Let fresh pulses owe what the views had not seen when they began to listen."""
    for pulse in [pulse for pulse in pulses if pulse.fresh]:
        began = pulse.told
        checkpoint = await command(redis, "GET", pulse.keys.checkpoint)
        seen = checkpoint.decode() if checkpoint else START
        if order(seen) < order(began.position):
            at = await look(redis, pulse.keys, seen, began.position, MAX_CHANGED)
            pulse.owe(at.entries if at is not None else [], Place(began.mark, seen))
        pulse.fresh = False


async def gather(redis: Redis, pulses: Sequence[Pulse], watched: Mapping[str, Container[str]]) -> list[Beat]:
    """What is new, in two round trips; it counts as told."""
    pipeline = redis.pipeline(transaction=False)
    for pulse in pulses:
        pipeline.get(pulse.keys.checkpoint)
        pipeline.get(pulse.keys.stats)
    replies = await pipeline.execute()
    found: list[tuple[Pulse, Stats, Ready, list[str]]] = []
    for pulse, checkpoint, stats in zip(pulses, replies[::2], replies[1::2], strict=True):
        seen = checkpoint.decode() if checkpoint else START
        ready = pulse.ready(seen)
        jobs = _to_read(ready.jobs, watched.get(pulse.keys.name, ()))
        if jobs:
            pipeline.hmget(pulse.keys.jobs, [packed(job) for job in jobs])
        found.append((pulse, read_stats(stats) if stats else Stats(), ready, jobs))
    rows = iter(await pipeline.execute())
    return [
        _beat(pulse, stats, ready, jobs, next(rows) if jobs else []) for pulse, stats, ready, jobs in found
    ]


async def figures(redis: Redis, partitions: Sequence[PartitionKeys]) -> dict[str, QueuePulse]:
    """The counts of queues, for who has just come."""
    pipeline = redis.pipeline(transaction=False)
    for keys in partitions:
        pipeline.get(keys.stats)
    told = [read_stats(raw) if raw else Stats() for raw in await pipeline.execute()]
    return {
        keys.queue: QueuePulse(stats.counts(), QueueRates())
        for keys, stats in zip(partitions, told, strict=True)
    }


async def rows_of(redis: Redis, keys: PartitionKeys, jobs: Sequence[str]) -> list[JobSummary]:
    """The rows of these jobs, as far as the views have them."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.hmget(keys.jobs, [packed(job) for job in jobs])
    return _summaries(keys, jobs, (await pipeline.execute())[0]) if jobs else []


def changes(wanted: Wanted, beats: Iterable[Beat], *, always: bool = False) -> Changes | None:
    """What one kind of client is told of these beats; None if nothing is new to it, unless `always`."""
    told = Changes(int(time.time() * 1000), {}, [], 0)
    partition, watched = wanted.watched
    for beat in beats:
        if wanted.scope not in ("", beat.keys.name):
            continue
        if beat.pulse is not None:
            told.queues[beat.keys.queue] = beat.pulse
        told.jobs += [row for row in beat.rows if _followed(wanted, row)]
        if not wanted.job:
            told.more += beat.changed - len(beat.rows)
        if beat.keys.name == partition and (events := beat.events.get(watched)):
            type = next((row.type for row in beat.rows if row.id == beat.keys.job_id(watched)), "")
            told.job_events = [event_detail(event, type) for event in events]
    told.more += max(0, len(told.jobs) - MAX_JOBS)
    told.jobs = told.jobs[-MAX_JOBS:]
    return told if always or told.queues or told.jobs or told.more or told.job_events else None


def _followed(wanted: Wanted, row: JobSummary) -> bool:
    return row.id == wanted.job if wanted.job else not wanted.type or row.type == wanted.type


def _to_read(jobs: Sequence[str], watched: Container[str]) -> list[str]:
    newest = jobs[-MAX_LOOKED_AT:]
    return [job for job in jobs[:-MAX_LOOKED_AT] if job in watched] + list(newest)


def _beat(pulse: Pulse, stats: Stats, ready: Ready, jobs: Sequence[str], rows: Sequence[Any]) -> Beat:
    pulse.settle(ready)
    now = QueuePulse(stats.counts(), pulse.rates())
    news, pulse.last = (now if now != pulse.last else None), now
    changed = len(ready.jobs) + ready.more
    return Beat(pulse.keys, news, changed, _summaries(pulse.keys, jobs, rows), ready.events)


def _summaries(keys: PartitionKeys, jobs: Sequence[str], rows: Sequence[Any]) -> list[JobSummary]:
    return [summary(keys, job, read_row(row)) for job, row in zip(jobs, rows, strict=True) if row]
