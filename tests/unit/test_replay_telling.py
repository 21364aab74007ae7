"""One job's story and its words: gaps, states, misfits, and nothing that a terminal would obey."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import NotFound
from penstock.core.events import (
    TAGS,
    AnyBody,
    AttemptFailed,
    Completed,
    Event,
    Progressed,
    Started,
    Submitted,
    encode,
)
from penstock.core.keys import Keys
from penstock.projections.details import EventDetail, event_detail
from penstock.projections.feed_events import Told
from penstock.projections.replay.telling import story
from penstock.projections.replay.words import MAX_CHARS, duration, words
from penstock.ui.replay_output import Printer, print_story

KEYS = Keys("penstock").partition("mail")
FIRST = "1000-0"


def event(position: str, tag: str, body: AnyBody) -> Event:
    return Event(position, tag, FIRST, encode(body))


SUBMITTED = event(FIRST, "submitted", Submitted("mail.send", msgspec.Raw(b'{"to":"ada"}'), by="ada"))
EVENTS = [
    SUBMITTED,
    event("1250-0", "started", Started(1, "worker-1")),
    *(event(f"{1300 + n}-0", "progressed", Progressed(n / 10, f"step {n}")) for n in range(5)),
    event("1400-0", "attempt_failed", AttemptFailed(1, "TimeoutError", "no answer", 60, "Traceback: x", 40)),
    event("61400-0", "started", Started(2, "worker-2")),
    event("61500-0", "attempt_failed", AttemptFailed(2, "TimeoutError", "no answer", 60, ms=7)),
    event("121500-0", "started", Started(3, "worker-2")),
    event("121501-0", "completed", Completed(3, 1.5, msgspec.Raw(b'"sent"'))),
    event("121502-0", "completed", Completed(3, 1.5)),
]


def test_each_event_has_its_gap_its_state_and_its_attempt() -> None:
    told = story(KEYS, FIRST, EVENTS)
    assert (told.job.id, told.job.state, told.job.attempt, told.job.misfits) == (
        *("mail.0.1000-0", "completed", 3),
        1,
    )
    assert [step.gap_ms for step in told.events[:3]] == [0, 250, 50]
    assert [step.state for step in told.events if step.event != "progressed"] == [
        *("waiting", "active", "delayed", "active", "delayed", "active", "completed", "completed"),
    ]
    assert [step.fits for step in told.events] == [True] * 12 + [False]
    assert [step.attempt for step in told.events][-2:] == [3, 3]
    assert sum(step.gap_ms for step in told.events) == 120_502


def test_a_story_without_its_beginning_is_not_told() -> None:
    for events in ([], EVENTS[1:]):
        with pytest.raises(NotFound):
            story(KEYS, FIRST, events)


def test_people_see_talk_and_repeated_errors_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_story(story(KEYS, FIRST, EVENTS))
    out = capsys.readouterr().out
    assert "40% step 4 (the last of 5)" in out
    assert "step 2" not in out
    assert "attempt 1: TimeoutError: no answer after 40 ms, again in 1 min" in out
    assert "attempt 2: the same error again after 7 ms" in out
    assert "completed (did not fit)" in out
    assert "+1 min" in out
    assert "Traceback" not in out
    print_story(story(KEYS, FIRST, EVENTS), full=True)
    out = capsys.readouterr().out
    assert "step 2" in out
    assert "Traceback: x" in out


def test_events_of_a_foreign_hand_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    asked = event(FIRST, "submitted", Submitted("mail.send", msgspec.Raw(b"{}")))
    foreign = [Event("1001-0", "failed", FIRST, b"garbage"), Event("1002-0", "", FIRST, b"null")]
    for full in (False, True):
        print_story(story(KEYS, FIRST, [asked, *foreign]), full=full)
        out = capsys.readouterr().out
        assert "failed      waiting (did not fit)  garbage" in out
        assert "unreadable  waiting (did not fit)  null" in out


def test_on_a_terminal_an_event_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    payload = msgspec.json.encode({"text": "word " * 60})
    asked = event(FIRST, "submitted", Submitted("mail.send", msgspec.Raw(payload)))
    print_story(story(KEYS, FIRST, [asked]))
    [line] = [line for line in capsys.readouterr().out.splitlines() if "mail.send {" in line]
    assert line.count("word") == 60


@pytest.mark.parametrize(
    ("tag", "body", "said"),
    [
        ("submitted", b'{"type":"a.b","payload":{"x":1},"delay":3}', 'a.b {"x":1} delay=3'),
        ("completed", b"{}", ""),
        ("completed", b'{"ms":1234,"result":{"a":1}}', 'after 1.2 s result {"a":1}'),
        ("failed", b'{"reason":"crashed","error":"WorkerLost","message":""}', "crashed: WorkerLost"),
        ("lease_expired", b'{"worker":"w","crashes":2}', "w fell silent (lost 2 times)"),
        ("queue_limited", b'{"rate":5,"by":"ada"}', "rate=5 by=ada"),
        ("logged", b'{"line":"two\\nlines \\u001b[31mred"}', "two lines \N{REPLACEMENT CHARACTER}[31mred"),
        ("unheard_of", b'{"a":[1]}', "a=[1]"),
        ("unreadable", b"no json", "no json"),
    ],
)
def test_an_event_in_words(tag: str, body: bytes, said: str) -> None:
    assert words(event_detail(Event("5-0", tag, FIRST, body))) == said


FIELDS = ["type", "payload", "attempt", "worker", "fraction", "message", "data", "delay", "error", "ms"]
FIELDS += ["reason", "result", "crashes", "line", "jobs", "first", "last"]
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.sampled_from(sorted(TAGS)), st.dictionaries(st.sampled_from(FIELDS) | st.text(), VALUES))
def test_whatever_a_foreign_hand_wrote_can_be_shown(tag: str, data: dict[str, object]) -> None:
    said = words(EventDetail("5-0", "", tag, msgspec.Raw(msgspec.json.encode(data))))
    assert said.replace("\N{REPLACEMENT CHARACTER}", "").isprintable()


def test_an_event_of_a_foreign_hand_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    event = Event("5-0", "\x1b[2Jgone", "1-0\n\x1b]0;owned\x07", b"\xff")
    Printer(as_json=False).tell(KEYS, Told((event, None), None, (), None))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.removesuffix("\n").isprintable()


def test_events_are_told_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(as_json=False)
    for job in ("1795518653189-0", "1795518653189-12", "1795518653189-123456", "1795518653189-7"):
        printer.tell(KEYS, Told((Event("5-0", "failed", job, b"{}"), None), None, (), None))
    lines = capsys.readouterr().out.splitlines()
    assert [line.index("  failed") - line.index("mail.0") for line in lines] == [24, 24, 27, 27]


def test_words_are_bounded() -> None:
    data = msgspec.Raw(msgspec.json.encode({"line": "x" * 10_000}))
    assert len(words(EventDetail("5-0", "", "logged", data))) == MAX_CHARS


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        *((0, "0 ms"), (1.23456, "1.23 ms"), (999, "999 ms"), (1500, "1.5 s"), (60_000, "1 min")),
        *((999.4, "999 ms"), (999.6, "1.0 s"), (59_940, "59.9 s"), (59_960, "1 min"), (0.0004, "0.0004 ms")),
        *((125_000, "2 min 5 s"), (3_600_000 * 25, "1 d 1 h"), (3_600_000, "1 h")),
    ],
)
def test_durations(ms: float, said: str) -> None:
    assert duration(ms) == said
