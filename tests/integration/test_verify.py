"""Verify on real servers: what is in order gives no finding, however busy it is; what was damaged by hand is
found, each kind of it, and put right."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from floor import Floor, done, ended, floor_on
from histories import Author, completed, dump, folded, stats, until
from penstock.core.errors import Unavailable
from penstock.core.events import QueueLimited
from penstock.core.keys import GROUP, PARKED
from penstock.core.lifecycle import TERMINAL
from penstock.core.positions import packed
from penstock.core.settings import Secret, Settings
from penstock.projections.projector import PartitionProjector
from penstock.projections.replay import comparing, findings, sides
from penstock.projections.replay.findings import Finding
from penstock.projections.replay.rebuilding import renew
from penstock.projections.replay.verify import Verified, verify
from penstock.projections.store import ViewStore
from penstock.projections.views import write_stats
from projectors import projecting
from servers import RealServer


@pytest.fixture
async def floor(server: RealServer, namespace: str) -> AsyncIterator[Floor]:
    async with floor_on(server, namespace, "w1", "w2") as floor:
        await floor.redis.sadd(floor.keys.queues, floor.keys.queue)
        yield floor


async def fold(floor: Floor) -> None:
    await PartitionProjector(floor.redis, floor.keys).catch_up(
        await ViewStore(floor.redis, floor.keys).load(), asyncio.Event()
    )


async def look(floor: Floor) -> Verified:
    return await verify(floor.redis, floor.keys)


async def repaired(floor: Floor) -> list[Finding]:
    """Put all right; answers what was planned, of which nothing is found any more."""
    planned: list[Finding] = []
    told = await verify(floor.redis, floor.keys, mend=planned.extend)
    assert told.repaired > 0
    await fold(floor)
    assert (await look(floor)).findings == []
    return planned


async def scene(floor: Floor) -> list[str]:
    """Jobs of every kind: waiting, delayed, running, retrying, failed, done; in groups, with unique keys."""
    await floor.control.limit(QueueLimited(per_group=1, rate=100_000))
    jobs = await floor.put(6, group="ada")
    jobs += await floor.put(3, when="+3600000")
    jobs += await floor.put(1, unique="u1", when="+3600000")
    jobs += await floor.put(4, lane="high")
    taken = {it.job.decode(): it for it in await floor.take(want=8)}
    first, second, third = (taken[it] for it in jobs[10:13])
    await floor.report(done(first), ended("failed", second), ended("attempt_failed", third, 3_600_000))
    assert set(taken) & set(jobs[:6]), "one of a group runs"
    await fold(floor)
    return jobs


async def test_what_is_in_order_gives_no_finding(floor: Floor) -> None:
    await scene(floor)
    told = await look(floor)
    assert (told.findings, told.more, told.repaired) == ([], 0, 0)
    assert (told.events, told.rows) == (await floor.redis.xlen(floor.keys.log), 14)
    assert told.entries == 12
    assert [it async for it in floor.redis.scan_iter(match=floor.keys.shadow.views)] == []
    assert await floor.redis.exists(floor.keys.readers, floor.keys.folders) == 0


Damage = Callable[[Floor, list[str]], Awaitable[Any]]


async def _stats(floor: Floor, _: list[str]) -> None:
    told = await stats(floor.redis, floor.keys)
    told.totals.submitted += 1
    await floor.redis.set(floor.keys.stats, write_stats(told))


async def _unreadable(floor: Floor, _: list[str]) -> None:
    await floor.redis.delete(floor.keys.checkpoint)
    await floor.redis.set(floor.keys.stats, "?")


async def _sleeper(floor: Floor, _: list[str]) -> None:
    """An entry of nothing that is parked, and that nothing wakes."""
    await floor.redis.xadd(floor.keys.lanes[3], {"job": "no job", "spec": "none"})
    await floor.redis.xreadgroup(GROUP, PARKED, {floor.keys.lanes[3]: ">"})


async def _minute(floor: Floor, _: list[str]) -> None:
    await floor.redis.hset(floor.keys.minutes, "1", "{}")


async def _hash(floor: Floor, name: str, field: str, value: str) -> None:
    await floor.redis.hset(floor.keys.prefix + name, field, value)


VIEWS: dict[str, tuple[str, Damage]] = {
    "a row is gone": ("row", lambda f, j: f.redis.hdel(f.keys.jobs, packed(j[0]))),
    "a row is another": ("row", lambda f, j: f.redis.hset(f.keys.jobs, packed(j[0]), '["failed","x"]')),
    "a row is no row": ("row", lambda f, j: f.redis.hset(f.keys.jobs, packed(j[0]), "{")),
    "a row that lists no positions": (
        "row",
        lambda f, j: f.redis.hset(f.keys.jobs, packed(j[0]), '["failed","test.echo",1,0,"x y"]'),
    ),
    "a row too many": ("row", lambda f, j: f.redis.hset(f.keys.jobs, packed("12-0"), '["failed","x"]')),
    "a field that is no job": ("row", lambda f, j: f.redis.hset(f.keys.jobs, "who?", '["failed","x"]')),
    "an index lacks one": (
        "index",
        lambda f, j: f.redis.zrem(f.keys.index("delayed", "test.echo"), packed(j[7])),
    ),
    "an index has one too many": (
        "index",
        lambda f, j: f.redis.zadd(f.keys.index("failed", "test.echo"), {packed(j[7]): 0}),
    ),
    "an index in another order": (
        "index",
        lambda f, j: f.redis.zadd(f.keys.index("delayed", "test.echo"), {packed(j[7]): 5}),
    ),
    "an index of a type that is none": (
        "index",
        lambda f, j: f.redis.zadd(f.keys.index("failed", "no.type"), {packed(j[7]): 0}),
    ),
    "stats are others": ("stats", _stats),
    "stats are none": ("stats", lambda f, j: f.redis.set(f.keys.stats, "?")),
    "nothing is left that can be read": ("stats", _unreadable),
    "stats are gone": ("stats", lambda f, j: f.redis.delete(f.keys.stats)),
    "a minute too many": ("minute", _minute),
    "an event of no job is forgotten": ("loose", lambda f, j: f.redis.delete(f.keys.loose)),
    "one too many": ("loose", lambda f, j: f.redis.zadd(f.keys.loose, {packed("12-0"): 0})),
    "a checkpoint ahead": ("checkpoint", lambda f, j: f.redis.set(f.keys.checkpoint, "99999999999999-0")),
    "a checkpoint that is none": ("checkpoint", lambda f, j: f.redis.set(f.keys.checkpoint, "soon")),
    "a key among the views": ("key", lambda f, j: f.redis.set(f.keys.checkpoint + "2", "1-0")),
    "the log lost an event": ("row", lambda f, j: f.redis.xdel(f.keys.log, j[-1])),
}


@pytest.mark.parametrize("name", VIEWS)
async def test_damage_to_a_view_is_found_and_put_right(floor: Floor, name: str) -> None:
    jobs = await scene(floor)
    if name == "the log lost an event":
        [jobs[-1]] = await floor.put(1)
        await floor.take(want=10)
        await fold(floor)
    before = await dump(floor.redis, floor.keys)
    kind, damage = VIEWS[name]
    await damage(floor, jobs)
    found = (await look(floor)).findings
    assert kind in {it.kind for it in found}, found
    if name == "the log lost an event":
        assert "deleted by hand" in found[0].cause
        return
    assert kind in {it.kind for it in await repaired(floor)}
    assert await dump(floor.redis, floor.keys) == before


WORK: dict[str, tuple[str, Damage]] = {
    "a lane lost a job": ("job", lambda f, j: f.redis.xdel(f.keys.lanes[3], j[6])),
    "its pending row is left": ("pending", lambda f, j: f.redis.xdel(f.keys.lanes[3], j[6])),
    "its time is gone": ("parked", lambda f, j: f.redis.zrem(f.keys.due, f"4:{j[6]}")),
    "a time too many": ("due", lambda f, j: f.redis.zadd(f.keys.due, {"2:12-0": 1})),
    "a time of no entry": ("due", lambda f, j: f.redis.zadd(f.keys.due, {"?": 1})),
    "held for nothing": (
        "held",
        lambda f, j: f.redis.zadd(f.keys.prefix + "held", {"a\x1f2:12-" + " " * 19 + "0": 0}),
    ),
    "a turn for nobody": ("turn", lambda f, j: f.redis.zadd(f.keys.prefix + "turns", {"bob": 1})),
    "a group that takes no turn": ("held", lambda f, j: f.redis.delete(f.keys.prefix + "turns")),
    "a member too many": ("group_of", lambda f, j: _hash(f, "group_of", "2:12-0", "ada")),
    "a count too high": ("groups", lambda f, j: _hash(f, "groups", "ada", "7")),
    "a count gone": ("groups", lambda f, j: f.redis.delete(f.keys.prefix + "groups")),
    "a key that nobody holds": (
        "unique",
        lambda f, j: _hash(f, "unique", "u2", "4:12-0 12-0 99999999999999"),
    ),
    "a holder that is none": ("unique_of", lambda f, j: _hash(f, "unique_of", "4:12-0", "u2")),
    "crashes of nobody": ("crashes", lambda f, j: _hash(f, "crashes", "2:12-0", "1")),
    "word for nobody": ("told", lambda f, j: _hash(f, "told", "2:12-0", "gone")),
    "facts of nobody": ("facts", lambda f, j: _hash(f, "facts", "gone", "{}")),
    "paused by hand": ("control", lambda f, j: _hash(f, "control", "paused", "1")),
    "a limit taken away": ("control", lambda f, j: f.redis.hdel(f.keys.control, "per_group")),
    "an entry of a job that ended": (
        "entry",
        lambda f, j: f.redis.xadd(f.keys.lanes[2], {"job": j[10], "spec": j[10]}),
    ),
    "an entry of nothing": ("entry", lambda f, j: f.redis.xadd(f.keys.lanes[2], {"job": "12-0", "spec": ""})),
    "an entry of nothing, parked": ("entry", _sleeper),
    "a key for ever": ("key", lambda f, j: f.redis.set(f.keys.once("k"), j[0])),
    "a queue that is not listed": ("registry", lambda f, j: f.redis.srem(f.keys.queues, f.keys.queue)),
    "no epoch": ("epoch", lambda f, j: f.redis.delete(f.keys.epoch)),
    "a lane is gone": ("lane", lambda f, j: f.redis.delete(f.keys.lanes[3])),
}


@pytest.mark.parametrize("name", WORK)
async def test_damage_to_what_the_scripts_keep_is_found_and_put_right(floor: Floor, name: str) -> None:
    jobs = await scene(floor)
    kind, damage = WORK[name]
    await damage(floor, jobs)
    found = (await look(floor)).findings
    assert kind in {it.kind for it in found}, found
    assert all(it.cause and it.repair for it in found)
    planned = await repaired(floor)
    assert kind in {it.kind for it in planned}
    await floor.check()


async def test_views_far_behind_the_log_are_said_to_be_and_a_rebuild_does_not_compare_them(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene(floor)
    monkeypatch.setattr(sides, "MAX_GAP", 20)
    monkeypatch.setattr(comparing, "STILL_S", 0.2)
    await floor.put(30)
    with pytest.raises(Unavailable, match="start a projector"):
        await look(floor)
    renewed = await renew(floor.redis, floor.keys)
    assert (renewed.compared, renewed.switched, renewed.differences) == (False, True, [])
    assert (await look(floor)).findings == []


async def test_views_a_little_behind_the_log_are_no_finding(floor: Floor) -> None:
    await scene(floor)
    await floor.put(30)
    await floor.report(*map(done, await floor.take(want=10)))
    assert (await look(floor)).findings == []
    await floor.redis.delete(floor.keys.checkpoint)
    assert {it.kind for it in (await look(floor)).findings} >= {"stats"}


async def test_of_very_many_findings_the_first_are_listed_and_the_rest_counted(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "MAX_LISTED", 10)
    monkeypatch.setattr(comparing, "BATCH", 7)
    await floor.put(60)
    await fold(floor)
    await floor.redis.delete(floor.keys.jobs)
    told = await look(floor)
    assert (len(told.findings), told.more) == (10, 50)
    assert (await verify(floor.redis, floor.keys, mend=lambda _: None)).repaired == 60
    assert (await look(floor)).findings == []


async def test_what_differs_is_counted_once_whichever_side_it_is_seen_from(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "MAX_LISTED", 10)
    jobs = await floor.put(60)
    await fold(floor)
    await floor.redis.hset(floor.keys.jobs, mapping={packed(job): '["failed","x"]' for job in jobs})
    told = await look(floor)
    assert (len(told.findings), told.more) == (10, 50)


async def test_a_key_among_the_views_may_be_called_anything(floor: Floor) -> None:
    await scene(floor)
    await floor.redis.set(floor.keys.checkpoint.encode() + b"\xff\xfe", "1")
    assert {it.kind for it in (await look(floor)).findings} == {"key"}
    assert (await renew(floor.redis, floor.keys)).switched


async def test_views_behind_by_very_much_are_not_read_into_memory(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies between is bounded by bytes, too: bodies may have 256 KiB each."""
    await scene(floor)
    monkeypatch.setattr(sides, "MAX_GAP_BYTES", 1_000_000)
    monkeypatch.setattr(comparing, "STILL_S", 0.2)
    await floor.put(6, payload=b'"%s"' % (b"x" * 256 * 1024))
    with pytest.raises(Unavailable, match="start a projector"):
        await look(floor)
    await fold(floor)
    assert (await look(floor)).findings == []


async def test_snapshots_of_views_that_were_wrong_are_forgotten(floor: Floor) -> None:
    jobs = await scene(floor)
    await floor.redis.xadd(floor.keys.snapshots, {"stats": "{}"}, id="1-0")
    await floor.redis.zadd(floor.keys.due, {"?": 1})
    await verify(floor.redis, floor.keys, mend=lambda _: None)
    assert await floor.redis.exists(floor.keys.snapshots) == 1
    await floor.redis.hdel(floor.keys.jobs, packed(jobs[0]))
    await verify(floor.redis, floor.keys, mend=lambda _: None)
    assert await floor.redis.exists(floor.keys.snapshots) == 0


async def test_a_parked_job_that_lost_its_time_gets_it_back(floor: Floor) -> None:
    [job] = await floor.put(1, when="99999999999000")
    await fold(floor)
    due = await floor.due(job)
    await floor.redis.delete(floor.keys.due)
    assert {it.kind for it in await repaired(floor)} == {"parked"}
    assert await floor.due(job) == due == 99999999999000


async def test_a_foreign_key_is_told_and_left_alone(floor: Floor) -> None:
    await scene(floor)
    await floor.redis.set(floor.keys.prefix + "mine", "1")
    [found] = (await look(floor)).findings
    assert (found.kind, found.where, found.repair) == ("key", floor.keys.prefix + "mine", "")
    told = await verify(floor.redis, floor.keys, mend=lambda _: None)
    assert told.repaired == 0
    assert await floor.redis.get(floor.keys.prefix + "mine") == b"1"


async def test_a_job_that_lost_its_entry_runs_again_and_says_why(floor: Floor) -> None:
    [job] = await floor.put(1, unique="u1", group="ada")
    [running] = await floor.take(want=1)
    await fold(floor)
    await floor.redis.xdel(floor.keys.lanes[1], job)
    assert {it.kind for it in await repaired(floor)} >= {"job", "pending"}
    tags = [event.tag for event in await floor.site.story(job)]
    assert tags == ["submitted", "started", "released", "rescheduled"]
    assert (await floor.report(done(running))).late == 1, "who still runs it comes too late"
    [again] = await floor.take(want=1)
    assert (again.job.decode(), again.attempt) == (job, 1)
    await floor.report(done(again))
    await fold(floor)
    assert (await look(floor)).findings == []


async def test_jobs_that_lost_their_entries_keep_their_time_and_attempts(floor: Floor) -> None:
    [late] = await floor.put(1, when="99999999999000")
    [retried] = await floor.put(1)
    [taken] = await floor.take(want=1)
    await floor.report(ended("attempt_failed", taken, 0))
    due = await floor.due(late)
    await fold(floor)
    for lane in floor.keys.lanes:
        await floor.redis.xdel(lane, late, retried)
    await repaired(floor)
    assert await floor.due(late) == due
    [again] = await floor.take(want=5)
    assert (again.job.decode(), again.attempt) == (retried, 2)


async def test_a_job_whose_event_was_trimmed_by_hand_is_dead_lettered(floor: Floor) -> None:
    [job] = await floor.put(1)
    await floor.put(1)
    await floor.redis.xdel(floor.keys.log, job)
    found = (await look(floor)).findings
    assert "entry" in {it.kind for it in found}
    await verify(floor.redis, floor.keys, mend=lambda _: None)
    assert await floor.redis.xrange(floor.keys.lanes[1], job, job) == []


async def test_a_history_of_anything_gives_no_finding(server: RealServer, namespace: str) -> None:
    """Commands, crashes, retries, groups, unique keys, requeues in any order, verified after each few."""
    async with floor_on(server, namespace, "w1", "w2") as floor:
        await floor.redis.sadd(floor.keys.queues, floor.keys.queue)
        chance = random.Random(5)
        for step in range(60):
            await _anything(floor, chance, step)
            if step % 12 == 11:
                await fold(floor)
                assert (await look(floor)).findings == []
        for name in ("w1", "w2"):
            await floor.reclaim(name)
        await fold(floor)
        assert (await look(floor)).findings == []


async def _anything(floor: Floor, chance: random.Random, step: int) -> None:
    worker = chance.choice(("w1", "w2"))
    match chance.randrange(9):
        case 0:
            await floor.put(chance.randrange(1, 6), group=chance.choice(("", "ada", "bob")))
        case 1:
            await floor.put(1, when="+50", unique=chance.choice(("u1", "u2")), replace=chance.random() < 0.5)
        case 2:
            await floor.control.limit(
                QueueLimited(per_group=chance.randrange(3), concurrency=chance.randrange(9))
            )
        case 3 | 4:
            taken = await floor.take(worker, 4)
            ends = [
                chance.choice(
                    (done(it), ended("failed", it), ended("attempt_failed", it, 5), ended("released", it))
                )
                for it in taken[: chance.randrange(5)]
            ]
            await floor.report(*ends, worker=worker)
        case 5:
            await floor.reclaim(worker)
            await floor.enter(worker)
        case 6:
            jobs = [it async for it in _known(floor)]
            if jobs:
                found = [await floor.standing(it) for it in chance.sample(jobs, min(4, len(jobs)))]
                await chance.choice((floor.control.cancel, floor.control.requeue))(found, by="t")
                await floor.control.reschedule(found, by="t", delay=0.05)
        case 7:
            await chance.choice((floor.control.pause, floor.control.resume))(by="t")
        case 8:
            await floor.dispatch.release(worker, "busy")


async def _known(floor: Floor) -> AsyncIterator[str]:
    for entry, fields in await floor.redis.xrange(floor.keys.log):
        if fields[1] == b"submitted":
            yield entry.decode()


@pytest.mark.timeout(180)
async def test_a_system_at_work_gives_no_finding(server: RealServer, namespace: str) -> None:
    """Projectors, trimmers and workers go on, and views are rebuilt, while one look follows the other."""
    async with floor_on(server, namespace) as floor:
        brief: dict[str, Any] = {f"retention_{state}": 0.2 for state in TERMINAL}
        settings = Settings(redis_url=Secret(server.url), namespace=namespace, **brief)
        author = Author(floor.redis, floor.keys, seed=9)
        over = asyncio.Event()

        async def write() -> None:
            while not over.is_set():
                await author.scene()
                worker = await author.enter()
                await author.finish(worker, [completed(it) for it in await author.take(worker, 200)])

        await author.scene()
        async with projecting(settings), projecting(settings):
            writing = asyncio.create_task(write())
            looks = [await look(floor) for _ in range(6)]
            over.set()
            await writing
            await until(lambda: folded(floor.redis, floor.keys), "all is folded")
        assert [it.findings for it in looks] == [[]] * 6
        assert looks[-1].events > looks[0].events
