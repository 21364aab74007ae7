"""Schedules over HTTP.

    GET    /schedules                       all, with their next ticks and their last decision
    PUT    /schedules/{schedule}            set one: 201 created, 200 changed or as it was
    GET    /schedules/{schedule}
    DELETE /schedules/{schedule}            take it away
    POST   /schedules/{schedule}/preview    when it would tick and what is wrong with it; nothing is written
    POST   /schedules/{schedule}/pause      no tick until it is resumed
    POST   /schedules/{schedule}/resume
    POST   /schedules/{schedule}/trigger    a job now; Idempotency-Key makes it safe to send again
    GET    /schedules/{schedule}/events     what was decided, newest first

What is written here is done by a scheduler: a trigger is a fact in the ledger, and its job follows.
"""

from typing import Annotated, Final

from litestar import delete, get, post, put
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from litestar.response import Response

from penstock.core.settings import Settings
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.intake import MAX_KEY_CHARS
from penstock.producer.routes import JSON, OPTIONS_ROOM
from penstock.producer.schedules.asking import read_request
from penstock.producer.schedules.schedules import (
    FactPage,
    ScheduleList,
    SchedulePreview,
    Schedules,
    ScheduleView,
)

MAX_LIMIT: Final = 500

_FRESH: Final = CacheControlHeader(no_store=True)

MayReveal = NamedDependency[bool]
Name = Annotated[str, PathParameter(description="The schedule's name.")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many at most.")]
Before = Annotated[
    str,
    QueryParameter(
        description="The `next` of the page before.", max_length=40, pattern=r"^([0-9]{1,15}-[0-9]{1,10})?$"
    ),
]


def schedule_writers(schedules: Schedules, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers that write, for an app that puts the caller into `request.user`; described in
    ui/openapi_schedules.py."""

    @put("/schedules/{schedule:str}", include_in_schema=False)
    async def set_schedule(request: AnyRequest, schedule: Name) -> Response[ScheduleView]:
        media_type(request, JSON)
        body = await whole(request, settings.max_payload + OPTIONS_ROOM, "schedule")
        change = await schedules.set(schedule, read_request(body), by=request.user.name)
        found = await schedules.get(schedule, reveal=request.user.reveal)
        return Response(found, status_code=201 if change == "created" else 200)

    @post("/schedules/{schedule:str}/preview", status_code=200, include_in_schema=False)
    async def preview_schedule(request: AnyRequest, schedule: Name) -> SchedulePreview:
        media_type(request, JSON)
        body = await whole(request, settings.max_payload + OPTIONS_ROOM, "schedule")
        return await schedules.preview(schedule, read_request(body))

    @delete("/schedules/{schedule:str}", include_in_schema=False)
    async def remove_schedule(request: AnyRequest, schedule: Name) -> None:
        await schedules.remove(schedule, by=request.user.name)

    @post("/schedules/{schedule:str}/pause", status_code=200, include_in_schema=False)
    async def pause_schedule(request: AnyRequest, schedule: Name) -> ScheduleView:
        await schedules.pause(schedule, by=request.user.name)
        return await schedules.get(schedule, reveal=request.user.reveal)

    @post("/schedules/{schedule:str}/resume", status_code=200, include_in_schema=False)
    async def resume_schedule(request: AnyRequest, schedule: Name) -> ScheduleView:
        await schedules.resume(schedule, by=request.user.name)
        return await schedules.get(schedule, reveal=request.user.reveal)

    @post("/schedules/{schedule:str}/trigger", status_code=202, include_in_schema=False)
    async def trigger_schedule(request: AnyRequest, schedule: Name) -> ScheduleView:
        key = request.headers.get("idempotency-key", "")[:MAX_KEY_CHARS]
        await schedules.trigger(schedule, by=request.user.name, key=key)
        return await schedules.get(schedule, reveal=request.user.reveal)

    changes = [set_schedule, remove_schedule, pause_schedule, resume_schedule, trigger_schedule]
    return [preview_schedule, *changes]


def schedule_readers(schedules: Schedules) -> list[HTTPRouteHandler]:
    """The handlers that read, described by themselves."""

    @get(
        "/schedules",
        cache_control=_FRESH,
        summary="All schedules",
        operation_id="listSchedules",
        tags=["schedules"],
    )
    async def list_schedules(reveal: MayReveal) -> ScheduleList:
        """By name, each with its next ticks and its last decision."""
        return await schedules.all(reveal=reveal)

    @get(
        "/schedules/{schedule:str}",
        cache_control=_FRESH,
        summary="A schedule",
        operation_id="getSchedule",
        tags=["schedules"],
    )
    async def get_schedule(schedule: Name, reveal: MayReveal) -> ScheduleView:
        """As it stands."""
        return await schedules.get(schedule, reveal=reveal)

    @get(
        "/schedules/{schedule:str}/events",
        cache_control=_FRESH,
        summary="What was decided about a schedule",
        operation_id="getScheduleEvents",
        tags=["schedules"],
    )
    async def get_schedule_events(schedule: Name, before: Before = "", limit: Limit = 100) -> FactPage:
        """Newest first; also of a schedule that was removed."""
        return await schedules.events(schedule, before=before, limit=limit)

    return [list_schedules, get_schedule, get_schedule_events]
