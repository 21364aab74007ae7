"""Schedules declared in code: what is wrong is said when the module is loaded."""

from typing import Any

import pytest

from jobs_for_tests import Echo, Nap
from penstock.core.errors import Misconfigured
from penstock.producer.schedules import declaring, schedule


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declaring, "_declared", {})


def test_a_declaration_answers_its_payload_and_is_known() -> None:
    payload = Echo(5)
    assert schedule("nightly", cron="0 3 * * *", tz="Europe/Berlin", priority="low")(payload) is payload
    [(name, request)] = declaring.declared_schedules().items()
    assert (name, request.cron, request.tz) == ("nightly", "0 3 * * *", "Europe/Berlin")
    assert (request.job.type, bytes(request.job.payload), request.job.priority) == (
        "test.echo",
        b'{"value":5}',
        "low",
    )


def test_loading_a_module_again_declares_the_same_again() -> None:
    for _ in range(2):
        schedule("nightly", every=60)(Echo(5))
    assert list(declaring.declared_schedules()) == ["nightly"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("nightly", {"cron": "0 25 * * *"}, "cron: bad hour"),
        ("nightly", {}, "cron or every"),
        ("nightly", {"every": 60, "tz": "Mars"}, "no time zone 'Mars'"),
        ("nightly", {"every": 60, "sometimes": True}, "sometimes"),
        ("nightly", {"every": 60, "attempts": 0}, "attempts"),
        ("Nightly job", {"every": 60}, "a name is"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        schedule(name, **options)(Echo(5))


def test_two_schedules_of_one_name_are_refused() -> None:
    schedule("nightly", every=60)(Echo(5))
    with pytest.raises(Misconfigured, match="declared twice"):
        schedule("nightly", every=60)(Nap(1))
