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
from typing import Any, Final, TypeAlias

import msgspec

from penstock.core.contracts import Backoff, Options, Priority


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all bodies share."""


class Submitted(Body, frozen=True):
    """A job was accepted. `delay` in s after this event, or `run_at` in Unix ms; 0 for now."""

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
    """Given up: the dead letter. `reason`: permanent, exhausted or crashed."""

    reason: str
    error: str
    message: str
    attempt: int = 0
    traceback: str = ""
    ms: float = 0


AnyBody: TypeAlias = (
    Submitted | Started | Progressed | Logged | AttemptFailed | LeaseExpired | Released | Completed | Failed
)

TAGS: Final[Mapping[str, type[AnyBody]]] = {
    "submitted": Submitted,
    "started": Started,
    "progressed": Progressed,
    "logged": Logged,
    "attempt_failed": AttemptFailed,
    "lease_expired": LeaseExpired,
    "released": Released,
    "completed": Completed,
    "failed": Failed,
}

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
encode: Final = msgspec.json.Encoder().encode


def read_entry(position: bytes, fields: list[bytes]) -> Event:
    """An Event from a stream entry as redis-py gives it (RESP2: id, flat list of fields)."""
    where = position.decode()
    tag, job, body = fields[1].decode(), fields[3].decode(), fields[5]
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
