"""Many at once over HTTP.

    POST /bulk   {"act", "filter", "dry_run"}
                 200   a dry run: how many jobs would be acted on, and the first ten
                 202   the operation, a job: GET /jobs/penstock/{id} tells its progress and its outcome,
                       POST /jobs/penstock/{id}/cancel stops it

An empty filter, and an act that cannot apply to a state, are refused (422).
"""

from typing import Final

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from penstock.core.errors import Refused
from penstock.core.jobs.bulk import QUEUE, Bulk
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.client import Producer
from penstock.producer.intake import JobRequest
from penstock.producer.reading import read_fields
from penstock.producer.routes import JSON, accepted, first_job, trace_of, with_key
from penstock.projections.bulk import Operation

MAX_ORDER: Final = 64 * 1024

_encode: Final = msgspec.json.Encoder().encode


class BulkRequest(Bulk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order; with `dry_run` nothing is changed."""

    dry_run: bool = False


def bulk_routes(producer: Producer) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""

    @post("/bulk", include_in_schema=False)
    async def bulk(request: AnyRequest) -> ASGIResponse:
        media_type(request, JSON)
        asked_for = read_fields(await whole(request, MAX_ORDER, "order"), BulkRequest)
        order = Bulk(act=asked_for.act, filter=asked_for.filter, priority=asked_for.priority)
        if asked_for.dry_run:
            seconds, micros = await producer.redis.time()
            operation = Operation(producer.redis, producer.keys, order, asked=seconds * 1000 + micros // 1000)
            headers = {"cache-control": "no-store"}
            return ASGIResponse(body=_encode(await operation.preview()), headers=headers, media_type=JSON)
        job = with_key(JobRequest(type="penstock.bulk", payload=msgspec.Raw(_encode(order))), request)
        by, trace = request.user.name, trace_of(request)
        [answer] = await producer.accept(QUEUE, [job], by=by, trace=trace)
        if isinstance(answer, Refused):
            raise answer
        return accepted(await first_job(producer, answer) if answer.known else answer)

    return [bulk]
