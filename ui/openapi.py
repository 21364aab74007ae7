"""The API's own description: OpenAPI 3.1, with every contract that this process knows.

The paths that read are described by their handlers, through Litestar. Those that write take bytes (see
producer/routes.py), so they are described here, their bodies out of the contracts: `type` tells which
payload is meant.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.types import ControllerRouterHandler

from penstock.core.artifacts import Artifact
from penstock.core.contracts import Contract, contracts
from penstock.core.settings import Settings
from penstock.producer.commands import Cancellation, Change, Drained
from penstock.producer.control_routes import CommandedJob, DrainedWorker, GovernedQueue, Retry, WorkerList
from penstock.producer.intake import JobRequest
from penstock.producer.refusals import MEDIA_TYPE, Problem
from penstock.producer.routes import JSON, LINES, AcceptedJob, BatchAnswer
from penstock.projections.bulk import Preview
from penstock.ui import openapi_flows, openapi_schedules, openapi_webhooks
from penstock.ui.bulk_routes import BulkRequest
from penstock.ui.openapi_control import COMMANDS, PARAMETERS, Command
from penstock.ui.redrive_routes import RedriveRequest
from penstock.ui.redriving import RedrivePreview

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_WHY: Final = {
    400: "The body, a parameter or a header cannot be read.",
    401: "No valid API key.",
    403: "Not served: without API keys, whatever does not come from this machine.",
    404: "There is none.",
    408: "The body stopped coming.",
    409: "The job is over, has started, or does not wait: the detail says which.",
    413: "The body, a payload or a batch is over its bound.",
    415: "A content type that is not taken here.",
    422: "Wrong fields, each named with its path. Nothing was written.",
    429: "Too many requests; Retry-After says when the next one is served.",
    500: "An error of the server; its log says what happened.",
    503: "Redis or the artifact store does not answer; Retry-After says when to try again.",
}
_COMMANDED: Final = (
    Cancellation,
    Retry,
    Change,
    CommandedJob,
    GovernedQueue,
    Drained,
    WorkerList,
    DrainedWorker,
    BulkRequest,
    Preview,
    RedriveRequest,
    RedrivePreview,
)
_PATH_WORDS: Final = {
    **PARAMETERS,
    **openapi_flows.PARAMETERS,
    **openapi_schedules.PARAMETERS,
    **openapi_webhooks.PARAMETERS,
}
_TAGS: Final = (
    *(
        "submission",
        "jobs",
        "queues",
        "workers",
        "bulk",
        "redrive",
        "flows",
        "schedules",
        "webhooks",
        "artifacts",
        "health",
    ),
)
_ALWAYS: Final = (401, 403, 429, 500, 503)
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def describe(readers: Sequence[ControllerRouterHandler], settings: Settings) -> Json:
    """The whole document. `readers` are the handlers of the paths that read jobs and queues."""
    known = contracts()
    document = _of_readers(readers)
    paths, schemas = document["paths"], document.setdefault("components", {}).setdefault("schemas", {})
    for path, operations in _writers(known, settings).items():
        paths.setdefault(path, {}).update(operations)
    for each in (*COMMANDS, *openapi_flows.COMMANDS, *openapi_schedules.COMMANDS, *openapi_webhooks.COMMANDS):
        paths.setdefault(each.path, {})[each.method] = _command(each)
    paths.update(_health())
    schemas.update(_schemas(known))
    document["openapi"] = "3.1.0"
    document["tags"] = [{"name": name} for name in _TAGS]
    document["components"]["responses"] = {str(status): _problem(status) for status in _WHY}
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}] if settings.api_keys else [{}]
    return document


def _of_readers(readers: Sequence[ControllerRouterHandler]) -> Json:
    """What Litestar says of the handlers that read, with our answers in place of its own."""
    app = Litestar(
        readers,
        dependencies={name: Provide(lambda: None, sync_to_thread=False) for name in ("queries", "reveal")},
        openapi_config=OpenAPIConfig(
            title="Penstock",
            version=version("penstock"),
            description="An event-sourced job queue on Redis Streams. Times are ISO 8601 in UTC.",
            use_handler_docstrings=True,
        ),
    )
    document: Json = app.openapi_schema.to_schema()
    document.pop("servers", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("400", None)
            operation["responses"] |= _refused(400, 404, 422)
    return document


def _writers(known: list[Contract], settings: Settings) -> Json:
    one = {
        "summary": "Submit a job",
        "description": "The payload is checked against its type's contract; nothing is written unless all "
        f"is right. At most {settings.max_payload:,} bytes of payload. An idempotency key is remembered for "
        f"{settings.idempotency_ttl:,.0f} s.",
        "operationId": "submitJob",
        "tags": ["submission"],
        "parameters": [_queue(known), _IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {JSON: {"schema": _named("job")}}},
        "responses": {
            "202": _answer("Accepted: the job is in the log and in its lane.", "AcceptedJob", _LOCATION),
            "200": _answer("The idempotency key was known: the first job.", "AcceptedJob", _REPLAYED),
            **_refused(400, 408, 413, 415, 422),
        },
    }
    rows = {"type": "array", "items": _named("job"), "minItems": 1, "maxItems": settings.max_batch}
    batch = {
        "summary": "Submit many jobs",
        "description": "A JSON array, or one JSON object a line. Each job is accepted or refused for itself; "
        "if all are refused the answer is 422. After a 503 some may be in the log: send again with a `key` "
        f"in each job. At most {settings.max_batch:,} jobs and {settings.max_body:,} bytes.",
        "operationId": "submitBatch",
        "tags": ["submission"],
        "parameters": [_queue(known)],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": rows}, **{kind: {"schema": _named("job")} for kind in LINES}},
        },
        "responses": {
            "202": _answer("What became of each job, in order.", "BatchAnswer"),
            **_refused(400, 408, 413, 415, 422),
        },
    }
    return {
        "/jobs/{queue}": {"post": one},
        "/jobs/{queue}/batch": {"post": batch},
        **_artifacts(settings),
    }


def _command(it: Command) -> Json:
    names = [part[1:-1] for part in it.path.split("/") if part.startswith("{")]
    operation: Json = {
        "summary": it.summary,
        "operationId": it.id,
        "tags": [it.path.split("/")[1]],
        "parameters": [_parameter(name, "path", _PATH_WORDS[name]) for name in names],
        "responses": {
            **{str(status): _answer(words, schema) for status, (words, schema) in it.answers.items()},
            **_refused(*it.refusals),
        },
    }
    if it.description:
        operation["description"] = it.description
    if it.body:
        operation["requestBody"] = {"content": {JSON: {"schema": _named(it.body)}}}
    if "Idempotency-Key" in it.description:
        operation["parameters"] += [_IDEMPOTENCY_KEY]
    return operation


def _artifacts(settings: Settings) -> Json:
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    store = {
        "summary": "Store a file",
        "description": f"For jobs to read. The same bytes are kept once. At most {settings.max_artifact:,} "
        "bytes.",
        "operationId": "storeArtifact",
        "tags": ["artifacts"],
        "parameters": [_parameter("filename", "query", "Its name; also taken from Content-Disposition.")],
        "requestBody": {
            "required": True,
            "content": {"*/*": {"schema": file}, "multipart/form-data": {"schema": form}},
        },
        "responses": {"201": _answer("Stored.", "Artifact", _LOCATION), **_refused(400, 408, 413, 422)},
    }
    fetch = {
        "summary": "Fetch a file",
        "operationId": "fetchArtifact",
        "tags": ["artifacts"],
        "parameters": [
            _parameter("id", "path", "The artifact's id: `sha256-` and 64 hex digits."),
            _parameter("If-None-Match", "header", "The ETag of the copy that is there."),
        ],
        "responses": {
            "200": {"description": "The bytes.", "content": {"*/*": {"schema": file}}},
            "304": {"description": "The copy that is there is the same."},
            **_refused(404),
        },
    }
    return {"/artifacts": {"post": store}, "/artifacts/{id}": {"get": fetch}}


def _health() -> Json:
    def get(name: str, summary: str) -> Json:
        status = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
        fine: Json = {"description": "Yes.", "content": {JSON: {"schema": status}}}
        refused = {str(code): {"$ref": f"#/components/responses/{code}"} for code in (500, 503)}
        operation = {"summary": summary, "operationId": name, "tags": ["health"], "security": [{}]}
        return {"get": {**operation, "responses": {"200": fine, **refused}}}

    return {
        "/health/live": get("live", "Does this process turn?"),
        "/health/ready": get("ready", "Can it serve: does Redis answer, and is it set up right?"),
    }


def _schemas(known: list[Contract]) -> Json:
    """All that the writers speak of; payloads are set apart by a prefix, for their names are not ours."""
    _, ours = msgspec.json.schema_components(
        [
            Problem,
            AcceptedJob,
            BatchAnswer,
            Artifact,
            JobRequest,
            *_COMMANDED,
            *openapi_flows.SHAPES,
            *openapi_schedules.SHAPES,
            *openapi_webhooks.SHAPES,
        ],
        ref_template=_REF,
    )
    request = ours.pop("JobRequest")
    theirs: Json = {}
    jobs: Json = {}
    for contract in known:
        # One by one: two contracts may be made of Structs that share their name.
        prefix = f"payload.{contract.type}."
        (payload,), shapes = msgspec.json.schema_components(
            [contract.payload], ref_template=_REF.format(name=prefix + "{name}")
        )
        theirs |= {prefix + name: schema for name, schema in shapes.items()}
        jobs[f"job.{contract.type}"] = _job(contract, payload, request["properties"])
    mapping = {contract.type: _REF.format(name=f"job.{contract.type}") for contract in known}
    either: Json = {
        "description": "One job; `type` says which, and so what its payload is.",
        "oneOf": [{"$ref": ref} for ref in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return {**ours, **theirs, **jobs, "job": either}


def _job(contract: Contract, payload: Json, options: Json) -> Json:
    """The body that submits a job of one type, with the defaults of its contract."""
    defaults = msgspec.structs.asdict(contract.options)
    defaults["backoff"] = msgspec.structs.asdict(contract.options.backoff)
    told = {
        name: {**schema, "default": defaults[name]} if name in defaults else schema
        for name, schema in options.items()
    }
    return {
        "type": "object",
        "title": contract.type,
        "description": f"{contract.summary} Queue `{contract.queue}`.".strip(),
        "properties": {**told, "type": {"const": contract.type}, "payload": payload},
        "required": ["type", "payload"],
        "additionalProperties": False,
    }


def _refused(*statuses: int) -> Json:
    return {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted({*statuses, *_ALWAYS})
    }


def _problem(status: int) -> Json:
    answer: Json = {"description": _WHY[status], "content": {MEDIA_TYPE: {"schema": _named("Problem")}}}
    if status in (429, 503):
        answer["headers"] = _RETRY
    return answer


def _answer(words: str, schema: str, headers: Json | None = None) -> Json:
    if not schema:
        return {"description": words}
    answer: Json = {"description": words, "content": {JSON: {"schema": _named(schema)}}}
    return {**answer, "headers": headers} if headers else answer


def _named(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _parameter(name: str, place: str, words: str, schema: Json | None = None) -> Json:
    told = {"name": name, "in": place, "description": words, "schema": schema or {"type": "string"}}
    return {**told, "required": True} if place == "path" else told


def _queue(known: list[Contract]) -> Json:
    queues = sorted({contract.queue for contract in known})
    return _parameter("queue", "path", "The queue of the job's type.", {"type": "string", "enum": queues})


_IDEMPOTENCY_KEY: Final = _parameter(
    "Idempotency-Key", "header", "Submitting again with the same key answers with the first job."
)
_LOCATION: Final = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
_REPLAYED: Final = {**_LOCATION, "Idempotency-Replayed": {"schema": {"const": "true"}}}
