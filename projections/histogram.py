"""Durations as counts in log-spaced buckets: small, mergeable, and exact to add up.

Four buckets to a power of two, from 1/16 ms to 2^32 ms (49 days). A quantile answers the geometric
middle of its bucket, so it is within 2^(1/8) - 1 = 9.1 % of the true value; what is shorter than
1/16 ms counts as 1/16 ms. The bounds are a table, not a logarithm taken anew for each value: the
same value falls into the same bucket on every machine, which a rebuild relies on.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, TypeAlias

Histogram: TypeAlias = dict[int, int]
"""Bucket number → how many durations fell into it; empty buckets are absent."""

_PER_OCTAVE: Final = 4
_LOWEST_OCTAVE: Final = -4
_HIGHEST_OCTAVE: Final = 32
_BOUNDS: Final[tuple[float, ...]] = tuple(
    2.0 ** (step / _PER_OCTAVE)
    for step in range(_LOWEST_OCTAVE * _PER_OCTAVE, _HIGHEST_OCTAVE * _PER_OCTAVE + 1)
)

RELATIVE_ERROR: Final[float] = 2.0 ** (1 / (2 * _PER_OCTAVE)) - 1


def bucket(ms: float) -> int:
    """The bucket of a duration: 0 for all below 1/16 ms, the last for all above 49 days."""
    return bisect_right(_BOUNDS, ms)


def merge(parts: Iterable[Histogram]) -> Histogram:
    """All parts added up."""
    total: Histogram = {}
    for part in parts:
        for number, count in part.items():
            total[number] = total.get(number, 0) + count
    return total


def quantile(histogram: Histogram, share: float) -> float | None:
    """The duration in ms that `share` (0 to 1) of all do not exceed, by nearest rank; None of none."""
    rank = share * sum(histogram.values())
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= rank:
            return _middle(number)
    return None


def _middle(number: int) -> float:
    return _BOUNDS[number - 1] * (1 + RELATIVE_ERROR) if number else _BOUNDS[0]
