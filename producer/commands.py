"""Commands on jobs and queues, by their names, for the Python client and HTTP alike.

A command reads the job's own events first, so it can say why it cannot be followed (`WrongState`);
then one script looks again and acts in the same step (core.control). Where the job moved in between,
the command reads again.

    cancel       waiting, delayed or running: it is over at once, its worker is told within half a second
    retry        ended: it runs again from the beginning, under its own id
    changed      ended: a request for a new job like it, with another payload
    promote      delayed: it may run now
    reschedule   waiting or delayed: another time or another priority
    pause, resume, limit, retain, drain   a queue
"""

from typing import Annotated, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.contracts import Priority, contracts
from penstock.core.control import Cancelling, Control, Standing, standing
from penstock.core.errors import FieldProblem, InvalidJob, NotFound, WrongState
from penstock.core.events import QueueLimited, QueueRetained
from penstock.core.keys import Keys
from penstock.core.lifecycle import TERMINAL, Job, fold_all
from penstock.core.positions import parse_job_id
from penstock.core.story import tell
from penstock.producer.intake import LATEST_MS, Delay, JobRequest, RunAt, unix_ms

# How often a command looks again at a job that moves while it is told.
TRIES: Final = 3
MAX_REASON_CHARS: Final = 500
MAX_LIMIT: Final = 1_000_000
MIN_RATE: Final = 1e-6  # jobs per second: about one in twelve days
MAX_KEPT_S: Final = 100 * 366 * 24 * 3600.0

Limit = Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT)]
Kept = Annotated[float, msgspec.Meta(ge=0, le=MAX_KEPT_S)]


class Cancellation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a job is cancelled."""

    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARS)] = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another priority or another time for a job that has not started. `delay` in s from now (0: at
    once) excludes `run_at`, a moment as in a submission."""

    priority: Priority | None = None
    delay: Delay | None = None
    run_at: RunAt | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a queue; what is left out or 0 is no limit. `rate`: jobs started per second, at
    most `burst` at once (as many as in a second if 0). `concurrency`: jobs that run at once over all
    workers, and `per_group` of each concurrency key. `backlog`: jobs that may wait; more are refused.
    """

    rate: Annotated[float, msgspec.Meta(ge=0, le=MAX_LIMIT)] = 0
    burst: Limit = 0
    concurrency: Limit = 0
    per_group: Limit = 0
    backlog: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a queue keeps jobs after their end, in s by outcome, with all their events; what is left
    out or 0 is as the settings say. Then they leave the log and the views, and their ids answer 404."""

    completed: Kept = 0
    failed: Kept = 0
    cancelled: Kept = 0


class Drained(msgspec.Struct, frozen=True):
    """How many waiting jobs of a queue were cancelled; `more`: so many that some are left, so that it
    is time to ask again."""

    queue: str
    cancelled: int
    more: bool


class Commands:
    """Commands in one namespace; `by` is the actor. Safe to share between tasks."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis: Final = redis
        self._keys: Final = keys

    async def cancel(self, job_id: str, *, by: str = "", reason: str = "") -> Cancelling:
        """End a job before its time; answers whether it was "waiting" (or delayed) or "running". Raises
        NotFound, WrongState."""
        for _ in range(TRIES):
            control, stands, job = await self._read(job_id)
            if job.state in TERMINAL:
                raise WrongState(f"{job_id} is over: {job.state}")
            [found] = await control.cancel([stands], by=by, reason=reason)
            if found != "over":
                return found
        raise _moving(job_id)

    async def retry(self, job_id: str, *, by: str = "") -> str:
        """Run an ended job again; answers its type. Raises NotFound, WrongState."""
        control, stands, job = await self._read(job_id)
        _check_ended(job_id, job)
        [done] = await control.requeue([stands], by=by)
        if not done:
            raise WrongState(f"{job_id} was retried by someone else already")
        return job.type

    async def changed(self, job_id: str, payload: msgspec.Raw) -> JobRequest:
        """A request for a job like an ended one, with another payload. Raises NotFound, WrongState."""
        _, stands, job = await self._read(job_id)
        _check_ended(job_id, job)
        spec = stands.spec
        return JobRequest(
            type=spec.type,
            payload=payload,
            priority=spec.priority,
            attempts=spec.attempts,
            backoff=spec.backoff,
            timeout=spec.timeout,
            tags=spec.tags,
            ttl=spec.ttl or None,
            group=spec.group,
        )

    async def promote(self, job_id: str, *, by: str = "") -> None:
        """Let a delayed job (or one that waits for its next attempt) run now. Raises NotFound,
        WrongState."""
        for _ in range(TRIES):
            control, stands, job = await self._read(job_id)
            _check_not_started(job_id, job)
            if job.state == "waiting":
                raise WrongState(f"{job_id} is not delayed: it waits for a worker already")
            if (await control.reschedule([stands], by=by, at_once=True))[0]:
                return
        raise _moving(job_id)

    async def reschedule(self, job_id: str, change: Change, *, by: str = "") -> None:
        """Give a job that has not started another time or priority. Raises InvalidJob, NotFound,
        WrongState."""
        run_at = _checked_moment(change)
        for _ in range(TRIES):
            control, stands, job = await self._read(job_id)
            _check_not_started(job_id, job)
            [done] = await control.reschedule(
                [stands],
                by=by,
                at_once=change.delay == 0 or run_at == 0,
                delay=change.delay or 0,
                run_at=run_at or 0,
                priority=change.priority or "",
            )
            if done:
                return
        if change.delay is None and run_at is None:
            raise WrongState(f"{job_id} has a time: when due it goes before all lanes, whatever its priority")
        raise _moving(job_id)

    async def pause(self, queue: str, *, by: str = "") -> bool:
        """Give out no jobs of a queue; what runs goes on. False if it was paused. Raises NotFound."""
        return await (await self._control(queue)).pause(by=by)

    async def resume(self, queue: str, *, by: str = "") -> bool:
        """Give out jobs again. False if it was not paused. Raises NotFound."""
        return await (await self._control(queue)).resume(by=by)

    async def limit(self, queue: str, limits: Limits, *, by: str = "") -> bool:
        """Set all limits of a queue. False if they were so. Raises InvalidJob, NotFound."""
        if limits.burst and not limits.rate:
            raise InvalidJob([FieldProblem("burst", "needs a rate")])
        if 0 < limits.rate < MIN_RATE:
            raise InvalidJob([FieldProblem("rate", f"is below {MIN_RATE:g}: to let none begin, pause it")])
        told = {name: getattr(limits, name) for name in Limits.__struct_fields__}
        return await (await self._control(queue)).limit(QueueLimited(**told, by=by))

    async def retain(self, queue: str, retention: Retention, *, by: str = "") -> bool:
        """Set how long a queue keeps ended jobs. False if it was so. Raises NotFound."""
        told = {name: getattr(retention, name) for name in Retention.__struct_fields__}
        return await (await self._control(queue)).retain(QueueRetained(**told, by=by))

    async def drain(self, queue: str, *, by: str = "") -> Drained:
        """Cancel what waits in a queue, delayed jobs and retries too. Raises NotFound."""
        cancelled, more = await (await self._control(queue)).drain(by=by, reason="the queue was drained")
        return Drained(queue, cancelled, more)

    async def _read(self, job_id: str) -> tuple[Control, Standing, Job]:
        """The job as its events tell it now, and what can be told to it. Raises NotFound."""
        queue, number, position = parse_job_id(job_id)
        keys = self._keys.partition(queue, number)
        events = await tell(self._redis, keys, position)
        stands, job = standing(events), fold_all(events)
        if stands is None or job is None:
            raise NotFound(f"no job {job_id}")
        return Control(self._redis, keys), stands, job

    async def _control(self, queue: str) -> Control:
        """Commands on a queue that has jobs, or could have some by a contract of this process."""
        declared = any(contract.queue == queue for contract in contracts())
        if not declared and not await command(self._redis, "SISMEMBER", self._keys.queues, queue):
            raise NotFound(f"no queue {queue!r}")
        return Control(self._redis, self._keys.partition(queue))


def _check_ended(job_id: str, job: Job) -> None:
    if job.state not in TERMINAL:
        raise WrongState(f"{job_id} has not ended: it is {job.state}")


def _check_not_started(job_id: str, job: Job) -> None:
    if job.state == "active":
        raise WrongState(f"{job_id} has started")
    if job.state in TERMINAL:
        raise WrongState(f"{job_id} is over: {job.state}")


def _moving(job_id: str) -> WrongState:
    return WrongState(f"{job_id} is being moved or started at this moment: ask again")


def _checked_moment(change: Change) -> int | None:
    """`run_at` in Unix ms. Raises InvalidJob for a change that says nothing, or two things."""
    if change.priority is None and change.delay is None and change.run_at is None:
        raise InvalidJob([FieldProblem("", "give priority, delay or run_at")])
    if change.delay is not None and change.run_at is not None:
        raise InvalidJob([FieldProblem("delay", "give delay or run_at, not both")])
    run_at = None if change.run_at is None else unix_ms(change.run_at)
    if run_at is not None and not 0 <= run_at <= LATEST_MS:
        raise InvalidJob([FieldProblem("run_at", "is before 1970 or after 2248")])
    return run_at
