"""Waiting for ends: no end is missed, whenever it comes, and one reader serves all who wait."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from penstock.core.dispatch import Finished
from penstock.core.endings import Endings
from processes import JOB, Site, eventually, site_on
from servers import RealServer


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace) as site:
        await site.dispatch.beat("w", 3_600_000, enter=True)
        yield site


@pytest.fixture
async def endings(site: Site) -> AsyncIterator[Endings]:
    endings = Endings(site.log)
    yield endings
    await endings.close()


async def end_all(site: Site, outcome: str = "completed") -> None:
    taken = (await site.dispatch.cycle("w", 500)).deliveries
    body = b'{"reason":"permanent","error":"E","message":"m"}' if outcome == "failed" else b"{}"
    ends = [Finished(outcome, it.lane, it.entry, it.attempt, it.job, body) for it in taken]  # type: ignore[arg-type]
    await site.dispatch.cycle("w", 0, finished=ends)


async def blocked_reads(site: Site) -> int:
    return sum(it["cmd"] == "xread" and "b" in it["flags"] for it in await site.redis.client_list())


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_an_end_is_told_to_all_who_wait_for_it(site: Site, endings: Endings, outcome: str) -> None:
    (job,) = await site.put(JOB)
    async with endings.watch(job) as one, endings.watch(job) as other:
        await end_all(site, outcome)
        event = await asyncio.wait_for(one, 5)
        assert await asyncio.wait_for(other, 5) == event
    assert (event.tag, event.job) == (outcome, job)


async def test_an_end_right_after_the_watch_began_is_not_missed(site: Site, endings: Endings) -> None:
    """However the reader is just placed: many rounds, each ended as soon as it is watched."""
    for _ in range(50):
        (job,) = await site.put(JOB)
        async with endings.watch(job) as ended:
            await end_all(site)
            assert (await asyncio.wait_for(ended, 5)).job == job


async def test_other_jobs_and_other_events_are_not_told(site: Site, endings: Endings) -> None:
    watched, other = await site.put(JOB, JOB)
    async with endings.watch(watched) as ended, endings.watch(other) as other_ended:
        one, two = (await site.dispatch.cycle("w", 5)).deliveries
        body = b'{"attempt":1,"error":"E","message":"m","delay":60.0}'
        await site.dispatch.cycle(
            "w",
            0,
            finished=[
                Finished("attempt_failed", one.lane, one.entry, 1, one.job, body, 60_000),
                Finished("completed", two.lane, two.entry, 1, two.job, b"{}"),
            ],
        )
        await asyncio.wait_for(other_ended, 5)
        assert not ended.done()


async def test_one_blocking_read_serves_everyone_and_ends_with_the_last(site: Site, endings: Endings) -> None:
    before = await blocked_reads(site)
    jobs = await site.put(*[JOB] * 50)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_wait(endings, job)) for job in jobs]

        async def one_more() -> bool:
            return await blocked_reads(site) == before + 1

        await eventually(one_more, 30, "one blocking read")
        await end_all(site)
    assert [task.result() for task in tasks] == jobs

    async def none_more() -> bool:
        return await blocked_reads(site) <= before

    await eventually(none_more, 30, "the reader ends when nobody waits")


async def _wait(endings: Endings, job: str) -> str:
    async with endings.watch(job) as ended:
        return (await asyncio.wait_for(ended, 10)).job


async def test_who_stops_waiting_leaves_the_others_alone(site: Site, endings: Endings) -> None:
    (job,) = await site.put(JOB)
    async with endings.watch(job) as patient:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), endings.watch(job) as hasty:
                await hasty
        await end_all(site)
        assert (await asyncio.wait_for(patient, 5)).job == job


async def test_after_a_pause_it_waits_again(site: Site, endings: Endings) -> None:
    for _ in range(3):
        (job,) = await site.put(JOB)
        async with endings.watch(job) as ended:
            await end_all(site)
            await asyncio.wait_for(ended, 5)

        async def nobody() -> bool:
            return endings._reader is None or endings._reader.done()

        await eventually(nobody, 30, "the reader has ended")


async def test_an_end_during_a_lost_connection_is_not_missed(site: Site, endings: Endings) -> None:
    (job,) = await site.put(JOB)
    async with endings.watch(job) as ended:
        await site.redis.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
        await end_all(site)
        assert (await asyncio.wait_for(ended, 5)).job == job


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_an_end_after_a_restart_is_told(
    namespace: str, make_server: Callable[..., RealServer], kind: str
) -> None:
    server = make_server(kind, fsync="always")
    async with site_on(server, namespace) as site:
        await site.dispatch.beat("w", 3_600_000, enter=True)
        (job,) = await site.put(JOB)
        endings = Endings(site.log)
        async with endings.watch(job) as ended:
            server.restart()
            await site.redis.ping()
            await end_all(site)
            assert (await asyncio.wait_for(ended, 10)).job == job
        await endings.close()


async def test_closing_cancels_who_still_waits(site: Site) -> None:
    endings = Endings(site.log)
    (job,) = await site.put(JOB)
    async with endings.watch(job) as ended:
        await endings.close()
        with pytest.raises(asyncio.CancelledError):
            await ended
