"""Declaring contracts: names, queues, default options, and a name that is taken."""

from typing import Any

import msgspec
import pytest

from penstock.core import contracts
from penstock.core.contracts import (
    Backoff,
    Options,
    contract,
    declaration,
    declared,
)
from penstock.core.errors import Misconfigured, UnknownType


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one for each test."""
    monkeypatch.setattr(contracts, "_by_type", {})
    monkeypatch.setattr(contracts, "_by_payload", {})


def struct(name: str = "Job", doc: str | None = None) -> type[msgspec.Struct]:
    made = msgspec.defstruct(name, [("text", str)])
    made.__doc__ = doc
    return made


def test_a_contract_is_found_by_type_and_by_payload() -> None:
    payload = contract("mail.send")(struct(doc="Send a mail.\n\nMore words."))
    entry = declared("mail.send")
    assert declaration(payload) is entry
    assert contracts.contracts() == [entry]
    assert (entry.queue, entry.summary, entry.options) == ("mail", "Send a mail.", Options())


def test_the_queue_is_the_first_word_unless_given() -> None:
    contract("mail.send.now", queue="bulk")(struct())
    contract("ping")(struct())
    assert (declared("mail.send.now").queue, declared("ping").queue) == ("bulk", "ping")


def test_options_of_a_contract_are_kept() -> None:
    backoff = Backoff(kind="fixed", base=3, jitter=0)
    contract("a.b", priority="high", attempts=2, backoff=backoff, timeout=5)(struct())
    assert declared("a.b").options == Options("high", 2, backoff, 5)


@pytest.mark.parametrize(
    "name", ["", "A.b", "a b", "a.", ".a", "a..b", "a.b.c.d.e", "-a", "a.-b", "a/b", "a.b\n", "ä", "a:b"]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured):
        contract(name)(struct())
    assert contracts.contracts() == []


@pytest.mark.parametrize("queue", ["", "A", "a.b", "a b", "-a", "a" * 64, "a\n", "{a}", "a:b"])
def test_a_bad_queue_is_refused(queue: str) -> None:
    with pytest.raises(Misconfigured):
        contract("a.b", queue=queue)(struct())


@pytest.mark.parametrize(
    "options",
    [
        {"priority": "urgent"},
        {"attempts": 0},
        {"attempts": 101},
        {"attempts": 2.5},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 24 * 3600 + 1},
        {"timeout": float("nan")},
        {"backoff": Backoff(base=-1)},
        {"backoff": Backoff(factor=0.5)},
        {"backoff": Backoff(jitter=1.5)},
        {"backoff": Backoff(kind="linear")},  # type: ignore[arg-type]
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=r"a\.b"):
        contract("a.b", **options)(struct())
    assert contracts.contracts() == []


def test_a_name_is_taken_once() -> None:
    contract("a.b")(struct("First"))
    with pytest.raises(Misconfigured, match=r"declared twice.*First.*Second"):
        contract("a.b")(struct("Second"))


def test_the_same_declaration_again_replaces_it() -> None:
    """A module that is loaded a second time declares the same name with a new class."""
    contract("a.b", attempts=2)(struct("Same"))
    again = contract("a.b", attempts=3)(struct("Same"))
    assert declared("a.b").options.attempts == 3
    assert declaration(again).payload is again


def test_an_unknown_type_says_what_is_known() -> None:
    contract("a.b")(struct())
    with pytest.raises(UnknownType, match=r"'a\.c'; known here: a\.b"):
        declared("a.c")


def test_a_struct_without_a_contract_says_so() -> None:
    with pytest.raises(Misconfigured, match="decorate it with @contract"):
        declaration(struct("Bare"))


def test_the_defaults_never_change() -> None:
    """They are part of the log's format: events leave out what equals them."""
    assert Options() == Options("normal", 5, Backoff("exponential", 1.0, 2.0, 300.0, 0.2), 60.0)
