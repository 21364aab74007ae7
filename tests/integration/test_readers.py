"""A reader of the log that stands still holds retention back, and is named for it."""

import asyncio

import pytest
from redis.asyncio import Redis

from histories import Author, folded, until
from penstock.core import telemetry
from penstock.core.keys import PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START, milliseconds
from penstock.core.settings import Settings
from penstock.projections import retention
from penstock.projections.metrics import StateProbe
from penstock.projections.replay.archive import reader_of
from penstock.projections.retention import Trimmer
from projectors import folding, soon


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return soon(settings)


async def sweep(trimmer: Trimmer, redis: Redis, keys: PartitionKeys) -> None:
    async with folding(redis, keys):
        await until(lambda: folded(redis, keys), "all is folded")
        await trimmer.sweep(asyncio.Event())


async def test_who_holds_back_what_should_have_gone_long_ago_is_named_once_an_hour(
    settings: Settings,
    redis: Redis,
    keys: PartitionKeys,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    author, trimmer, archive = Author(redis, keys), Trimmer(redis, keys, settings), reader_of("s3://b/a")
    await author.scene()
    await redis.hset(keys.readers, mapping={archive: START, "webhook:shop:1": author.jobs[0], "mine": "5-0"})
    await redis.hset(keys.readers, "attentive", await Log(redis, keys).tip())

    def named() -> list[str]:
        return [it.getMessage() for it in caplog.records if "what it has not seen is kept" in it.getMessage()]

    await sweep(trimmer, redis, keys)
    assert named() == [], "nobody has waited for an hour"
    monkeypatch.setattr(retention, "PATIENCE_MS", 0)
    for _ in range(2):
        await sweep(trimmer, redis, keys)
        assert sorted(it.split()[1] for it in named()) == sorted([archive, "mine", "webhook:shop:1"])
    for name, way in (
        (f"{archive} has seen nothing of it", "penstock archiver --to … --leave"),
        ("webhook:shop:1 has seen up to 20", "penstock webhook remove …"),
        ("mine has seen up to 1970-01-01", f"HDEL {keys.readers} mine"),
    ):
        [text] = [it for it in named() if name in it]
        assert text.endswith(way)
    monkeypatch.setattr(retention, "_AGAIN_S", 0)
    await sweep(trimmer, redis, keys)
    assert len(named()) == 6
    await redis.delete(keys.readers)
    await sweep(trimmer, redis, keys)
    assert len(named()) == 6


async def test_how_far_the_slowest_reader_is_behind_is_measured(
    settings: Settings, author: Author, redis: Redis, keys: PartitionKeys
) -> None:
    probe = StateProbe(settings)

    async def lag() -> float:
        [sample] = [it for it in await probe._read() if it.instrument is telemetry.READER_LAG]
        assert isinstance(sample.value, float)
        return sample.value

    assert await lag() == 0
    await author.scene()
    tip = await Log(redis, keys).tip()
    assert await lag() == 0, "there is no reader"
    await redis.hset(keys.readers, mapping={"a": tip, "b": author.jobs[2]})
    assert await lag() == (milliseconds(tip) - milliseconds(author.jobs[2])) / 1000
    await redis.hset(keys.readers, "b", START)
    [first] = await Log(redis, keys).entries(START, 1)
    assert await lag() == (milliseconds(tip) - milliseconds(first[0].decode())) / 1000
    await redis.hdel(keys.readers, "b")
    assert await lag() == 0
    await probe.close()
