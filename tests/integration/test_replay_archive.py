"""Archive and live log together are the log as if nothing had ever been removed from it."""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from archives import all_of, damage, epoch, live, named, segments
from commands import Command
from histories import Author, folded, until
from penstock.core.connection import command, connect
from penstock.core.errors import Refused
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START, order, succeeding
from penstock.core.settings import Secret, Settings
from penstock.core.story import tell
from penstock.projections import snapshots
from penstock.projections.replay import archiver, files, history
from penstock.projections.replay.archive import Archive, Segment, Stock, reader_of
from penstock.projections.replay.archiver import Moved, PartitionArchiver, leave, run_archiver
from penstock.projections.replay.grep import grep
from penstock.projections.replay.history import opened
from penstock.projections.replay.importing import bring_in
from penstock.projections.replay.sieve import Sought
from penstock.projections.replay.span import Span, partly, span
from penstock.projections.retention import Trimmer
from processes import exit_code
from projectors import folding, soon
from servers import RealServer


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return soon(settings)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


async def sweep(settings: Settings, redis: Redis, keys: PartitionKeys) -> None:
    """Trim all that may go."""
    await until(lambda: folded(redis, keys), "all is folded")
    await asyncio.wait_for(Trimmer(redis, keys, settings).sweep(asyncio.Event()), 20)
    await until(lambda: folded(redis, keys), "all is folded")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_archive_and_live_log_are_the_untrimmed_log(
    settings: Settings,
    redis: Redis,
    keys: PartitionKeys,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 40)
    chance, author = random.Random(seed), Author(redis, keys, seed=seed)
    await author.dispatch.open()
    written: dict[bytes, list[bytes]] = {}
    ours = PartitionArchiver(redis, keys, Archive(url, make=True), 0.001)
    await ours.enter()
    async with folding(redis, keys):
        for _ in range(8):
            await author.scene()
            written |= await live(redis, keys)
            for _ in range(chance.randrange(4)):
                await ours.step(due=chance.random() < 0.5)
            if chance.random() < 0.3:  # another one goes on
                ours = PartitionArchiver(redis, keys, Archive(url), 0.001)
                await ours.enter()
            await sweep(settings, redis, keys)
            written |= await live(redis, keys)
            assert await all_of(redis, keys, url) == list(written.items())
    assert len(await live(redis, keys)) < len(written)
    jobs = [it for it in author.jobs if not await tell(redis, keys, it)]
    assert jobs
    log, _ = await opened(redis, keys, Archive(url))
    assert isinstance(log, history.History)
    for job in [*chance.sample(jobs, 5), author.jobs[-1]]:
        expected = [at for at, it in written.items() if it[3] == job.encode() or at == job.encode()]
        assert [event.position.encode() for event in await log.story(job)] == expected
    assert await log.story("5-5") == []
    sought = Sought(type="mail.send", events=frozenset({"completed"}))
    sent = [at for at, it in written.items() if it[1] == b"submitted" and b'"mail.send"' in it[5]]
    wanted = [at.decode() for at, it in written.items() if it[1] == b"completed" and it[3] in sent]
    some = wanted[len(wanted) // 2]
    stretch = Span(some, await log.tip())  # jobs that were submitted before it are looked up
    found = [told async for part in grep(log, stretch, sought) for told in part.found]
    assert [told.read[0].position for told in found] == wanted[wanted.index(some) + 1 :]
    assert {told.type for told in found} <= {"mail.send"}


async def test_retention_waits_for_the_archive_until_it_leaves(
    settings: Settings, redis: Redis, keys: PartitionKeys, url: str
) -> None:
    author = Author(redis, keys, seed=4)
    await author.scene()
    await command(redis, "SADD", keys.queues, "mail")
    ours = PartitionArchiver(redis, keys, Archive(url, make=True), 60)
    await ours.enter()
    before = await live(redis, keys)
    async with folding(redis, keys):
        await sweep(settings, redis, keys)
        assert await live(redis, keys) == before
        assert not await ours.step()  # it is not old enough
        assert await leave(settings, url) == 1
        await sweep(settings, redis, keys)
        assert len(await live(redis, keys)) < len(before)
    with pytest.raises(Moved):
        await ours.step(due=True)
    await ours.enter()  # what went is not in the archive, and that is known
    assert await ours.step(due=True)
    log, now = await opened(redis, keys, Archive(url))
    assert now.removed != START
    assert partly(keys, now, span(keys, now, None, None)) != ""
    assert await all_of(redis, keys, url) == list((await live(redis, keys)).items())
    assert isinstance(log, history.History)


async def test_segments_are_exports_that_can_be_imported(
    settings: Settings,
    redis: Redis,
    keys: PartitionKeys,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 50)
    author = Author(redis, keys, seed=5)
    await author.dispatch.open()
    stop = asyncio.Event()
    task = asyncio.create_task(run_archiver(settings, url, 0.1, stop))
    await command(redis, "SADD", keys.queues, "mail")
    for _ in range(3):
        await author.scene()

    async def at_work() -> bool:
        return bool(await command(redis, "HEXISTS", keys.readers, reader_of(url)))

    await until(at_work, "it is at work")
    await author.scene()
    stop.set()
    await asyncio.wait_for(task, 20)  # what is in the log is put before it ends
    files = segments(url)
    assert len(files) > 2
    copy = msgspec.structs.replace(settings, namespace=f"{settings.namespace[:12]}-copy")
    await bring_in(copy, files, "", lambda *_: None)
    assert await live(redis, Keys(copy.namespace).partition("mail")) == await live(redis, keys)


async def test_snapshots_of_the_figures_are_there_when_they_have_gone_from_the_server(
    redis: Redis,
    keys: PartitionKeys,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(snapshots, "EVERY", 50)
    author, archive = Author(redis, keys, seed=11), Archive(url, make=True)
    await author.dispatch.open()
    ours = PartitionArchiver(redis, keys, archive, 0.001)
    await ours.enter()
    made: dict[str, bytes] = {}
    for number in range(6):
        async with folding(redis, keys):  # a snapshot is kept after the views are, so wait for its end
            await author.scene()
            await until(lambda: folded(redis, keys), "all is folded")
        found = await command(redis, "XRANGE", keys.snapshots, "-", "+")
        made |= {place.decode(): fields[1] for place, fields in found}
        assert await ours.step(due=True)
        await redis.delete(keys.snapshots)
        if number == 3:  # another one goes on
            ours = PartitionArchiver(redis, keys, archive, 0.001)
            await ours.enter()
    assert len(made) >= 3
    now, place = await epoch(redis, keys), START
    kept: dict[str, bytes] = {}
    while (copy := archive.following(keys, now, place)) is not None:
        kept |= [copy]
        assert archive.following(keys, now, copy[0]) == copy
        place = succeeding(copy[0])
    assert kept == made
    assert archive.following(keys, "another", START) is None
    await redis.xadd(keys.snapshots, {"stats": '{"cut'}, id=place)
    await author.scene()
    assert await ours.step(due=True)
    assert archive.following(keys, now, place) is None
    assert "could not copy" not in caplog.text
    await redis.delete(keys.snapshots)
    await redis.set(keys.snapshots, "of another kind")
    await author.scene()
    assert await ours.step(due=True)  # nothing depends on them
    assert "could not copy snapshots" in caplog.text
    damage(Path(named(url, "snapshots_*")[0]))
    with pytest.raises(Refused, match=r"snapshots_.*: it was damaged"):
        archive.following(keys, now, min(made, key=order))


async def test_a_server_that_restarts_is_waited_for(
    make_server: Callable[..., RealServer], namespace: str, url: str
) -> None:
    server = make_server("redis", fsync="always")
    settings = Settings(redis_url=Secret(server.url), namespace=namespace)
    keys, stop = Keys(namespace).partition("mail"), asyncio.Event()
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=9)
        await author.scene()
        await command(redis, "SADD", keys.queues, "mail")
        task = asyncio.create_task(run_archiver(settings, url, 0.1, stop))

        async def archived() -> bool:
            place = await command(redis, "HGET", keys.readers, reader_of(url))
            return place is not None and bool(place.decode() == await Log(redis, keys).tip())

        await until(archived, "all is archived")
        server.restart()
        await redis.connection_pool.disconnect()  # of this test's own client
        await author.scene()
        await until(archived, "what came after the restart is archived too")
        stop.set()
        await asyncio.wait_for(task, 20)
        assert await all_of(redis, keys, url) == list((await live(redis, keys)).items())


async def test_the_setting_names_the_archive_where_no_option_does(
    settings: Settings, redis: Redis, keys: PartitionKeys, url: str, penstock: Callable[..., Command]
) -> None:
    author = Author(redis, keys, seed=12)
    await author.scene()
    ours = PartitionArchiver(redis, keys, Archive(url, make=True), 60)
    await ours.enter()
    await ours.step(due=True)
    async with folding(redis, keys):
        await sweep(settings, redis, keys)
    gone, *_ = [it for it in author.jobs if not await tell(redis, keys, it)]
    environ = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    shown = penstock("replay", "show", f"mail.0.{gone}", **environ, PENSTOCK_ARCHIVE_URL=url)
    assert await exit_code(shown) == 0, shown.output
    unknown = penstock("replay", "show", f"mail.0.{gone}", **environ)
    assert await exit_code(unknown) == 1, unknown.output
    homeless = penstock("archiver", **environ)
    assert await exit_code(homeless) == 2
    assert "say where the archive is: --to" in homeless.output


async def test_a_log_that_was_lost_begins_another_archive(
    redis: Redis, keys: PartitionKeys, url: str, settings: Settings
) -> None:
    author = Author(redis, keys, seed=6)
    await author.scene()
    ours = PartitionArchiver(redis, keys, Archive(url, make=True), 60)
    await ours.enter()
    await ours.step(due=True)
    first = await epoch(redis, keys)
    await redis.delete(keys.epoch, keys.log, *keys.lanes, keys.readers, keys.sender("author"))
    again = Author(redis, keys, seed=7)
    await again.scene()
    with pytest.raises(Moved):
        await ours.step(due=True)
    await ours.enter()
    await ours.step(due=True)
    second = await epoch(redis, keys)
    assert first != second
    assert await all_of(redis, keys, url) == list((await live(redis, keys)).items())
    assert {Path(it).parent.name for it in segments(url)} == {first, second}


async def test_what_is_no_archive_or_was_changed_is_refused(
    redis: Redis, keys: PartitionKeys, url: str, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=8)
    await author.scene()
    with pytest.raises(Refused, match=r"nowhere: there is no such folder"):
        Archive(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    empty = Archive(str(tmp_path / "empty"))
    log, _ = await opened(redis, keys, empty)  # nothing is missing yet
    assert await log.entries(START) == await Log(redis, keys).entries(START)
    await redis.xdel(keys.log, await Log(redis, keys).tip())
    with pytest.raises(Refused, match="there is no archive"):
        await opened(redis, keys, empty)
    ours = PartitionArchiver(redis, keys, Archive(url, make=True), 60)
    await ours.enter()
    await ours.step(due=True)
    segment = Path(segments(url)[0])
    damage(segment)
    with pytest.raises(Refused, match=r"\.ndjson\.zst: "):
        await all_of(redis, keys, url)
    damage(segment.parent / "manifest.json")
    with pytest.raises(Refused, match=r"manifest\.json: "):
        await all_of(redis, keys, url)


def test_what_is_put_into_a_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []  # the inode, and whether the object had its name then
    there, fsync = tmp_path / "archive/mail.0/e", os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        synced.append((os.fstat(handle).st_ino, (there / "one.json").exists()))

    monkeypatch.setattr(os, "fsync", noted)
    store = files.open_store(str(tmp_path / "archive"), make=True)
    files.put(store, "mail.0/e/one.json", b"{}")
    folders = [there, *there.parents[:2]]
    assert synced == [
        (tmp_path.stat().st_ino, False),
        ((there / "one.json").stat().st_ino, False),
        *((folder.stat().st_ino, True) for folder in folders),
    ]
    assert [it.name for it in there.iterdir()] == ["one.json"]


def test_overlapping_segments_are_read_once() -> None:
    def segment(after: int, last: int) -> Segment:
        return Segment(f"{after}-0", f"{last}-0", 1, "0" * 16)

    stock = Stock([segment(0, 5), segment(0, 7), segment(5, 9), segment(12, 14)], START)
    assert stock.after("0-0") == segment(0, 7)
    assert stock.after("7-0") == segment(5, 9)
    assert stock.after("9-0") == segment(12, 14)  # behind a gap
    assert stock.after("14-0") is None
    assert stock.end == "14-0"
    assert stock.holding("6-0") == segment(5, 9)
    assert stock.holding("11-0") is None
    assert stock.upto("5-0") == segment(0, 7)
    assert stock.upto("11-0") == segment(5, 9)  # before a gap
    assert stock.upto("0-0") is None
