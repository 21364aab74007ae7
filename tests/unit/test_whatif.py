"""A stretch played again in virtual time: by hand where it is easily reckoned, by properties where not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from penstock.consumers.whatif import MIN_RATE, Figures, Plan, _Play, was, what_if
from penstock.consumers.whatif_past import MAX_JOBS, Past, Run, Trial
from penstock.core.contracts import Backoff
from penstock.core.errors import Refused, TooLarge
from penstock.core.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Event,
    Failed,
    LeaseExpired,
    Requeued,
    Rescheduled,
    Started,
    Submitted,
    encode,
)
from penstock.core.lifecycle import Read, legible
from penstock.core.positions import milliseconds
from penstock.ui.replay_whatif import app

RAW = msgspec.Raw(b"{}")
TAGS = {"LeaseExpired": "lease_expired", "AttemptFailed": "attempt_failed"}


def run(
    came: int = 0,
    *trials: Trial,
    ready: int = 0,
    priority: Any = "normal",
    type: str = "a.b",
    attempts: int = 5,
) -> Run:
    told = list(trials) or [Trial(100.0)]
    spec = Submitted(type, RAW, attempts=attempts)
    return Run(spec, came, max(came, ready), priority, told, came, came, dead=told[-1].failed)


def plan(concurrency: int = 1, **more: Any) -> Plan:
    return Plan(concurrency=concurrency, **more)


def test_jobs_wait_for_slots() -> None:
    jobs = [run() for _ in range(10)]
    one = what_if(jobs, plan(1))
    assert (one.jobs, one.wait_p50, one.drained, one.busy) == (10, 450, 1.0, 1.0)
    assert (what_if(jobs, plan(2)).drained, what_if(jobs, plan(100)).drained) == (0.5, 0.1)
    assert what_if(jobs, plan(100)).wait_p99 == 0


def test_a_rate_lets_so_many_begin() -> None:
    jobs = [run() for _ in range(11)]
    found = what_if(jobs, plan(100, rate=10, burst=1))
    assert (found.drained, found.wait_p50) == (1.1, 500)
    assert what_if(jobs, plan(100, rate=10)).drained == 0.2, "ten at once, and one when a token is there"


def test_a_rate_that_lets_next_to_nothing_begin_is_refused() -> None:
    assert what_if([run()] * 3, plan(rate=MIN_RATE, burst=1)).drained > 10**6
    for rate in (5e-7, 1e-320):
        with pytest.raises(Refused, match=r"is too low: at least 0\.000001, or 0 for no limit"):
            what_if([run()], plan(rate=rate))


def test_what_is_due_goes_first_then_the_lanes_by_priority() -> None:
    jobs = [run(0), run(1, priority="low"), run(2), run(3, priority="high"), run(4, ready=50)]

    def waited(number: int) -> float:
        return what_if_each(jobs)[number]

    assert [waited(number) for number in range(5)] == [0, 399, 298, 197, 50]


def what_if_each(jobs: list[Run]) -> list[float]:
    """How long each waits on one slot."""
    return [end.began - job.ready for job, end in zip(jobs, _Play(jobs, plan(1)).play(), strict=True)]


def test_retries_wait_as_they_did_and_go_as_they_went() -> None:
    fails = Trial(100.0, failed=True, delay=2)
    job = run(0, fails, fails, Trial(100.0))
    assert attempts_of(what_if([job], plan())) == (3, 0, 4.3)
    assert attempts_of(what_if([job], plan(attempts=2))) == (2, 1, 2.2)
    fixed = Backoff(kind="fixed", base=5, jitter=0)
    assert attempts_of(what_if([job], plan(backoff=fixed))) == (3, 0, 10.3)
    assert attempts_of(what_if([job], plan(backoff=fixed, types=("other.type",)))) == (3, 0, 4.3)
    dead = run(0, fails, Trial(100.0, failed=True), attempts=2)
    assert attempts_of(what_if([dead], plan(attempts=4, backoff=fixed))) == (4, 1, 15.4)
    hopeless = run(0, Trial(100.0, failed=True, permanent=True))
    assert attempts_of(what_if([hopeless], plan(attempts=9))) == (1, 1, 0.1)


def attempts_of(found: Figures) -> tuple[int, int, float]:
    return found.attempts, found.dead, found.drained


def test_waits_that_are_drawn_are_the_same_for_the_same_seed() -> None:
    jobs = [run(0, Trial(1.0, failed=True), Trial(1.0)) for _ in range(50)]
    jitter = Backoff(base=10, jitter=1)
    first, again, other = (what_if(jobs, plan(9, backoff=jitter, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


TRIALS = st.builds(Trial, st.floats(0, 500), failed=st.just(True), delay=st.floats(0, 3))
RUNS = st.lists(
    st.builds(
        lambda came, wait, failed, last, priority: run(
            came, *failed, Trial(last), ready=came + wait, priority=priority
        ),
        st.integers(0, 2_000),
        st.sampled_from([0, 0, 700]),
        st.lists(TRIALS, max_size=3),
        st.floats(0, 500),
        st.sampled_from(["high", "normal", "low"]),
    ),
    min_size=1,
    max_size=25,
)


@given(RUNS, st.integers(1, 4), st.sampled_from([0, 0.5, 7, 1000]), st.integers(1, 5))
def test_every_job_comes_to_its_end_and_none_begins_early(
    jobs: list[Run], concurrency: int, rate: float, burst: int
) -> None:
    ends = _Play(jobs, plan(concurrency, rate=rate, burst=burst)).play()
    for job, end in zip(jobs, ends, strict=True):
        assert end.began >= job.ready
        assert (end.attempts, end.dead) == (len(job.trials), False)
        assert end.ran == pytest.approx(sum(trial.ms for trial in job.trials))
        waits = sum(trial.delay * 1000 for trial in job.trials)
        assert end.ended >= end.began + end.ran + waits - 1e-3
    begun = sorted(end.began for end in ends)
    if rate:
        started = len(begun)
        allowed = burst + (begun[-1] - begun[0] + 1) * rate / 1000
        assert started <= allowed + 1
    busy = sum(end.ran for end in ends)
    assert max(end.ended for end in ends) - min(job.came for job in jobs) >= busy / concurrency - 1e-3


def story(job: str, *told: tuple[int, Any]) -> list[Read]:
    found = []
    for at, body in told:
        tag = TAGS.get(type(body).__name__, type(body).__name__.lower())
        found.append(legible(Event(f"{at}-0", tag, f"{job}-0", encode(body))))
    return found


def past_of(*stories: list[Read], since: int = 0, until: int = 10**12) -> Past:
    past = Past(since=since, until=until)
    past.add(
        sorted((read for one in stories for read in one), key=lambda read: milliseconds(read[0].position))
    )
    return past


def test_the_past_is_read_from_the_log() -> None:
    spec = Submitted("a.b", RAW, delay=1.0, priority="high")
    events = [
        *story("100", (100, spec), (1200, Started(1, "w")), (1300, AttemptFailed(1, "E", "m", 2.0, ms=99.0))),
        *story("100", (3400, Started(2, "w")), (3410, LeaseExpired("w", 1)), (3500, Started(2, "w"))),
        *story("100", (3600, Completed(2, 50.0)), (4000, Requeued("a.b", RAW, after="3600-0"))),
        *story("100", (4100, Started(1, "w")), (4200, Failed("permanent", "E", "m", 1, ms=7.0))),
        *story("200", (200, Submitted("a.b", RAW)), (5000, Cancelled())),
        *story("300", (300, Submitted("a.b", RAW)), (5100, Rescheduled(at_once=True))),
        *story("99", (99, Submitted("a.b", RAW)), (5200, Completed())),
    ]
    past = past_of(events, since=100, until=4001)
    first, again = past.runs
    assert (first.came, first.ready, first.began, first.ended, first.lost) == (100, 1100, 1200, 3600, 1)
    assert first.trials == [Trial(99.0, failed=True, delay=2.0), Trial(50.0)]
    assert (first.spec.priority, first.dead) == ("high", False)
    assert (again.came, again.began, again.dead) == (4000, 4100, True)
    assert again.trials == [Trial(7.0, failed=True, permanent=True)]
    assert (past.left_out, past.unfinished, past.peak) == (1, 1, 1)
    figures = was(past.runs)
    assert (figures.jobs, figures.attempts, figures.dead, figures.drained) == (2, 3, 1, 4.1)
    assert was([]) == what_if([], plan())


def test_what_does_not_fit_changes_nothing() -> None:
    spec = Submitted("a.b", RAW)
    past = past_of(
        story("100", (100, spec), (110, Requeued("a.b", RAW, after="1-0")), (120, Started(1, "w"))),
        story("100", (130, Started(1, "w")), (140, Completed(1, 5.0)), (150, Completed(1, 9.0))),
        story("200", (200, spec), (210, Failed("exhausted", "E", "m", 1)), (220, Completed(1, 5.0))),
        [legible(Event("225-0", "completed", "300-0", b"no json"))],
        story("300", (224, AttemptFailed(1, "E", "m", 1.0))),
    )
    one, other = past.runs
    assert (one.came, one.began, one.ended, one.trials) == (100, 120, 140, [Trial(5.0)])
    assert (other.ended, other.dead) == (210, True)
    assert (past.left_out, past.unfinished, past.peak) == (0, 0, 1)


def test_an_attempt_that_was_moved_comes_when_it_was_moved_to() -> None:
    failing = AttemptFailed(1, "E", "m", 300.0, ms=10.0)
    for moved, delay in ((Rescheduled(at_once=True), 0.8), (Rescheduled(delay=2.0), 2.8)):
        [job] = past_of(
            story("100", (100, Submitted("a.b", RAW)), (150, Started(1, "w")), (200, failing), (1000, moved)),
            story("100", (3000, Started(2, "w")), (3100, Completed(2, 10.0))),
        ).runs
        assert (job.ready, job.began) == (100, 150), "its first attempt was not moved"
        assert job.trials == [Trial(10.0, failed=True, delay=delay), Trial(10.0)]


def test_a_stretch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_JOBS >= 100_000
    monkeypatch.setattr("penstock.consumers.whatif_past.MAX_JOBS", 1)
    past = Past(since=0, until=1000)
    with pytest.raises(TooLarge):
        past.add([*story("1", (1, Submitted("a.b", RAW))), *story("2", (2, Submitted("a.b", RAW)))])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rate", "inf"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--burst", "3"], "--burst needs a --rate"),
        (["--type", "a.b"], "--type says which jobs --attempts and --backoff are for"),
        (["--backoff", "{}}"], "--backoff: JSON is malformed"),
        (["--backoff", '{"base": 1e99}'], "--backoff: "),
    ],
)
def test_what_cannot_be_reckoned_is_refused_before_anything_is_read(words: list[str], says: str) -> None:
    told = CliRunner().invoke(app, ["--queue", "a", *words])
    assert told.exit_code != 0
    assert says in told.output + str(told.exception)
    assert isinstance(told.exception, Refused | SystemExit)
