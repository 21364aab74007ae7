"""What each process of ours runs: the one place that ties a command to its room.

Each function takes settings, sets up logging and the end with its supervisor, and returns when the
process was asked to stop. Rooms are imported inside: a process loads what it runs and no more.
"""

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.core.jobs.bulk import QUEUE as SYSTEM
from penstock.core.logs import configure_logging
from penstock.core.settings import Settings
from penstock.core.tracing import close_tracing, open_tracing
from penstock.ui.embedded import with_server
from penstock.ui.lifeline import StopSignals, end_with_parent, exit_now

if TYPE_CHECKING:
    from penstock.core.probes import Probes
    from penstock.producer.client import Producer
    from penstock.ui.metrics import Metrics

OWN_QUEUES: Final = ("email", "image", "ai")  # handled in penstock.consumers, a module for each
# How long the server goes on for those that still finish, when the supervisor is killed.
HEAD_START_S: Final = 5.0


def run_server(settings: Settings) -> None:
    """The embedded server."""
    from penstock.ui.embedded import serve_embedded

    configure_logging(settings, "server")
    end_with_parent(head_start=HEAD_START_S, patience=30.0)
    asyncio.run(serve_embedded(settings))  # not uvloop: it waits for a child process, no more


def run_api(settings: Settings) -> None:
    """The HTTP API."""
    from penstock.ui.api import serve_api

    _begin(settings, "api")
    _run_measured(settings, "api", lambda metrics: serve_api(with_server(settings), metrics=metrics))


def run_dashboard(settings: Settings, *, api: str = "") -> None:
    """The dashboard."""
    from penstock.ui.dashboard import serve_dashboard

    _begin(settings, "dashboard")
    _run_measured(settings, "dashboard", lambda metrics: serve_dashboard(settings, api=api, metrics=metrics))


def run_worker(settings: Settings) -> None:
    """A worker on `settings.queues`, all queues that have handlers here if empty."""
    _begin(settings, "worker")
    load_handlers(settings)
    _run_measured(settings, "worker", lambda metrics: _work(with_server(settings), metrics))


def run_projector(settings: Settings) -> None:
    """A projector of all queues."""
    _begin(settings, "projector")
    _run_measured(settings, "projector", lambda metrics: _project(with_server(settings), metrics))


def run_flows(settings: Settings) -> None:
    """A coordinator of flows."""
    _begin(settings, "flows")
    _run_measured(settings, "flows", lambda _: _coordinate(with_server(settings)))


def run_scheduler(settings: Settings) -> None:
    """A scheduler; the schedules of the user's own modules are set when it starts."""
    from penstock.ui.jobs import load_jobs

    _begin(settings, "scheduler")
    load_jobs(settings)
    _run_measured(settings, "scheduler", lambda _: _schedule(with_server(settings)))


def run_webhooks(settings: Settings) -> None:
    """What sends events to the webhook endpoints."""
    _begin(settings, "webhooks")
    _run_measured(settings, "webhooks", lambda metrics: _send_webhooks(with_server(settings), metrics))


def run_archiver(settings: Settings, url: str, every: float) -> None:
    """An archiver of all queues, to the archive at `url`."""
    _begin(settings, "archiver")
    _run_measured(settings, "archiver", lambda _: _archive(with_server(settings), url, every))


def leave_archive(settings: Settings, url: str) -> str:
    """Let retention go on without this archive; answers what that means, in a sentence."""
    from penstock.projections.replay.archiver import leave

    left = asyncio.run(leave(with_server(settings), url))
    return f"{left} queues were held for this archive; retention now removes what it has not got"


def run_mailcatcher(settings: Settings) -> None:
    """The mail catcher."""
    from penstock.ui.mailcatcher import serve_mailcatcher

    _begin(settings, "mailcatcher")
    _run(serve_mailcatcher(settings))


def run_up(settings: Settings, *, demo: bool) -> None:
    """All of them, supervised."""
    from penstock.ui.up import up

    asyncio.run(up(settings, demo=demo))


async def _project(settings: Settings, metrics: "Metrics | None") -> None:
    from penstock.projections.projector import run_projector as project

    if metrics is None:
        await project(settings)
        return
    from penstock.projections.metrics import StateProbe

    state = StateProbe(settings)
    metrics.probes.add(state.read)
    try:
        await project(settings)
    finally:
        await state.close()


async def _coordinate(settings: Settings) -> None:
    from penstock.producer.flows.coordinator import run_flows as coordinate

    await coordinate(settings, StopSignals(second_exits=True).first)


async def _schedule(settings: Settings) -> None:
    from penstock.producer.schedules.scheduler import run_scheduler

    await run_scheduler(settings, StopSignals(second_exits=True).first)


async def _send_webhooks(settings: Settings, metrics: "Metrics | None") -> None:
    from penstock.ui.webhooks import serve_webhooks

    await serve_webhooks(settings, StopSignals(second_exits=True).first, probes=_probes(metrics))


async def _archive(settings: Settings, url: str, every: float) -> None:
    from penstock.projections.replay.archiver import run_archiver as archive

    await archive(settings, url, every, StopSignals(second_exits=True).first)


async def _work(settings: Settings, metrics: "Metrics | None") -> None:
    from penstock.consumers.worker import run_worker
    from penstock.core.artifacts import open_artifacts
    from penstock.producer.client import Producer

    stop = StopSignals(second_exits=True)
    async with Producer(settings) as producer:
        artifacts, submitter = open_artifacts(settings), _Submitter(producer)
        all_ended = await run_worker(
            settings, stop.first, submitter=submitter, artifacts=artifacts, probes=_probes(metrics)
        )
    if not all_ended:
        close_tracing()
        exit_now(0)  # a handler's thread never returned, and Python would wait for it


class _Submitter:
    """The producer, as handlers may use it: submit, and get the id."""

    def __init__(self, producer: "Producer") -> None:
        self._producer: Final = producer

    async def submit(self, payload: msgspec.Struct, /, **options: Any) -> str:
        return (await self._producer.submit(payload, **options)).id


def load_handlers(settings: Settings) -> None:
    """Import the handlers of the queues to serve, and the user's own modules."""
    from penstock.ui.jobs import load_jobs

    load_jobs(settings)
    for queue in OWN_QUEUES:
        if not settings.queues or queue in settings.queues:
            importlib.import_module(f"penstock.consumers.{queue}")
    if not settings.queues or SYSTEM in settings.queues:
        from penstock.ui.system import enter_handlers

        enter_handlers(with_server(settings))


def _probes(metrics: "Metrics | None") -> "Probes | None":
    return metrics.probes if metrics is not None else None


def _begin(settings: Settings, role: str) -> None:
    configure_logging(settings, role)
    open_tracing(role)
    end_with_parent()


def _run_measured(
    settings: Settings, role: str, work: "Callable[[Metrics | None], Coroutine[Any, Any, None]]"
) -> None:
    """Run it, and serve its metrics beside it where a port is set for them."""
    _run(_measured(settings, role, work) if settings.metrics_port else work(None))


async def _measured(
    settings: Settings, role: str, work: "Callable[[Metrics | None], Coroutine[Any, Any, None]]"
) -> None:
    from penstock.ui.metrics import serving_metrics

    async with serving_metrics(settings, role) as metrics:
        await work(metrics)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it, on uvloop where that is installed, and send the last spans."""
    try:
        import uvloop
    except ImportError:
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    else:
        run = uvloop.run
    try:
        run(work)
    finally:
        close_tracing()
