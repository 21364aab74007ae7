"""What operators look at, on live data: a real Prometheus scrapes the real processes while they work.

Every query of every panel, every recording rule and every alert (without its threshold) has data; the
counters say what the log says, exactly; alerts fire when their cause is made and clear when it is gone.
"""

import contextlib
import json
import math
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from commands import Command
from deployment import INFRA, documents
from observatory import Prometheus, observing, program, unbound
from penstock.core import telemetry
from penstock.core.events import as_builtins
from penstock.core.telemetry import Instrument
from processes import TESTS, Site, eventually, exit_code, site_on, start_worker
from servers import RealServer, free_port
from sse import following

pytestmark = pytest.mark.timeout(240)

PATIENCE_S: Final = 60.0
RULES: Final = INFRA / "prometheus/rules"
COUNTED: Final[dict[str, Instrument]] = {
    "submitted": telemetry.SUBMITTED,
    "started": telemetry.STARTED,
    "completed": telemetry.COMPLETED,
    "failed": telemetry.FAILED,
    "attempt_failed": telemetry.RETRIED,
    "cancelled": telemetry.CANCELLED,
    "requeued": telemetry.REQUEUED,
    "lease_expired": telemetry.LEASE_EXPIRED,
    "released": telemetry.RELEASED,
}
# A minute of rules in a second: the same expressions on a shorter clock.
HURRIED: Final = {
    "30m": "7s",
    "15m": "7s",
    "5m": "5s",
    "1h": "8s",
    "6h": "9s",
    "> 300": "> 1",
    "> 900": "> 1",
}


class Stack:
    """The processes of a small installation, each with its metrics on a port that stays its own."""

    def __init__(self, penstock: Callable[..., Command], server: RealServer, namespace: str) -> None:
        self._penstock: Final = penstock
        self._server: Final = server
        self._namespace: Final = namespace
        self._api: Final = free_port()
        self.ports: Final = {name: free_port() for name in ("api", "projector", "worker", "dashboard")}
        self._running: Final[dict[str, Command]] = {}
        self.http: Final = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._api}", trust_env=False, timeout=20
        )

    def start(self, *names: str) -> None:
        """Start these processes."""
        for name in names:
            port = self.ports[name]
            if name == "worker":
                made = start_worker(self._penstock, self._server, self._namespace, metrics_port=port, lease=5)
            else:
                words = ("dashboard", "--api", str(self.http.base_url)) if name == "dashboard" else (name,)
                made = self._penstock(
                    *words,
                    PENSTOCK_REDIS_URL=self._server.url,
                    PENSTOCK_NAMESPACE=self._namespace,
                    PENSTOCK_JOBS="jobs_for_tests",
                    PENSTOCK_LEASE=5,
                    PENSTOCK_API_PORT=self._api,
                    PENSTOCK_DASHBOARD_PORT=free_port(),
                    PENSTOCK_METRICS_PORT=port,
                    PYTHONPATH=os.pathsep.join(map(str, (TESTS, TESTS.parent / "infra/src"))),
                )
            self._running[name] = made

    async def stop(self, name: str) -> None:
        """Ask a process to leave, and see it go."""
        process = self._running.pop(name)
        process.signal(signal.SIGTERM)
        assert await exit_code(process) == 0, process.output

    async def submit(self, *jobs: tuple[str, dict[str, Any], dict[str, Any]]) -> list[str]:
        """Submit jobs, each a type, a payload and options; answers their ids."""
        bodies = [{"type": type, "payload": payload, **options} for type, payload, options in jobs]
        answer = await self.http.post("/jobs/test/batch", json=bodies)
        assert answer.status_code == 202, answer.text
        return [it["id"] for it in answer.json()["items"]]

    def site(self) -> AbstractAsyncContextManager[Site]:
        """The log of the queue."""
        return site_on(self._server, self._namespace)

    async def do(self, job: str, what: str) -> None:
        """A command on a job."""
        answer = await self.http.post(f"/jobs/test/{job}/{what}")
        assert answer.is_success, answer.text


@pytest.fixture
async def stack(
    make_server: Callable[..., RealServer], namespace: str, penstock: Callable[..., Command]
) -> AsyncIterator[Stack]:
    """All of it running, on a Redis that has a limit."""
    program("prometheus")
    server = make_server("redis")
    with server.client() as client:
        client.config_set("maxmemory", "256mb")
    found = Stack(penstock, server, namespace)
    found.start("projector", "api", "dashboard", "worker")

    async def ready() -> bool:
        try:
            return (await found.http.get("/health/ready")).is_success
        except httpx.TransportError:
            return False

    await eventually(ready, PATIENCE_S, "the API is ready")
    yield found
    await found.http.aclose()


async def test_every_panel_rule_and_alert_has_data_and_counts_what_the_log_says(
    stack: Stack, tmp_path: Path
) -> None:
    async with stack.site() as site, following(stack.http, "/events"), following(stack.http, "/feed"):
        with observing(tmp_path, stack.ports, RULES) as prometheus:
            await _all_up(prometheus, stack)
            await mixed_load(stack, site)
            await _counts_agree(prometheus, site)
            await mixed_load(stack, site)  # what a rate sees must come after a first look
            await _counts_agree(prometheus, site)
            await _histograms_agree(prometheus, site)

            await until(lambda: _without_data(prometheus), [])


async def test_alerts_fire_when_their_cause_is_made_and_clear_after(stack: Stack, tmp_path: Path) -> None:
    with observing(tmp_path, stack.ports, _hurried(tmp_path)) as prometheus:

        async def fire(*wanted: tuple[str, str]) -> None:
            await until(lambda: prometheus.alerts() & set(wanted), set(wanted))

        async def clear() -> None:
            await until(prometheus.alerts, set())

        await _all_up(prometheus, stack)
        await stack.submit(*[("test.echo", {}, {})] * 5, ("test.hopeless", {}, {}))
        await clear()

        await stack.stop("worker")
        await stack.submit(*[("test.echo", {}, {})] * 50)
        await fire(
            *(("PenstockNoWorkers", "test"), ("PenstockOldestWaiting", "test")),
            *(("PenstockSlowDrain", "test"), ("PenstockTargetDown", "worker")),
        )
        stack.start("worker")
        await clear()

        await stack.submit(*[("test.hopeless", {}, {})] * 20)
        await fire(
            *(("PenstockFailuresFast", "test"), ("PenstockFailuresSlow", "test")),
            ("PenstockDeadLetters", "test"),
        )
        await clear()

        await stack.stop("projector")
        await fire(("PenstockNoProjector", ""), ("PenstockTargetDown", "projector"))
        stack.start("projector")
        await clear()


async def until(asked: Callable[[], Any], wanted: Any) -> None:
    """Wait until something is as it should be; if it never is, the test shows how it was."""

    async def there() -> bool:
        return bool(asked() == wanted)

    with contextlib.suppress(AssertionError):
        await eventually(there, PATIENCE_S, "as wanted", pause=0.2)
    assert asked() == wanted


async def mixed_load(stack: Stack, site: Site) -> None:
    """Completed, retried, failed, delayed, cancelled and requeued jobs; returns when all but two delayed
    ones have ended."""
    later = {"delay": 3600}
    jobs = await stack.submit(
        *[("test.echo", {"value": 1}, {})] * 30,
        *[("test.nap", {"seconds": 0.05}, {})] * 5,
        *[("test.flaky", {"times": 1}, {})] * 4,
        *[("test.hopeless", {}, {})] * 3,
        *[("test.echo", {}, {"delay": 0.3})] * 3,
        *[("test.echo", {}, later)] * 3,
    )
    *_, hopeless = jobs[39:42]
    await stack.do(jobs[-1], "cancel")
    for job in jobs[:-3]:
        await site.until(_position(job), "failed" if job in jobs[39:42] else "completed", timeout=PATIENCE_S)
    await stack.do(hopeless, "retry")

    async def failed_again() -> bool:
        return (await site.tags(_position(hopeless))).count("failed") == 2

    await eventually(failed_again, PATIENCE_S, "the requeued job fails again")


async def _all_up(prometheus: Prometheus, stack: Stack) -> None:
    await until(prometheus.up, dict.fromkeys(stack.ports, "up"))


async def _counts_agree(prometheus: Prometheus, site: Site) -> None:
    """Wait until each counter says of each type what the log says."""
    types: dict[str, str] = {}
    told: Counter[tuple[str, str]] = Counter()
    for event in await site.events():
        if event.tag == "submitted":
            types[event.position] = as_builtins(event)["type"]
        if event.tag in COUNTED:
            told[event.tag, types[event.job]] += 1
    happened = {tag for tag, _ in told}
    assert happened >= {"submitted", "completed", "failed", "attempt_failed", "cancelled", "requeued"}

    def counted() -> dict[tuple[str, str], float]:
        return {
            (tag, series["metric"]["type"]): float(series["value"][1])
            for tag, counter in COUNTED.items()
            for series in prometheus.query(f"max by (queue, type) ({counter.prometheus}) > 0")
        }

    await until(counted, dict(told))


async def _histograms_agree(prometheus: Prometheus, site: Site) -> None:
    """As many waits as attempts that started, as many runs as ended, as many jobs as ended."""
    told = Counter(event.tag for event in await site.events())
    for histogram, count in (
        (telemetry.WAIT, told["started"]),
        (telemetry.RUN, told["completed"] + told["failed"] + told["attempt_failed"]),
        (telemetry.WHOLE, told["completed"] + told["failed"]),
    ):
        name = f"{histogram.prometheus}_count"
        assert prometheus.value(f"sum(max by (queue, type) ({name}))") == count, histogram.name


def _without_data(prometheus: Prometheus) -> list[str]:
    """The queries that answer nothing, or nothing that is a number."""
    return [
        f"{where}: {query}"
        for where, query in _queries()
        if all(math.isnan(float(series["value"][1])) for series in prometheus.query(query))
    ]


def _queries() -> Iterator[tuple[str, str]]:
    """All that Grafana, the rules and the alerts ask, each with where it stands."""
    for file in sorted((INFRA / "grafana/dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"{file.name}, {panel['title']}", _substituted(target["expr"])
        for variable in dashboard["templating"]["list"]:
            if values := re.fullmatch(r"label_values\((.+), \w+\)", str(variable["query"])):
                yield f"{file.name}, variable {variable['name']}", _substituted(values[1])
    for group in _groups("recording.yml") + _groups("alerts.yml"):
        for rule in group["rules"]:
            if "record" in rule:
                yield "recorded", rule["record"]
            yield rule.get("record", rule.get("alert")), unbound(rule["expr"])


def _substituted(query: str) -> str:
    """A query as Grafana sends it, with everything chosen."""
    for variable, value in {
        "$__rate_interval": "1m",
        "$__range": "5m",
        "$queue": ".*",
        "$type": ".*",
    }.items():
        query = query.replace(variable, value)
    assert "$" not in query, query
    return query


def _hurried(folder: Path) -> Path:
    """A folder with the same rules on a shorter clock, so that causes and ends show within seconds."""
    hurried = folder / "rules"
    hurried.mkdir()
    for file in RULES.glob("*.yml"):
        text = re.sub(r"for: \w+", "for: 1s", file.read_text())
        for slow, quick in HURRIED.items():
            text = re.sub(rf"(?<=\[){slow}(?=\])" if slow[0] != ">" else rf"{slow}\b", quick, text)
        (hurried / file.name).write_text(text)
    return hurried


def _groups(file: str) -> list[Any]:
    found: list[Any] = documents(RULES / file)[0]["groups"]
    return found


def _position(job: str) -> str:
    return job.rsplit(".", maxsplit=1)[1]
