"""A recorded stretch of a queue, as a what-if needs it: when each job came, and how its attempts went.

Events are handed in in the order of the log. A job that was requeued is a job once more from there on. What
does not fit a job's state changes nothing here either.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from penstock.core.contracts import Priority
from penstock.core.errors import TooLarge
from penstock.core.events import (
    AnyBody,
    AttemptFailed,
    Completed,
    Event,
    Failed,
    Rescheduled,
    Started,
    Submitted,
)
from penstock.core.lifecycle import TERMINAL, Job, Read, fold
from penstock.core.positions import milliseconds

MAX_JOBS: Final = 500_000
_TOLD: Final = frozenset(
    {
        "submitted",
        "requeued",
        "rescheduled",
        "started",
        "attempt_failed",
        "lease_expired",
        "released",
        *TERMINAL,
    }
)
_NO_PAYLOAD: Final = msgspec.Raw(b"null")


class Trial(msgspec.Struct, frozen=True):
    """An attempt: how long its handler ran in ms; whether it failed, for good if `permanent`; and after how
    many seconds the next one was due."""

    ms: float
    failed: bool = False
    permanent: bool = False
    delay: float = 0


class Run(msgspec.Struct):
    """A job from its submission, or from when it was requeued, to its end. Times in Unix ms: `came`; `ready`,
    when it could begin; `began`; `failed`, when its last attempt did; `ended`. `dead`: it failed in the end.
    `lost`: how often it came back without an attempt spent."""

    spec: Submitted
    came: int
    ready: int
    priority: Priority
    trials: list[Trial] = []
    began: int = 0
    ended: int = 0
    dead: bool = False
    lost: int = 0
    failed: int = 0


class Past:
    """Collects the runs of the jobs that came in [since, until), Unix ms."""

    def __init__(self, *, since: int, until: int) -> None:
        self._since: Final = since
        self.until: Final = until
        self._open: Final[dict[str, Run]] = {}
        self._rows: Final[dict[str, Job]] = {}  # how these stand
        # Attempts that are running, by job; and at most how many were at once.
        self._running: Final[set[str]] = set()
        self.peak = 0
        self.runs: Final[list[Run]] = []
        self.left_out = 0

    @property
    def unfinished(self) -> int:
        """How many that came in the stretch have not ended so far."""
        return len(self._open)

    def add(self, events: Iterable[Read]) -> None:
        """What comes next in the log. Raises TooLarge for more jobs than MAX_JOBS."""
        for event, body in events:
            if event.tag in _TOLD:
                self._add(event, body)
        if len(self.runs) + len(self._open) > MAX_JOBS:
            asked = len(self.runs) + len(self._open)
            raise TooLarge("jobs in one what-if, which takes a shorter time", asked, MAX_JOBS)

    def _add(self, event: Event, body: AnyBody | None) -> None:
        now, row = milliseconds(event.position), self._rows.get(event.job)
        after = fold(row, event, body)
        if row is not None and after is not None:
            if after.misfits:
                return
            self._rows[event.job] = after
        self._count(event, now)
        if isinstance(body, Submitted):
            self._come(event.job, body, now, after or Job("waiting", body.type))
        elif row is not None:
            self._go_on(self._open[event.job], event, body, now)

    def _go_on(self, run: Run, event: Event, body: AnyBody | None, now: int) -> None:
        match body:
            case Started():
                run.began = run.began or now
            case AttemptFailed():
                run.trials.append(Trial(body.ms, failed=True, delay=body.delay))
                run.failed = now
            case Completed():
                run.trials.append(Trial(body.ms))
                self._end(event.job, now)
            case Failed(reason="permanent" | "exhausted"):
                run.trials.append(Trial(body.ms, failed=True, permanent=body.reason == "permanent"))
                run.dead = True
                self._end(event.job, now)
            case Rescheduled():
                self._move(run, body, now)
            case _ if event.tag in TERMINAL:  # cancelled, or given up though no attempt failed
                self._close(event.job)
                self.left_out += 1
            case _:
                run.lost += 1

    def _come(self, job: str, spec: Submitted, now: int, row: Job) -> None:
        if self._since <= now < self.until:
            ready = spec.run_at or now + round(spec.delay * 1000)
            told = {name: getattr(spec, name) for name in ("attempts", "backoff", "priority")}
            brief = Submitted(type=spec.type, payload=_NO_PAYLOAD, **told)
            self._open[job] = Run(brief, now, max(now, ready), spec.priority)
            self._rows[job] = row

    def _close(self, job: str) -> Run:
        del self._rows[job]
        return self._open.pop(job)

    def _end(self, job: str, now: int) -> None:
        run = self._close(job)
        run.ended = now
        self.runs.append(run)

    def _move(self, run: Run, body: Rescheduled, now: int) -> None:
        """Before its first attempt it is ready at another time; later, what it waits for is its next one."""
        run.priority = body.priority or run.priority
        if not (body.at_once or body.run_at or body.delay):
            return
        ready = now if body.at_once else max(now, body.run_at or now + round(body.delay * 1000))
        if not run.began:
            run.ready = ready
        elif run.trials:
            run.trials[-1] = msgspec.structs.replace(run.trials[-1], delay=(ready - run.failed) / 1000)

    def _count(self, event: Event, now: int) -> None:
        if event.tag == "started":
            self._running.add(event.job)
            if self._since <= now < self.until:
                self.peak = max(self.peak, len(self._running))
        elif event.tag not in ("submitted", "requeued", "rescheduled"):
            self._running.discard(event.job)
