"""The schedules as their events tell them: the one fold.

Pure: it asks no clock and no server. The API, the schedulers and the tests all call it. An event about
a schedule that is not there (its beginning went with old events) changes nothing.
"""

from collections.abc import Iterable

import msgspec

from penstock.core.events import Event
from penstock.core.positions import milliseconds
from penstock.producer.schedules.facts import (
    AnyFact,
    Decision,
    Owed,
    ScheduleDue,
    ScheduleFired,
    ScheduleKept,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSet,
    SchedulesKept,
    ScheduleSkipped,
    ScheduleTriggered,
    Standing,
    read,
)

replace = msgspec.structs.replace


class Book(msgspec.Struct):
    """All schedules, by name. `kept_since` is where the newest saying of all of them begins (empty if
    there was none), and `events` how many came after it."""

    standings: dict[str, Standing] = {}
    kept_since: str = ""
    events: int = 0

    def add(self, events: Iterable[Event]) -> None:
        """Go on with the ledger's next events."""
        for event in events:
            body = read(event)
            if isinstance(body, SchedulesKept):
                self.kept_since, self.events = body.since, 0
                continue
            self.events += 1
            standing = fold(self.standings.get(event.job), event, body)
            if standing is None:
                self.standings.pop(event.job, None)
            else:
                self.standings[event.job] = standing


def fold(standing: Standing | None, event: Event, body: AnyFact | None) -> Standing | None:
    """The schedule after `event`, whose body is `body`; None if there is none of its name."""
    if isinstance(body, ScheduleKept):
        return body.standing
    if isinstance(body, ScheduleSet):
        return _set(standing, milliseconds(event.position), body)
    if standing is None or isinstance(body, ScheduleRemoved):
        return None
    match body:
        case SchedulePaused():
            return replace(standing, paused=True)
        case ScheduleResumed():
            return replace(standing, paused=False, cursor=milliseconds(event.position))
        case ScheduleTriggered():
            return _owing(standing, event, event.position)
        case ScheduleDue():
            standing = replace(standing, cursor=max(standing.cursor, int(body.tick)))
            return _owing(standing, event, body.tick)
        case ScheduleFired():
            told = Decision(event.position, event.tag, body.tick, body.job)
            return replace(_settled(standing, body.tick), last_job=body.job, decision=told)
        case ScheduleSkipped():
            tick = body.tick or str(body.first)
            told = Decision(event.position, event.tag, tick, body.job, body.reason)
            cursor = max(standing.cursor, body.until - 1)
            return replace(_settled(standing, body.tick), cursor=cursor, decision=told)
    return standing


def _set(standing: Standing | None, at: int, body: ScheduleSet) -> Standing:
    """A new rhythm begins now, and what the old one left undecided is dropped with it; with the same
    rhythm no tick is lost. What was decided gets the job that it was decided for."""
    if standing is None:
        return Standing(body.schedule, at, body.by, cursor=at)
    same = standing.schedule.rhythm == body.schedule.rhythm
    owed = tuple(replace(it, schedule=it.schedule or standing.schedule) for it in standing.owed)
    return replace(
        standing,
        schedule=body.schedule,
        set_at=at,
        set_by=body.by,
        cursor=standing.cursor if same else at,
        owed=owed,
    )


def _owing(standing: Standing, event: Event, tick: str) -> Standing:
    return replace(standing, owed=(*standing.owed, Owed(tick, milliseconds(event.position))))


def _settled(standing: Standing, tick: str) -> Standing:
    return replace(standing, owed=tuple(it for it in standing.owed if it.tick != tick)) if tick else standing
