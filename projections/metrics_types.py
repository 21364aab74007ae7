"""What the views have counted, as samples: by queue and by type of job, of which MAX_TYPES are told apart.

Told apart are those whose first job came first, so that a type never changes between itself and `other`;
`other` has the rest, so that the sum over all is what the log says.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from penstock.core import telemetry as names
from penstock.core.lifecycle import STATES
from penstock.core.probes import Distribution, Sample
from penstock.core.telemetry import MAX_TYPES, OTHER, Instrument
from penstock.projections.tally import BOUNDS_MS, Spread, Tally, Totals
from penstock.projections.views import Counts, Stats

T = TypeVar("T", Counts, Totals)

BOUNDS_S: Final = tuple(bound / 1000 for bound in BOUNDS_MS)

_COUNTERS: Final[dict[str, Instrument]] = {
    "submitted": names.SUBMITTED,
    "started": names.STARTED,
    "completed": names.COMPLETED,
    "failed": names.FAILED,
    "retried": names.RETRIED,
    "lease_expired": names.LEASE_EXPIRED,
    "released": names.RELEASED,
    "cancelled": names.CANCELLED,
    "requeued": names.REQUEUED,
}


def counted(queue: str, stats: Stats) -> Iterator[Sample]:
    """The samples of one queue."""
    shown = told_apart(stats)
    for type in shown:
        yield from _of_type(queue, type, stats.tallies[type], stats.types.get(type, Counts()))
    others = [tally for type, tally in stats.tallies.items() if type not in shown]
    rest = _rest(stats.totals, [stats.tallies[type].totals for type in shown])
    if others or any(getattr(rest, name) for name in _COUNTERS):
        left = [counts for type, counts in stats.types.items() if type not in shown]
        yield from _of_type(queue, OTHER, _together(rest, others), _sum(Counts, left))
    yield Sample(names.MISFITS, stats.totals.misfits, (queue,))
    for reason, count in stats.reasons.items():
        yield Sample(names.DEAD_LETTERS, count, (queue, reason))
    for outcome in ("completed", "failed", "cancelled"):
        yield Sample(names.TRIMMED, getattr(stats.trimmed, outcome), (queue, outcome))


def told_apart(stats: Stats) -> list[str]:
    """The types that are told apart, the one seen first first."""
    types = sorted(stats.tallies, key=lambda type: (stats.tallies[type].first, type))
    return [type for type in types if type != OTHER][:MAX_TYPES]


def _of_type(queue: str, type: str, tally: Tally, counts: Counts) -> Iterator[Sample]:
    labels = (queue, type)
    for name, counter in _COUNTERS.items():
        yield Sample(counter, getattr(tally.totals, name), labels)
    for histogram, spread in ((names.WAIT, tally.wait), (names.RUN, tally.run), (names.WHOLE, tally.whole)):
        yield Sample(histogram, Distribution(BOUNDS_S, spread.counts, spread.us / 1e6), labels)
    for state in STATES:
        yield Sample(names.JOBS, getattr(counts, state), (*labels, state))


def _rest(totals: Totals, parts: Sequence[Totals]) -> Totals:
    """What is in `totals` and in no part: also what names a job that nobody knows."""
    shown = _sum(Totals, parts)
    return Totals(**{it: getattr(totals, it) - getattr(shown, it) for it in Totals.__struct_fields__})


def _together(totals: Totals, parts: Sequence[Tally]) -> Tally:
    found = ([part.wait for part in parts], [part.run for part in parts], [part.whole for part in parts])
    return Tally(0, totals, *map(_merged, found))


def _merged(spreads: Sequence[Spread]) -> Spread:
    counts = [sum(column) for column in zip(*(spread.counts for spread in spreads), strict=True)]
    return Spread(sum(spread.us for spread in spreads), counts) if spreads else Spread()


def _sum(kind: type[T], parts: Sequence[T]) -> T:
    return kind(**{name: sum(getattr(part, name) for part in parts) for name in kind.__struct_fields__})
