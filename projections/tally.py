"""What is counted: how often each thing has happened, and how long it took.

`Totals` are counts; a `Spread` counts durations in fixed buckets, as Prometheus has them; a `Tally` is both
for the jobs of one type, since the log began. All of it only adds up, so what retention removes can be
counted once more and kept as a sum. Durations are summed as whole microseconds: floats add up differently
in another order, and a rebuild must give the same bytes.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from penstock.core.events import AttemptFailed, Completed, Failed

# In ms: a duration falls into the first bucket whose bound it does not exceed, or into the one after all.
BOUNDS_MS: Final = (
    *(1, 2.5, 5, 10, 25, 50, 100, 250, 500),
    *(1_000, 2_500, 5_000, 10_000, 30_000, 60_000),
    *(300_000, 900_000, 3_600_000, 21_600_000, 86_400_000),
)
MS: Final = 1_000
US: Final = 1
_BOUNDS: Final = {MS: BOUNDS_MS, US: tuple(round(bound * 1_000) for bound in BOUNDS_MS)}
# 49 days: what a foreign hand writes as a duration must not make a sum that cannot be written.
_LONGEST_US: Final = 2**32 * 1_000

# No event has the empty tag.
MISFIT: Final = ""


class Totals(msgspec.Struct):
    """How often each thing has happened; `retried` counts attempts that failed and were repeated."""

    submitted: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    lease_expired: int = 0
    released: int = 0
    cancelled: int = 0
    requeued: int = 0
    misfits: int = 0

    def add(self, tags: Mapping[str, int]) -> None:
        """Events by tag; those that have no count here count as nothing."""
        for tag, count in tags.items():
            name = _COUNTED.get(tag)
            if name is not None:
                setattr(self, name, getattr(self, name) + count)


# Tag → the field of Totals that counts it.
_COUNTED: Final = {
    MISFIT: "misfits",
    "submitted": "submitted",
    "started": "started",
    "completed": "completed",
    "failed": "failed",
    "attempt_failed": "retried",
    "lease_expired": "lease_expired",
    "released": "released",
    "cancelled": "cancelled",
    "requeued": "requeued",
}


class Spread(msgspec.Struct, array_like=True):
    """Durations: how many fell into each bucket of BOUNDS_MS and beyond, and their sum in µs."""

    us: int = 0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def add(self, durations: Mapping[int, int], unit_us: int) -> None:
        """Count durations in ms or µs, each so often; what is below 0 counts as 0, what is above 49 days as
        that."""
        bounds, longest = _BOUNDS[unit_us], _LONGEST_US // unit_us
        for took, count in durations.items():
            within = min(max(took, 0), longest)
            self.counts[bisect_left(bounds, within)] += count
            self.us += within * count * unit_us


class Tally(msgspec.Struct, array_like=True):
    """The jobs of one type, since the log began. `first`: when the first of them was submitted, in Unix
    ms; `wait`: from ready to started; `run`: of attempts, however they ended; `whole`: from submitted to
    completed or failed."""

    first: int = 0
    totals: Totals = msgspec.field(default_factory=Totals)
    wait: Spread = msgspec.field(default_factory=Spread)
    run: Spread = msgspec.field(default_factory=Spread)
    whole: Spread = msgspec.field(default_factory=Spread)

    def add(self, heard: "Heard", waits: Mapping[int, int], runs: Mapping[float, int]) -> None:
        """Count what was heard; `waits` and `runs`: durations in ms, each so often."""
        self.first = min(self.first or heard.first, heard.first)
        self.totals.add(heard.tags)
        self.wait.add(waits, MS)
        in_us: Counter[int] = Counter()
        for ms, count in runs.items():
            in_us[round(min(ms, _LONGEST_US) * 1000)] += count
        self.run.add(in_us, US)
        self.whole.add(Counter(heard.wholes), MS)


class Heard:
    """What a stretch of the log says of the jobs of one type: events by tag, durations in ms. `first`:
    when the job of the first of these events was submitted, in Unix ms."""

    __slots__ = ("ends", "first", "tags", "waits", "wholes")

    def __init__(self, first: int = 0) -> None:
        self.first: Final = first
        self.tags: Final[dict[str, int]] = {}
        self.waits: Final[list[int]] = []
        self.ends: Final[list[Completed | AttemptFailed | Failed]] = []
        self.wholes: Final[list[int]] = []

    def runs(self) -> list[float]:
        """How long attempts ran, in ms. A job that was given up because its worker died says no `ms`:
        nobody knows how long it ran."""
        return [end.ms for end in self.ends if end.ms or isinstance(end, Completed)]
