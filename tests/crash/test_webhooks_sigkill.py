"""`penstock webhooks` killed in mid-work again and again: nothing is lost, each event is one delivery."""

import random
import signal
from collections import Counter
from collections.abc import Callable

import pytest

from commands import Command
from hooks import endpoint, receiving
from jobs_for_tests import Echo
from penstock.core.jobs.webhook import QUEUE as WEBHOOKS
from processes import Site, dismiss, eventually, producing, site_on, working
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

JOBS = 150
KILLS = 3


def start(penstock: Callable[..., Command], server: RealServer, namespace: str) -> Command:
    command = penstock(
        "webhooks",
        PENSTOCK_REDIS_URL=server.url,
        PENSTOCK_NAMESPACE=namespace,
        PENSTOCK_FETCH_PRIVATE="true",
        PENSTOCK_LEASE=1,
        PENSTOCK_GRACE=5,
    )
    command.says("ready: events become deliveries")
    return command


async def test_a_process_that_is_killed_loses_nothing(
    server: RealServer, namespace: str, penstock: Callable[..., Command]
) -> None:
    chance = random.Random(7)
    async with site_on(server, namespace) as site, producing(site) as producer:
        queue = Site(site.settings, site.redis, WEBHOOKS)
        with receiving() as receiver:
            await endpoint(site, "crm", f"{receiver.url}/hook", "job.completed")
            async with working(site.settings):
                running = [start(penstock, server, namespace) for _ in range(2)]
                for kill in range(KILLS):
                    await producer.submit_many([Echo(number) for number in range(JOBS // KILLS)])
                    await receiver.until(kill * JOBS // KILLS + chance.randint(1, 20), timeout=30)
                    victim = running.pop(chance.randrange(2))
                    victim.signal(signal.SIGKILL)
                    running.append(start(penstock, server, namespace))

                async def all_delivered() -> bool:
                    jobs = await queue.jobs()
                    return len(jobs) == JOBS and all(
                        job and job.state == "completed" for job in jobs.values()
                    )

                await eventually(
                    all_delivered, 60, "each completed job is one delivery, completed", pause=0.2
                )
                await dismiss(*running)
            completed = {event.position for event in await site.events() if event.tag == "completed"}
            got = Counter(it.id for it in receiver.requests)
            assert set(got) == {"msg_test_0_" + it.replace("-", "_") for it in completed}
            assert len(got) == JOBS
            assert all(it.verified() for it in receiver.requests)
