"""From a request to a Schedule: check everything, the job against its contract too."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

import msgspec

from penstock.core.contracts import (
    MAX_ATTEMPTS,
    MAX_DELAY_S,
    MAX_TIMEOUT_S,
    QUEUE_NAME,
    Backoff,
    Priority,
    declared,
)
from penstock.core.errors import FieldProblem, InvalidJob, UnknownType
from penstock.core.events import Submitted, encode
from penstock.core.sealing import Seals, opened
from penstock.core.validation import UNDECODABLE, every_problem
from penstock.producer.intake import LATEST_MS, MAX_TAGS, NO_CONTROLS, JobRequest, Tag, prepare, unix_ms
from penstock.producer.refusals import Malformed
from penstock.producer.schedules.facts import CatchUp, Overlap, Schedule
from penstock.producer.schedules.timing import after, cron_problem, following, zone_problem

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"
MAX_EVERY_S: Final = 366 * 24 * 3600.0
MAX_WINDOW_S: Final = 7 * 24 * 3600.0
MAX_LIMIT: Final = 500

Moment = Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]


class ScheduledJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each tick submits: as for one job, without a time, an idempotency or a unique key, which
    are the schedule's own. `queue` may be left out: it is the type's."""

    type: str
    payload: msgspec.Raw
    queue: Annotated[str, msgspec.Meta(pattern=QUEUE_NAME)] | None = None
    priority: Priority | None = None
    attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)] | None = None
    backoff: Backoff | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] | None = None
    tags: Annotated[tuple[Tag, ...], msgspec.Meta(max_length=MAX_TAGS)] = ()
    ttl: Annotated[float, msgspec.Meta(gt=0, le=MAX_DELAY_S)] | None = None
    group: Annotated[str, msgspec.Meta(max_length=100, pattern=NO_CONTROLS)] = ""


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule as asked for. Give `cron` (five fields, read in the time zone `tz`) or `every` (s).

    `start` and `end`: moments (ISO 8601 with a time zone, or Unix time in ms) between which it ticks.
    `jitter`: each job waits for up to so many seconds more, the same for all who look at a tick.
    `overlap`, while the job before is not over: `skip` the tick, `queue` it, `cancel` that job, or
    `allow` both. `catch_up`, for ticks that passed while no scheduler ran: `none`, `last` (one job for
    all of them) or `all` (of the last `window` seconds, the newest `limit`).
    """

    job: ScheduledJob
    cron: Annotated[str, msgspec.Meta(max_length=200)] = ""
    every: Annotated[float, msgspec.Meta(ge=1, le=MAX_EVERY_S)] | None = None
    tz: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    start: Moment | None = None
    end: Moment | None = None
    jitter: Annotated[float, msgspec.Meta(ge=0, le=24 * 3600)] = 0
    overlap: Overlap = "skip"
    catch_up: CatchUp = "last"
    window: Annotated[float, msgspec.Meta(gt=0, le=MAX_WINDOW_S)] = 24 * 3600.0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)] = 100


_decode: Final = msgspec.json.Decoder(ScheduleRequest).decode


def read_request(body: bytes) -> ScheduleRequest:
    """A request from its JSON. Raises Malformed, or InvalidJob naming every wrong field."""
    try:
        body.decode()
        return _decode(body)
    except UNDECODABLE:
        try:
            msgspec.json.decode(body.decode())
        except UNDECODABLE as error:
            raise Malformed(f"the body is not JSON: {error}") from None
        raise InvalidJob(every_problem(ScheduleRequest, body, root="")) from None


def check(request: ScheduleRequest, now: int, *, max_payload: int) -> Schedule:
    """The schedule that is asked for. `now` in Unix ms.

    Raises InvalidJob naming every wrong field, or TooLarge.
    """
    problems = list(_problems(request))
    schedule = None
    try:
        schedule = _schedule(request, max_payload)
    except InvalidJob as error:
        problems += [FieldProblem(f"job.{it.path}", it.message) for it in error.problems]
    except UnknownType as error:
        problems.append(FieldProblem("job.type", str(error)))
    if schedule is not None and not problems and after(schedule, now) is None:
        problems.append(FieldProblem("cron" if request.cron else "end", "it would never tick"))
    if problems or schedule is None:
        raise InvalidJob(problems)
    return schedule


def foresee(
    request: ScheduleRequest, now: int, count: int, *, max_payload: int
) -> tuple[list[FieldProblem], list[int]]:
    """Every wrong field of a request, and the first `count` ticks after `now` (Unix ms), which are known
    though its job may be wrong. Raises TooLarge."""
    wrong: list[FieldProblem] = []
    try:
        check(request, now, max_payload=max_payload)
    except InvalidJob as error:
        wrong = list(error.problems)
    ticks = [] if _problems(request) else following(_with_job(request, "", b"null"), now, count)
    return wrong, ticks


def _schedule(request: ScheduleRequest, max_payload: int) -> Schedule:
    job = request.job
    told = {name: getattr(job, name) for name in job.__struct_fields__ if name != "queue"}
    queue = job.queue or declared(job.type).queue
    submission = prepare(queue, JobRequest(**told), max_payload=max_payload)
    return _with_job(request, queue, submission.body)


def _with_job(request: ScheduleRequest, queue: str, job: bytes) -> Schedule:
    return Schedule(
        queue=queue,
        job=msgspec.Raw(job),
        cron=" ".join(request.cron.split()),
        every=request.every or 0,
        tz=request.tz,
        start=_unix_ms(request.start),
        end=_unix_ms(request.end),
        jitter=request.jitter,
        overlap=request.overlap,
        catch_up=request.catch_up,
        window=request.window,
        limit=request.limit,
    )


def _problems(request: ScheduleRequest) -> list[FieldProblem]:
    found = []
    if bool(request.cron) == bool(request.every):
        found.append(FieldProblem("cron", "give cron or every, one of them"))
    elif request.cron and (wrong := cron_problem(request.cron)):
        found.append(FieldProblem("cron", wrong))
    if wrong := zone_problem(request.tz):
        found.append(FieldProblem("tz", wrong))
    if request.end is not None and _unix_ms(request.end) <= _unix_ms(request.start):
        found.append(FieldProblem("end", "is not after start"))
    return found


def _unix_ms(moment: datetime | int | None) -> int:
    return 0 if moment is None else unix_ms(moment)


def sealed(schedule: Schedule, seals: Seals | None) -> Schedule:
    """The schedule with its payload sealed, as the log may hold it."""
    if seals is None:
        return schedule
    return _with_payload(schedule, lambda it: seals.seal_json(it.payload, it.type, "payload"))


def plain(schedule: Schedule, seals: Seals | None) -> Schedule:
    """The schedule with its payload as it was given. Raises Unsealable."""
    return _with_payload(schedule, lambda it: opened(it.payload, it.type, "payload", seals))


def _with_payload(schedule: Schedule, change: Callable[[Submitted], msgspec.Raw]) -> Schedule:
    job = msgspec.json.decode(schedule.job, type=Submitted)
    changed = msgspec.structs.replace(job, payload=change(job))
    return msgspec.structs.replace(schedule, job=msgspec.Raw(encode(changed)))
