"""Everything Penstock raises, as one tree; the policy travels with the error.

    PenstockError
    ├── Refused                  the request is wrong; nothing was written
    │   ├── InvalidJob           a field is wrong: `problems` names each one with its path
    │   ├── UnknownType          no contract of that name is loaded here
    │   ├── TooLarge             over a stated bound
    │   ├── NotFound             no such job, queue, worker or artifact
    │   └── WrongState           a command that a job or worker cannot follow now: over, or begun
    ├── Unavailable              right request, wrong moment: try again after `retry_after` seconds
    │   └── BacklogFull          the queue's backlog bound is reached
    ├── Misconfigured            a setting or the server is not as it must be; says what to change
    ├── JobFailed                whoever awaited its result: the job ended without one
    └── HandlerError             raised by handlers to say how their attempt ended
        ├── Permanent            fail at once; trying again cannot help
        │   └── Unrehearsed      in a rehearsal: this cannot be done without a side effect
        └── RetryLater           try again after `after` seconds, not by the job's backoff

Any other exception that leaves a handler is a failed attempt, retried by the job's backoff.
"""

import math
from typing import Final

import msgspec

MAX_RETRY_AFTER_S: Final = 366 * 24 * 3600.0


class PenstockError(Exception):
    """Root of the tree."""


class FieldProblem(msgspec.Struct, frozen=True):
    """One wrong field: `path` as in `payload.sizes[2].width`, `message` what is wrong with it."""

    path: str
    message: str


class Refused(PenstockError):
    """The request is wrong; nothing was written."""


class InvalidJob(Refused):
    """One or more fields are wrong. `problems` is never empty."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        self.problems: Final = problems
        super().__init__("; ".join(f"{p.path}: {p.message}" if p.path else p.message for p in problems))


class UnknownType(Refused):
    """No contract of that name is loaded in this process."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name: Final = name
        self.known: Final = known
        super().__init__(f"unknown job type {name!r}; known here: {', '.join(known) or 'none'}")


class TooLarge(Refused):
    """Over a stated bound (`limit`, in the unit that `what` names)."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.limit: Final = limit
        super().__init__(f"{what}: {size} is over the limit of {limit}")


class NotFound(Refused):
    """No such job, queue, worker or artifact."""


class WrongState(Refused):
    """A command came too late, or too early: the job is over, has started, does not wait. Says why."""


class Unavailable(PenstockError):
    """Right request, wrong moment: try again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after: Final = retry_after
        super().__init__(message)


class BacklogFull(Unavailable):
    """As many jobs wait as the queue may hold."""


class Misconfigured(PenstockError):
    """A setting or the server is not as it must be. The message says what to change."""


class JobFailed(PenstockError):
    """The awaited job ended without a result. `reason` as in the `failed` event."""

    def __init__(self, job_id: str, reason: str, error: str, message: str) -> None:
        self.job_id: Final = job_id
        self.reason: Final = reason
        self.error: Final = error
        super().__init__(f"{job_id} failed ({reason}): {error}: {message}")


class HandlerError(PenstockError):
    """Raised by handlers to say how their attempt ended."""


class Permanent(HandlerError):
    """Fail at once: trying again cannot help (a bad address, a broken file)."""


class Unrehearsed(Permanent):
    """In a rehearsal (`context.rehearsal`): from here on the work has effects elsewhere, so it ends without
    an outcome."""


class RetryLater(HandlerError):
    """Try again after `after` seconds (a remote Retry-After), not by the job's backoff; at once if
    that is past, within 366 days at most. Raises TypeError or ValueError for what is no time."""

    def __init__(self, message: str, after: float) -> None:
        if not math.isfinite(after):
            raise ValueError(f"RetryLater: {after} is no time to wait")
        self.after: Final = min(max(after, 0.0), MAX_RETRY_AFTER_S)
        super().__init__(message)
