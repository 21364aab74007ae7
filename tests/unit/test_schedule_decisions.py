"""Every tick is decided once, whenever somebody looks; what is decided can be read for ever."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Event, encode
from penstock.producer.schedules.deciding import GRACE_MS, MAX_OWED, decide
from penstock.producer.schedules.facts import (
    TAGS,
    AnyFact,
    Overlap,
    Schedule,
    ScheduleDue,
    ScheduleFired,
    ScheduleSet,
    ScheduleSkipped,
    Standing,
    fact,
    read,
)
from penstock.producer.schedules.fold import Book, fold
from penstock.producer.schedules.timing import newest

START = 1_795_000_000_000

schedules = st.builds(
    Schedule,
    queue=st.just("test"),
    job=st.just(msgspec.Raw(b'{"type":"test.echo","payload":{}}')),
    every=st.sampled_from([1, 7, 30, 60, 3600]),
    overlap=st.sampled_from(["skip", "queue", "cancel", "allow"]),
    catch_up=st.sampled_from(["none", "last", "all"]),
    window=st.sampled_from([5, 300, 7 * 24 * 3600]),
    limit=st.sampled_from([1, 5, 500]),
)
# How much later somebody looks again, in ms, and whether the job before is still not over.
looks = st.lists(
    st.tuples(st.one_of(st.integers(1, 3_000), st.integers(1, 10**7)), st.booleans()), max_size=20
)


def event(name: str, body: AnyFact, ms: int, seq: int = 0) -> Event:
    one = fact(name, body)
    return Event(f"{ms}-{seq}", one.tag, one.job, one.body)


def begin(schedule: Schedule) -> Standing:
    standing = fold(None, event("s", ScheduleSet(schedule, "test"), START), ScheduleSet(schedule, "test"))
    assert standing is not None
    return standing


def after_all(standing: Standing, bodies: list[AnyFact], ms: int) -> Standing:
    """The schedule after these facts, written at a time and read back."""
    for seq, body in enumerate(bodies):
        one = event("s", body, ms, seq)
        next_one = fold(standing, one, read(one))
        assert next_one is not None
        standing = next_one
    return standing


@settings(max_examples=300, deadline=None)
@given(schedules, looks)
def test_whenever_somebody_looks_each_tick_is_decided_once_and_in_order(
    schedule: Schedule, looks: list[tuple[int, bool]]
) -> None:
    standing, now = begin(schedule), START
    covered: list[tuple[int, int]] = []  # from, until before
    due: list[int] = []
    for later, busy in looks:
        now += later
        bodies = decide(standing, now, busy=busy)
        for body in bodies:
            if isinstance(body, ScheduleDue):
                due.append(int(body.tick))
                covered.append((int(body.tick), int(body.tick) + 1))
                assert body.caught_up == (int(body.tick) <= now - GRACE_MS)
            else:
                assert isinstance(body, ScheduleSkipped)
                covered.append((body.first, body.until))
        standing = after_all(standing, bodies, now)
        assert decide(standing, now, busy=busy) == []
        fired: list[AnyFact] = [ScheduleFired(it.tick, "test.0.1-0") for it in standing.owed]
        standing = after_all(standing, fired, now)
    assert covered == sorted(covered)
    assert due == sorted(set(due))
    ticks = newest(schedule, START, now, 10**6) if now - START < 10**7 else []
    for tick in ticks:
        assert sum(first <= tick < until for first, until in covered) == 1, tick
    assert set(ticks) >= set(due) or not ticks


@given(schedules, st.integers(0, 10**9))
def test_the_policies_after_a_stop(schedule: Schedule, later: int) -> None:
    schedule = msgspec.structs.replace(schedule, overlap="allow")
    now = START + later
    due = [int(it.tick) for it in decide(begin(schedule), now, busy=True) if isinstance(it, ScheduleDue)]
    on_time = [it for it in due if it > now - GRACE_MS]
    missed = newest(schedule, START, now - GRACE_MS, 1)
    match schedule.catch_up:
        case "none":
            assert due == on_time
        case "last":
            assert len(due) == 1 if missed else due == on_time
        case "all":
            since = max(START, now - round(schedule.window * 1000))
            late = newest(schedule, since, now - GRACE_MS, schedule.limit)
            assert due == late + on_time
            assert len(late) <= schedule.limit


@pytest.mark.parametrize(
    ("overlap", "busy", "reasons"),
    [
        ("skip", True, ["overlap", "overlap", "overlap"]),
        ("skip", False, ["", "overlap", "overlap"]),
        ("queue", True, ["", "", ""]),
        ("allow", True, ["", "", ""]),
        ("cancel", True, ["superseded", "superseded", ""]),
    ],
)
def test_three_ticks_at_once(overlap: Overlap, busy: bool, reasons: list[str]) -> None:
    schedule = Schedule("test", msgspec.Raw(b"{}"), every=1, start=START, overlap=overlap)
    decided = decide(begin(schedule), START + 3_000, busy=busy)
    assert [getattr(it, "reason", "") for it in decided] == reasons


def test_no_more_wait_than_may() -> None:
    schedule = Schedule("test", msgspec.Raw(b"{}"), every=1, start=START, overlap="queue")
    standing, now = begin(schedule), START
    for _ in range(4):
        now += 40_000
        standing = after_all(standing, decide(standing, now, busy=True), now)
    assert len(standing.owed) == MAX_OWED
    assert standing.decision is not None
    assert standing.decision.reason == "full"


SAMPLES: Mapping[str, bytes] = {
    "schedule_set": b'{"schedule":{"queue":"ai","job":{"type":"ai.language","payload":{"text":"x"}},'
    b'"cron":"0 3 * * *","tz":"Europe/Berlin","start":1,"end":2,"jitter":3,"overlap":"queue",'
    b'"catch_up":"all","window":4,"limit":5},"by":"alice"}',
    "schedule_removed": b'{"by":"alice"}',
    "schedule_paused": b'{"by":"alice"}',
    "schedule_resumed": b"{}",
    "schedule_triggered": b'{"by":"alice"}',
    "schedule_due": b'{"tick":"1795000000000","caught_up":true}',
    "schedule_fired": b'{"tick":"1795000000000","job":"ai.0.1795000000001-0"}',
    "schedule_skipped": b'{"reason":"missed","first":1795000000000,"until":1795000060001}',
    "schedule_kept": b'{"standing":{"schedule":{"queue":"ai","job":{"type":"ai.language","payload":{}},'
    b'"every":60},"set_at":1,"set_by":"code","cursor":2,"paused":true,'
    b'"owed":[{"tick":"1795000000000","decided":3}],"last_job":"ai.0.1-0",'
    b'"decision":{"position":"1-0","event":"schedule_fired","tick":"1"}}}',
    "schedules_kept": b'{"since":"1-0"}',
}


@pytest.mark.parametrize("tag", TAGS)
def test_what_was_written_is_read_for_ever(tag: str) -> None:
    """These bytes are in logs: a field may be added, none may change."""
    body = read(Event("1-0", tag, "s", SAMPLES[tag]))
    assert body is not None
    decoded = msgspec.json.decode(SAMPLES[tag])
    assert msgspec.json.decode(encode(body)) == decoded


def test_what_cannot_be_read_changes_nothing() -> None:
    book = Book()
    book.add([event("s", ScheduleSet(Schedule("test", msgspec.Raw(b"{}"), every=1), "a"), START)])
    before = dict(book.standings)
    nonsense = Event("1-0", "schedule_due", "s", b"nonsense")
    unheard_of = Event("2-0", "schedule_unheard_of", "s", b"{}")
    of_nobody = Event("3-0", "schedule_paused", "t", b"{}")
    book.add([nonsense, unheard_of, of_nobody])
    assert book.standings == before
