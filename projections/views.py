"""The read models of one partition, as pure folds of its log.

    rows      job → `Job` of penstock.core.lifecycle
    indexes   (state, type) → the jobs of that type in that state, in log order
    stats     how many jobs are in which state, and what has happened in all and to each type of job
    minutes   what happened in each of the last 48 hours' minutes, with histograms of how long jobs
              waited (from ready to started) and ran
    loose     the events that belong to no job: facts about the queue, and what names a job unknown

`read` takes an entry of the log apart; `Views.fold` goes on by a page of them and answers the
`Changes` it makes. Nothing here reads a clock or draws a number: time is the time of the events,
and old minutes go when an event of a new one comes. Whatever the pages' size, the same log gives
the same bytes: dicts are written in sorted order, and what has returned to zero is written as if
it had never left it.

Where retention removed events (retention.py), the fold begins from what these had counted, the base,
and an event `trimmed` takes their jobs out of the rows, the indexes and the counts of jobs.

States come from `fold` of penstock.core.lifecycle and from nowhere else; an event that cannot be
read, that does not fit or whose job is unknown changes no state and is counted in `misfits`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, TypeAlias

import msgspec

from penstock.core.events import (
    QUEUE_TAGS,
    AnyBody,
    AttemptFailed,
    Completed,
    Failed,
    QueueLimited,
    QueuePaused,
    QueueResumed,
    QueueRetained,
    Started,
    Trimmed,
    read_entry,
)
from penstock.core.lifecycle import STATES, Job, Read, State, fold, legible
from penstock.core.log import Entry
from penstock.core.positions import START, born, milliseconds, packed, undelta
from penstock.projections.histogram import Histogram, bucket
from penstock.projections.tally import MISFIT, Heard, Tally, Totals

MINUTE_MS: Final = 60_000
MINUTES_KEPT: Final = 48 * 60

# One more whenever the same log gives other bytes: views of another shape are begun again (store.py).
SHAPE: Final = 1

_encode: Final = msgspec.json.Encoder().encode
write_stats: Final = msgspec.json.Encoder(order="deterministic").encode

Rows: TypeAlias = dict[str, Job | None]
"""Job's position → its row; None if the views hold none."""


class Counts(msgspec.Struct):
    """How many jobs are in each state."""

    waiting: int = 0
    delayed: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class Stats(msgspec.Struct):
    """Jobs by type and state, what has happened since the log began, failures by reason, how the
    queue is governed, what retention removed (without the lists of the last time), what has happened
    to the jobs of each type, how many events there were, and by which `SHAPE` of views."""

    types: dict[str, Counts] = {}
    totals: Totals = msgspec.field(default_factory=Totals)
    reasons: dict[str, int] = {}
    paused: bool = False
    limits: QueueLimited = QueueLimited()
    retention: QueueRetained = QueueRetained()
    trimmed: Trimmed = Trimmed()
    tallies: dict[str, Tally] = {}
    events: int = 0
    shape: int = 0

    def counts(self) -> Counts:
        """Jobs by state, over all types."""
        return Counts(**{s: sum(getattr(counts, s) for counts in self.types.values()) for s in STATES})


class Minute(msgspec.Struct):
    """What happened in one minute; `wait` and `run` count durations in ms by bucket."""

    totals: Totals = msgspec.field(default_factory=Totals)
    wait: Histogram = {}
    run: Histogram = {}


read_stats: Final = msgspec.json.Decoder(Stats).decode
read_minute: Final = msgspec.json.Decoder(Minute).decode


_ENDS: Final = (Completed, AttemptFailed, Failed)  # a union would be made anew for each event


class Move(msgspec.Struct, gc=False):
    """What one index loses, and what it gains."""

    removed: list[bytes]
    added: list[bytes]


Moves: TypeAlias = dict[tuple[State, str], Move]


class Changes(msgspec.Struct):
    """What a page of the log makes of the views: all that one call of apply.lua writes."""

    expected: str
    begun: int
    position: str
    rows: list[bytes]
    forgotten: list[bytes]
    stats: bytes
    minutes: list[int | bytes]
    pruned: list[int]
    moves: Moves
    loose: Move


class Touched:
    """What a stretch of the log touches: the rows it changes, as they were, and the positions of events
    of no job that came or were trimmed."""

    def __init__(self) -> None:
        self.rows: Final[Rows] = {}
        self.came: Final[set[str]] = set()
        self.went: Final[set[str]] = set()

    def trim(self, what: Trimmed, rows: Rows) -> None:
        """Take out of `rows` the jobs that were trimmed."""
        for job in listed(what.first, what.jobs):
            self.rows.setdefault(job, rows.get(job))
            rows[job] = None
        self.went.update(listed(what.first, what.loose))


class Views:
    """The views of one partition after the event at `position`; rows are kept elsewhere.

    `newest` is the minute of that event. `base` has the minutes after it that trimmed events had
    counted in; at the log's beginning `stats` is what these had counted. `begun` tells how often the
    views had been thrown away.
    """

    def __init__(
        self,
        position: str = START,
        stats: Stats | None = None,
        minutes: Iterable[int] = (),
        newest: Minute | None = None,
        base: Mapping[int, Minute] | None = None,
        begun: int = 0,
    ) -> None:
        self.position = position
        self.begun: Final = begun
        self.stats: Final = stats or Stats()
        self.stats.shape = SHAPE
        self._minutes: Final = set(minutes)
        self._now = minute_of(position) if position != START else -1
        self._minute = newest or Minute()
        self._base: Final = dict(base or {})

    def fold(self, events: Sequence[Read], rows: Rows) -> Changes:
        """Go on by at least one event. `rows` holds the row of every job they name, and is brought
        up to date. On an error these views are half-way and must be thrown away."""
        expected = self.position
        touched = Touched()
        closed = self._lay_base() if self._now < 0 else []
        pruned: list[int] = []
        for minute, stretch in by_minute(events):
            if minute != self._now:
                closed += self._begin_minute(minute)
                pruned += self._prune()
            count(stretch, rows, touched, self.stats, self._minute)
        self.position = events[-1][0].position
        written, forgotten, moves = _settle(touched.rows, rows)
        self._count_jobs(moves)
        closed += (self._now, write_minute(self._minute))
        return Changes(
            *(
                expected,
                self.begun,
                self.position,
                written,
                forgotten,
                write_stats(self.stats),
                closed,
                pruned,
                moves,
            ),
            _loose(touched),
        )

    def _count_jobs(self, moves: Moves) -> None:
        for (state, type), move in moves.items():
            counts = self.stats.types.setdefault(type, Counts())
            setattr(counts, state, getattr(counts, state) + len(move.added) - len(move.removed))
        for _, type in moves:
            if self.stats.types.get(type) == Counts():  # all its jobs were trimmed
                del self.stats.types[type]

    def _lay_base(self) -> list[int | bytes]:
        """The minutes to begin with; no more than fit (48 hours) are kept."""
        return [word for minute, told in self._base.items() for word in (minute, write_minute(told))]

    def _begin_minute(self, minute: int) -> list[int | bytes]:
        """Turn to another minute; answers the last one as written."""
        last: list[int | bytes] = [self._now, write_minute(self._minute)] if self._now >= 0 else []
        self._now, self._minute = minute, self._base.pop(minute, Minute())
        self._minutes.add(minute)
        return last

    def _prune(self) -> list[int]:
        """Forget the minutes that are too old now; answers which."""
        old = sorted(minute for minute in self._minutes if minute <= self._now - MINUTES_KEPT)
        self._minutes.difference_update(old)
        return old


def count(events: Sequence[Read], rows: Rows, touched: Touched, stats: Stats, minute: Minute) -> None:
    """Fold events of one minute, and add what happened to `stats` (all but jobs by state) and `minute`."""
    before = touched.rows
    heard: dict[str, Heard] = {"": Heard()}
    of, named = heard[""], ""
    for event, body in events:
        job, tag = event.job, event.tag
        if tag in QUEUE_TAGS:
            touched.came.add(event.position)
            govern(stats, body)
            if isinstance(body, Trimmed):
                touched.trim(body, rows)
            continue
        row = rows[job]
        if job not in before:
            before[job] = row
        rows[job] = after = fold(row, event, body)
        type = after.type if after is not None else ""
        if type != named:
            of, named = heard.get(type) or Heard(milliseconds(job)), type
            heard[type] = of
        if after is None:
            touched.came.add(event.position)
            tag = MISFIT
        elif row is not None and after.misfits != row.misfits:
            tag = MISFIT
        elif isinstance(body, Started):
            of.waits.append(milliseconds(event.position) - (after.ready or born(job)))
        elif isinstance(body, _ENDS):
            of.ends.append(body)
            if tag != "attempt_failed":
                of.wholes.append(milliseconds(event.position) - born(job))
        of.tags[tag] = of.tags.get(tag, 0) + 1
    stats.events += len(events)
    for type, of in heard.items():
        _add_up(type, of, stats, minute)


def _add_up(type: str, heard: Heard, stats: Stats, minute: Minute) -> None:
    # Many of a page took as long as each other: each duration is looked at once.
    waits, runs = Counter(heard.waits), Counter(heard.runs())
    stats.totals.add(heard.tags)
    minute.totals.add(heard.tags)
    _sort_into(minute.wait, waits)
    _sort_into(minute.run, runs)
    for end in heard.ends:
        if isinstance(end, Failed):
            stats.reasons[end.reason] = stats.reasons.get(end.reason, 0) + 1
    if type:
        stats.tallies.setdefault(type, Tally()).add(heard, waits, runs)


def govern(stats: Stats, body: AnyBody | None) -> None:
    """Take down what a fact about the queue says."""
    match body:
        case QueueLimited():
            stats.limits = body
        case QueueRetained():
            stats.retention = body
        case QueuePaused() | QueueResumed():
            stats.paused = isinstance(body, QueuePaused)
        case Trimmed():
            stats.trimmed = msgspec.structs.replace(body, jobs="", loose="")


def listed(first: str, deltas: str) -> list[str]:
    """The positions that an event `trimmed` lists."""
    return [undelta(first, text) for text in deltas.split()]


def by_minute(events: Sequence[Read]) -> Iterable[tuple[int, Sequence[Read]]]:
    """The events by the minute they happened in; most pages lie within one."""
    first, last = _minute_of(events[0]), _minute_of(events[-1])
    if first == last:
        return [(first, events)]
    return [(minute, list(group)) for minute, group in groupby(events, _minute_of)]


def minute_of(position: str) -> int:
    """The minute of an event, as Unix time."""
    return milliseconds(position) // MINUTE_MS


def _minute_of(event: Read) -> int:
    return minute_of(event[0].position)


def _settle(before: Rows, rows: Rows) -> tuple[list[bytes], list[bytes], Moves]:
    """Set what a page made of each job against what it was: rows as written, jobs forgotten, moves."""
    written: list[bytes] = []
    forgotten: list[bytes] = []
    moves: Moves = {}
    for job, old in before.items():
        new = rows[job]
        if new is None:
            if old is not None:
                place = packed(job)
                forgotten.append(place)
                _move(moves, old).removed.append(place)
            continue
        place = packed(job)
        written += (place, _write_row(new))
        if old is None or old.state != new.state:
            _move(moves, new).added.append(place)
            if old is not None:
                _move(moves, old).removed.append(place)
    return written, forgotten, moves


def _loose(touched: Touched) -> Move:
    came, went = (sorted(map(packed, one)) for one in (touched.came - touched.went, touched.went))
    return Move(went, came)


def _write_row(job: Job) -> bytes:
    """A row as JSON; what a fresh job has not got yet is left out, as most jobs that wait are fresh."""
    return _encode(job if job.history or job.ready or job.misfits else (job.state, job.type))


def write_minute(minute: Minute) -> bytes:
    """In sorted order, which msgspec has for text keys only."""
    wait, run = (dict(sorted(histogram.items())) for histogram in (minute.wait, minute.run))
    return _encode(Minute(minute.totals, wait, run))


def _sort_into(histogram: Histogram, durations: Mapping[int, int] | Mapping[float, int]) -> None:
    for ms, count in durations.items():
        number = bucket(ms)
        histogram[number] = histogram.get(number, 0) + count


def read(entry: Entry) -> Read:
    """An entry of the log as event and body.

    One that cannot be read becomes an event with no tag and no body, which fits no state: its job
    keeps it in its history and counts it as a misfit.
    """
    return legible(read_entry(*entry))


def _move(moves: Moves, job: Job) -> Move:
    move = moves.get((job.state, job.type))
    if move is None:
        move = moves[job.state, job.type] = Move([], [])
    return move
