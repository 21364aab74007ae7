"""The projector on real servers: views are the clean fold of the log (I1, I6), and it goes on whatever
comes between."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from histories import Author, completed, dump, folded, rows, stats, until
from penstock.core.connection import BLOCK_S, command, connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import STATES
from penstock.core.log import PAGE, Entry, Log
from penstock.core.positions import order, packed
from penstock.core.settings import Secret, Settings
from penstock.projections import folding
from penstock.projections import projector as module
from penstock.projections.folding import Overtaken
from penstock.projections.projector import PartitionProjector, run_projector
from penstock.projections.rebuild import rebuild
from penstock.projections.store import ViewStore
from penstock.projections.views import SHAPE, Rows, Views, read, write_stats
from projectors import fold, is_clean_fold, projecting
from servers import RealServer


async def test_views_of_a_mixed_history_are_rebuilt_byte_for_byte(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=7)
    async with projecting(settings):
        for _ in range(12):
            await author.scene()
        await until(lambda: folded(redis, keys), "all is folded")
    tags = {fields[1] for _, fields in await Log(redis, keys).entries("0-0", 100_000)}
    assert tags >= {
        *(b"submitted", b"started", b"progressed", b"attempt_failed", b"lease_expired", b"released"),
        *(b"completed", b"failed"),
    }
    assert await is_clean_fold(redis, keys)


async def test_views_of_a_mixed_history_agree_and_nothing_misfits(redis: Redis, keys: PartitionKeys) -> None:
    author = Author(redis, keys, seed=3)
    for _ in range(10):
        await author.scene()
    await fold(redis, keys)
    found = await rows(redis, keys)
    assert set(found) == set(author.jobs)
    counted = await stats(redis, keys)
    assert counted.totals.misfits == 0
    for type, counts in counted.types.items():
        for state in STATES:
            index = await redis.zrange(keys.index(state, type), 0, -1)
            jobs = [job for job, row in found.items() if (row.state, row.type) == (state, type)]
            assert index == [packed(job) for job in sorted(jobs, key=order)]
            assert getattr(counts, state) == len(jobs)


async def test_a_log_of_many_pages_is_folded_as_one(redis: Redis, keys: PartitionKeys) -> None:
    author = Author(redis, keys)
    count = 3 * PAGE + 17
    for _ in range(0, count, 500):
        await author.submit(500)
    worker = await author.enter()
    for _ in range(10):
        await author.finish(worker, [completed(one) for one in await author.take(worker, 100)])
    await fold(redis, keys)
    counted = await stats(redis, keys)
    assert (counted.totals.submitted, counted.counts().completed) == (len(author.jobs), 1000)
    assert counted.counts().waiting == len(author.jobs) - 1000
    assert await is_clean_fold(redis, keys)


async def test_pages_of_big_events_are_short(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = Author(redis, keys)
    for _ in range(20):
        await author.submit(20, payload="x" * 200_000)
    for _ in range(3):
        await author.submit(500)
    sizes: list[int] = []
    whole = Log.entries

    async def entries(self: Log, after: str, count: int = PAGE) -> list[Entry]:
        page = await whole(self, after, count)
        sizes.append(len(page))
        return page

    monkeypatch.setattr(Log, "entries", entries)
    await fold(redis, keys)
    assert sizes[0] == 100
    assert all(size * 200_000 <= folding.PAGE_BYTES for size in sizes[1:8])
    assert sum(sizes) == len(author.jobs)
    assert max(sizes) > 500
    assert (await stats(redis, keys)).counts().waiting == len(author.jobs)


async def test_rows_that_are_no_longer_remembered_are_read_again(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.projections.store._CACHED", 5)
    author = Author(redis, keys, seed=11)
    for _ in range(30):
        await author.scene(60)
    await fold(redis, keys)
    assert (await stats(redis, keys)).totals.misfits == 0
    monkeypatch.undo()
    assert await is_clean_fold(redis, keys)


async def test_two_projectors_that_race_leave_a_clean_fold(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=5)
    async with projecting(settings), projecting(settings):
        for _ in range(25):
            await author.scene()
        await until(lambda: folded(redis, keys), "all is folded")
    assert await is_clean_fold(redis, keys)


async def test_a_write_is_refused_when_the_checkpoint_moved_and_then_nothing_is_written(
    redis: Redis, keys: PartitionKeys
) -> None:
    await Author(redis, keys).submit(10)
    events = [read(entry) for entry in await Log(redis, keys).entries("0-0")]

    def fresh() -> Rows:
        return {event.job: None for event, _ in events}

    store = ViewStore(redis, keys)
    slow = Views().fold(events, fresh())
    assert await store.apply(Views().fold(events[:4], fresh()))
    before = await dump(redis, keys)
    assert not await store.apply(slow)
    assert await dump(redis, keys) == before


async def test_events_that_the_server_lost_again_are_never_written(redis: Redis, keys: PartitionKeys) -> None:
    await Author(redis, keys).submit(10)
    entries = await Log(redis, keys).entries("0-0")
    events = [read(entry) for entry in entries]
    changes = Views().fold(events, {event.job: None for event, _ in events})
    await redis.xdel(keys.log, entries[-1][0])
    assert not await ViewStore(redis, keys).apply(changes)
    assert await dump(redis, keys) == {}


async def test_losing_the_race_raises_and_loading_again_goes_on(redis: Redis, keys: PartitionKeys) -> None:
    author = Author(redis, keys)
    await author.submit(5)
    slow, fast = PartitionProjector(redis, keys), PartitionProjector(redis, keys)
    begun = await ViewStore(redis, keys).load()
    await fold(redis, keys)
    await author.submit(5)
    with pytest.raises(Overtaken):
        await slow.catch_up(begun, asyncio.Event())
    await fast.catch_up(await ViewStore(redis, keys).load(), asyncio.Event())
    assert (await stats(redis, keys)).totals.submitted == 10


async def test_views_deleted_under_an_idle_projector_come_back(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    await Author(redis, keys, seed=2).scene()
    async with projecting(settings):
        await until(lambda: folded(redis, keys), "all is folded")
        before = await dump(redis, keys)
        await redis.unlink(*before)
        await until(lambda: folded(redis, keys), "the views are back")
        assert await dump(redis, keys) == before


async def test_views_of_an_older_shape_are_made_anew(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    await Author(redis, keys, seed=3).scene()
    async with projecting(settings):
        await until(lambda: folded(redis, keys), "all is folded")
    before = await dump(redis, keys)
    old = await stats(redis, keys)
    await redis.set(keys.stats, write_stats(msgspec.structs.replace(old, shape=0, tallies={}, events=0)))
    async with projecting(settings):

        async def anew() -> bool:
            return await redis.exists(keys.stats) == 1 and (await stats(redis, keys)).shape == SHAPE

        await until(anew, "the views are made anew")
        await until(lambda: folded(redis, keys), "all is folded again")
    assert await dump(redis, keys) == before


async def test_a_rebuild_beside_a_projector_at_work_leaves_a_clean_fold(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=12)
    async with projecting(settings):
        for _ in range(15):
            await asyncio.gather(author.scene(), rebuild(redis, keys))
        await until(lambda: folded(redis, keys), "all is folded")
    assert await is_clean_fold(redis, keys)


async def test_a_broken_event_is_counted_and_the_rest_goes_on(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    [job] = await author.submit(1, type="mail.send")
    async with projecting(settings):
        await command(redis, "XADD", keys.log, "*", "event", "completed", "job", job, "body", "{")
        await command(redis, "XADD", keys.log, "*", "something", "else")
        await command(redis, "XADD", keys.log, "*", "event", "started", "job", "who?", "body", "{}")
        [later] = await author.submit(1)
        await until(lambda: folded(redis, keys), "all is folded")
    found = await rows(redis, keys)
    assert (found[job].state, found[job].misfits) == ("waiting", 1)
    assert found[later].state == "waiting"
    assert (await stats(redis, keys)).totals.misfits == 3


async def test_a_partition_that_cannot_go_on_stops_where_it_is_and_says_so(
    settings: Settings,
    redis: Redis,
    keys: PartitionKeys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0.05)
    other = Keys(settings.namespace).partition("image")
    await redis.set(keys.jobs, "made by a foreign hand")
    author, unharmed = Author(redis, keys), Author(redis, other)
    await author.scene()
    await unharmed.scene()
    async with projecting(settings):
        await until(lambda: folded(redis, other), "the other partition is folded")
        await until(lambda: said(caplog, "mail.0: stopped"), "it says that it stopped")
        assert await redis.get(keys.checkpoint) is None
        await redis.unlink(keys.jobs)
        await until(lambda: folded(redis, keys), "it goes on once it can")
    assert await is_clean_fold(redis, keys)


async def said(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def test_a_queue_that_is_new_is_found_within_seconds(
    settings: Settings, redis: Redis, namespace: str
) -> None:
    async with projecting(settings):
        for queue in ("one", "two"):
            keys = Keys(namespace).partition(queue)
            await Author(redis, keys).submit(3)
            await until(lambda keys=keys: folded(redis, keys), f"{queue} is folded", 5.0)  # type: ignore[misc]


async def test_it_ends_at_once_when_asked_though_it_waits_for_news(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    await Author(redis, keys).submit(3)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.create_task(run_projector(settings, stop=stop))
    await until(lambda: folded(redis, keys), "all is folded")
    asked = loop.time()
    stop.set()
    await task
    assert loop.time() - asked < BLOCK_S, "not when its read is over"


async def test_it_goes_on_after_the_server_was_killed(own_server: RealServer, namespace: str) -> None:
    settings = Settings(redis_url=Secret(own_server.url), namespace=namespace)
    keys = Keys(namespace).partition("mail")
    async with connect(settings) as redis, projecting(settings) as task:
        author = Author(redis, keys, seed=9)
        for _ in range(3):
            await author.scene()
            own_server.kill()
            await redis.connection_pool.disconnect()
            own_server.start()
            await author.scene()
            await until(lambda: folded(redis, keys), "all is folded")
        assert not task.done()
        assert await is_clean_fold(redis, keys)


async def test_it_waits_for_a_server_that_is_not_there_yet(own_server: RealServer, namespace: str) -> None:
    settings = Settings(redis_url=Secret(own_server.url), namespace=namespace)
    keys = Keys(namespace).partition("mail")
    async with connect(settings) as redis:
        await Author(redis, keys).submit(3)
        own_server.kill()
        async with projecting(settings) as task:
            done, _ = await asyncio.wait([task], timeout=0.5)
            assert not done
            own_server.start()
            await until(lambda: folded(redis, keys), "all is folded")


async def test_a_finished_job_costs_at_most_245_bytes_of_views_and_a_waiting_one_210(
    own_server: RealServer, namespace: str
) -> None:
    settings = Settings(redis_url=Secret(own_server.url), namespace=namespace)
    keys = Keys(namespace).partition("mail")
    count = 20_000
    async with connect(settings) as redis:
        author = Author(redis, keys)
        for _ in range(count // 1000):
            await author.submit(1000, type="mail.send")
        assert await cost(redis, keys) / count <= 210
        worker = await author.enter()
        while taken := await author.take(worker, 500):
            await author.finish(worker, [completed(one) for one in taken])
        assert await cost(redis, keys) / count <= 245


async def cost(redis: Redis, keys: PartitionKeys) -> float:
    """Bytes that the views take once they have seen the log."""
    await rebuild(redis, keys)
    names = [name async for name in redis.scan_iter(match=keys.views)]
    return float(sum([await command(redis, "MEMORY", "USAGE", name, "SAMPLES", 0) for name in names]))
