"""Many jobs at once: an operation is itself a job, so it has progress and a history, can be cancelled,
and goes on elsewhere when its process dies.

    act            applies to jobs that are                 the filter's state left out means
    retry          failed, cancelled, completed             failed
    cancel         waiting, delayed, active                 all of these
    discard        failed: laid to rest as cancelled        failed
    promote        delayed: may run now                     delayed
    reprioritize   waiting: another priority                waiting

It acts on what was so when it was asked for, and each end is taken up once: so it may be carried out
again from its beginning, as after a crash, and changes nothing twice.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from penstock.core.contracts import MAX_TIMEOUT_S, Backoff, Priority, contract
from penstock.core.lifecycle import State

QUEUE: Final = "penstock"

Act = Literal["retry", "cancel", "discard", "promote", "reprioritize"]

APPLIES: Final[Mapping[Act, tuple[State, ...]]] = {
    "retry": ("failed", "cancelled", "completed"),
    "cancel": ("waiting", "delayed", "active"),
    "discard": ("failed",),
    "promote": ("delayed",),
    "reprioritize": ("waiting",),
}

Words = Annotated[str, msgspec.Meta(max_length=300)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs: those that fit all that is said; at least one thing must be.

    `error`: a part of the last error as `Class: message`. `tag`: one of its tags. `since`, `until`:
    when it was submitted, ISO 8601 with a time zone; `until` is not included.
    """

    queue: Words = ""
    type: Words = ""
    state: State | None = None
    error: Words = ""
    tag: Words = ""
    since: Moment | None = None
    until: Moment | None = None

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in self.__struct_fields__):
            raise ValueError("is empty: say which jobs are meant, at least by queue, type or state")
        if self.since and self.until and self.since >= self.until:
            raise ValueError("ends before it begins: `until` is not after `since`")


@contract(
    "penstock.bulk", attempts=20, timeout=MAX_TIMEOUT_S, backoff=Backoff(base=1, factor=2, cap=60, jitter=0.2)
)
class Bulk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Do something to all jobs that fit a filter. `priority` is for `reprioritize` alone."""

    act: Act
    filter: Filter
    priority: Priority | None = None

    def __post_init__(self) -> None:
        state, states = self.filter.state, APPLIES[self.act]
        if state is not None and state not in states:
            raise ValueError(f"{self.act} does not apply to {state} jobs, only to {', '.join(states)} ones")
        if (self.priority is not None) != (self.act == "reprioritize"):
            raise ValueError("give a priority with reprioritize, and with no other act")

    def states(self) -> tuple[State, ...]:
        """The states of the jobs that are meant."""
        if self.filter.state is not None:
            return (self.filter.state,)
        return ("failed",) if self.act == "retry" else APPLIES[self.act]
