"""When a schedule ticks: cron expressions in a time zone, and intervals.

Times are Unix ms. cronsim parses and steps; it is written to agree with Debian's cron, which is Vixie
cron's rule for the days on which clocks change:

- A time of day (neither minute nor hour begins with `*`) that is skipped ticks at the jump, once,
  however many of its times were skipped. One that comes twice ticks the first time only.
- Everything else (`*/15 * * * *`, `0 * * * *`) follows real time: an hour that comes twice has its
  ticks twice, an hour that is skipped has none.

An interval ticks at `start` and then every so many seconds; without `start` it counts from 1970, so
that an interval of 3,600 s ticks on the hour in UTC and needs no memory of when it was set.
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from penstock.producer.schedules.facts import Schedule

ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = 5
_MINUTE_MS: Final = 60_000

Rhythm = tuple[str, float, str, int, int]


def cron_problem(expression: str) -> str:
    """What is wrong with a cron expression; empty if nothing is."""
    if len(_spelt(expression).split()) != _FIELDS:
        return "give five fields, minute hour day month weekday, or one of " + " ".join(ALIASES)
    try:
        CronSim(_spelt(expression), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        return str(error).lower()
    return ""


def zone_problem(tz: str) -> str:
    """What is wrong with a time zone's name; empty if nothing is."""
    try:
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"no time zone {tz!r} (like Europe/Berlin)"
    return ""


def after(schedule: Schedule, moment: int) -> int | None:
    """The first tick after a moment; None if there is none (within 50 years, for cron)."""
    return _after(schedule.rhythm, moment)


def newest(schedule: Schedule, moment: int, until: int, limit: int) -> list[int]:
    """Of the ticks after `moment`, up to and with `until`, the last `limit`, oldest first."""
    # Looked for from the end: a rhythm may have ticked a million times since `moment`.
    span = limit * (_step(schedule.every) or _MINUTE_MS)
    while True:
        since = max(moment, until - span)
        found = deque(_between(schedule.rhythm, since, until), maxlen=limit)
        if len(found) == limit or since == moment:
            return list(found)
        span *= 8


def following(schedule: Schedule, moment: int, count: int) -> list[int]:
    """The first `count` ticks after a moment."""
    found: list[int] = []
    while len(found) < count:
        tick = after(schedule, found[-1] if found else moment)
        if tick is None:
            break
        found.append(tick)
    return found


@lru_cache(maxsize=4096)
def _after(rhythm: Rhythm, moment: int) -> int | None:
    end = rhythm[4]
    tick = next(_ticks(rhythm, moment), None)
    return None if tick is None or (end and tick > end) else tick


def _between(rhythm: Rhythm, moment: int, until: int) -> Iterator[int]:
    end = rhythm[4]
    for tick in _ticks(rhythm, moment):
        if tick > until or (end and tick > end):
            return
        yield tick


def _ticks(rhythm: Rhythm, moment: int) -> Iterator[int]:
    """All ticks after a moment, whatever the end."""
    cron, every, tz, start, _ = rhythm
    if every:
        step = _step(every)
        tick = start + max(0, (moment - start) // step + 1) * step
        while True:
            yield tick
            tick += step
    moment = max(moment, start - 1)
    expression, zone = _spelt(cron), ZoneInfo(tz)
    minute, hour = expression.split()[:2]
    is_time_of_day = not minute.startswith("*") and not hour.startswith("*")
    for found in (_times_of_day if is_time_of_day else _real_time)(expression, zone, floor(moment / 1000)):
        tick = found * 1000
        # An hour that comes twice is gone through again, where its first time was before `moment`.
        if tick > moment:
            moment = tick
            yield tick


def _times_of_day(expression: str, zone: ZoneInfo, second: int) -> Iterator[int]:
    """The ticks of a time of day, in Unix s, after a second or in the hour before it."""
    for found in CronSim(expression, datetime.fromtimestamp(second, zone)):
        yield round(found.timestamp())


def _real_time(expression: str, zone: ZoneInfo, second: int) -> Iterator[int]:
    """The ticks that follow real time, in Unix s, after a second.

    While clocks do not change, local time is as even as UTC, and cronsim steps it without a zone. Of
    zones it assumes that clocks change by whole hours, and those of Lord Howe change by half of one.
    """
    begin = second + 1
    while True:
        offset = _offset(zone, begin)
        for found in CronSim(
            expression, datetime.fromtimestamp(begin - 1 + offset, UTC).replace(tzinfo=None)
        ):
            tick = int(found.replace(tzinfo=UTC).timestamp()) - offset
            if _offset(zone, tick) != offset:
                begin = _change(zone, begin, tick)
                break
            yield tick
            begin = tick
        else:
            return


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """A second between the two at which clocks change; they do not agree at `low` and `high`."""
    offset = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
    return high


def _offset(zone: ZoneInfo, second: int) -> int:
    """How far local time is ahead of UTC, in s."""
    ahead = datetime.fromtimestamp(second, zone).utcoffset()
    return int(ahead.total_seconds()) if ahead is not None else 0


def _spelt(expression: str) -> str:
    return ALIASES.get(expression.strip().lower(), expression)


def _step(every: float) -> int:
    return round(every * 1000)
