"""The schedules of a namespace, for those who set and read them: the API, programs, the scheduler.

schedules = Schedules(redis, settings)
await schedules.set("nightly", read_request(body), by="alice")
await schedules.pause("nightly", by="alice")
(await schedules.get("nightly")).next
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis

from penstock.core.append import Fact
from penstock.core.errors import FieldProblem, InvalidJob, NotFound, Refused
from penstock.core.events import Event, as_builtins
from penstock.core.sealing import Unsealable, is_sealed, open_seals
from penstock.core.settings import Settings
from penstock.producer.schedules.asking import NAME, ScheduleRequest, check, foresee, plain, sealed
from penstock.producer.schedules.clock import Clock, server_clock
from penstock.producer.schedules.facts import (
    AnyFact,
    CatchUp,
    Decision,
    Overlap,
    Schedule,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSet,
    ScheduleTriggered,
    Standing,
    fact,
)
from penstock.producer.schedules.fold import Book
from penstock.producer.schedules.ledger import Ledger
from penstock.producer.schedules.timing import following

MAX_SCHEDULES: Final = 1_000
SHOWN_TICKS: Final = 3
SEALED: Final = {"sealed": True}

Change = Literal["created", "changed", "same"]


class DecisionView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was decided last: `at` when, `tick` the nominal time it is about."""

    event: str
    at: str
    tick: str
    job: str = ""
    reason: str = ""


class ScheduleView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule as it stands. Times are ISO 8601 in UTC; `next` are the ticks to come, none while it
    is paused; `waiting` counts ticks that are due and whose job is not submitted yet; `last_job` is the
    id of the job fired last."""

    name: str
    queue: str
    job: dict[str, Any]
    overlap: Overlap
    catch_up: CatchUp
    paused: bool
    next: list[str]
    set_at: str
    set_by: str
    cron: str = ""
    every: float = 0
    tz: str = "UTC"
    start: str = ""
    end: str = ""
    jitter: float = 0
    window: float = 0
    limit: int = 0
    waiting: int = 0
    last_job: str = ""
    last: DecisionView | None = None


class ScheduleList(msgspec.Struct, frozen=True):
    """All schedules, by name."""

    schedules: list[ScheduleView]


class SchedulePreview(msgspec.Struct, frozen=True):
    """Of a schedule that is not set yet: the ticks to come, ISO 8601 in UTC, none where its rhythm is
    wrong; and every wrong field."""

    next: list[str]
    errors: list[FieldProblem]


class FactView(msgspec.Struct, frozen=True):
    """An event of a schedule."""

    position: str
    at: str
    event: str
    data: dict[str, Any]


class FactPage(msgspec.Struct, frozen=True):
    """Events, newest first. `next` begins the page after it, and is null on the last one."""

    events: list[FactView]
    next: str | None


class Schedules:
    """Sets and reads schedules. Safe to share between tasks. All methods raise RedisError or OSError
    where the server does not answer; all but `trigger` may then be called again."""

    def __init__(self, redis: Redis, settings: Settings, *, clock: Clock | None = None) -> None:
        self._ledger: Final = Ledger(redis, settings.namespace)
        self._max_payload: Final = settings.max_payload
        self._seals: Final = open_seals(settings)
        self._clock: Final = clock or server_clock(redis)

    async def set(self, name: str, request: ScheduleRequest, *, by: str) -> Change:
        """Set a schedule, in place of what had its name; it stays paused if it was.

        One with another rhythm begins now; one with the same goes on, and no tick is lost. Raises
        InvalidJob (every wrong field), TooLarge, or Refused past MAX_SCHEDULES.
        """
        checked_name(name)
        schedule = check(request, await self._clock(), max_payload=self._max_payload)
        change: Change = "same"

        def compose(book: Book) -> list[Fact]:
            nonlocal change
            before = book.standings.get(name)
            change = "created" if before is None else "changed"
            if before is None and len(book.standings) >= MAX_SCHEDULES:
                raise Refused(f"there are {MAX_SCHEDULES} schedules, as many as there may be")
            if before is not None and self._is(before.schedule, schedule):
                change = "same"
                return []
            return [fact(name, ScheduleSet(sealed(schedule, self._seals), by))]

        await self._ledger.commit(compose)
        return change

    async def preview(self, name: str, request: ScheduleRequest) -> SchedulePreview:
        """What would come of setting it now; nothing is written. Raises TooLarge."""
        now = await self._clock()
        wrong, ticks = foresee(request, now, SHOWN_TICKS, max_payload=self._max_payload)
        if name_problem(name):
            wrong.insert(0, FieldProblem("name", name_problem(name)))
        return SchedulePreview([iso(tick) for tick in ticks], wrong)

    async def remove(self, name: str, *, by: str) -> None:
        """Take a schedule away. Its jobs stay. Raises NotFound."""
        await self._change(name, lambda _: ScheduleRemoved(by))

    async def pause(self, name: str, *, by: str) -> bool:
        """No tick is due until it is resumed. False if it was paused. Raises NotFound."""
        return await self._change(name, lambda it: None if it.paused else SchedulePaused(by))

    async def resume(self, name: str, *, by: str) -> bool:
        """Tick again, from now on. False if it was not paused. Raises NotFound."""
        return await self._change(name, lambda it: ScheduleResumed(by) if it.paused else None)

    async def trigger(self, name: str, *, by: str, key: str = "") -> None:
        """Ask for a job now, paused or not; it is not skipped for a job that runs, but waits for it or
        cancels it where the schedule says so. Once for all calls with the same `key`. Raises
        NotFound."""
        token = f"trigger:{name}:{key}" if key else ""
        await self._change(name, lambda _: ScheduleTriggered(by), token)

    async def get(self, name: str, *, reveal: bool = False) -> ScheduleView:
        """A schedule; with `reveal` a sealed payload is opened. Raises NotFound."""
        standing = (await self._ledger.refresh()).standings.get(name)
        if standing is None:
            raise NotFound(f"no schedule {name!r}")
        return self._view(name, standing, await self._clock(), reveal)

    async def all(self, *, reveal: bool = False) -> ScheduleList:
        """All of them, by name; `reveal` as for `get`."""
        standings = (await self._ledger.refresh()).standings
        now = await self._clock()
        return ScheduleList([self._view(name, standings[name], now, reveal) for name in sorted(standings)])

    async def events(self, name: str, *, before: str = "", limit: int = 100) -> FactPage:
        """What was said of a schedule, newest first; also of one that was removed. Raises NotFound where
        nothing was."""
        found = await self._ledger.history(name, before, limit + 1)
        if not found and not before:
            raise NotFound(f"no schedule {name!r}")
        page = [FactView(it.position, iso(it.position), it.tag, _shown(it)) for it in found[:limit]]
        return FactPage(page, page[-1].position if len(found) > limit else None)

    def _is(self, schedule: Schedule, asked: Schedule) -> bool:
        try:
            return plain(schedule, self._seals) == asked
        except Unsealable:
            return False

    def _view(self, name: str, standing: Standing, now: int, reveal: bool) -> ScheduleView:
        if reveal:
            with suppress(Unsealable):  # without its key it is shown as sealed
                standing = msgspec.structs.replace(standing, schedule=plain(standing.schedule, self._seals))
        return view(name, standing, now)

    async def _change(self, name: str, act: Callable[[Standing], AnyFact | None], token: str = "") -> bool:
        def compose(book: Book) -> list[Fact]:
            standing = book.standings.get(name)
            if standing is None:
                raise NotFound(f"no schedule {name!r}")
            body = act(standing)
            return [] if body is None else [fact(name, body)]

        return bool(await self._ledger.commit(compose, token=token))


def checked_name(name: str) -> str:
    """Raises InvalidJob where it is no name of a schedule."""
    if problem := name_problem(name):
        raise InvalidJob([FieldProblem("name", problem)])
    return name


def name_problem(name: str) -> str:
    """What is wrong with a schedule's name; empty if nothing is."""
    return "" if re.fullmatch(NAME, name) else "give up to 100 of a-z, 0-9, dot, - and _"


def _shown(event: Event) -> dict[str, Any]:
    """What an event says, but for a sealed payload."""
    data = as_builtins(event)
    job = data.get("schedule", {}).get("job", {})
    if is_sealed(str(job.get("payload"))):
        job["payload"] = SEALED
    return data


def view(name: str, standing: Standing, now: int) -> ScheduleView:
    """A schedule as it is shown, its ticks after `now` (Unix ms). A sealed payload is not."""
    schedule, last = standing.schedule, standing.decision
    job = msgspec.json.decode(schedule.job)
    if is_sealed(str(job["payload"])):
        job["payload"] = SEALED
    ticks = [] if standing.paused else following(schedule, max(now, standing.cursor), SHOWN_TICKS)
    return ScheduleView(
        name=name,
        queue=schedule.queue,
        job=job,
        overlap=schedule.overlap,
        catch_up=schedule.catch_up,
        paused=standing.paused,
        next=[iso(tick) for tick in ticks],
        set_at=iso(standing.set_at),
        set_by=standing.set_by,
        cron=schedule.cron,
        every=schedule.every,
        tz=schedule.tz,
        start=iso(schedule.start),
        end=iso(schedule.end),
        jitter=schedule.jitter,
        window=schedule.window,
        limit=schedule.limit,
        waiting=len(standing.owed),
        last_job=standing.last_job,
        last=_decision(last) if last else None,
    )


def _decision(last: Decision) -> DecisionView:
    return DecisionView(last.event, iso(last.position), iso(last.tick), last.job, last.reason)


def iso(moment: int | str) -> str:
    """Unix ms, a tick or a position as ISO 8601 in UTC; empty for 0."""
    ms = int(str(moment).partition("-")[0])
    if not ms:
        return ""
    stamp = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
