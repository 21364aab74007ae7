"""Schedulers that are killed again and again: every second has its job, and none has two."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import pytest

import jobs_for_tests  # noqa: F401 (their contracts)
from commands import Command
from penstock.core.events import as_builtins
from penstock.producer.schedules.asking import read_request
from penstock.producer.schedules.schedules import Schedules
from processes import TESTS, dismiss, eventually, site_on
from servers import RealServer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]

KILLS: Final = 8
NAMES: Final = ("a", "b", "c")
REQUEST: Final = b'{"every":1,"overlap":"allow","catch_up":"all","job":{"type":"test.echo","payload":{}}}'


async def test_every_second_has_its_job_whoever_is_killed(
    penstock: Callable[..., Command], server: RealServer, namespace: str
) -> None:
    def start() -> Command:
        return penstock(
            "scheduler",
            PENSTOCK_REDIS_URL=server.url,
            PENSTOCK_NAMESPACE=namespace,
            PENSTOCK_JOBS="jobs_for_tests",
            PYTHONPATH=os.pathsep.join(str(folder) for folder in (TESTS, TESTS.parent / "infra/src")),
        )

    dice = random.Random(7)
    async with site_on(server, namespace) as site:
        schedules = Schedules(site.redis, site.settings)
        for name in NAMES:
            await schedules.set(name, read_request(REQUEST), by="test")
        running = [start() for _ in range(3)]
        for kill in range(KILLS):
            running[kill % 3].says("ready: ")
            await until_just_after_a_second(dice)
            running[kill % 3].process.kill()
            running[kill % 3] = start()
        running[0].says("ready: ")
        end = int(time.time()) * 1000 + 2000

        async def all_fired() -> bool:
            found = [(await schedules.get(name)).last for name in NAMES]
            return all(last is not None and seconds(last.tick) * 1000 >= end for last in found)

        await eventually(all_fired, 30, "all schedules tick on")
        await dismiss(*(one for one in running if one.process.poll() is None and "ready: " in one.output))
        keys = [as_builtins(it)["key"] for it in await site.events() if it.tag == "submitted"]
        for name in NAMES:
            told = sorted(int(key.rsplit(":", 1)[1]) for key in keys if key.startswith(f"schedule:{name}:"))
            assert told == list(range(told[0], told[-1] + 1, 1000))
            events = (await schedules.events(name, limit=500)).events
            fired = [it.data["tick"] for it in events if it.event == "schedule_fired"]
            assert sorted(map(int, fired)) == told


async def until_just_after_a_second(dice: random.Random) -> None:
    """A moment at which ticks are being decided and submitted."""
    now = time.time()
    await asyncio.sleep(int(now) + 1 - now + dice.uniform(0.0, 0.012))


def seconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp())
