"""Redriving over HTTP.

    POST /redrive   {"filter", "patch", "rate", "id", "archived", "dry_run"}
                    200   a dry run: how many jobs would be submitted again, what would change in the first
                          ten, and which could not be; or a redrive of this `id` that runs or is complete
                    202   the redrive, a job: GET /jobs/penstock/{id} tells its progress and its outcome,
                          POST /jobs/penstock/{id}/cancel stops it. Asked for again under its `id`, one that
                          was cancelled or has failed goes on where it was.

An empty filter, and a state in which no job has ended, are refused (422); another redrive under an `id` that
is known, too (409).
"""

from typing import Final

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from penstock.core.errors import NotFound, Refused, WrongState
from penstock.core.events import Submitted, decode
from penstock.core.jobs.bulk import QUEUE
from penstock.core.jobs.redrive import TYPE, Redrive
from penstock.core.lifecycle import fold_all
from penstock.core.sealing import opened
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.client import Producer, Receipt
from penstock.producer.intake import JobRequest
from penstock.producer.reading import read_fields
from penstock.producer.routes import JSON, accepted, trace_of, with_key
from penstock.ui.bulk_routes import MAX_ORDER
from penstock.ui.redriving import Redriving, archive_for

_encode: Final = msgspec.json.Encoder().encode


class RedriveRequest(Redrive, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A redrive; with `dry_run` nothing is changed."""

    dry_run: bool = False


def redrive_routes(producer: Producer) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""

    @post("/redrive", include_in_schema=False)
    async def redrive(request: AnyRequest) -> ASGIResponse:
        media_type(request, JSON)
        told = read_fields(await whole(request, MAX_ORDER, "redrive"), RedriveRequest)
        order = Redrive(**{name: getattr(told, name) for name in Redrive.__struct_fields__})
        by = request.user.name
        if told.dry_run:
            seconds, micros = await producer.redis.time()
            asked = seconds * 1000 + micros // 1000
            redriving = Redriving(producer, order, asked=asked, id=order.id, by=by)
            preview = await redriving.preview(reveal=request.user.reveal)
            headers = {"cache-control": "no-store"}
            return ASGIResponse(body=_encode(preview), headers=headers, media_type=JSON)
        archive_for(order, producer.settings)
        key = f"redrive:{order.id}" if order.id else ""
        job = with_key(JobRequest(type=TYPE, payload=msgspec.Raw(_encode(order)), key=key), request)
        [answer] = await producer.accept(QUEUE, [job], by=by, trace=trace_of(request))
        if isinstance(answer, Refused):
            raise answer
        return accepted(await _gone_on(producer, answer, order, by) if answer.known else answer)

    return [redrive]


async def _gone_on(producer: Producer, known: Receipt, order: Redrive, by: str) -> Receipt:
    """A redrive of this key that was asked for before; one that was cut short or has failed goes on.

    Raises WrongState: it is another one.
    """
    events = await producer.handle(known.id).events()
    first = decode(events[0]) if events else None
    if not isinstance(first, Submitted):
        raise NotFound(f"{known.id}, which was this redrive, is no longer in the log: choose another id")
    before = msgspec.json.decode(opened(first.payload, first.type, "payload", producer.seals), type=Redrive)
    if before != order:
        raise WrongState(f"{known.id} is another redrive under the same name: choose another id")
    job = fold_all(events)
    if job is None or job.state not in ("failed", "cancelled"):
        return known if job is None else msgspec.structs.replace(known, state=job.state)
    await producer.commands.retry(known.id, by=by)
    return msgspec.structs.replace(known, state="waiting", known=False)
