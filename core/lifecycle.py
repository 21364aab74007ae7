"""The life of a job: which event leads from which state to which, and the one fold.

             submitted ──────────────► waiting ◄─────────────── lease_expired
                 │ (with a delay)         │ started              or released
                 ▼                        ▼                           │
              delayed ────started────► active ────────────────────────┘
                 ▲                        │ │
                 └────attempt_failed──────┘ ├── completed ──► completed
                                            └── failed ─────► failed

`fold` is the only code that computes a state: projectors, the API's catch-up read, replay and the
tests all call it. An event that does not fit the state changes nothing but the count `misfits`.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from penstock.core.events import AnyBody, AttemptFailed, Event, Started, Submitted, decode
from penstock.core.positions import delta, milliseconds, undelta

State = Literal["waiting", "delayed", "active", "completed", "failed"]

STATES: Final[tuple[State, ...]] = ("waiting", "delayed", "active", "completed", "failed")
TERMINAL: Final[frozenset[str]] = frozenset({"completed", "failed"})

# (state before, tag) → state after. `submitted` opens a job and stands in `fold`.
# A worker may die, or be told to leave, between taking a job and `started`: hence the rows that
# lead from waiting and delayed to waiting, and from them to failed (a job that kills its workers).
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
    ("active", "failed"): "failed",
    ("waiting", "failed"): "failed",
    ("delayed", "failed"): "failed",
}


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


def fold(job: Job | None, event: Event, body: AnyBody | None) -> Job | None:
    """The job after `event`, whose decoded body is `body`. Pure.

    None stays None for an event of a job never submitted (its beginning was trimmed away).
    """
    if job is None:
        if not isinstance(body, Submitted):
            return None
        ready = _ready(event, body)
        return Job("delayed" if ready else "waiting", body.type, 0, ready)
    history = (
        f"{job.history} {delta(event.job, event.position)}"
        if job.history
        else delta(event.job, event.position)
    )
    state = TRANSITIONS.get((job.state, event.tag))
    if state is None:
        return Job(job.state, job.type, job.attempt, job.ready, history, job.misfits + 1)
    if isinstance(body, Started):
        return Job(state, job.type, body.attempt, job.ready, history, job.misfits)
    if isinstance(body, AttemptFailed):
        ready = milliseconds(event.position) + round(body.delay * 1000)
        return Job(state, job.type, job.attempt, ready, history, job.misfits)
    if state == "waiting":
        return Job(state, job.type, job.attempt, milliseconds(event.position), history, job.misfits)
    return Job(state, job.type, job.attempt, job.ready, history, job.misfits)


def fold_all(events: Iterable[Event], job: Job | None = None) -> Job | None:
    """`fold` over events in log order, decoding each."""
    for event in events:
        job = fold(job, event, decode(event))
    return job


def positions(position: str, job: Job) -> list[str]:
    """The positions of all the job's events, the first included."""
    return [position, *(undelta(position, text) for text in job.history.split())]


def _ready(event: Event, body: Submitted) -> int:
    if body.run_at:
        return body.run_at
    return milliseconds(event.position) + round(body.delay * 1000) if body.delay else 0
