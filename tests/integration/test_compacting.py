"""Small segments that are put together: no event, no gap and no snapshot is lost or told twice, whenever."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from archives import all_of, damage, epoch, live, segments
from histories import Author, folded, until
from penstock.core.connection import command
from penstock.core.errors import Refused
from penstock.core.keys import PartitionKeys
from penstock.core.positions import START, succeeding
from penstock.core.settings import Settings
from penstock.projections import snapshots
from penstock.projections.projector import PartitionProjector
from penstock.projections.replay import archiver, compacting
from penstock.projections.replay.archive import Archive, Segment, SegmentGone, Snapshots, Stored
from penstock.projections.replay.archiver import PartitionArchiver, leave
from penstock.projections.replay.compacting import RUN, Compaction, covering, runs
from penstock.projections.replay.draft import Draft
from penstock.projections.retention import Trimmer
from projectors import soon


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return soon(settings)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


def days_later(days: int = 3) -> datetime:
    """When what is written now is old."""
    return datetime.now(UTC) + timedelta(days=days)


def kept_snapshots(archive: Archive, keys: PartitionKeys, epoch: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    place = START
    while (copy := archive.following(keys, epoch, place)) is not None:
        found |= [copy]
        place = succeeding(copy[0])
    return found


async def write(author: Author, ours: PartitionArchiver, scenes: int) -> None:
    """A past of many small segments."""
    for _ in range(scenes):
        await author.scene(12)
        await until(lambda: folded(author.redis, author.keys), "all is folded")
        await ours.step(due=True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_read_is_the_same_before_and_after(
    settings: Settings,
    redis: Redis,
    keys: PartitionKeys,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 25)
    monkeypatch.setattr(compacting, "SEGMENT_EVENTS", random.Random(seed).choice((300, 50_000)))
    monkeypatch.setattr(snapshots, "EVERY", 20)
    author, archive, stop = Author(redis, keys, seed=seed), Archive(url, make=True), asyncio.Event()
    await author.dispatch.open()
    await command(redis, "SADD", keys.queues, "mail")
    ours = PartitionArchiver(redis, keys, archive, 0.001)
    await ours.enter()
    folding = asyncio.create_task(PartitionProjector(redis, keys).run(stop))
    await write(author, ours, 14)
    if seed == 2:  # a gap
        await leave(settings, url)
        await author.scene()
        await until(lambda: folded(redis, keys), "all is folded")
        await Trimmer(redis, keys, settings).sweep(stop)
        await ours.enter()
    await write(author, ours, 14)
    await Trimmer(redis, keys, settings).sweep(stop)
    stop.set()
    await asyncio.wait_for(folding, 20)
    now = await epoch(redis, keys)

    async def told() -> tuple[Any, ...]:
        stock = archive.stock(keys, now)
        assert stock is not None
        return await all_of(redis, keys, url), stock.removed, stock.end, kept_snapshots(archive, keys, now)

    before, listed = await told(), archive.listing(keys, now)
    assert len(before[0]) > len(await live(redis, keys))
    assert (before[1] != START) == (seed == 2)
    compaction = Compaction(archive, keys, now)
    compaction.run(datetime.now(UTC))
    assert archive.listing(keys, now) == listed, "today's stay as they are"
    compaction.run(days_later())
    merged = archive.listing(keys, now)
    assert {it.it for it in listed} < {it.it for it in merged}, "the small ones wait for a while"
    assert await told() == before
    with monkeypatch.context() as patient:
        patient.setattr(compacting, "GRACE", timedelta(days=9))
        compaction.run(days_later())
    assert {it.it for it in archive.listing(keys, now)} == {it.it for it in merged}
    compaction.run(days_later())
    rest = archive.listing(keys, now)
    assert len(rest) <= len(listed) - RUN
    assert {type(it.it) for it in rest} == {Segment, Snapshots}
    assert await told() == before
    gone = next(
        it.it for it in listed if isinstance(it.it, Segment) and it.it not in {one.it for one in rest}
    )
    with pytest.raises(SegmentGone):
        archive.read(keys, now, gone)
    compaction.run(days_later())
    assert archive.listing(keys, now) == rest, "there is no more to do"
    await ours.enter()  # an archiver goes on
    await author.scene()
    assert await ours.step(due=True)
    assert (await all_of(redis, keys, url))[: len(before[0])] == before[0]


async def small_segments(author: Author, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 25)
    await author.dispatch.open()
    ours = PartitionArchiver(author.redis, author.keys, archive, 0.001)
    await ours.enter()
    for _ in range(4):
        await author.scene()
        while await ours.step(due=True):
            pass
    stock = archive.stock(author.keys, await epoch(author.redis, author.keys))
    assert stock is not None
    assert len(stock.segments) > RUN
    return stock.segments


async def test_nothing_is_removed_for_one_that_was_damaged(
    redis: Redis, keys: PartitionKeys, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    author, archive = Author(redis, keys, seed=3), Archive(url, make=True)
    await small_segments(author, archive, monkeypatch)
    small = set(segments(url))
    compaction = Compaction(archive, keys, await epoch(redis, keys))
    compaction.run(days_later())
    [large, *_] = [it for it in segments(url) if it not in small]
    damage(Path(large))
    with pytest.raises(Refused, match=r"\.ndjson\.zst: "):
        compaction.run(days_later())
    assert small < set(segments(url))
    damage(Path(large))  # the same bit again
    compaction.run(days_later())
    assert not small & set(segments(url))


async def test_nothing_is_removed_for_one_that_has_less(
    redis: Redis,
    keys: PartitionKeys,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    author, archive = Author(redis, keys, seed=4), Archive(url, make=True)
    small, now = await small_segments(author, archive, monkeypatch), await epoch(redis, keys)
    draft = Draft(keys, now, START)
    for number, entry in enumerate(await all_of(redis, keys, url)):
        if number != 30:
            draft.write(entry)
    archive.add(keys, *draft.finish())
    Compaction(archive, keys, now).run(days_later())
    left = {it.it for it in archive.listing(keys, now)}
    assert [it for it in small if it in left] == [small[1]], "its 6th event is nowhere else"
    assert f"{small[1].name} is not what" in caplog.text


def test_runs_touch_are_of_one_day_and_within_limits() -> None:
    day, old = 24 * 3600 * 1000, datetime(2026, 1, 1, tzinfo=UTC)

    def segment(after: int, last: int, events: int = 10, size: int = 100) -> Stored:
        return Stored(Segment(f"{after}-0", f"{last}-0", events, "0" * 16), size, old)

    def small(first: int, count: int, **more: int) -> list[Stored]:
        return [segment(first + number, first + number + 1, **more) for number in range(count)]

    def sizes(found: list[Stored], today: int = 9) -> list[int]:
        return [len(run) for run in runs(found, 1_000, today)]

    assert sizes(small(5, RUN)) == [RUN]
    assert sizes(small(5, RUN - 1)) == []
    assert sizes(small(5, RUN) + small(6 + RUN, RUN)) == [RUN, RUN], "a hole is not bridged"
    assert sizes(small(5, RUN) + small(day, RUN)) == [RUN, RUN]
    assert sizes(small(day, RUN), today=2) == []
    assert sizes(small(day, RUN), today=3) == [RUN]
    assert sizes(small(5, 25, events=100)) == [10, 10]
    assert sizes(small(5, 20, size=compacting.MERGED_BYTES // 9)) == [9, 9]
    whole, part, other = segment(0, 9), segment(2, 9), segment(5, 12)
    twin = Stored(Segment("0-0", "9-0", 10, "1" * 16), 100, old)
    assert covering([other, part, twin, whole]) == [(whole, [part]), (other, [])]
