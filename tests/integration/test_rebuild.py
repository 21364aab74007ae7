"""A rebuild on real servers: the views in use serve until the new ones take their place, whatever comes
between (I1, I6, I7, I10)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from redis.asyncio import Redis

import projectors
from histories import Author, completed, dump, folded, rows, stats, until
from penstock.core.connection import command, connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL
from penstock.core.log import Log
from penstock.core.positions import order, packed
from penstock.core.settings import Secret, Settings
from penstock.projections import folding
from penstock.projections.folding import Folding
from penstock.projections.projector import PartitionProjector
from penstock.projections.rebuild import rebuild, shadowing
from penstock.projections.retention import Trimmer
from penstock.projections.shadow import READER, Progress, Shadow, abandon
from penstock.projections.store import ViewStore
from penstock.projections.views import SHAPE, write_stats
from servers import RealServer


@asynccontextmanager
async def projecting(settings: Settings, kept: float = 0) -> AsyncIterator[None]:
    """A running projector; with `kept` ended jobs stay for so many seconds."""
    if kept:
        settings = msgspec.structs.replace(settings, **{f"retention_{state}": kept for state in TERMINAL})
    async with projectors.projecting(settings):
        yield


async def history(redis: Redis, keys: PartitionKeys, scenes: int = 4, seed: int = 1) -> Author:
    """Some of everything, folded into the views."""
    author = Author(redis, keys, seed=seed)
    for _ in range(scenes):
        await author.scene()
    await catch_up(redis, keys)
    return author


async def catch_up(redis: Redis, keys: PartitionKeys) -> None:
    await PartitionProjector(redis, keys).catch_up(await ViewStore(redis, keys).load(), asyncio.Event())


async def half(redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch, pages: int = 2) -> None:
    """A rebuild that was stopped when it had folded a few pages of 25 events."""
    monkeypatch.setattr(folding, "_FIRST_PAGE", 25)
    await Shadow(redis, keys).enter()
    for _ in range(pages):
        stopped = asyncio.Event()
        stopped.set()
        one = Folding(redis, keys.shadow)
        await one.catch_up(await one.store.load(), stopped)


async def shadow_keys(redis: Redis, keys: PartitionKeys) -> list[bytes]:
    return [name async for name in redis.scan_iter(match=keys.shadow.views)]


async def test_views_in_use_serve_until_the_new_ones_take_their_place(
    redis: Redis, keys: PartitionKeys
) -> None:
    author = await history(redis, keys)
    whole = await dump(redis, keys)
    await redis.hdel(keys.jobs, packed(author.jobs[0]))
    damaged = await dump(redis, keys)
    async with shadowing(redis, keys) as anew:
        await anew.fold()
        assert await dump(redis, keys) == damaged
        assert await anew.switch()
    assert await dump(redis, keys) == whole
    assert await shadow_keys(redis, keys) == []
    assert await redis.exists(keys.folders, keys.readers) == 0


async def test_one_that_was_stopped_is_gone_on_with(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history(redis, keys)
    before = await dump(redis, keys)
    await half(redis, keys, monkeypatch)
    reached = (await Shadow(redis, keys).progress()).done
    assert reached == 50
    heard: list[Progress] = []
    done = await rebuild(redis, keys, heard.append)
    assert (done.resumed, done.switched) == (True, True)
    assert heard[0].done >= reached
    assert done.events == await redis.xlen(keys.log)
    assert await dump(redis, keys) == before


async def test_nothing_is_trimmed_that_the_new_views_have_not_seen(
    settings: Settings, redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = await history(redis, keys, scenes=6)
    await half(redis, keys, monkeypatch)
    seen = order(await ViewStore(redis, keys.shadow).checkpoint())
    held = [it.position for it in await Log(redis, keys).page("0-0", 10_000) if order(it.position) > seen]
    short = msgspec.structs.replace(settings, **{f"retention_{state}": 0.001 for state in TERMINAL})
    await Shadow(redis, keys).hold()
    for _ in range(3):
        sweep = asyncio.create_task(Trimmer(redis, keys, short).sweep(asyncio.Event()))
        while not sweep.done():
            await catch_up(redis, keys)
            await asyncio.sleep(0.01)
        await sweep
    log = Log(redis, keys)
    assert len(await log.read(held)) == len(held)
    assert (await rebuild(redis, keys)).resumed
    async with projecting(settings, kept=0.001):

        async def only_live() -> bool:
            counts = (await stats(redis, keys)).counts()
            return not any(getattr(counts, state) for state in TERMINAL)

        await until(only_live, "trimming goes on")
        await until(lambda: folded(redis, keys), "all is folded")
    assert (await stats(redis, keys)).totals.submitted == len(author.jobs)
    await catch_up(redis, keys)
    before = await dump(redis, keys)
    await rebuild(redis, keys)
    assert await dump(redis, keys) == before


async def test_several_at_once_beside_projectors_and_trimmers_leave_a_clean_fold(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys, seed=5)
    async with projecting(settings, kept=0.05), projecting(settings, kept=0.05):
        for _ in range(8):
            done = await asyncio.gather(author.scene(), *(rebuild(redis, keys) for _ in range(3)))
            assert any(it.switched for it in done[1:] if it is not None)
        await until(lambda: folded(redis, keys), "all is folded")
    counted = await stats(redis, keys)
    assert (counted.totals.submitted, counted.totals.misfits) == (len(author.jobs), 0)
    await catch_up(redis, keys)  # a batch that a trimmer had begun was finished last
    before = await dump(redis, keys)
    await rebuild(redis, keys)
    assert await dump(redis, keys) == before


async def test_states_never_go_back_when_views_are_exchanged(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    """The checkpoint only rises, whoever writes it."""
    author, seen, over = Author(redis, keys, seed=8), [(0, 0)], asyncio.Event()

    async def look() -> None:
        while not over.is_set():
            seen.append(order(await ViewStore(redis, keys).checkpoint()))

    async with projecting(settings):
        looking = asyncio.create_task(look())
        for _ in range(10):
            await asyncio.gather(author.scene(), rebuild(redis, keys))
        over.set()
        await looking
    assert seen == sorted(seen)
    assert len(set(seen)) > 10


async def test_a_shadow_behind_the_views_in_use_does_not_take_their_place(
    redis: Redis, keys: PartitionKeys
) -> None:
    author = await history(redis, keys, scenes=1)
    async with shadowing(redis, keys) as anew:
        await anew.fold()
        await author.submit(5)
        await catch_up(redis, keys)
        before = await dump(redis, keys)
        assert await anew.shadow.switch() == "behind"
        assert await dump(redis, keys) == before
        assert await anew.switch()
    assert await dump(redis, keys) == before


async def test_one_that_nobody_goes_on_with_is_taken_away_and_the_next_begins_anew(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history(redis, keys)
    before = await dump(redis, keys)
    await half(redis, keys, monkeypatch)
    assert not await abandon(redis, keys), "its lease runs"
    [who] = await command(redis, "ZRANGE", keys.folders, 0, -1)
    await command(redis, "ZADD", keys.folders, 1, who)  # silent since 1970
    assert await abandon(redis, keys)
    assert await shadow_keys(redis, keys) == []
    assert await redis.hexists(keys.readers, READER) is False
    assert not (await rebuild(redis, keys)).resumed
    assert await dump(redis, keys) == before


async def test_a_page_that_was_folded_for_an_abandoned_shadow_is_refused_by_the_next(
    redis: Redis, keys: PartitionKeys
) -> None:
    await history(redis, keys)
    await Shadow(redis, keys).enter()
    slow = Folding(redis, keys.shadow)
    stale = await slow.store.load()
    assert await Shadow(redis, keys).leave(everybody=True)
    await Shadow(redis, keys).enter()
    with pytest.raises(folding.Overtaken):
        await slow.catch_up(stale, asyncio.Event())
    assert await shadow_keys(redis, keys) == []


async def test_a_shadow_of_another_shape_is_begun_anew(
    redis: Redis, keys: PartitionKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history(redis, keys)
    before = await dump(redis, keys)
    await half(redis, keys, monkeypatch)
    old = await stats(redis, keys.shadow)
    await redis.set(keys.shadow.stats, write_stats(msgspec.structs.replace(old, shape=SHAPE + 1)))
    assert (await rebuild(redis, keys)).switched
    assert await dump(redis, keys) == before


async def test_views_of_another_shape_serve_while_a_projector_makes_them_anew(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = await history(redis, keys, scenes=6)
    whole = await dump(redis, keys)
    old = await stats(redis, keys)
    await redis.set(keys.stats, write_stats(msgspec.structs.replace(old, shape=SHAPE - 1)))
    rows_seen: set[int] = set()

    async def anew() -> bool:
        rows_seen.add(await redis.hlen(keys.jobs))
        return (await stats(redis, keys)).shape == SHAPE

    async with projecting(settings):
        await until(anew, "the views are made anew")
    assert rows_seen == {len(author.jobs)}
    assert await dump(redis, keys) == whole


async def test_what_belongs_to_no_view_and_a_checkpoint_from_nowhere_go(
    redis: Redis, keys: PartitionKeys
) -> None:
    author = await history(redis, keys)
    whole = await dump(redis, keys)
    await redis.zadd(keys.index("waiting", "no.such.type"), {packed(author.jobs[0]): 0})
    await redis.set(keys.checkpoint, "99999999999999-0")
    await redis.delete(keys.jobs)
    await redis.set(keys.jobs, "no hash")
    await rebuild(redis, keys)
    assert await dump(redis, keys) == whole


async def test_an_empty_log_makes_empty_views(redis: Redis, keys: PartitionKeys) -> None:
    await history(redis, keys, scenes=1)
    await redis.delete(keys.log)
    await rebuild(redis, keys)
    assert await dump(redis, keys) == {}


async def test_a_projector_forgets_the_rows_of_views_that_were_exchanged(
    settings: Settings, redis: Redis, keys: PartitionKeys
) -> None:
    author = Author(redis, keys)
    async with projecting(settings):
        [job] = await author.submit(1)
        await until(lambda: folded(redis, keys), "it is folded")
        await redis.hset(keys.jobs, packed(job), b'["failed","mail.send"]')
        await rebuild(redis, keys)
        worker = await author.enter()
        await author.finish(worker, [completed(one) for one in await author.take(worker, 1)])
        await until(lambda: folded(redis, keys), "its end is folded")
    row = (await rows(redis, keys))[job]
    assert (row.state, row.misfits) == ("completed", 0)


async def test_the_server_may_restart_meanwhile(own_server: RealServer, namespace: str) -> None:
    settings = Settings(redis_url=Secret(own_server.url), namespace=namespace)
    keys = Keys(namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        for _ in range(20):
            await author.submit(1000)
        task = asyncio.create_task(rebuild(redis, keys))
        await until(lambda: redis.exists(keys.shadow.checkpoint), "a page is folded")
        own_server.restart()
        done = await asyncio.wait_for(task, 60)
        assert done.switched
        assert await redis.hlen(keys.jobs) == len(author.jobs)
        before = await dump(redis, keys)
        await rebuild(redis, keys)
        assert await dump(redis, keys) == before
