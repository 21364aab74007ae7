"""Archivers killed by SIGKILL at any moment, while retention removes all it may: no event is missing from the
archive and the live log together, none is there twice, and the last one ends in order. And whoever puts small
segments together, killed likewise."""

import asyncio
import random
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from archives import all_of, epoch, segments
from commands import Command
from histories import Author, folded, until
from penstock.core.connection import command, connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import TERMINAL
from penstock.core.log import Entry, Log
from penstock.core.positions import START, order
from penstock.core.settings import Secret, Settings
from penstock.projections.projector import PartitionProjector
from penstock.projections.replay import archiver
from penstock.projections.replay.archive import Archive, reader_of
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.replay.compacting import RUN, Compaction
from penstock.projections.replay.grep import pages
from penstock.projections.replay.history import opened
from penstock.projections.replay.span import span
from penstock.projections.retention import Trimmer
from penstock.projections.store import ViewStore
from processes import exit_code
from servers import RealServer

pytestmark = pytest.mark.crash

KILLS = 6

# Puts together what is there, as if it were some days old, in as many pieces as can be.
COMPACTING = """
import sys
from datetime import UTC, datetime, timedelta
from penstock.core.keys import Keys
from penstock.projections.replay import compacting
from penstock.projections.replay.archive import Archive

url, namespace, epoch = sys.argv[1:]
compacting.SEGMENT_EVENTS = 200
compaction = compacting.Compaction(Archive(url), Keys(namespace).partition("mail"), epoch)
while True:
    compaction.run(datetime.now(UTC) + timedelta(days=3))
"""


@pytest.fixture
def settings(server: RealServer, namespace: str) -> Settings:
    kept: dict[str, Any] = {f"retention_{name}": 0.001 for name in sorted(TERMINAL)}
    return Settings(redis_url=Secret(server.url), namespace=namespace, **kept)


def start(penstock: Callable[..., Command], settings: Settings, url: str) -> Command:
    return penstock(
        *("archiver", "--to", url, "--every", "0.1"),
        PENSTOCK_REDIS_URL=settings.redis_url.reveal(),
        PENSTOCK_NAMESPACE=settings.namespace,
    )


async def together(redis: Redis, keys: PartitionKeys, url: str) -> list[Entry]:
    log, now = await opened(redis, keys, Archive(url))
    assert now.removed == START  # the archive is complete
    found = [entry async for page in pages(log, span(keys, now, None, None)) for entry in page]
    return [(position, fields) for position, fields in found]


@pytest.mark.timeout(180)
async def test_killed_at_any_moment_nothing_is_missing_and_nothing_twice(
    settings: Settings, penstock: Callable[..., Command], tmp_path: Path
) -> None:
    keys, url, chance = (
        Keys(settings.namespace).partition("mail"),
        str(tmp_path / "archive"),
        random.Random(5),
    )
    written: dict[bytes, list[bytes]] = {}
    stop = asyncio.Event()
    async with connect(settings) as redis:

        async def note() -> None:
            written.update(dict(await Log(redis, keys).entries("0-0", 100_000)))

        async def place() -> str:
            found: bytes | None = await command(redis, "HGET", keys.readers, reader_of(url))
            return found.decode() if found else START

        author = Author(redis, keys, seed=5)
        await author.dispatch.open()
        await command(redis, "SADD", keys.queues, "mail")
        folding = asyncio.create_task(PartitionProjector(redis, keys).run(stop))
        for kill in range(KILLS):
            running = [start(penstock, settings, url) for _ in range(2 if kill % 2 else 1)]
            reached = await place()

            async def moved(reached: str = reached) -> bool:
                await author.scene()
                await note()
                if await place() != START:  # else what is removed was never meant for the archive
                    await Trimmer(redis, keys, settings).sweep(stop)
                    await note()
                return await place() != reached

            await until(moved, "something is archived", 60)
            for _ in range(chance.randrange(4)):
                await author.scene()
                await note()
            for process in running:
                process.signal(signal.SIGKILL)
                await exit_code(process)
        last = start(penstock, settings, url)
        last.says("ready: archiving to ")

        async def all_archived() -> bool:
            return await place() == await Log(redis, keys).tip()

        await until(all_archived, "all is archived", 60)
        last.signal(signal.SIGTERM)
        assert await exit_code(last) == 0, last.output
        await until(lambda: folded(redis, keys), "all is folded")
        await Trimmer(redis, keys, settings).sweep(stop)
        await note()
        stop.set()
        await asyncio.wait_for(folding, 20)
        assert await ViewStore(redis, keys).checkpoint() != START
        assert len(await Log(redis, keys).entries("0-0", 100_000)) < len(written)
        found = await together(redis, keys, url)
        places = [order(position.decode()) for position, _ in found]
        assert places == sorted(set(places))
        # A `trimmed` event may come and go within one sweep, and was then seen by the archiver alone.
        unseen = [fields[1] for position, fields in found if position not in written]
        assert set(unseen) <= {b"trimmed"}
        assert [it for it in found if it[0] in written] == list(written.items())


async def kill_once(happened: Callable[[], object], *words: str) -> None:
    """Put segments together in a process that is killed as soon as something has happened."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", COMPACTING, *words)
    try:

        async def seen() -> bool:
            assert process.returncode is None
            return bool(happened())

        await until(seen, "it is at work", 60)
    finally:
        process.kill()
        await process.wait()


async def test_killed_while_segments_are_put_together_nothing_is_missing_and_nothing_twice(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 15)
    keys, url = Keys(settings.namespace).partition("mail"), str(tmp_path / "archive")
    archive = Archive(url, make=True)
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=6)
        await author.dispatch.open()
        ours = PartitionArchiver(redis, keys, archive, 0.001)
        await ours.enter()
        for _ in range(12):
            await author.scene()
            while await ours.step(due=True):
                pass
        before, now, first = await all_of(redis, keys, url), await epoch(redis, keys), set(segments(url))
        assert len(first) > 4 * RUN
        # It dies after its first put, in the midst of removing, near the end.
        for wanted in (
            lambda: set(segments(url)) - first,
            lambda: first - set(segments(url)),
            lambda: len(first & set(segments(url))) < len(first) // 3,
        ):
            await kill_once(wanted, url, settings.namespace, now)
            assert await all_of(redis, keys, url) == before
        for _ in range(2):
            Compaction(archive, keys, now).run(datetime.now(UTC) + timedelta(days=3))
        assert len(segments(url)) < len(first) // 3
        assert await all_of(redis, keys, url) == before
