"""Whatever is in the log, in whatever pages it is folded, the views are the same bytes, and they agree
with each other: rows, indexes, counts and totals (I1)."""

from collections import Counter
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import QUEUE_TAGS, TAGS, QueueLimited, Trimmed
from penstock.core.lifecycle import STATES, Job, read_row
from penstock.core.log import Entry
from penstock.core.positions import milliseconds, packed, unpacked
from penstock.projections.tally import BOUNDS_MS, MS, Spread
from penstock.projections.views import (
    MINUTE_MS,
    MINUTES_KEPT,
    Rows,
    Views,
    listed,
    read,
    read_minute,
    read_stats,
)

START_MS = 1_795_477_369_681

BODIES: dict[str, list[bytes]] = {
    "submitted": [
        b'{"type":"mail.send","payload":{}}',
        b'{"type":"mail.bulk","payload":[1],"delay":5}',
        b'{"type":"mail.send","payload":"x","run_at":1795477399681}',
        b'{"type":"mail.send","payload":{},"delay":1e300}',
        b'{"payload":1}',
    ],
    "started": [
        b'{"attempt":1,"worker":"w"}',
        b'{"attempt":2,"worker":"w"}',
        b"{",
        b'{"attempt":"x","worker":1}',
    ],
    "progressed": [b'{"fraction":0.5}'],
    "logged": [b'{"line":"hello"}'],
    "attempt_failed": [
        b'{"attempt":1,"error":"E","message":"m","delay":2.5,"ms":12.5}',
        b'{"attempt":1,"error":"E","message":"m","delay":1e300}',
    ],
    "lease_expired": [b'{"worker":"w","crashes":1}'],
    "released": [b'{"worker":"w","reason":"left"}'],
    "completed": [b'{"ms":0.25}', b"{}", b'{"ms":700,"result":{"a":[1,2]}}', b"\xff\xfe"],
    "failed": [
        b'{"reason":"permanent","error":"E","message":"m","ms":3}',
        b'{"reason":"crashed","error":"E","message":"m"}',
    ],
    "cancelled": [b"{}", b'{"by":"ada","reason":"r"}'],
    "requeued": [
        b'{"type":"mail.send","payload":{},"after":"1-0"}',
        b'{"type":"mail.send","payload":{},"delay":1e300}',
        b'{"after":"1-0"}',
    ],
    "rescheduled": [
        b'{"at_once":true}',
        b'{"delay":2.5}',
        b'{"run_at":1795477399681}',
        b'{"priority":"low"}',
    ],
    "queue_paused": [b"{}"],
    "queue_resumed": [b"{}"],
    "worker_drained": [b'{"worker":"w"}'],
    "queue_limited": [b'{"rate":2.5,"burst":3}', b"{}"],
    "queue_retained": [b'{"completed":60}', b"{}"],
    # Of the first event there may be: a job, or an event of none.
    "trimmed": [
        b'{"completed":1,"events":3,"first":"1795477369681-0","jobs":"0-0"}',
        b'{"events":1,"first":"1795477369681-0","loose":"0-0"}',
        b"{}",
    ],
    "exploded": [b"{}"],
}

UNCOUNTED = {tag.encode() for tag in ("progressed", "logged", "rescheduled", *QUEUE_TAGS)}

happenings = st.lists(
    st.tuples(
        st.sampled_from(["submitted", *BODIES]),
        st.integers(0, 5),  # which job
        st.integers(0, 4),  # which body
        st.sampled_from([0, 0, 0, 1, 40, 9_000, MINUTE_MS, 50 * 60 * MINUTE_MS]),  # ms since the event before
    ),
    max_size=120,
)


def written(story: list[tuple[str, int, int, int]]) -> list[Entry]:
    """Log entries: each names one of the last jobs submitted, most of what follows fits no state."""
    entries: list[Entry] = []
    jobs: list[bytes] = []
    ms = START_MS
    for number, (tag, which, body, later) in enumerate(story):
        ms += later
        position = b"%d-%d" % (ms, number)
        first = tag == "submitted" or tag in QUEUE_TAGS
        job = b"" if first else jobs[-1 - which % len(jobs)] if jobs else b"1-0"
        if tag == "submitted":
            jobs.append(position)
        bodies = BODIES[tag]
        entries.append((position, [b"event", tag.encode(), b"job", job, b"body", bodies[body % len(bodies)]]))
    return entries


class Memory:
    """Redis as far as the views need it: takes `Changes` as apply.lua does."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.indexes: dict[tuple[str, str], set[bytes]] = {}
        self.loose: set[bytes] = set()
        self.trimmed = 0
        self.minutes: dict[int, bytes] = {}
        self.stats = b""

    def fold(self, entries: list[Entry], pages: list[int]) -> None:
        """Fold all, in pages of the sizes given, then of one; the views are loaded anew for each."""
        done = 0
        position = "0-0"
        while done < len(entries):
            size = pages.pop(0) if pages else 1
            events = [read(entry) for entry in entries[done : done + size]]
            newest = max(self.minutes, default=None)
            views = Views(
                position,
                read_stats(self.stats) if self.stats else None,
                list(self.minutes),
                None if newest is None else read_minute(self.minutes[newest]),
            )
            named = [event.job for event, _ in events]
            for _, body in events:
                if isinstance(body, Trimmed):
                    named += listed(body.first, body.jobs)
            rows: Rows = {job: self._row(job) for job in named}
            self._apply(views.fold(events, rows))
            position, done = views.position, done + size

    def _row(self, job: str) -> Job | None:
        row = self.rows.get(packed(job)) if job != "x" else None
        return read_row(row) if row else None

    def _apply(self, changes: Any) -> None:
        for (state, type), move in changes.moves.items():
            index = self.indexes.setdefault((state, type), set())
            assert index.issuperset(move.removed)
            index.difference_update(move.removed)
            index.update(move.added)
        self.minutes.update(zip(changes.minutes[::2], changes.minutes[1::2], strict=True))
        for minute in changes.pruned:
            del self.minutes[minute]
        self.rows.update(zip(changes.rows[::2], changes.rows[1::2], strict=True))
        for job in changes.forgotten:
            del self.rows[job]
        self.trimmed += len(changes.forgotten)
        self.loose.difference_update(changes.loose.removed)
        self.loose.update(changes.loose.added)
        self.stats = changes.stats

    def bytes(self) -> tuple[Any, ...]:
        full = {name: members for name, members in self.indexes.items() if members}
        return self.rows, full, self.loose, self.minutes, self.stats


def fold(entries: list[Entry], pages: list[int]) -> Memory:
    memory = Memory()
    memory.fold(entries, pages)
    return memory


@settings(max_examples=200)
@given(happenings, st.lists(st.integers(1, 30), max_size=20))
def test_pages_of_any_size_give_the_same_bytes(
    story: list[tuple[str, int, int, int]], pages: list[int]
) -> None:
    entries = written(story)
    assert fold(entries, pages).bytes() == fold(entries, [len(entries)]).bytes()


@settings(max_examples=200)
@given(happenings.filter(bool))
def test_rows_indexes_counts_and_totals_agree(story: list[tuple[str, int, int, int]]) -> None:
    entries = written(story)
    memory = fold(entries, [len(entries)])
    rows = {unpacked(place): read_row(row) for place, row in memory.rows.items()}
    stats = read_stats(memory.stats)

    by_state = Counter((row.state, row.type) for row in rows.values())
    for state in STATES:
        assert getattr(stats.counts(), state) == sum(1 for row in rows.values() if row.state == state)
        for type, counts in stats.types.items():
            assert getattr(counts, state) == by_state[state, type]
            jobs = {packed(job) for job, row in rows.items() if (row.state, row.type) == (state, type)}
            assert memory.indexes.get((state, type), set()) == jobs

    totals = stats.totals
    assert totals.submitted == len(rows) + memory.trimmed
    assert totals.misfits >= sum(row.misfits for row in rows.values())
    assert sum(stats.reasons.values()) == totals.failed
    uncounted = sum(1 for _, fields in entries if fields[1] in UNCOUNTED)
    counted = sum(msgspec.structs.astuple(totals))
    of_queue = sum(1 for _, fields in entries if fields[1].decode() in QUEUE_TAGS)
    assert len(entries) - uncounted <= counted <= len(entries) - of_queue
    assert stats.events == len(entries)


@settings(max_examples=100)
@given(happenings.filter(bool))
def test_what_is_counted_by_type_is_all_but_what_names_no_job(story: list[tuple[str, int, int, int]]) -> None:
    entries = written(story)
    memory = fold(entries, [len(entries)])
    rows = {unpacked(place): read_row(row) for place, row in memory.rows.items()}
    stats = read_stats(memory.stats)
    sums = Counter[str]()
    for type, tally in stats.tallies.items():
        jobs = [milliseconds(job) for job, row in rows.items() if row.type == type]
        assert not jobs or tally.first <= min(jobs)
        sums.update(msgspec.structs.asdict(tally.totals))
        assert sum(tally.wait.counts) == tally.totals.started
        assert sum(tally.whole.counts) == tally.totals.completed + tally.totals.failed
        assert sum(tally.run.counts) <= sum(tally.whole.counts) + tally.totals.retried
    misfits = sums.pop("misfits", 0)
    totals = msgspec.structs.asdict(stats.totals)
    assert misfits <= totals.pop("misfits")
    assert all(sums[name] == count for name, count in totals.items())


@given(st.lists(st.integers(-5, 2**45), min_size=1, max_size=50))
def test_a_spread_counts_what_does_not_exceed_a_bound(waits: list[int]) -> None:
    spread = Spread()
    spread.add(Counter(waits[:10]), MS)
    spread.add(Counter(waits[10:]), MS)
    within = list(accumulate(spread.counts))
    for bound, count in zip(BOUNDS_MS, within, strict=False):
        assert count == sum(1 for wait in waits if wait <= bound)
    assert within[-1] == len(waits)
    assert spread.us == sum(min(max(wait, 0), 2**32) for wait in waits) * 1000


@given(happenings.filter(bool))
def test_how_the_queue_is_governed_is_what_was_said_last(story: list[tuple[str, int, int, int]]) -> None:
    stats = read_stats(fold(written(story), [len(story)]).stats)
    pauses = [tag for tag, *_ in story if tag in ("queue_paused", "queue_resumed")]
    limits = [body for tag, _, body, _ in story if tag == "queue_limited"]
    assert stats.paused == (pauses[-1:] == ["queue_paused"])
    limited = bool(limits) and limits[-1] % 2 == 0
    assert stats.limits == (QueueLimited(rate=2.5, burst=3) if limited else QueueLimited())


@settings(max_examples=100)
@given(happenings.filter(bool))
def test_minutes_are_those_of_the_last_48_hours_of_the_log_and_add_up(
    story: list[tuple[str, int, int, int]],
) -> None:
    entries = written(story)
    memory = fold(entries, [len(entries)])
    happened = [int(position.split(b"-")[0]) // MINUTE_MS for position, _ in entries]
    kept = {minute for minute in happened if minute > happened[-1] - MINUTES_KEPT}
    assert set(memory.minutes) == kept
    if kept == set(happened):
        sums = Counter[str]()
        for raw in memory.minutes.values():
            minute = read_minute(raw)
            sums.update(msgspec.structs.asdict(minute.totals))
            assert sum(minute.wait.values()) == minute.totals.started
        assert sums == Counter(msgspec.structs.asdict(read_stats(memory.stats).totals))


def entry(position: str, tag: bytes, job: str, body: bytes) -> Entry:
    return position.encode(), [b"event", tag, b"job", job.encode(), b"body", body]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param((b"1000-7", [b"event"]), id="fields missing"),
        pytest.param((b"1000-7", [b"event", b"\xff", b"job", b"1000-0", b"body", b"{}"]), id="tag no text"),
        pytest.param((b"1000-7", [b"event", b"started", b"job", b"1000-0", b"body", b"nope"]), id="no JSON"),
        pytest.param(
            (b"1000-7", [b"event", b"started", b"job", b"1000-0", b"body", b"{}"]), id="no such body"
        ),
        pytest.param((b"1000-7", [b"event", b"shrunk", b"job", b"1000-0", b"body", b"{}"]), id="unknown tag"),
        pytest.param(
            (b"1000-7", [b"event", b"completed", b"job", b"1000-0", b"body", b'{"result":' + b"[" * 9999]),
            id="nested without end",
        ),
        pytest.param(
            (b"1000-7", [b"event", b"submitted", b"job", b"x", b"body", b'{"type":"a","payload":1}']),
            id="a beginning that names another job",
        ),
    ],
)
def test_an_event_that_cannot_be_read_changes_no_state_and_is_counted(broken: Entry) -> None:
    first = entry("1000-0", b"submitted", "", b'{"type":"mail.send","payload":{}}')
    last = entry("1000-9", b"started", "1000-0", b'{"attempt":1,"worker":"w"}')
    memory = fold([first, broken, last], [3])
    row = read_row(memory.rows[packed("1000-0")])
    assert row.state == "active"
    assert read_stats(memory.stats).totals.misfits == 1
    of_the_job = broken[1][3:4] == [b"1000-0"]
    assert row.misfits == int(of_the_job)
    assert row.history.split() == (["0-7"] if of_the_job else []) + ["0-9"]


def test_wait_counts_from_when_a_job_was_ready() -> None:
    ten_s_late = entry("16000-0", b"started", "1000-0", b'{"attempt":1,"worker":"w"}')
    memory = fold([entry("1000-0", b"submitted", "", b'{"type":"t","payload":1,"delay":5}'), ten_s_late], [2])
    [(number, count)] = read_minute(memory.minutes[0]).wait.items()
    assert count == 1
    assert abs(2 ** ((number - 1) / 4 - 4) / 10_000 - 1) < 0.2


positions = st.tuples(st.integers(0, 2**48 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(positions, unique=True))
def test_members_of_an_index_sort_as_the_log_does(places: list[tuple[int, int]]) -> None:
    members = sorted(packed(f"{ms}-{seq}") for ms, seq in places)
    assert [unpacked(it) for it in members] == [f"{ms}-{seq}" for ms, seq in sorted(places)]


def test_every_tag_has_a_body_here() -> None:
    assert set(TAGS) <= set(BODIES)
