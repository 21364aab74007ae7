"""The outbox: progress is coalesced, talkers are slowed down, last words go out with the end."""

from itertools import count
from typing import Any

import msgspec
import pytest

from penstock.consumers import outbox as outbox_module
from penstock.consumers.context import (
    MAX_LOG_LINE_CHARS,
    MAX_LOG_LINES,
    MAX_MESSAGE_CHARS,
    Context,
    Report,
)
from penstock.consumers.outbox import MAX_NOTE_BYTES, SPACING_S, Outbox
from penstock.core.dispatch import Delivery, Finished
from penstock.core.events import Event, Progressed, decode


class Clock:
    """Time as the test turns it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """An outbox, its clock, and how often it rang."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rings = 0
        self.outbox = Outbox(self._ring)

    def _ring(self) -> None:
        self.rings += 1

    def progress(self, delivery: Delivery, fraction: float, **more: Any) -> None:
        self.outbox.say(delivery, Report("progressed", msgspec.json.encode({"fraction": fraction, **more})))

    def line(self, delivery: Delivery, line: str) -> None:
        self.outbox.say(delivery, Report("logged", msgspec.json.encode({"line": line})))

    def take(self, *ends: Delivery) -> list[tuple[str, Any]]:
        """What goes out in a cycle in which the attempts `ends` end."""
        for delivery in ends:
            self.outbox.finish(end_of(delivery))
        notes = self.outbox.take_notes(self.outbox.take_finished())
        return [(note.tag, msgspec.json.decode(note.body)) for note in notes]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    clock = Clock()
    monkeypatch.setattr(outbox_module, "monotonic", clock)
    return Rig(clock)


_entries = count(1)


def delivery() -> Delivery:
    number = next(_entries)
    return Delivery(lane=2, entry=b"%d-0" % number, attempt=1, job=b"%d-0" % number, body=b"{}")


def end_of(it: Delivery) -> Finished:
    return Finished("completed", it.lane, it.entry, it.attempt, it.job, b"{}")


def test_an_empty_outbox_is_false(rig: Rig) -> None:
    assert not rig.outbox
    assert rig.take() == []
    assert rig.rings == 0


def test_an_end_rings_and_is_taken_once(rig: Rig) -> None:
    end = end_of(delivery())
    rig.outbox.finish(end)
    assert rig.outbox
    assert (rig.rings, rig.outbox.unreported) == (1, [end])
    assert rig.outbox.take_finished() == [end]
    assert not rig.outbox
    assert rig.outbox.take_finished() == []


def test_only_the_latest_progress_goes_out(rig: Rig) -> None:
    job = delivery()
    for fraction in (0.1, 0.2, 0.9):
        rig.progress(job, fraction)
    assert rig.take() == [("progressed", {"fraction": 0.9})]


def test_every_line_goes_out_in_order_before_the_progress(rig: Rig) -> None:
    job = delivery()
    rig.progress(job, 0.5)
    rig.line(job, "one")
    rig.line(job, "two")
    assert rig.take() == [
        ("logged", {"line": "one"}),
        ("logged", {"line": "two"}),
        ("progressed", {"fraction": 0.5}),
    ]


def test_the_next_note_waits_for_its_time(rig: Rig) -> None:
    job = delivery()
    rig.progress(job, 0.1)
    rig.take()
    rings = rig.rings
    rig.progress(job, 0.2)
    assert not rig.outbox
    assert (rig.take(), rig.rings) == ([], rings)
    rig.clock.now += SPACING_S
    assert rig.outbox
    assert rig.take() == [("progressed", {"fraction": 0.2})]


def test_one_talker_does_not_hold_back_another(rig: Rig) -> None:
    one, other = delivery(), delivery()
    rig.progress(one, 0.1)
    rig.take()
    rig.progress(one, 0.2)
    rig.progress(other, 0.7)
    assert rig.take() == [("progressed", {"fraction": 0.7})]


def test_last_words_go_out_with_the_end(rig: Rig) -> None:
    job = delivery()
    rig.progress(job, 0.1)
    rig.take()
    rig.progress(job, 1.0)
    rig.line(job, "done")
    assert rig.take(job) == [("logged", {"line": "done"}), ("progressed", {"fraction": 1.0})]
    rig.clock.now += 3600
    assert not rig.outbox


def test_a_note_belongs_to_its_delivery(rig: Rig) -> None:
    job = delivery()
    rig.progress(job, 0.5)
    (note,) = rig.outbox.take_notes([])
    assert (note.lane, note.entry, note.job) == (job.lane, job.entry, job.job)


@pytest.mark.parametrize(("seconds", "most"), [(600, 700), (3_600, 1_500), (24 * 3_600, 7_000)])
def test_a_talker_is_slowed_down(rig: Rig, seconds: int, most: int) -> None:
    """As the module says: about 500 notes in ten minutes, 1,200 in an hour, 6,000 in a day."""
    job = delivery()
    notes = 0
    end = rig.clock.now + seconds
    while rig.clock.now < end:
        rig.progress(job, 0.5)
        notes += len(rig.take())
        rig.clock.now += SPACING_S
    assert most / 2 < notes <= most


def test_a_note_over_the_bound_is_left_out(rig: Rig) -> None:
    job = delivery()
    rig.progress(job, 0.5, data="x" * MAX_NOTE_BYTES)
    rig.line(job, "small")
    assert rig.take() == [("logged", {"line": "small"})]


def context(rig: Rig, job: Delivery) -> Context:
    return Context(
        job_id="a.0.1-0",
        type="a.b",
        attempt=1,
        attempts=3,
        artifacts=None,
        jobs=None,
        report=lambda report: rig.outbox.say(job, report),
    )


def test_lines_of_an_attempt_are_bounded(rig: Rig) -> None:
    job = delivery()
    talker = context(rig, job)
    for number in range(MAX_LOG_LINES * 5):
        talker.log(f"{number} " + "x" * 10_000)
    said = rig.take(job)
    assert len(said) == MAX_LOG_LINES
    assert max(len(body["line"]) for _, body in said) == MAX_LOG_LINE_CHARS
    assert said[-1][1]["line"] == f"({MAX_LOG_LINES} lines: no more are kept)"


def test_a_message_is_cut(rig: Rig) -> None:
    job = delivery()
    context(rig, job).progress(0.5, "x" * 10_000)
    ((_, body),) = rig.take()
    assert len(body["message"]) == MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("said", "kept"), [(-1, 0.0), (0, 0.0), (0.25, 0.25), (1, 1.0), (17, 1.0), (float("inf"), 1.0)]
)
def test_a_fraction_stays_between_none_and_all(rig: Rig, said: float, kept: float) -> None:
    job = delivery()
    context(rig, job).progress(said)
    assert rig.take() == [("progressed", {"fraction": kept})]


UNSAYABLE = [
    (0.5, "", object()),
    (0.5, "\ud800", None),
    (0.5, "", {"half": "\ud800"}),
    (float("nan"), "", None),
]


@pytest.mark.parametrize(("fraction", "message", "data"), UNSAYABLE)
def test_what_cannot_be_said_is_the_handlers_error_and_never_the_workers(
    rig: Rig, fraction: float, message: str, data: Any
) -> None:
    """A note that cannot be written must fail its own attempt, or be kept in a form that can be read;
    it must not reach the loop that speaks for all attempts."""
    job = delivery()
    try:
        context(rig, job).progress(fraction, message, data)
    except (TypeError, ValueError):
        return
    for note in rig.outbox.take_notes([]):
        assert isinstance(decode(Event("2-0", note.tag, "1-0", note.body)), Progressed)


def test_a_line_that_is_no_text_never_reaches_the_loop(rig: Rig) -> None:
    job = delivery()
    try:
        context(rig, job).log("\udcff in a file's name")
    except ValueError:
        return
    for note in rig.outbox.take_notes([]):
        assert decode(Event("2-0", note.tag, "1-0", note.body)) is not None


def test_progress_can_be_told_with_structs_and_dates(rig: Rig) -> None:
    class Size(msgspec.Struct):
        width: int

    job = delivery()
    context(rig, job).progress(0.5, data=[Size(3)])
    assert rig.take() == [("progressed", {"fraction": 0.5, "data": [{"width": 3}]})]
