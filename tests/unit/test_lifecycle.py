"""The fold: the table is all there is, ends are final, nothing is guessed at and nothing raises."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import lifecycle
from penstock.core.events import (
    TAGS,
    AnyBody,
    AttemptFailed,
    Completed,
    Event,
    Failed,
    LeaseExpired,
    Logged,
    Progressed,
    Released,
    Started,
    Submitted,
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
    assert {tag for _, tag in TRANSITIONS} == set(TAGS) - {"submitted"}


def test_an_end_is_final() -> None:
    assert not [state for state, _ in TRANSITIONS if state in TERMINAL]
    assert {TRANSITIONS[key] for key in TRANSITIONS if key[1] in TERMINAL} == TERMINAL


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


def test_progress_before_a_start_is_a_misfit() -> None:
    assert told(["progressed", "logged"]).misfits == 2


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
def test_ends_are_final_in_every_story(beginning: Submitted, story: Any) -> None:
    job, ended = None, None
    for it in _events(beginning, story):
        job = fold_all([it], job)
        assert job is not None
        assert ended is None or job.state == ended
        ended = job.state if job.state in TERMINAL else None


@given(BEGINNINGS, STORIES, st.integers(0, 31))
def test_folding_in_two_parts_is_folding_at_once(beginning: Submitted, story: Any, cut: int) -> None:
    """A view kept at a checkpoint goes on from there; it may have been written and read meanwhile."""
    events = _events(beginning, story)
    half = fold_all(events[:cut])
    kept = msgspec.json.decode(msgspec.json.encode(half), type=Job | None)
    assert fold_all(events[cut:], kept) == fold_all(events)
