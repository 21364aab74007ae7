"""Each way an attempt can end, as the event that tells it; the hand-written bytes among them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.consumers.outcomes import (
    MAX_MESSAGE_CHARS,
    MAX_TRACEBACK_CHARS,
    Failure,
    completed,
    failed,
    failure,
    released,
)
from penstock.core.contracts import Backoff
from penstock.core.dispatch import Delivery, Finished
from penstock.core.errors import Permanent, RetryLater
from penstock.core.events import (
    AttemptFailed,
    Completed,
    Event,
    Failed,
    Released,
    Submitted,
    decode,
    encode,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
WHY = Failure("ValueError", "no", traceback="Traceback …")


def delivery(attempt: int = 1) -> Delivery:
    return Delivery(lane=2, entry=b"5-0", attempt=attempt, job=b"4-0", body=b"{}")


def job(**options: Any) -> Submitted:
    options.setdefault("backoff", Backoff(kind="fixed", base=2, jitter=0))
    return Submitted("a.b", msgspec.Raw(b"{}"), **options)


def body_of(finished: Finished) -> Any:
    return decode(Event("6-0", finished.outcome, "4-0", finished.body))


def raised(error: Exception) -> Failure:
    """What becomes of an error that was really raised."""
    try:
        raise error
    except Exception as caught:
        return failure(caught)


@given(st.integers(1, 100), st.floats(0, 86_400_000), JSON)
def test_the_bytes_written_by_hand_are_those_of_the_codec(attempt: int, ms: float, result: Any) -> None:
    raw = msgspec.json.encode(result)
    finished = completed(delivery(attempt), ms, raw)
    plain = Completed(attempt=attempt, ms=round(ms, 3), result=msgspec.Raw(raw))
    assert body_of(finished) == decode(Event("6-0", "completed", "4-0", encode(plain)))


def test_a_finished_attempt_names_its_delivery() -> None:
    finished = completed(delivery(3), 1.0, b"null")
    assert (finished.lane, finished.entry, finished.attempt, finished.job) == (2, b"5-0", 3, b"4-0")


def test_an_attempt_that_failed_is_due_by_the_backoff() -> None:
    finished = failed(delivery(1), job(attempts=2), 12.3456, WHY)
    assert (finished.outcome, finished.delay_ms) == ("attempt_failed", 2_000)
    assert body_of(finished) == AttemptFailed(
        attempt=1, error="ValueError", message="no", delay=2.0, traceback="Traceback …", ms=12.346
    )


@pytest.mark.parametrize("attempt", [2, 3])
def test_the_last_attempt_fails_for_good(attempt: int) -> None:
    finished = failed(delivery(attempt), job(attempts=2), 1, WHY)
    assert finished.outcome == "failed"
    assert body_of(finished) == Failed(
        reason="exhausted",
        error="ValueError",
        message="no",
        attempt=attempt,
        traceback="Traceback …",
        ms=1.0,
    )


def test_permanent_fails_at_once() -> None:
    body = body_of(failed(delivery(1), job(attempts=9), 1, raised(Permanent("no such address"))))
    assert (body.reason, body.error, body.message) == ("permanent", "Permanent", "no such address")


def test_retry_later_is_due_when_it_says() -> None:
    finished = failed(delivery(1), job(), 1, raised(RetryLater("busy", after=7.5)))
    assert (finished.outcome, finished.delay_ms, body_of(finished).delay) == ("attempt_failed", 7_500, 7.5)


def test_retry_later_on_the_last_attempt_is_the_end() -> None:
    body = body_of(failed(delivery(5), job(attempts=5), 1, raised(RetryLater("busy", after=7.5))))
    assert (body.reason, body.error) == ("exhausted", "RetryLater")


def test_retry_later_at_once() -> None:
    assert failed(delivery(1), job(), 1, raised(RetryLater("now", after=0))).delay_ms == 0


def test_what_is_given_back_says_why_and_when() -> None:
    finished = released(delivery(2), "w", "left", delay_s=5)
    assert (finished.outcome, finished.attempt, finished.delay_ms) == ("released", 2, 5_000)
    assert body_of(finished) == Released(worker="w", reason="left")


def test_a_failure_tells_where_it_came_from() -> None:
    why = raised(KeyError("missing"))
    assert (why.error, why.message, why.permanent, why.after) == ("KeyError", "'missing'", False, None)
    assert why.traceback.endswith("KeyError: 'missing'\n")
    assert "test_outcomes.py" in why.traceback


def test_a_long_story_is_cut_to_its_bounds() -> None:
    why = raised(ValueError("x" * 100_000))
    assert len(why.message) == MAX_MESSAGE_CHARS
    assert len(why.traceback) <= MAX_TRACEBACK_CHARS


@pytest.mark.parametrize(("after", "kept"), [(-3, 0.0), (0, 0.0), (2.5, 2.5), (1e300, 366 * 24 * 3600.0)])
def test_a_time_that_is_past_or_far_away_is_brought_in_reach(after: float, kept: float) -> None:
    assert RetryLater("busy", after=after).after == kept


@pytest.mark.parametrize("after", [float("nan"), float("inf"), "soon", None], ids=repr)
def test_a_time_that_is_none_is_refused_where_it_is_said(after: Any) -> None:
    """The handler that says it fails; the worker never meets it."""
    with pytest.raises((TypeError, ValueError)):
        RetryLater("busy", after=after)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I cannot say")


@pytest.mark.parametrize(
    "error",
    [
        Mute(),
        ValueError("\ud800 is half a character"),
        ValueError(b"\xff"),
    ],
)
def test_any_exception_can_be_told(error: Exception) -> None:
    """A name of a file that is no UTF-8 brings halves of characters, which JSON does not hold."""
    finished = failed(delivery(1), job(), 1, raised(error))
    assert body_of(finished).error == type(error).__name__
