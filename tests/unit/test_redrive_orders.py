"""What a redrive may say, and how far one had come when its worker died."""

from typing import Any

import msgspec
import pytest

from penstock.core.errors import Permanent
from penstock.core.events import Event, Progressed, Started, encode
from penstock.core.jobs.redrive import Redrive
from penstock.ui.redriving import MARGIN_S, Redriven, taken_up

MEMORY_S = 3600.0


def read(**words: Any) -> Redrive:
    return msgspec.json.decode(msgspec.json.encode(words), type=Redrive)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"filter": {}}, "is empty"),
        ({"filter": {"state": "waiting"}}, "does not apply to waiting jobs"),
        ({"filter": {"queue": "penstock"}}, "does not apply to queue 'penstock'"),
        ({"filter": {"queue": "a"}, "rate": -1}, "rate"),
        ({"filter": {"queue": "a"}, "patch": [1]}, "patch"),
        ({"filter": {"queue": "a"}, "id": "a\nb"}, "id"),
        ({"filter": {"queue": "a"}, "act": "retry"}, "act"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        read(**order)


def test_left_out_the_state_means_failed_jobs() -> None:
    assert read(filter={"queue": "a"}).states() == ("failed",)
    assert read(filter={"queue": "a", "state": "completed"}).states() == ("completed",)


def test_an_order_is_written_small_and_its_nulls_stay() -> None:
    order = read(filter={"queue": "a"}, patch={"cc": None})
    assert msgspec.json.encode(order) == b'{"filter":{"queue":"a"},"patch":{"cc":null}}'


def started(at: int, attempt: int) -> Event:
    return Event(f"{at}-0", "started", "1-0", encode(Started(attempt, "w")))


def progressed(at: int, done: Redriven) -> Event:
    return Event(
        f"{at}-0", "progressed", "1-0", encode(Progressed(0.5, "", msgspec.Raw(msgspec.json.encode(done))))
    )


def test_an_attempt_goes_on_where_the_one_before_said_it_was() -> None:
    def taken(*events: Event, now: int = 10_000) -> Redriven:
        return taken_up(events, now=now, memory=MEMORY_S, seals=None)

    first, later = Redriven(sent=3, queue="a", after="1-2"), Redriven(sent=9, queue="b", after="1-7")
    assert taken(started(2, 1)) == Redriven()
    assert taken(started(2, 1), started(3, 2)) == Redriven()
    story = [started(2, 1), progressed(3, first), progressed(4, later), started(5, 2)]
    assert taken(*story) == later
    assert taken(*story, progressed(6, first)) == later, "its own words do not count"
    too_late = 5 + round((MEMORY_S - MARGIN_S) * 1000)
    assert taken(*story, started(too_late, 3), now=too_late) == later
    with pytest.raises(Permanent, match="lay still"):
        taken(*story, started(too_late + 1, 3), now=too_late + 1)
