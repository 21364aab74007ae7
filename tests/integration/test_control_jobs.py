"""cancel, requeue, dismiss and reschedule: on a job in each place it may stand, twice, and against a
worker that ends the job at the same moment."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from floor import LEASE_MS, Floor, done, ended, names
from penstock.core.dispatch import Delivery
from penstock.core.events import QueueLimited, Started, encode
from penstock.core.keys import PARKED
from penstock.core.lifecycle import fold_all
from penstock.core.story import tell
from processes import site_on
from servers import RealServer


async def now_ms(floor: Floor) -> int:
    seconds, micros = await floor.redis.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


async def state(floor: Floor, job: str) -> str:
    found = fold_all(await floor.site.story(job))
    assert found is not None
    assert found.misfits == 0
    return found.state


PLACES = ("fresh", "delayed", "retried", "held", "given back", "arrived", "running", "running again")


async def place(floor: Floor, where: str) -> str:
    """A job that stands there."""
    match where:
        case "fresh":
            (job,) = await floor.put()
        case "delayed":
            (job,) = await floor.put(when="+60000")
        case "held":
            await floor.control.limit(QueueLimited(per_group=1))
            _, job = await floor.put(2, group="a")
            assert len(await floor.take()) == 1
        case "arrived":
            (job,) = await floor.put()
            await floor.arrive()
        case _:
            (job,) = await floor.put()
            (it,) = await floor.take()
            if where == "given back":
                await floor.report(ended("released", it))
            elif where != "running":
                await floor.report(ended("attempt_failed", it, 0 if "again" in where else 60_000))
            if "again" in where:
                assert [it.attempt for it in await floor.take("w2")] == [2]
    return job


async def wind_up(floor: Floor, *jobs: str) -> None:
    """Whatever else runs is completed, everybody is told; then nothing may be left over."""
    for worker in ("w1", "w2"):
        await floor.dispatch.release(worker, "the test is over")
        await floor.dispatch.beat(worker, LEASE_MS)
    await floor.work_off()
    await floor.site.consistent(jobs)


# cancel


@pytest.mark.parametrize("where", PLACES)
async def test_a_job_is_cancelled_wherever_it_is_and_once(floor: Floor, where: str) -> None:
    job = await place(floor, where)
    running = where in ("arrived", "running", "running again")
    standing = await floor.standing(job)
    expected = "running" if running else "waiting"
    assert await floor.control.cancel([standing], by="ada", reason="why") == [expected]
    assert await floor.site.bodies(job, "cancelled") == [{"by": "ada", "reason": "why"}]
    assert await state(floor, job) == "cancelled"
    assert await floor.due(job) is None
    length = len(await floor.site.events())
    assert await floor.control.cancel([standing], by="bob") == ["over"]
    assert len(await floor.site.events()) == length
    await floor.check()
    assert job not in await floor.work_off("w2")
    await wind_up(floor, job)


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_what_has_ended_is_not_cancelled(floor: Floor, outcome: str) -> None:
    (job,) = await floor.put()
    (it,) = await floor.take()
    await floor.report(done(it) if outcome == "completed" else ended("failed", it))
    assert await floor.control.cancel([await floor.standing(job)], by="ada") == ["over"]
    assert await floor.site.tags(job) == ["submitted", "started", outcome]


@pytest.mark.parametrize("outcome", ["completed", "failed", "attempt_failed", "released"])
async def test_who_runs_a_cancelled_job_is_told_once_and_comes_too_late(floor: Floor, outcome: str) -> None:
    (job,) = await floor.put(group="a", unique="u")
    (it,) = await floor.take("w1")
    await floor.control.cancel([await floor.standing(job)], by="ada")
    assert (await floor.dispatch.beat("w2", LEASE_MS)).cancelled == []
    assert (await floor.dispatch.beat("w1", LEASE_MS)).cancelled == [b"%d:%b" % (it.lane, it.entry)]
    assert (await floor.dispatch.beat("w1", LEASE_MS)).cancelled == []
    length = len(await floor.site.events())
    assert (await floor.report(done(it) if outcome == "completed" else ended(outcome, it))).late == 1
    assert len(await floor.site.events()) == length
    await floor.site.consistent([job])


@pytest.mark.parametrize("how", ["reclaimed", "left"])
async def test_nobody_is_told_for_a_worker_that_is_gone(floor: Floor, how: str) -> None:
    (job,) = await floor.put()
    await floor.take("w1")
    await floor.control.cancel([await floor.standing(job)], by="ada")
    if how == "reclaimed":
        assert await floor.reclaim("w1") == (0, 0)
    else:
        assert await floor.dispatch.release("w1", "left", leave=True) == 0
    assert await floor.hash("told") == {}
    await floor.site.consistent([job])


async def test_a_cancelled_job_that_its_worker_had_begun_by_itself_starts_no_more(floor: Floor) -> None:
    """It came with its body; the cancellation was faster than its `started`."""
    (job,) = await floor.put()
    (arrival,) = await floor.arrive()
    assert await floor.control.cancel([await floor.standing(job)], by="ada") == ["running"]
    begun = type(arrival)(arrival.lane, arrival.entry, job.encode())
    cycle = await floor.dispatch.cycle("w1", 1, arrivals=[begun])
    assert (cycle.deliveries, cycle.late) == ([], 0)
    assert await floor.site.tags(job) == ["submitted", "cancelled"]
    await wind_up(floor, job)


async def test_many_are_cancelled_in_one_call(floor: Floor) -> None:
    waiting = await floor.put(3)
    later = await floor.put(2, when="+60000")
    (over,) = await floor.put(lane="high")
    (it,) = await floor.take(want=1)
    await floor.report(done(it))
    jobs = [*waiting, over, *later]
    answers = await floor.control.cancel([await floor.standing(job) for job in jobs], by="ada")
    assert answers == ["waiting"] * 3 + ["over"] + ["waiting"] * 2
    await floor.site.consistent(jobs)


async def test_a_command_that_races_an_end_gets_the_end_or_comes_late(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    """Forty jobs, each ended by its worker and cancelled by somebody else at the same moment."""
    jobs = await floor.put(40, group="a")
    running = await floor.take()
    standings = {job: await floor.standing(job) for job in jobs}
    async with site_on(server, namespace) as other:
        rival = Floor(other)

        async def end(it: Delivery) -> int:
            return (await floor.report(done(it))).late

        async def cancel(job: str) -> str:
            return (await rival.control.cancel([standings[job]], by="ada"))[0]

        acts = [act for it in running for act in (end(it), cancel(it.job.decode()))]
        answers = await asyncio.gather(*acts)
    ends = [(await floor.site.tags(job))[-1] for job in jobs]
    for late, answer, last in zip(answers[::2], answers[1::2], ends, strict=True):
        assert (late, answer, last) in {(0, "over", "completed"), (1, "running", "cancelled")}
    await wind_up(floor, *jobs)


# requeue and dismiss


async def end_as(floor: Floor, how: str, **options: Any) -> str:
    """A job that has ended so."""
    (job,) = await floor.put(**options)
    if how == "cancelled":
        await floor.control.cancel([await floor.standing(job)], by="ada")
        return job
    (it,) = await floor.take()
    await floor.report(done(it) if how == "completed" else ended("failed", it))
    return job


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_what_has_ended_runs_again_from_the_beginning_under_its_id(floor: Floor, how: str) -> None:
    job = await end_as(floor, how, payload=b'{"n":7}', lane="high", attempts=4, tags=("blue",))
    standing = await floor.standing(job)
    assert await floor.control.requeue([standing], by="bob") == [True]
    assert await state(floor, job) == "waiting"
    (body,) = await floor.site.bodies(job, "requeued")
    assert (body["by"], body["after"], body["payload"]) == ("bob", standing.end, {"n": 7})
    (it,) = await floor.take()
    assert (it.lane, it.attempt, it.job.decode()) == (1, 1, job)
    assert b'"attempts":4' in it.body
    await floor.report(ended("attempt_failed", it))
    (it,) = await floor.take()
    assert it.attempt == 2
    await floor.report(done(it))
    await floor.site.consistent([job])


async def test_an_end_is_taken_up_once_however_many_ask(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    job = await end_as(floor, "failed")
    standing = await floor.standing(job)
    async with site_on(server, namespace) as other:
        rivals = [floor.control, Floor(other).control]
        asks = [rivals[n % 2].requeue([standing], by=f"p{n}") for n in range(10)]
        answers = [answer for (answer,) in await asyncio.gather(*asks)]
    assert Counter(answers) == Counter({True: 1, False: 9})
    assert (await floor.site.tags(job)).count("requeued") == 1
    assert await floor.work_off() == [job]
    assert await floor.control.requeue([standing], by="late") == [False]
    await floor.site.consistent([job])


async def test_each_end_can_be_taken_up(floor: Floor) -> None:
    job = await end_as(floor, "failed")
    for _ in range(3):
        assert await floor.control.requeue([await floor.standing(job)], by="ada") == [True]
        (it,) = await floor.take()
        await floor.report(ended("failed", it))
    assert (await floor.site.tags(job)).count("failed") == 4
    await floor.site.consistent([job])


async def test_what_has_not_ended_is_not_requeued(floor: Floor) -> None:
    (job,) = await floor.put()
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [False]
    await floor.take()
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [False]
    assert await floor.control.dismiss([await floor.standing(job)], by="ada") == [False]
    assert await floor.site.tags(job) == ["submitted", "started"]


async def test_a_job_is_not_taken_up_from_the_end_of_another(floor: Floor) -> None:
    mine, other = await end_as(floor, "failed"), await end_as(floor, "failed")
    standing = await floor.standing(mine)
    wrong = type(standing)(mine, standing.entries, standing.spec, (await floor.standing(other)).end)
    assert await floor.control.requeue([wrong], by="ada") == [False]
    assert await floor.control.dismiss([wrong], by="ada") == [False]
    await floor.site.consistent([mine, other])
    assert await floor.control.requeue([await floor.standing(other)], by="ada") == [True]


async def test_a_requeued_job_keeps_its_group_and_ttl_and_holds_no_unique_key(floor: Floor) -> None:
    job = await end_as(floor, "failed", group="a", ttl=60.0, unique="u")
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [True]
    (entry,) = await floor.redis.xrange(floor.keys.lanes[1])
    fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
    assert fields[b"group"] == b"a"
    assert abs(int(fields[b"until"]) - await now_ms(floor) - 60_000) < 5_000
    assert await floor.hash("unique") == await floor.hash("unique_of") == {}
    assert await floor.work_off() == [job]
    await floor.site.consistent([job])


async def test_a_failure_is_laid_to_rest_once_and_may_still_be_taken_up_from_there(floor: Floor) -> None:
    job = await end_as(floor, "failed")
    failed = await floor.standing(job)
    assert await floor.control.dismiss([failed], by="ada", reason="known") == [True]
    assert await floor.control.dismiss([failed], by="ada") == [False]
    assert await floor.control.requeue([failed], by="ada") == [False]
    assert await state(floor, job) == "cancelled"
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [True]
    assert await floor.work_off() == [job]
    await floor.site.consistent([job])


@pytest.mark.parametrize("how", ["completed", "cancelled"])
async def test_only_failures_are_laid_to_rest(floor: Floor, how: str) -> None:
    job = await end_as(floor, how)
    assert await floor.control.dismiss([await floor.standing(job)], by="ada") == [False]
    assert await state(floor, job) == how
    assert await floor.control.requeue([await floor.standing(job)], by="ada") == [True]


# reschedule


@pytest.mark.parametrize("where", ["fresh", "delayed", "retried", "held", "given back"])
@pytest.mark.parametrize("how", [{"delay": 120.0}, {"run_at": 4_000_000_000_000}, {"at_once": True}])
async def test_what_waits_gets_another_time(floor: Floor, where: str, how: dict[str, Any]) -> None:
    job = await place(floor, where)
    before = await now_ms(floor)
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", **how) == [True]
    await floor.check()
    (body,) = await floor.site.bodies(job, "rescheduled")
    assert body == {**how, "by": "ada"}
    if "at_once" in how:
        assert await state(floor, job) == "waiting"
    else:
        due = await floor.due(job)
        expected = how.get("run_at", before + 120_000)
        assert due is not None
        assert abs(due - expected) < 5_000
        assert await state(floor, job) == "delayed"
        assert job not in names(await floor.take("w2"))
        await floor.dispatch.release("w2", "only looked")
        assert await floor.control.reschedule([await floor.standing(job)], by="ada", at_once=True) == [True]
    await wind_up(floor, job)
    attempts = [body["attempt"] for body in await floor.site.bodies(job, "started")]
    assert attempts[-1] == (2 if where == "retried" else 1)


@pytest.mark.parametrize("lane", ["high", "low"])
async def test_a_waiting_job_gets_another_priority(floor: Floor, lane: Any) -> None:
    others = await floor.put(2)
    (job,) = await floor.put(payload=b'{"n":7}')
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", priority=lane) == [True]
    assert await state(floor, job) == "waiting"
    taken = await floor.take()
    assert names(taken) == ([job, *others] if lane == "high" else [*others, job])
    assert b'"payload":{"n":7}' in next(it.body for it in taken if it.job == job.encode())
    await wind_up(floor, job, *others)


async def test_a_job_may_be_moved_again_and_again(floor: Floor) -> None:
    (job,) = await floor.put()
    for how in (
        {"priority": "high"},
        {"delay": 60.0},
        {"at_once": True, "priority": "low"},
        {"priority": "high"},
    ):
        assert await floor.control.reschedule([await floor.standing(job)], by="ada", **how) == [True]
        assert sum([await floor.redis.xlen(key) for key in floor.keys.lanes]) == 1
        await floor.check()
    (it,) = await floor.take()
    assert (it.lane, it.job.decode(), it.attempt) == (1, job, 1)
    await floor.report(done(it))
    await floor.site.consistent([job])


async def test_a_held_job_gets_another_priority(floor: Floor) -> None:
    await floor.control.limit(QueueLimited(per_group=1))
    first, second, third = await floor.put(3, group="a")
    (it,) = await floor.take()
    assert it.job.decode() == first
    assert await floor.control.reschedule([await floor.standing(third)], by="ada", priority="high") == [True]
    await floor.check()
    await floor.report(done(it))
    assert await floor.work_off() == [third, second]


@pytest.mark.parametrize("where", ["delayed", "retried"])
async def test_what_has_a_time_does_not_get_a_priority_alone(floor: Floor, where: str) -> None:
    """It goes before all lanes when it is due, and the request must not make it due."""
    job = await place(floor, where)
    due, length = await floor.due(job), len(await floor.site.events())
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", priority="high") == [False]
    assert await floor.due(job) == due
    assert len(await floor.site.events()) == length


@pytest.mark.parametrize("where", PLACES)
async def test_who_asks_for_nothing_gets_nothing(floor: Floor, where: str) -> None:
    job = await place(floor, where)
    length = len(await floor.site.events())
    assert await floor.control.reschedule([await floor.standing(job)], by="ada") == [False]
    assert len(await floor.site.events()) == length


@pytest.mark.parametrize("where", ["arrived", "running", "running again"])
@pytest.mark.parametrize("how", [{"delay": 60.0}, {"at_once": True}, {"priority": "high"}])
async def test_what_runs_or_is_over_is_left_alone(floor: Floor, where: str, how: dict[str, Any]) -> None:
    job = await place(floor, where)
    pending = await floor.site.pending()
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", **how) == [False]
    assert await floor.site.pending() == pending
    await floor.control.cancel([await floor.standing(job)], by="ada")
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", **how) == [False]
    await wind_up(floor, job)


async def test_a_ttl_counts_from_the_new_time(floor: Floor) -> None:
    (job,) = await floor.put(when="+1000", ttl=0.5)
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", delay=3600.0) == [True]
    (entry,) = await floor.redis.xrange(floor.keys.lanes[3])
    until = int(dict(zip(entry[1][::2], entry[1][1::2], strict=True))[b"until"])
    due = await floor.due(job)
    assert due is not None
    assert until == due + 500


async def test_a_priority_does_not_lengthen_a_ttl(floor: Floor) -> None:
    (job,) = await floor.put(ttl=5.0)
    (entry,) = await floor.redis.xrange(floor.keys.lanes[1])
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", priority="low") == [True]
    (moved,) = await floor.redis.xrange(floor.keys.lanes[2])
    until = [dict(zip(it[1][::2], it[1][1::2], strict=True))[b"until"] for it in (entry, moved)]
    assert until[0] == until[1]


async def test_how_often_a_job_lost_its_worker_goes_along(floor: Floor) -> None:
    (job,) = await floor.put()
    await floor.take()
    await floor.reclaim("w1")
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", delay=60.0) == [True]
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", at_once=True) == [True]
    assert len(await floor.take("w2")) == 1
    assert await floor.reclaim("w2", limit=2) == (0, 1)
    await floor.site.consistent([job])


async def test_a_unique_key_goes_along_and_is_free_at_the_end(floor: Floor) -> None:
    (job,) = await floor.put(unique="u")
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", delay=60.0) == [True]
    assert await floor.put(unique="u") == [f"{job}"]
    assert await floor.control.reschedule([await floor.standing(job)], by="ada", at_once=True) == [True]
    assert await floor.work_off() == [job]
    await floor.site.consistent([job])


async def test_moving_a_job_does_not_take_back_a_key_that_another_holds_now(floor: Floor) -> None:
    (old,) = await floor.put(unique="u", life_ms=0)
    (new,) = await floor.put(unique="u")
    assert old != new
    assert await floor.control.reschedule([await floor.standing(old)], by="ada", priority="high") == [True]
    assert await floor.put(unique="u") == [new]
    assert await floor.work_off() == [old, new]
    await floor.site.consistent([old, new])


async def test_of_a_move_and_a_start_at_the_same_moment_one_comes_first(
    server: RealServer, floor: Floor, namespace: str
) -> None:
    jobs = await floor.put(40)
    standings = [await floor.standing(job) for job in jobs]
    async with site_on(server, namespace) as other:
        rival = Floor(other)
        moves = [rival.control.reschedule([it], by="ada", delay=60.0) for it in standings]
        takes = [floor.take(want=1) for _ in jobs]
        acts = [act for pair in zip(moves, takes, strict=True) for act in pair]
        answers: list[Any] = list(await asyncio.gather(*acts))
    moved = {job for job, (answer,) in zip(jobs, answers[::2], strict=True) if answer}
    started = {it.job.decode() for deliveries in answers[1::2] for it in deliveries}
    assert moved | started == set(jobs)
    assert not moved & started
    await floor.check()
    rows = {row[1]: row[2] for row in await floor.site.pending()}
    assert Counter(rows.values()) == {PARKED: len(moved), "w1": len(started)} or not (moved and started)
    await floor.control.reschedule([await floor.standing(job) for job in moved], by="ada", at_once=True)
    await wind_up(floor, *jobs)


# Their stories


async def test_a_story_is_told_whole_and_a_job_nobody_knows_has_none(floor: Floor) -> None:
    job = await end_as(floor, "failed")
    await floor.control.requeue([await floor.standing(job)], by="ada")
    told = await tell(floor.redis, floor.keys, job)
    assert [event.tag for event in told] == ["submitted", "started", "failed", "requeued"]
    assert told == await floor.site.story(job)
    assert await tell(floor.redis, floor.keys, "1-0") == []
    assert await tell(floor.redis, floor.keys, "999999999999999-0") == []
    assert encode(Started(1, "w1")) == told[1].body
