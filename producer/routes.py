"""Submission over HTTP: one job, or a batch.

    POST /jobs/{queue}          one job      202 accepted, 200 its idempotency key was known
    POST /jobs/{queue}/batch    many, as a JSON array or as NDJSON; each is answered for itself

This is the hot path. So the handlers take the bytes of the body and answer bytes, and requests that come
in at the same time share one script call (see outlet.py).
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from penstock.core.errors import FieldProblem, InvalidJob, Refused
from penstock.core.lifecycle import State, fold_all
from penstock.core.positions import milliseconds, parse_job_id
from penstock.core.settings import Settings
from penstock.core.tracing import from_headers
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.client import Producer, Receipt
from penstock.producer.intake import MAX_KEY_CHARS, JobRequest
from penstock.producer.reading import read_array, read_job, read_lines
from penstock.producer.refusals import AllRefused, problem_of

JSON: Final = "application/json"
LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
OPTIONS_ROOM: Final = 64 * 1024  # what a job may take beside its payload

_encode: Final = msgspec.json.Encoder().encode


class AcceptedJob(msgspec.Struct, frozen=True):
    """A job that is in the log. `submitted_at` by the clock of Redis, ISO 8601 in UTC."""

    id: str
    queue: str
    type: str
    state: State
    submitted_at: str


class BatchItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one job of a batch: 202 accepted, 200 its idempotency key was known (`id` is the
    first job's), else what is wrong with it."""

    status: int
    id: str = ""
    detail: str = ""
    errors: list[FieldProblem] = []


class BatchAnswer(msgspec.Struct, frozen=True):
    """The jobs of a batch in the order in which they were given, and how many went which way."""

    accepted: int
    refused: int
    items: list[BatchItem]


def submission_routes(producer: Producer, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""

    @post("/jobs/{queue:str}", include_in_schema=False)
    async def submit_job(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        media_type(request, JSON)
        body = await whole(request, settings.max_payload + OPTIONS_ROOM, "job")
        job = with_key(read_job(body, queue), request)
        [answer] = await producer.accept(queue, [job], by=request.user.name, trace=trace_of(request))
        if isinstance(answer, Refused):
            raise answer
        return accepted(await first_job(producer, answer) if answer.known else answer)

    @post("/jobs/{queue:str}/batch", include_in_schema=False)
    async def submit_batch(request: AnyRequest, queue: FromPath[str]) -> ASGIResponse:
        read = read_array if media_type(request, JSON, *LINES) == JSON else read_lines
        if "idempotency-key" in request.headers:
            words = "names one job: in a batch give each job its own `key`"
            raise InvalidJob([FieldProblem("Idempotency-Key", words)])
        body = await whole(request, settings.max_body, "batch")
        jobs = read(body, queue, settings.max_batch)
        if not jobs:
            raise InvalidJob([FieldProblem("", "no jobs in the batch")])
        right = [job for job in jobs if isinstance(job, JobRequest)]
        answers = iter(await producer.accept(queue, right, by=request.user.name, trace=trace_of(request)))
        return _of_batch([job if isinstance(job, Refused) else next(answers) for job in jobs])

    return [submit_job, submit_batch]


def with_key(job: JobRequest, request: AnyRequest) -> JobRequest:
    """The job with the idempotency key of the header."""
    key = key_of(request, job.key)
    return job if key == job.key else msgspec.structs.replace(job, key=key)


def key_of(request: AnyRequest, told_key: str) -> str:
    """The idempotency key of the header, which may be written as a string in quotes; that of the body,
    if the header has none. Raises InvalidJob."""
    told = request.headers.get("idempotency-key")
    if told is None:
        return told_key
    key = told[1:-1] if len(told) > 1 and told[0] == told[-1] == '"' else told
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        words = f"give 1 to {MAX_KEY_CHARS} printable characters"
        raise InvalidJob([FieldProblem("Idempotency-Key", words)])
    if told_key not in ("", key):
        raise InvalidJob([FieldProblem("key", "is not that of the header Idempotency-Key")])
    return key


def trace_of(request: AnyRequest) -> str:
    """The caller's trace context (W3C traceparent and tracestate), as events keep it; empty if it sent
    none that is right."""
    parent = request.headers.get("traceparent", "")
    return from_headers(parent, ",".join(request.headers.getall("tracestate", []))) if parent else ""


async def first_job(producer: Producer, answer: Receipt) -> Receipt:
    """What an idempotency key stands for, as it is now; as it was accepted, if its log was trimmed."""
    first = fold_all(await producer.handle(answer.id).events())
    if first is None:
        return answer
    return msgspec.structs.replace(answer, state=first.state, type=first.type)


def accepted(job: Receipt) -> ASGIResponse:
    """The answer to a submission: 202, or 200 where its idempotency key was known."""
    submitted = datetime.fromtimestamp(milliseconds(parse_job_id(job.id).position) / 1000, UTC)
    stamp = submitted.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers: dict[str, Any] = {"location": f"/jobs/{job.queue}/{job.id}", "cache-control": "no-store"}
    if job.known:
        headers["idempotency-replayed"] = "true"
    return ASGIResponse(
        body=_encode(AcceptedJob(job.id, job.queue, job.type, job.state, stamp)),
        status_code=200 if job.known else 202,
        headers=headers,
        media_type=JSON,
    )


def _of_batch(answers: list[Receipt | Refused]) -> ASGIResponse:
    items = [_item(answer) for answer in answers]
    refused = sum(isinstance(answer, Refused) for answer in answers)
    if refused == len(items):
        raise AllRefused(_errors_of(items), items)
    told = BatchAnswer(len(items) - refused, refused, items)
    headers = {"cache-control": "no-store"}
    return ASGIResponse(body=_encode(told), status_code=202, headers=headers, media_type=JSON)


def _item(answer: Receipt | Refused) -> BatchItem:
    if isinstance(answer, Refused):
        problem = problem_of(answer)
        return BatchItem(problem.status, detail=problem.detail, errors=problem.errors)
    return BatchItem(200 if answer.known else 202, answer.id)


def _errors_of(items: list[BatchItem]) -> list[FieldProblem]:
    return [
        FieldProblem(f"[{number}].{error.path}".rstrip("."), error.message)
        for number, item in enumerate(items)
        for error in item.errors or [FieldProblem("", item.detail)]
    ]
