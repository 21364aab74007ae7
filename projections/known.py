"""Words to look for: the types, tags, workers and errors of the jobs of late.

A look, and not a view: tags may be as many as there are customers, and nobody is to pay for them with
each event. Types are all that the views count; of each queue the newest jobs, and the newest failed ones,
are read for the rest. The answer is kept for a while, so that it costs the same however many people type.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.events import AttemptFailed, Failed, Started, Submitted, read_entry
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES, legible, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import unpacked
from penstock.projections.failures import normalised
from penstock.projections.sealed import HIDDEN_TEXT, shown_text
from penstock.projections.views import Stats, read_stats

JOBS: Final = 500
FAILED: Final = 200
LAST_EVENTS: Final = 3  # of a job, beside its first: how it began and ended
MAX_WORDS: Final = 200
MAX_BYTES: Final = 8 * 1024 * 1024  # of events that are read; payloads and results come along
KEPT_S: Final = 15.0
_SLICE: Final = 100
_TOLD: Final = (b"submitted", b"started", b"attempt_failed", b"failed")
_PLACEHOLDER: Final = ("<", "#", "'")


class Known(msgspec.Struct):
    """Words by which jobs can be found, at most 200 of a kind, the most used first (types by name).
    `errors`: classes, and `Class: message` as far as the message is the same for many."""

    types: list[str]
    tags: list[str]
    workers: list[str]
    errors: list[str]


class _Words:
    """What was read of one queue."""

    def __init__(self, types: Iterable[str] = ()) -> None:
        self.types: Final = set(types)
        self.tags: Final = Counter[str]()
        self.workers: Final = Counter[str]()
        self.errors: Final = Counter[str]()

    def take(self, type: str, body: object) -> None:
        match body:
            case Submitted():
                self.tags.update(body.tags)
            case Started():
                self.workers[body.worker.rpartition("~")[0] or body.worker] += 1
            case AttemptFailed() | Failed():
                self.errors.update(_names(body.error, shown_text(body.message, type, "message", None)))


class Vocabulary:
    """Answers for queues, and remembers for 15 s what it has read."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Final = redis
        self._read: Final[dict[str, tuple[float, _Words]]] = {}
        self._turn: Final = asyncio.Lock()

    async def known(self, partitions: Sequence[PartitionKeys]) -> Known:
        """The words of these queues together."""
        async with self._turn:
            found = [await self._of(keys) for keys in partitions]
        tags, workers, errors = Counter[str](), Counter[str](), Counter[str]()
        for words in found:
            tags.update(words.tags)
            workers.update(words.workers)
            errors.update(words.errors)
        types = sorted({type for words in found for type in words.types})
        return Known(types[:MAX_WORDS], *(_most(it) for it in (tags, workers, errors)))

    async def _of(self, keys: PartitionKeys) -> _Words:
        until, words = self._read.get(keys.name, (0.0, _Words()))
        if time.monotonic() >= until:
            words = await self._look(keys)
            self._read[keys.name] = time.monotonic() + KEPT_S, words
        return words

    async def _look(self, keys: PartitionKeys) -> _Words:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.get(keys.stats)
        [raw] = await pipeline.execute()
        types = (read_stats(raw) if raw else Stats()).types
        words = _Words(types)
        for name in types:
            for state in STATES:
                pipeline.zrevrangebylex(keys.index(state, name), b"+", b"-", 0, JOBS)
        indexes: list[list[bytes]] = await pipeline.execute() if types else []
        failed = (it for some in indexes[STATES.index("failed") :: len(STATES)] for it in some)
        places = {
            *nlargest(JOBS, (it for some in indexes for it in some)),
            *nlargest(FAILED, failed),
        }
        await self._tell(keys, sorted(places, reverse=True), words)
        return words

    async def _tell(self, keys: PartitionKeys, places: Sequence[bytes], words: _Words) -> None:
        """Read of these jobs what tells their words, the newest first, as far as that is not too much."""
        log, size = Log(self._redis, keys), 0
        for start in range(0, len(places), _SLICE):
            some = places[start : start + _SLICE]
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hmget(keys.jobs, some)
            [rows] = await pipeline.execute()
            jobs = {unpacked(it): read_row(row) for it, row in zip(some, rows, strict=True) if row}
            wanted = [it for position, job in jobs.items() for it in _few(positions(position, job))]
            for position, fields in await log.pick(wanted):
                size += sum(map(len, fields))
                if fields[1] in _TOLD:
                    event, body = legible(read_entry(position, fields))
                    words.take(jobs[event.job].type if event.job in jobs else "", body)
            if size > MAX_BYTES:
                return


def _few(all: Sequence[str]) -> list[str]:
    return [all[0], *all[1:][-LAST_EVENTS:]]


def _names(error: str, message: str) -> list[str]:
    """What an error can be found by: its class, and the words with which all its messages begin."""
    if message == HIDDEN_TEXT:
        return [error]
    words = normalised(message)
    ends = [at for it in _PLACEHOLDER if (at := words.find(it)) >= 0]
    head = words[: min(ends, default=len(words))].strip()
    return [error, f"{error}: {head}"] if head and message.startswith(head) else [error]


def _most(counted: Counter[str]) -> list[str]:
    return [word for word, _ in counted.most_common(MAX_WORDS) if word]
