"""Failed jobs, grouped by what went wrong.

A look at the failed jobs of a queue, the newest first, and not a projection: a group is what people
would call the same error, which is a matter of words. Other words would mean other views and a rebuild,
and every failure would cost the projector more. The indexes know which jobs are failed; of each the last
event is read. Of more than MAX_LOOKED_AT failed jobs the newest are grouped, and the answer says so.
What was read is kept until the views change.
"""

import re
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import Annotated, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.events import Failed
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import milliseconds, unpacked
from penstock.projections.details import instant
from penstock.projections.sealed import shown_text
from penstock.projections.views import Stats, read_stats

MAX_LOOKED_AT: Final = 10_000
MAX_GROUPS: Final = 200
BARS: Final = 24
SAMPLES: Final = 5
MAX_WORDS: Final = 200
_SLICE: Final = 500  # tracebacks come along
_LAST_FEW: Final = 20

# What differs between two messages about the same thing, the longer shapes first.
_VARIABLE: Final = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE), "<url>"),
    (re.compile(r"[^\s@'\"<>]+@[^\s@'\"<>]+\.\w+"), "<address>"),
    (re.compile(r"\bsha256-[0-9a-f]{64}\b"), "<id>"),  # an artifact
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?<![\w])/(?:[\w.-]+/)+[\w.-]*"), "<path>"),
    (re.compile(r"'[^']{1,200}'|\"[^\"]{1,200}\""), "'…'"),
    (re.compile(r"\d+([.,:]\d+)*"), "#"),
    (re.compile(r"\s+"), " "),
)


class FailureGroup(msgspec.Struct):
    """Failed jobs with the same error. `message` has a placeholder for what differs, `sample` is that of
    the newest one; `bars`: how many failed in each part of the answer's time."""

    error: str
    message: str
    sample: str
    count: int
    first_at: str
    last_at: str
    types: dict[str, int]
    reasons: dict[str, int]
    bars: list[int]
    jobs: Annotated[list[str], msgspec.Meta(description="ids of the newest, at most 5")]


class FailureList(msgspec.Struct):
    """The groups, biggest first. `failed`: jobs that are failed; `looked_at`: how many of them, the
    newest, are grouped here; `bars` of the groups go from `from_at` to `to_at`."""

    queue: str
    failed: int
    looked_at: int
    from_at: str
    to_at: str
    groups: list[FailureGroup]


class _Failure(msgspec.Struct):
    """One failed job."""

    job: str
    type: str
    at: int
    error: str
    message: str
    reason: str


class Failures:
    """Answers for queues; remembers the last answer to each question."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Final = redis
        self._known: Final[dict[tuple[str, str], tuple[bytes | None, FailureList]]] = {}

    async def groups(self, keys: PartitionKeys, type: str = "") -> FailureList:
        """The groups of a queue's failed jobs, of one type if asked for."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(keys.checkpoint)
        pipeline.get(keys.stats)
        checkpoint, raw = await pipeline.execute()
        known = self._known.get((keys.name, type))
        if known is not None and known[0] == checkpoint:
            return known[1]
        stats = read_stats(raw) if raw else Stats()
        types = [name for name in stats.types if not type or name == type]
        failed = sum(stats.types[name].failed for name in types)
        answer = grouped(keys, failed, await self._read(keys, types))
        if len(self._known) >= 100:
            self._known.clear()
        self._known[keys.name, type] = checkpoint, answer
        return answer

    async def _read(self, keys: PartitionKeys, types: Sequence[str]) -> list[_Failure]:
        pipeline = self._redis.pipeline(transaction=True)
        for type in types:
            pipeline.zrevrangebylex(keys.index("failed", type), b"+", b"-", 0, MAX_LOOKED_AT)
        places = nlargest(MAX_LOOKED_AT, (it for some in await pipeline.execute() for it in some))
        found: list[_Failure] = []
        for start in range(0, len(places), _SLICE):
            pipeline.hmget(keys.jobs, places[start : start + _SLICE])
            [rows] = await pipeline.execute()
            jobs = {
                unpacked(place): read_row(row)
                for place, row in zip(places[start : start + _SLICE], rows, strict=True)
                if row
            }
            found += await self._ends(keys, jobs)
        return found

    async def _ends(self, keys: PartitionKeys, jobs: dict[str, Job]) -> list[_Failure]:
        """How each of these jobs failed: by its last event, or where one that did not fit came after, by
        one of the last few."""
        log = Log(self._redis, keys)
        found: dict[str, _Failure] = {}
        for few in (1, _LAST_FEW):
            wanted = [it for job in jobs.keys() - found.keys() for it in positions(job, jobs[job])[-few:]]
            for event in await log.read(wanted):
                body = legible(event)[1]
                if isinstance(body, Failed) and event.job in jobs:
                    type, at = jobs[event.job].type, milliseconds(event.position)
                    message = shown_text(body.message, type, "message", None)
                    found[event.job] = _Failure(event.job, type, at, body.error, message, body.reason)
        return list(found.values())


def grouped(keys: PartitionKeys, failed: int, failures: Sequence[_Failure]) -> FailureList:
    """Put together what is the same; the biggest groups first, at most 200."""
    since = min((it.at for it in failures), default=0)
    until = max((it.at for it in failures), default=0)
    groups: dict[tuple[str, str], list[_Failure]] = {}
    for it in failures:
        groups.setdefault((it.error, normalised(it.message)), []).append(it)
    biggest = nlargest(MAX_GROUPS, groups.items(), key=lambda it: len(it[1]))
    return FailureList(
        queue=keys.queue,
        failed=failed,
        looked_at=len(failures),
        from_at=instant(since),
        to_at=instant(until),
        groups=[_group(keys, *words, some, since, until) for words, some in biggest],
    )


def normalised(message: str) -> str:
    """The message without what differs between two about the same thing."""
    words = message[: 4 * MAX_WORDS]
    for shape, placeholder in _VARIABLE:
        words = shape.sub(placeholder, words)
    return words.strip()[:MAX_WORDS]


def _group(
    keys: PartitionKeys, error: str, message: str, some: list[_Failure], since: int, until: int
) -> FailureGroup:
    newest = sorted(some, key=lambda it: it.at, reverse=True)
    bars = [0] * BARS
    for it in some:
        bars[min(BARS - 1, (it.at - since) * BARS // max(1, until - since))] += 1
    return FailureGroup(
        error=error,
        message=message,
        sample=newest[0].message[: 5 * MAX_WORDS],
        count=len(some),
        first_at=instant(newest[-1].at),
        last_at=instant(newest[0].at),
        types=_tally(it.type for it in some),
        reasons=_tally(it.reason for it in some),
        bars=bars,
        jobs=[keys.job_id(it.job) for it in newest[:SAMPLES]],
    )


def _tally(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts
