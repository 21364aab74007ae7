"""The server killed by SIGKILL under two workers and a producer that submits all the time.

With `appendfsync always` (I2) every job that was accepted is there afterwards and ends once (I3), and the
workers go on consuming by themselves: the field's first complaint is the one that looks alive and does not.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

from commands import Command
from jobs_for_tests import Echo, Nap
from penstock.core.errors import Unavailable
from penstock.producer.client import Handle, Producer
from processes import dismiss, producing, site_on, start_worker
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]


async def submit_until(stop: asyncio.Event, producer: Producer, handles: list[Handle]) -> int:
    """Submit until told to stop; answers how often the server was found away."""
    refused = 0
    while not stop.is_set():
        try:
            handles += await producer.submit_many([Echo(1), Nap(0.005), Echo(2)])
            handles.append(await producer.submit(Echo(3), delay=0.1))
        except Unavailable:
            refused += 1
        await asyncio.sleep(0.005)
    return refused


async def test_a_killed_server_loses_nothing_accepted_and_workers_go_on(
    penstock: Callable[..., Command], own_server: RealServer, namespace: str
) -> None:
    workers = [start_worker(penstock, own_server, namespace, concurrency=10) for _ in range(2)]
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        stop, handles = asyncio.Event(), list[Handle]()
        submitting = [asyncio.create_task(submit_until(stop, producer, handles)) for _ in range(3)]
        for _ in range(3):
            await asyncio.wait(submitting, timeout=0.7)
            own_server.restart()
        await asyncio.wait(submitting, timeout=0.7)
        stop.set()
        await asyncio.gather(*submitting)
        after = await producer.submit_many([Echo(number) for number in range(20)])
        assert [await it.result(timeout=30) for it in after] == list(range(20))
        accepted = [it.id.rsplit(".", maxsplit=1)[1] for it in [*handles, *after]]
        assert len(accepted) > 100
        await site.until_ended(len(await site.stories()), timeout=30)
        await dismiss(*workers)
        stories = await site.consistent(accepted)
        assert len(stories) == len(accepted)  # and nothing was accepted twice


async def test_workers_go_on_after_a_long_absence(
    penstock: Callable[..., Command], own_server: RealServer, namespace: str
) -> None:
    """Longer than the lease, and than the workers' patience between two tries: nobody is taken for
    dead, both consume again, within three seconds of the server's return."""
    workers = [start_worker(penstock, own_server, namespace) for _ in range(2)]
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        await (await producer.submit(Echo(0))).result(timeout=30)
        own_server.kill()
        with pytest.raises(Unavailable):
            await producer.submit(Echo(1))
        own_server.start()
        back = time.monotonic()
        handles = await producer.submit_many([Nap(0.05)] * 40)
        for handle in handles:
            assert await handle.result(timeout=30) == "rested"
        assert time.monotonic() - back < 3 + 40 * 0.05
        names = {it["worker"] for handle in handles for it in await site.bodies(handle, "started")}
        assert len(names) == 2
        await dismiss(*workers)
        await site.consistent()


async def test_a_server_that_comes_back_empty_is_worked_on(
    penstock: Callable[..., Command], make_server: Callable[..., RealServer], namespace: str
) -> None:
    """No AOF: a restart is the loss of everything, groups and scripts included."""
    server = make_server("redis", aof=False)
    worker = start_worker(penstock, server, namespace)
    async with site_on(server, namespace) as site, producing(site) as producer:
        await (await producer.submit(Echo(0))).result(timeout=30)
        server.restart()
        handles = await producer.submit_many([Echo(number) for number in range(20)])
        assert [await handle.result(timeout=30) for handle in handles] == list(range(20))
        await dismiss(worker)
        await site.consistent([it.id.rsplit(".", maxsplit=1)[1] for it in handles])


async def test_a_server_that_stalls_is_waited_for(
    penstock: Callable[..., Command], make_server: Callable[..., RealServer], namespace: str
) -> None:
    """Frozen for longer than a lease: sockets stay open and nothing answers. Nobody is to blame."""
    server = make_server("valkey")
    workers = [start_worker(penstock, server, namespace, concurrency=5) for _ in range(2)]
    async with site_on(server, namespace) as site, producing(site) as producer:
        handles = await producer.submit_many([Nap(0.1)] * 50)
        await site.until(handles[3], "completed")
        server.freeze()
        await asyncio.sleep(2.5)  # longer than the lease of the workers; there is nothing to wait for
        server.thaw()
        await site.until_ended(50, timeout=30)
        await dismiss(*workers)
        await site.consistent([it.id.rsplit(".", maxsplit=1)[1] for it in handles])
