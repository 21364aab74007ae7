"""The fold: the table is all there is, ends are final, nothing is guessed at and nothing raises."""

import re
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import lifecycle
from penstock.core.events import (
    QUEUE_TAGS,
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
    encode,
)
from penstock.core.lifecycle import (
    STATES,
    TERMINAL,
    TRANSITIONS,
    Job,
    State,
    fold,
    fold_all,
    legible,
    positions,
)
from penstock.core.positions import order

FIRST = "1000-0"
PAYLOAD = msgspec.Raw(b"{}")
SAMPLES: dict[str, AnyBody] = {
    "submitted": Submitted("a.b", PAYLOAD),
    "started": Started(2, "w"),
    "progressed": Progressed(0.5),
    "logged": Logged("line"),
    "attempt_failed": AttemptFailed(2, "E", "m", 1.5),
    "lease_expired": LeaseExpired("w", 1),
    "released": Released("w", "why"),
    "completed": Completed(),
    "failed": Failed("permanent", "E", "m"),
    "cancelled": Cancelled("ada", "why"),
    "requeued": Requeued("a.b", PAYLOAD, after="1500-0"),
    "rescheduled": Rescheduled(priority="high"),
    "queue_paused": QueuePaused(),
    "queue_resumed": QueueResumed(),
    "worker_drained": WorkerDrained("w"),
    "queue_limited": QueueLimited(rate=1),
    "queue_retained": QueueRetained(completed=60),
    "trimmed": Trimmed(completed=1, events=3, first="1-0", last="3-0", jobs="0-0"),
}
UNKNOWN = "teleported"
ALL_TAGS = [*TAGS, UNKNOWN]


def event(tag: str, position: str) -> tuple[Event, AnyBody | None]:
    body = SAMPLES.get(tag)
    return Event(position, tag, FIRST, encode(body) if body else b"{}"), body


def job_in(state: State) -> Job:
    return Job(state, "a.b", attempt=1, ready=7, history="1-0", misfits=2)


def told(tags: list[str], first: AnyBody = SAMPLES["submitted"]) -> Job:
    """A job after its first event and these, a second apart."""
    events = [Event(FIRST, "submitted", FIRST, encode(first))]
    events += [event(tag, f"{1000 + 1000 * at}-0")[0] for at, tag in enumerate(tags, 1)]
    job = fold_all(events)
    assert job is not None
    return job


def test_every_tag_has_a_sample_here() -> None:
    assert set(SAMPLES) == set(TAGS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("tag", ALL_TAGS)
def test_an_event_does_what_the_table_says_or_is_counted(state: State, tag: str) -> None:
    before = job_in(state)
    after = fold(before, *event(tag, "3000-0"))
    assert after is not None
    assert after.history == "1-0 2000-0"
    leads_to = TRANSITIONS.get((state, tag))
    if leads_to is None:
        assert after == msgspec.structs.replace(before, history=after.history, misfits=3)
    else:
        assert (after.state, after.type, after.misfits) == (leads_to, "a.b", 2)


def test_the_table_speaks_of_known_states_and_tags_only() -> None:
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) <= set(STATES)
    assert {tag for _, tag in TRANSITIONS} == set(TAGS) - {"submitted"} - QUEUE_TAGS


def test_an_end_is_final_but_for_who_runs_it_again_or_lays_a_failure_to_rest() -> None:
    assert {key: after for key, after in TRANSITIONS.items() if key[0] in TERMINAL} == {
        ("completed", "requeued"): "waiting",
        ("failed", "requeued"): "waiting",
        ("cancelled", "requeued"): "waiting",
        ("failed", "cancelled"): "cancelled",
    }
    assert {tag: TRANSITIONS[state, tag] for state, tag in TRANSITIONS if tag in TERMINAL} == {
        tag: tag for tag in TERMINAL
    }


def test_only_what_ended_is_requeued() -> None:
    assert {state for state, tag in TRANSITIONS if tag == "requeued"} == TERMINAL


def test_every_state_is_reached_and_every_open_one_can_end() -> None:
    assert set(TRANSITIONS.values()) == set(STATES)
    for state in set(STATES) - TERMINAL:
        assert {TRANSITIONS[state, tag] for tag in TERMINAL} == TERMINAL


def test_the_diagram_shows_every_state_and_every_event_that_changes_one() -> None:
    diagram = set(re.findall(r"[a-z_]+", (lifecycle.__doc__ or "").split("`fold`", maxsplit=1)[0]))
    changing = {tag for (state, tag), after in TRANSITIONS.items() if state != after}
    assert set(STATES) | changing | {"submitted"} <= diagram


@pytest.mark.parametrize(
    ("tags", "state", "attempt", "ready"),
    [
        ([], "waiting", 0, 0),
        (["started"], "active", 2, 0),
        (["started", "progressed", "logged"], "active", 2, 0),
        (["started", "attempt_failed"], "delayed", 2, 3000 + 1500),
        (["started", "attempt_failed", "started"], "active", 2, 4500),
        (["started", "lease_expired"], "waiting", 2, 3000),
        (["started", "released"], "waiting", 2, 3000),
        (["lease_expired", "lease_expired", "failed"], "failed", 0, 3000),
        (["released", "started", "completed"], "completed", 2, 2000),
        (["started", "lease_expired", "completed"], "completed", 2, 3000),
        (["started", "attempt_failed", "completed"], "completed", 2, 4500),
        (["cancelled"], "cancelled", 0, 0),
        (["started", "cancelled"], "cancelled", 2, 0),
        (["started", "attempt_failed", "cancelled"], "cancelled", 2, 4500),
        (["started", "failed", "cancelled"], "cancelled", 2, 0),
        (["cancelled", "requeued"], "waiting", 0, 3000),
        (["started", "failed", "requeued"], "waiting", 0, 4000),
        (["started", "completed", "requeued", "started", "failed"], "failed", 2, 4000),
        (["rescheduled"], "waiting", 0, 0),
        (["started", "attempt_failed", "rescheduled"], "delayed", 2, 4500),
        (["progressed", "logged", "completed"], "completed", 0, 0),
        (["attempt_failed", "started"], "active", 2, 3500),
    ],
)
def test_a_life(tags: list[str], state: str, attempt: int, ready: int) -> None:
    job = told(tags)
    assert (job.state, job.attempt, job.ready, job.misfits) == (state, attempt, ready, 0)


@pytest.mark.parametrize(
    ("submitted", "state", "ready"),
    [
        (Submitted("a.b", PAYLOAD), "waiting", 0),
        (Submitted("a.b", PAYLOAD, delay=1.5), "delayed", 2500),
        (Submitted("a.b", PAYLOAD, run_at=99_000), "delayed", 99_000),
        (Submitted("a.b", PAYLOAD, run_at=99_000, delay=1), "delayed", 99_000),
    ],
)
def test_a_beginning(submitted: Submitted, state: str, ready: int) -> None:
    job = told([], submitted)
    assert (job.state, job.ready, job.type) == (state, ready, "a.b")


@pytest.mark.parametrize(
    ("rescheduled", "state", "ready"),
    [
        (Rescheduled(at_once=True), "waiting", 5000),
        (Rescheduled(at_once=True, priority="low"), "waiting", 5000),
        (Rescheduled(delay=1.5), "delayed", 6500),
        (Rescheduled(run_at=99_000), "delayed", 99_000),
        (Rescheduled(run_at=99_000, delay=1.5), "delayed", 99_000),
    ],
)
@pytest.mark.parametrize("before", ["waiting", "delayed"])
def test_another_time_decides_the_state(
    before: State, rescheduled: Rescheduled, state: str, ready: int
) -> None:
    after = fold(job_in(before), Event("5000-0", "rescheduled", FIRST, b""), rescheduled)
    assert after == Job(cast(State, state), "a.b", 1, ready, "1-0 4000-0", 2)


@pytest.mark.parametrize("before", ["waiting", "delayed"])
def test_another_priority_alone_changes_no_state(before: State) -> None:
    after = fold(job_in(before), Event("5000-0", "rescheduled", FIRST, b""), Rescheduled(priority="low"))
    assert after == msgspec.structs.replace(job_in(before), history="1-0 4000-0")


def test_what_has_started_is_not_rescheduled() -> None:
    job = told(["started", "rescheduled"])
    assert (job.state, job.misfits) == ("active", 1)


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        ("submitted", SAMPLES["submitted"]),
        ("rescheduled", Rescheduled(delay=1e300)),
        ("rescheduled", Rescheduled(run_at=10**14)),
        ("requeued", Requeued("a.b", PAYLOAD, run_at=10**14)),
        ("attempt_failed", AttemptFailed(1, "E", "m", 1e300)),
    ],
)
def test_a_time_past_all_times_and_a_second_beginning_are_not_legible(tag: str, body: AnyBody) -> None:
    assert legible(Event("5000-0", tag, FIRST, encode(body))) == (
        Event("5000-0", "", FIRST, encode(body)),
        None,
    )


def test_a_requeue_that_names_itself_is_not_legible() -> None:
    it = Event(FIRST, "requeued", FIRST, encode(SAMPLES["requeued"]))
    assert legible(it) == (Event(FIRST, "", FIRST, it.body), None)


def test_progress_of_a_job_that_waits_is_kept() -> None:
    """An idle worker begins at once, and its `started` may be lost with a connection."""
    job = told(["progressed", "logged"])
    assert (job.state, job.attempt, job.misfits) == ("waiting", 0, 0)


def test_progress_of_a_job_that_has_not_begun_is_a_misfit() -> None:
    delayed = Submitted("a.b", PAYLOAD, delay=60)
    assert told(["progressed", "logged"], delayed).misfits == 2
    assert told(["completed", "progressed", "logged"]).misfits == 2


def test_a_second_end_is_a_misfit() -> None:
    job = told(["started", "completed", "failed", "completed", "started"])
    assert (job.state, job.misfits) == ("completed", 3)


@pytest.mark.parametrize("tag", [tag for tag in ALL_TAGS if tag != "submitted"])
def test_a_job_whose_beginning_is_gone_stays_unknown(tag: str) -> None:
    assert fold(None, *event(tag, "2000-0")) is None


LATER = st.tuples(st.integers(1, 10_000), st.integers(0, 99))
STORIES = st.lists(st.tuples(st.sampled_from(ALL_TAGS), LATER), max_size=30)
BEGINNINGS = st.builds(
    Submitted,
    type=st.just("a.b"),
    payload=st.just(PAYLOAD),
    delay=st.sampled_from([0.0, 0.001, 3.5]),
    run_at=st.sampled_from([0, 1, 5_000]),
)


# How an end is left, here without asking the table.
LEFT = {("completed", "requeued"), ("failed", "requeued"), ("cancelled", "requeued"), ("failed", "cancelled")}


def _events(beginning: Submitted, story: list[tuple[str, tuple[int, int]]]) -> list[Event]:
    rows = [Event(FIRST, "submitted", FIRST, encode(beginning))]
    for tag, (ms, seq) in sorted(story, key=lambda row: row[1]):
        rows.append(event(tag, f"{1000 + ms}-{seq}")[0])
    return rows


@given(BEGINNINGS, STORIES)
def test_no_story_raises_and_each_event_is_in_the_history(beginning: Submitted, story: Any) -> None:
    events = _events(beginning, story)
    job = fold_all(events)
    assert job is not None
    assert positions(FIRST, job) == [it.position for it in events]
    assert positions(FIRST, job) == sorted(positions(FIRST, job), key=order)
    assert job.state in STATES


@given(BEGINNINGS, STORIES)
def test_a_misfit_changes_nothing_but_the_count(beginning: Submitted, story: Any) -> None:
    """Left out, the same job comes out, but for its history and its count."""
    job, fitting = None, []
    for it in _events(beginning, story):
        after = fold_all([it], job)
        assert after is not None
        if job is None or after.misfits == job.misfits:
            fitting.append(it)
        job = after
    assert job is not None
    without = fold_all(fitting)
    assert without is not None
    assert msgspec.structs.replace(job, history="", misfits=0) == msgspec.structs.replace(without, history="")


@given(BEGINNINGS, STORIES)
def test_ends_are_left_by_a_request_only_in_every_story(beginning: Submitted, story: Any) -> None:
    job, ended = None, None
    for it in _events(beginning, story):
        job = fold_all([it], job)
        assert job is not None
        assert ended is None or job.state == ended or (ended, it.tag) in LEFT
        ended = job.state if job.state in TERMINAL else None


@given(BEGINNINGS, STORIES, st.integers(0, 31))
def test_folding_in_two_parts_is_folding_at_once(beginning: Submitted, story: Any, cut: int) -> None:
    """A view kept at a checkpoint goes on from there; it may have been written and read meanwhile."""
    events = _events(beginning, story)
    half = fold_all(events[:cut])
    kept = msgspec.json.decode(msgspec.json.encode(half), type=Job | None)
    assert fold_all(events[cut:], kept) == fold_all(events)
