"""Workers killed, frozen and cut off in mid-work, as real processes on real servers.

Each test ends with the same promise: every job ended in exactly one terminal event, and nothing is left
over in a lane, pending, due or counted.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Command
from jobs_for_tests import Echo, Gate, Hang, Lethal, Nap
from penstock.core.positions import milliseconds
from penstock.producer.client import Handle
from processes import LEASE_S, Site, dismiss, eventually, exit_code, producing, site_on, start_worker, working
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]
Penstock = Callable[..., Command]


def positions(handles: list[Handle]) -> list[str]:
    return [handle.id.rsplit(".", maxsplit=1)[1] for handle in handles]


async def started(site: Site, handles: list[Handle]) -> None:
    async def all_started() -> bool:
        jobs = await site.jobs()
        return all((job := jobs[at]) is not None and job.state == "active" for at in positions(handles))

    await eventually(all_started, 30, "all have started")


async def test_jobs_of_a_killed_worker_run_again_within_its_lease_and_a_second(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    """I4."""
    victim = start_worker(penstock, server, namespace, concurrency=20)
    async with producing(site) as producer:
        handles = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 20)
        await started(site, handles)
        heir = start_worker(penstock, server, namespace, concurrency=20)
        victim.signal(signal.SIGKILL)
        seconds, micros = await site.redis.time()
        (tmp_path / "gate").touch()
        killed = seconds * 1_000 + micros // 1_000
        await site.until_ended(20, timeout=30)
    stories = await site.consistent(positions(handles))
    for events in stories.values():
        tags = [event.tag for event in events]
        if "lease_expired" in tags:
            again = milliseconds(events[len(tags) - 2].position)
            assert again - killed <= (LEASE_S + 1) * 1_000
    assert heir.process.poll() is None
    assert any("lease_expired" in [event.tag for event in events] for events in stories.values())
    assert [it["attempt"] for it in await site.bodies(handles[0], "started")] in ([1, 1], [1])


async def test_jobs_of_a_worker_that_was_alone_run_when_another_comes(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    victim = start_worker(penstock, server, namespace, concurrency=5)
    async with producing(site) as producer:
        handles = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 5)
        await started(site, handles)
        victim.signal(signal.SIGKILL)
        await exit_code(victim)
        (tmp_path / "gate").touch()
        began = time.monotonic()
        start_worker(penstock, server, namespace)
        await site.until_ended(5, timeout=30)
    assert time.monotonic() - began < LEASE_S + 3  # with the start of a process
    await site.consistent(positions(handles))


async def test_a_job_that_kills_its_worker_is_given_up_and_others_complete(
    penstock: Penstock, site: Site, server: RealServer, namespace: str
) -> None:
    async with producing(site) as producer:
        lethal = await producer.submit(Lethal())
        others = await producer.submit_many([Echo(number) for number in range(50)])
        victims = 0
        for _ in range(6):  # a supervisor starts it again and again
            worker = start_worker(penstock, server, namespace)
            failed = asyncio.create_task(site.until(lethal, "failed", timeout=30))
            ended = asyncio.create_task(exit_code(worker))
            await asyncio.wait([failed, ended], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                break
            failed.cancel()
            assert ended.result() == -signal.SIGKILL
            victims += 1
        assert victims == 3
        body = failed.result()
        assert (body["reason"], body["error"]) == ("crashed", "WorkerLost")
        assert [await handle.result(timeout=30) for handle in others] == list(range(50))
        ended.cancel()
        await dismiss(worker)
    await site.consistent([*positions(others), *positions([lethal])])


async def test_a_frozen_worker_goes_on_under_a_new_name(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    """SIGSTOP for longer than the lease: its jobs are given to another one, and when it wakes up both
    have run them; one end is recorded, and the sleeper goes on working."""
    sleeper = start_worker(penstock, server, namespace, concurrency=5)
    async with producing(site) as producer:
        handles = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 5)
        await started(site, handles)
        names = await site.alive()
        sleeper.signal(signal.SIGSTOP)
        heir = start_worker(penstock, server, namespace, concurrency=5)
        await site.until(handles[0], "lease_expired")
        handles += await producer.submit_many([Echo(number) for number in range(20)])
        (tmp_path / "gate").touch()
        await site.until_ended(25, timeout=30)
        sleeper.signal(signal.SIGCONT)

        async def anew() -> bool:
            pid = f"-{sleeper.process.pid}-"
            return any(pid in name for name in await site.alive() - names)

        await eventually(anew, 30, "it enters under a new name")
        await dismiss(heir)
        more = await producer.submit_many([Echo(number) for number in range(20)])
        assert [await handle.result(timeout=30) for handle in more] == list(range(20))
        await dismiss(sleeper)
    await site.consistent(positions([*handles, *more]))


async def test_a_worker_frozen_while_idle_takes_nothing_with_it(
    penstock: Penstock, site: Site, server: RealServer, namespace: str
) -> None:
    """Its blocking read may be served after its name was dropped: what it was given is not lost."""
    sleeper = start_worker(penstock, server, namespace)
    heir = start_worker(penstock, server, namespace)
    async with producing(site) as producer:
        handles = []
        for _ in range(3):
            sleeper.signal(signal.SIGSTOP)
            until = time.monotonic() + LEASE_S + 1
            while time.monotonic() < until:
                handles.append(await producer.submit(Echo(1)))
                await asyncio.sleep(0.02)
            sleeper.signal(signal.SIGCONT)
        await site.until_ended(len(handles), timeout=30)
        await dismiss(sleeper, heir)
    await site.consistent(positions(handles))


async def test_cut_connections_lose_nothing_and_nothing_stays_pending(
    penstock: Penstock, site: Site, server: RealServer, namespace: str
) -> None:
    count = 5_000
    workers = [start_worker(penstock, server, namespace, concurrency=50) for _ in range(2)]
    async with producing(site) as producer:
        handles = await producer.submit_many([Nap(0.02)] * count)
        ending = asyncio.create_task(site.until_ended(count, timeout=60))
        cuts = 0
        while not ending.done():
            await _cut(server, site)
            cuts += 1
            await asyncio.wait([ending], timeout=0.05)
        await ending
    assert cuts > 5
    await dismiss(*workers)
    await site.consistent(positions(handles))


async def _cut(server: RealServer, site: Site) -> None:
    """Cut the connections of the workers, in mid-call, and not the one that looks on."""
    with server.client() as knife:
        for client in knife.client_list():
            if client["cmd"] in ("evalsha", "xreadgroup"):
                knife.execute_command("CLIENT", "KILL", "ID", client["id"])


async def test_processes_of_a_killed_worker_end_with_it(
    penstock: Penstock, site: Site, server: RealServer, namespace: str, tmp_path: Path
) -> None:
    worker = start_worker(penstock, server, namespace)
    file = tmp_path / "pid"
    async with producing(site) as producer:
        await producer.submit(Hang(str(file), seconds=60))

        async def told() -> int:
            return file.exists() and int(file.read_text() or 0)

        pid = await eventually(told, 30, "its process runs")
        worker.signal(signal.SIGKILL)

        async def gone() -> bool:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        try:
            await eventually(gone, 30, "its process is gone")
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise


async def test_flushall_under_a_running_worker(
    penstock: Penstock, own_server: RealServer, namespace: str, tmp_path: Path
) -> None:
    worker = start_worker(penstock, own_server, namespace, concurrency=5)
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        gone = await producer.submit_many([Gate(str(tmp_path / "gate"))] * 3)
        await started(site, gone)
        await site.redis.flushall()
        handles = await producer.submit_many([Echo(number) for number in range(100)])
        assert [await handle.result(timeout=30) for handle in handles] == list(range(100))
        (tmp_path / "gate").touch()
        more = await producer.submit_many([Echo(number) for number in range(100)])
        assert [await handle.result(timeout=30) for handle in more] == list(range(100))
        await dismiss(worker)
        await site.consistent(positions([*handles, *more]))


async def test_a_worker_that_was_reclaimed_while_it_worked_does_no_harm(site: Site, tmp_path: Path) -> None:
    """In one process, so that both see the same job at the same time: it runs twice and ends once."""
    async with producing(site) as producer, working(site.settings):
        handle = await producer.submit(Gate(str(tmp_path / "gate")))
        await started(site, [handle])
        (name,) = [row[2] for row in await site.pending()]
        await site.redis.zadd(site.keys.workers, {name: 1})
        await site.dispatch.reclaim(name, 1_000, 3)
        await site.until(handle, "lease_expired")
        (tmp_path / "gate").touch()
        assert await handle.result(timeout=30) == "through"
        again = await producer.submit(Echo(5))
        assert await again.result(timeout=30) == 5
    await site.consistent()
