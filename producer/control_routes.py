"""Commands over HTTP; the caller's name stands in the events as the actor.

    POST  /jobs/{queue}/{id}/cancel     200   waiting, delayed or running
    POST  /jobs/{queue}/{id}/retry      202   as it was, or with {"payload": ...} a new job like it
    POST  /jobs/{queue}/{id}/promote    200   delayed: may run now
    PATCH /jobs/{queue}/{id}            200   {"priority"} and {"delay"} or {"run_at"}
    POST  /queues/{queue}/pause, /resume, /drain
    PUT   /queues/{queue}/limits        200   all limits; what is left out is none
    PUT   /queues/{queue}/retention     200   how long ended jobs are kept
    GET   /workers                      200   who works, and on what
    POST  /workers/{name}/drain         202   asks a worker to leave

A job or a queue that is not there is 404; a job that is over, or has started, 409.
"""

from typing import Final, TypeVar

import msgspec
from litestar import get, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from penstock.core.errors import NotFound, Refused
from penstock.core.lifecycle import State
from penstock.core.positions import parse_job_id
from penstock.core.settings import Settings
from penstock.core.workers import Worker
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.client import Producer, Receipt
from penstock.producer.commands import Cancellation, Change, Limits, Retention
from penstock.producer.reading import read_fields
from penstock.producer.routes import JSON, OPTIONS_ROOM, accepted, first_job, trace_of, with_key

T = TypeVar("T")

MAX_COMMAND: Final = 64 * 1024

_encode: Final = msgspec.json.Encoder().encode


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run an ended job again: as it was, or with `payload` a new job like it."""

    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class CommandedJob(msgspec.Struct, frozen=True):
    """A job after a command: its state, and of a cancelled one whether it ran (its handler is told
    within half a second, and may clean up)."""

    id: str
    queue: str
    state: State
    was_running: bool = False


class GovernedQueue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A queue after a command; `changed` is false if everything was so already."""

    queue: str
    changed: bool
    paused: bool | None = None
    limits: Limits | None = None
    retention: Retention | None = None


class WorkerList(msgspec.Struct, frozen=True):
    """All workers, by name."""

    workers: list[Worker]


class DrainedWorker(msgspec.Struct, frozen=True):
    """A worker that was asked to leave."""

    name: str
    leaving: bool = True


def control_routes(producer: Producer, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""
    return [*_job_routes(producer, settings), *_queue_routes(producer), *_worker_routes(producer)]


def _job_routes(producer: Producer, settings: Settings) -> list[HTTPRouteHandler]:
    commands = producer.commands

    @post("/jobs/{queue:str}/{job_id:str}/cancel", include_in_schema=False)
    async def cancel(request: AnyRequest, queue: FromPath[str], job_id: FromPath[str]) -> ASGIResponse:
        _belongs(job_id, queue)
        told = await _body(request, Cancellation, MAX_COMMAND)
        was = await commands.cancel(job_id, by=request.user.name, reason=told.reason)
        return _answer(CommandedJob(job_id, queue, "cancelled", was == "running"))

    @post("/jobs/{queue:str}/{job_id:str}/retry", include_in_schema=False)
    async def retry(request: AnyRequest, queue: FromPath[str], job_id: FromPath[str]) -> ASGIResponse:
        _belongs(job_id, queue)
        told = await _body(request, Retry, settings.max_payload + OPTIONS_ROOM)
        if isinstance(told.payload, msgspec.UnsetType):
            type = await commands.retry(job_id, by=request.user.name)
            return accepted(Receipt(job_id, queue, type, "waiting", known=False))
        again = with_key(await commands.changed(job_id, told.payload), request)
        who, trace = request.user.name, trace_of(request)
        [answer] = await producer.accept(queue, [again], by=who, trace=trace, origin=job_id)
        if isinstance(answer, Refused):
            raise answer
        return accepted(await first_job(producer, answer) if answer.known else answer)

    @post("/jobs/{queue:str}/{job_id:str}/promote", include_in_schema=False)
    async def promote(request: AnyRequest, queue: FromPath[str], job_id: FromPath[str]) -> ASGIResponse:
        _belongs(job_id, queue)
        await commands.promote(job_id, by=request.user.name)
        return _answer(CommandedJob(job_id, queue, await producer.handle(job_id).state()))

    @patch("/jobs/{queue:str}/{job_id:str}", include_in_schema=False)
    async def reschedule(request: AnyRequest, queue: FromPath[str], job_id: FromPath[str]) -> ASGIResponse:
        _belongs(job_id, queue)
        change = await _body(request, Change, MAX_COMMAND)
        await commands.reschedule(job_id, change, by=request.user.name)
        return _answer(CommandedJob(job_id, queue, await producer.handle(job_id).state()))

    return [cancel, retry, promote, reschedule]


def _queue_routes(producer: Producer) -> list[HTTPRouteHandler]:
    commands = producer.commands

    @post("/queues/{queue:str}/pause", include_in_schema=False)
    async def pause(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        changed = await commands.pause(queue, by=request.user.name)
        return _answer(GovernedQueue(queue, changed, paused=True))

    @post("/queues/{queue:str}/resume", include_in_schema=False)
    async def resume(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        changed = await commands.resume(queue, by=request.user.name)
        return _answer(GovernedQueue(queue, changed, paused=False))

    @put("/queues/{queue:str}/limits", include_in_schema=False)
    async def limit(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        limits = await _body(request, Limits, MAX_COMMAND)
        changed = await commands.limit(queue, limits, by=request.user.name)
        return _answer(GovernedQueue(queue, changed, limits=limits))

    @put("/queues/{queue:str}/retention", include_in_schema=False)
    async def retain(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        retention = await _body(request, Retention, MAX_COMMAND)
        changed = await commands.retain(queue, retention, by=request.user.name)
        return _answer(GovernedQueue(queue, changed, retention=retention))

    @post("/queues/{queue:str}/drain", include_in_schema=False)
    async def drain(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        return _answer(await commands.drain(queue, by=request.user.name))

    return [pause, resume, limit, retain, drain]


def _worker_routes(producer: Producer) -> list[HTTPRouteHandler]:
    @get("/workers", include_in_schema=False)
    async def list_workers() -> ASGIResponse:
        return _answer(WorkerList(await producer.workers()))

    @post("/workers/{name:str}/drain", include_in_schema=False)
    async def drain_worker(request: AnyRequest, name: FromPath[str]) -> ASGIResponse:
        await producer.drain_worker(name, by=request.user.name)
        return _answer(DrainedWorker(name), 202)

    return [list_workers, drain_worker]


async def _body(request: AnyRequest, shape: type[T], limit: int) -> T:
    """The body as a `shape`; no body is one that says nothing. Raises Malformed, InvalidJob, TooLarge,
    UnsupportedMedia."""
    body = await whole(request, limit, "command")
    if body:
        media_type(request, JSON)
    return read_fields(body or b"{}", shape)


def _belongs(job_id: str, queue: str) -> None:
    if parse_job_id(job_id).queue != queue:
        raise NotFound(f"no job {job_id} in queue {queue!r}")


def _answer(told: msgspec.Struct, status: int = 200) -> ASGIResponse:
    headers = {"cache-control": "no-store"}
    return ASGIResponse(body=_encode(told), status_code=status, headers=headers, media_type=JSON)
