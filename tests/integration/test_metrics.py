"""What processes tell on /metrics: as the log says it whatever was killed, under the names of the table,
and within bounds."""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import httpx
import pytest

from apis import api_settings, running_api
from commands import Command
from floor import done, ended, floor_on
from jobs_for_tests import Echo, Flaky, Hopeless, Nap
from penstock.core import telemetry
from penstock.core.lifecycle import fold, legible
from penstock.core.probes import Distribution, Probe, Sample
from penstock.core.settings import Secret, Settings
from penstock.core.telemetry import INSTRUMENTS, Instrument
from penstock.producer.client import Handle
from penstock.projections import feed_stream
from penstock.projections.feed_events import following
from penstock.projections.feed_metrics import feed_probe
from penstock.projections.feeds import Feeds
from penstock.projections.metrics import StateProbe
from penstock.projections.rebuild import rebuild
from processes import QUEUE, Site, eventually, exit_code, producing, site_on, start_worker
from scraping import PATIENCE_S, Scrape, scraped
from servers import RealServer, free_port, listens

pytestmark = pytest.mark.timeout(180)

COUNTED: Final[dict[str, Instrument]] = {
    "submitted": telemetry.SUBMITTED,
    "started": telemetry.STARTED,
    "completed": telemetry.COMPLETED,
    "failed": telemetry.FAILED,
    "attempt_failed": telemetry.RETRIED,
    "lease_expired": telemetry.LEASE_EXPIRED,
    "released": telemetry.RELEASED,
    "cancelled": telemetry.CANCELLED,
    "requeued": telemetry.REQUEUED,
}


class Stack:
    """A worker, an API and projectors as processes of their own, each with a port for its metrics."""

    def __init__(self, penstock: Callable[..., Command], server: RealServer, namespace: str) -> None:
        self._penstock, self._server, self._namespace = penstock, server, namespace
        self.ports: Final = {name: free_port() for name in ("projector", "second", "worker", "api")}
        self.api: Final = free_port()

    def start(self, role: str, name: str = "") -> Command:
        port = self.ports[name or role]
        if role == "worker":
            return start_worker(self._penstock, self._server, self._namespace, metrics_port=port)
        return self._penstock(
            role,
            PENSTOCK_REDIS_URL=self._server.url,
            PENSTOCK_NAMESPACE=self._namespace,
            PENSTOCK_API_PORT=self.api,
            PENSTOCK_METRICS_PORT=port,
            PENSTOCK_LEASE=1,
        )

    async def scrape(self, name: str) -> Scrape:
        return await scraped(self.ports[name])

    async def settled(self, site: Site, name: str = "projector") -> Scrape:
        """What a projector tells once nothing is under way and its views have seen the whole log."""

        async def found() -> Scrape | None:
            told, submitted = await self.scrape(name), len(await site.stories())
            load, unseen = (told.value(one, queue=QUEUE) for one in (telemetry.LOAD, telemetry.UNSEEN))
            seen = told.value(telemetry.SUBMITTED, queue=QUEUE) == submitted
            return told if seen and not load and not unseen else None

        settled: Scrape = await eventually(found, PATIENCE_S, "all is over and seen", pause=0.3)
        return settled


@pytest.fixture
def stack(own_server: RealServer, namespace: str, penstock: Callable[..., Command]) -> Stack:
    return Stack(penstock, own_server, namespace)


@pytest.fixture
async def site(own_server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(own_server, namespace) as site:
        yield site


async def mixed_load(site: Site) -> None:
    """Some of everything that can happen to a job; one is left delayed."""
    async with producing(site) as producer:
        jobs = await producer.submit_many([*(Echo(number) for number in range(80)), *[Flaky(1)] * 5])
        hopeless = [await producer.submit(Hopeless()) for _ in range(3)]
        later = [await producer.submit(Echo(), delay=3600) for _ in range(2)]
        await later[0].cancel()
        running = await producer.submit(Nap(60))
        await site.until(running, "started", timeout=PATIENCE_S)
        await running.cancel()
        for job in (*jobs, *hopeless):
            await over(site, job)
        await hopeless[0].retry()
        await over(site, hopeless[0], times=2)


async def over(site: Site, job: Handle, times: int = 1) -> None:
    async def counted() -> bool:
        return sum(tag in ("completed", "failed") for tag in await site.tags(job)) == times

    await eventually(counted, PATIENCE_S, f"{job} ends")


async def said_by_the_log(site: Site) -> Counter[tuple[str, str]]:
    """How often each thing happened to jobs of each type."""
    found = Counter[tuple[str, str]]()
    for events in (await site.stories()).values():
        job = None
        for event in events:
            job = fold(job, *legible(event))
            assert job is not None
            found[event.tag, job.type] += 1
        assert job is not None
        assert job.misfits == 0
    return found


async def agrees(told: Scrape, site: Site) -> None:
    """Every counter, and the count of every histogram, says what the log says: no more, no less."""
    log = await said_by_the_log(site)
    counted = {
        (tag, sample.labels["type"]): sample.value
        for tag, counter in COUNTED.items()
        for sample in told.of(counter)
        if sample.value
    }
    assert counted == {key: count for key, count in log.items() if key[0] in COUNTED}
    for histogram, tags in (
        (telemetry.WAIT, ["started"]),
        (telemetry.RUN, ["completed", "failed", "attempt_failed"]),
        (telemetry.WHOLE, ["completed", "failed"]),
    ):
        count = sum(number for (tag, _), number in log.items() if tag in tags)
        assert told.value(histogram, "_count", queue=QUEUE) == count, histogram.name
        assert told.value(histogram, "_bucket", le="+Inf") == count, histogram.name


async def test_counters_say_what_the_log_says_whoever_is_killed(stack: Stack, site: Site) -> None:
    """Projectors and a worker are killed while jobs run, a second projector races the first, the views
    are made anew: each projector tells what the log says."""
    worker, projector = stack.start("worker"), stack.start("projector")
    load = asyncio.create_task(mixed_load(site))
    for _ in range(3):
        await stack.scrape("projector")
        projector.signal(signal.SIGKILL)
        assert await exit_code(projector) == -signal.SIGKILL
        projector = stack.start("projector")
    second = stack.start("projector", "second")
    await load

    async with producing(site) as producer:
        lost = await producer.submit(Nap(0.4))
        await site.until(lost, "started", timeout=PATIENCE_S)
        worker.signal(signal.SIGKILL)
        stack.start("worker")
        await site.until(lost, "completed", timeout=PATIENCE_S)

    told = await stack.settled(site)
    await agrees(told, site)
    assert told.value(telemetry.LEASE_EXPIRED) == 1
    assert told.value(telemetry.JOBS, state="delayed") == 1
    await agrees(await stack.settled(site, "second"), site)
    await rebuild(site.redis, site.keys)
    await agrees(await stack.settled(site), site)
    second.signal(signal.SIGKILL)


async def test_processes_tell_what_the_table_says_and_nothing_else(
    stack: Stack, site: Site, own_server: RealServer
) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory", "256mb")
    for role in ("worker", "projector", "api"):
        stack.start(role)
    async with producing(site) as producer:
        await over(site, await producer.submit(Hopeless()))
    await eventually(lambda: listens(stack.api), PATIENCE_S, "the API listens, later than its metrics")
    address = f"http://127.0.0.1:{stack.api}"
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE_S) as http:
        submitted = await http.post("/jobs/ai", json={"type": "ai.language", "payload": {"text": "Hello"}})
        assert submitted.status_code == 202, submitted.text
        assert (await http.get(f"/no/such/{submitted.json()['id']}")).status_code == 404
        assert (await http.get("/queues/test")).status_code == 200
    await stack.settled(site)
    told = [await stack.scrape(name) for name in ("worker", "projector", "api")]

    for instrument in INSTRUMENTS:
        found = [sample for scrape in told for sample in scrape.of(instrument)]
        assert found, f"nobody tells {instrument.name}"
        labels = {label.replace(".", "_") for label in instrument.labels}
        assert all(sample.labels.keys() - {"le"} == labels for sample in found), instrument.name
    documented = {it.prometheus.removesuffix("_total") for it in INSTRUMENTS}
    exported = {name for scrape in told for name in scrape.families}
    assert exported - documented == {"target_info"}
    routes = told[2].labels(telemetry.HTTP_DURATION, "http_route")
    assert routes == {"/jobs/{queue}", "/queues/{queue}", ""}, "never a path"
    assert told[1].value(telemetry.LOSS_WINDOW) == 0, "appendfsync always"


async def test_without_redis_only_that_is_told(tmp_path: Path) -> None:
    probe = StateProbe(Settings(redis_url=Secret(f"unix://{tmp_path}/none")))
    assert [(it.instrument, it.value) for it in await probe.read()] == [(telemetry.REDIS_UP, 0)]
    await probe.close()


async def test_a_port_that_is_taken_is_one_line_and_the_process_works(
    penstock: Callable[..., Command], server: RealServer, namespace: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with site_on(server, namespace) as site, producing(site) as producer:
            worker = start_worker(penstock, server, namespace, metrics_port=port)
            await over(site, await producer.submit(Echo()))
            worker.says(f"no metrics on 127.0.0.1:{port}: Address already in use\n")
            assert "Traceback" not in worker.output


async def test_a_scaler_is_told_of_the_queue_itself(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    """With no projector: what waits, is due, runs, and who is there to do it."""
    settings = api_settings(server, namespace, tmp_path)
    async with floor_on(server, namespace, "w1") as floor, running_api(settings) as http:
        await floor.put(10)
        assert await scaling(http) == {"workers": 1, "running": 0, "due": 0, "backlog": 10, "load": 10}
        taken = await floor.take(want=4)
        assert await scaling(http) == {"workers": 1, "running": 4, "due": 0, "backlog": 6, "load": 10}
        await floor.report(
            done(taken[0]), ended("attempt_failed", taken[1], 0), ended("attempt_failed", taken[2], 3_600_000)
        )
        assert await scaling(http) == {"workers": 1, "running": 1, "due": 1, "backlog": 7, "load": 8}
        await floor.control.pause(by="ada")
        assert await scaling(http) == {"workers": 1, "running": 1, "due": 1, "backlog": 0, "load": 1}
        await floor.control.resume(by="ada")
        await floor.silence("w1")
        assert await scaling(http) == {"workers": 0, "running": 1, "due": 1, "backlog": 7, "load": 8}
        told = (await http.get("/queues/test/scaling")).json()
        assert (told["backlog_per_worker"], told["drain_s"]) == (7, None)
        assert (await http.get("/queues/none/scaling")).status_code == 404


async def scaling(http: httpx.AsyncClient) -> dict[str, int]:
    answer = await http.get("/queues/test/scaling")
    assert answer.status_code == 200, answer.text
    return {name: answer.json()[name] for name in ("workers", "running", "due", "backlog", "load")}


async def test_what_no_projector_has_seen_is_told(server: RealServer, namespace: str) -> None:
    async with floor_on(server, namespace) as floor:
        probe = StateProbe(floor.site.settings)
        await floor.put(25)
        assert unseen(await probe.read()) == 25
        await probe.close()


def unseen(samples: list[Sample]) -> float:
    [sample] = [it for it in samples if it.instrument is telemetry.UNSEEN]
    assert not isinstance(sample.value, Distribution)
    return sample.value


async def test_who_follows_a_feed_is_told_and_who_did_not_keep_up(
    server: RealServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_stream, "MAX_HELD", 1_000)
    async with floor_on(server, namespace) as floor:
        feeds = Feeds(floor.site.settings)
        probe = feed_probe(feeds)
        stream = feeds.exact.stream(following("", "", "", "", ""), "")
        assert await anext(stream) == feed_stream.opening()
        waiting = asyncio.ensure_future(anext(stream))  # joined: what comes now is kept for it
        await floor.put()
        assert b"event: submitted" in await asyncio.wait_for(waiting, PATIENCE_S)
        assert await told_of_feeds(probe) == {"exact": (1, 0), "condensed": (0, 0)}

        async def dropped() -> bool:
            await floor.put(20)
            return any(outlet.dropped for outlet in feeds.exact._outlets)

        await eventually(dropped, PATIENCE_S, "it is told that it is too slow")
        async for _ in stream:
            pass
        assert await told_of_feeds(probe) == {"exact": (0, 1), "condensed": (0, 0)}
        await feeds.close()


async def told_of_feeds(probe: Probe) -> dict[str, tuple[float, float]]:
    """Clients and drops, by feed."""
    values = {(it.instrument, it.labels[0]): it.value for it in await probe()}
    found = {}
    for feed in ("exact", "condensed"):
        clients, drops = (values[one, feed] for one in (telemetry.SSE_CLIENTS, telemetry.SSE_DROPS))
        assert not isinstance(clients, Distribution)
        assert not isinstance(drops, Distribution)
        found[feed] = (clients, drops)
    return found
