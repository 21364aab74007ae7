"""What is said about webhook endpoints, folded: which events begin where, and with which secrets."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import QUEUE_TAGS, TAGS, Event, encode
from penstock.core.keys import Keys
from penstock.core.webhooks import (
    EVENT_NAMES,
    FACTS,
    FORMER_SECRET_MS,
    TAG_OF,
    Endpoint,
    Fact,
    Start,
    WebhookPaused,
    WebhookRemoved,
    WebhookReplayed,
    WebhookResumed,
    WebhookSet,
    WebhooksKept,
    event_name,
    fold,
    read_fact,
)
from penstock.projections.webhooks import Origin, message_body, message_id

URL = "https://example.org/hook"
EMAIL = Keys("t").partition("email")


def told(*facts: Fact, before: dict[str, Endpoint] | None = None, begin: int = 1) -> dict[str, Endpoint]:
    """The endpoints after facts about `crm`, said at 1000, 2000 ms and so on."""
    known = before or {}
    for number, fact in enumerate(facts, begin):
        event = Event(f"{number}000-0", TAG_OF[type(fact)], "crm", encode(fact))
        known = fold(known, event, read_fact(event))
    return known


def starts(*facts: Fact) -> dict[str, tuple[str, str]]:
    return {queue: (it.mark, it.after) for queue, it in told(*facts)["crm"].starts.items()}


def asked(*queues: str, signed: str = "s1", **more: Any) -> WebhookSet:
    return WebhookSet(URL, signed, queues=queues, **more)


def test_an_endpoint_begins_when_it_is_made() -> None:
    assert starts(asked()) == {"": ("1000-0", "1000-0")}
    assert starts(asked("a", "b")) == {"a": ("1000-0", "1000-0"), "b": ("1000-0", "1000-0")}


def test_a_change_goes_on_where_it_was_and_begins_only_what_is_new() -> None:
    first, second = ("1000-0", "1000-0"), ("2000-0", "2000-0")
    assert starts(asked("a"), asked("a", "b")) == {"a": first, "b": second}
    assert starts(asked("a"), asked()) == {"a": first, "": second}
    assert starts(asked(), asked("a")) == {"a": first}
    assert starts(asked("a"), asked("b"), asked("a"))["a"] == ("3000-0", "3000-0")
    assert starts(asked(), asked(types=("x.y",))) == {"": first}
    assert starts(asked(), WebhookRemoved(), asked())[""] == ("3000-0", "3000-0")


def test_a_queue_that_is_not_named_begins_with_the_rest() -> None:
    everything, named = told(asked())["crm"], told(asked("a"))["crm"]
    assert everything.start("any") == Start("1000-0", "1000-0")
    assert everything.reader("any") == "webhook:crm:1000-0"
    assert named.start("b") is None
    assert named.reader("b") == ""


def test_deliveries_are_told_of_only_to_who_names_their_queue() -> None:
    assert told(asked())["crm"].start("webhooks") is None
    assert told(asked("webhooks"))["crm"].start("webhooks") == Start("1000-0", "1000-0")


def test_a_replay_begins_all_queues_anew() -> None:
    assert starts(asked("a"), WebhookReplayed("500-7")) == {"a": ("2000-0", "500-7")}


def test_a_secret_that_was_changed_signs_for_a_day() -> None:
    found = told(asked(), asked(signed="s2"))["crm"]
    assert found.secrets(2000) == found.secrets(2000 + FORMER_SECRET_MS - 1) == ["s2", "s1"]
    assert found.secrets(2000 + FORMER_SECRET_MS) == ["s2"]
    assert told(asked(), asked("a"))["crm"].secrets(2000) == ["s1"]


def test_pauses_and_what_is_said_of_nobody() -> None:
    paused = told(asked(), WebhookPaused(reason="it answered 410 Gone"))["crm"]
    assert (paused.paused, paused.reason, paused.changed) == (True, "it answered 410 Gone", 2000)
    resumed = told(asked(), WebhookPaused(reason="why"), WebhookResumed())["crm"]
    assert (resumed.paused, resumed.reason) == (False, "")
    for fact in (WebhookPaused(), WebhookResumed(), WebhookRemoved(), WebhookReplayed("1-1")):
        assert told(fact) == {}


_facts = st.lists(
    st.one_of(
        st.builds(
            lambda queues, secret: asked(*queues, signed=secret),
            st.sets(st.sampled_from("abc")),
            st.sampled_from(["s1", "s2"]),
        ),
        st.sampled_from([WebhookRemoved(), WebhookPaused(), WebhookResumed(), WebhookReplayed("5-0")]),
    ),
    max_size=12,
)


@given(facts=_facts, cut=st.integers(0, 12))
def test_endpoints_said_again_stand_for_all_that_was_said_before(facts: list[Fact], cut: int) -> None:
    kept = WebhooksKept(list(told(*facts[:cut]).values()))
    event = Event("1-0", "webhooks_kept", "1-0", encode(kept))
    again = told(*facts[cut:], before=fold({}, event, read_fact(event)), begin=cut + 1)
    assert again == told(*facts)


def test_every_fact_decodes_from_what_was_written() -> None:
    written = {
        "webhook_set": b'{"url":"https://example.org/hook","secret":"s","events":["*"],"queues":["a"],"by":"ada"}',
        "webhook_removed": b"{}",
        "webhook_paused": b'{"by":"ada","reason":"why"}',
        "webhook_resumed": b'{"by":"ada"}',
        "webhook_replayed": b'{"after":"5-0"}',
        "webhooks_kept": b'{"endpoints":[{"name":"crm","told":{"url":"https://example.org/hook","secret":"s"},'
        b'"starts":{"":{"mark":"1-0","after":"1-0"}},"changed":1}]}',
    }
    assert written.keys() == FACTS.keys()
    for tag, body in written.items():
        fact = read_fact(Event("1-0", tag, "crm", body))
        assert msgspec.json.decode(encode(fact)) == msgspec.json.decode(body)
    assert read_fact(Event("1-0", "webhook_painted", "crm", b"{}")) is None


def test_events_have_names_in_which_a_dot_says_of_what() -> None:
    assert event_name("completed") == "job.completed"
    assert event_name("attempt_failed") == "job.attempt_failed"
    assert event_name("queue_paused") == "queue.paused"
    assert len(EVENT_NAMES) == len(TAGS)
    assert {name.split(".")[0] for name in EVENT_NAMES - {f"job.{tag}" for tag in TAGS}} <= {
        "queue",
        "worker",
    }


def test_an_id_for_receivers_has_no_dot() -> None:
    assert message_id(EMAIL, "1795477369681-0") == "msg_email_0_1795477369681_0"


def body(event: Event, type: str = "email.send") -> Any:
    return msgspec.json.decode(message_body(EMAIL, event, Origin(type)))


def test_a_message_says_what_happened_when_to_which_job() -> None:
    found = body(Event("1795477369681-3", "completed", "1795477369000-0", b'{"ms":1.5,"result":[1]}'))
    assert found == {
        "type": "job.completed",
        "timestamp": "2026-11-23T23:42:49.681Z",
        "data": {
            "queue": "email",
            "job": "email.0.1795477369000-0",
            "type": "email.send",
            "details": {"ms": 1.5, "result": [1]},
        },
    }


def test_a_message_about_a_queue_names_no_job() -> None:
    assert "queue_paused" in QUEUE_TAGS
    found = body(Event("1795477369681-3", "queue_paused", "1795477369681-3", b'{"by":"ada"}'), "")
    assert found["data"] == {"queue": "email", "details": {"by": "ada"}}


def test_large_fields_and_sealed_ones_are_left_out() -> None:
    large = msgspec.json.encode({"ms": 1.0, "result": "x" * 20_000, "note": "small"})
    assert body(Event("1-0", "completed", "1-0", large))["data"]["details"] == {
        "ms": 1.0,
        "result": {"left_out": 20_002},
        "note": "small",
    }
    sealed = b'{"ms":1.0,"result":"sealed:717983d6:0a4ZaXE="}'
    assert body(Event("1-0", "completed", "1-0", sealed))["data"]["details"]["result"] == {"sealed": True}


@pytest.mark.parametrize("written", [b"no json", b"\xff", b"[1]", b""])
def test_an_event_that_cannot_be_read_is_told_without_its_words(written: bytes) -> None:
    assert body(Event("1-0", "completed", "1-0", written))["data"]["details"] == {}
