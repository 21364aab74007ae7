"""`penstock up`: which processes, on which ports, and what a person is told.

Started: the server (unless PENSTOCK_REDIS_URL names one), then all others at once. Stopped: the
dashboard and the API first, so that nothing new comes in, then the workers, then the projector, the
flows, the scheduler, the webhooks and (where PENSTOCK_ARCHIVE_URL names an archive) the archiver, then the
mail catcher and the server.
"""

import asyncio
import fcntl
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import msgspec

from penstock.core.contracts import contracts
from penstock.core.errors import Misconfigured, PenstockError
from penstock.core.jobs.bulk import QUEUE as SYSTEM
from penstock.core.jobs.webhook import QUEUE as WEBHOOKS
from penstock.core.settings import Settings
from penstock.ui.child import Spec
from penstock.ui.console import Lines
from penstock.ui.demo import run_demo
from penstock.ui.embedded import folder_free, server_answers, with_server
from penstock.ui.jobs import load_jobs
from penstock.ui.lifeline import StopSignals
from penstock.ui.mailcatcher import LOOPBACK
from penstock.ui.ports import check_port
from penstock.ui.processes import OWN_QUEUES
from penstock.ui.remote import api_url, reachable_host, url_of
from penstock.ui.supervisor import Supervisor

SERVER, MAIL, PROJECTOR, WORKER, API, DASHBOARD = range(6)  # stages: stopped from the last to the first
METRICS_PORT: Final = 9100
_MEASURED: Final = (
    *("api", *(f"worker-{queue}" for queue in OWN_QUEUES)),
    *("projector", "dashboard", "scheduler", "flows", "webhooks"),
)
MARGIN_S: Final = 10.0  # what a process may take beside its grace time


async def up(settings: Settings, *, demo: bool) -> None:
    """Run everything until SIGINT or SIGTERM. Raises Misconfigured or StartFailed."""
    stop = StopSignals()
    load_jobs(settings)
    with _only_one(settings):
        if not settings.redis_url:
            await folder_free(settings)
        check_ports(settings)
        processes = specs(settings)
        lines = Lines([spec.name for spec in processes])
        supervisor = Supervisor(processes, lines, _environment(settings))
        try:
            await _unless(stop.first, _life(supervisor, settings, lines, demo=demo))
        finally:
            lines.say("stopping; a second Ctrl-C stops at once")
            await supervisor.stop(stop.second)
            lines.say("stopped")


def specs(settings: Settings) -> list[Spec]:
    """The processes of this configuration, each with a port for its metrics."""
    return [_measured(spec, settings) for spec in _processes(settings)]


def metrics_ports(settings: Settings) -> dict[str, int]:
    """The port of each process that has metrics, by the process's name: one after the other; none if
    PENSTOCK_METRICS_PORT is 0."""
    first = METRICS_PORT if settings.metrics_port is None else settings.metrics_port
    names = [*_MEASURED, *(["archiver"] if settings.archive_url else [])]
    names += [name for name, _ in _workers(settings) if name not in _MEASURED]
    return {name: first + number for number, name in enumerate(names)} if first else {}


def _measured(spec: Spec, settings: Settings) -> Spec:
    port = metrics_ports(settings).get(spec.name, 0)
    return msgspec.structs.replace(spec, environ={"PENSTOCK_METRICS_PORT": str(port)})


def _processes(settings: Settings) -> list[Spec]:
    found = []
    if not settings.redis_url:
        ready = _server_ready(settings)
        found.append(_spec("server", "server", stage=SERVER, grace=60.0, ready=ready, gentle=True))
    if not settings.smtp_host:
        ready = _listens(LOOPBACK, settings.mail_web_port)
        found.append(_spec("mailcatcher", "mailcatcher", stage=MAIL, grace=MARGIN_S, ready=ready))
    found.append(_spec("projector", "projector", stage=PROJECTOR, grace=settings.grace + MARGIN_S))
    found.append(_spec("flows", "flows", stage=PROJECTOR, grace=settings.grace + MARGIN_S))
    found.append(_spec("scheduler", "scheduler", stage=PROJECTOR, grace=settings.grace + MARGIN_S))
    found.append(_spec("webhooks", "webhooks", stage=PROJECTOR, grace=settings.grace + MARGIN_S))
    if settings.archive_url:
        found.append(_spec("archiver", "archiver", stage=PROJECTOR, grace=settings.grace + MARGIN_S))
    for name, queues in _workers(settings):
        command = ("worker", "--queues", ",".join(queues))
        found.append(_spec(name, *command, stage=WORKER, grace=settings.grace + MARGIN_S))
    ready = _healthy(settings)
    found.append(_spec("api", "api", stage=API, grace=settings.grace + MARGIN_S, ready=ready))
    ready = _listens(reachable_host(settings), settings.dashboard_port)
    found.append(_spec("dashboard", "dashboard", stage=DASHBOARD, grace=MARGIN_S, ready=ready))
    return found


def check_ports(settings: Settings) -> None:
    """Raises Misconfigured naming the first port that is taken, what it is for and the way out."""
    wanted = [
        (settings.host, settings.api_port, "the API", "PENSTOCK_API_PORT"),
        (settings.host, settings.dashboard_port, "the dashboard", "PENSTOCK_DASHBOARD_PORT"),
    ]
    if not settings.smtp_host:
        wanted += [
            (LOOPBACK, settings.mail_port, "the mail catcher's SMTP", "PENSTOCK_MAIL_PORT"),
            (LOOPBACK, settings.mail_web_port, "the mail catcher's page", "PENSTOCK_MAIL_WEB_PORT"),
        ]
    if settings.metrics_port is not None:  # of ports that nobody asked for, a process says so itself
        wanted += [
            (settings.host, port, f"the metrics of {name}", "PENSTOCK_METRICS_PORT")
            for name, port in metrics_ports(settings).items()
        ]
    for host, port, purpose, variable in wanted:
        check_port(host, port, purpose, variable, _other(settings, variable, port))


def _other(settings: Settings, variable: str, port: int) -> str:
    """What to set instead of a port that is taken."""
    if variable != "PENSTOCK_METRICS_PORT":
        return str(port + 1)
    return f"{max(metrics_ports(settings).values()) + 1} (the first of a row, or 0 for none)"


async def _life(supervisor: Supervisor, settings: Settings, lines: Lines, *, demo: bool) -> None:
    began = time.monotonic()
    await supervisor.start()
    lines.say(f"ready in {time.monotonic() - began:.1f} s")
    for line in _addresses(settings):
        lines.say(line)
    if demo:
        try:
            await run_demo(settings, lines.console)
        except (PenstockError, httpx.HTTPError) as error:
            lines.say(f"the demo did not end well: {error}")
    lines.say("running; Ctrl-C stops")
    await supervisor.failure()


def _addresses(settings: Settings) -> list[str]:
    found = [
        f"  dashboard    {url_of(settings, settings.dashboard_port)}",
        f"  API          {api_url(settings)}   docs: {api_url(settings)}/docs",
    ]
    if not settings.smtp_host:
        page = f"http://{LOOPBACK}:{settings.mail_web_port}"
        found.append(f"  caught mail  {page}   SMTP: {LOOPBACK}:{settings.mail_port}")
    if ports := metrics_ports(settings):
        last = f":{max(ports.values())}/metrics"
        found.append(f"  metrics      {url_of(settings, min(ports.values()))}/metrics ... {last}")
    found.append(f"  data         {settings.data_dir.absolute()}")
    return found


def _spec(name: str, *command: str, stage: int, grace: float, **options: Any) -> Spec:
    program = (sys.executable, "-P", "-m", "penstock.ui", *command)
    return Spec(name=name, command=program, stage=stage, grace=grace, **options)


def _workers(settings: Settings) -> list[tuple[str, tuple[str, ...]]]:
    """One for each room of handlers we bring, one for operations on many jobs, and one for the queues
    of the user's own jobs."""
    own = tuple(sorted({contract.queue for contract in contracts()} - {*OWN_QUEUES, WEBHOOKS, SYSTEM}))
    found: list[tuple[str, tuple[str, ...]]] = [
        (f"worker-{queue}", (queue,)) for queue in (*OWN_QUEUES, SYSTEM)
    ]
    return [*found, ("worker-jobs", own)] if own else found


def _environment(settings: Settings) -> dict[str, str]:
    """What children read their settings from: ours, and what was given as options or chosen here."""
    chosen = {
        "PENSTOCK_REDIS_URL": with_server(settings).redis_url.reveal(),
        "PENSTOCK_JOBS": ",".join(settings.jobs),
    }
    return {**os.environ, **chosen}


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.data_dir / "up.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured(
                f"`penstock up` already runs on {settings.data_dir.absolute()}: stop it, "
                "or give this one its own folder with PENSTOCK_DATA_DIR (and other ports)"
            ) from None
        yield


async def _unless(asked: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it ends or `asked` is set."""
    task, waiting = asyncio.ensure_future(work), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listens(host: str, port: int) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    return asked


def _server_ready(settings: Settings) -> Callable[[], Awaitable[bool]]:
    return lambda: server_answers(settings)


def _healthy(settings: Settings) -> Callable[[], Awaitable[bool]]:
    listens = _listens(reachable_host(settings), settings.api_port)

    async def asked() -> bool:
        if not await listens():  # much cheaper than an HTTP client, while the API still starts
            return False
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"{api_url(settings)}/health/ready", timeout=5.0)
        except httpx.HTTPError:
            return False
        return answer.is_success

    return asked
