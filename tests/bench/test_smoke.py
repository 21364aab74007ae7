"""Every measure of the bench runs, on a few hundred jobs, and answers with figures that can be true."""

import pytest

from bench.arena import arena
from bench.goals import GOALS, verdicts
from bench.long import rebuilt, steady
from bench.measures import MEASURES, Figures, Measure, Sizes
from bench.report import Report, environment
from bench.systems import System, own_systems
from servers import binary

FEW = Sizes(jobs=300, warm=50, clocks=20)
CASES = [(measure, system) for measure in MEASURES for system in own_systems() if measure.fits(system)]


@pytest.mark.parametrize(("measure", "system"), CASES, ids=lambda it: getattr(it, "name", None))
def test_a_measure_answers_positive_figures(measure: Measure, system: System) -> None:
    binary("redis")
    with arena(system, "redis", "off") as place:
        figures = measure.take(place, FEW)
    assert figures
    sane(figures)
