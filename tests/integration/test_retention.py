"""Retention on real servers (I10): what is over goes from log and views, what anybody needs stays, and a
rebuild of the trimmed log gives the same bytes (I1)."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from redis.asyncio import Redis

import projectors
from histories import Author, completed, folded, rows, stats, until
from penstock.core.connection import command, connect
from penstock.core.control import Control, Standing, standing
from penstock.core.dispatch import Dispatch, Finished, Submission
from penstock.core.events import Failed, QueueRetained, Submitted, Trimmed, encode
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL, positions
from penstock.core.log import Log
from penstock.core.positions import order
from penstock.core.settings import Secret, Settings
from penstock.core.story import find, tell
from penstock.projections.rebuild import rebuild
from penstock.projections.retention import Kept, Trimmer, kept
from penstock.projections.trimming import Batch, Trimming
from projectors import fold, projecting, soon, sweep
from servers import RealServer

NEVER = 365 * 24 * 3600.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return soon(settings)


@asynccontextmanager
async def trimming(settings: Settings) -> AsyncIterator[None]:
    """A projector at work from the beginning: it folds and trims the queue `mail`."""
    async with connect(settings) as redis:
        await Dispatch(redis, Keys(settings.namespace).partition("mail")).open()
    async with projecting(settings):
        yield


async def is_clean_fold(redis: Redis, keys: PartitionKeys) -> bool:
    """The same of views that have seen the whole log."""
    await fold(redis, keys)
    return await projectors.is_clean_fold(redis, keys)


async def complete(author: Author, count: int) -> list[str]:
    """Submit jobs and complete them."""
    jobs = await author.submit(count)
    worker = await author.enter()
    await author.finish(worker, [completed(one) for one in await author.take(worker, count)])
    return jobs


async def fail(author: Author, count: int) -> list[str]:
    """Submit jobs; they and all others that wait fail for good."""
    jobs = await author.submit(count)
    worker = await author.enter()
    dead = encode(Failed("permanent", "ValueError", "no such mailbox", 1, ms=2))
    await author.finish(
        worker,
        [
            Finished("failed", one.lane, one.entry, one.attempt, one.job, dead)
            for one in await author.take(worker, 1000)
        ],
    )
    return jobs


async def stand(redis: Redis, keys: PartitionKeys, job: str) -> Standing:
    found = standing(await tell(redis, keys, job))
    assert found is not None
    return found


async def log_of(redis: Redis, keys: PartitionKeys) -> list[str]:
    """The events of jobs that the log holds: position of each job's first event."""
    return [event.job for event in await Log(redis, keys).page("0-0", 100_000) if event.tag != "trimmed"]


async def test_ended_jobs_go_and_all_others_stay_with_every_event(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=21)
    for _ in range(6):
        await author.scene()
    await fold(redis, keys)
    before, counted = await rows(redis, keys), await stats(redis, keys)
    await sweep(settings, redis, keys)
    after, now = await rows(redis, keys), await stats(redis, keys)
    assert after == {job: row for job, row in before.items() if row.state not in TERMINAL}
    assert 0 < len(after) < len(before)
    log = Log(redis, keys)
    for job, row in after.items():
        assert len(await log.read(positions(job, row))) == 1 + len(row.history.split())
    assert set(await log_of(redis, keys)) == set(after)
    assert (now.totals, now.reasons, now.tallies) == (counted.totals, counted.reasons, counted.tallies)
    assert now.events == (await redis.xinfo_stream(keys.log))["entries-added"]
    assert (now.trimmed.completed, now.trimmed.failed) == (
        counted.counts().completed,
        counted.counts().failed,
    )
    assert now.trimmed.events == sum(
        len(positions(job, row)) for job, row in before.items() if job not in after
    )
    assert await is_clean_fold(redis, keys)


async def test_a_log_trimmed_again_and_again_under_load_is_rebuilt_byte_for_byte(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=8)
    stop = asyncio.Event()
    async with trimming(settings), trimming(settings):
        trimmers = [asyncio.create_task(Trimmer(redis, keys, settings).run(stop)) for _ in range(2)]
        for _ in range(25):
            await author.scene()
        stop.set()
        await asyncio.gather(*trimmers)
        await until(lambda: only_live(redis, keys), "all that ended is gone")
        await until(lambda: folded(redis, keys), "all is folded")
    assert (await stats(redis, keys)).totals.submitted == len(author.jobs)
    assert (await stats(redis, keys)).totals.misfits == 0
    assert await is_clean_fold(redis, keys)


async def only_live(redis: Redis, keys: PartitionKeys) -> bool:
    if not await redis.exists(keys.stats):
        return False
    counts = (await stats(redis, keys)).counts()
    return not any(getattr(counts, state) for state in TERMINAL)


async def test_a_rebuild_in_the_middle_of_trimming_changes_nothing(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=4)
    async with trimming(settings):
        for _ in range(12):
            await asyncio.gather(author.scene(), rebuild(redis, keys))
        await until(lambda: only_live(redis, keys), "all that ended is gone")
        await until(lambda: folded(redis, keys), "all is folded")
    assert (await stats(redis, keys)).totals.submitted == len(author.jobs)
    assert await is_clean_fold(redis, keys)


async def test_jobs_taken_up_again_at_any_moment_are_never_lost(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    """Requeued, dismissed, cancelled while trimmers work: a job that was told to run can run."""
    chance, author, control = random.Random(6), Author(redis, keys, seed=6), Control(redis, keys)
    requeued = dismissed = 0
    async with trimming(settings), trimming(settings):
        for _ in range(30):
            jobs = await fail(author, 30)
            known = [it for it in [standing(await tell(redis, keys, job)) for job in jobs] if it]
            chosen = [it for it in known if chance.random() < 0.4]
            rest = [it for it in known if it not in chosen and chance.random() < 0.3]
            requeued += sum(await control.requeue(chosen, by="ada")) if chosen else 0
            dismissed += sum(await control.dismiss(rest, by="ada")) if rest else 0
        await fail(author, 1)
        await until(lambda: only_live(redis, keys), "all that ended is gone")
        await until(lambda: folded(redis, keys), "all is folded")
    assert await rows(redis, keys) == {}
    totals = (await stats(redis, keys)).totals
    assert requeued > 0
    assert dismissed > 0
    assert (totals.submitted, totals.requeued, totals.cancelled) == (901, requeued, dismissed)
    assert totals.started == totals.failed == 901 + requeued
    assert totals.misfits == 0
    assert await is_clean_fold(redis, keys)


async def test_a_job_requeued_before_the_views_know_it_stays(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    [back, *others] = await fail(author, 5)
    await fold(redis, keys)
    assert await Control(redis, keys).requeue([await stand(redis, keys, back)], by="ada") == [True]
    batch = Batch(await rows(redis, keys), [])
    assert all(row.state == "failed" for row in batch.jobs.values())
    trimmed = await Trimming(redis, keys).let_go(batch)
    assert trimmed
    assert order(trimmed) > order(back)
    assert set(await log_of(redis, keys)) == {back}
    await fold(redis, keys)
    assert set(await rows(redis, keys)) == {back}
    assert not set(others) & set(await rows(redis, keys))
    [again] = await author.take(await author.enter(), 10)
    assert again.job.decode() == back
    assert await is_clean_fold(redis, keys)


async def test_nothing_goes_that_a_lane_names_whatever_the_views_say(
    redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    [waiting] = await author.submit(1)
    await complete(author, 0)
    await fold(redis, keys)
    row = msgspec.structs.replace((await rows(redis, keys))[waiting], state="completed")
    assert await Trimming(redis, keys).let_go(Batch({waiting: row}, [])) == ""
    assert await log_of(redis, keys) == [waiting]


async def test_nothing_goes_that_the_checkpoint_or_a_reader_has_not_seen(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    first = await complete(author, 5)
    await fold(redis, keys)
    await redis.hset(keys.readers, "archive", (await find_last(redis, keys, first[2])))
    batch = Batch(await rows(redis, keys), [])
    await Trimming(redis, keys).let_go(batch)
    await fold(redis, keys)
    assert set(await log_of(redis, keys)) == set(first[3:])
    await redis.hdel(keys.readers, "archive")
    unseen = await complete(author, 5)
    known = {job: (await find(redis, keys, job)) for job in [*first[3:], *unseen]}
    assert all(row is not None and row.state == "completed" for row in known.values())
    await Trimming(redis, keys).let_go(Batch(known, []))  # type: ignore[arg-type]
    assert set(await log_of(redis, keys)) == set(unseen)
    await fold(redis, keys)
    assert await is_clean_fold(redis, keys)


async def test_a_reader_that_lags_holds_up_only_what_it_has_not_seen(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    jobs = await complete(author, 6)
    await fold(redis, keys)
    await redis.hset(keys.readers, "archive", (await find_last(redis, keys, jobs[3])))
    found = await rows(redis, keys)
    for going in (jobs[:2], jobs[2:]):  # the archive has not seen the first `trimmed`, which stays
        assert await Trimming(redis, keys).let_go(Batch({job: found[job] for job in going}, []))
        await fold(redis, keys)
    assert set(await log_of(redis, keys)) == set(jobs[4:])
    assert await redis.zcard(keys.loose) == 2
    assert await is_clean_fold(redis, keys)
    await redis.hset(keys.readers, "archive", await Log(redis, keys).tip())
    await sweep(settings, redis, keys)
    assert await log_of(redis, keys) == []
    assert await redis.zcard(keys.loose) == 1
    assert (await stats(redis, keys)).trimmed.completed == 6
    assert await is_clean_fold(redis, keys)


async def find_last(redis: Redis, keys: PartitionKeys, job: str) -> str:
    return (await tell(redis, keys, job))[-1].position


async def test_the_next_batch_waits_until_the_views_have_seen_the_last(
    redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    jobs = await complete(author, 4)
    await fold(redis, keys)
    found, trimming = await rows(redis, keys), Trimming(redis, keys)
    assert await trimming.let_go(Batch({job: found[job] for job in jobs[:2]}, []))
    assert await trimming.let_go(Batch({job: found[job] for job in jobs[2:]}, [])) is None
    await fold(redis, keys)
    assert await trimming.let_go(Batch({job: found[job] for job in jobs[2:]}, []))
    await fold(redis, keys)
    assert await log_of(redis, keys) == []
    assert await is_clean_fold(redis, keys)


async def test_the_log_keeps_one_event_that_says_what_went(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    for _ in range(3):
        await complete(author, 10)
        await fail(author, 2)
        await sweep(settings, redis, keys)
    [event] = await Log(redis, keys).page("0-0")
    body = msgspec.json.decode(event.body, type=Trimmed)
    assert (event.tag, body.completed, body.failed) == ("trimmed", 30, 6)
    assert body.events == 36 * 3 + 2  # and the two `trimmed` events before
    assert order(body.first) < order(body.last) < order(event.position)
    assert await redis.zcard(keys.loose) == 1
    assert await is_clean_fold(redis, keys)


async def test_facts_about_the_queue_and_strays_go_when_they_are_old_and_their_effect_stays(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author, control = Author(redis, keys), Control(redis, keys)
    await author.submit(1)
    for _ in range(3):
        await control.pause(by="ada")
        await control.resume(by="ada")
    await control.pause(by="ada")
    await command(redis, "XADD", keys.log, "*", "event", "completed", "job", "1-0", "body", "{}")
    await command(redis, "XADD", keys.log, "*", "something", "else")
    await fold(redis, keys)
    before = await stats(redis, keys)
    assert (before.totals.misfits, await redis.zcard(keys.loose)) == (2, 9)
    await sweep(settings, redis, keys)
    after = await stats(redis, keys)
    assert (after.totals, after.paused, await redis.zcard(keys.loose)) == (before.totals, True, 1)
    assert await log_of(redis, keys) == author.jobs
    assert await is_clean_fold(redis, keys)


async def test_each_outcome_is_kept_for_its_time_and_the_queue_may_say_another(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    settings = soon(settings, retention_failed=NEVER)
    author = Author(redis, keys)
    done, dead = await complete(author, 5), await fail(author, 5)
    await sweep(settings, redis, keys)
    assert set(await log_of(redis, keys)) == set(dead)
    assert not set(done) & set(await rows(redis, keys))
    control = Control(redis, keys)
    assert await control.retain(QueueRetained(failed=0.001, completed=NEVER, by="ada"))
    assert not await control.retain(QueueRetained(failed=0.001, completed=NEVER, by="bob"))
    kept_now = await complete(author, 3)
    await sweep(settings, redis, keys)
    assert set(await rows(redis, keys)) == set(kept_now)
    assert (await stats(redis, keys)).retention == QueueRetained(failed=0.001, completed=NEVER, by="ada")
    assert await is_clean_fold(redis, keys)


def test_what_is_not_told_of_the_queue_is_as_the_settings_say() -> None:
    settings = Settings()
    assert kept(settings, QueueRetained()) == Kept(86_400_000, 259_200_000, 86_400_000)
    assert kept(settings, QueueRetained(failed=1.5)) == Kept(86_400_000, 1500, 86_400_000)


async def test_an_idempotency_key_outlives_its_job(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    body = encode(Submitted(type="mail.send", payload=msgspec.Raw(b"{}"), key="order-17"))
    order_17 = Submission("normal", body, key="order-17")
    [first] = await author.dispatch.submit([order_17], producer="p", batch=1, once_ms=60_000)
    worker = await author.enter()
    await author.finish(worker, [completed(one) for one in await author.take(worker, 1)])
    await sweep(settings, redis, keys)
    assert await find(redis, keys, first.position) is None
    [again] = await author.dispatch.submit([order_17], producer="p", batch=2, once_ms=60_000)
    assert (again.position, again.known) == (first.position, True)


async def test_the_marks_of_ends_that_were_taken_up_go_with_their_jobs(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author, control = Author(redis, keys), Control(redis, keys)
    jobs = await fail(author, 3)
    stands = [await stand(redis, keys, job) for job in jobs]
    assert await control.dismiss(stands[:1], by="ada") == [True]
    assert await control.requeue(stands[1:], by="ada") == [True, True]
    worker = await author.enter()
    await author.finish(worker, [completed(one) for one in await author.take(worker, 10)])
    await sweep(settings, redis, keys)
    assert await rows(redis, keys) == {}
    assert [name async for name in redis.scan_iter(match=keys.marker("*"))] == []
    assert await control.requeue(stands, by="ada") == [False] * 3
    assert await is_clean_fold(redis, keys)


async def test_memory_is_flat_under_a_load_that_does_not_end(
    make_server: Callable[..., RealServer], namespace: str
) -> None:
    settings = soon(Settings(redis_url=Secret(make_server().url), namespace=namespace))
    keys = Keys(namespace).partition("mail")
    used: list[int] = []
    async with connect(settings) as redis, trimming(settings):
        author = Author(redis, keys)
        worker = await author.enter()
        for _ in range(6):
            for _ in range(10):
                await author.submit(500)
                await author.finish(worker, [completed(one) for one in await author.take(worker, 500)])
            await until(lambda: only_live(redis, keys), "all that ended is gone")
            assert await redis.xlen(keys.log) <= 2
            used.append((await redis.info("memory"))["used_memory"])
        assert (await stats(redis, keys)).totals.completed == 30_000
        assert max(used[1:]) < used[0] + 2_000_000, used
        assert await redis.hlen(keys.jobs) == 0
