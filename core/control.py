"""Commands on jobs and queues: each is one script call, and an event that says who asked.

A job is told to a command as its `Standing`: where it may be found, what it is to do, how it ended;
all read from its events. The scripts check it against what is true, so a command on a job that has
moved on meanwhile does nothing and says so.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, cast

import msgspec
from redis.asyncio import Redis

from penstock.core.contracts import Priority
from penstock.core.dispatch import LANE_NUMBER, Dispatch, Script
from penstock.core.events import (
    Cancelled,
    Event,
    QueueLimited,
    QueuePaused,
    QueueResumed,
    QueueRetained,
    Requeued,
    Rescheduled,
    Submitted,
    decode,
    encode,
)
from penstock.core.keys import GROUP, PARKED, PartitionKeys
from penstock.core.lifecycle import TERMINAL

# How long it is remembered that an end was taken up: nobody clicks twice a week apart.
MARKER_MS: Final = 7 * 24 * 3600 * 1000
# One script call of `drain` keeps the server's other callers waiting for a millisecond or two.
DRAIN_PAGE: Final = 200
MAX_DRAINED: Final = 100_000
# What a lane entry of a job stands at: the events that put a job into a lane.
_PLACING: Final = ("submitted", "requeued", "rescheduled")

Cancelling = Literal["over", "waiting", "running"]


class Standing(msgspec.Struct, frozen=True):
    """Where a job stands: its position, the entries it may stand in (newest first), what it is to
    do, and the position of its last end (empty if it has none)."""

    job: str
    entries: tuple[str, ...]
    spec: Submitted
    end: str


def standing(events: Sequence[Event]) -> Standing | None:
    """A job's standing, from all its events; None where its beginning is not among them."""
    placed = [event for event in events if event.tag in _PLACING]
    if not placed or placed[0].tag != "submitted":
        return None
    specs = [body for body in map(decode, placed) if isinstance(body, Submitted)]
    ends = [event.position for event in events if event.tag in TERMINAL]
    entries = tuple(event.position for event in reversed(placed))
    return Standing(placed[0].job, entries, specs[-1], ends[-1] if ends else "")


class Control:
    """Commands on one partition. `by` is the actor, as it stands in the event."""

    _cancel: Final = Script("cancel", entries=True)
    _requeue: Final = Script("requeue", entries=True)
    _reschedule: Final = Script("reschedule", entries=True)
    _govern: Final = Script("govern", entries=True)
    _drain: Final = Script("drain", entries=True)

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self._keys: Final = keys
        self._dispatch: Final = Dispatch(redis, keys)

    async def cancel(self, jobs: Sequence[Standing], *, by: str, reason: str = "") -> list[Cancelling]:
        """End jobs before their time; a running one is told within half a second."""
        args: list[Any] = [GROUP, PARKED, encode(Cancelled(by=by, reason=reason)), *_places(jobs)]
        answer = await self._dispatch.call(self._cancel, self._keys.entries, args)
        words: tuple[Cancelling, ...] = ("over", "waiting", "running")
        return [words[code] for code in answer]

    async def requeue(self, jobs: Sequence[Standing], *, by: str) -> list[bool]:
        """Run ended jobs again, from the beginning, under their own ids. False where the end had been
        taken up before, or is none."""
        return await self._take_up(jobs, [_again(job, by) for job in jobs])

    async def dismiss(self, jobs: Sequence[Standing], *, by: str, reason: str = "") -> list[bool]:
        """Lay failed jobs to rest: they count as cancelled. False as for `requeue`."""
        body = encode(Cancelled(by=by, reason=reason))
        return await self._take_up(jobs, [("0", b"", body) for _ in jobs])

    async def reschedule(
        self,
        jobs: Sequence[Standing],
        *,
        by: str,
        at_once: bool = False,
        delay: float = 0,
        run_at: int = 0,
        priority: Priority | Literal[""] = "",
    ) -> list[bool]:
        """Give jobs another time (at most one of `at_once`, `delay` in s, `run_at` in Unix ms) or
        another priority. False where the job has started or is over, or has a time and would only
        get a priority: when due it goes before all lanes."""
        body = encode(Rescheduled(at_once=at_once, delay=delay, run_at=run_at, priority=priority, by=by))
        when = "" if at_once else str(run_at) if run_at else f"+{round(delay * 1000)}" if delay else "="
        lane = LANE_NUMBER[priority] if priority else "0"
        args: list[Any] = [GROUP, PARKED, when, lane, body, *_places(jobs)]
        answer = await self._dispatch.call(self._reschedule, self._keys.entries, args)
        return [code == 1 for code in answer]

    async def pause(self, *, by: str) -> bool:
        """Give out no jobs; what runs goes on. False if it was paused already."""
        return await self._set("queue_paused", QueuePaused(by=by), {"paused": "1"})

    async def resume(self, *, by: str) -> bool:
        """Give out jobs again. False if it was not paused."""
        return await self._set("queue_resumed", QueueResumed(by=by), {"paused": ""})

    async def limit(self, limits: QueueLimited) -> bool:
        """Set all limits of the queue; 0 is none. False if they were so already."""
        burst = limits.burst or max(1, round(limits.rate)) if limits.rate else 0
        values = {
            "rate": limits.rate,
            "burst": burst,
            "concurrency": limits.concurrency,
            "per_group": limits.per_group,
            "backlog": limits.backlog,
        }
        fields = {name: f"{value:.15g}" if value else "" for name, value in values.items()}
        return await self._set("queue_limited", msgspec.structs.replace(limits, burst=burst), fields)

    async def retain(self, retention: QueueRetained) -> bool:
        """Set how long the queue keeps ended jobs; 0 is as the settings say. False if it was so already."""
        values = {
            "completed": retention.completed,
            "failed": retention.failed,
            "cancelled": retention.cancelled,
        }
        fields = {f"keep_{name}": f"{value:.15g}" if value else "" for name, value in values.items()}
        return await self._set("queue_retained", retention, fields)

    async def drain(self, *, by: str, reason: str = "", limit: int = MAX_DRAINED) -> tuple[int, bool]:
        """Cancel what waits, delayed jobs and retries too; what runs goes on, and what is submitted
        meanwhile stays. Answers how many, and whether more are left: it stops at about `limit`."""
        body = encode(Cancelled(by=by, reason=reason))
        cancelled = 0
        for lane in LANE_NUMBER.values():
            reached, last = "0-0", ""
            while reached:
                if cancelled >= limit:
                    return cancelled, True
                args: list[Any] = [GROUP, PARKED, body, lane, reached, last, DRAIN_PAGE]
                count, reached, last = await self._dispatch.call(self._drain, self._keys.entries, args)
                cancelled += count
        return cancelled, False

    async def _set(self, tag: str, body: Any, fields: dict[str, str]) -> bool:
        args: list[Any] = [GROUP, PARKED, tag, encode(body)]
        for pair in fields.items():
            args += pair
        return bool(await self._dispatch.call(self._govern, self._keys.entries, args))

    async def _take_up(
        self, jobs: Sequence[Standing], acts: Sequence[tuple[str, bytes, bytes]]
    ) -> list[bool]:
        keys = [*self._keys.entries, *(self._keys.marker(job.end or job.job) for job in jobs)]
        args: list[Any] = [GROUP, PARKED, MARKER_MS]
        for job, (lane, extra, body) in zip(jobs, acts, strict=True):
            args += (job.job, job.end or job.job, lane, extra, body)
        answer: list[bytes] = await self._dispatch.call(self._requeue, keys, args)
        return [bool(text) and not text.startswith(b"=") for text in answer]


def extra_of(spec: Submitted, **more: Any) -> bytes:
    """What the scripts must know of a job beside its body: see submit.lua. Empty for most."""
    told = {key: value for key, value in more.items() if value}
    if spec.group:
        told["group"] = spec.group
    if spec.ttl:
        told["ttl"] = round(spec.ttl * 1000)
    return msgspec.json.encode(told) if told else b""


def _again(job: Standing, by: str) -> tuple[str, bytes, bytes]:
    told = {name: getattr(job.spec, name) for name in Submitted.__struct_fields__}
    told |= {"delay": 0, "run_at": 0, "key": "", "unique": "", "by": by, "after": job.end}
    lane = LANE_NUMBER[cast(str, job.spec.priority)]
    return lane, extra_of(job.spec), encode(Requeued(**told))


def _places(jobs: Sequence[Standing]) -> list[Any]:
    args: list[Any] = []
    for job in jobs:
        args += (job.job, len(job.entries), *job.entries)
    return args
