"""Projectors that trim, killed by SIGKILL at any moment: no live job loses an event, and the views are the
clean fold of what is left (I1, I10)."""

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
from penstock.core.lifecycle import TERMINAL, positions
from penstock.core.log import Log
from penstock.core.settings import Secret, Settings
from penstock.projections.rebuild import rebuild
from penstock.projections.store import ViewStore
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

ROOT: Final = Path(__file__).parents[2] / "infra" / "src"
PROGRAM: Final = """
import asyncio
from penstock.core.settings import read_settings
from penstock.projections.projector import run_projector
asyncio.run(run_projector(read_settings()))
"""


def start(settings: Settings) -> "subprocess.Popen[bytes]":
    """A projector that keeps ended jobs for a moment only."""
    kept = {f"PENSTOCK_RETENTION_{name.upper()}": "0.01" for name in TERMINAL}
    ours = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **ours, **kept}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environ, stderr=subprocess.DEVNULL)


async def test_killed_while_it_trims_nothing_is_lost_and_nothing_left_over(
    server: RealServer, namespace: str
) -> None:
    settings = Settings(redis_url=Secret(server.url), namespace=namespace)
    keys, chance = Keys(namespace).partition("mail"), random.Random(3)
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=3)
        await author.scene()
        trims = 0
        for _ in range(6):
            running = [start(settings) for _ in range(2)]
            try:
                begun = await command(redis, "HGET", keys.base, "trimmed")

                async def trimmed(begun: bytes | None = begun) -> bool:
                    await author.scene()  # so that there is always something to do
                    return bool(await command(redis, "HGET", keys.base, "trimmed") != begun)

                await until(trimmed, "something is trimmed")
                for _ in range(chance.randrange(8)):
                    await author.scene()
                trims += 1
            finally:
                for process in running:
                    process.kill()
                    process.wait()
        assert trims == 6
        last = start(settings)
        try:

            async def only_live() -> bool:
                counts = (await stats(redis, keys)).counts()
                return not any(getattr(counts, state) for state in TERMINAL)

            await until(only_live, "all that ended is gone")
            await until(lambda: folded(redis, keys), "all is folded")
        finally:
            last.kill()
            last.wait()
        totals, live = (await stats(redis, keys)).totals, await rows(redis, keys)
        assert (totals.submitted, totals.misfits) == (len(author.jobs), 0)
        assert totals.submitted - totals.completed - totals.failed == len(live)
        log = Log(redis, keys)
        for job, row in live.items():
            assert len(await log.read(positions(job, row))) == len(positions(job, row))
        left = await log.page("0-0", 100_000)
        assert {event.job for event in left if event.tag != "trimmed"} == set(live)
        before = await dump(redis, keys)
        assert await ViewStore(redis, keys).checkpoint() == left[-1].position
        await rebuild(redis, keys)
        assert await dump(redis, keys) == before
