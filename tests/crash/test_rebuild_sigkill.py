"""Rebuilds killed by SIGKILL at any moment, beside a projector at work: the views in use go on serving, the
next rebuild goes on with the work, and in the end the views are the clean fold (I1, I6)."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from histories import Author, dump, folded, rows, stats, until
from penstock.core.connection import command, connect
from penstock.core.keys import Keys
from penstock.core.settings import Secret, Settings
from penstock.projections.projector import run_projector
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.verify import verify
from penstock.projections.shadow import READER
from servers import RealServer

pytestmark = pytest.mark.crash

ROOT: Final = Path(__file__).parents[2] / "infra" / "src"
PROGRAM: Final = """
import asyncio, sys
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.settings import read_settings
from penstock.projections.rebuild import rebuild

async def main():
    settings = read_settings()
    async with connect(settings) as redis:
        print("ready", flush=True)
        while True:
            done = await rebuild(redis, Keys(settings.namespace).partition("mail"))
            print("resumed" if done.resumed else "whole", flush=True)

asyncio.run(main())
"""


def start(settings: Settings) -> "subprocess.Popen[bytes]":
    """A process that rebuilds again and again."""
    ours = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **ours}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environ, stdout=subprocess.PIPE)


async def test_killed_at_any_moment_the_old_views_serve_and_the_next_goes_on(
    server: RealServer, namespace: str
) -> None:
    settings = Settings(redis_url=Secret(server.url), namespace=namespace)
    keys, chance, stop = Keys(namespace).partition("mail"), random.Random(11), asyncio.Event()
    resumed = 0
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=11)
        for _ in range(8):
            await author.submit(500)
        projector = asyncio.create_task(run_projector(settings, stop=stop))
        await until(lambda: folded(redis, keys), "all is folded")
        for _ in range(8):
            process = start(settings)
            try:
                assert process.stdout is not None
                assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
                if await redis.hexists(keys.readers, READER):
                    resumed += 1
                    assert await asyncio.to_thread(process.stdout.readline) == b"resumed\n"
                await author.scene()
                # Sooner or later in its work, wherever that is.
                wanted = chance.choice((1_000, 2_000, 3_000))

                async def deep(wanted: int = wanted) -> bool:
                    return bool(await command(redis, "HLEN", keys.shadow.jobs) >= wanted)

                await until(deep, "the rebuild is so far")
            finally:
                process.kill()
                process.wait()
            assert await redis.hlen(keys.jobs) >= 4_000, "the views in use serve"
        await until(lambda: folded(redis, keys), "the projector goes on")
        assert resumed > 2
        await rebuild(redis, keys)
        stop.set()
        await asyncio.wait_for(projector, 20)
        assert [name async for name in redis.scan_iter(match=keys.shadow.views)] == []
        assert set(await rows(redis, keys)) == set(author.jobs)
        counted = await stats(redis, keys)
        assert (counted.totals.submitted, counted.totals.misfits) == (len(author.jobs), 0)
        assert (await verify(redis, keys)).findings == []
        before = await dump(redis, keys)
        await rebuild(redis, keys)
        assert await dump(redis, keys) == before
