"""Flows as users meet them: real workers, a real coordinator, a real server."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flow_jobs import Gather, GatherApart, Sum
from flows import read_record
from jobs_for_tests import Echo, Elsewhere, Gate, Hopeless, Large, Nap
from penstock.core.control import Control
from penstock.core.errors import InvalidJob, JobFailed, NotFound
from penstock.core.events import QueueLimited, as_builtins
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.settings import Secret
from penstock.producer.client import Producer
from penstock.producer.flows import Flow, FlowDetail, FlowHandle, Flows, batch, chain
from penstock.producer.flows.board import Board
from penstock.producer.flows.coordinator import Coordinator, run_flows
from penstock.producer.flows.course import position_of
from penstock.producer.flows.facts import LEDGER
from processes import Site, eventually, settings_for, site_on, working
from servers import RealServer

QUEUES = ("test", "other")


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace, queues=QUEUES) as site:
        yield site


@pytest.fixture
async def flows(producer: Producer) -> AsyncIterator[Flows]:
    async with Flows(producer) as flows:
        yield flows


@asynccontextmanager
async def coordinating(site: Site) -> AsyncIterator[None]:
    """A coordinator while the block runs."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_flows(site.settings, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def at_work(site: Site) -> AsyncIterator[None]:
    """A coordinator and a worker while the block runs."""
    async with coordinating(site), working(site.settings):
        yield


async def until_node(handle: FlowHandle, name: str, state: str) -> None:
    async def reached() -> bool:
        return {node.name: node.state for node in (await handle.detail()).nodes}[name] == state

    await eventually(reached, 30, f"{name} is {state}")


def states(flow: FlowDetail) -> dict[str, str]:
    return {node.name: node.state for node in flow.nodes}


async def test_a_chain_hands_results_on(site: Site, flows: Flows) -> None:
    async with at_work(site):
        handle = await flows.submit(chain(Sum(1), [Sum(10), Sum(20)], Sum(100)), by="ada")
        assert await handle.result(timeout=30) == {"sum-4": 132}
    flow = await handle.detail()
    assert (flow.state, flow.progress, flow.counts, flow.by) == ("completed", 1.0, {"completed": 4}, "ada")
    assert flow.ended_at is not None
    assert flow.submitted_at <= flow.ended_at
    record = await read_record(site.redis, Keys(site.settings.namespace), position_of(handle.id))
    assert record.course.misfits == 0


@pytest.mark.parametrize("last", [Gather(), GatherApart()], ids=["coroutine", "process"])
async def test_a_callback_runs_when_all_have_ended_and_learns_how(
    site: Site, flows: Flows, last: msgspec.Struct
) -> None:
    async with at_work(site):
        handle = await flows.submit(batch([Echo({"page": 1}), Hopeless(), Echo([2])], then=last))
        flow = await flows.wait(handle.id, 20)
    assert flow.state == "failed"
    told = (await flows.results(handle.id)).popitem()[1]
    assert told["needs"] == {"echo": {"page": 1}, "echo-2": [2]}
    assert told["unmet"] == {"hopeless": "failed: Permanent: there is no such thing"}
    with pytest.raises(JobFailed, match="hopeless failed: Permanent: there is no such thing"):
        await handle.result()


async def test_what_waits_for_a_failure_is_skipped(site: Site, flows: Flows) -> None:
    async with at_work(site):
        handle = await flows.submit(chain(Hopeless(), Echo(1), Echo(2)))
        flow = await flows.wait(handle.id, 10)
    assert states(flow) == {"hopeless": "failed", "echo": "skipped", "echo-2": "skipped"}
    assert {node.name: node.why for node in flow.nodes if node.state == "skipped"} == {
        "echo": "hopeless failed",
        "echo-2": "echo skipped",
    }
    assert [node.job for node in flow.nodes][1:] == ["", ""]


async def test_a_flow_can_be_read_at_once_and_needs_no_coordinator_for_that(flows: Flows) -> None:
    handle = await flows.submit(chain(Echo(1), Echo(2), name="two"))
    flow = await handle.detail()
    assert (flow.id, flow.name, flow.state) == (handle.id, "two", "active")
    assert states(flow) == {"echo": "waiting", "echo-2": "waiting"}
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.05)


async def test_what_is_wrong_is_refused_before_anything_is_written(site: Site, flows: Flows) -> None:
    flow = Flow()
    flow.add(Echo(1), after=["nobody"])
    with pytest.raises(InvalidJob, match="no node 'nobody'"):
        await flows.submit(flow)
    assert await site.redis.exists(Keys(site.settings.namespace).ledger(LEDGER).log) == 0
    for wrong in ("flow.1-0", "flow.x", "test.0.1-0"):
        with pytest.raises(NotFound):
            await flows.get(wrong)


async def test_a_key_stands_for_the_first_flow(flows: Flows) -> None:
    first = await flows.submit(chain(Echo(1)), key="once")
    again = await flows.submit(chain(Echo(1)), key="once")
    other = await flows.submit(chain(Echo(1)))
    assert first.id == again.id != other.id
    assert [flow.id for flow in (await flows.list()).flows] == [other.id, first.id]


async def test_cancelling_ends_what_runs_and_submits_no_more(
    site: Site, flows: Flows, tmp_path: Path
) -> None:
    async with at_work(site):
        flow = Flow()
        first = flow.add(Gate(str(tmp_path / "gate")))
        delayed = flow.add(Echo(0), delay=3600, name="delayed")
        flow.add(Echo(1), after=[first], on_failure="run", name="never")
        handle = await flows.submit(flow)
        await until_node(handle, first, "submitted")
        await until_node(handle, delayed, "submitted")
        assert await handle.cancel(by="bob", reason="enough") is True
        ended = await flows.wait(handle.id, 10)
        assert await handle.cancel(by="eve") is False
    assert (ended.state, ended.cancelled) == ("cancelled", True)
    assert set(states(ended).values()) == {"cancelled"}
    jobs = {node.name: node.job for node in ended.nodes}
    assert jobs["never"] == ""
    story = await site.story(jobs[first].split(".", 2)[2])
    assert as_builtins(story[-1]) == {"by": "bob", "reason": "its flow was cancelled"}
    with pytest.raises(JobFailed, match="cancelled"):
        await handle.result()


async def test_a_flow_cancelled_before_it_began_submits_nothing(site: Site, flows: Flows) -> None:
    handle = await flows.submit(chain(Echo(1), Echo(2)))
    assert await handle.cancel()
    async with coordinating(site):
        flow = await flows.wait(handle.id, 10)
    assert states(flow) == {"echo": "cancelled", "echo-2": "cancelled"}
    assert await site.redis.exists(site.keys.log) == 0


async def test_a_delay_counts_from_when_the_node_is_submitted(site: Site, flows: Flows) -> None:
    flow = Flow()
    first = flow.add(Nap(0.2))
    flow.add(Echo("late"), after=[first], delay=0.3)
    async with at_work(site):
        began = time.monotonic()
        handle = await flows.submit(flow)
        assert await handle.result(timeout=30) == {"echo": "late"}
        assert time.monotonic() - began > 0.5


async def test_results_too_large_to_hand_over_are_said(site: Site, flows: Flows, producer: Producer) -> None:
    async with at_work(site):
        handle = await flows.submit(batch([Large(250_000) for _ in range(5)], then=Gather()))
        flow = await flows.wait(handle.id, 20)
    [last] = [node for node in flow.nodes if node.name == "gather"]
    assert (last.state, last.job) == ("failed", "")
    assert "make large ones artifacts" in last.why


async def test_a_full_queue_holds_up_nobody_else(site: Site, flows: Flows, producer: Producer) -> None:
    keys = Keys(site.settings.namespace)
    await producer.submit(Elsewhere(0), delay=3600)
    await Control(site.redis, keys.partition("other")).limit(QueueLimited(backlog=1))
    async with at_work(site):
        full = await flows.submit(chain(Echo(1), Elsewhere(0)))
        await until_node(full, "echo-2", "called")
        free = await flows.submit(chain(Echo(1), Echo(2)))
        assert await free.result(timeout=30) == {"echo-2": 2}
        await Control(site.redis, keys.partition("other")).limit(QueueLimited())
        assert await full.result(timeout=30) == {"echo-2": None}


async def test_a_job_whose_log_is_gone_ends_its_node(site: Site, flows: Flows) -> None:
    handle = await flows.submit(chain(Echo(1), Echo(2)))
    async with coordinating(site):
        await until_node(handle, "echo", "submitted")
    await site.redis.delete(site.keys.log)
    async with coordinating(site):
        flow = await flows.wait(handle.id, 10)
    assert states(flow) == {"echo": "failed", "echo-2": "skipped"}
    assert flow.nodes[0].why.startswith("lost")


async def test_a_job_that_was_cancelled_by_itself_ends_its_node(site: Site, flows: Flows) -> None:
    async with coordinating(site):
        handle = await flows.submit(chain(Echo(1), Echo(2)))
        await until_node(handle, "echo", "submitted")
        job = (await handle.detail()).nodes[0].job
        async with Producer(site.settings) as producer:
            await producer.commands.cancel(job, by="bob", reason="not this one")
        flow = await flows.wait(handle.id, 10)
    assert states(flow) == {"echo": "cancelled", "echo-2": "skipped"}
    assert (flow.state, flow.nodes[0].why) == ("failed", "not this one")


async def test_flows_are_listed_newest_first_by_page_and_state(site: Site, flows: Flows) -> None:
    done = [await flows.submit(chain(Echo(number))) for number in range(3)]
    async with at_work(site):
        for handle in done:
            await handle.result(timeout=30)
    fresh = await flows.submit(chain(Echo(9)))
    newest = [fresh.id, *(handle.id for handle in reversed(done))]
    assert [flow.id for flow in (await flows.list()).flows] == newest
    page = await flows.list(limit=2)
    assert [flow.id for flow in page.flows] == newest[:2]
    assert page.next == newest[1]
    rest = await flows.list(before=page.next)
    assert ([flow.id for flow in rest.flows], rest.next) == (newest[2:], None)
    assert [flow.id for flow in (await flows.list(state="active")).flows] == [fresh.id]
    assert len((await flows.list(state="completed")).flows) == 3


async def test_what_is_sealed_stays_sealed_on_its_way(server: RealServer, namespace: str) -> None:
    keys = Secret(base64.b64encode(bytes(range(32))).decode())
    async with (
        site_on(server, namespace, queues=QUEUES, payload_keys=keys) as site,
        at_work(site),
        Producer(site.settings) as producer,
        Flows(producer) as flows,
    ):
        handle = await flows.submit(batch([Echo("secret"), Hopeless()], then=Gather()))
        assert (await flows.wait(handle.id, 10)).state == "failed"
        told = await flows.results(handle.id)
        ledger = await site.redis.xrange(Keys(namespace).ledger(LEDGER).log)
        log = await site.redis.xrange(site.keys.log)
    assert told == {"gather": {"needs": {"echo": "secret"}, "unmet": {"hopeless": "failed: Permanent"}}}
    assert b"secret" not in msgspec.json.encode([str(entry) for entry in ledger + log])
    assert b"sealed:" in msgspec.json.encode([str(entry) for entry in ledger])


async def test_what_ended_long_ago_is_forgotten_and_cut(site: Site, flows: Flows) -> None:
    settings = msgspec.structs.replace(site.settings, flow_retention=0.001)
    ledger = Keys(settings.namespace).ledger(LEDGER)
    async with at_work(site):
        old = [await flows.submit(chain(Echo(number))) for number in range(5)]
        for handle in old:
            await handle.result(timeout=30)
    waiting = await flows.submit(chain(Echo(6)))
    before = await site.redis.xlen(ledger.log)
    stop = asyncio.Event()
    task = asyncio.create_task(run_flows(settings, stop))

    async def cut() -> bool:
        return bool(await site.redis.xlen(ledger.log) < before)

    await eventually(cut, 30, "the ledger is cut")
    stop.set()
    await task
    events = await Log(site.redis, ledger).page("0-0")
    assert events[0].position == position_of(waiting.id)
    with pytest.raises(NotFound):
        async with Flows(Producer(settings, redis=site.redis)) as others:
            await others.get(old[0].id)
    assert (await flows.get(waiting.id)).state == "active"
    fresh = await flows.list()
    assert waiting.id in [flow.id for flow in fresh.flows]


async def test_a_board_whose_ledger_was_lost_begins_anew(site: Site, flows: Flows) -> None:
    gone = await flows.submit(chain(Echo(1)))
    await flows.list()
    await site.redis.delete(Keys(site.settings.namespace).ledger(LEDGER).log)
    fresh = await flows.submit(chain(Echo(2)))
    assert [flow.id for flow in (await flows.list()).flows] == [fresh.id]
    with pytest.raises(NotFound):
        await flows.get(gone.id)


async def test_a_board_of_one_flow_reads_no_more_than_it_must(site: Site, producer: Producer) -> None:
    async with Flows(producer) as flows:
        ids = [(await flows.submit(chain(Echo(number)))).id for number in range(5)]
    keys = Keys(site.settings.namespace).ledger(LEDGER)
    board = Board(site.redis, keys, keep_s=60)
    assert await board.catch_up(since=position_of(ids[3])) == {position_of(id) for id in ids[3:]}
    assert await board.catch_up(since=position_of(ids[4])) == set()
    await board.catch_up(since=position_of(ids[1]))
    assert list(board.flows) == [position_of(id) for id in ids[1:]]


async def test_the_server_comes_back_and_flows_go_on(own_server: RealServer, namespace: str) -> None:
    settings = settings_for(own_server, namespace, queues=QUEUES)
    async with (
        site_on(own_server, namespace, queues=QUEUES) as site,
        at_work(site),
        Producer(settings) as producer,
        Flows(producer) as flows,
    ):
        handle = await flows.submit(chain(*(Nap(0.05) for _ in range(12))))
        await until_node(handle, "nap-3", "completed")
        own_server.restart()
        flow = await flows.wait(handle.id, 20)
    assert flow.counts == {"completed": 12}


async def test_plain_jobs_cost_the_coordinator_nothing(site: Site, producer: Producer) -> None:
    """It reads no log of a queue unless a flow's job is alive there."""

    async def readers() -> int:
        rows: list[dict[str, Any]] = await site.redis.client_list()
        return sum(row["cmd"] == "xread" and "b" in row["flags"] for row in rows)

    before = await readers()
    async with coordinating(site):
        await producer.submit_many([Echo(number) for number in range(10)])

        async def settled() -> bool:
            return await readers() == before + 1  # of its ledger

        await eventually(settled, 30, "it reads its ledger, and nothing else")


async def test_a_coordinator_settles_when_there_is_nothing(site: Site) -> None:
    one = Coordinator(site.redis, site.redis, site.settings)
    await one.settle()
    await one.close()
    assert await site.redis.exists(Keys(site.settings.namespace).ledger(LEDGER).log) == 0
