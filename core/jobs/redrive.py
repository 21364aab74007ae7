"""Submit again what a filter selects: new jobs, made from ended ones, whose `origin` names them.

A retry (core/jobs/bulk.py) lets a job run again under its own id, once after each end. A redrive leaves
what was as it was, completed jobs too, and may change payloads on the way. It is a job itself, so it
tells its progress, cancelling it stops it, and it goes on elsewhere when its process dies.

Each job is submitted under an idempotency key of the redrive's id and the original's: carried out again,
the redrive submits what is missing and nothing twice.
"""

from typing import Annotated, Any, Final

import msgspec

from penstock.core.contracts import MAX_TIMEOUT_S, Backoff, contract
from penstock.core.jobs.bulk import QUEUE, Filter
from penstock.core.lifecycle import TERMINAL, State

TYPE: Final = "penstock.redrive"

MAX_ID_CHARS: Final = 100
MAX_RATE: Final = 100_000

RedriveId = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]


@contract(
    TYPE,
    queue=QUEUE,
    attempts=20,
    timeout=MAX_TIMEOUT_S,
    backoff=Backoff(base=1, factor=2, cap=60, jitter=0.2),
)
class Redrive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Submit all jobs that fit a filter again, as new jobs linked to their originals.

    Only ended jobs are meant: `failed` ones, unless the filter names another state. `patch`: a JSON merge
    patch (RFC 7396) to each payload. `rate`: at most so many jobs per second, 0 is as fast as it goes.
    `id`: a name under which it can be started again; that of its job if empty. `archived`: also jobs that
    retention has removed, which the archive tells of.
    """

    filter: Filter
    patch: dict[str, Any] = {}
    rate: Annotated[float, msgspec.Meta(ge=0, le=MAX_RATE)] = 0
    id: RedriveId = ""
    archived: bool = False

    def __post_init__(self) -> None:
        state = self.filter.state
        if state is not None and state not in TERMINAL:
            raise ValueError(f"does not apply to {state} jobs: only to completed, failed and cancelled ones")
        if self.filter.queue == QUEUE:
            raise ValueError(f"does not apply to queue {QUEUE!r}: an operation that failed can be retried")

    def states(self) -> tuple[State, ...]:
        """The states of the jobs that are meant."""
        return (self.filter.state,) if self.filter.state is not None else ("failed",)
