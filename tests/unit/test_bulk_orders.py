"""What an order for many jobs may say; and by which error a job is found."""

from typing import Any

import msgspec
import pytest

from penstock.core.events import AttemptFailed, Cancelled, Event, Failed, encode
from penstock.core.jobs.bulk import APPLIES, Bulk, Filter
from penstock.core.lifecycle import STATES
from penstock.projections.filters import last_error


def read(**words: Any) -> Bulk:
    return msgspec.json.decode(msgspec.json.encode(words), type=Bulk)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"act": "retry", "filter": {}}, "is empty"),
        ({"act": "retry", "filter": {"queue": "", "state": None}}, "is empty"),
        ({"act": "retry", "filter": {"state": "waiting"}}, "retry does not apply to waiting jobs"),
        ({"act": "cancel", "filter": {"state": "failed"}}, "only to waiting, delayed, active ones"),
        ({"act": "discard", "filter": {"state": "completed"}}, "discard does not apply"),
        ({"act": "reprioritize", "filter": {"queue": "a"}}, "give a priority"),
        ({"act": "retry", "filter": {"queue": "a"}, "priority": "high"}, "with no other act"),
        ({"act": "explode", "filter": {"queue": "a"}}, "explode"),
        ({"act": "retry", "filter": {"queue": "a", "colour": "red"}}, "colour"),
        ({"act": "retry", "filter": {"since": "2026-01-01T00:00:00"}}, "timezone"),
        (
            {"act": "retry", "filter": {"since": "2026-01-02T00:00:00Z", "until": "2026-01-02T00:00:00Z"}},
            "ends before it begins",
        ),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        read(**order)


def test_left_out_the_state_means_those_that_the_act_is_for() -> None:
    assert read(act="retry", filter={"queue": "a"}).states() == ("failed",)
    assert read(act="retry", filter={"state": "completed"}).states() == ("completed",)
    assert read(act="cancel", filter={"tag": "a"}).states() == ("waiting", "delayed", "active")
    assert {state for states in APPLIES.values() for state in states} == set(STATES)


def test_an_order_is_written_small_and_read_again() -> None:
    order = Bulk(act="promote", filter=Filter(tag="a"))
    assert msgspec.json.encode(order) == b'{"act":"promote","filter":{"tag":"a"}}'
    assert read(act="promote", filter={"tag": "a"}) == order


def test_the_last_error_is_that_of_the_last_attempt_that_failed() -> None:
    first = Event("5-1", "attempt_failed", "5-0", encode(AttemptFailed(1, "OSError", "no route", 1)))
    last = Event("5-2", "failed", "5-0", encode(Failed("exhausted", "ValueError", "no", 2)))
    broken = Event("5-3", "failed", "5-0", b"{")
    dismissed = Event("5-4", "cancelled", "5-0", encode(Cancelled()))
    assert last_error([first]) == "OSError: no route"
    assert last_error([first, last, broken, dismissed]) == "ValueError: no"
    assert last_error([dismissed]) == ""
