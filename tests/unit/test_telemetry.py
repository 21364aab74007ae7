"""The vocabulary of metrics: one table, names as the conventions write them, labels within bounds."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from penstock.core import telemetry
from penstock.core.probes import Distribution, Sample
from penstock.core.telemetry import INSTRUMENTS, MAX_CONSUMERS, MAX_TYPES, OTHER, Instrument, table
from penstock.projections.metrics import bounded
from penstock.projections.metrics_types import counted, told_apart
from penstock.projections.tally import Spread, Tally, Totals
from penstock.projections.views import Counts, Stats

HOUSE: Final = Path(__file__).parents[2]
LABELS: Final = {
    *("queue", "type", "state", "reason", "outcome", "consumer", "feed", "cpu.mode"),
    *("http.request.method", "http.response.status_code", "http.route"),
}


def test_the_table_is_that_of_the_code() -> None:
    told = (HOUSE / "core/METRICS.md").read_text().splitlines()
    assert told == list(table()), "write it anew: it is what penstock.core.telemetry.table() gives"


def test_every_instrument_is_in_the_list_once() -> None:
    names = [it.name for it in INSTRUMENTS]
    assert len(set(names)) == len(names)
    assert len({it.prometheus for it in INSTRUMENTS}) == len(names)
    assert {it for it in vars(telemetry).values() if isinstance(it, Instrument)} == set(INSTRUMENTS)


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda it: it.name)
def test_an_instrument_is_named_labelled_and_shown(instrument: Instrument) -> None:
    assert re.fullmatch(r"(penstock|messaging|http|process)(\.[a-z_]+)+", instrument.name)
    assert set(instrument.labels) <= LABELS, "a label that is not known to be bounded"
    assert instrument.prometheus in instrument.query
    assert instrument.meaning
    assert instrument.unit in {"", "s", "By"} or re.fullmatch(r"\{[a-z_]+\}(/s)?", instrument.unit)


def stats_of(types: int) -> Stats:
    """Types in the order of their first jobs, the later the more jobs, and one event of no known type."""
    tallies = {
        f"test.t{number:03}": Tally(
            types - number,
            Totals(submitted=number + 1, completed=number),
            Spread(number * 1_000, [number, *[0] * 20]),
        )
        for number in range(types)
    }
    totals = Totals(
        submitted=sum(it.totals.submitted for it in tallies.values()),
        completed=sum(it.totals.completed for it in tallies.values()),
        misfits=1,
    )
    counts = {type: Counts(waiting=1, completed=it.totals.completed) for type, it in tallies.items()}
    return Stats(counts, totals, tallies=tallies)


def summed(samples: list[Sample], instrument: Instrument) -> float:
    values = [it.value for it in samples if it.instrument is instrument]
    return sum(sum(it.counts) if isinstance(it, Distribution) else it for it in values)


@pytest.mark.parametrize("types", [0, 1, MAX_TYPES, MAX_TYPES + 1, 300])
def test_types_are_bounded_and_nothing_is_lost(types: int) -> None:
    stats = stats_of(types)
    samples = list(counted("mail", stats))
    told = {it.labels[1] for it in samples if it.instrument is telemetry.SUBMITTED}
    assert len(told) == min(types, MAX_TYPES + 1)
    assert (OTHER in told) == (types > MAX_TYPES)
    assert summed(samples, telemetry.SUBMITTED) == stats.totals.submitted
    assert summed(samples, telemetry.WAIT) == sum(sum(it.wait.counts) for it in stats.tallies.values())
    assert summed(samples, telemetry.JOBS) == sum(
        stats.counts().__getattribute__(s) for s in ("waiting", "completed")
    )
    assert max(Counter((it.instrument.name, it.labels) for it in samples).values(), default=1) == 1


def test_a_type_once_told_apart_stays_so() -> None:
    stats = stats_of(MAX_TYPES + 5)
    before = told_apart(stats)
    assert before == sorted(stats.tallies, reverse=True)[:MAX_TYPES]
    stats.tallies["a.newer"] = Tally(10_000, Totals(submitted=1_000_000))
    assert told_apart(stats) == before


def test_what_was_counted_before_types_were_is_told_as_other() -> None:
    stats = stats_of(1)
    stats.totals.submitted += 7
    by_type = {
        it.labels[1]: it.value for it in counted("mail", stats) if it.instrument is telemetry.SUBMITTED
    }
    assert by_type == {"test.t000": 1, OTHER: 7}


def test_consumers_are_bounded_and_nothing_is_lost() -> None:
    pending = {f"host-{number}": 2 for number in range(MAX_CONSUMERS + 30)}
    told = bounded({**pending, "parked": 5})
    assert len(told) == MAX_CONSUMERS + 2
    assert (told["parked"], told[OTHER]) == (5, 60)
    assert bounded({}) == {"parked": 0}


def test_off_nothing_of_the_exporter_is_loaded() -> None:
    """(redis-py itself loads the SDK where it is installed.)"""
    program = (
        "import sys, penstock.ui.processes, penstock.ui.api, penstock.ui.dashboard, penstock.ui.webhooks\n"
        "import penstock.consumers.worker, penstock.projections.projector\n"
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'penstock.ui.metrics',"
        " 'opentelemetry.exporter.prometheus', 'penstock.projections.metrics'))])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(HOUSE / "infra/src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "[]\n"
