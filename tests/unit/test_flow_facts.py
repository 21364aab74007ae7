"""Facts about flows are written once and read for ever: the old bytes, and the codec's round trip."""

from pathlib import Path

import msgspec
import pytest

from penstock.core.contracts import Backoff
from penstock.core.events import Event, Needs, Submitted, encode
from penstock.producer.flows.facts import (
    TAG_OF,
    TAGS,
    FlowCancelled,
    FlowFact,
    FlowSubmitted,
    Node,
    NodeCalled,
    NodeEnded,
    NodeSubmitted,
    read_fact,
)

GOLDEN = Path(__file__).parent / "golden" / "flows"

FETCH = Submitted(
    type="web.fetch",
    payload=msgspec.Raw(b'{"url":"https://example.org/"}'),
    attempts=3,
    backoff=Backoff(base=2.0),
    by="ada",
)
TELL = Submitted(type="mail.tell", payload=msgspec.Raw(b"{}"), delay=5.0, group="ada")

# What the bytes of each file mean. A file, once written, is never changed.
MEANINGS: dict[str, FlowFact] = {
    "flow_submitted": FlowSubmitted((Node("fetch", "web", FETCH),)),
    "flow_submitted.all": FlowSubmitted(
        (Node("fetch", "web", FETCH), Node("tell", "mail", TELL, ("fetch",), "run")),
        "report",
        "ada",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "flow_cancelled": FlowCancelled(),
    "flow_cancelled.all": FlowCancelled("ada", "no longer wanted"),
    "node_called": NodeCalled("fetch"),
    "node_submitted": NodeSubmitted("fetch", "web.0.1795477369681-0"),
    "node_ended": NodeEnded("fetch", "completed", msgspec.Raw(b'{"status":200}')),
    "node_ended.all": NodeEnded("tell", "failed", why="SMTPError: no such mailbox"),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_the_old_bytes_mean_what_they_meant(name: str) -> None:
    body = (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")
    fact = read_fact(Event("1-0", name.split(".", maxsplit=1)[0], "1-0", body))
    assert fact is not None
    assert encode(fact) == encode(MEANINGS[name]) == body
    assert TAG_OF[type(fact)] == name.split(".", maxsplit=1)[0]


def test_every_fact_has_its_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MEANINGS)
    assert {name.split(".", maxsplit=1)[0] for name in MEANINGS} == set(TAGS)


def test_a_job_without_needs_is_written_as_before_there_were_flows() -> None:
    assert b"needs" not in encode(FETCH)
    needs = Needs({"a": msgspec.Raw(b"[1]")}, {"a": "web.fetch"}, {"b": "failed: ValueError: no"})
    job = msgspec.structs.replace(FETCH, needs=needs)
    assert encode(msgspec.json.decode(encode(job), type=Submitted)) == encode(job)
