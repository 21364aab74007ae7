"""One job as people see it: its story, told from its own events in the log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, cast

import msgspec

from penstock.core.contracts import Priority
from penstock.core.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Event,
    Failed,
    Progressed,
    Requeued,
    Rescheduled,
    Started,
    Submitted,
)
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import TRANSITIONS, Job, Read, State, fold, legible
from penstock.core.positions import milliseconds, undelta
from penstock.core.sealing import Seals
from penstock.projections.sealed import shown, shown_body, shown_text

MAX_EVENTS: Final = 1_000

Instant = Annotated[str, msgspec.Meta(description="ISO 8601, UTC, in ms, by the server's clock")]
Milliseconds = Annotated[float, msgspec.Meta(description="duration in ms")]
JobId = Annotated[str, msgspec.Meta(examples=["email.0.1795477369681-0"])]


class Progress(msgspec.Struct):
    """How far the attempt is, as its handler said last; `fraction` from 0 to 1."""

    fraction: float
    message: str
    data: msgspec.Raw


class Failure(msgspec.Struct):
    """How the last attempt that failed did so. `reason` tells why the job was given up (permanent,
    exhausted, crashed, lost); empty while another attempt follows."""

    error: str
    message: str
    reason: str
    traceback: str


class JobDetail(msgspec.Struct):
    """A job. `started_at`, `progress`, `wait_ms` and `run_ms` are those of its last attempt; `error`
    is that of the last attempt that failed, unless another one completed."""

    id: JobId
    queue: str
    type: str
    state: State
    priority: Priority
    attempt: Annotated[int, msgspec.Meta(description="attempts begun")]
    attempts: Annotated[int, msgspec.Meta(description="attempts allowed")]
    timeout: Annotated[float, msgspec.Meta(description="seconds an attempt may take")]
    tags: tuple[str, ...]
    key: Annotated[str, msgspec.Meta(description="idempotency key")]
    by: Annotated[str, msgspec.Meta(description="who submitted it")]
    payload: msgspec.Raw
    submitted_at: Instant
    ready_at: Annotated[str, msgspec.Meta(description="when it may run, or might since; ISO 8601, UTC")]
    started_at: Instant | None = None
    finished_at: Instant | None = None
    wait_ms: Milliseconds | None = None
    run_ms: Milliseconds | None = None
    progress: Progress | None = None
    result: msgspec.Raw | None = None
    error: Failure | None = None
    origin: Annotated[str, msgspec.Meta(description="the job (or flow) that it was made from")] = ""
    group: Annotated[str, msgspec.Meta(description="concurrency key")] = ""
    unique: Annotated[str, msgspec.Meta(description="the key that it held alone")] = ""
    ttl: Annotated[float, msgspec.Meta(description="seconds in which it had to start; 0 is no bound")] = 0
    misfits: Annotated[
        int, msgspec.Meta(description="events that did not fit its state, or were unreadable")
    ] = 0


class JobSummary(msgspec.Struct):
    """A job in a list."""

    id: JobId
    queue: str
    type: str
    state: State
    attempt: int
    submitted_at: Instant
    ready_at: Instant
    updated_at: Instant
    misfits: int


class EventDetail(msgspec.Struct):
    """An event as it stands in the log."""

    position: str
    at: Instant
    event: str
    data: msgspec.Raw


def instant(ms: int) -> str:
    """Unix ms as ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def summary(keys: PartitionKeys, position: str, job: Job) -> JobSummary:
    """A job's row, for a list."""
    submitted = milliseconds(position)
    _, _, last = job.history.rpartition(" ")
    updated = milliseconds(undelta(position, last)) if last else submitted
    return JobSummary(
        id=keys.job_id(position),
        queue=keys.queue,
        type=job.type,
        state=job.state,
        attempt=job.attempt,
        submitted_at=instant(submitted),
        ready_at=instant(job.ready or submitted),
        updated_at=instant(updated),
        misfits=job.misfits,
    )


def event_detail(event: Event, type: str = "", seals: Seals | None = None) -> EventDetail:
    """An event of a job of this type, for people; a body that is no JSON is shown as text, and what is
    sealed only with `seals`."""
    try:
        data = msgspec.json.decode(shown_body(event, type, seals), type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        data = msgspec.Raw(msgspec.json.encode(event.body.decode(errors="replace")))
    return EventDetail(event.position, instant(milliseconds(event.position)), event.tag, data)


def detail(keys: PartitionKeys, job: Job, events: Sequence[Event], seals: Seals | None = None) -> JobDetail:
    """The story of `job`, told from its events: the first, and as many of the last as were read. What is
    sealed is shown with `seals` only."""
    first, *others = map(legible, events)
    opening = first[1]
    assert isinstance(opening, Submitted)  # noqa: S101 - the caller looked
    submitted = milliseconds(first[0].position)
    told = JobDetail(
        id=keys.job_id(first[0].position),
        queue=keys.queue,
        type=job.type,
        state=job.state,
        priority=opening.priority,
        attempt=job.attempt,
        attempts=opening.attempts,
        timeout=opening.timeout,
        tags=opening.tags,
        key=opening.key,
        by=opening.by,
        payload=opening.payload,
        submitted_at=instant(submitted),
        ready_at=instant(job.ready or submitted),
        origin=opening.origin,
        group=opening.group,
        unique=opening.unique,
        ttl=opening.ttl,
        misfits=job.misfits,
    )
    complete = len(events) == 1 + len(job.history.split())
    row = fold(None, *first)
    if others and not complete:
        row = _resumed(job, others[0][0])
    for event, body in others:
        before, row = row, fold(row, event, body)
        if before is not None and row is not None and row.misfits == before.misfits:
            _tell(told, (event, body), before.ready or (submitted if complete else None))
    _show(told, seals)
    return told


def _show(told: JobDetail, seals: Seals | None) -> None:
    """Open what is sealed, or hide it."""
    told.payload = shown(told.payload, told.type, "payload", seals)
    if told.result is not None:
        told.result = shown(told.result, told.type, "result", seals)
    if told.progress is not None:
        told.progress.message = shown_text(told.progress.message, told.type, "message", seals)
        told.progress.data = shown(told.progress.data, told.type, "data", seals)
    if told.error is not None:
        told.error.message = shown_text(told.error.message, told.type, "message", seals)
        told.error.traceback = shown_text(told.error.traceback, told.type, "traceback", seals)


def _resumed(job: Job, event: Event) -> Job:
    """The job before `event`, as far as one can tell without what came earlier: in a state in which
    that event may happen."""
    state = next((state for state, tag in TRANSITIONS if tag == event.tag), job.state)
    return Job(cast(State, state), job.type)


def _tell(told: JobDetail, read: Read, ready: int | None) -> None:
    """Go on with the story by an event that fits; the job was ready at `ready` (ms), if that is known."""
    event, body = read
    now = milliseconds(event.position)
    match body:
        case Requeued():
            told.payload, told.priority, told.attempts = body.payload, body.priority, body.attempts
            told.timeout, told.by = body.timeout, body.by
            told.started_at = told.finished_at = told.wait_ms = told.run_ms = None
            told.progress = told.result = told.error = None
        case Rescheduled(priority=priority) if priority:
            told.priority = priority
        case Started():
            told.started_at = instant(now)
            told.wait_ms = None if ready is None else max(0, now - ready)
            told.run_ms = told.progress = None
        case Progressed():
            told.progress = Progress(body.fraction, body.message, body.data)
        case AttemptFailed():
            told.run_ms = body.ms
            told.error = Failure(body.error, body.message, "", body.traceback)
        case Failed():
            told.finished_at, told.run_ms = instant(now), body.ms or None
            told.error = Failure(body.error, body.message, body.reason, body.traceback)
        case Cancelled():
            told.finished_at = instant(now)
            told.error = Failure("Cancelled", body.reason, "cancelled", "")
        case Completed():
            told.finished_at, told.run_ms = instant(now), body.ms
            told.result, told.error = body.result, None
