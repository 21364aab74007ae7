"""The HTTP API: all routes in one app, and the process that serves it.

    create_app   the Litestar app: submission, artifacts, queries, health, its own description
    serve_api    the app behind a server, until SIGTERM

Every request passes the gate (gate.py), but for those to health and the description; every error is
problem+json (problems.py). The app speaks plain ASGI, whichever server runs it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from litestar import Litestar, route
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from redis.asyncio import Redis

from penstock.core.artifacts import open_artifacts
from penstock.core.connection import check_server, connect
from penstock.core.endpoints import Endpoints
from penstock.core.errors import Misconfigured, Unavailable
from penstock.core.settings import Settings
from penstock.producer.artifact_routes import artifact_routes
from penstock.producer.auth import open_doors
from penstock.producer.bodies import AnyRequest
from penstock.producer.client import Producer
from penstock.producer.control_routes import control_routes
from penstock.producer.flow_routes import flow_readers, flow_writers
from penstock.producer.flows.client import Flows
from penstock.producer.metrics import buffer_probe
from penstock.producer.ratelimit import RateLimit
from penstock.producer.routes import submission_routes
from penstock.producer.schedule_routes import schedule_readers, schedule_writers
from penstock.producer.schedules.schedules import Schedules
from penstock.producer.webhook_routes import webhook_routes
from penstock.projections.exploring_routes import exploring_routes
from penstock.projections.feed_metrics import feed_probe
from penstock.projections.feed_routes import feed_routes
from penstock.projections.feeds import Feeds
from penstock.projections.queries import Queries
from penstock.projections.routes import query_routes
from penstock.ui.bulk_routes import bulk_routes
from penstock.ui.docs import OPEN, docs_routes
from penstock.ui.gate import Gate
from penstock.ui.http_metrics import Measured
from penstock.ui.jobs import load_jobs
from penstock.ui.lifeline import StopSignals
from penstock.ui.openapi import describe
from penstock.ui.problems import EXCEPTION_HANDLERS
from penstock.ui.redrive_routes import redrive_routes
from penstock.ui.serving import App, serve

if TYPE_CHECKING:
    from penstock.ui.metrics import Metrics

READY_S: Final = 2.0  # how long Redis may take to show that it is ready

_log: Final = logging.getLogger(__name__)


def create_app(settings: Settings) -> Litestar:
    """The API as an ASGI app. Opens no connection yet.

    Raises Misconfigured: a module of jobs that cannot be imported, an address others can reach without
    API keys, keys, stores or URLs that are none.
    """
    load_jobs(settings)
    doors = open_doors(settings)
    redis = connect(settings)
    producer, queries = Producer(settings, redis=redis), Queries(redis, settings)
    feeds, flows, schedules = Feeds(settings), Flows(producer), Schedules(redis, settings)
    readers = [
        *(*query_routes, *exploring_routes(redis, settings), *feed_routes(feeds)),
        *(*flow_readers(flows), *schedule_readers(schedules)),
    ]
    limit = RateLimit.of(settings, redis)
    gate = DefineMiddleware(Gate, doors=doors, limit=limit, trusted_proxies=settings.trusted_proxies)
    return Litestar(
        [
            *submission_routes(producer, settings),
            *control_routes(producer, settings),
            *bulk_routes(producer),
            *redrive_routes(producer),
            *artifact_routes(open_artifacts(settings)),
            *flow_writers(flows, settings),
            *schedule_writers(schedules, settings),
            *webhook_routes(producer, Endpoints(redis, producer.keys, producer.seals), settings),
            *readers,
            *_health_routes(redis),
            *docs_routes(lambda: describe(readers, settings)),
        ],
        dependencies={
            "queries": Provide(lambda: queries, sync_to_thread=False),
            "reveal": Provide(_may_reveal, sync_to_thread=False),
        },
        middleware=[gate],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[_life(redis, producer, queries, feeds, flows)],
        state=State({"producer": producer, "queries": queries, "feeds": feeds, "flows": flows}),
        request_max_body_size=None,  # counted where bodies are read (producer/bodies.py)
        openapi_config=None,  # ui/openapi.py describes it
        logging_config=None,
        debug=False,
    )


async def serve_api(
    settings: Settings, *, stop: asyncio.Event | None = None, metrics: "Metrics | None" = None
) -> None:
    """Serve the API until `stop` is set, or until a signal asks for it. Raises Misconfigured, OSError."""
    app = create_app(settings)
    asked = stop or StopSignals(second_exits=True).first
    leaving = asyncio.Event()

    async def leave() -> None:
        await asked.wait()
        await app.state.queries.close()  # who waits for a job's end is answered now
        await app.state.flows.close()  # and for a flow's
        app.state.feeds.end()  # and who follows a feed has seen its end
        leaving.set()

    keys = "with API keys" if settings.api_keys else "for this machine alone, without API keys"
    _log.info("API on http://%s:%d, %s, docs at /docs", settings.host, settings.api_port, keys)
    leaver = asyncio.create_task(leave())
    try:
        await serve(_measured(app, metrics), settings, leaving, port=settings.api_port)
    finally:
        leaver.cancel()


def _measured(app: Litestar, metrics: "Metrics | None") -> App:
    if metrics is None:
        return app
    metrics.probes.add(feed_probe(app.state.feeds))
    metrics.probes.add(buffer_probe(app.state.producer))
    return Measured(app, metrics)


def _may_reveal(request: AnyRequest) -> bool:
    """Whether the caller has the right to see what is sealed."""
    return bool(request.user.reveal)


def _life(
    redis: Redis, producer: Producer, queries: Queries, feeds: Feeds, flows: Flows
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def life(_: Litestar) -> AsyncIterator[None]:
        try:
            await check_server(redis)
        except Unavailable as error:
            _log.warning("%s; the API answers 503 until it does", error)
        try:
            yield
        finally:
            await queries.close()
            await feeds.close()
            await flows.close()
            await producer.close()
            await redis.aclose()

    return life


def _health_routes(redis: Redis) -> list[HTTPRouteHandler]:
    @route("/health/live", http_method=["GET", "HEAD"], opt=OPEN, include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @route("/health/ready", http_method=["GET", "HEAD"], opt=OPEN, include_in_schema=False)
    async def ready() -> dict[str, str]:
        try:
            async with asyncio.timeout(READY_S):
                await check_server(redis)
        except TimeoutError:
            raise Unavailable(f"Redis does not answer within {READY_S:g} s") from None
        except Misconfigured as error:
            raise Unavailable(str(error), retry_after=10.0) from error
        return {"status": "ok"}

    return [live, ready]
