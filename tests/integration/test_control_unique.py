"""A job that expires unless started in time, a key that one live job holds, and debounce."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from floor import LEASE_MS, Floor, done, ended, names, submission
from jobs_for_tests import Echo
from penstock.core.events import QueueLimited
from penstock.core.lifecycle import fold_all
from penstock.producer.intake import Unique
from processes import eventually, producing, site_on
from servers import RealServer


async def later_than(floor: Floor, ms: int) -> None:
    """Wait until the server's clock has passed so many ms from now."""
    began = await floor.redis.time()

    async def passed() -> bool:
        now = await floor.redis.time()
        return bool((now[0] - began[0]) * 1_000 + (now[1] - began[1]) / 1_000 > ms)

    await eventually(passed, 30, "time passes")


# ttl


@pytest.mark.parametrize("where", ["lane", "arrival", "delayed", "held", "given back"])
async def test_what_was_not_started_in_time_expires_wherever_it_waited(floor: Floor, where: str) -> None:
    if where == "held":
        await floor.control.limit(QueueLimited(per_group=1))
        await floor.put(group="a")
        assert len(await floor.take()) == 1
    (job,) = await floor.put(ttl=0.02, group="a", when="+1" if where == "delayed" else "")
    arrivals = []
    match where:
        case "arrival":
            arrivals = await floor.arrive("w2")
        case "held":
            assert await floor.take("w2") == []
            await floor.control.limit(QueueLimited())
        case "given back":
            (it,) = await floor.take("w1")
            await floor.report(ended("released", it))
    await later_than(floor, 25)
    cycle = await floor.dispatch.cycle("w2", 5, arrivals=arrivals)
    assert job not in names(cycle.deliveries)
    (body,) = await floor.site.bodies(job, "failed")
    assert (body["reason"], body["error"]) == ("expired", "Expired")
    await floor.check()
    state = fold_all(await floor.site.story(job))
    assert state is not None
    assert (state.state, state.misfits) == ("failed", 0)


async def test_what_was_started_in_time_does_not_expire(floor: Floor) -> None:
    """Not while it runs, nor before its retry."""
    (job,) = await floor.put(ttl=0.02)
    (it,) = await floor.take()
    await later_than(floor, 25)
    await floor.report(ended("attempt_failed", it))
    (again,) = await floor.take()
    assert again.attempt == 2
    await floor.report(done(again))
    await floor.site.consistent([job])


async def test_a_delayed_job_has_its_ttl_after_its_time(floor: Floor) -> None:
    (job,) = await floor.put(ttl=60.0, when="+1")
    await later_than(floor, 3)
    assert names(await floor.take()) == [job]


async def test_expired_jobs_take_no_places(floor: Floor) -> None:
    expired = await floor.put(20, ttl=0.001)
    (good,) = await floor.put()
    await later_than(floor, 3)
    found: list[str] = []

    async def taken() -> bool:
        found.extend(names(await floor.take(want=3)))
        return bool(found)

    await eventually(taken, 30, "the good one comes")
    assert found == [good]
    assert {(await floor.site.tags(job))[-1] for job in expired} == {"failed"}


async def test_an_expired_job_may_be_requeued_and_gets_its_ttl_anew(floor: Floor) -> None:
    (job,) = await floor.put(ttl=0.2)
    await later_than(floor, 210)
    assert await floor.take() == []
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [True]
    assert await floor.work_off() == [job]
    await floor.site.consistent([job])


# unique


async def test_of_producers_who_race_one_gets_the_key_and_all_its_job(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    async with site_on(server, namespace) as other:
        rivals = [Floor(floor.site), Floor(other)]
        sends = [rivals[n % 2].send([submission(unique="u")], producer=f"p{n}") for n in range(20)]
        answers = {position for (position,) in await asyncio.gather(*sends)}
    assert len(answers) == 1
    assert list(await floor.site.stories()) == list(answers)
    assert await floor.work_off() == list(answers)
    await floor.site.consistent(answers)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "expired", "given up", "debounced"])
async def test_the_key_is_free_when_its_job_has_ended(floor: Floor, end: str) -> None:
    (job,) = await floor.put(
        unique="u", ttl=0.001 if end == "expired" else 0.0, when="+60000" if end == "debounced" else ""
    )
    match end:
        case "completed" | "failed":
            (it,) = await floor.take()
            await floor.report(done(it) if end == "completed" else ended("failed", it))
        case "cancelled":
            await floor.control.cancel([await floor.standing(job)], by="ada")
        case "expired":
            await later_than(floor, 3)
            assert await floor.take() == []
        case "given up":
            await floor.take()
            assert await floor.reclaim("w1", limit=1) == (0, 1)
    (second,) = await floor.put(unique="u", replace=end == "debounced")
    assert second != job
    assert await floor.work_off("w2") == [second]
    await floor.site.consistent([job, second])


@pytest.mark.parametrize("how", ["waits", "runs", "retries", "lost its worker", "was given back"])
async def test_the_key_is_held_as_long_as_its_job_lives(floor: Floor, how: str) -> None:
    (job,) = await floor.put(unique="u")
    if how != "waits":
        (it,) = await floor.take()
    match how:
        case "retries":
            await floor.report(ended("attempt_failed", it, 60_000))
        case "lost its worker":
            assert await floor.reclaim("w1") == (1, 0)
        case "was given back":
            await floor.report(ended("released", it))
    assert await floor.put(unique="u") == [job]
    assert await floor.put(unique="u", replace=True) == [job]
    assert len(await floor.site.stories()) == 1


async def test_a_holder_that_is_lost_for_ever_blocks_no_longer_than_the_life_of_its_key(floor: Floor) -> None:
    (old,) = await floor.put(unique="u", life_ms=20)
    await floor.take()
    await later_than(floor, 25)
    (new,) = await floor.put(unique="u")
    assert new != old
    # What the old one does at its end is no business of the new one's key.
    await floor.reclaim("w1", limit=1)
    assert await floor.put(unique="u") == [new]
    assert await floor.work_off("w2") == [new]
    await floor.site.consistent([old, new])


async def test_a_late_end_of_the_old_holder_leaves_the_key_to_the_new_one(floor: Floor) -> None:
    (old,) = await floor.put(unique="u", life_ms=0)
    (new,) = await floor.put(unique="u", when="+60000")
    (it,) = await floor.take()
    assert it.job.decode() == old
    await floor.report(done(it))
    assert await floor.put(unique="u") == [new]


async def test_an_idempotency_key_that_met_a_holder_goes_on_meaning_it(floor: Floor) -> None:
    (holder,) = await floor.put(unique="u")
    assert await floor.put(unique="u", key="k") == [holder]
    assert await floor.work_off() == [holder]
    assert await floor.put(unique="u", key="k") == [holder]
    (new,) = await floor.put(unique="u", key="other")
    assert new != holder


async def test_two_of_a_batch_with_one_key_are_one(floor: Floor) -> None:
    first, second, third = await floor.send([submission(unique=key) for key in ("u", "u", "v")])
    assert first == second != third
    assert len(await floor.site.stories()) == 2


# debounce


async def test_of_a_burst_only_the_last_one_runs_and_the_others_say_why(floor: Floor) -> None:
    jobs = [
        (await floor.put(unique="u", replace=True, when="+30", payload=b'{"n":%d}' % number))[0]
        for number in range(5)
    ]
    assert len(set(jobs)) == 5

    async def taken() -> list[str]:
        return await floor.work_off()

    assert await eventually(taken, 30, "the last one is due") == jobs[-1:]
    for job in jobs[:-1]:
        (body,) = await floor.site.bodies(job, "cancelled")
        assert body == {"by": "debounce", "reason": "replaced by a newer job with its unique key"}
    await floor.site.consistent(jobs)


async def test_producers_who_race_to_debounce_leave_one(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    async with site_on(server, namespace) as other:
        rivals = [Floor(floor.site), Floor(other)]
        jobs = [submission(unique="u", replace=True, when="+60000") for _ in range(30)]
        sends = [rivals[n % 2].send([job], producer=f"p{n}") for n, job in enumerate(jobs)]
        answers = [position for (position,) in await asyncio.gather(*sends)]
    assert len(set(answers)) == 30
    states = [job.state for job in (await floor.site.jobs()).values() if job is not None]
    assert sorted(states) == ["cancelled"] * 29 + ["delayed"]
    await floor.check()
    assert len(await floor.hash("unique")) == len(await floor.hash("unique_of")) == 1


@pytest.mark.parametrize("state", ["runs", "waits in its lane", "was promoted and runs", "failed once"])
async def test_what_no_longer_waits_for_its_time_is_not_replaced(floor: Floor, state: str) -> None:
    (job,) = await floor.put(unique="u", replace=True, when="" if "lane" in state else "1")
    if "lane" not in state:
        (it,) = await floor.take()
        if state == "failed once":
            await floor.report(ended("attempt_failed", it, 60_000))
    assert await floor.put(unique="u", replace=True, when="+60000") == [job]
    assert "cancelled" not in await floor.site.tags(job)


async def test_the_worker_of_a_replaced_job_is_none(floor: Floor) -> None:
    """Replaced between its time and its start: no worker hears of it."""
    (job,) = await floor.put(unique="u", replace=True, when="1")
    (new,) = await floor.put(unique="u", replace=True, when="1")
    assert names(await floor.take()) == [new]
    assert (await floor.site.tags(job)) == ["submitted", "cancelled"]
    assert (await floor.dispatch.beat("w1", LEASE_MS)).cancelled == []


async def test_the_client_says_that_the_job_was_known(server: RealServer, namespace: str) -> None:
    async with site_on(server, namespace) as site, producing(site) as producer:
        first = await producer.submit(Echo(1), unique=Unique("u"))
        second = await producer.submit(Echo(2), unique=Unique("u"))
        third = await producer.submit(Echo(3), unique=Unique("u", life=0.0001))
        assert (first.known, second.known, third.known) == (False, True, True)
        assert first.id == second.id == third.id
        short = await producer.submit(Echo(4), unique=Unique("v", life=0.0001))
        again = await producer.submit(Echo(5), unique=Unique("v"))
        assert short.id != again.id


async def test_a_batch_number_of_the_past_is_refused_with_unique_keys_too(floor: Floor) -> None:
    await floor.put(unique="u")
    await floor.put(unique="v")
    with pytest.raises(ResponseError, match="OLDBATCH"):
        await floor.dispatch.submit([submission(unique="w")], producer="floor", batch=1, once_ms=1_000)
    assert sorted(await floor.hash("unique")) == ["u", "v"]
