"""A job is one story in any OTLP backend: who asked for it, its wait, each attempt, the views. And in
JSON logs each line of an attempt says whose it is."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any, Final

import httpx
import msgspec
import pytest

from collector import Collector, collecting
from commands import Command
from penstock.core.events import as_builtins
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.tracing import is_sampled
from penstock.producer import Producer
from penstock.producer.flows.facts import LEDGER
from processes import TESTS, Site, dismiss, exit_code, site_on, start_worker
from servers import RealServer, free_port, wait_until
from traced_jobs import InProcess, InThread, Order

CALLER: Final = "0af7651916cd43dd8448eb211c80319c"
UNSAMPLED: Final = "1af7651916cd43dd8448eb211c80319c"
SPAN: Final = "b7ad6b7169203331"
PARENT: Final = f"00-{CALLER}-{SPAN}-01"
OTHER: Final = f"00-{UNSAMPLED}-{SPAN}-00"
CARD: Final = "4111-1111-1111-1111"
QUEUE: Final = "traced"
PATHS: Final = os.pathsep.join(str(folder) for folder in (TESTS, TESTS.parent / "infra/src"))

Start = Callable[..., Command]


@pytest.fixture
def server(make_server: Callable[..., RealServer]) -> RealServer:
    return make_server("redis", aof=False)


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace, queue=QUEUE) as site:
        yield site


@pytest.fixture
def worker(penstock: Start, server: RealServer, namespace: str) -> Start:
    """Starts a worker on these jobs, with environment variables as given. One slot, so one process for
    handlers: Python itself complains in one that is still starting when its worker leaves."""

    def start(environ: dict[str, str], **settings: Any) -> Command:
        return start_worker(
            lambda *words, **ours: penstock(*words, **ours, **environ),
            *(server, namespace),
            **{"queues": QUEUE, "jobs": "traced_jobs", "grace": 10, "concurrency": 1, **settings},
        )

    return start


def serves(port: int, api: Command) -> None:
    """Wait until the API takes connections."""

    def answers() -> bool:
        assert api.process.poll() is None, api.output
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, 30, "the API serves")


async def result(producer: Producer, job_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = await producer.handle(job_id).result(timeout=30)
    return answer


def lines_of(command: Command) -> list[dict[str, Any]]:
    """Its output, each line of which must be an object."""
    lines = command.output.splitlines()
    assert not [line for line in lines if not line.startswith("{")], command.output
    return [json.loads(line) for line in lines]


def rows(lines: list[dict[str, Any]], *names: str) -> set[tuple[Any, ...]]:
    """These fields of what the handlers logged."""
    return {tuple(line[name] for name in names) for line in lines if line["logger"] == "shop.orders"}


async def test_a_job_submitted_over_http_is_one_story(
    penstock: Start, worker: Start, server: RealServer, namespace: str, site: Site
) -> None:
    port = free_port()
    with collecting() as collector:
        ours = {
            "PENSTOCK_REDIS_URL": server.url,
            "PENSTOCK_NAMESPACE": namespace,
            "PYTHONPATH": PATHS,
            "PENSTOCK_JOBS": "traced_jobs",
            "PENSTOCK_API_PORT": str(port),
            **collector.environ,
        }
        api, projector = penstock("api", **ours), penstock("projector", **ours)
        work = worker(collector.environ, log_format="json")
        projector.says("ready")
        await asyncio.to_thread(serves, port, api)
        url = f"http://127.0.0.1:{port}/jobs/{QUEUE}"
        job = {"type": "traced.order", "payload": {"card": CARD}}
        told = {"traceparent": PARENT, "tracestate": "shop=17,other=1"}
        async with httpx.AsyncClient() as client, Producer(site.settings) as producer:
            answer = await client.post(url, json=job, headers=told)
            silent = await client.post(url, json=job, headers={"traceparent": OTHER})
            job_id = answer.json()["id"]
            seen = await result(producer, job_id)
            others = [await result(producer, it) for it in seen["jobs"]]
            quiet = await result(producer, silent.json()["id"])
            [submitted] = await site.bodies(job_id.rsplit(".", maxsplit=1)[1], "submitted")
        await asyncio.to_thread(collector.until, all_of_it)
        await dismiss(work, api, projector)
    sent = assert_one_story(collector, job_id)
    assert submitted["trace"] == f"00-{CALLER}-{sent}-01 shop=17,other=1"
    assert_handlers_see_their_attempts(collector, [seen, *others])
    assert_logs_name_their_attempts(lines_of(work), job_id, seen, others)
    assert not collector.of(UNSAMPLED), "the decision of who submitted holds"
    assert quiet["trace"] == UNSAMPLED, "and its trace goes on"
    told_of = b"".join(collector.bodies)
    assert not any(secret in told_of for secret in (CARD.encode(), b"declined", b"Traceback"))


def all_of_it(collector: Collector) -> bool:
    """Whether the first job's whole story came: three submissions, and what became of them."""
    names = [span.name for span in collector.of(CALLER)]
    return [names.count(f"{it} {QUEUE}") for it in ("send", "wait", "process", "project")] == [3, 3, 4, 3]


def assert_one_story(collector: Collector, job_id: str) -> str:
    """Who asked, the wait, two attempts, the views, by parents and links; answers the sender's span."""
    sent, *found = [it for it in collector.of(CALLER) if it.attributes.get("messaging.message.id") == job_id]
    assert (sent.name, sent.kind, sent.parent) == (f"send {QUEUE}", "producer", SPAN)
    assert (sent.service, sent.state) == ("penstock-api", "shop=17,other=1")
    assert {it.parent for it in found} == {sent.id}
    one = {it.name: it for it in found}
    wait, project = one[f"wait {QUEUE}"], one[f"project {QUEUE}"]
    first, second = (it for it in found if it.name == f"process {QUEUE}")
    assert {it.service for it in (wait, first, second)} == {"penstock-worker"}
    assert project.service == "penstock-projector"
    assert wait.start <= wait.end <= first.start <= first.end <= second.start
    for number, attempt in enumerate((first, second), 1):
        assert attempt.kind == "consumer"
        assert attempt.links == [(CALLER, sent.id)]
        assert attempt.attributes["messaging.system"] == "penstock"
        assert attempt.attributes["messaging.destination.name"] == QUEUE
        assert attempt.attributes["messaging.operation.type"] == "process"
        assert attempt.attributes["penstock.job.type"] == "traced.order"
        assert attempt.attributes["penstock.job.attempt"] == number
    outcomes = [it.attributes["penstock.job.outcome"] for it in (first, second)]
    assert outcomes == ["attempt_failed", "completed"]
    assert (first.status, first.attributes["error.type"]) == ("error", "ValueError")
    assert first.attributes["penstock.job.backoff"] == 0.05
    assert second.status == "unset"
    assert "error.type" not in second.attributes
    return sent.id


def assert_handlers_see_their_attempts(collector: Collector, seen: list[dict[str, Any]]) -> None:
    """The current span is that of the attempt, in a coroutine, a thread and a process; and what a
    handler submits belongs to it."""
    assert {it["trace"] for it in seen} == {CALLER}
    spans = {it.id: it for it in collector.of(CALLER)}
    mine, *others = (spans[it["span"]] for it in seen)
    assert mine.attributes["penstock.job.attempt"] == 2
    assert [it.name for it in (mine, *others)] == [f"process {QUEUE}"] * 3
    assert [spans[it.parent].name for it in others] == [f"send {QUEUE}"] * 2
    assert [spans[it.parent].parent for it in others] == [mine.id] * 2


def assert_logs_name_their_attempts(
    lines: list[dict[str, Any]], job_id: str, seen: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    """What handlers log says which job it is about, in a coroutine, a thread and a process."""
    expected = {
        ("works in a coroutine", job_id, 2, CALLER, seen["span"]),
        ("works in a thread", seen["jobs"][0], 1, CALLER, others[0]["span"]),
        ("works in a process", seen["jobs"][1], 1, CALLER, others[1]["span"]),
    }
    assert expected <= rows(lines, "message", "job", "attempt", "trace_id", "span_id")
    assert {line["process"] for line in lines} == {"worker"}


async def test_without_traces_nothing_of_them_is_loaded_and_logs_name_the_job(
    worker: Start, site: Site
) -> None:
    work = worker({}, log_format="json")
    async with Producer(site.settings) as producer:
        jobs = await producer.submit_many([Order(CARD), InThread(), InProcess()])
        seen = [await job.result(timeout=30) for job in jobs]
    await dismiss(work)
    assert [it["loaded"] for it in seen] == [False] * 3
    lines = lines_of(work)
    assert not any("trace_id" in line for line in lines)
    assert rows(lines, "message", "job", "attempt", "level") >= {
        ("works in a coroutine", jobs[0].id, 2, "info"),
        ("works in a thread", jobs[1].id, 1, "info"),
        ("works in a process", jobs[2].id, 1, "info"),
    }
    assert not any("job" in line for line in lines if line["message"].startswith("ready"))
    assert all({"time", "level", "logger", "process", "message"} <= line.keys() for line in lines)


async def test_the_last_spans_are_sent_when_a_worker_is_told_to_leave(worker: Start, site: Site) -> None:
    with collecting() as collector:
        never = {**collector.environ, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        work = worker(never)
        async with Producer(site.settings) as producer:
            job = await producer.submit(InThread())
            await job.result(timeout=30)
        work.signal(signal.SIGTERM)
        assert await exit_code(work) == 0
        ids = [it.attributes["messaging.message.id"] for it in collector.spans if it.name.startswith("proc")]
    assert ids == [job.id]


async def test_a_worker_works_and_leaves_though_nobody_takes_its_spans(worker: Start, site: Site) -> None:
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    work = worker({**nobody, "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_SERVICE_NAME": "mine"})
    async with Producer(site.settings) as producer:
        job = await producer.submit(InThread())
        assert (await job.result(timeout=30))["loaded"] is True
    work.signal(signal.SIGTERM)
    assert await exit_code(work, 30) == 0


async def test_a_program_with_traces_of_its_own_sends_its_context(
    server: RealServer, namespace: str, site: Site
) -> None:
    environ = {**os.environ, "PENSTOCK_REDIS_URL": server.url, "PENSTOCK_NAMESPACE": namespace}
    program = [sys.executable, str(TESTS / "traced_caller.py")]
    ran = await asyncio.to_thread(
        subprocess.run, program, env={**environ, "PYTHONPATH": PATHS}, capture_output=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for span in told["spans"]:
        by_name.setdefault(span["name"], []).append(span)
    [checkout], [refund], [flow] = by_name["checkout"], by_name["refund"], by_name["send flow"]
    one, many, late = by_name[f"send {QUEUE}"]
    assert [it["parent"] for it in (one, many, flow)] == [checkout["id"]] * 3
    assert late["parent"] == refund["id"], "also from code that is not async"
    first, second, third, flow_id, last = told["ids"]
    ids = [it["attributes"].get("messaging.message.id") for it in (one, many, flow, late)]
    assert ids == [first, None, flow_id, last]
    assert many["attributes"]["messaging.batch.message_count"] == 2
    ledger = Log(site.redis, Keys(namespace).ledger(LEDGER))
    traces = {f"{QUEUE}.0.{it.position}": as_builtins(it)["trace"] for it in await site.events()}
    traces |= {f"flow.{it.position}": as_builtins(it)["trace"] for it in await ledger.page("0-0")}
    assert all(is_sampled(trace) for trace in traces.values())
    owners = {first: one, second: many, third: many, flow_id: flow, last: late}
    assert {job: trace[:-3] for job, trace in traces.items()} == {
        job: f"00-{it['trace']}-{it['id']}" for job, it in owners.items()
    }


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([("traceparent", OTHER)], OTHER),
        (
            [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")],
            f"{PARENT} a=1,b=2",
        ),
        (
            [("traceparent", PARENT), ("tracestate", "a=" + "1" * 600)],
            f"00-{CALLER}-{SPAN}-01",
        ),
        ([("traceparent", f"00-{'0' * 32}-{SPAN}-01")], ""),
        ([("traceparent", "mine"), ("tracestate", "a=1")], ""),
        ([("tracestate", "a=1")], ""),
    ],
    ids=["unsampled", "state in two headers", "state too long", "no trace", "no traceparent", "state alone"],
)
async def test_what_an_api_without_traces_is_told_goes_along(
    api: httpx.AsyncClient, site: Site, headers: list[tuple[str, str]], kept: str
) -> None:
    job = msgspec.json.encode({"type": "traced.order", "payload": {"card": CARD}})
    answer = await api.post(
        f"/jobs/{QUEUE}", content=job, headers=[*headers, ("content-type", "application/json")]
    )
    assert answer.status_code == 202, answer.text
    [event] = await site.events()
    assert as_builtins(event).get("trace", "") == kept
