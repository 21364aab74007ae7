"""What became of a past job, what becomes of it now, and which is better.

    then        now         verdict
    completed   completed   same; `differs` if a pure handler's result, or the number of attempts, does
    failed      failed      same; `differs` if the error is another one
    failed      completed   better; of a dry mode `differs`, for what it leaves out may have failed
    completed   failed      worse
    no handler said how it ended, or none may be run: not run, and why

Pure: the stage (rehearsal_stage.py) runs the jobs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Any, Final, Literal

import msgspec

from penstock.core.control import standing
from penstock.core.errors import Unrehearsed
from penstock.core.events import AttemptFailed, Completed, Event, Failed, Submitted, decode
from penstock.core.lifecycle import TERMINAL, Job, fold, legible
from penstock.core.merge_patch import Change, differences
from penstock.core.sealing import Unsealable

Verdict = Literal["same", "better", "worse", "differs", "not run"]
VERDICTS: Final[tuple[Verdict, ...]] = ("same", "better", "worse", "differs", "not run")

MAX_CHANGES: Final = 20
# Errors that say nothing about the handler.
_NO_OUTCOME: Final = (Unrehearsed.__name__, Unsealable.__name__)
# Reasons for which a job fails though no handler said so.
_NOT_BY_HANDLER: Final = {
    "expired": "it expired before it started",
    "crashed": "it killed its workers",
    "lost": "its submission was trimmed away",
}


class Ran(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job ended: after how many attempts, of which the last ran for so many ms, with what result or
    error."""

    outcome: Literal["completed", "failed"]
    attempts: int = 1
    ms: float = 0
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    message: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """A past job: what it was to do, and how it ended, or why that cannot be compared."""

    id: str
    spec: Submitted
    then: Ran | None
    why: str = ""


class Rehearsed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A past job, then and now, results left out. `changes` in the result, at most 20; `why`: what differs,
    or why it was not run."""

    id: str
    type: str
    verdict: Verdict
    then: Ran | None = None
    now: Ran | None = None
    why: str = ""
    changes: list[Change] = []


class Durations(msgspec.Struct, frozen=True):
    """Of last attempts, in ms."""

    p50: float
    p95: float


class TypeReport(msgspec.Struct, frozen=True):
    """The jobs of one type by verdict, and how long those took that completed then and now."""

    type: str
    jobs: int
    verdicts: dict[Verdict, int]
    then: Durations | None = None
    now: Durations | None = None


def recorded(job_id: str, events: Sequence[Event]) -> Recorded | None:
    """A job by all its events; its last run, if it was requeued. None where its beginning is missing."""
    events = _fitting(events)
    stands = standing(events)
    if stands is None:
        return None
    end = next((event for event in reversed(events) if event.tag in TERMINAL), None)
    body = decode(end) if end is not None else None
    if isinstance(body, Completed | Failed):
        why = _NOT_BY_HANDLER.get(body.reason, "") if isinstance(body, Failed) else ""
        return Recorded(job_id, stands.spec, None if why else ran(body), why)
    return Recorded(job_id, stands.spec, None, "it was cancelled" if end is not None else "it has not ended")


def _fitting(events: Sequence[Event]) -> list[Event]:
    """Those that changed the job: a foreign hand may write what is unreadable, or end a job twice."""
    found: list[Event] = []
    row: Job | None = None
    for event in events:
        after = fold(row, *legible(event))
        if after is not None and (row is None or after.misfits == row.misfits):
            found.append(event)
        row = after
    return found


def ran(end: Completed | Failed | AttemptFailed) -> Ran:
    """How an attempt ended, as its event tells it."""
    if isinstance(end, Completed):
        return Ran("completed", end.attempt, end.ms, end.result)
    return Ran("failed", end.attempt, end.ms, error=end.error, message=end.message)


def compared(job: Recorded, now: Ran, *, pure: bool) -> Rehearsed:
    """The job's verdict. Results are compared of pure handlers: what a dry mode answers is something else."""
    then = job.then
    if then is None or now.error in _NO_OUTCOME:
        return not_run(job, job.why or now.message)
    changes: list[Change] = []
    if then.outcome != now.outcome:
        verdict: Verdict = "better" if now.outcome == "completed" else "worse"
        failed = then if verdict == "better" else now
        why = ("it was " if verdict == "better" else "") + f"{failed.error}: {failed.message}"
        if verdict == "better" and not pure:
            verdict, why = "differs", f"its dry mode finds nothing wrong; {why}"
    else:
        if pure and now.outcome == "completed":
            changes = differences(_value(then.result), _value(now.result))[:MAX_CHANGES]
        why = _difference(then, now, changes)
        verdict = "differs" if why else "same"
    return Rehearsed(job.id, job.spec.type, verdict, _brief(then), _brief(now), why, changes)


def hidden(job: Rehearsed) -> Rehearsed:
    """The same without what payloads and handlers say: of jobs that are sealed in the log."""

    def hide(end: Ran | None) -> Ran | None:
        return end and Ran(end.outcome, end.attempts, end.ms, error=end.error)

    changes = [Change(change.path) for change in job.changes]
    why = job.why if job.verdict == "not run" else ""
    return Rehearsed(job.id, job.type, job.verdict, hide(job.then), hide(job.now), why, changes)


def not_run(job: Recorded, why: str) -> Rehearsed:
    """A job that was not run, and why."""
    return Rehearsed(job.id, job.spec.type, "not run", job.then and _brief(job.then), None, why)


def by_type(jobs: Iterable[Rehearsed]) -> list[TypeReport]:
    """A report of each type, by name."""
    grouped: dict[str, list[Rehearsed]] = {}
    for job in jobs:
        grouped.setdefault(job.type, []).append(job)
    return [_of_type(type, grouped[type]) for type in sorted(grouped)]


def _of_type(type: str, jobs: Sequence[Rehearsed]) -> TypeReport:
    both = [(job.then, job.now) for job in jobs if job.then is not None and job.now is not None]
    done = [(then, now) for then, now in both if then.outcome == now.outcome == "completed"]
    counts = Counter(job.verdict for job in jobs)
    return TypeReport(
        type,
        len(jobs),
        {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]},
        _durations([then.ms for then, _ in done]),
        _durations([now.ms for _, now in done]),
    )


def _durations(found: Sequence[float]) -> Durations | None:
    if not found:
        return None
    cuts = quantiles(found, n=20, method="inclusive") if len(found) > 1 else [found[0]] * 19
    return Durations(round(cuts[9], 3), round(cuts[18], 3))


def _difference(then: Ran, now: Ran, changes: Sequence[Change]) -> str:
    if changes:
        return "another result"
    if then.error != now.error:
        return f"{now.error}: {now.message}; it was {then.error}"
    if now.outcome == "completed" and now.attempts > then.attempts:
        return f"it took {now.attempts} attempts, and {then.attempts} then"
    return ""


def _brief(end: Ran) -> Ran:
    return Ran(end.outcome, end.attempts, end.ms, error=end.error, message=end.message)


def _value(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw)
