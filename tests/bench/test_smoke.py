"""Every measure of the bench runs, on a few hundred jobs, and answers with figures that can be true."""

import math
import shutil

import pytest

from bench.arena import arena
from bench.goals import GOALS, LOGS, Verdict, log_of, verdicts
from bench.long import rebuilt, steady
from bench.measures import MEASURES, Figures, Measure, Sizes
from bench.replay import replayed
from bench.replay_log import Tally, history
from bench.report import COLUMNS, Report, environment
from bench.systems import System, own_systems
from penstock.core.lifecycle import TERMINAL
from penstock.core.positions import order

KIND = "redis" if shutil.which("redis-server") else "valkey"  # that one comes in a wheel
FEW = Sizes(jobs=300, warm=50, clocks=20)
CASES = [
    pytest.param(measure, system, id=f"{measure.take.__name__}-{system.name}")
    for measure in MEASURES
    for system in own_systems()
    if measure.fits(system)
]


@pytest.mark.parametrize(("measure", "system"), CASES)
def test_each_measure_answers_figures_that_can_be_true(measure: Measure, system: System) -> None:
    with arena(system, KIND, "off") as place:
        _sane(measure.take(place, FEW))


def test_the_long_measures_do_too() -> None:
    with arena(own_systems()[0], KIND, "everysec") as place:
        _sane(steady(place, jobs=300))
    with arena(own_systems()[0], KIND, "off") as place:
        figures = rebuilt(place, events=1_200)
    _sane(figures)
    assert figures["rebuild_growth"] < 2


@pytest.mark.timeout(300)  # it starts a process for each answer
def test_the_replay_tool_is_measured_over_a_log_that_it_tells_right() -> None:
    """Whatever it answers is compared with the log, or with the book of who wrote it, as it is measured."""
    figures = Figures()
    with arena(own_systems()[0], KIND, "off") as place:
        for some in replayed(place, 1_000, runs=1):
            _sane(some)
            figures |= some
    assert figures["at_queue_ms"] <= figures["at_queue_max_ms"] < 60_000


def test_the_log_that_is_replayed_is_in_order_and_whole() -> None:
    tally, places = Tally(), list[tuple[int, int]]()
    for event in history(5_000, end=1_795_477_369_681):
        tally.add(event)
        places.append(order(event.position))
    assert places == sorted(set(places))
    assert len(places) == pytest.approx(5_000, abs=20)
    assert {state for state, number in tally.states.items() if number} == TERMINAL


def test_goals_are_ratios_of_medians_and_hold_or_do_not() -> None:
    report = Report(environment("redis"), {})
    for rate in (10.0, 60.0, 50.0):
        report.add("off", "penstock", {"bulk_per_s": rate, "waiting_bytes": 521})
    report.add("off", "bullmq", {"bulk_per_s": 10.0})
    report.conclude()
    bulk = next(goal.text for goal in GOALS if "bulk" in goal.text)
    waiting = next(goal.text for goal in GOALS if "waiting" in goal.text)
    assert report.goals["off"] == [
        Verdict(bulk, 5.0, 5, at_most=False, unit="times", holds=True),
        Verdict(waiting, 521, 520, at_most=True, unit="B", holds=False),
    ]


def test_every_goal_can_be_answered_when_all_was_measured() -> None:
    figures = dict.fromkeys(COLUMNS, 1.0)
    systems = ("penstock", "ceiling", "bullmq", *map(log_of, LOGS))
    assert len(verdicts(dict.fromkeys(systems, figures))) == len(GOALS)
    assert verdicts({"ceiling": figures}) == []


def _sane(figures: Figures) -> None:
    assert figures
    assert set(figures) <= set(COLUMNS), "each has its column in the table"
    for name, value in figures.items():
        assert math.isfinite(value), name
        assert value >= 0 if "lag" in name else value > 0, (name, value)
    if "p50_ms" in figures:
        assert figures["p50_ms"] <= figures["p99_ms"] < 5_000
