"""Positions keep their order in every form they take, and a job id comes apart as it was made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import NotFound
from penstock.core.positions import (
    JobAddress,
    delta,
    milliseconds,
    order,
    packed,
    parse_job_id,
    undelta,
    unpacked,
)

MS = st.integers(0, 2**48 - 1)
POSITIONS = st.builds("{}-{}".format, MS, st.integers(0, 9_999_999_999))


@given(POSITIONS, POSITIONS)
def test_packed_positions_sort_as_the_log_does(left: str, right: str) -> None:
    assert (packed(left) < packed(right)) == (order(left) < order(right))
    assert (packed(left) == packed(right)) == (left == right)


@given(POSITIONS)
def test_packing_is_undone_and_takes_fourteen_bytes(position: str) -> None:
    assert unpacked(packed(position)) == position
    assert len(packed(position)) == 14


@pytest.mark.parametrize("position", ["281474976710656-0", "1", "a-b", ""])
def test_what_no_log_gives_is_not_packed(position: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        packed(position)


@given(POSITIONS, st.integers(0, 10**10), st.integers(0, 10**9))
def test_delta_is_undone(base: str, later_ms: int, seq: int) -> None:
    position = f"{milliseconds(base) + later_ms}-{seq}"
    assert delta(base, position) == f"{later_ms}-{seq}"
    assert undelta(base, delta(base, position)) == position


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), st.integers(0, 9_999), POSITIONS)
def test_a_job_id_comes_apart_as_it_was_made(queue: str, partition: int, position: str) -> None:
    assert parse_job_id(f"{queue}.{partition}.{position}") == JobAddress(queue, partition, position)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "email",
        "email.0",
        "email.0.1795477369681",
        "email.0.1795477369681-",
        "email.0.-0",
        "email.x.1795477369681-0",
        "email.10000.1795477369681-0",
        "Email.0.1795477369681-0",
        "e mail.0.1795477369681-0",
        "-email.0.1795477369681-0",
        "a" * 64 + ".0.1-0",
        "email.0.1795477369681-0\n",
        "email.0.1795477369681-0 ",
        "email.0.9999999999999999-0",
        "email.0.1-99999999999",
        "email.0.+-0",
        "email.*.1-0",
        "{email}.0.1-0",
    ],
)
def test_another_form_names_no_job(text: str) -> None:
    with pytest.raises(NotFound):
        parse_job_id(text)


@pytest.mark.parametrize("text", ["email.0.\u0661\u0662-0", "email.\u0660.1-0", "email.0.1-\u0660"])
def test_digits_of_other_scripts_are_no_positions(text: str) -> None:
    """Redis would refuse them with an error, where the answer is: no such job."""
    with pytest.raises(NotFound):
        parse_job_id(text)


@pytest.mark.parametrize("text", ["email.0.0123-0", "email.00.123-0", "email.0.123-00", "email.01.123-0"])
def test_a_job_has_one_id(text: str) -> None:
    """Redis reads 0123-0 as 123-0, but the job's later events name 123-0: the id with more zeros
    would find a job with no history."""
    with pytest.raises(NotFound):
        parse_job_id(text)


@given(st.text(max_size=60))
def test_any_text_is_an_id_or_not_found(text: str) -> None:
    try:
        address = parse_job_id(text)
    except NotFound:
        return
    assert f"{address.queue}.{address.partition}.{address.position}" == text
