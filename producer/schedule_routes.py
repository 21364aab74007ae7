"""Schedules over HTTP.

GET    /schedules                   all, with their next ticks and their last decision
PUT    /schedules/{name}            set one: 201 created, 200 changed or as it was
GET    /schedules/{name}
DELETE /schedules/{name}            take it away
POST   /schedules/{name}/pause      no tick until it is resumed
POST   /schedules/{name}/resume
POST   /schedules/{name}/trigger    a job now; Idempotency-Key makes it safe to send again
GET    /schedules/{name}/events     what was decided, newest first
"""

from typing import Annotated, Final

from litestar import delete, get, post, put
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from litestar.response import Response

from penstock.core.settings import Settings
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.routes import JSON, OPTIONS_ROOM
from penstock.producer.schedules.asking import read_request
from penstock.producer.schedules.schedules import FactPage, ScheduleList, Schedules, ScheduleView

MAX_LIMIT: Final = 500

_FRESH: Final = CacheControlHeader(no_store=True)

Name = Annotated[str, PathParameter(description="The schedule's name.")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many at most.")]
Before = Annotated[
    str,
    QueryParameter(
        description="The `next` of the page before.", max_length=40, pattern=r"^([0-9]{1,15}-[0-9]{1,10})?$"
    ),
]


def schedule_routes(schedules: Schedules, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""

    @put(
        "/schedules/{name:str}",
        status_code=200,
        cache_control=_FRESH,
        summary="Set a schedule",
        operation_id="setSchedule",
        tags=["schedules"],
    )
    async def set_schedule(request: AnyRequest, name: Name) -> Response[ScheduleView]:
        """In place of what had its name. One with another rhythm begins now; paused stays paused."""
        media_type(request, JSON)
        body = await whole(request, settings.max_payload + OPTIONS_ROOM, "schedule")
        change = await schedules.set(name, read_request(body), by=request.user.name)
        return Response(await schedules.get(name), status_code=201 if change == "created" else 200)

    @delete(
        "/schedules/{name:str}",
        cache_control=_FRESH,
        summary="Remove a schedule",
        operation_id="removeSchedule",
        tags=["schedules"],
    )
    async def remove_schedule(request: AnyRequest, name: Name) -> None:
        """Its jobs stay, and what was decided can still be read."""
        await schedules.remove(name, by=request.user.name)

    return [set_schedule, remove_schedule, *_acts(schedules), *_readers(schedules)]


def _acts(schedules: Schedules) -> list[HTTPRouteHandler]:
    @post(
        "/schedules/{name:str}/pause",
        status_code=200,
        cache_control=_FRESH,
        summary="Pause a schedule",
        operation_id="pauseSchedule",
        tags=["schedules"],
    )
    async def pause_schedule(request: AnyRequest, name: Name) -> ScheduleView:
        """No tick is due until it is resumed; those passed over are not made up for."""
        await schedules.pause(name, by=request.user.name)
        return await schedules.get(name)

    @post(
        "/schedules/{name:str}/resume",
        status_code=200,
        cache_control=_FRESH,
        summary="Resume a schedule",
        operation_id="resumeSchedule",
        tags=["schedules"],
    )
    async def resume_schedule(request: AnyRequest, name: Name) -> ScheduleView:
        """From now on."""
        await schedules.resume(name, by=request.user.name)
        return await schedules.get(name)

    @post(
        "/schedules/{name:str}/trigger",
        status_code=202,
        cache_control=_FRESH,
        summary="Run a schedule's job now",
        operation_id="triggerSchedule",
        tags=["schedules"],
    )
    async def trigger_schedule(request: AnyRequest, name: Name) -> ScheduleView:
        """Paused or not, as soon as a scheduler sees it. With an Idempotency-Key once for all calls."""
        key = request.headers.get("idempotency-key", "")[:255]
        await schedules.trigger(name, by=request.user.name, key=key)
        return await schedules.get(name)

    return [pause_schedule, resume_schedule, trigger_schedule]


def _readers(schedules: Schedules) -> list[HTTPRouteHandler]:
    @get(
        "/schedules",
        cache_control=_FRESH,
        summary="All schedules",
        operation_id="listSchedules",
        tags=["schedules"],
    )
    async def list_schedules() -> ScheduleList:
        """By name, each with its next ticks and its last decision."""
        return await schedules.all()

    @get(
        "/schedules/{name:str}",
        cache_control=_FRESH,
        summary="A schedule",
        operation_id="getSchedule",
        tags=["schedules"],
    )
    async def get_schedule(name: Name) -> ScheduleView:
        """As it stands."""
        return await schedules.get(name)

    @get(
        "/schedules/{name:str}/events",
        cache_control=_FRESH,
        summary="What was decided about a schedule",
        operation_id="getScheduleEvents",
        tags=["schedules"],
    )
    async def get_schedule_events(name: Name, before: Before = "", limit: Limit = 100) -> FactPage:
        """Newest first; also of a schedule that was removed."""
        return await schedules.events(name, before=before, limit=limit)

    return [list_schedules, get_schedule, get_schedule_events]
