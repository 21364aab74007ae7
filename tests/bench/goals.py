"""The goals, each a ratio or a size of one run: never an absolute time, but for those of the replay tool.

`Medians` are the figures of one AOF mode: system → figure → median over the runs. A goal whose
figures were not taken is left out, not guessed.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

Medians = Mapping[str, Mapping[str, float]]
OURS: Final = "penstock"
LOGS: Final = (1_000_000, 10_000_000)


class Goal(msgspec.Struct, frozen=True):
    """What is wanted, how it follows from the figures (KeyError where one is missing), the bound."""

    text: str
    measured: Callable[[Medians], float]
    bound: float
    at_most: bool = False
    unit: str = "times"


class Verdict(msgspec.Struct, frozen=True):
    """One row of the table of goals."""

    goal: str
    measured: float
    bound: float
    at_most: bool
    unit: str
    holds: bool


def verdicts(medians: Medians) -> list[Verdict]:
    """All goals that these figures can answer."""
    rows = []
    for goal in GOALS:
        try:
            measured = goal.measured(medians)
        except KeyError:
            continue
        holds = measured <= goal.bound if goal.at_most else measured >= goal.bound
        rows.append(Verdict(goal.text, measured, goal.bound, goal.at_most, goal.unit, holds))
    return rows


def _peers(medians: Medians, figure: str) -> list[float]:
    """That figure of every peer. Raises KeyError without one: best of none is no goal."""
    found = [
        figures[figure]
        for system, figures in medians.items()
        if system not in {OURS, "ceiling"} and figure in figures
    ]
    if not found:
        raise KeyError(figure)
    return found


def _over(other: str, figure: str, of: str = "") -> Callable[[Medians], float]:
    """Our `figure` over another system's (`of`, where its name differs)."""
    return lambda medians: medians[OURS][figure] / medians[other][of or figure]


def log_of(events: int) -> str:
    """The column of the replay tool over a log of so many events."""
    return f"log of {events:,}"


def _searched(events: int) -> Callable[[Medians], float]:
    """Events a CPU second by the slowest kind of search."""
    kinds = ("events", "text", "where")
    return lambda medians: min(medians[log_of(events)][f"grep_{kind}_worked_per_s"] for kind in kinds)


def _looked_back(events: int) -> Callable[[Medians], float]:
    """The slowest look back, in s."""
    looks = ("queue", "state", "job", "api", "cold")
    return lambda medians: max(medians[log_of(events)][f"at_{look}_max_ms"] for look in looks) / 1000


GOALS: Final = (
    Goal("bulk submit over BullMQ's addBulk", _over("bullmq", "bulk_per_s"), 5),
    Goal(
        "one at a time over the best peer",
        lambda medians: medians[OURS]["single_per_s"] / max(_peers(medians, "single_per_s")),
        1,
    ),
    Goal("drain by one worker over BullMQ's one", _over("bullmq", "drain_1_per_s"), 2.5),
    Goal("drain by two workers over BullMQ's two", _over("bullmq", "drain_2_per_s"), 3),
    Goal(
        "drained and projected over BullMQ's one worker",
        _over("bullmq", "projected_per_s", "drain_1_per_s"),
        1.5,
    ),
    Goal("drain by one worker over the ceiling", _over("ceiling", "drain_1_per_s"), 0.4),
    Goal(
        "idle submit to start, p50, over the best peer",
        lambda medians: medians[OURS]["p50_ms"] / min(_peers(medians, "p50_ms")),
        0.8,
        at_most=True,
    ),
    Goal(
        "idle submit to start, p99, over the best peer",
        lambda medians: medians[OURS]["p99_ms"] / min(_peers(medians, "p99_ms")),
        1,
        at_most=True,
    ),
    Goal("events projected over jobs drained by one worker", _over(OURS, "fold_per_s", "drain_1_per_s"), 3),
    Goal("drain with metrics on over off", lambda medians: medians[OURS]["watched_share"], 0.95),
    Goal(
        "Redis bytes per waiting job",
        lambda medians: medians[OURS]["waiting_bytes"],
        520,
        at_most=True,
        unit="B",
    ),
    Goal(
        "Redis bytes per finished job",
        lambda medians: medians[OURS]["finished_bytes"],
        800,
        at_most=True,
        unit="B",
    ),
    Goal(
        "largest memory of any process, later over earlier half of the long run",
        lambda medians: medians[OURS]["memory_growth"],
        1.1,
        at_most=True,
    ),
    Goal(
        "peak memory of a rebuild of 1 million events over one of 250,000",
        lambda medians: medians[OURS]["rebuild_growth"],
        1.1,
        at_most=True,
    ),
    *(
        Goal(f"events searched a CPU second, of {events:,}", _searched(events), 100_000, unit="/s")
        for events in LOGS
    ),
    *(
        Goal(f"slowest look back over {events:,} events", _looked_back(events), 2, at_most=True, unit="s")
        for events in LOGS
    ),
)
