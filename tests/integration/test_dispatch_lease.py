"""beat, reclaim and release: who lives, what the dead leave behind, what the living give back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from floor import Floor
from penstock.core.dispatch import RECLAIM_PAGE, Delivery, Finished
from penstock.core.keys import GROUP, PARKED
from processes import JOB, Site, eventually, site_on
from servers import RealServer

LEASE = 1_000
LIMIT = 3


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace) as site:
        for worker in ("w1", "w2"):
            await site.dispatch.beat(worker, LEASE, enter=True)
        yield site


async def beat(site: Site, worker: str, *, enter: bool = False) -> tuple[bool, list[str]]:
    """Whether the worker is alive, and who fell silent."""
    answer = await site.dispatch.beat(worker, LEASE, enter=enter)
    return answer.alive, answer.silent


async def take(site: Site, worker: str = "w1", want: int = 10) -> list[Delivery]:
    return (await site.dispatch.cycle(worker, want)).deliveries


async def silence(site: Site, worker: str, ms: int = LEASE) -> None:
    """Make the worker's last sign of life so old."""
    seconds, micros = await site.redis.time()
    await site.redis.zadd(site.keys.workers, {worker: seconds * 1_000 + micros // 1_000 - ms})


def running(it: Delivery) -> bytes:
    return b"%d:%b" % (it.lane, it.entry)


async def test_a_beat_keeps_alive_and_names_the_silent(site: Site) -> None:
    assert await beat(site, "w1") == (True, [])
    await silence(site, "w2")
    assert await beat(site, "w1") == (True, ["w2"])
    assert await beat(site, "w2") == (True, [])
    assert await beat(site, "w1") == (True, [])


async def test_who_was_dropped_does_not_come_back_under_its_name(site: Site) -> None:
    await silence(site, "w1")
    await site.dispatch.reclaim("w1", LEASE, LIMIT)
    assert await beat(site, "w1") == (False, [])
    assert await site.redis.zscore(site.keys.workers, "w1") is None
    assert await beat(site, "w3", enter=True) == (True, [])


async def test_a_live_consumer_is_left_alone(site: Site) -> None:
    (job,) = await site.put(JOB)
    await take(site)
    await silence(site, "w1", LEASE - 500)
    assert await site.dispatch.reclaim("w1", LEASE, LIMIT) == (0, 0)
    assert await site.pending() == [("normal", job, "w1", 1)]
    assert (await beat(site, "w1"))[0]


async def test_one_who_came_back_in_time_is_left_alone(site: Site) -> None:
    """Between the beat that named it and the reclaim it gave a sign of life."""
    await site.put(JOB)
    await take(site)
    await silence(site, "w1")
    assert (await beat(site, "w2"))[1] == ["w1"]
    await site.dispatch.cycle("w1", 0)
    assert await site.dispatch.reclaim("w1", LEASE, LIMIT) == (0, 0)


async def test_jobs_of_the_silent_are_due_again_with_no_attempt_spent(site: Site) -> None:
    (due,) = await site.put(JOB, when="-1")
    (normal,) = await site.put(JOB)
    (low,) = await site.put(JOB, lane="low")
    assert len(await take(site)) == 3
    await silence(site, "w1")
    assert await site.dispatch.reclaim("w1", LEASE, LIMIT) == (3, 0)
    assert {row[1:] for row in await site.pending()} == {(job, PARKED, 0) for job in (due, normal, low)}
    assert await site.bodies(normal, "lease_expired") == [{"worker": "w1", "crashes": 1}]
    assert [it.attempt for it in await take(site, "w2")] == [1, 1, 1]
    assert "w1" not in await site.consumers()
    assert await site.redis.zscore(site.keys.workers, "w1") is None


async def test_an_entry_that_was_delivered_and_never_started_is_reclaimed_too(site: Site) -> None:
    (job,) = await site.put(JOB)
    await site.redis.xreadgroup(GROUP, "w1", {site.keys.lanes[1]: ">"}, count=1)
    await silence(site, "w1")
    assert await site.dispatch.reclaim("w1", LEASE, LIMIT) == (1, 0)
    assert await site.tags(job) == ["submitted", "lease_expired"]
    assert [it.attempt for it in await take(site, "w2")] == [1]


async def test_a_job_that_kills_its_workers_is_given_up(site: Site) -> None:
    lethal, _ = await site.put(JOB, JOB)
    for round_ in range(1, LIMIT + 1):
        worker = f"victim-{round_}"
        await beat(site, worker, enter=True)
        taken = await take(site, worker)
        if round_ == 1:  # the other job completes: its one loss is forgotten
            ends = [Finished("completed", it.lane, it.entry, 1, it.job, b"{}") for it in taken[1:]]
            await site.dispatch.cycle(worker, 0, finished=ends)
        await silence(site, worker)
        expected = (0, 1) if round_ == LIMIT else (1, 0)
        assert await site.dispatch.reclaim(worker, LEASE, LIMIT) == expected
    (failed,) = await site.bodies(lethal, "failed")
    assert (failed["reason"], failed["error"], failed["attempt"]) == ("crashed", "WorkerLost", 1)
    assert "3 times" in failed["message"]
    await site.consistent()


async def test_a_job_that_completes_after_losses_leaves_no_count(site: Site) -> None:
    (job,) = await site.put(JOB)
    await take(site)
    await silence(site, "w1")
    await site.dispatch.reclaim("w1", LEASE, LIMIT)
    assert await site.redis.hlen(site.keys.crashes) == 1
    (it,) = await take(site, "w2")
    await site.dispatch.cycle("w2", 0, finished=[Finished("completed", it.lane, it.entry, 1, it.job, b"{}")])
    await site.consistent([job])


async def test_two_who_reclaim_the_same_worker_do_it_once(site: Site) -> None:
    jobs = await site.put(*[JOB] * 20)
    await take(site, want=20)
    await silence(site, "w1")
    answers = await asyncio.gather(*(site.dispatch.reclaim("w1", LEASE, LIMIT) for _ in range(5)))
    assert max(answers) == (20, 0)
    assert sum(parked for parked, _ in answers) == 20
    assert [(await site.tags(job)).count("lease_expired") for job in jobs] == [1] * 20


async def test_more_than_a_page_is_reclaimed_and_nothing_is_forgotten(site: Site) -> None:
    count = RECLAIM_PAGE + 50
    jobs = await site.put(*[JOB] * count) + await site.put(*[JOB] * count, lane="low")
    assert len(await take(site, want=2 * count)) == 2 * count
    await silence(site, "w1")
    assert await site.dispatch.reclaim("w1", LEASE, LIMIT) == (2 * count, 0)
    assert {row[1] for row in await site.pending()} == set(jobs)
    assert await site.redis.zcard(site.keys.due) == 2 * count
    assert "w1" not in await site.consumers()


async def test_entries_that_a_hand_deleted_do_not_hide_others_from_the_reclaim(site: Site) -> None:
    """A page of pending entries that are no longer in the lane, and behind them one that is."""
    jobs = await site.put(*[JOB] * (RECLAIM_PAGE + 5))
    await take(site, want=len(jobs))
    await site.redis.xdel(site.keys.lanes[1], *jobs[:3])
    await silence(site, "w1")
    await site.dispatch.reclaim("w1", LEASE, LIMIT)
    assert {row[1] for row in await site.pending()} == set(jobs[3:])


async def test_what_a_dead_name_was_given_later_is_found(site: Site) -> None:
    """A blocking read that was under way when its consumer was dropped may still be served: the
    server makes the consumer again, under a name that nobody watches any more."""
    await silence(site, "w1")
    await site.dispatch.reclaim("w1", LEASE, LIMIT)
    (job,) = await site.put(JOB)
    await site.redis.xreadgroup(GROUP, "w1", {site.keys.lanes[1]: ">"}, count=1)
    _, silent = await beat(site, "w2")
    for name in silent:
        await site.dispatch.reclaim(name, LEASE, LIMIT)
    assert [it.job.decode() for it in await take(site, "w2")] == [job]


async def test_who_is_alive_gives_back_what_it_does_not_run(site: Site) -> None:
    jobs = await site.put(JOB, JOB, JOB)
    kept, *_ = await take(site)
    assert await site.dispatch.release("w1", "lost on the way", running=[running(kept)]) == 2
    assert [row[2] for row in await site.pending()] == ["w1", PARKED, PARKED]
    assert await site.bodies(jobs[1], "released") == [{"worker": "w1", "reason": "lost on the way"}]
    assert [it.attempt for it in await take(site, "w2")] == [1, 1]
    assert await site.dispatch.release("w1", "again", running=[running(kept)]) == 0


async def test_who_leaves_is_no_consumer_any_more(site: Site) -> None:
    (job,) = await site.put(JOB)
    await take(site)
    assert await site.dispatch.release("w1", "left", leave=True) == 1
    assert "w1" not in await site.consumers()
    assert await site.redis.zrange(site.keys.workers, 0, -1) == [b"w2"]
    assert await site.pending() == [("normal", job, PARKED, 0)]


async def test_more_than_a_page_is_given_back_and_what_runs_is_kept(site: Site) -> None:
    count = 2 * RECLAIM_PAGE + 50
    await site.put(*[JOB] * count)
    taken = await take(site, want=count)
    kept = taken[:: count // 9]
    given = await site.dispatch.release("w1", "lost", running=[running(it) for it in kept])
    assert given == count - len(kept)
    still = {row[1].encode() for row in await site.pending() if row[2] == "w1"}
    assert still == {it.entry for it in kept}


async def test_what_runs_beyond_the_first_page_is_found(site: Site) -> None:
    """More running than a page: what is not running lies behind them."""
    await site.put(*[JOB] * (RECLAIM_PAGE + 20))
    taken = await take(site, want=RECLAIM_PAGE + 20)
    kept = [running(it) for it in taken[: RECLAIM_PAGE + 10]]
    assert await site.dispatch.release("w1", "lost", running=kept) == 10


async def test_a_second_failed_attempt_is_given_back_as_the_second(site: Site) -> None:
    (job,) = await site.put(JOB)
    (it,) = await take(site)
    body = b'{"attempt":1,"error":"E","message":"m","delay":0.0}'
    await site.dispatch.cycle(
        "w1", 0, finished=[Finished("attempt_failed", it.lane, it.entry, 1, it.job, body)]
    )
    assert [it.attempt for it in await take(site)] == [2]
    await site.dispatch.release("w1", "lost")
    assert [it.attempt for it in await take(site, "w2")] == [2]
    await silence(site, "w2")
    await site.dispatch.reclaim("w2", LEASE, LIMIT)
    assert [it.attempt for it in await take(site)] == [2]
    assert await site.pending() == [("normal", job, "w1", 2)]


async def test_an_innocent_job_is_not_given_up_with_the_one_that_kills(floor: Floor) -> None:
    lethal, innocent = await floor.put(2)
    await floor.enter("w1", "w2", "w3", "w4")
    for worker in ("w1", "w2"):
        assert len(await floor.take(worker)) == 2
        await floor.reclaim(worker)
    assert [it.job.decode() for it in await floor.take("w3")] == [lethal]
    for _ in range(20):  # whoever asks meanwhile does not get the other one
        assert await floor.take("w4") == []
    await floor.reclaim("w3")
    assert (await floor.site.tags(lethal))[-1] == "failed"

    async def taken() -> list[str]:
        return [it.job.decode() for it in await floor.take("w4")]

    assert await eventually(taken, 10, "the other one may run") == [innocent]
    assert "failed" not in await floor.site.tags(innocent)
