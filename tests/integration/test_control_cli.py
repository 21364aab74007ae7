"""The same commands as a person types them: the real program against a real API and a real worker."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from apis import KEY, KEYS, api_settings, running_api
from commands import Command
from jobs_for_tests import Block, Echo, Gate, Hopeless
from penstock.core.settings import Settings
from penstock.producer import Producer
from processes import Site, exit_code, working
from servers import RealServer

WAIT = 30
Type = Callable[..., Any]


@pytest.fixture
def settings(make_server: Callable[..., RealServer], namespace: str, tmp_path: Path) -> Settings:
    more: dict[str, Any] = {"api_keys": KEYS, "queues": ("test",), "lease": 1.0, "concurrency": 2}
    return api_settings(make_server("redis", aof=False), namespace, tmp_path, **more)


@pytest.fixture
async def site(settings: Settings, redis: Redis) -> AsyncIterator[Site]:
    async with running_api(settings):
        yield Site(settings, redis, "test")


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    async with Producer(settings) as producer:
        yield producer


@pytest.fixture
def typed(penstock: Callable[..., Command], settings: Settings) -> Type:
    """Run `penstock WORDS`; answers its output, the exit code checked."""

    async def run(*words: str, code: int = 0) -> str:
        environ = {"PENSTOCK_API_PORT": settings.api_port, "PENSTOCK_API_KEYS": f"alice:{KEY}"}
        command = penstock(*words, **environ)
        assert await exit_code(command) == code, command.output
        return command.output

    return run


async def test_jobs_are_cancelled_and_what_came_too_late_is_a_line(
    typed: Type, producer: Producer, site: Site
) -> None:
    jobs = await producer.submit_many([Echo(1)] * 2)
    assert await typed("cancel", *(job.id for job in jobs), "--reason", "withdrawn") == "".join(
        f"{job.id}  cancelled\n" for job in jobs
    )
    assert await site.bodies(jobs[0], "cancelled") == [{"by": "alice", "reason": "withdrawn"}]
    late = await typed("cancel", jobs[0].id, code=1)
    assert late == f"penstock: {jobs[0].id} is over: cancelled\n"
    assert await typed("cancel", "test.0.1-1", code=1) == "penstock: no job test.0.1-1\n"
    third = await producer.submit(Echo(1))
    mixed = await typed("cancel", jobs[0].id, third.id, "--json", code=1)
    answer, refusal = sorted(mixed.splitlines())  # both streams in one file
    assert refusal == f"penstock: {jobs[0].id} is over: cancelled"
    assert [told["id"] for told in json.loads(answer)] == [third.id]


async def test_jobs_are_retried(typed: Type, producer: Producer, site: Site) -> None:
    failed, wrong = await producer.submit(Hopeless()), await producer.submit(Block(-1), attempts=1)
    async with working(site.settings):
        await site.until_ended(2, timeout=WAIT)
    assert await typed("retry", failed.id) == f"{failed.id}  waiting\n"
    refused = await typed("retry", wrong.id, "--payload", '{"seconds": "soon"}', code=2)
    assert refused.startswith("penstock: payload.seconds: ")
    [new] = json.loads(await typed("retry", wrong.id, "--payload", '{"seconds": 0}', "--json"))
    async with working(site.settings):
        assert await producer.handle(new["id"]).result(timeout=WAIT) == "woke"
    shown = json.loads(await typed("job", new["id"], "--json"))
    assert (shown["origin"], shown["by"]) == (wrong.id, "alice")
    assert (await typed("retry", wrong.id, "--payload", "{", code=2)).startswith(
        "penstock: the payload is not JSON"
    )


async def test_delayed_jobs_are_promoted_and_rescheduled(typed: Type, producer: Producer, site: Site) -> None:
    first, second = await producer.submit_many([Echo(1)] * 2, delay=3600)
    assert await typed("promote", first.id) == f"{first.id}  waiting\n"
    assert "waits for a worker already" in await typed("promote", first.id, code=1)
    [told] = json.loads(await typed("reschedule", second.id, "--at", "2100-01-31T09:00:00+01:00", "--json"))
    assert told["state"] == "delayed"
    assert "when due it goes before all lanes" in await typed(
        "reschedule", first.id, "--priority", "high", code=1
    )
    third = await producer.submit(Echo(1))
    assert await typed("reschedule", third.id, "--priority", "high") == f"{third.id}  waiting\n"
    assert "--delay, --at or --priority" in await typed("reschedule", first.id, code=2)
    assert "not both" in await typed("reschedule", first.id, "--delay", "1", "--at", "2h", code=2)
    assert "priority: " in await typed("reschedule", first.id, "--priority", "urgent", code=2)
    await typed("reschedule", second.id, "--delay", "0")
    async with working(site.settings):
        await site.until_ended(3, timeout=WAIT)
    await site.consistent()


async def test_queues_are_paused_limited_and_drained(typed: Type, producer: Producer, site: Site) -> None:
    assert json.loads(await typed("pause", "test", "--json")) == {
        "queue": "test",
        "changed": True,
        "paused": True,
    }
    await producer.submit_many([Echo(1)] * 3)
    assert "cancelled  3" in await typed("drain", "test")
    told = json.loads(await typed("limit", "test", "--rate", "5", "--per-group", "2", "--json"))
    assert (told["limits"]["rate"], told["limits"]["per_group"]) == (5, 2)
    assert await site.redis.hget(site.keys.control, "paused") == b"1"
    assert "paused" in await typed("resume", "test")
    assert "limits   rate 7, burst 2\n" in await typed("limit", "test", "--rate", "7", "--burst", "2")
    assert "limits   none\n" in await typed("limit", "test")
    assert "retention  failed 60 s\n" in await typed("retain", "test", "--failed", "60")
    assert not await site.redis.hexists(site.keys.control, "paused")
    assert await typed("pause", "nosuch", code=1) == "penstock: no queue 'nosuch'\n"


async def test_workers_are_listed_and_stopped(
    typed: Type, producer: Producer, site: Site, tmp_path: Path
) -> None:
    assert json.loads(await typed("workers", "--json")) == []
    async with working(site.settings) as worker:
        job = await producer.submit(Gate(str(tmp_path / "gate")))
        await site.until(job, "started")
        [found] = json.loads(await typed("workers", "--json"))
        header, row = (await typed("workers")).splitlines()
        assert header.split()[:4] == ["worker", "queues", "running", "slots"]
        assert row.split()[:4] == [found["name"], "test", "1", "2"]
        assert row.endswith(f"test.gate {job.id}")
        assert "leaving" in await typed("worker-stop", found["name"])
        (tmp_path / "gate").touch()
        await asyncio.wait_for(worker.task, WAIT)
    assert "no worker" in await typed("worker-stop", found["name"], code=1)
    await site.consistent()
