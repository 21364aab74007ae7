"""Webhook endpoints over HTTP; the caller's name stands in their ledger as the actor.

    GET    /webhooks                   all of them
    PUT    /webhooks/{endpoint}        201 made, 200 changed; a secret is shown once, when it is new
    GET    /webhooks/{endpoint}        how far the logs were read for it, too
    DELETE /webhooks/{endpoint}        204
    POST   /webhooks/{endpoint}/pause, /resume
    POST   /webhooks/{endpoint}/rotate another secret; for a day messages bear both signatures
    POST   /webhooks/{endpoint}/replay 202   sends again what happened since a time or after a position
    POST   /webhooks/{endpoint}/test   202   sends `webhook.test` now; answers the id of the job that does

Deliveries are jobs of the queue `webhooks` with the tag `endpoint:<name>`: what failed for good is listed by
GET /jobs/webhooks?state=failed, and sent again by POST /jobs/webhooks/{id}/retry.
"""

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import httpx
import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from penstock.core.contracts import QUEUE_NAME, TYPE_NAME, declaration
from penstock.core.endpoints import Endpoints, new_secret, secret_problem
from penstock.core.errors import FieldProblem, InvalidJob, Permanent, Refused
from penstock.core.jobs.webhook import ENDPOINT_NAME, DeliverWebhook
from penstock.core.positions import START, before
from penstock.core.public_web import check_url, is_public
from penstock.core.settings import Settings
from penstock.core.webhooks import (
    ALL,
    ENDS,
    EVENT_NAMES,
    Endpoint,
    WebhookPaused,
    WebhookReplayed,
    WebhookResumed,
    WebhookSet,
)
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.client import Producer
from penstock.producer.intake import LATEST_MS, JobRequest, unix_ms
from penstock.producer.reading import read_fields
from penstock.producer.routes import JSON

MAX_BODY: Final = 64 * 1024
MAX_FILTER: Final = 100
MAX_URL_CHARS: Final = 2_000
TEST_EVENT: Final = "webhook.test"
_POSITION: Final = r"^[0-9]{1,15}-[0-9]{1,20}(?![\s\S])"

_encode: Final = msgspec.json.Encoder().encode

Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_FILTER)]


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint as asked for. `events` are like `job.completed` or `queue.paused`, or `*` for all;
    `types` and `queues` narrow them down, empty: all. `secret`: `whsec_` and base64 of 24 to 64 bytes;
    without one an endpoint keeps its secret, and a new endpoint is given one."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL_CHARS)]
    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_FILTER)] = ENDS
    types: Names = ()
    queues: Names = ()
    secret: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From where: a moment (ISO 8601 with a time zone, or Unix time in ms), or the position of an event."""

    since: (
        Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None
    ) = None
    after: Annotated[str, msgspec.Meta(pattern=_POSITION)] | None = None


class EndpointView(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An endpoint. `secret` is there only when it is new; `reached`: how far each queue's log was read for
    it, as positions."""

    name: str
    url: str
    events: tuple[str, ...]
    types: tuple[str, ...]
    queues: tuple[str, ...]
    paused: bool
    changed_at: str
    by: str
    reason: str = ""
    secret: str = ""
    reached: dict[str, str] | None = None


class EndpointList(msgspec.Struct, frozen=True):
    """All endpoints, by name."""

    webhooks: list[EndpointView]


class TestSent(msgspec.Struct, frozen=True):
    """The job that sends the test."""

    job: str


def webhook_routes(producer: Producer, endpoints: Endpoints, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers of this file, for an app that puts the caller into `request.user`."""
    return [*_routes_to_set(endpoints, settings), *_routes_to_act(producer, endpoints)]


def _routes_to_set(endpoints: Endpoints, settings: Settings) -> list[HTTPRouteHandler]:
    @get("/webhooks", include_in_schema=False)
    async def list_webhooks() -> ASGIResponse:
        found = await endpoints.all()
        return _answer(EndpointList([_view(found[name]) for name in sorted(found)]))

    @get("/webhooks/{endpoint:str}", include_in_schema=False)
    async def get_webhook(endpoint: FromPath[str]) -> ASGIResponse:
        found = await endpoints.get(endpoint)
        return _answer(_view(found, reached=await endpoints.reached(found)))

    @put("/webhooks/{endpoint:str}", include_in_schema=False)
    async def set_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        told = await _read(request, EndpointRequest)
        _check(endpoint, told, settings)
        new = endpoint not in await endpoints.all()
        fact = WebhookSet(told.url, told.secret, told.events, told.types, told.queues, request.user.name)
        found, secret = await endpoints.set(endpoint, fact)
        return _answer(_view(found, secret=secret), 201 if new else 200)

    @delete("/webhooks/{endpoint:str}", status_code=204, include_in_schema=False)
    async def remove_webhook(request: AnyRequest, endpoint: FromPath[str]) -> None:
        await endpoints.remove(endpoint, by=request.user.name)

    return [list_webhooks, get_webhook, set_webhook, remove_webhook]


def _routes_to_act(producer: Producer, endpoints: Endpoints) -> list[HTTPRouteHandler]:
    @post("/webhooks/{endpoint:str}/pause", include_in_schema=False)
    async def pause_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        if not (await endpoints.get(endpoint)).paused:
            await endpoints.say(endpoint, WebhookPaused(by=request.user.name))
        return _answer(_view(await endpoints.get(endpoint)))

    @post("/webhooks/{endpoint:str}/resume", include_in_schema=False)
    async def resume_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        if (await endpoints.get(endpoint)).paused:
            await endpoints.say(endpoint, WebhookResumed(by=request.user.name))
        return _answer(_view(await endpoints.get(endpoint)))

    @post("/webhooks/{endpoint:str}/rotate", include_in_schema=False)
    async def rotate_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        known = (await endpoints.get(endpoint)).told
        told = msgspec.structs.replace(known, secret=new_secret(), by=request.user.name)
        found, secret = await endpoints.set(endpoint, told)
        return _answer(_view(found, secret=secret))

    @post("/webhooks/{endpoint:str}/replay", include_in_schema=False)
    async def replay_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        after = _after(await _read(request, Replay))
        await endpoints.say(endpoint, WebhookReplayed(after, request.user.name))
        return _answer(_view(await endpoints.get(endpoint)), 202)

    @post("/webhooks/{endpoint:str}/test", include_in_schema=False)
    async def test_webhook(request: AnyRequest, endpoint: FromPath[str]) -> ASGIResponse:
        await endpoints.get(endpoint)
        return _answer(TestSent(await _send_test(producer, endpoint, request.user.name)), 202)

    return [pause_webhook, resume_webhook, rotate_webhook, replay_webhook, test_webhook]


async def _send_test(producer: Producer, endpoint: str, by: str) -> str:
    """Submit a delivery that tells of nothing; answers the job's id."""
    contract = declaration(DeliverWebhook)
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = msgspec.Raw(_encode({"type": TEST_EVENT, "timestamp": stamp, "data": {"endpoint": endpoint}}))
    message = DeliverWebhook(endpoint=endpoint, id=f"msg_test_{secrets.token_hex(8)}", event=event)
    # Its one attempt says what is wrong: whoever tests does not want to wait for the next.
    request = JobRequest(
        type=contract.type,
        payload=msgspec.Raw(_encode(message)),
        attempts=1,
        tags=(f"endpoint:{endpoint}", "about:test"),
    )
    [answer] = await producer.accept(contract.queue, [request], by=by)
    if isinstance(answer, Refused):
        raise answer
    return answer.id


async def _read(request: AnyRequest, shape: Any) -> Any:
    media_type(request, JSON)
    return read_fields(await whole(request, MAX_BODY, "body"), shape)


def _check(name: str, told: EndpointRequest, settings: Settings) -> None:
    """Raises InvalidJob naming every wrong field."""
    problems = []
    if not re.search(ENDPOINT_NAME, name):
        problems.append(FieldProblem("endpoint", "1 to 63 of a-z, 0-9, - and _, a letter or digit first"))
    if words := _url_problem(told.url, settings.fetch_private):
        problems.append(FieldProblem("url", words))
    if told.secret and (words := secret_problem(told.secret)):
        problems.append(FieldProblem("secret", words))
    for number, event in enumerate(told.events):
        if event not in (ALL, *EVENT_NAMES):
            known = ", ".join(sorted(EVENT_NAMES))
            problems.append(FieldProblem(f"events[{number}]", f"is none of *, {known}"))
    for field, names, pattern in (("types", told.types, TYPE_NAME), ("queues", told.queues, QUEUE_NAME)):
        for number, it in enumerate(names):
            if not re.fullmatch(pattern, it):
                problems.append(FieldProblem(f"{field}[{number}]", f"{it[:100]!r} is no name of one"))
    if problems:
        raise InvalidJob(problems)


def _url_problem(text: str, allow_private: bool) -> str:
    """What can be seen of a URL; what its name resolves to is looked at whenever something is sent."""
    try:
        url = httpx.URL(text)
        check_url(url, allow_private)
    except (httpx.InvalidURL, Permanent) as error:
        return str(error)
    try:
        public = is_public(url.host)
    except ValueError:
        public = not (url.host == "localhost" or url.host.endswith(".localhost"))
    return "" if public or allow_private else f"{url.host[:100]} is no public address"


def _after(told: Replay) -> str:
    """The position after which to begin."""
    if (told.since is None) == (told.after is None):
        raise InvalidJob([FieldProblem("since", "give since or after, one of them")])
    if told.since is None:
        return told.after or START
    return before(unix_ms(told.since))


def _view(endpoint: Endpoint, *, secret: str = "", reached: dict[str, str] | None = None) -> EndpointView:
    told = endpoint.told
    moment = datetime.fromtimestamp(endpoint.changed / 1000, UTC).isoformat(timespec="milliseconds")
    return EndpointView(
        name=endpoint.name,
        url=told.url,
        events=told.events,
        types=told.types,
        queues=told.queues,
        paused=endpoint.paused,
        changed_at=moment.replace("+00:00", "Z"),
        by=told.by,
        reason=endpoint.reason,
        secret=secret,
        reached=reached,
    )


def _answer(content: Any, status: int = 200) -> ASGIResponse:
    headers = {"cache-control": "no-store"}
    return ASGIResponse(body=_encode(content), status_code=status, headers=headers, media_type=JSON)
