"""The life of a job: which event leads from which state to which, and the one fold.

             submitted ──────────────► waiting ◄─────────────── lease_expired
                 │ (with a delay)       ▲ │ started              or released
                 ▼          rescheduled │ ▼                           │
              delayed ────started────► active ────────────────────────┘
                 ▲                        │ │
                 └────attempt_failed──────┘ ├── completed ──► completed ──┐
                                            ├── failed ─────► failed ─────┼── requeued ──► waiting
                                            └── cancelled ──► cancelled ──┘

`fold` is the only code that computes a state: projectors, the API's catch-up read, replay and the
tests all call it. An event that does not fit the state changes nothing but the count `misfits`.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.core.events import (
    AnyBody,
    AttemptFailed,
    Completed,
    Event,
    LeaseExpired,
    Released,
    Requeued,
    Rescheduled,
    Started,
    Submitted,
    decode,
)
from penstock.core.positions import delta, milliseconds, undelta

State = Literal["waiting", "delayed", "active", "completed", "failed", "cancelled"]

STATES: Final[tuple[State, ...]] = ("waiting", "delayed", "active", "completed", "failed", "cancelled")
TERMINAL: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled"})

# (state before, tag) → state after. `submitted` opens a job and stands in `fold`.
# `rescheduled` to a time leads to delayed, see `fold`. An end leads back by `requeued`.
# A worker may die, or be told to leave, between taking a job and `started`, and `started` itself
# may be lost with a connection while the attempt runs: hence the rows from waiting and delayed that
# only an attempt under way can cause.
TRANSITIONS: Final[Mapping[tuple[str, str], State]] = {
    ("waiting", "started"): "active",
    ("delayed", "started"): "active",
    ("active", "progressed"): "active",
    ("active", "logged"): "active",
    ("active", "attempt_failed"): "delayed",
    ("active", "lease_expired"): "waiting",
    ("waiting", "lease_expired"): "waiting",
    ("delayed", "lease_expired"): "waiting",
    ("active", "released"): "waiting",
    ("waiting", "released"): "waiting",
    ("delayed", "released"): "waiting",
    ("active", "completed"): "completed",
    ("waiting", "completed"): "completed",
    ("delayed", "completed"): "completed",
    ("waiting", "progressed"): "waiting",
    ("waiting", "logged"): "waiting",
    ("waiting", "attempt_failed"): "delayed",
    ("waiting", "rescheduled"): "waiting",
    ("delayed", "rescheduled"): "delayed",
    ("waiting", "cancelled"): "cancelled",
    ("delayed", "cancelled"): "cancelled",
    ("active", "cancelled"): "cancelled",
    ("failed", "cancelled"): "cancelled",
    ("failed", "requeued"): "waiting",
    ("cancelled", "requeued"): "waiting",
    ("completed", "requeued"): "waiting",
    ("active", "failed"): "failed",
    ("waiting", "failed"): "failed",
    ("delayed", "failed"): "failed",
}


# A time past this (in ms; the year 5138) is an error of whoever wrote it.
_LATEST_MS: Final = 10**14

Read: TypeAlias = tuple[Event, AnyBody | None]
"""An event and its body, as `legible` answers them."""


class Job(msgspec.Struct, frozen=True, array_like=True):
    """A job as its events tell it: the row of the view, and all that fold needs to go on.

    `ready` is when it may run, in Unix ms (0: at once, when it was submitted). `history` lists the
    positions of its events after the first, each as seen from the first (`delta`), so that its
    whole story can be read from the log without searching.
    """

    state: State
    type: str
    attempt: int = 0
    ready: int = 0
    history: str = ""
    misfits: int = 0


read_row: Final = msgspec.json.Decoder(Job).decode


# Those whose words about time are looked at, and that say where a job's story begins.
_TIMED: Final = frozenset({Submitted, Requeued, Rescheduled, AttemptFailed})


def legible(event: Event) -> Read:
    """An event and its body. One that cannot be read gets no tag and no body, and so fits no state:
    its job keeps it in its history and counts it as a misfit."""
    try:
        body = decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Event(event.position, "", event.job, event.body), None
    sound = True
    if type(body) in _TIMED:
        if isinstance(body, AttemptFailed):
            sound = body.delay * 1000 < _LATEST_MS
        elif isinstance(body, Submitted | Rescheduled):
            sound = max(body.delay * 1000, body.run_at) < _LATEST_MS
            sound = sound and (event.job == event.position) == (type(body) is Submitted)
    return (event, body) if sound else (Event(event.position, "", event.job, event.body), None)


def fold(job: Job | None, event: Event, body: AnyBody | None) -> Job | None:
    """The job after `event`, whose decoded body is `body`. Pure.

    None stays None for a fact about the queue, and for an event of a job that never was submitted
    (its beginning was trimmed away).
    """
    if job is None:
        if type(body) is not Submitted:
            return None
        ready = _ready(event, body)
        return Job("delayed" if ready else "waiting", body.type, 0, ready)
    history = delta(event.job, event.position)
    if job.history:
        history = f"{job.history} {history}"
    state = TRANSITIONS.get((job.state, event.tag))
    if state is None:
        return Job(job.state, job.type, job.attempt, job.ready, history, job.misfits + 1)
    attempt, ready = job.attempt, job.ready
    match body:
        case Started():
            attempt = body.attempt
        case Completed():
            pass
        case AttemptFailed():
            ready = milliseconds(event.position) + round(body.delay * 1000)
        case LeaseExpired() | Released():
            ready = milliseconds(event.position)
        case Requeued():
            attempt, ready = 0, milliseconds(event.position)
        case Rescheduled():
            return _rescheduled(job, event, body, history)
    return Job(state, job.type, attempt, ready, history, job.misfits)


def _rescheduled(job: Job, event: Event, body: Rescheduled, history: str) -> Job:
    """Another time decides the state; another priority alone changes none."""
    if body.at_once:
        return Job("waiting", job.type, job.attempt, milliseconds(event.position), history, job.misfits)
    ready = _ready(event, body)
    if ready:
        return Job("delayed", job.type, job.attempt, ready, history, job.misfits)
    return Job(job.state, job.type, job.attempt, job.ready, history, job.misfits)


def fold_all(events: Iterable[Event], job: Job | None = None) -> Job | None:
    """`fold` over events in log order, decoding each."""
    for event in events:
        job = fold(job, *legible(event))
    return job


def positions(position: str, job: Job) -> list[str]:
    """The positions of all the job's events, the first included."""
    return [position, *(undelta(position, text) for text in job.history.split())]


def _ready(event: Event, body: Submitted | Rescheduled) -> int:
    if body.run_at:
        return body.run_at
    return milliseconds(event.position) + round(body.delay * 1000) if body.delay else 0
