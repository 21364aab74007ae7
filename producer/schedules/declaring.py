"""Schedules declared in code, beside the jobs they submit.

    from penstock.producer.schedules import schedule

    schedule("nightly", cron="0 3 * * *", tz="Europe/Berlin")(CleanUp(days=30))

A declaration only says what there should be. `penstock scheduler` sets it when it starts: once, and
nothing happens if it is set already. What was paused stays paused; what somebody changed or removed
meanwhile is again as the code says. A schedule that the code no longer declares is named in the log, and
goes when somebody removes it: another scheduler may load other modules.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis

from penstock.core.contracts import declaration
from penstock.core.errors import InvalidJob, Misconfigured, Refused
from penstock.core.settings import Settings
from penstock.producer.schedules.asking import NAME, ScheduledJob, ScheduleRequest, check, read_request
from penstock.producer.schedules.schedules import Schedules

CODE: Final = "code"

T = TypeVar("T", bound=msgspec.Struct)

_JOB_OPTIONS: Final = frozenset(ScheduledJob.__struct_fields__) - {"type", "payload"}
_declared: dict[str, ScheduleRequest] = {}
_log: Final = logging.getLogger(__name__)


def schedule(name: str, **options: Any) -> Callable[[T], T]:
    """Declare that the payload it is called with is submitted on a schedule.

    Options: those of a ScheduleRequest (cron or every, tz, start, end, jitter, overlap, catch_up,
    window, limit) and of its job (priority, attempts, backoff, timeout, tags, ttl, group). Raises
    Misconfigured naming what is wrong, also where two declarations have one name.
    """

    def declare(payload: T) -> T:
        told = {key: value for key, value in options.items() if key not in _JOB_OPTIONS}
        job = {key: value for key, value in options.items() if key in _JOB_OPTIONS}
        job |= {"type": declaration(type(payload)).type, "payload": payload}
        try:
            if not re.fullmatch(NAME, name):
                raise Misconfigured(f"schedule {name!r}: a name is up to 100 of a-z, 0-9, dot, - and _")
            request = read_request(msgspec.json.encode({**told, "job": job}))
            check(request, 0, max_payload=Settings().max_payload)
        except InvalidJob as error:
            raise Misconfigured(f"schedule {name!r}: {error}") from None
        if _declared.setdefault(name, request) != request:
            raise Misconfigured(f"schedule {name!r} is declared twice, in two ways")
        return payload

    return declare


def declared_schedules() -> dict[str, ScheduleRequest]:
    """What this process declares, by name."""
    return dict(_declared)


async def synchronise(redis: Redis, settings: Settings) -> None:
    """Set all that is declared here; say which ones were once and are not any more."""
    schedules = Schedules(redis, settings)
    for name, request in _declared.items():
        try:
            change = await schedules.set(name, request, by=CODE)
        except Refused as error:  # its end has passed, or there are too many
            _log.warning("schedule %s is not set: %s", name, error)
            continue
        if change != "same":
            _log.info("schedule %s %s, as the code says", name, change)
    for found in (await schedules.all()).schedules:
        if found.set_by == CODE and found.name not in _declared:
            _log.warning(
                "schedule %s was declared in code that is not loaded here; `penstock schedules remove %s` "
                "takes it away",
                found.name,
                found.name,
            )
