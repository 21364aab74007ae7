"""Workers are listed with what they run, and leave when they are asked to from afar."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from apis import KEY, KEYS, api_settings, problems, running_api
from commands import Command
from jobs_for_tests import Block, Echo, Elsewhere, Gate
from penstock.core.connection import connect
from penstock.core.errors import NotFound
from penstock.core.keys import Keys
from penstock.core.workers import Worker, Workers
from processes import Site, eventually, exit_code, producing, site_on, start_worker, working
from servers import RealServer

WAIT = 15
Start = Callable[..., Command]


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace) as site:
        yield site


@pytest.fixture
def workers(site: Site) -> Workers:
    return Workers(site.redis, Keys(site.settings.namespace))


async def only(workers: Workers) -> Worker:
    """The one worker there is, as soon as it has entered."""

    async def there() -> list[Worker]:
        return await workers.roster()

    found: list[Worker] = await eventually(there, WAIT, "a worker is there")
    assert len(found) == 1
    return found[0]


async def no_worker(workers: Workers) -> None:
    async def none() -> bool:
        return not await workers.roster()

    await eventually(none, WAIT, "no worker is left")


async def test_a_worker_says_what_it_is_and_runs(
    site: Site, workers: Workers, penstock: Start, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    process = start_worker(penstock, server, namespace, concurrency=3)
    async with producing(site) as producer:
        first = await producer.submit(Gate(str(tmp_path / "gate")))
        await site.until(first, "started")
        second = await producer.submit(Gate(str(tmp_path / "gate")), priority="high")
        started = await site.until(second, "started")
        found = await only(workers)
        assert found.name == started["worker"]
        assert (found.queues, found.slots, found.running, found.leaving) == (("test",), 3, 2, False)
        assert {"test.gate", "test.echo"} <= set(found.types)
        assert (found.pid, f"-{found.pid}-" in found.name) == (process.process.pid, True)
        assert found.memory > 10 * 2**20
        assert [(job.id, job.type, job.attempt) for job in found.jobs] == [
            (first.id, "test.gate", 1),
            (second.id, "test.gate", 1),
        ]
        assert found.started_at < found.jobs[0].since <= found.jobs[1].since
        assert found.started_at < found.seen_at
        (tmp_path / "gate").touch()
        await second.result(timeout=WAIT)
        await first.result(timeout=WAIT)
    process.signal(signal.SIGTERM)
    assert await exit_code(process) == 0
    assert await workers.roster() == []
    assert await site.redis.hgetall(site.keys.facts) == {}


async def test_one_worker_of_several_queues_is_one(site: Site, workers: Workers) -> None:
    settings = msgspec.structs.replace(site.settings, queues=("test", "other"), concurrency=4)
    async with producing(site) as producer, working(settings):
        jobs = [await producer.submit(Elsewhere(0.5)), await producer.submit(Block(0.5))]

        async def both() -> bool:
            return any(worker.running == 2 for worker in await workers.roster())

        await eventually(both, WAIT, "both run")
        found = await only(workers)
        assert found.queues == ("other", "test")
        assert {job.type for job in found.jobs} == {"other.echo", "test.block"}
        for job in jobs:
            await job.result(timeout=WAIT)


async def test_a_killed_worker_is_in_the_list_until_its_lease_is_over(
    site: Site, workers: Workers, penstock: Start, server: RealServer, namespace: str
) -> None:
    dead = start_worker(penstock, server, namespace)
    name = (await only(workers)).name
    dead.signal(signal.SIGKILL)
    await exit_code(dead)
    assert [worker.name for worker in await workers.roster()] == [name]
    async with working(site.settings):

        async def reclaimed() -> bool:
            return name not in [worker.name for worker in await workers.roster()]

        await eventually(reclaimed, WAIT, "the dead one is dropped")
        assert len(await site.redis.hgetall(site.keys.facts)) == 1


async def test_a_drained_worker_finishes_what_it_runs_and_exits_0(
    site: Site, workers: Workers, penstock: Start, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    process = start_worker(penstock, server, namespace, grace=30, concurrency=1)
    async with producing(site) as producer:
        running = await producer.submit(Gate(str(tmp_path / "gate")))
        await site.until(running, "started")
        left = await producer.submit(Echo("for another"))
        name = (await only(workers)).name
        await workers.drain(name, by="ada")
        process.says("asked to leave")

        async def leaving() -> bool:
            return (await only(workers)).leaving

        await eventually(leaving, WAIT, "it says that it leaves")
        process.signal(signal.SIGTERM)  # whoever stops it too does not cut it short
        (tmp_path / "gate").touch()
        assert await running.result(timeout=WAIT) == "through"
        assert await exit_code(process) == 0
        assert await left.state() == "waiting"
        async with working(site.settings):
            assert await left.result(timeout=WAIT) == "for another"
    drained = [event.body for event in await site.events() if event.tag == "worker_drained"]
    assert drained == [b'{"worker":"%b","by":"ada"}' % name.encode()]
    assert [body["attempt"] for body in await site.bodies(running, "started")] == [1]
    assert await site.redis.hgetall(site.keys.told) == {}
    await site.consistent()


async def test_what_does_not_end_in_time_is_given_back_without_spending_an_attempt(
    site: Site, workers: Workers, penstock: Start, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    process = start_worker(penstock, server, namespace, grace=0.2)
    async with producing(site) as producer:
        job = await producer.submit(Gate(str(tmp_path / "gate")))
        await site.until(job, "started")
        await workers.drain((await only(workers)).name)
        assert await exit_code(process) == 0
        assert await job.state() == "waiting"
        (tmp_path / "gate").touch()
        async with working(site.settings):
            assert await job.result(timeout=WAIT) == "through"
    assert [body["attempt"] for body in await site.bodies(job, "started")] == [1, 1]
    await site.consistent()


async def test_asked_twice_it_is_told_once_and_nobody_else(site: Site, workers: Workers) -> None:
    async with working(site.settings) as other:
        staying = (await only(workers)).name
        async with working(site.settings) as worker:

            async def two() -> bool:
                return len(await workers.roster()) == 2

            await eventually(two, WAIT, "both are there")
            [name] = {it.name for it in await workers.roster()} - {staying}
            await asyncio.gather(*(workers.drain(name) for _ in range(5)))
            await asyncio.wait_for(worker.task, WAIT)
        assert (await only(workers)).name == staying
        assert not other.task.done()
    with pytest.raises(NotFound, match="no worker"):
        await workers.drain(name)
    await no_worker(workers)


async def test_a_worker_that_lost_its_lease_keeps_its_name(site: Site, workers: Workers) -> None:
    async with working(site.settings) as worker:
        name = (await only(workers)).name
        await site.redis.zadd(site.keys.workers, {name: 1})  # silent since 1970
        await site.dispatch.reclaim(name, 1_000, 3)

        async def back() -> bool:
            return await site.alive() == {f"{name}~2"}

        await eventually(back, WAIT, "it enters anew")
        assert (await only(workers)).name == name
        await workers.drain(name)
        await asyncio.wait_for(worker.task, WAIT)
    assert await site.redis.hgetall(site.keys.told) == {}


async def test_over_http(server: RealServer, namespace: str, tmp_path: Path) -> None:
    settings = api_settings(server, namespace, tmp_path, api_keys=KEYS, queues=("test",), concurrency=2)
    async with running_api(settings) as api, connect(settings) as redis, working(settings) as worker:
        api.headers["Authorization"] = f"Bearer {KEY}"
        found = await _listed(api)
        assert found["pid"] == os.getpid()
        assert {"name", "types", "slots", "host", "version", "started_at", "seen_at"} <= found.keys()
        answer = await api.post(f"/workers/{found['name']}/drain")
        assert (answer.status_code, answer.json()) == (202, {"name": found["name"], "leaving": True})
        await asyncio.wait_for(worker.task, WAIT)
        assert (await api.get("/workers")).json() == {"workers": []}
        assert problems(await api.post(f"/workers/{found['name']}/drain"), 404) == {}
        events = await Site(settings, redis, "test").events()
        assert [event.body for event in events] == [b'{"worker":"%b","by":"alice"}' % found["name"].encode()]


async def _listed(api: httpx.AsyncClient) -> dict[str, Any]:
    async def there() -> list[dict[str, Any]]:
        answer = await api.get("/workers")
        assert answer.status_code == 200
        rows: list[dict[str, Any]] = answer.json()["workers"]
        return rows

    rows: list[dict[str, Any]] = await eventually(there, WAIT, "the worker is listed")
    return rows[0]
