"""Real workers: an idle one begins at once what comes with its body, and a cancellation frees its slot."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from floor import Floor, done, ended
from jobs_for_tests import Echo, Gate, Hang, Talk
from penstock.core.dispatch import Arrival, Delivery, Note
from penstock.core.events import Progressed, encode
from penstock.core.lifecycle import fold_all
from processes import Site, eventually, producing, site_on, working
from servers import RealServer, wait_until

# Begun before the script knew


async def begun(floor: Floor) -> tuple[str, Arrival, Delivery]:
    """A job that an idle worker has begun, of which it has told nobody."""
    (job,) = await floor.put(attempts=3)
    (arrival,) = await floor.arrive()
    delivery = Delivery(arrival.lane, arrival.entry, 1, job.encode(), b"")
    return job, Arrival(arrival.lane, arrival.entry, job.encode()), delivery


async def test_what_was_begun_starts_in_the_log_before_it_says_anything_or_ends(floor: Floor) -> None:
    job, arrival, it = await begun(floor)
    note = Note(it.lane, it.entry, it.job, "progressed", encode(Progressed(0.5)))
    cycle = await floor.dispatch.cycle("w1", 5, notes=[note], finished=[done(it)], arrivals=[arrival])
    assert (cycle.late, cycle.deliveries) == (0, [])
    assert await floor.site.tags(job) == ["submitted", "started", "progressed", "completed"]
    assert await floor.site.bodies(job, "started") == [{"attempt": 1, "worker": "w1"}]
    await floor.site.consistent([job])


@pytest.mark.parametrize("outcome", ["completed", "failed", "attempt_failed", "released"])
@pytest.mark.parametrize("spoke", [False, True])
async def test_if_its_start_was_lost_with_a_connection_its_end_still_fits(
    floor: Floor, outcome: str, spoke: bool
) -> None:
    """The call that was lost is sent again with its ends only: no arrivals."""
    job, _, it = await begun(floor)
    if spoke:
        note = Note(it.lane, it.entry, it.job, "progressed", encode(Progressed(0.5)))
        await floor.dispatch.cycle("w1", 0, notes=[note])
    cycle = await floor.report(done(it) if outcome == "completed" else ended(outcome, it))
    assert cycle.late == 0
    folded = fold_all(await floor.site.story(job))
    assert folded is not None
    assert folded.misfits == 0
    await floor.work_off("w2")
    await floor.site.consistent([job])


@pytest.mark.parametrize("how", ["reclaimed", "given back"])
async def test_one_that_was_taken_back_meanwhile_starts_elsewhere_and_once(floor: Floor, how: str) -> None:
    job, arrival, it = await begun(floor)
    if how == "reclaimed":
        assert await floor.reclaim("w1") == (1, 0)
    else:
        assert await floor.dispatch.release("w1", "lost on the way") == 1
    cycle = await floor.dispatch.cycle("w1", 0, arrivals=[arrival])
    assert cycle.deliveries == []
    (again,) = await floor.take("w2")
    assert (again.job.decode(), again.attempt) == (job, 1)
    assert (await floor.report(done(again), worker="w2")).late == 0
    assert (await floor.report(done(it))).late == 1
    tags = await floor.site.tags(job)
    assert (tags.count("started"), tags.count("completed")) == (1, 1)
    await floor.site.consistent([job])


async def test_lone_jobs_for_an_idle_worker_start_once_and_first(site: Site) -> None:
    async with working(site.settings), producing(site) as producer:
        handles = []
        for number in range(20):
            handles.append(await producer.submit(Talk(3) if number % 2 else Echo(number)))
            await handles[-1].result(timeout=30)
        for handle in handles:
            tags = await site.tags(handle)
            assert tags[:2] == ["submitted", "started"]
            assert tags.count("started") == 1
    await site.consistent()


async def test_connections_lost_at_any_moment_leave_no_event_that_does_not_fit(
    server: RealServer, site: Site
) -> None:
    killed = 0
    async with working(site.settings), producing(site) as producer:
        with server.client() as axe:
            for number in range(40):
                submitting = asyncio.create_task(producer.submit(Talk(2) if number % 3 else Echo(number)))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                if number % 2:
                    killed += int(axe.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
                await submitting
        assert killed > 20

        async def all_ended() -> bool:
            jobs = await site.jobs()
            return len(jobs) >= 40 and all(job and job.state == "completed" for job in jobs.values())

        await eventually(all_ended, 30, "all end")
    for events in (await site.consistent()).values():
        tags = [event.tag for event in events]
        assert tags.count("started") <= 1 + tags.count("released") + tags.count("lease_expired")


# Cancelled while it runs


async def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("mode", ["coroutine", "process"])
async def test_a_cancellation_frees_the_slot_within_a_second(
    server: RealServer, namespace: str, tmp_path: Path, mode: str
) -> None:
    """There is one slot, and the next job gets it; a process is ended."""
    file = tmp_path / "pid"
    async with (
        site_on(server, namespace, concurrency=1) as site,
        working(site.settings),
        producing(site) as it,
    ):
        stuck = await it.submit(
            Gate(str(tmp_path / "never")) if mode == "coroutine" else Hang(str(file), seconds=60.0)
        )
        await site.until(stuck, "started")
        if mode == "process":
            await asyncio.to_thread(wait_until, lambda: file.exists() and file.read_text(), 15, "it runs")
        behind = await it.submit(Echo("behind"))
        floor = Floor(site)
        job = stuck.id.rsplit(".", maxsplit=1)[1]
        began = time.monotonic()
        assert await floor.control.cancel([await floor.standing(job)], by="ada") == ["running"]
        assert await behind.result(timeout=30) == "behind"
        assert time.monotonic() - began < 5  # a second, and what a busy machine needs
        if mode == "process":
            await eventually(lambda: gone(int(file.read_text())), 30, "its process ends")
        assert await site.tags(stuck) == ["submitted", "started", "cancelled"]
        await site.consistent()


async def test_many_cancelled_in_mid_work_end_once_and_the_worker_goes_on(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        site_on(server, namespace, concurrency=30) as site,
        working(site.settings),
        producing(site) as it,
    ):
        floor = Floor(site)
        gates = await it.submit_many([Gate(str(tmp_path / "never"))] * 30)
        jobs = [gate.id.rsplit(".", maxsplit=1)[1] for gate in gates]
        for gate in gates:
            await site.until(gate, "started")
        standings = [await floor.standing(job) for job in jobs]
        assert await floor.control.cancel(standings, by="ada") == ["running"] * 30
        assert await (await it.submit(Echo("on"))).result(timeout=30) == "on"
        await site.consistent(jobs)
