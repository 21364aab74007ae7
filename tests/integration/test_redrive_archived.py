"""Jobs that retention has removed are redriven, and rehearsed, from the archive."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from apis import KEY, KEYS, problems, running_api
from penstock.core.connection import connect
from penstock.core.errors import InvalidJob
from penstock.core.jobs.bulk import Filter
from penstock.core.jobs.redrive import Redrive
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.positions import START
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from penstock.projections.filters import Selection
from penstock.projections.replay import archiver, removed
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.retention import Trimmer
from penstock.ui import redriving
from penstock.ui.redriving import Redriven, Redriving
from penstock.ui.rehearsing import Rehearsal, Stretch
from projectors import fold, soon, sweep
from redrives import Scene


class Archived(Scene):
    """A queue most of whose jobs have gone to an archive."""

    archiver: PartitionArchiver

    async def redriving(self, id: str = "again", **order: Any) -> Redriving:
        """As in `Scene`, with views that have seen all that was."""
        await fold(self.redis, self.keys)
        return await super().redriving(id, **order)

    async def let_go(self) -> None:
        """Archive everything, and remove what has ended."""
        while await self.archiver.step(due=True):
            pass
        await sweep(soon(self.settings), self.redis, self.keys)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, api_keys=KEYS, jobs=("jobs_for_tests",), archive_url=str(tmp_path / "archive"))


@pytest.fixture
async def scene(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Archived]:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 100)
    monkeypatch.setattr(removed, "SLICE", 30)
    async with connect(settings) as redis, Producer(settings, redis=redis) as producer:
        scene = Archived(settings, redis, "test")
        scene.producer = producer
        await scene.dispatch.open()
        await redis.sadd(scene.keys.queues, "test")
        scene.archiver = PartitionArchiver(redis, scene.keys, Archive(settings.archive_url, make=True), 60)
        await scene.archiver.enter()
        yield scene


async def test_what_was_removed_is_submitted_again_with_what_is_kept(scene: Archived) -> None:
    removed_jobs = await scene.ended(150)
    await scene.ended(40, fail=False)
    await scene.let_go()
    await scene.ended(30, fail=False)
    kept = await scene.ended(70)
    await fold(scene.redis, scene.keys)
    assert not await Log(scene.redis, scene.keys).read(removed_jobs)
    preview = await scene.preview(archived=True)
    assert (preview.count, preview.removed, preview.complete) == (220, 0, True)
    assert (await scene.preview()).removed == 150
    outcome = await scene.redriven(archived=True)
    assert (outcome.matched, outcome.sent, outcome.refused, outcome.gone) == (220, 220, 0, 0)
    origins = [spec.origin for _, spec in await scene.copies()]
    assert origins == [scene.keys.job_id(it) for it in kept + removed_jobs]
    assert (await scene.redriven(archived=True)).sent == 0


async def test_a_filter_narrows_down_what_was_removed(scene: Archived) -> None:
    red = await scene.ended(5, tags=("red",))
    await scene.ended(5, tags=("blue",))
    red += await scene.ended(3, tags=("red",))
    await scene.let_go()
    outcome = await scene.redriven("tag", archived=True, tag="red", error="no such mailbox")
    assert (outcome.matched, outcome.sent) == (8, 8)
    assert (await scene.redriven("error", archived=True, error="something else")).matched == 0
    assert (await scene.redriven("type", archived=True, type="test.other")).matched == 0
    assert [spec.origin for _, spec in await scene.copies()] == [scene.keys.job_id(it) for it in red]


async def test_while_nothing_is_found_it_tells_that_it_goes_on(
    scene: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removed, "SIGN_S", 0.0)
    await scene.ended(60)
    await scene.let_go()
    wanted = Redrive(filter=Filter(queue="test", type="test.other"), archived=True)
    keys, archive = Keys(scene.settings.namespace), Archive(scene.settings.archive_url)
    selection = Selection(scene.redis, keys, wanted, asked=2**42, settled=True)
    found = [search async for search in removed.searches(selection, archive, full=True)]
    told = [page async for page in found[-1].pages()]
    assert [search.archived for search in found] == [False, True]
    assert told
    assert {(page.looked, page.last) for page in told} == {(0, START)}
    monkeypatch.setattr(redriving, "PREVIEW_S", 0.0)
    assert not (await scene.preview(archived=True, type="test.other")).complete


async def test_it_goes_on_in_the_archive_where_it_was(scene: Archived) -> None:
    jobs = await scene.ended(120)
    await scene.let_go()
    told: list[Redriven] = []

    def report(_: float, so_far: Redriven) -> None:
        told.append(replace_all(so_far))
        if so_far.sent >= 60:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await (await scene.redriving(archived=True)).run(report)
    assert (told[-1].archived, told[-1].after) == (True, jobs[told[-1].looked - 1])
    outcome = await (await scene.redriving(archived=True)).run(lambda *_: None, told[-1])
    assert (outcome.sent, outcome.known, outcome.looked) == (120, 0, 120)
    assert len(await scene.copies()) == 120


def replace_all(so_far: Redriven) -> Redriven:
    return replace(so_far, refusals=[*so_far.refusals])


async def test_a_job_that_is_removed_between_the_searches_is_found_once(scene: Archived) -> None:
    jobs = await scene.ended(40)
    while await scene.archiver.step(due=True):
        pass
    await fold(scene.redis, scene.keys)
    redriving = await scene.redriving(archived=True)
    trimmer = Trimmer(scene.redis, scene.keys, soon(scene.settings))
    done = asyncio.Event()

    async def trim() -> None:
        await trimmer.sweep(done)

    seen: list[asyncio.Task[None]] = []

    def report(_: float, so_far: Redriven) -> None:
        if not seen and so_far.matched:  # those that are kept were looked at
            seen.append(asyncio.create_task(trim()))

    outcome = await redriving.run(report)
    done.set()
    await asyncio.gather(*seen)
    assert outcome.sent == len(jobs) == len(await scene.copies())


async def test_without_an_archive_it_is_refused_and_nothing_is_changed(
    scene: Archived, settings: Settings
) -> None:
    bare = replace(settings, archive_url="")
    async with running_api(bare) as http:
        http.headers["Authorization"] = f"Bearer {KEY}"
        for dry_run in (True, False):
            order = {"filter": {"queue": "test"}, "archived": True, "dry_run": dry_run}
            found = problems(await http.post("/redrive", json=order), 422)
            assert "PENSTOCK_ARCHIVE_URL" in found["archived"]
        operations = Keys(settings.namespace).partition("penstock")
        assert not await scene.redis.exists(operations.log)
    async with Producer(bare, redis=scene.redis) as producer:
        scene.producer = producer
        with pytest.raises(InvalidJob, match="archived"):
            await scene.redriving(archived=True)


async def test_a_rehearsal_plays_what_was_removed(scene: Archived) -> None:
    await scene.ended(6, fail=False)
    await scene.let_go()
    await scene.ended(2, fail=False)
    await fold(scene.redis, scene.keys)
    rehearsal = Rehearsal(scene.settings)
    stretch = Stretch(Filter(queue="test"))
    kept = await rehearsal.run(stretch, at_once=4, report=lambda _: None)
    everything = await rehearsal.run(replace(stretch, archived=True), at_once=4, report=lambda _: None)
    assert (kept.jobs, everything.jobs) == (2, 8)
