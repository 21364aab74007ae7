"""Which stretch is meant, and what is said of one that the log has no longer, or in part."""

import pytest

from penstock.core.errors import NotFound, Refused
from penstock.core.keys import Keys
from penstock.core.positions import before
from penstock.projections.replay.asking import job_in
from penstock.projections.replay.span import Span, Standing, partitions, partly, span

KEYS = Keys("penstock").partition("mail")
WHOLE = Standing("e", "1000-0", "9000-5", "0-0")
CUT = Standing("e", "5000-0", "9000-5", "2000-7")  # all up to 2000-7 went, and nothing came until 5000-0
HOLED = Standing("e", "1000-0", "9000-5", "2000-7")  # an old job still waits
EMPTIED = Standing("e", "0-0", "9000-5", "9000-5")


@pytest.mark.parametrize(
    ("now", "since", "until", "found"),
    [
        (WHOLE, None, None, Span("0-0", "9000-5")),
        (WHOLE, 0, 10_000, Span("0-0", "9000-5")),
        (WHOLE, 3000, 4000, Span(before(3000), before(4000))),
        (WHOLE, 10_000, None, Span(before(10_000), "9000-5")),
        (CUT, 3000, None, Span(before(3000), "9000-5")),
        (CUT, None, None, Span("0-0", "9000-5")),
        (HOLED, 1000, None, Span(before(1000), "9000-5")),
        (EMPTIED, 9001, None, Span(before(9001), "9000-5")),
    ],
)
def test_a_stretch(now: Standing, since: int | None, until: int | None, found: Span) -> None:
    assert span(KEYS, now, since, until) == found


@pytest.mark.parametrize(
    ("now", "since", "until", "says"),
    [
        (WHOLE, 5, 5, "that is no time at all"),
        (CUT, 2000, None, r"is before the log of mail begins, at 1970-01-01T00:00:05\.000Z"),
        (HOLED, 999, None, r"begins, at 1970-01-01T00:00:01\.000Z"),
        (EMPTIED, 8999, None, r"begins, at 1970-01-01T00:00:09\.000Z"),
    ],
)
def test_a_stretch_that_is_none(now: Standing, since: int, until: int | None, says: str) -> None:
    with pytest.raises(Refused, match=says):
        span(KEYS, now, since, until)


def test_what_went_of_a_stretch_is_said() -> None:
    assert partly(KEYS, WHOLE, span(KEYS, WHOLE, None, None)) == ""
    assert partly(KEYS, CUT, span(KEYS, CUT, 3000, None)) == ""
    for now, since in ((HOLED, 1000), (CUT, None)):
        said = partly(KEYS, now, span(KEYS, now, since, None))
        assert said.startswith("mail: retention has removed jobs that ended")
        assert said.endswith("up to 1970-01-01T00:00:02.000Z")


def test_queues_and_jobs_that_are_none() -> None:
    keys, known = Keys("penstock"), [b"b", b"a"]
    assert [it.queue for it in partitions(keys, known, ())] == ["a", "b"]
    assert [it.queue for it in partitions(keys, known, ["b", "b"])] == ["b"]
    with pytest.raises(NotFound, match="there is no queue 'c'; there are: a, b"):
        partitions(keys, known, ["a", "c"])
    with pytest.raises(NotFound, match="there are: none"):
        partitions(keys, [], ["c"])
    assert job_in("a.0.5-5", ()) == job_in("a.0.5-5", ("b", "a")) == ("a", 0, "5-5")
    for job, queues in (("a.0.5-5", ("b",)), ("a.1.5-5", ()), ("a", ())):
        with pytest.raises(NotFound):
            job_in(job, queues)
