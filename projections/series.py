"""Time series of a queue for charts, out of the projected minutes: they survive restarts, and nothing is
counted when they are asked for. Minutes go back 48 hours.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import FieldProblem, InvalidJob
from penstock.core.keys import PartitionKeys
from penstock.projections.figures import quantiles
from penstock.projections.tally import Totals
from penstock.projections.views import MINUTE_MS, MINUTES_KEPT, Minute, read_minute

MAX_POINTS: Final = 1_500
GOOD_POINTS: Final = 240
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60)  # minutes

Column = Annotated[list[int], msgspec.Meta(description="one number a point")]


class Durations(msgspec.Struct):
    """Quantiles in ms, one a point; null where there was none."""

    p50: list[float | None]
    p95: list[float | None]
    p99: list[float | None]


class Series(msgspec.Struct):
    """Columns of equal length. `at`: where each point's time begins, in Unix ms; the last one may still
    be running. Counts are of events in that time."""

    queue: str
    step_s: int
    at: Column
    submitted: Column
    started: Column
    completed: Column
    failed: Column
    retried: Column
    cancelled: Column
    wait_ms: Durations
    run_ms: Durations


async def read_series(redis: Redis, keys: PartitionKeys, since: int, until: int, step_s: int = 0) -> Series:
    """Between two moments (Unix ms), which are taken back to a point's beginning. Raises InvalidJob."""
    step = step_of(since, until, step_s)
    first, last = since // MINUTE_MS // step * step, until // MINUTE_MS
    oldest = last - MINUTES_KEPT
    first = max(first, oldest // step * step)
    numbers = range(first, last + 1)
    raw = await command(redis, "HMGET", keys.minutes, *numbers)
    minutes = [read_minute(it) if it else Minute() for it in raw]
    groups = [minutes[start : start + step] for start in range(0, len(minutes), step)]

    def column(name: str) -> list[int]:
        return [sum(getattr(minute.totals, name) for minute in group) for group in groups]

    counted = {name: column(name) for name in Series.__struct_fields__ if name in Totals.__struct_fields__}
    return Series(
        queue=keys.queue,
        step_s=step * 60,
        at=[number * MINUTE_MS for number in numbers[::step]],
        wait_ms=_durations(groups, "wait"),
        run_ms=_durations(groups, "run"),
        **counted,
    )


def step_of(since: int, until: int, step_s: int) -> int:
    """The step in minutes; where none is asked for, one that makes a good chart. Raises InvalidJob."""
    if since >= until:
        raise InvalidJob([FieldProblem("to", "is not after `from`")])
    length = min((until - since) // MINUTE_MS + 1, MINUTES_KEPT)
    if not step_s:
        return next((step for step in _STEPS if length / step <= GOOD_POINTS), _STEPS[-1])
    if step_s % 60 or not 60 <= step_s <= 24 * 3600:
        raise InvalidJob([FieldProblem("step", "is no number of whole minutes, in s, up to a day")])
    if length * 60 / step_s > MAX_POINTS:
        raise InvalidJob([FieldProblem("step", f"makes more than {MAX_POINTS} points")])
    return step_s // 60


def _durations(groups: Sequence[Sequence[Minute]], name: str) -> Durations:
    told = [quantiles([getattr(minute, name) for minute in group]) for group in groups]
    return Durations([it.p50 for it in told], [it.p95 for it in told], [it.p99 for it in told])
