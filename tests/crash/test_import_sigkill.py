"""Imports, and repairs that put what was imported into lanes, killed by SIGKILL at any moment: of a log there
is nothing or all, and each job stands in a lane once."""

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from histories import Author, until
from penstock.core.connection import command, connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START
from penstock.core.settings import Secret, Settings
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.verify import verify
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

JOBS: Final = 1_200
ROOT: Final = Path(__file__).parents[2] / "infra" / "src"
PROGRAM: Final = """
import asyncio, sys
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.settings import read_settings
from penstock.projections.replay import importing
from penstock.projections.replay.verify import verify

importing._PAGE = 5  # many steps, to be killed between any two

async def main():
    settings = read_settings()
    if sys.argv[1:]:
        await importing.bring_in(settings, sys.argv[1:], "", lambda *_: None)
        return
    async with connect(settings) as redis:
        keys = Keys(settings.namespace).partition("mail")
        await verify(redis, keys, imported=True, mend=lambda _: None)

asyncio.run(main())
"""


def start(settings: Settings, *words: str) -> "subprocess.Popen[bytes]":
    """A process that imports these files, or repairs if there are none."""
    ours = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **ours}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], env=environ, stderr=subprocess.DEVNULL)


async def killed(settings: Settings, deep: Callable[[], Awaitable[Any]], *words: str) -> None:
    """Start the program, and kill it when it has come so far."""
    process = start(settings, *words)
    try:
        await until(deep, "it has come so far", 60)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def history(redis: Redis, settings: Settings, path: Path) -> list[Any]:
    """A log of jobs that wait, exported; answers its entries."""
    keys = Keys(settings.namespace).partition("mail")
    author = Author(redis, keys, seed=4)
    for _ in range(3):
        await author.submit(JOBS // 3)
    await export(settings, Asked(queue="mail"), str(path), lambda *_: None)
    return await Log(redis, keys).entries(START, 100_000)


async def length(redis: Redis, pattern: str) -> int:
    """How many entries there are in streams of such names."""
    names = [name async for name in redis.scan_iter(match=pattern, count=1_000)]
    return max([await redis.xlen(name) for name in names], default=0)


async def test_an_import_is_there_whole_or_not_at_all(
    server: RealServer, namespace: str, tmp_path: Path
) -> None:
    chance, path = random.Random(3), tmp_path / "log.ndjson.zst"
    url = Secret(server.url)
    copy = Settings(redis_url=url, namespace=f"{namespace}-copy")
    keys = Keys(copy.namespace).partition("mail")
    async with connect(copy) as redis:
        log = await history(redis, Settings(redis_url=url, namespace=namespace), path)
        arriving = f"{copy.namespace}:arriving:*"
        for _ in range(3):
            goal = chance.randrange(1, JOBS - 100)

            async def deep(goal: int = goal) -> bool:
                return await length(redis, arriving) >= goal

            await killed(copy, deep, str(path))
            assert await redis.exists(keys.log, keys.base) == 0
            for name in [name async for name in redis.scan_iter(match=arriving)]:
                assert 0 < await redis.ttl(name) <= 600
                await redis.delete(name)

        async def whole() -> bool:
            return bool(await redis.exists(keys.log))

        await killed(copy, whole, str(path))
        assert await Log(redis, keys).entries(START, 100_000) == log
        assert await redis.ttl(keys.log) == -1
        await rebuild(redis, keys)
        told = await verify(redis, keys)
        assert (told.findings, told.history) == ([], JOBS)
        await put_to_work(redis, copy, keys)


async def put_to_work(redis: Redis, copy: Settings, keys: PartitionKeys) -> None:
    """What was imported is put into lanes, by some that are killed and one that is not."""
    later = keys.lanes[3]
    for goal in (150, 500):

        async def deep(goal: int = goal) -> bool:
            return int(await command(redis, "XLEN", later)) >= goal

        await killed(copy, deep)
        assert await redis.xlen(later) < JOBS
    await rebuild(redis, keys)
    await verify(redis, keys, imported=True, mend=lambda _: None)
    entries = [(position, fields[1]) for position, fields in await command(redis, "XRANGE", later, "-", "+")]
    assert Counter(job for _, job in entries) == Counter(
        position for position, fields in await Log(redis, keys).entries(START, 1_000_000) if not fields[3]
    )
    tags = Counter(fields[1] for _, fields in await Log(redis, keys).entries(START, 1_000_000))
    assert tags == {b"submitted": JOBS, b"rescheduled": JOBS}
    await rebuild(redis, keys)
    told = await verify(redis, keys, imported=True)
    assert (told.findings, told.history) == ([], 0)
