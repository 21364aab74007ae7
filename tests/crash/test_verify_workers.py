"""Real workers, killed by SIGKILL while they work, and one look after the other: verify finds nothing at any
moment, and nothing in the end."""

import asyncio
import random
from collections.abc import Callable

import pytest

from commands import Command
from jobs_for_tests import Echo, Flaky, Hopeless, Nap
from penstock.core.control import Control
from penstock.core.events import QueueLimited
from penstock.producer.intake import Unique
from penstock.projections.projector import run_projector
from penstock.projections.replay.verify import verify
from processes import eventually, producing, site_on, start_worker
from servers import RealServer

pytestmark = pytest.mark.crash


async def test_workers_that_are_killed_leave_nothing_that_verify_finds(
    server: RealServer, namespace: str, penstock: Callable[..., Command]
) -> None:
    chance, stop = random.Random(2), asyncio.Event()
    async with site_on(server, namespace) as site, producing(site) as producer:
        await site.dispatch.open()
        projector = asyncio.create_task(run_projector(site.settings, stop=stop))
        for round in range(3):
            limits = QueueLimited(per_group=1, by="t") if round % 2 else QueueLimited(by="t")
            await Control(site.redis, site.keys).limit(limits)
            workers = [start_worker(penstock, server, namespace) for _ in range(2)]
            await producer.submit_many([Echo(1)] * 50)
            await producer.submit_many([Echo(2), Nap(0.02), Flaky(1), Hopeless()] * 5, group="ada")
            await producer.submit_many([Nap(0.5)] * 3, group="bob", delay=0.05)
            for number in range(3):
                await producer.submit(Echo(3), unique=Unique(f"u{number}"))
            assert (await verify(site.redis, site.keys)).findings == []
            chance.choice(workers).process.kill()
            assert (await verify(site.redis, site.keys)).findings == []
            for worker in workers:
                worker.process.kill()
        last = start_worker(penstock, server, namespace, crash_limit=1)

        async def quiet() -> bool:
            assert (await verify(site.redis, site.keys)).findings == []
            return not sum([await site.redis.xlen(lane) for lane in site.keys.lanes])

        await eventually(quiet, 90, "all jobs have ended", pause=0.5)
        last.end()
        stop.set()
        await asyncio.wait_for(projector, 20)
        await site.consistent()
