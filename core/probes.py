"""Samples of the instruments of `telemetry`, and the probes that take them when somebody asks.

A room that measures gives a probe to the process that runs it; nothing is done until a scrape asks, and
nothing at all where nobody exports. Probes run on the event loop, so they may look at what only it changes.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec

from penstock.core.telemetry import Instrument


class Distribution(msgspec.Struct, frozen=True):
    """A histogram as it stands: how many fell into each bucket (bounds in s, and one count more for what
    is beyond), and their sum in s."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float


class Sample(msgspec.Struct, frozen=True):
    """A value of an instrument; `labels` are the values of its labels, in their order."""

    instrument: Instrument
    value: float | Distribution
    labels: tuple[str, ...] = ()


Probe = Callable[[], Awaitable[Iterable[Sample]]]


class Probes:
    """What is asked in this process."""

    def __init__(self) -> None:
        self._probes: Final[list[Probe]] = []

    def add(self, probe: Probe) -> None:
        """Ask this too."""
        self._probes.append(probe)

    async def read(self) -> list[Sample]:
        """All samples, as of now."""
        return [sample for probe in self._probes for sample in await probe()]
