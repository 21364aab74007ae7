"""Projectors killed by SIGKILL at any moment, and two at once, leave the views as one clean fold (I6)."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from histories import Author, completed, dump, folded, stats, until
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.settings import Settings
from penstock.projections.rebuild import rebuild
from penstock.projections.store import ViewStore

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

ROOT: Final = Path(__file__).parents[2] / "infra" / "src"
PROGRAM: Final = """
import asyncio
from penstock.core.settings import read_settings
from penstock.projections.projector import run_projector
asyncio.run(run_projector(read_settings()))
"""


class Projectors:
    """Projector processes of the test's own."""

    def __init__(self, settings: Settings) -> None:
        self._environ: Final = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PENSTOCK_REDIS_URL": settings.redis_url.reveal(),
            "PENSTOCK_NAMESPACE": settings.namespace,
        }
        self.running: Final[list[subprocess.Popen[bytes]]] = []

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=self._environ, stderr=subprocess.PIPE)
        self.running.append(process)
        return process

    def kill(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
        self.running.clear()


@pytest.fixture
def projectors(settings: Settings) -> Iterator[Projectors]:
    projectors = Projectors(settings)
    yield projectors
    projectors.kill()


async def test_killed_in_mid_work_and_two_at_once_the_views_are_one_clean_fold(
    settings: Settings, projectors: Projectors
) -> None:
    chance = random.Random(4)
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=4)
        for _ in range(40):
            await author.submit(1000)
        store = ViewStore(redis, keys)
        cut_short = kills = 0
        worker = await author.enter()
        while kills < 5:
            projectors.start()
            projectors.start()
            begun = await store.checkpoint()
            await author.submit(100)  # or there may be nothing left to fold

            async def moved(begun: str = begun) -> bool:
                return await store.checkpoint() != begun

            await until(moved, "a projector writes")
            for _ in range(chance.randrange(1, 12)):
                await author.finish(worker, [completed(one) for one in await author.take(worker, 100)])
                await author.scene()
            projectors.kill()
            kills += 1
            cut_short += not await folded(redis, keys)
        assert cut_short > 0, "no kill came in mid-work"
        projectors.start()
        await until(lambda: folded(redis, keys), "all is folded")
        projectors.kill()
        before = await dump(redis, keys)
        await rebuild(redis, keys)
        assert await dump(redis, keys) == before
        assert (await stats(redis, keys)).totals.submitted == len(author.jobs)


async def test_sigterm_finishes_and_exits_0(settings: Settings, projectors: Projectors) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        for _ in range(20):
            await author.submit(1000)
        process = projectors.start()
        store = ViewStore(redis, keys)

        async def begun() -> bool:
            return await store.checkpoint() != "0-0"

        await until(begun, "it writes")
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 10)
        assert code == 0
        seen = await store.checkpoint()
        [at] = await Log(redis, keys).read([seen])
        counted = (await stats(redis, keys)).totals.submitted
        assert counted == author.jobs.index(at.position) + 1
