"""A log such as a queue of e-mails, pictures and reports leaves behind in half a day, of any length.

Jobs of five types come one after another, each with a fate: most are completed at once, some tell how far
they are, some wait for their time, fail and are tried again, fail for good, are cancelled, lose their worker.
Events are bodies of core/events.py in the order of time; the same number makes the same log, but for when it
ends. All jobs end in it.
"""

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple

import msgspec

from penstock.core.events import (
    AnyBody,
    AttemptFailed,
    Cancelled,
    Completed,
    Failed,
    LeaseExpired,
    Progressed,
    Started,
    Submitted,
    encode,
)
from penstock.core.lifecycle import State

SPAN_MS: Final = 12 * 3600 * 1000
TYPES: Final = ("mail.send", "mail.digest", "image.resize", "ai.language", "report.build")
EVENTS_PER_JOB: Final = 3.7  # by the shares below
RARE: Final = "no such mailbox"  # in one of some 190 events
_WORDS: Final = ("invoice", "order", "parcel", "meeting", "password", "newsletter", "receipt", "holiday")
_FATES: Final = ("plain", "told", "retried", "failed", "later", "cancelled", "lost")
_SHARES: Final = (62, 18, 11, 4, 3, 1, 1)


class Written(NamedTuple):
    """An event of the log: position, tag, job (empty in its first event) and body, as XADD takes them; when
    (Unix ms); and between which states the job went (none before its first)."""

    position: str
    tag: str
    job: str
    body: bytes
    at: int
    before: State | None
    after: State


class Step(NamedTuple):
    """One event of a job: so many ms after the one before, what happened, and the state it leads to."""

    ms: int
    tag: str
    body: AnyBody
    state: State


def history(events: int, end: int) -> Iterator[Written]:
    """So many events and a few more, for all jobs end: from SPAN_MS before `end` (Unix ms) to about then."""
    chance, serial = random.Random(events), count()
    spacing = SPAN_MS / (events / EVENTS_PER_JOB)
    coming: list[tuple[float, int, str, list[Step], State | None]] = []
    planned, arrival, last, sequence = 0, float(end - SPAN_MS), 0, 0
    while planned < events or coming:
        if planned < events and (not coming or arrival <= coming[0][0]):
            steps = _tale(chance, planned)
            heapq.heappush(coming, (arrival, next(serial), "", steps[::-1], None))
            planned += len(steps)
            arrival += chance.expovariate(1 / spacing)
            continue
        time, _, job, steps, before = heapq.heappop(coming)
        step, at = steps.pop(), max(int(time), last)
        sequence = sequence + 1 if at == last else 0
        last, position = at, f"{at}-{sequence}"
        yield Written(position, step.tag, job, encode(step.body), at, before, step.state)
        if steps:
            heapq.heappush(coming, (at + steps[-1].ms, next(serial), job or position, steps, step.state))


class Tally:
    """How many jobs are in which state, kept by whoever writes the log."""

    def __init__(self) -> None:
        self.states: Final[Counter[str]] = Counter()

    def add(self, event: Written) -> None:
        if event.before is not None:
            self.states[event.before] -= 1
        self.states[event.after] += 1


def _tale(chance: random.Random, number: int) -> list[Step]:
    """A job's events, from its submission to its end."""
    [fate] = chance.choices(_FATES, _SHARES)
    worker, wait = f"worker-{number % 7}", int(chance.expovariate(1 / 800))
    run = min(int(chance.lognormvariate(4.5, 1.2)), 30_000)
    first = _submitted(chance, number, delay=300 if fate == "later" else 0)
    steps = [Step(0, "submitted", first, "delayed" if fate == "later" else "waiting")]
    match fate:
        case "told":
            steps += [_started(wait, 1, worker), *(_progressed(run // 3, it / 3) for it in (1, 2))]
            return [*steps, _completed(run // 3, 1, run, number)]
        case "retried":
            tries = chance.choice((1, 1, 1, 2))
            steps += [it for n in range(tries) for it in _failure(wait if n == 0 else 20_000, n + 1, run)]
            return [*steps, _started(20_000, tries + 1, worker), _completed(run, tries + 1, run, number)]
        case "failed" if chance.random() < 0.5:
            return [*steps, _started(wait, 1, worker), _failed(run, "permanent", "ValueError", RARE, 1)]
        case "failed":
            steps += [it for n in range(2) for it in _failure(wait if n == 0 else 20_000, n + 1, run)]
            failed = _failed(run, "exhausted", "TimeoutError", "no answer after 30.0 s", 3)
            return [*steps, _started(20_000, 3, worker), failed]
        case "cancelled":
            return [*steps, Step(wait, "cancelled", Cancelled(by="ada", reason="not wanted"), "cancelled")]
        case "lost":
            lost = Step(20_000, "lease_expired", LeaseExpired(worker, 1), "waiting")
            steps += [_started(wait, 1, worker), lost]
            return [*steps, _started(50, 1, "worker-8"), _completed(run, 1, run, number)]
        case "later":
            wait = 300_000
    return [*steps, _started(wait, 1, worker), _completed(run, 1, run, number)]


def _submitted(chance: random.Random, number: int, *, delay: float) -> Submitted:
    """A payload of about 200 bytes, as the bench's other jobs have."""
    subject = " ".join(chance.choices(_WORDS, k=8))
    payload = b'{"to":"user%d@example.org","subject":"%b","copies":%d,"link":"https://example.org/%032x"}' % (
        *(number % 90_000, subject.encode(), number % 4, number * 0x9E3779B97F4A7C15 % 2**128),
    )
    tags = ("import",) if number % 5 == 0 else ()
    type = TYPES[number % len(TYPES)]
    return Submitted(type=type, payload=msgspec.Raw(payload), delay=delay, tags=tags)


def _started(ms: int, attempt: int, worker: str) -> Step:
    return Step(ms, "started", Started(attempt, worker), "active")


def _progressed(ms: int, fraction: float) -> Step:
    return Step(ms, "progressed", Progressed(round(fraction, 2), "on its way"), "active")


def _completed(ms: int, attempt: int, run: int, number: int) -> Step:
    result = msgspec.Raw(b'{"id":"%d@example.org"}' % number)
    return Step(ms, "completed", Completed(attempt, run + 0.125, result), "completed")


def _failure(wait: int, attempt: int, run: int) -> list[Step]:
    """An attempt that fails, and is to be followed by another one."""
    failed = AttemptFailed(attempt, "TimeoutError", "no answer from smtp.example.org", 20.0, ms=run + 0.125)
    return [_started(wait, attempt, "worker-2"), Step(run, "attempt_failed", failed, "delayed")]


def _failed(ms: int, reason: str, error: str, message: str, attempt: int) -> Step:
    return Step(ms, "failed", Failed(reason, error, message, attempt, ms=ms + 0.125), "failed")
