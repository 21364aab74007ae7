"""Events are written once and read for ever: the codec's round trip, and the old bytes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import events
from penstock.core.contracts import Backoff
from penstock.core.events import (
    TAGS,
    AnyBody,
    AttemptFailed,
    Cancelled,
    Completed,
    Event,
    Failed,
    LeaseExpired,
    Logged,
    Progressed,
    QueueLimited,
    QueuePaused,
    QueueResumed,
    QueueRetained,
    Released,
    Requeued,
    Rescheduled,
    Started,
    Submitted,
    Trimmed,
    WorkerDrained,
    as_builtins,
    decode,
    encode,
    read_entry,
)

GOLDEN = Path(__file__).parent / "golden"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(0, 1e9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RAW = JSON.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
COUNTS = st.integers(0, 10**6)
BACKOFFS = st.builds(
    Backoff,
    kind=st.sampled_from(["fixed", "exponential"]),
    base=st.floats(0, 100),
    factor=st.floats(1, 10),
    cap=st.floats(0, 1_000),
    jitter=st.floats(0, 1),
)
WORK: dict[str, st.SearchStrategy[Any]] = {
    "type": TEXT,
    "payload": RAW,
    "priority": st.sampled_from(["high", "normal", "low"]),
    "attempts": COUNTS,
    "backoff": BACKOFFS,
    "timeout": FINITE,
    "delay": FINITE,
    "run_at": COUNTS,
    "tags": st.lists(TEXT, max_size=3).map(tuple),
    "key": TEXT,
    "by": TEXT,
    "trace": TEXT,
    "ttl": FINITE,
    "group": TEXT,
    "unique": TEXT,
    "origin": TEXT,
}
BODIES: dict[type[AnyBody], st.SearchStrategy[Any]] = {
    Submitted: st.builds(Submitted, **WORK),
    Requeued: st.builds(Requeued, **WORK, after=TEXT),
    Rescheduled: st.builds(
        Rescheduled,
        at_once=st.booleans(),
        delay=FINITE,
        run_at=COUNTS,
        priority=st.sampled_from(["", "high", "normal", "low"]),
        by=TEXT,
    ),
    Started: st.builds(Started, attempt=COUNTS, worker=TEXT),
    Progressed: st.builds(Progressed, fraction=st.floats(0, 1), message=TEXT, data=RAW),
    Logged: st.builds(Logged, line=TEXT),
    AttemptFailed: st.builds(
        AttemptFailed, attempt=COUNTS, error=TEXT, message=TEXT, delay=FINITE, traceback=TEXT, ms=FINITE
    ),
    LeaseExpired: st.builds(LeaseExpired, worker=TEXT, crashes=COUNTS),
    Released: st.builds(Released, worker=TEXT, reason=TEXT),
    Completed: st.builds(Completed, attempt=COUNTS, ms=FINITE, result=RAW),
    Failed: st.builds(
        Failed, reason=TEXT, error=TEXT, message=TEXT, attempt=COUNTS, traceback=TEXT, ms=FINITE
    ),
    Cancelled: st.builds(Cancelled, by=TEXT, reason=TEXT),
    QueuePaused: st.builds(QueuePaused, by=TEXT),
    QueueResumed: st.builds(QueueResumed, by=TEXT),
    WorkerDrained: st.builds(WorkerDrained, worker=TEXT, by=TEXT),
    QueueRetained: st.builds(QueueRetained, completed=FINITE, failed=FINITE, cancelled=FINITE, by=TEXT),
    Trimmed: st.builds(Trimmed, completed=COUNTS, events=COUNTS, first=TEXT, last=TEXT, jobs=TEXT),
    QueueLimited: st.builds(
        QueueLimited,
        rate=FINITE,
        burst=COUNTS,
        concurrency=COUNTS,
        per_group=COUNTS,
        backlog=COUNTS,
        by=TEXT,
    ),
}
TAG_OF = {shape: tag for tag, shape in TAGS.items()}

# The files of golden/: what their bytes mean. A file, once written, is never changed; a new version of
# a body adds files (`completed-2.json`), and the old ones go on meaning what they mean here.
MEANINGS: dict[str, AnyBody] = {
    "submitted": Submitted(type="email.send", payload=msgspec.Raw(b'{"to": ["ada@example.org"]}')),
    "submitted.all": Submitted(
        type="image.resize",
        payload=msgspec.Raw(b'{"source":"a1","width":640}'),
        priority="high",
        attempts=3,
        backoff=Backoff(kind="fixed", base=2.5, factor=3.0, cap=60.0, jitter=0.0),
        timeout=30.0,
        delay=1.5,
        run_at=1795477369681,
        tags=("blue", "größe"),
        key="order-17",
        by="key:shop",
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "submitted.governed": Submitted(
        type="email.send",
        payload=msgspec.Raw(b'{"to":["ada@example.org"]}'),
        ttl=90.5,
        group="tenant:größe",
        unique="report-2026-07",
        origin="email.0.1795477369681-0",
    ),
    "requeued": Requeued(type="email.send", payload=msgspec.Raw(b'{"to":["ada@example.org"]}')),
    "requeued.all": Requeued(
        type="image.resize",
        payload=msgspec.Raw(b'{"source":"a1","width":640}'),
        priority="low",
        attempts=7,
        backoff=Backoff(kind="exponential", base=0.5, factor=4.0, cap=90.0, jitter=0.1),
        timeout=12.5,
        tags=("blue",),
        by="key:shop",
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ttl=60.0,
        group="tenant:7",
        origin="image.0.1795477369000-2",
        after="1795477369999-3",
    ),
    "rescheduled": Rescheduled(priority="high"),
    "rescheduled.at_once": Rescheduled(at_once=True, by="key:shop"),
    "rescheduled.all": Rescheduled(delay=2.5, run_at=1795477399681, priority="low", by="key:shop"),
    "started": Started(attempt=2, worker="host-12-a1b2c3"),
    "progressed": Progressed(fraction=0.5),
    "progressed.all": Progressed(fraction=1.0, message="sizes", data=msgspec.Raw(b'{"done":[1,2]}')),
    "logged": Logged(line="resized to ein Bild, größer"),
    "attempt_failed": AttemptFailed(attempt=1, error="ValueError", message="no", delay=1.25),
    "attempt_failed.all": AttemptFailed(
        attempt=4,
        error="OSError",
        message="no route",
        delay=8.0,
        traceback="Traceback:\n  …\nOSError: no route\n",
        ms=12.5,
    ),
    "lease_expired": LeaseExpired(worker="host-12-a1b2c3", crashes=1),
    "released": Released(worker="host-12-a1b2c3", reason="the worker was told to leave"),
    "completed": Completed(ms=0.042),
    "completed.all": Completed(attempt=3, ms=1500.25, result=msgspec.Raw(b'{"width":640,"height":480}')),
    "failed": Failed(reason="lost", error="LogTrimmed", message="it is gone"),
    "failed.all": Failed(
        reason="exhausted",
        error="TimeoutError",
        message="ran longer than its timeout of 30 s",
        attempt=5,
        traceback="Traceback:\n  …\n",
        ms=30000.5,
    ),
    "cancelled": Cancelled(),
    "cancelled.all": Cancelled(by="key:shop", reason="the order was withdrawn"),
    "queue_paused": QueuePaused(by="key:shop"),
    "queue_resumed": QueueResumed(by="key:shop"),
    "worker_drained": WorkerDrained(worker="host-17-0a1b2c", by="key:shop"),
    "queue_retained": QueueRetained(),
    "queue_retained.all": QueueRetained(completed=3600.0, failed=0.5, cancelled=86400.0, by="key:shop"),
    "trimmed": Trimmed(
        completed=1200,
        failed=30,
        cancelled=4,
        events=3711,
        first="1795477369681-0",
        last="1795477370000-2",
        jobs="0-0 12-3",
        loose="319-2",
    ),
    "queue_limited": QueueLimited(),
    "queue_limited.all": QueueLimited(
        rate=12.5, burst=20, concurrency=8, per_group=2, backlog=100_000, by="key:shop"
    ),
}


def event(tag: str, body: bytes) -> Event:
    return Event("5-1", tag, "5-0", body)


def test_every_body_is_tried_here() -> None:
    assert set(BODIES) == set(TAGS.values())


@given(st.sampled_from(list(BODIES)).flatmap(lambda shape: BODIES[shape]))
def test_what_is_written_is_read(body: AnyBody) -> None:
    assert decode(event(TAG_OF[type(body)], encode(body))) == body


@given(st.sampled_from(list(BODIES)).flatmap(lambda shape: BODIES[shape]))
def test_what_people_see_is_what_is_in_the_log(body: AnyBody) -> None:
    written = encode(body)
    assert as_builtins(event(TAG_OF[type(body)], written)) == msgspec.json.decode(written)


@given(RAW)
def test_payloads_and_results_pass_through_byte_for_byte(raw: msgspec.Raw) -> None:
    submitted = decode(event("submitted", encode(Submitted("a", raw))))
    completed = decode(event("completed", encode(Completed(result=raw))))
    assert isinstance(submitted, Submitted)
    assert isinstance(completed, Completed)
    assert bytes(submitted.payload) == bytes(completed.result) == bytes(raw)


def test_what_equals_its_default_is_left_out() -> None:
    assert encode(Completed()) == b"{}"
    assert encode(Submitted("a.b", msgspec.Raw(b"1"))) == b'{"type":"a.b","payload":1}'


@pytest.mark.parametrize("name", MEANINGS)
def test_old_bytes_mean_what_they_meant(name: str) -> None:
    tag = name.split(".", maxsplit=1)[0]
    assert decode(event(tag, (GOLDEN / f"{name}.json").read_bytes())) == MEANINGS[name]


def test_every_golden_file_has_its_meaning_and_every_tag_a_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MEANINGS)
    assert {name.split(".", maxsplit=1)[0] for name in MEANINGS} >= set(TAGS)


def test_a_field_of_the_future_does_not_hide_the_rest() -> None:
    """A log is read by older processes while newer ones already write to it."""
    found = decode(event("completed", b'{"ms":2.0,"colour":"blue","result":1}'))
    assert found == Completed(ms=2.0, result=msgspec.Raw(b"1"))


def test_an_unknown_tag_is_kept_and_not_guessed_at() -> None:
    assert decode(event("teleported", b'{"attempt":1}')) is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"attempt":"one"}', b"{}"])
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(event("started", body))


def test_an_entry_of_the_log_becomes_an_event() -> None:
    fields = [b"event", b"started", b"job", b"5-0", b"body", b'{"attempt":1,"worker":"w"}']
    assert read_entry(b"7-2", fields) == Event("7-2", "started", "5-0", b'{"attempt":1,"worker":"w"}')


def test_the_first_event_of_a_job_names_the_job() -> None:
    fields = [b"event", b"submitted", b"job", b"", b"body", b"{}"]
    assert read_entry(b"7-2", fields).job == "7-2"


def test_an_old_tag_is_read_through_its_upcaster(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds_to_ms(body: bytes) -> bytes:
        old = msgspec.json.decode(body)
        return msgspec.json.encode({"ms": old["seconds"] * 1000})

    monkeypatch.setitem(events.UPCASTERS, "done", ("completed", seconds_to_ms))
    found = read_entry(b"7-2", [b"event", b"done", b"job", b"5-0", b"body", b'{"seconds":1.5}'])
    assert (found.tag, decode(found)) == ("completed", Completed(ms=1500.0))


def test_upcasters_lead_from_tags_of_the_past_to_tags_of_today() -> None:
    assert {tag for tag, _ in events.UPCASTERS.values()} <= set(TAGS)
    assert not set(events.UPCASTERS) & set(TAGS)


@pytest.mark.parametrize(
    ("fields", "job"),
    [
        ([b"event", b"\xff", b"job", b"5-0", b"body", b"{}"], "5-0"),
        ([b"event", b"completed", b"job", b"\xfe", b"body", b"{}"], "\N{REPLACEMENT CHARACTER}"),
        ([b"a", b"b"], "7-0"),
        ([b"a", b"b", b"c", b"5-0"], "5-0"),
    ],
)
def test_an_entry_of_a_foreign_hand_has_no_tag(fields: list[bytes], job: str) -> None:
    event = read_entry(b"7-0", fields)
    assert (event.position, event.tag, event.job) == ("7-0", "", job)
    assert decode(event) is None
