"""The worker of a redrive killed in mid-work again and again: no job is submitted twice, none is missed."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from commands import Command
from penstock.core.dispatch import Finished
from penstock.core.events import Submitted
from penstock.core.jobs.redrive import TYPE
from penstock.core.lifecycle import TERMINAL
from penstock.producer.intake import JobRequest
from penstock.projections.projector import run_projector
from processes import JOB, Site, dismiss, eventually, producing, site_on, start_worker
from servers import RealServer

pytestmark = pytest.mark.crash

JOBS: Final = 1_500
RATE: Final = 500
CAP: Final = 1_400  # so many are let in before the last kill: it cannot come to its end before
KILLS: Final = 3
DEAD: Final = b'{"reason":"permanent","error":"ValueError","message":"no"}'


async def fail_all(site: Site, count: int) -> list[str]:
    """Jobs that were given up; answers their ids."""
    jobs = [job for _ in range(count // 500) for job in await site.put(*[JOB] * 500)]
    await site.dispatch.beat("w", 600_000, enter=True)
    while taken := (await site.dispatch.cycle("w", 500)).deliveries:
        ends = [Finished("failed", it.lane, it.entry, it.attempt, it.job, DEAD) for it in taken]
        await site.dispatch.cycle("w", 0, finished=ends)
    return [site.keys.job_id(job) for job in jobs]


async def copies(site: Site) -> list[str]:
    """What was submitted again, by the originals' ids."""
    specs = [
        msgspec.json.decode(it.body, type=Submitted) for it in await site.events() if it.tag == "submitted"
    ]
    return [spec.origin for spec in specs if spec.origin]


@pytest.mark.timeout(120)
async def test_a_worker_that_is_killed_doubles_nothing_and_misses_nothing(
    server: RealServer, namespace: str, penstock: Callable[..., Command]
) -> None:
    chance = random.Random(11)

    def worker() -> Command:
        return start_worker(penstock, server, namespace, queues="penstock", crash_limit=100)

    async with site_on(server, namespace) as site, producing(site) as producer:
        originals = await fail_all(site, JOBS)
        stop = asyncio.Event()
        projector = asyncio.create_task(run_projector(site.settings, stop=stop))
        system = Site(site.settings, site.redis, "penstock")
        order = msgspec.Raw(msgspec.json.encode({"filter": {"queue": "test"}, "rate": RATE}))
        await producer.accept("penstock", [JobRequest(type=TYPE, payload=order)])
        await producer.limit("test", backlog=CAP)
        running = worker()
        for kill in range(KILLS):
            goal = min(CAP, len(await copies(site)) + chance.randint(1, JOBS // KILLS))

            async def reached(attempt: int = kill + 1, goal: int = goal) -> bool:
                begun = sum(event.tag == "started" for event in await system.events())
                return begun == attempt and len(await copies(site)) >= goal

            await eventually(reached, 40, f"attempt {kill + 1} has come to {goal}", pause=0.005)
            running.signal(signal.SIGKILL)
            running = worker()
        await producer.limit("test")

        async def over() -> bool:
            return any(event.tag in TERMINAL for event in await system.events())

        await eventually(over, 60, "the redrive ends", pause=0.05)
        await dismiss(running)
        tags = Counter(event.tag for event in await system.events())
        assert (tags["completed"], tags["lease_expired"]) == (1, KILLS)
        assert sorted(await copies(site)) == sorted(originals)
        stop.set()
        await projector
