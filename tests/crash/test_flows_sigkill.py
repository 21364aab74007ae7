"""Coordinators killed by SIGKILL in mid-work, two at a time, with a worker that is killed too: every node
ends exactly once, after those it waits for."""

import random
from collections.abc import Callable
from typing import Final

import pytest

from commands import Command
from flow_jobs import Sum
from flows import read_record
from jobs_for_tests import Flaky, Hopeless
from penstock.core.keys import Keys
from penstock.producer.client import Producer
from penstock.producer.flows import Flow, FlowHandle, Flows
from penstock.producer.flows.course import ENDED, position_of
from processes import dismiss, eventually, settings_for, start_worker
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

KILLS: Final = 6


def graph(chance: random.Random) -> Flow:
    """Four layers; each node waits for some of the layer before."""
    flow = Flow()
    before: list[str] = []
    for _ in range(4):
        layer = []
        for _ in range(chance.randint(2, 8)):
            after = chance.sample(before, chance.randint(0, min(3, len(before))))
            payload = chance.choice((Sum(1), Sum(2), Flaky(times=1), Hopeless()))
            layer.append(flow.add(payload, after=after, on_failure=chance.choice(("skip", "run"))))
        before = layer
    return flow


@pytest.mark.timeout(240)
async def test_killed_in_mid_work_every_node_ends_once(
    own_server: RealServer, namespace: str, penstock: Callable[..., Command]
) -> None:
    chance = random.Random(7)
    settings = settings_for(own_server, namespace)

    def coordinator() -> Command:
        command = penstock("flows", PENSTOCK_REDIS_URL=own_server.url, PENSTOCK_NAMESPACE=namespace)
        command.says("ready")
        return command

    def worker() -> Command:
        jobs = "jobs_for_tests,flow_jobs"
        return start_worker(penstock, own_server, namespace, jobs=jobs, concurrency=4)

    async def ended() -> int:
        """How many nodes have."""
        details = [await handle.detail() for handle in handles]
        return sum(node.state in ENDED for flow in details for node in flow.nodes)

    async with Producer(settings) as producer, Flows(producer) as flows:
        coordinators, working = [coordinator(), coordinator()], worker()
        handles: list[FlowHandle] = []
        for number in range(KILLS):
            handles += [await flows.submit(graph(chance)) for _ in range(10)]
            enough = await ended() + chance.randint(1, 60)

            async def in_mid_work(enough: int = enough) -> bool:
                return await ended() >= enough

            await eventually(in_mid_work, 60, "nodes end")
            coordinators.pop(0).process.kill()
            if number % 3 == 1:
                working.process.kill()
                working = worker()
            coordinators.append(coordinator())
        for handle in handles:
            await flows.wait(handle.id, 60)
        for handle in handles:
            record = await read_record(producer.redis, Keys(namespace), position_of(handle.id))
            record.check()
        await dismiss(*coordinators, working)
