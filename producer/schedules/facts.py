"""What is said about schedules: the events of their ledger.

They stand in the log of the ledger `schedules`; where an event of a queue names its job, these name
their schedule. A tick is named by its nominal time in Unix ms, a trigger by its event's position.

    schedule_set         there is this schedule from now on, in place of what had its name
    schedule_removed     there is none of this name
    schedule_paused      no tick is due until it is resumed; ticks passed over are not made up for
    schedule_resumed
    schedule_triggered   a person asked for a job now
    schedule_due         decided: this tick gets a job
    schedule_fired       it has it
    schedule_skipped     decided: these ticks get none, and why
    schedule_kept        a schedule as it stood, said again so that older events can go
    schedules_kept       all of them were said again, from this position on

`schedule_due` comes before the job is submitted, and only one scheduler can write it (see ledger.py);
`schedule_fired` follows it. Whoever finds the first without the second submits again, under the
same idempotency key.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from penstock.core.append import Fact
from penstock.core.events import Body, Event, encode

LEDGER: Final = "schedules"

Overlap = Literal["skip", "queue", "cancel", "allow"]
CatchUp = Literal["none", "last", "all"]
Reason = Literal["missed", "superseded", "overlap", "full", "stale"]


class Schedule(Body, frozen=True):
    """When, what, and what if. Exactly one of `cron` and `every` (s) is set; `start` and `end` in Unix
    ms, 0 for none; `jitter` and `window` in s. `job` is the body of a `submitted` event, whole: a
    scheduler needs no contract, and what was checked when it was set is what runs."""

    queue: str
    job: msgspec.Raw
    cron: str = ""
    every: float = 0
    tz: str = "UTC"
    start: int = 0
    end: int = 0
    jitter: float = 0
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    window: float = 24 * 3600.0
    limit: int = 100

    @property
    def rhythm(self) -> tuple[str, float, str, int, int]:
        """What decides its ticks."""
        return self.cron, self.every, self.tz, self.start, self.end


class ScheduleSet(Body, frozen=True):
    schedule: Schedule
    by: str = ""


class ScheduleRemoved(Body, frozen=True):
    by: str = ""


class SchedulePaused(Body, frozen=True):
    by: str = ""


class ScheduleResumed(Body, frozen=True):
    by: str = ""


class ScheduleTriggered(Body, frozen=True):
    by: str = ""


class ScheduleDue(Body, frozen=True):
    """`caught_up`: its time had passed while no scheduler ran."""

    tick: str
    caught_up: bool = False


class ScheduleFired(Body, frozen=True):
    tick: str
    job: str


class ScheduleSkipped(Body, frozen=True):
    """Every tick from `first` until before `until` (Unix ms), or the one decided before, `tick`.

    `reason`: missed (no scheduler ran, and the schedule does not make up for it), superseded (a later
    one was due too), overlap (`job` was not over), full (as many wait as may), stale (it could not be
    submitted for a day)."""

    reason: Reason
    first: int = 0
    until: int = 0
    tick: str = ""
    job: str = ""


class Owed(Body, frozen=True):
    """A tick that is due and whose job is not known yet; `decided` in Unix ms. `schedule` is that of its
    decision, None while it still is the present one."""

    tick: str
    decided: int
    schedule: Schedule | None = None


class Decision(Body, frozen=True):
    """The newest decision of a schedule, as told to people."""

    position: str
    event: str
    tick: str = ""
    job: str = ""
    reason: str = ""


class Standing(Body, frozen=True):
    """A schedule as it stands: all ticks up to `cursor` (Unix ms) are decided; of these `owed` wait
    for their job, oldest first. `last_job` is the id of the job fired last."""

    schedule: Schedule
    set_at: int
    set_by: str
    cursor: int
    paused: bool = False
    owed: tuple[Owed, ...] = ()
    last_job: str = ""
    decision: Decision | None = None


class ScheduleKept(Body, frozen=True):
    standing: Standing


class SchedulesKept(Body, frozen=True):
    since: str


AnyFact = (
    ScheduleSet
    | ScheduleRemoved
    | SchedulePaused
    | ScheduleResumed
    | ScheduleTriggered
    | ScheduleDue
    | ScheduleFired
    | ScheduleSkipped
    | ScheduleKept
    | SchedulesKept
)

TAGS: Final[Mapping[str, type[AnyFact]]] = {
    "schedule_set": ScheduleSet,
    "schedule_removed": ScheduleRemoved,
    "schedule_paused": SchedulePaused,
    "schedule_resumed": ScheduleResumed,
    "schedule_triggered": ScheduleTriggered,
    "schedule_due": ScheduleDue,
    "schedule_fired": ScheduleFired,
    "schedule_skipped": ScheduleSkipped,
    "schedule_kept": ScheduleKept,
    "schedules_kept": SchedulesKept,
}
KEPT: Final = frozenset({"schedule_kept", "schedules_kept"})

_tag_of: Final = {shape: tag for tag, shape in TAGS.items()}
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    tag: msgspec.json.Decoder(shape) for tag, shape in TAGS.items()
}


def fact(name: str, body: AnyFact) -> Fact:
    """A body as it is appended; `name` is the schedule, empty for one about all of them."""
    return Fact(_tag_of[type(body)], encode(body), name)


def read(event: Event) -> AnyFact | None:
    """The event's body; None for one that this version cannot read."""
    decoder = _decoders.get(event.tag)
    if decoder is None:
        return None
    try:
        body: AnyFact = decoder.decode(event.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body
