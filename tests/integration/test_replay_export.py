"""Export → import → rebuild gives the original's views byte for byte, whatever has happened; and where
something is not right, nothing is changed."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from moto.server import ThreadedMotoServer
from redis.asyncio import Redis

from histories import Author, dump, folded, until
from penstock.core.connection import command, connect
from penstock.core.control import Control
from penstock.core.errors import NotFound, Refused
from penstock.core.events import QueueLimited
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL
from penstock.core.log import Entry, Log
from penstock.core.positions import milliseconds
from penstock.core.settings import Secret, Settings
from penstock.core.story import tell
from penstock.projections.projector import PartitionProjector
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.replay.exporting import Asked, Exported, export
from penstock.projections.replay.files import reading
from penstock.projections.replay.forms import entries
from penstock.projections.replay.history import opened
from penstock.projections.replay.holds import READER, holding, let_go
from penstock.projections.replay.importing import Imported, bring_in
from penstock.projections.retention import Trimmer
from servers import RealServer


@pytest.fixture
def settings(server: RealServer, namespace: str) -> Settings:
    kept: dict[str, Any] = {f"retention_{name}": 0.001 for name in sorted(TERMINAL)}
    return Settings(redis_url=Secret(server.url), namespace=namespace, **kept)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with connect(settings) as client:
        yield client


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    return Keys(namespace).partition("mail")


def elsewhere(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, namespace=f"{settings.namespace[:12]}-copy")


async def out(settings: Settings, path: Path | str, **asked: Any) -> Exported:
    return await export(settings, Asked(queue="mail", **asked), str(path), lambda *_: None)


async def back(settings: Settings, *paths: Path | str, queue: str = "") -> Imported:
    return await bring_in(settings, [str(path) for path in paths], queue, lambda *_: None)


async def log_of(redis: Redis, keys: PartitionKeys) -> list[Entry]:
    return [(position, fields) for position, fields in await Log(redis, keys).entries("0-0", 100_000)]


async def sweep(settings: Settings, redis: Redis, keys: PartitionKeys) -> None:
    """Trim all that is due, with a projector at work."""
    stop = asyncio.Event()
    task = asyncio.create_task(PartitionProjector(redis, keys).run(stop))
    await until(lambda: folded(redis, keys), "all is folded")
    await asyncio.wait_for(Trimmer(redis, keys, settings).sweep(asyncio.Event()), 20)
    await until(lambda: folded(redis, keys), "all is folded")
    stop.set()
    await asyncio.wait_for(task, 10)


def views(dumped: dict[str, Any]) -> dict[str, Any]:
    """Views by their names, without those of queue and namespace."""
    return {name.partition("}")[2]: value for name, value in dumped.items()}


@pytest.mark.parametrize("form", ["ndjson.zst", "parquet"])
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_export_import_rebuild_is_the_original(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path, seed: int, form: str
) -> None:
    author, chance, control = Author(redis, keys, seed=seed), random.Random(seed), Control(redis, keys)
    await author.dispatch.open()
    for _ in range(chance.randint(4, 8)):
        await author.scene()
        match chance.randrange(5):
            case 0:
                await control.pause(by="ada")
                await control.resume(by="ada")
            case 1:
                await control.limit(QueueLimited(rate=500, by="ada"))
            case 2:
                await sweep(settings, redis, keys)
            case 3:
                await command(redis, "XADD", keys.log, "*", "foreign", "entry")
    await rebuild(redis, keys)
    original, log = await dump(redis, keys), await log_of(redis, keys)
    exported = await out(settings, tmp_path / f"log.{form}")
    assert exported.manifest.events == len(log)
    copy, other = elsewhere(settings), Keys(elsewhere(settings).namespace).partition("post")
    imported = await back(copy, tmp_path / f"log.{form}", queue="post")
    assert (imported.queue, imported.events) == ("post", len(log))
    assert imported.epoch != exported.manifest.epoch == (await command(redis, "GET", keys.epoch)).decode()
    assert await log_of(redis, other) == log
    await rebuild(redis, other)
    assert views(await dump(redis, other)) == views(original)
    assert await command(redis, "TTL", other.log) == -1
    assert await redis.keys(f"{copy.namespace}*arriving*") == []


async def test_a_projector_that_waits_there_folds_what_comes_with_its_base(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=5)
    await author.scene()
    await sweep(settings, redis, keys)
    await author.scene()
    await rebuild(redis, keys)
    await out(settings, tmp_path / "log.ndjson")
    copy = elsewhere(settings)
    other, stop = Keys(copy.namespace).partition("mail"), asyncio.Event()
    projecting = asyncio.create_task(PartitionProjector(redis, other).run(stop))
    await back(copy, tmp_path / "log.ndjson")
    await until(lambda: folded(redis, other), "the projector folds it")
    stop.set()
    await asyncio.wait_for(projecting, 10)
    assert views(await dump(redis, other)) == views(await dump(redis, keys))


async def test_stretches_that_follow_one_another_are_the_log(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=6)
    await author.dispatch.open()
    for _ in range(3):
        await author.scene()
        await asyncio.sleep(0.002)  # so that there is a moment in between
    log = await log_of(redis, keys)
    moment = milliseconds(log[len(log) // 2][0].decode())
    one, two, gap = (tmp_path / f"{name}.ndjson.zst" for name in ("one", "two", "gap"))
    first = await out(settings, one, until=moment)
    second = await out(settings, two, since=moment)
    await out(settings, gap, since=moment + 1)
    assert 0 < first.manifest.events < len(log)
    assert first.manifest.events + second.manifest.events == len(log)
    copy = elsewhere(settings)
    other = Keys(copy.namespace).partition("mail")
    with pytest.raises(Refused, match=r"gap\.ndjson\.zst does not go on where .*one\.ndjson\.zst ends"):
        await back(copy, one, gap)
    with pytest.raises(Refused, match="does not go on"):
        await back(copy, two, one)
    assert not await redis.exists(other.log)
    assert (await back(copy, one, two)).events == len(log)
    assert await log_of(redis, other) == log


async def test_one_jobs_story_travels_alone(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=7)
    for _ in range(2):
        await author.scene()
    job = author.jobs[3]
    path = tmp_path / "job.ndjson"
    exported = await out(settings, path, job=job, redact=("payload.to",))
    assert exported.manifest.redacted == ("payload.to",)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["position"] for line in lines[:-1]] == [it.position for it in await tell(redis, keys, job)]
    assert {line["job"] for line in lines[:-1]} == {f"mail.0.{job}"}
    assert lines[0]["data"]["payload"] == {"to": "[redacted]"}
    assert "ada@example.org" not in path.read_text()
    copy = elsewhere(settings)
    await back(copy, path)
    there = await tell(redis, Keys(copy.namespace).partition("mail"), job)
    assert [event.tag for event in there] == [event.tag for event in await tell(redis, keys, job)]
    with pytest.raises(NotFound, match=r"no job mail\.0\.5-5 in the log"):
        await out(settings, tmp_path / "none.ndjson", job="5-5")
    assert not (tmp_path / "none.ndjson").exists()


async def test_nothing_is_put_over_a_log_and_nothing_damaged_comes_in(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=8)
    await author.scene()
    path = tmp_path / "log.ndjson"
    await out(settings, path)
    log = await log_of(redis, keys)
    with pytest.raises(Refused, match="queue 'mail' has a log already"):
        await back(settings, path)
    assert await log_of(redis, keys) == log
    copy = elsewhere(settings)
    other = Keys(copy.namespace).partition("mail")
    changed, cut = tmp_path / "changed.ndjson", tmp_path / "cut.ndjson"
    changed.write_text(path.read_text().replace("ada@", "eve@", 1))
    cut.write_text(path.read_text()[:-500])
    with pytest.raises(Refused, match="the checksum is wrong"):
        await back(copy, changed)
    with pytest.raises(Refused, match="the end is missing"):
        await back(copy, cut)
    await redis.set(keys.epoch, "another")
    await out(settings, tmp_path / "later.ndjson")
    with pytest.raises(Refused, match="two logs, which are not mixed"):
        await back(copy, path, tmp_path / "later.ndjson")
    with pytest.raises(Refused, match="'Ab' is no queue's name"):
        await back(copy, path, queue="Ab")
    assert await redis.keys(f"{copy.namespace}*") == []
    await back(copy, path)
    with pytest.raises(Refused, match="has a log already"):
        await back(copy, path)
    assert await log_of(redis, other) == log


async def test_retention_waits_while_a_log_is_read(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=9)
    await author.scene()
    log = await log_of(redis, keys)
    async with holding(redis, keys, "0-0"):
        await sweep(settings, redis, keys)
        assert await log_of(redis, keys) == log
    assert await redis.hlen(keys.readers) == 0
    await redis.hset(keys.readers, f"{READER}1000:dead", "0-0")  # of a process that was killed, long ago
    async with holding(redis, keys, "5-0"):
        await out(settings, tmp_path / "log.ndjson")
        assert await let_go(redis, keys) == 0, "an export has done it"
        assert list((await redis.hgetall(keys.readers)).values()) == [b"5-0"]
    await sweep(settings, redis, keys)
    assert len(await log_of(redis, keys)) < len(log)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of a real S3-compatible server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    httpx.put(f"http://{host}:{port}/{name}").raise_for_status()
    yield name
    server.stop()


async def test_an_object_store_serves_as_well(
    settings: Settings, redis: Redis, keys: PartitionKeys, bucket: str
) -> None:
    author = Author(redis, keys, seed=10)
    await author.scene()
    log, copy = await log_of(redis, keys), elsewhere(settings)
    for form in ("ndjson.zst", "parquet"):
        url = f"s3://{bucket}/some/folder/log.{form}"
        await out(settings, url)
        with reading(url) as file:
            assert list(entries(url, file))[:-1] == log
        with pytest.raises(Refused, match="is there already"):
            await out(settings, url)
    assert (await back(copy, url)).events == len(log)
    ours = PartitionArchiver(redis, keys, Archive(f"s3://{bucket}/archive", make=True), 60)
    await ours.enter()
    assert await ours.step(due=True)
    history, now = await opened(redis, keys, Archive(f"s3://{bucket}/archive/"))
    await redis.delete(keys.log)
    assert now.last == log[-1][0].decode()
    assert await history.entries("0-0", 100_000) == log
    with pytest.raises(Refused, match=r"s3://.*/nosuch: there is no such file"):
        await back(copy, f"s3://{bucket}/nosuch")
