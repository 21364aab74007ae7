"""Events: immutable facts about a job, and how they are written.

A log entry has three fields, always in this order (Redis stores the names once per node):

    event   the tag: what happened, in the past tense
    job     the position of the job's first event; empty in that first event itself
    body    JSON, one Struct of this file; fields that equal their default are left out

Payloads and results pass through as raw JSON: they are never decoded and encoded on the way.

Growing: a new field gets a default, and old entries go on decoding. A change of shape gets a new
tag (`completed/2`) and an upcaster in `UPCASTERS`; `tests/unit/golden/` keeps the old bytes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.core.contracts import Backoff, Options, Priority


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all bodies share."""


class Needs(Body, frozen=True):
    """What a node of a flow is handed over: the results of what it waited for and their job types, and
    why others have none, where it runs all the same; each by the name of the node waited for."""

    results: dict[str, msgspec.Raw] = {}
    types: dict[str, str] = {}
    unmet: dict[str, str] = {}


class Submitted(Body, frozen=True):
    """A job was accepted. `delay` in s after this event, or `run_at` in Unix ms; 0 for now. `ttl`: in s
    after that, expires unless started. `group`: its concurrency key. `unique`: the key it held
    alone. `origin`: the id of the job (or flow) it was made from. `needs`: of a node of a flow."""

    type: str
    payload: msgspec.Raw
    priority: Priority = Options().priority
    attempts: int = Options().attempts
    backoff: Backoff = Options().backoff
    timeout: float = Options().timeout
    delay: float = 0
    run_at: int = 0
    tags: tuple[str, ...] = ()
    key: str = ""
    by: str = ""
    trace: str = ""
    ttl: float = 0
    group: str = ""
    unique: str = ""
    origin: str = ""
    needs: Needs | None = None


class Requeued(Submitted, frozen=True):
    """A job that had ended runs again: what to do, and from which end (a position) it is taken up."""

    after: str = ""


class Rescheduled(Body, frozen=True):
    """Before it started, the job got another time (`at_once`, `delay` in s after this event, or
    `run_at` in Unix ms; none: as it was) or another priority (empty: as it was)."""

    at_once: bool = False
    delay: float = 0
    run_at: int = 0
    priority: Priority | Literal[""] = ""
    by: str = ""


class Cancelled(Body, frozen=True):
    """Ended on request, wherever it was; or, of a failed job, dismissed."""

    by: str = ""
    reason: str = ""


class QueuePaused(Body, frozen=True):
    """The queue gives out no jobs; what runs goes on."""

    by: str = ""


class QueueResumed(Body, frozen=True):
    """The queue gives out jobs again."""

    by: str = ""


class QueueLimited(Body, frozen=True):
    """The queue's limits from now on; 0 is none. `rate` in jobs per second, at most `burst` at once;
    `concurrency` and `per_group` in running attempts over all workers; `backlog` in jobs."""

    rate: float = 0
    burst: int = 0
    concurrency: int = 0
    per_group: int = 0
    backlog: int = 0
    by: str = ""


class WorkerDrained(Body, frozen=True):
    """A worker was asked to leave: to take no more, finish what it runs, and give back the rest."""

    worker: str
    by: str = ""


class QueueRetained(Body, frozen=True):
    """How long the queue keeps jobs after their end, in s by outcome; 0 is as the settings say."""

    completed: float = 0
    failed: float = 0
    cancelled: float = 0
    by: str = ""


class Trimmed(Body, frozen=True):
    """Retention removed events from the log: all of some ended jobs, and some that belong to no job.

    Since the log began so many jobs with these outcomes went, and so many events. With this one went,
    from `first` to `last` (positions), those of `jobs` (the positions of their first events) and
    `loose` (events of no job), each as seen from `first` (`positions.delta`), separated by spaces.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    events: int = 0
    first: str = ""
    last: str = ""
    jobs: str = ""
    loose: str = ""


class Started(Body, frozen=True):
    """Attempt `attempt` was given to a worker."""

    attempt: int
    worker: str


class Progressed(Body, frozen=True):
    """The handler said how far it is; `fraction` from 0 to 1."""

    fraction: float
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class Logged(Body, frozen=True):
    """The handler kept a line for people."""

    line: str


class AttemptFailed(Body, frozen=True):
    """An attempt failed and another follows, `delay` seconds after this event."""

    attempt: int
    error: str
    message: str
    delay: float
    traceback: str = ""
    ms: float = 0


class LeaseExpired(Body, frozen=True):
    """The worker fell silent; the job is due again. `crashes` counts such losses."""

    worker: str
    crashes: int


class Released(Body, frozen=True):
    """The worker gave the job back without spending an attempt (it was told to leave)."""

    worker: str
    reason: str


class Completed(Body, frozen=True):
    """The handler returned; `ms` is how long it ran."""

    attempt: int = 1
    ms: float = 0
    result: msgspec.Raw = msgspec.Raw(b"null")


class Failed(Body, frozen=True):
    """Given up: the dead letter. `reason`: permanent (the handler said so), exhausted (no attempt
    left), crashed (it killed its workers), expired (not started within its ttl) or lost (its submitted
    event was trimmed by hand)."""

    reason: str
    error: str
    message: str
    attempt: int = 0
    traceback: str = ""
    ms: float = 0


AnyBody: TypeAlias = (
    Submitted
    | Requeued
    | Rescheduled
    | Started
    | Progressed
    | Logged
    | AttemptFailed
    | LeaseExpired
    | Released
    | Completed
    | Failed
    | Cancelled
    | QueuePaused
    | QueueResumed
    | QueueLimited
    | WorkerDrained
    | QueueRetained
    | Trimmed
)

TAGS: Final[Mapping[str, type[AnyBody]]] = {
    "submitted": Submitted,
    "requeued": Requeued,
    "rescheduled": Rescheduled,
    "started": Started,
    "progressed": Progressed,
    "logged": Logged,
    "attempt_failed": AttemptFailed,
    "lease_expired": LeaseExpired,
    "released": Released,
    "completed": Completed,
    "failed": Failed,
    "cancelled": Cancelled,
    "queue_paused": QueuePaused,
    "queue_resumed": QueueResumed,
    "queue_limited": QueueLimited,
    "worker_drained": WorkerDrained,
    "queue_retained": QueueRetained,
    "trimmed": Trimmed,
}

# Facts about the queue itself: their `job` is empty, as if each were a job's first event.
QUEUE_TAGS: Final = frozenset(
    {"queue_paused", "queue_resumed", "queue_limited", "worker_drained", "queue_retained", "trimmed"}
)

# Old tag → the present tag and how an old body becomes a present one. None is old yet.
UPCASTERS: Final[Mapping[str, tuple[str, Callable[[bytes], bytes]]]] = {}


class Event(msgspec.Struct, frozen=True):
    """An entry of the log: where it is, what happened, to which job, and the rest as JSON."""

    position: str
    tag: str
    job: str
    body: bytes


_decoders: Final[dict[str, Callable[[bytes], AnyBody]]] = {
    tag: msgspec.json.Decoder(shape).decode for tag, shape in TAGS.items()
}
_tags: Final = {tag.encode(): tag for tag in TAGS}  # one text each: quicker to look up than equal ones
encode: Final = msgspec.json.Encoder().encode


def read_entry(position: bytes, fields: list[bytes]) -> Event:
    """An Event from a stream entry as redis-py gives it (RESP2: id, flat list of fields).

    One that a foreign hand wrote, which has no such fields or no text in them, has no tag and no body.
    """
    where = position.decode()
    try:
        tag, job, body = _tags.get(fields[1]), fields[3].decode(), fields[5]
        name = tag or fields[1].decode()
    except (UnicodeDecodeError, IndexError):
        job = fields[3].decode(errors="replace") if len(fields) > 3 else ""
        return Event(where, "", job or where, b"null")
    if tag is None:
        tag = name
        if tag in UPCASTERS:
            tag, upcast = UPCASTERS[tag]
            body = upcast(body)
    return Event(where, tag, job or where, body)


def decode(event: Event) -> AnyBody | None:
    """The event's body; None for a tag this version does not know (kept, flagged, never guessed).

    Raises msgspec.DecodeError or msgspec.ValidationError for bytes that are no such body.
    """
    decoder = _decoders.get(event.tag)
    return decoder(event.body) if decoder else None


def as_builtins(event: Event) -> dict[str, Any]:
    """The body as plain data, for people: what is in the log, nothing added."""
    data: dict[str, Any] = msgspec.json.decode(event.body)
    return data
