"""cycle: report and take in one step; one end for each job, and no attempt counted that was not."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.core.dispatch import Arrival, Cycle, Delivery, Finished, Note
from penstock.core.keys import GROUP, PARKED
from processes import JOB, Site, eventually, site_on
from servers import RealServer

LEASE = 1_000


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace) as site:
        for worker in ("w1", "w2"):
            await site.dispatch.beat(worker, LEASE, enter=True)
        yield site


def done(it: Delivery, body: bytes = b'{"ms":1.0}') -> Finished:
    return Finished("completed", it.lane, it.entry, it.attempt, it.job, body)


def ended(outcome: Any, it: Delivery, delay_ms: int = 0, body: bytes | None = None) -> Finished:
    told = {
        "failed": b'{"reason":"permanent","error":"E","message":"m"}',
        "attempt_failed": b'{"attempt":1,"error":"E","message":"m","delay":0.0}',
        "released": b'{"worker":"w1","reason":"r"}',
    }
    return Finished(
        outcome, it.lane, it.entry, it.attempt, it.job, told[outcome] if body is None else body, delay_ms
    )


async def take(site: Site, worker: str = "w1", want: int = 10) -> list[Delivery]:
    return (await site.dispatch.cycle(worker, want)).deliveries


async def report(site: Site, *finished: Finished, worker: str = "w1", want: int = 0) -> Cycle:
    return await site.dispatch.cycle(worker, want, finished=finished)


async def arrive(site: Site, worker: str = "w1") -> Arrival:
    """What the blocking read of a worker brings."""
    streams = dict.fromkeys(site.keys.lanes[:3], ">")
    ((lane, ((entry, _),)),) = await site.redis.xreadgroup(GROUP, worker, streams, count=1, block=1_000)
    return Arrival([key.encode() for key in site.keys.lanes].index(lane) + 1, entry)


async def test_taking_starts_and_hands_over_the_first_event(site: Site) -> None:
    (job,) = await site.put('{"n":1}')
    (delivery,) = await take(site)
    assert (delivery.lane, delivery.entry, delivery.attempt) == (2, job.encode(), 1)
    assert (delivery.job, delivery.body) == (job.encode(), b'{"n":1}')
    assert await site.bodies(job, "started") == [{"attempt": 1, "worker": "w1"}]
    assert await site.pending() == [("normal", job, "w1", 1)]


async def test_no_more_is_taken_than_wanted(site: Site) -> None:
    for lane in ("high", "normal", "low"):
        await site.put(JOB, JOB, lane=lane)
    await site.put(JOB, JOB, when="-1")
    taken = [len(await take(site, want=want)) for want in (0, 1, 3, 2, 9)]
    assert taken == [0, 1, 3, 2, 2]
    assert await take(site) == []


async def test_finishing_and_taking_is_one_call(site: Site) -> None:
    first, second = await site.put(JOB, JOB)
    (delivery,) = await take(site, want=1)
    cycle = await report(site, done(delivery), want=1)
    assert (cycle.alive, cycle.late, [it.job.decode() for it in cycle.deliveries]) == (True, 0, [second])
    assert await site.tags(first) == ["submitted", "started", "completed"]
    assert [row[1] for row in await site.pending()] == [second]
    assert await site.redis.xlen(site.keys.lanes[1]) == 1


async def test_what_is_due_comes_first_then_lanes_by_priority(site: Site) -> None:
    low = await site.put(JOB, JOB, lane="low")
    normal = await site.put(JOB, JOB, lane="normal")
    high = await site.put(JOB, JOB, lane="high")
    due = await site.put(JOB, JOB, when="-1")
    later = await site.put(JOB, when="+60000")
    order = [it.job.decode() for it in await take(site, want=100)]
    assert order == [*due, *high, *normal, *low]
    assert later[0] not in order


async def test_what_was_due_earlier_comes_earlier(site: Site) -> None:
    (second,) = await site.put(JOB, when="2000")
    (first,) = await site.put(JOB, when="1000")
    assert [it.job.decode() for it in await take(site)] == [first, second]


async def test_a_delayed_job_starts_with_its_first_attempt(site: Site) -> None:
    (job,) = await site.put(JOB, when="+30")

    async def taken() -> list[Delivery]:
        return await take(site)

    (delivery,) = await eventually(taken, 30, "it is due")
    assert (delivery.lane, delivery.attempt) == (4, 1)
    assert await site.redis.zcard(site.keys.due) == 0
    assert (await report(site, done(delivery))).late == 0
    assert list(await site.consistent([job])) == [job]


async def test_of_two_who_complete_the_first_one_counts(site: Site) -> None:
    (job,) = await site.put(JOB)
    (delivery,) = await take(site)
    assert (await report(site, done(delivery, b'{"result":1}'))).late == 0
    again = await report(site, done(delivery, b'{"result":2}'), worker="w2")
    assert again.late == 1
    assert await site.bodies(job, "completed") == [{"result": 1}]


async def test_an_end_reported_again_after_a_lost_answer_counts_once(site: Site) -> None:
    jobs = await site.put(*[JOB] * 4)
    one, two, three, four = await take(site)
    ends = [done(one), ended("failed", two), ended("attempt_failed", three), ended("released", four)]
    assert (await report(site, *ends)).late == 0
    length = len(await site.events())
    assert (await report(site, *ends)).late == 4
    assert len(await site.events()) == length
    assert [(await site.tags(job))[-1] for job in jobs] == [
        "completed",
        "failed",
        "attempt_failed",
        "released",
    ]


@pytest.mark.parametrize("outcome", ["failed", "attempt_failed", "released"])
async def test_who_no_longer_owns_a_job_cannot_fail_it(site: Site, outcome: str) -> None:
    (job,) = await site.put(JOB)
    (stale,) = await take(site, "w1")
    await site.dispatch.release("w1", "lost")
    (fresh,) = await take(site, "w2")
    assert (await report(site, ended(outcome, stale), worker="w1")).late == 1
    assert await site.pending() == [("normal", job, "w2", 1)]
    assert (await report(site, done(fresh), worker="w2")).late == 0
    assert await site.tags(job) == ["submitted", "started", "released", "started", "completed"]


@pytest.mark.parametrize("outcome", ["failed", "attempt_failed", "released"])
async def test_an_older_attempt_cannot_fail_the_job_of_the_same_worker(site: Site, outcome: str) -> None:
    (job,) = await site.put(JOB)
    (first,) = await take(site)
    await report(site, ended("attempt_failed", first))
    (second,) = await take(site)
    assert second.attempt == 2
    assert (await report(site, ended(outcome, first))).late == 1
    assert (await report(site, ended("failed", second))).late == 0
    assert (await site.tags(job))[-2:] == ["started", "failed"]


async def test_a_stale_attempt_may_still_complete_while_another_runs(site: Site) -> None:
    """At least once: the work is done, whoever did it."""
    (job,) = await site.put(JOB)
    (stale,) = await take(site, "w1")
    await site.dispatch.release("w1", "lost")
    (fresh,) = await take(site, "w2")
    assert (await report(site, done(stale), worker="w1")).late == 0
    assert (await report(site, done(fresh), ended("failed", fresh), worker="w2")).late == 2
    await site.consistent([job])


async def test_a_parked_job_completed_by_a_stale_attempt_is_not_due_any_more(site: Site) -> None:
    (job,) = await site.put(JOB)
    (delivery,) = await take(site)
    await site.dispatch.release("w1", "lost")
    assert await site.redis.zcard(site.keys.due) == 1
    await report(site, done(delivery))
    await site.consistent([job])
    assert await take(site, "w2") == []


async def test_a_failed_attempt_is_parked_until_its_backoff_is_over(site: Site) -> None:
    (job,) = await site.put(JOB)
    (delivery,) = await take(site)
    await report(site, ended("attempt_failed", delivery, delay_ms=60_000))
    assert await site.pending() == [("normal", job, PARKED, 1)]
    assert await take(site) == []
    await site.redis.zadd(site.keys.due, {f"2:{job}": 1})
    (again,) = await take(site, "w2")
    assert again.attempt == 2


async def test_what_is_given_back_spends_no_attempt(site: Site) -> None:
    (job,) = await site.put(JOB)
    for _ in range(3):
        (delivery,) = await take(site)
        assert delivery.attempt == 1
        await report(site, ended("released", delivery))
    assert [body["attempt"] for body in await site.bodies(job, "started")] == [1, 1, 1]


async def test_what_is_given_back_without_a_word_leaves_no_event(site: Site) -> None:
    (job,) = await site.put(JOB)
    (delivery,) = await take(site)
    await report(site, ended("released", delivery, body=b""))
    assert await site.tags(job) == ["submitted", "started"]
    assert await site.pending() == [("normal", job, PARKED, 0)]


async def test_notes_come_from_the_owner_only(site: Site) -> None:
    (job,) = await site.put(JOB)
    (it,) = await take(site, "w1")
    note = Note(it.lane, it.entry, it.job, "progressed", b'{"fraction":0.5}')
    await site.dispatch.cycle("w2", 0, notes=[note])
    assert await site.tags(job) == ["submitted", "started"]
    await site.dispatch.cycle("w1", 0, notes=[note])
    assert await site.tags(job) == ["submitted", "started", "progressed"]


async def test_last_words_stand_before_the_end_and_none_after(site: Site) -> None:
    (job,) = await site.put(JOB)
    (it,) = await take(site)
    note = Note(it.lane, it.entry, it.job, "logged", b'{"line":"bye"}')
    await site.dispatch.cycle("w1", 0, notes=[note], finished=[done(it)])
    await site.dispatch.cycle("w1", 0, notes=[note])
    assert await site.tags(job) == ["submitted", "started", "logged", "completed"]


async def test_an_arrival_is_started(site: Site) -> None:
    (job,) = await site.put('{"n":1}', lane="low")
    arrival = await arrive(site)
    cycle = await site.dispatch.cycle("w1", 1, arrivals=[arrival])
    assert [(it.lane, it.job.decode(), it.attempt) for it in cycle.deliveries] == [(3, job, 1)]
    assert await site.tags(job) == ["submitted", "started"]


async def test_an_arrival_counts_for_what_is_wanted(site: Site) -> None:
    await site.put(JOB, JOB, JOB)
    cycle = await site.dispatch.cycle("w1", 2, arrivals=[await arrive(site)])
    assert len(cycle.deliveries) == 2


async def test_an_arrival_of_somebody_else_is_not_started(site: Site) -> None:
    await site.put(JOB)
    arrival = await arrive(site, "w1")
    assert (await site.dispatch.cycle("w2", 1, arrivals=[arrival])).deliveries == []


async def test_an_arrival_can_be_given_back_unstarted(site: Site) -> None:
    (job,) = await site.put(JOB)
    it = await arrive(site)
    await report(site, Finished("released", it.lane, it.entry, 1, b"", b""))
    assert await site.pending() == [("normal", job, PARKED, 0)]
    (delivery,) = await take(site, "w2")
    assert delivery.attempt == 1
    assert await site.tags(job) == ["submitted", "started"]


async def test_a_consumer_whose_lease_ran_out_takes_nothing_and_its_arrivals_are_parked(site: Site) -> None:
    first, second = await site.put(JOB, JOB)
    arrival = await arrive(site)
    await site.redis.zrem(site.keys.workers, "w1")
    cycle = await site.dispatch.cycle("w1", 5, arrivals=[arrival])
    assert (cycle.alive, cycle.deliveries) == (False, [])
    assert await site.pending() == [("normal", first, PARKED, 0)]
    assert {it.job.decode() for it in await take(site, "w2")} == {first, second}
    assert await site.redis.zscore(site.keys.workers, "w1") is None


async def test_a_dead_consumer_can_still_complete(site: Site) -> None:
    (job,) = await site.put(JOB)
    (delivery,) = await take(site)
    await site.redis.zrem(site.keys.workers, "w1")
    cycle = await report(site, done(delivery), want=1)
    assert (cycle.alive, cycle.late) == (False, 0)
    await site.consistent([job])


async def test_a_cycle_is_a_sign_of_life(site: Site) -> None:
    await site.redis.zadd(site.keys.workers, {"w1": 5})
    await take(site)
    score = await site.redis.zscore(site.keys.workers, "w1")
    seconds, _ = await site.redis.time()
    assert score is not None
    assert abs(score - seconds * 1_000) < 5_000


async def test_a_job_whose_first_event_was_trimmed_away_fails_as_lost(site: Site) -> None:
    lost, kept = await site.put(JOB, JOB)
    await site.redis.xdel(site.keys.log, lost)
    assert [it.job.decode() for it in await take(site)] == [kept]
    (event,) = [event for event in await site.events() if event.job == lost]
    assert (event.tag, b'"reason":"lost"' in event.body) == ("failed", True)
    assert [row[1] for row in await site.pending()] == [kept]
    assert await site.redis.xlen(site.keys.lanes[1]) == 1


async def test_a_due_entry_that_is_gone_is_forgotten(site: Site) -> None:
    (job,) = await site.put(JOB, when="-1")
    await site.redis.xack(site.keys.lanes[3], GROUP, job)
    await site.redis.xdel(site.keys.lanes[3], job)
    assert await take(site) == []
    assert await site.redis.zcard(site.keys.due) == 0


async def test_one_stale_item_does_not_spoil_the_batch(site: Site) -> None:
    jobs = await site.put(JOB, JOB, JOB)
    one, two, three = await take(site)
    await report(site, done(two))
    cycle = await report(site, done(one), done(two), ended("attempt_failed", two), done(three))
    assert cycle.late == 2
    await site.consistent(jobs)


@pytest.mark.parametrize("seed", range(5))
async def test_of_a_batch_each_end_counts_once_however_often_it_is_told(site: Site, seed: int) -> None:
    draw = random.Random(seed)
    jobs = await site.put(*[JOB] * 30)
    taken = await take(site, want=30)
    told = [done(it) for it in taken for _ in range(draw.choice([1, 1, 2]))]
    draw.shuffle(told)
    at = draw.randint(1, len(told) - 1)
    early, rest = told[:at], told[at:]
    late = [(await report(site, *ends)).late for ends in (early, rest, early)]
    assert sum(late[:2]) == len(told) - 30
    assert late[2] == len(early)
    await site.consistent(jobs)


async def test_each_job_comes_with_its_own_body_however_they_were_submitted(site: Site) -> None:
    """In batches, one by one, with other events between them, and some without an event any more."""
    draw = random.Random(3)
    bodies: dict[str, str] = {}
    lost: set[str] = set()
    for batch in range(25):
        told = [f'{{"batch":{batch},"n":{number}}}' for number in range(draw.choice([1, 1, 3, 20, 40]))]
        when = draw.choice(["", "", "", "-1"])
        bodies.update(zip(await site.put(*told, when=when), told, strict=True))
    for job in draw.sample(sorted(bodies), 12):
        lost.add(job)
        await site.redis.xdel(site.keys.log, job)
    got: dict[str, str] = {}
    while taken := await take(site, want=128):
        got |= {it.job.decode(): it.body.decode() for it in taken}
        await report(site, *map(done, taken))
    assert got == {job: body for job, body in bodies.items() if job not in lost}


@pytest.mark.parametrize("seed", range(5))
async def test_in_whatever_order_jobs_end_a_lane_holds_the_others(site: Site, seed: int) -> None:
    """Ended entries leave their lane by trimming; what lies between must stay."""
    draw = random.Random(seed)
    jobs = []
    for _ in range(6):
        lane = draw.choice(["high", "normal", "low"])
        when = draw.choice(["", "", "", "-1", "+60000"])
        jobs += await site.put(*[JOB] * draw.randint(1, 40), lane=lane, when=when)
    running: list[Delivery] = []
    open_jobs = set(jobs)
    for _ in range(30):
        running += await take(site, draw.choice(["w1", "w2"]), draw.randint(0, 30))
        draw.shuffle(running)
        count = draw.randint(0, len(running))
        ends, running = running[:count], running[count:]
        for worker in ("w1", "w2"):
            reports = [
                done(it) if draw.random() < 0.7 else ended("attempt_failed", it, draw.choice([0, 60_000]))
                for it in ends
            ]
            await report(site, *reports, worker=worker)
        jobs_now = await site.jobs()
        open_jobs = {job for job, it in jobs_now.items() if it and it.state not in ("completed", "failed")}
        in_lanes = {row[0].decode() for lane in site.keys.lanes for row in await site.redis.xrange(lane)}
        assert in_lanes == open_jobs
        assert not any(it is None or it.misfits for it in jobs_now.values())
    assert len(open_jobs) < len(jobs)
