"""A quantile from the buckets is the true one within the stated error, and merging loses nothing."""

import math

from hypothesis import given
from hypothesis import strategies as st

from penstock.projections.histogram import RELATIVE_ERROR, Histogram, bucket, merge, quantile

durations = st.lists(st.floats(1 / 16, 2.0**31), min_size=1, max_size=200)


def count(values: list[float]) -> Histogram:
    return merge({bucket(value): 1} for value in values)


@given(durations, st.floats(0.001, 1))
def test_a_quantile_is_within_the_error_of_the_sorted_list(values: list[float], share: float) -> None:
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    told = quantile(count(values), share)
    assert told is not None
    assert abs(told / true - 1) <= RELATIVE_ERROR * 1.000001


@given(durations, durations)
def test_two_histograms_merge_to_that_of_all_values(some: list[float], others: list[float]) -> None:
    assert merge([count(some), count(others)]) == count(some + others)


@given(st.floats(0, 2.0**40), st.floats(0, 2.0**40))
def test_longer_is_never_in_a_lower_bucket(one: float, other: float) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


def test_the_ends_of_the_scale_hold_everything_beyond() -> None:
    assert bucket(-5) == bucket(0) == bucket(0.01) == 0
    assert bucket(2.0**32) == bucket(2.0**60)
    assert quantile({0: 3}, 0.5) == 1 / 16


def test_no_durations_no_quantile() -> None:
    assert quantile({}, 0.5) is None
