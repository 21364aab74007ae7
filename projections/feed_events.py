"""The messages of the exact feed: one event each, told so that a client needs to ask nothing more.

An event names its job only; what type and tags that has stands in the event that submitted it. `Facts`
remembers that for the jobs of late and reads it from the log for others, so it is right whatever the
views have seen.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from penstock.core.errors import FieldProblem, InvalidJob, NotFound
from penstock.core.events import QUEUE_TAGS, AnyBody, Rescheduled, Submitted
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES, TRANSITIONS, Read, State, fold, legible
from penstock.core.log import Log
from penstock.core.positions import milliseconds, parse_job_id
from penstock.projections.details import event_detail, instant

MAX_FACTS: Final = 20_000
_READ_AT_ONCE: Final = 100  # bodies are up to a few hundred KB
_POSITION: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,19}")
_TAG: Final = re.compile(r"[a-z0-9_/]{1,64}")

_encode: Final = msgspec.json.Encoder().encode
# Where an event leads a job that it fits: from `active` if it may happen there, else from anywhere.
_LEADS: Final[dict[str, State]] = {tag: state for (_, tag), state in TRANSITIONS.items()} | {
    tag: state for (before, tag), state in TRANSITIONS.items() if before == "active"
}


class Told(msgspec.Struct):
    """An event with what its job is. `type` is None for a fact about the queue, and for a job whose
    beginning was trimmed; `state`: where the event leads the job, None if it leaves it where it was."""

    read: Read
    type: str | None
    tags: tuple[str, ...]
    state: State | None


class FeedEvent(msgspec.Struct):
    """An event in the feed. `job` is null for a fact about the queue."""

    queue: str
    job: str | None
    type: str | None
    position: str
    at: str
    event: str
    state: State | None
    data: msgspec.Raw


class Wanted(msgspec.Struct, frozen=True):
    """What a client follows; what is empty is not asked for. `watch`: a job whose events are told beside
    all the rest (of the condensed feed)."""

    queue: str = ""
    type: str = ""
    job: str = ""
    state: str = ""
    tag: str = ""
    watch: str = ""

    @property
    def scope(self) -> str:
        """The partition that all of it is in; empty for all."""
        if self.job:
            queue, number, _ = parse_job_id(self.job)
            return f"{queue}.{number}"
        return f"{self.queue}.0" if self.queue else ""

    @property
    def watched(self) -> tuple[str, str]:
        """The job whose events are told one by one: its partition and its position; empty for none."""
        if not (self.job or self.watch):
            return "", ""
        queue, number, position = parse_job_id(self.job or self.watch)
        return f"{queue}.{number}", position

    def takes(self, told: Told, position: str) -> bool:
        """Whether this event is followed; `position`: that of the followed job, if one is."""
        event, _ = told.read
        return (
            (not position or (event.job == position and event.tag not in QUEUE_TAGS))
            and (not self.type or told.type == self.type)
            and (not self.state or told.state == self.state)
            and (not self.tag or self.tag in told.tags)
        )


def following(queue: str, type: str, job: str, state: str, tag: str, watch: str = "") -> Wanted:
    """Raises InvalidJob or NotFound for what names nothing."""
    if state and state not in STATES:
        raise InvalidJob([FieldProblem("state", f"{state!r} is none of {', '.join(STATES)}")])
    if job and queue and parse_job_id(job).queue != queue:
        raise NotFound(f"no job {job} in queue {queue!r}")
    if watch and (job or (queue and parse_job_id(watch).queue != queue)):
        raise InvalidJob([FieldProblem("watch", "is beside what is followed: give it without `job`")])
    found = Wanted(queue, type, job, state, tag, watch)
    _ = found.scope, found.watched
    return found


class Facts:
    """What the jobs of one partition are: type and tags, of the last 20,000 to 40,000 jobs told of."""

    def __init__(self, log: Log) -> None:
        self._log: Final = log
        self._recent: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._older: dict[str, tuple[str, tuple[str, ...]]] = {}

    async def tell(self, events: Sequence[Read]) -> list[Told]:
        """Each event with its job's facts."""
        for event, body in events:
            if isinstance(body, Submitted):
                self._learn(event.job, body)
        named = {event.job for event, _ in events if event.job != event.position}
        # An event written by a foreign hand may name anything.
        unknown = [job for job in named if self._of(job) is None and _POSITION.fullmatch(job)]
        for some in range(0, len(unknown), _READ_AT_ONCE):
            for event in await self._log.read(unknown[some : some + _READ_AT_ONCE]):
                body = legible(event)[1]
                if isinstance(body, Submitted):
                    self._learn(event.job, body)
        return [self._told(read) for read in events]

    def _told(self, read: Read) -> Told:
        event, body = read
        type, tags = self._of(event.job) or (None, ())
        return Told(read, type, tags, _leads(read, body))

    def _of(self, job: str) -> tuple[str, tuple[str, ...]] | None:
        return self._recent.get(job) or self._older.get(job)

    def _learn(self, job: str, body: Submitted) -> None:
        self._recent[job] = (body.type, body.tags)
        if len(self._recent) >= MAX_FACTS:
            self._older, self._recent = self._recent, {}


def write(keys: PartitionKeys, told: Told) -> tuple[bytes, bytes]:
    """The event's tag and its JSON, in one line."""
    event, _ = told.read
    line = _encode(
        FeedEvent(
            queue=keys.queue,
            job=None if event.tag in QUEUE_TAGS else keys.job_id(event.job),
            type=told.type,
            position=event.position,
            at=instant(milliseconds(event.position)),
            event=event.tag,
            state=told.state,
            data=event_detail(event, told.type or "").data,  # what is sealed is not shown
        )
    )
    if b"\n" in line or b"\r" in line:  # a payload as it was sent: between its tokens, never in a text
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return event.tag.encode() if _TAG.fullmatch(event.tag) else b"unreadable", line


def _leads(read: Read, body: AnyBody | None) -> State | None:
    event, _ = read
    if isinstance(body, Rescheduled):
        return "waiting" if body.at_once else "delayed" if body.delay or body.run_at else None
    if event.tag == "submitted":
        job: Any = fold(None, event, body)
        return job.state if job is not None else None
    return _LEADS.get(event.tag)
