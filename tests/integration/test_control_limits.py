"""Pause, rate, concurrency and backlog: over all workers, at once, and not one job too many."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from redis.exceptions import ResponseError

from floor import Floor, done, names, submission
from jobs_for_tests import Echo
from penstock.consumers.partition import DUE_TICK_S
from penstock.core.dispatch import Arrival, Cycle, Delivery
from penstock.core.errors import BacklogFull
from penstock.core.events import QueueLimited
from penstock.core.keys import PARKED
from penstock.core.positions import milliseconds
from processes import eventually, producing, site_on, working
from servers import RealServer


async def limit(floor: Floor, **limits: Any) -> bool:
    return await floor.control.limit(QueueLimited(**limits, by="ada"))


async def facts(floor: Floor) -> list[str]:
    return [event.tag for event in await floor.site.events() if event.tag.startswith("queue_")]


# Said once


async def test_pausing_and_resuming_say_who_and_only_when_something_changes(floor: Floor) -> None:
    assert await floor.control.resume(by="ada") is False
    assert await floor.control.pause(by="ada") is True
    assert await floor.control.pause(by="bob") is False
    assert await floor.control.resume(by="eve") is True
    assert await floor.control.resume(by="eve") is False
    events = await floor.site.events()
    assert [(event.tag, event.body) for event in events] == [
        ("queue_paused", b'{"by":"ada"}'),
        ("queue_resumed", b'{"by":"eve"}'),
    ]
    assert all(event.job == event.position for event in events)


async def test_of_many_who_pause_at_once_one_does(floor: Floor) -> None:
    answers = await asyncio.gather(*(floor.control.pause(by=f"p{n}") for n in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert await facts(floor) == ["queue_paused"]


async def test_the_same_limits_again_change_nothing(floor: Floor) -> None:
    assert await limit(floor, rate=2.5, concurrency=3) is True
    assert await limit(floor, rate=2.5, concurrency=3) is False
    assert await limit(floor, rate=2.5, concurrency=4) is True
    assert await limit(floor) is True
    assert await limit(floor) is False
    assert await facts(floor) == ["queue_limited"] * 3
    assert not {"rate", "burst", "concurrency", "tokens", "at"} & set(await floor.hash("control"))


@pytest.mark.parametrize("backlog", [1_234_567, 10_000_001])
async def test_a_limit_is_kept_to_the_last_digit(floor: Floor, backlog: int) -> None:
    await limit(floor, backlog=backlog)
    assert int((await floor.hash("control"))["backlog"]) == backlog


# Pause


async def test_a_paused_queue_gives_out_nothing_and_what_runs_goes_on(floor: Floor) -> None:
    running, waiting = await floor.put(2)
    (due,) = await floor.put(when="1")
    deliveries = await floor.take(want=2)
    assert names(deliveries) == [due, running]
    await floor.control.pause(by="ada")
    cycle = await floor.report(*map(done, deliveries), want=5)
    assert (cycle.deliveries, cycle.late, cycle.governed, cycle.held) == ([], 0, True, True)
    await floor.control.resume(by="ada")
    assert await floor.work_off("w2") == [waiting]
    await floor.site.consistent([running, waiting, due])


async def test_what_a_blocking_read_brought_waits_until_the_queue_is_resumed(floor: Floor) -> None:
    high, low = await floor.put(lane="high"), await floor.put(lane="low")
    arrivals = await floor.arrive()
    assert len(arrivals) == 2
    await floor.control.pause(by="ada")
    cycle = await floor.dispatch.cycle("w1", 5, arrivals=arrivals)
    assert (cycle.deliveries, cycle.held) == ([], True)
    assert {row[2:] for row in await floor.site.pending()} == {(PARKED, 0)}
    await floor.check()
    await floor.control.resume(by="ada")
    assert {(it.job.decode(), it.attempt) for it in await floor.take("w2")} == {(high[0], 1), (low[0], 1)}


@pytest.mark.parametrize("how", ["paused", "rate", "concurrency"])
async def test_a_job_for_a_governed_queue_does_not_bring_its_body(floor: Floor, how: str) -> None:
    """A worker that last heard of no limits would begin it with no further question."""
    await (floor.control.pause(by="ada") if how == "paused" else limit(floor, **{how: 1}))
    await floor.put()
    await (floor.control.resume(by="ada") if how == "paused" else limit(floor))
    (entry,) = await floor.redis.xrange(floor.keys.lanes[1])
    assert entry[1][::2] == [b"job", b"spec"]
    await floor.work_off()
    await floor.put()
    (entry,) = await floor.redis.xrange(floor.keys.lanes[1])
    assert entry[1][::2] == [b"job", b"spec", b"body"]


async def test_an_idle_worker_begins_nothing_while_its_queue_is_paused(
    server: RealServer, namespace: str
) -> None:
    """Paused and at once a job: the worker waits in its blocking read, and knows of no pause."""
    async with site_on(server, namespace) as site, producing(site) as producer:
        floor = Floor(site)
        async with working(site.settings):
            await (await producer.submit(Echo(0))).result(timeout=30)
            for number in range(15):
                await floor.control.pause(by="ada")
                handle = await producer.submit(Echo(number))
                await floor.control.resume(by="ada")
                assert await handle.result(timeout=30) == number
        paused = False
        for event in await site.events():
            paused = (paused or event.tag == "queue_paused") and event.tag != "queue_resumed"
            assert not (paused and event.tag == "started")
        await site.consistent()


# Rate


@pytest.mark.parametrize(("rate", "burst"), [(200.0, 10), (50.0, 1), (2_000.0, 100)])
async def test_no_window_has_more_starts_than_rate_and_burst_allow(
    server: RealServer, floor: Floor, namespace: str, rate: float, burst: int
) -> None:
    """Two workers on connections of their own ask without a pause for about a quarter of a second."""
    enough = burst + round(rate / 4)
    await floor.put(enough * 2)
    await limit(floor, rate=rate, burst=burst)
    async with site_on(server, namespace) as other:
        rival = Floor(other)
        given: list[tuple[float, float, int]] = []  # asked at, answered at, jobs

        async def ask(floor: Floor, worker: str) -> None:
            while sum(count for *_, count in given) < enough:
                asked = time.monotonic()
                if taken := await floor.take(worker, 10):
                    given.append((asked, time.monotonic(), len(taken)))

        await asyncio.wait_for(asyncio.gather(ask(floor, "w1"), ask(rival, "w2")), 40)
    starts = [event for event in await floor.site.events() if event.tag == "started"]
    assert len(starts) == sum(count for *_, count in given) >= enough
    # By our clock, around each call: a server that was held up between a script's first step and its last
    # writes the event later than it let the job begin. Its own clock is in whole ms.
    given.sort(key=lambda it: it[1])
    for first, *_ in given:
        total = 0
        for asked, last, count in given:
            total += count if asked >= first else 0
            assert total <= burst + rate * max(0, last - first + 0.001)
    # And it is used: not a whole second for each that it allows.
    assert (enough - burst) / rate <= given[-1][1] - given[0][0] + 0.001 <= (enough - burst) / rate + 10


async def test_who_gets_nothing_is_told_when_to_ask_again(floor: Floor) -> None:
    await floor.put(3)
    await limit(floor, rate=10.0, burst=1)
    first, second = await floor.dispatch.cycle("w1", 2), await floor.dispatch.cycle("w2", 2)
    assert [len(it.deliveries) for it in (first, second)] == [1, 0]
    assert 50 < second.again_ms <= first.again_ms <= 100
    await limit(floor)
    free = await floor.dispatch.cycle("w1", 1)
    assert (free.governed, free.held, free.again_ms) == (False, False, 0)
    await floor.control.pause(by="ada")
    assert (await floor.dispatch.cycle("w1", 1)).again_ms > 50


async def test_a_worker_keeps_up_with_a_rate_that_allows_one_at_once(
    server: RealServer, namespace: str
) -> None:
    """A token comes every 10 ms, and is gone if nobody takes it before the next."""
    async with site_on(server, namespace) as site, producing(site) as producer:
        floor = Floor(site)
        await site.dispatch.open()
        await limit(floor, rate=100.0, burst=1)
        await producer.submit_many([Echo(number) for number in range(51)])
        async with working(site.settings):
            await site.until_ended(51, timeout=30)
        starts = [milliseconds(event.position) for event in await site.events() if event.tag == "started"]
        assert starts[-1] - starts[0] + 1 >= 500
        pauses = sorted(later - before for before, later in pairwise(starts))
        assert pauses[10] < DUE_TICK_S * 1_000, "it takes them as they come, not tick by tick"
        await site.consistent()


async def test_a_clock_set_back_does_not_stop_a_limited_queue(floor: Floor) -> None:
    await floor.put(3)
    await limit(floor, rate=100.0, burst=2)
    assert len(await floor.take(want=1)) == 1
    await floor.redis.hset(floor.keys.control, mapping={"tokens": "1.5", "at": "9000000000000"})
    assert len(await floor.take(want=1)) == 1

    async def one_more() -> list[Delivery]:
        return await floor.take(want=1)

    assert len(await eventually(one_more, 30, "a token comes")) == 1


async def test_a_new_rate_begins_with_a_full_bucket_and_other_limits_leave_it(floor: Floor) -> None:
    await floor.put(10)
    await limit(floor, rate=0.001, burst=2)
    assert [len(await floor.take()) for _ in range(2)] == [2, 0]
    await limit(floor, rate=0.001, burst=2, backlog=99)
    assert len(await floor.take()) == 0
    await limit(floor, rate=0.001, burst=3, backlog=99)
    assert [len(await floor.take()) for _ in range(2)] == [3, 0]
    await limit(floor)
    assert len(await floor.take()) == 5


# Concurrency


async def test_over_two_workers_no_more_run_than_the_limit(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    jobs = await floor.put(120)
    await limit(floor, concurrency=5)
    running = most = 0
    async with site_on(server, namespace) as other:

        async def work(floor: Floor, worker: str, seed: int) -> None:
            nonlocal running, most
            mine: list[Delivery] = []
            while True:
                ends = mine[: 1 + seed % 3]
                cycle: Cycle = await floor.report(*map(done, ends), worker=worker, want=4)
                running += len(cycle.deliveries) - len(ends)
                most = max(most, running)
                mine = [*mine[len(ends) :], *cycle.deliveries]
                if not mine and not cycle.held and not cycle.deliveries:
                    return

        acts = (work(floor, "w1", 1), work(Floor(other), "w2", 2))
        await asyncio.wait_for(asyncio.gather(*acts), 20)
    active = 0
    for event in await floor.site.events():
        active += (event.tag == "started") - (event.tag == "completed")
        assert active <= 5
    await floor.site.consistent(jobs)


async def test_parked_and_held_jobs_take_no_place(floor: Floor) -> None:
    await floor.put(3, when="+60000")
    await floor.put(5, group="a")
    (plain,) = await floor.put(lane="low")
    await limit(floor, concurrency=2, per_group=1)
    first = await floor.take(want=9)
    assert len(first) == 2
    assert plain in names(first)
    assert (await floor.take("w2", want=9)) == []


async def test_two_arrivals_for_one_place_become_one_start(floor: Floor) -> None:
    await limit(floor, concurrency=1)
    await floor.put(2)
    mine, its = await floor.arrive("w1"), await floor.arrive("w2")
    assert (len(mine), len(its)) == (1, 1)
    first = await floor.dispatch.cycle("w1", 1, arrivals=mine)
    second = await floor.dispatch.cycle("w2", 1, arrivals=its)
    assert len(first.deliveries) + len(second.deliveries) == 1
    order = [it for cycle in (first, second) for it in cycle.deliveries]
    worker = "w1" if first.deliveries else "w2"
    assert len((await floor.report(*map(done, order), worker=worker, want=1)).deliveries) == 1


async def test_a_place_is_free_when_its_worker_was_found_dead(floor: Floor) -> None:
    jobs = await floor.put(2)
    await limit(floor, concurrency=1)
    assert names(await floor.take("w1")) == jobs[:1]
    assert await floor.take("w2") == []
    await floor.reclaim("w1")
    assert names(await floor.take("w2")) == jobs[:1]
    assert await floor.take("w2") == []


async def test_who_lost_its_lease_takes_nothing_and_its_arrivals_go_back(floor: Floor) -> None:
    (job,) = await floor.put(group="a")
    arrivals: list[Arrival] = await floor.arrive("w1")
    await floor.redis.zrem(floor.keys.workers, "w1")
    await limit(floor, per_group=1)
    cycle = await floor.dispatch.cycle("w1", 5, arrivals=arrivals)
    assert (cycle.alive, cycle.deliveries) == (False, [])
    await floor.check()
    assert names(await floor.take("w2")) == [job]


# Backlog


async def test_producers_who_race_never_pass_the_bound(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    await limit(floor, backlog=50)
    accepted: list[str] = []

    async def produce(floor: Floor, name: str) -> int:
        refused = 0
        for size in (1, 4, 3, 7, 2) * 3:
            try:
                accepted.extend(await floor.send([submission() for _ in range(size)], producer=name))
            except ResponseError as error:
                if not str(error).startswith("FULL "):
                    raise
                refused += 1
        return refused

    async with site_on(server, namespace) as other:
        rivals = [floor, Floor(other), Floor(floor.site), Floor(other)]
        refused = await asyncio.gather(*(produce(it, f"p{n}") for n, it in enumerate(rivals)))
    waiting = sum([await floor.redis.xlen(key) for key in floor.keys.lanes])
    assert waiting == len(accepted) <= 50
    assert min(refused) > 0
    # Whole batches or nothing: what is in the log is what was accepted.
    assert set(await floor.site.stories()) >= set(accepted)
    assert len([1 for event in await floor.site.events() if event.tag == "submitted"]) == len(accepted)
    await floor.work_off()
    await floor.site.consistent(accepted)


async def test_there_is_room_again_when_jobs_end(floor: Floor) -> None:
    await limit(floor, backlog=2)
    jobs = await floor.put(2)
    with pytest.raises(ResponseError, match="FULL 2 jobs wait, and the bound is 2"):
        await floor.put()
    assert await floor.work_off() == jobs
    assert len(await floor.put(2)) == 2


async def test_a_batch_sent_again_is_answered_though_the_queue_is_full(floor: Floor) -> None:
    await limit(floor, backlog=1)
    first = await floor.dispatch.submit([submission()], producer="p", batch=1, once_ms=1_000)
    assert await floor.dispatch.submit([submission()], producer="p", batch=1, once_ms=1_000) == first


async def test_the_client_is_told_when_to_come_again(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        await limit(Floor(site), backlog=1)
        await producer.submit(Echo(1))
        with pytest.raises(BacklogFull) as refused:
            await producer.submit(Echo(2))
        assert refused.value.retry_after > 0
