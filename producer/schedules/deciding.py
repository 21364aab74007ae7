"""What becomes of the ticks whose time has come: pure, so that every case can be tested by itself.

A tick is on time up to GRACE_S after its nominal time; later it was missed: no scheduler ran. By the
schedule's `catch_up`

    none    what was missed is skipped
    last    one job for all that is due, if any was missed; what is on time gets one each
    all     each gets one: of those missed within `window` the newest `limit`

and then by its `overlap`, while the job fired before is not over,

    skip      the tick is skipped
    queue     it waits for the end of that job, and those after it wait for it, at most MAX_OWED
    cancel    that job is cancelled; of several that are due at once only the last one runs
    allow     it runs beside it
"""

from typing import Final

from penstock.producer.schedules.facts import AnyFact, ScheduleDue, ScheduleSkipped, Standing
from penstock.producer.schedules.timing import after, newest

GRACE_MS: Final = 60_000
MAX_OWED: Final = 100
# Ticks are at least a second apart, so within the grace there are at most so many.
MAX_ON_TIME: Final = GRACE_MS // 1000


def is_due(standing: Standing, now: int) -> bool:
    """Whether there is something to decide."""
    tick = None if standing.paused else after(standing.schedule, standing.cursor)
    return tick is not None and tick <= now


def decide(standing: Standing, now: int, *, busy: bool) -> list[AnyFact]:
    """The decisions on all ticks up to `now` (Unix ms). `busy`: the job fired last is not over."""
    first = None if standing.paused else after(standing.schedule, standing.cursor)
    if first is None or first > now:
        return []
    run = _chosen(standing, first, now)
    if standing.schedule.overlap == "cancel":
        passed, run = run[:-1], run[-1:]
    else:
        passed = []
    decided: list[AnyFact] = []
    begin = (passed or run or [now + 1])[0]
    if first < begin:
        decided.append(ScheduleSkipped("missed", first, begin))
    decided += [ScheduleSkipped("superseded", tick, tick + 1) for tick in passed]
    return decided + _overlapping(standing, run, now - GRACE_MS, busy=busy or bool(standing.owed))


def _chosen(standing: Standing, first: int, now: int) -> list[int]:
    """The ticks that the catch-up policy lets through; no tick lies between two of them."""
    schedule, begun = standing.schedule, now - GRACE_MS
    on_time = newest(schedule, max(standing.cursor, begun), now, MAX_ON_TIME)
    if first > begun or schedule.catch_up == "none":
        return on_time
    if schedule.catch_up == "last":
        return on_time[-1:] or newest(schedule, standing.cursor, begun, 1)
    since = max(standing.cursor, now - round(schedule.window * 1000))
    return newest(schedule, since, begun, schedule.limit) + on_time


def _overlapping(standing: Standing, run: list[int], begun: int, *, busy: bool) -> list[AnyFact]:
    decided: list[AnyFact] = []
    owed, overlap = len(standing.owed), standing.schedule.overlap
    for tick in run:
        if overlap == "skip" and busy:
            decided.append(ScheduleSkipped("overlap", tick, tick + 1, job=standing.last_job))
        elif owed >= MAX_OWED and overlap == "queue":
            decided.append(ScheduleSkipped("full", tick, tick + 1, job=standing.last_job))
        else:
            decided.append(ScheduleDue(str(tick), caught_up=tick <= begun))
            owed, busy = owed + 1, True
    return decided
