"""The forms of PromQL that the dashboards ask in.

What is counted from the log is the same in each projector that runs: `max by` an instrument's own labels
comes first, and only then the sum over some of them. What a process measures of itself is summed.
"""

from typing import Final

from penstock.core.telemetry import Instrument

WINDOW: Final = "$__rate_interval"
CHOSEN: Final = 'queue=~"$queue", type=~"$type"'
CHOSEN_QUEUE: Final = 'queue=~"$queue"'


def total(instrument: Instrument, *by: str, of: str = "") -> str:
    """A gauge, summed to the labels `by`; `of` selects series."""
    return _sum(_once(instrument, f"{instrument.prometheus}{_braces(of)}"), by)


def most(instrument: Instrument, *by: str, of: str = "") -> str:
    """A gauge's highest value by `by`."""
    return f"max{_by(by)} ({instrument.prometheus}{_braces(of)})"


def least(instrument: Instrument, *by: str, of: str = "") -> str:
    """A gauge's lowest value by `by`."""
    return f"min{_by(by)} ({instrument.prometheus}{_braces(of)})"


def rate(instrument: Instrument, *by: str, of: str = "", window: str = WINDOW) -> str:
    """A counter's growth a second, summed to the labels `by`."""
    return _sum(_once(instrument, f"rate({instrument.prometheus}{_braces(of)}[{window}])"), by)


def growth(instrument: Instrument, *by: str, of: str = "", window: str = "$__range") -> str:
    """By how much a counter grew in a window, by default in all that the dashboard shows."""
    return _sum(_once(instrument, f"increase({instrument.prometheus}{_braces(of)}[{window}])"), by)


def quantile(q: float, instrument: Instrument, *by: str, of: str = "") -> str:
    """A quantile of a histogram, of all observations of the window that share the labels `by`."""
    buckets = _once(instrument, f"rate({instrument.prometheus}_bucket{_braces(of)}[{WINDOW}])", "le")
    return f"histogram_quantile({q:g}, {_sum(buckets, (*by, 'le'))})"


def observed(instrument: Instrument, *by: str, of: str = "") -> str:
    """How many observations a second a histogram got."""
    return _sum(_once(instrument, f"rate({instrument.prometheus}_count{_braces(of)}[{WINDOW}])"), by)


def share_of_failures(completed: Instrument, failed: Instrument, window: str) -> str:
    """Which share of the jobs that ended in a window was given up."""
    bad, good = growth(failed, window=window), growth(completed, window=window)
    return f"{bad} / ({bad} + {good} > 0)"


def _once(instrument: Instrument, inner: str, *more: str) -> str:
    """Each series once, however many projectors tell it."""
    if instrument.told_by != "log":
        return inner
    return f"max{_by((*instrument.labels, *more))} ({inner})"


def _sum(inner: str, by: tuple[str, ...]) -> str:
    return f"sum{_by(by)} ({inner})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _braces(of: str) -> str:
    return f"{{{of}}}" if of else ""
