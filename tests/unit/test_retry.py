"""The retry policy: fixed and exponential waits, their cap, their jitter, and attempts without end."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.consumers.retry import delay
from penstock.core.contracts import MAX_ATTEMPTS, MAX_DELAY_S, Backoff

WAITS = st.floats(0, MAX_DELAY_S)
BACKOFFS = st.builds(
    Backoff,
    kind=st.sampled_from(["fixed", "exponential"]),
    base=WAITS,
    factor=st.floats(1, 10),
    cap=WAITS,
    jitter=st.floats(0, 1),
)


def test_fixed_waits_its_base_whatever_the_attempt() -> None:
    backoff = Backoff(kind="fixed", base=7.5, cap=1, factor=3, jitter=0)
    assert [delay(backoff, attempt) for attempt in (1, 2, 50)] == [7.5, 7.5, 7.5]


def test_exponential_grows_by_its_factor_up_to_its_cap() -> None:
    backoff = Backoff(base=2, factor=3, cap=100, jitter=0)
    assert [delay(backoff, attempt) for attempt in range(1, 7)] == [2, 6, 18, 54, 100, 100]


def test_the_cap_holds_for_the_first_wait_too() -> None:
    assert delay(Backoff(base=50, cap=10, jitter=0), 1) == 10


def test_the_default_doubles_from_a_second_to_five_minutes() -> None:
    steady = Backoff(jitter=0)
    assert [delay(steady, attempt) for attempt in (1, 2, 9, 10, 100)] == [1, 2, 256, 300, 300]


@given(BACKOFFS, st.integers(1, MAX_ATTEMPTS), st.randoms(use_true_random=False))
def test_jitter_takes_at_most_its_share(backoff: Backoff, attempt: int, draw: random.Random) -> None:
    whole = delay(Backoff(backoff.kind, backoff.base, backoff.factor, backoff.cap, 0), attempt)
    wait = delay(backoff, attempt, draw=draw)
    assert whole * (1 - backoff.jitter) * (1 - 1e-9) <= wait <= whole


def test_full_jitter_spreads_over_the_whole_wait() -> None:
    draw = random.Random(1)
    waits = [delay(Backoff(kind="fixed", base=10, jitter=1), 1, draw=draw) for _ in range(2_000)]
    assert min(waits) < 0.1
    assert max(waits) > 9.9
    assert 4.5 < sum(waits) / len(waits) < 5.5


@given(BACKOFFS, st.integers(1, 10**9))
def test_no_attempt_is_too_many(backoff: Backoff, attempt: int) -> None:
    wait = delay(backoff, attempt)
    assert 0 <= wait <= MAX_DELAY_S
    assert math.isfinite(wait)


@pytest.mark.parametrize("attempt", [2, 301, 10_000])
def test_whole_numbers_do_not_overflow(attempt: int) -> None:
    """Backoff(factor=10) in Python holds ints: ints have no infinity to end at."""
    assert delay(Backoff(base=1, factor=10, cap=60, jitter=0), attempt) == (10 if attempt == 2 else 60)
