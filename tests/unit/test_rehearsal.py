"""What a rehearsal makes of then and now, and how a job's past is read from its events."""

from typing import Any

import msgspec
import pytest

from penstock.consumers import Context, handler
from penstock.consumers.handlers import handlers
from penstock.consumers.rehearsal import Ran, Recorded, by_type, compared, hidden, not_run, recorded
from penstock.consumers.rehearsal_stage import acts
from penstock.core import contract
from penstock.core.errors import Misconfigured
from penstock.core.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Event,
    Failed,
    Requeued,
    Submitted,
    encode,
)
from penstock.core.merge_patch import Change

NULL = msgspec.Raw(b"null")
DEAD = Failed("exhausted", "E", "m", 2)
SPEC = Submitted("a.b", msgspec.Raw(b"{}"))


def done(result: Any = None, attempts: int = 1, ms: float = 1) -> Ran:
    return Ran("completed", attempts, ms, msgspec.Raw(msgspec.json.encode(result)))


def failed(error: str = "ValueError", message: str = "no") -> Ran:
    return Ran("failed", 1, 1, error=error, message=message)


@pytest.mark.parametrize(
    ("then", "now", "verdict", "why"),
    [
        (done({"a": 1}), done({"a": 1}), "same", ""),
        (done(), done(ms=900), "same", ""),
        (done(attempts=2), done(), "same", ""),
        (done(), done(attempts=2), "differs", "it took 2 attempts, and 1 then"),
        (done({"a": 1}), done({"a": 2}), "differs", "another result"),
        (failed(), failed(message="other words"), "same", ""),
        (failed(), failed("TypeError", "not so"), "differs", "TypeError: not so; it was ValueError"),
        (failed(), done(), "better", "it was ValueError: no"),
        (done(), failed(), "worse", "ValueError: no"),
        (done(), failed("Unrehearsed", "asks the world"), "not run", "asks the world"),
        (done(), failed("Unsealable", "no key"), "not run", "no key"),
    ],
)
def test_verdicts(then: Ran, now: Ran, verdict: str, why: str) -> None:
    found = compared(Recorded("a.0.1-0", SPEC, then), now, pure=True)
    assert (found.verdict, found.why) == (verdict, why)


def test_results_are_compared_of_pure_handlers_alone_and_told_as_changes() -> None:
    job = Recorded("a.0.1-0", SPEC, done({"a": 1}))
    found = compared(job, done({"a": 2}), pure=True)
    assert found.changes == [Change("a", 1, 2)]
    assert compared(job, done("dry"), pure=False).verdict == "same"
    assert hidden(found).changes == [Change("a")]
    assert (found.then, found.now) == (Ran("completed", ms=1), Ran("completed", ms=1)), "results are left out"
    secret = hidden(compared(job, failed(message="xyzzy"), pure=True))
    assert b"xyzzy" not in msgspec.json.encode(secret)
    assert secret.now == Ran("failed", ms=1, error="ValueError")


def test_a_dry_mode_that_succeeds_does_not_say_that_all_would_be_well() -> None:
    found = compared(Recorded("a.0.1-0", SPEC, failed()), done(), pure=False)
    assert (found.verdict, found.why) == (
        "differs",
        "its dry mode finds nothing wrong; it was ValueError: no",
    )
    assert compared(Recorded("a.0.1-0", SPEC, done()), failed(), pure=False).verdict == "worse"


def story(*bodies: Any) -> list[Event]:
    tags: dict[Any, str] = {
        Submitted: "submitted",
        Completed: "completed",
        Failed: "failed",
        Cancelled: "cancelled",
    }
    tags |= {AttemptFailed: "attempt_failed", Requeued: "requeued"}
    return [Event(f"{n}-0", tags[type(body)], "1-0", encode(body)) for n, body in enumerate(bodies, 1)]


@pytest.mark.parametrize(
    ("bodies", "then", "why"),
    [
        ([Completed(1, 5.0)], Ran("completed", 1, 5.0), ""),
        ([AttemptFailed(1, "E", "m", 1), DEAD], Ran("failed", 2, error="E", message="m"), ""),
        ([DEAD, Requeued("a.b", NULL, after="2-0"), Completed(1)], Ran("completed"), ""),
        ([DEAD, Cancelled()], None, "it was cancelled"),
        ([Failed("crashed", "E", "m")], None, "it killed its workers"),
        ([], None, "it has not ended"),
    ],
)
def test_the_past_of_a_job_is_its_last_end(bodies: list[Any], then: Ran | None, why: str) -> None:
    found = recorded("a.0.1-0", story(SPEC, *bodies))
    assert found is not None
    assert (found.then, found.why) == (then, why)


def test_what_a_foreign_hand_wrote_is_no_end_and_no_order() -> None:
    past = story(SPEC, Completed(1, 5.0), Failed("exhausted", "E", "m"))
    past += [Event("5-0", tag, "1-0", b"no json") for tag in ("requeued", "completed")]
    found = recorded("a.0.1-0", past)
    assert found is not None
    assert (found.then, found.why) == (Ran("completed", 1, 5.0), "")


def test_an_act_is_bounded_by_number_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.consumers.rehearsal_stage.ACT", 3)
    monkeypatch.setattr("penstock.consumers.rehearsal_stage.ACT_BYTES", 100)
    sizes = [40, 40, 40, 200, 10, 10, 10, 10]
    jobs = [Recorded("", Submitted("a.b", msgspec.Raw(b"x" * size)), None) for size in sizes]
    together = [[len(bytes(job.spec.payload)) for job in act] for act in acts(jobs)]
    assert together == [[40, 40], [40], [200], [10, 10, 10], [10]]


def test_a_job_whose_beginning_is_gone_has_no_past() -> None:
    assert recorded("a.0.1-0", story(Completed())) is None


def test_types_are_summed_up_with_the_durations_of_what_completed_both_times() -> None:
    jobs = [Recorded("a.0.1-0", SPEC, done(ms=ms)) for ms in (1, 2, 3)]
    told = [compared(job, done(ms=10), pure=True) for job in jobs]
    told += [compared(jobs[0], failed(), pure=True), not_run(jobs[0], "why")]
    [report] = by_type(told)
    assert (report.type, report.jobs, report.verdicts) == ("a.b", 5, {"same": 3, "worse": 1, "not run": 1})
    assert report.then is not None
    assert report.now is not None
    assert (report.then.p50, report.then.p95, report.now.p50) == (2, 2.9, 10)


def test_a_handler_is_rehearsed_as_it_is_declared() -> None:
    @contract("rehearsal.declared")
    class Declared(msgspec.Struct):
        pass

    async def dry(job: Declared, context: Context) -> None: ...

    def run(job: Declared, context: Context) -> None: ...

    handler(Declared)(run)
    assert handlers()["rehearsal.declared"].rehearsed() is None
    handler(Declared, pure=True, mode="process")(run)
    pure = handlers()["rehearsal.declared"]
    assert pure.rehearsed() is pure
    handler(Declared, dry=dry, mode="process")(run)
    found = handlers()["rehearsal.declared"].rehearsed()
    assert found is not None
    assert (found.run, found.mode) == (dry, "async")
    with pytest.raises(Misconfigured, match="not both"):
        handler(Declared, dry=dry, pure=True)
