"""Looking back over an archive: as a fold, stopped there, of a log from which nothing was ever removed."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from apis import running_api
from commands import Command
from histories import Author
from penstock.core.connection import command
from penstock.core.control import Control
from penstock.core.errors import NotFound, Refused
from penstock.core.events import QueueLimited
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job
from penstock.core.log import Log
from penstock.core.positions import LAST_SEQ, START, milliseconds, order
from penstock.core.settings import Settings
from penstock.projections import past, snapshots
from penstock.projections.details import instant
from penstock.projections.replay import archiver
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.replay.chronicle import Chronicle
from penstock.projections.replay.history import History, opened
from penstock.projections.replay.span import span, standing
from penstock.projections.replay.verify import verify
from penstock.projections.travel import Travel
from penstock.projections.views import Rows, Stats, Views, read
from processes import exit_code
from projectors import fold, soon, sweep

Written = dict[bytes, list[bytes]]


class Told:
    """A log of which most has gone to an archive, and all that was ever written to it."""

    def __init__(self, author: Author, archive: Archive, written: Written) -> None:
        self.author, self.keys, self.written = author, author.keys, written
        self.chronicle = Chronicle(author.redis, archive)

    def then(self, last: str) -> tuple[Stats, dict[str, Job]]:
        """A fold of all that was written, stopped at a position."""
        events = [it for it in map(read, self.written.items()) if order(it[0].position) <= order(last)]
        jobs = {event.job for event, _ in events} | past.let_go(body for _, body in events)
        views, rows = Views(), Rows(dict.fromkeys(jobs))
        if events:
            views.fold(events, rows)
        return views.stats, {position: row for position, row in rows.items() if row is not None}

    async def all_jobs(self, last: str, **asked: str) -> dict[str, tuple[str, int, str]]:
        """The list right after a position, by pages of 7."""
        found: dict[str, tuple[str, int, str]] = {}
        after = ""
        while True:
            page = await self.chronicle.jobs(
                self.keys,
                milliseconds(last),
                upto=last,
                after=after,
                limit=7,
                **asked,  # type: ignore[arg-type]
            )
            assert page.missing == 0
            found |= {it.id.rpartition(".")[2]: (it.state, it.attempt, it.type) for it in page.jobs}
            if not page.next:
                return found
            after = page.next


@pytest.fixture
async def told(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Told:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 60)
    monkeypatch.setattr(snapshots, "EVERY", 50)
    archive = Archive(str(tmp_path / "archive"), make=True)
    chance, author, written = random.Random(3), Author(redis, keys, seed=3), Written()
    await author.dispatch.open()
    control, ours = Control(redis, keys), PartitionArchiver(redis, keys, archive, 0.001)
    await ours.enter()

    async def note() -> None:
        written.update(await Log(redis, keys).entries("0-0", 100_000))

    for number in range(9):
        await author.scene(25)
        await fold(redis, keys)
        if number in (2, 5):
            await control.pause(by="ada")
            await control.limit(QueueLimited(rate=number, by="ada"))
        if number in (3, 7):
            await control.resume(by="bob")
        await note()
        while await ours.step(due=chance.random() < 0.7):
            pass
        await sweep(soon(settings), redis, keys)
        await note()
    await author.scene(25)
    await fold(redis, keys)
    await note()
    assert await redis.xlen(keys.log) < len(written) - 100
    return Told(author, archive, written)


async def test_figures_and_lists_are_a_fold_of_all_that_was_written(told: Told) -> None:
    places = [it.decode() for it in told.written]
    for last in [places[0], *random.Random(9).sample(places, 10), places[-1]]:
        stats, rows = told.then(last)
        found = await told.chronicle.queue(told.keys, milliseconds(last), upto=last)
        assert found.counts == stats.counts(), last
        assert found.types == stats.types
        assert found.totals == stats.totals
        assert found.failures == stats.reasons
        assert (found.paused, found.limits.rate) == (stats.paused, stats.limits.rate)
        wanted = {it: (row.state, row.attempt, row.type) for it, row in rows.items()}
        assert await told.all_jobs(last) == wanted
        for state in ("waiting", "failed"):
            some = {it: row for it, row in wanted.items() if (row[0], row[2]) == (state, "mail.send")}
            assert await told.all_jobs(last, state=state, type="mail.send") == some


async def test_many_may_ask_at_once(told: Told) -> None:
    """More than look back at a time: each is answered, and right."""
    chosen = random.Random(6).sample([it.decode() for it in told.written], 8)
    asked = [told.chronicle.queue(told.keys, milliseconds(it), upto=it) for it in chosen]
    pages = [told.chronicle.jobs(told.keys, milliseconds(it), upto=it, limit=200) for it in chosen]
    figures = await asyncio.wait_for(asyncio.gather(*asked), 60)
    lists = await asyncio.wait_for(asyncio.gather(*pages), 60)
    for last, found, page in zip(chosen, figures, lists, strict=True):
        stats, rows = told.then(last)
        assert found.counts == stats.counts()
        assert len(page.jobs) == min(200, len(rows))


async def test_a_job_that_was_removed_is_as_it_was(told: Told) -> None:
    gone = [it for it in told.author.jobs if not await Log(told.author.redis, told.keys).read([it])]
    assert gone
    for job in random.Random(4).sample(gone, 6):
        events = [at.decode() for at, it in told.written.items() if job.encode() in (at, it[3])]
        for last in events:
            found = await told.chronicle.job(told.keys, job, milliseconds(last), last)
            row = told.then(last)[1][job]
            assert (found.state, found.attempt) == (row.state, row.attempt)
        with pytest.raises(NotFound):
            await told.chronicle.job(told.keys, job, milliseconds(job) - 1)
        with pytest.raises(NotFound, match=job):  # by then retention had let it go
            await told.chronicle.job(told.keys, job, milliseconds(list(told.written)[-1].decode()) + 1)


async def test_it_reaches_back_to_where_the_archive_begins(told: Told) -> None:
    first = milliseconds(next(iter(told.written)).decode())
    span = await told.chronicle.span([told.keys])
    assert span.archived
    assert span.from_at == span.queues["mail"] == instant(first)
    before = await told.chronicle.queue(told.keys, first - 1)
    assert before.totals.submitted == 0
    assert await told.all_jobs(f"{first - 1}-0") == {}


async def test_another_epoch_is_another_history(told: Told, tmp_path: Path) -> None:
    history = History(told.author.redis, told.keys, Archive(str(tmp_path / "archive")))
    now = await standing(history)
    assert (await history.look(now)).removed == START
    assert history.archived
    assert await history.entries(START, 10) == list(told.written.items())[:10]
    other = msgspec.structs.replace(now, epoch="another")
    assert await history.look(other) == other
    assert not history.archived
    assert await history.entries(START, 10) == await Log(told.author.redis, told.keys).entries(START, 10)


async def test_an_archive_that_began_late_tells_as_far_back_as_the_log_did(
    settings: Settings, redis: Redis, keys: PartitionKeys, tmp_path: Path
) -> None:
    author = Author(redis, keys, seed=7)
    for _ in range(3):
        await author.scene(25)
    await fold(redis, keys)
    last = (await Log(redis, keys).page("0-0", 60))[-1].position
    at = milliseconds(last)
    counts = (await Travel(redis).queue(keys, at, upto=last)).counts
    await sweep(soon(settings), redis, keys)
    alone = Travel(redis)
    from_at = (await alone.span([keys])).from_at
    told = await alone.queue(keys, at, upto=last)
    assert told.counts != counts, "jobs that were removed before are missing"
    archive = Archive(str(tmp_path / "archive"), make=True)
    ours = PartitionArchiver(redis, keys, archive, 60)
    await ours.enter()
    await ours.step(due=True)
    chronicle = Chronicle(redis, archive)
    assert (await chronicle.span([keys])).from_at == from_at
    assert (await chronicle.queue(keys, at, upto=last)).counts == told.counts
    wanted = await alone.jobs(keys, at, upto=last, limit=200)
    page = await chronicle.jobs(keys, at, upto=last, limit=200)
    assert [it.id for it in page.jobs] == [it.id for it in wanted.jobs]
    log, now = await opened(redis, keys, archive)
    first = (await Log(redis, keys).page("0-0", 1))[0].position
    assert now.first == first
    assert span(keys, now, milliseconds(first), None).upto == now.last
    with pytest.raises(Refused, match="is before the log of mail begins"):
        await chronicle.queue(keys, milliseconds(first) - 1)
    with pytest.raises(Refused, match="is before the log of mail begins"):
        span(keys, now, milliseconds(first) - 1, None)
    assert (await log.page("0-0", 1))[0].position == first


async def test_without_a_snapshot_it_goes_back_from_now_as_far_as_it_may(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "archive").rglob("snapshots_*"):
        await asyncio.to_thread(path.unlink)
    await told.author.redis.delete(told.keys.snapshots)
    places = [it.decode() for it in told.written]
    last = places[len(places) // 3]
    found = await told.chronicle.queue(told.keys, milliseconds(last), upto=last)
    assert found.counts == told.then(last)[0].counts()
    monkeypatch.setattr("penstock.projections.replay.chronicle.MAX_BACK", 100)
    with pytest.raises(Refused, match="too far back"):
        await told.chronicle.queue(told.keys, milliseconds(last), upto=last)


async def test_snapshots_of_views_that_were_wrong_are_not_trusted(told: Told) -> None:
    redis, keys = told.author.redis, told.keys
    places = [it.decode() for it in told.written]
    last = places[len(places) // 2]
    await command(redis, "HINCRBY", keys.jobs, "no job", 1)
    found = await verify(redis, keys, mend=lambda _: None)
    assert found.repaired > 0
    assert await redis.xlen(keys.snapshots) == 0
    doubt: bytes = await command(redis, "GET", keys.doubted)
    assert order(doubt.decode()) >= order(places[-1])
    seen: list[str] = []
    kept = told.chronicle._following

    async def following(*asked: Any) -> Any:
        told_by = await kept(*asked)
        seen.append(told_by.position if told_by else "")
        return told_by

    told.chronicle._following = following  # type: ignore[method-assign, assignment]
    answer = await told.chronicle.queue(keys, milliseconds(last), upto=last)
    assert answer.counts == told.then(last)[0].counts()
    assert seen == [doubt.decode()], "told by the views as they are now"


async def test_the_command_and_the_api_answer_from_log_and_archive(
    told: Told, settings: Settings, tmp_path: Path, penstock: Callable[..., Command]
) -> None:
    places = [it.decode() for it in told.written]
    last = places[len(places) // 4]
    at, url = milliseconds(last), str(tmp_path / "archive")
    stats, rows = told.then(f"{at}-{LAST_SEQ}")
    newest = [told.keys.job_id(it) for it in sorted(rows, key=order, reverse=True)][:50]
    async with running_api(msgspec.structs.replace(settings, archive_url=url)) as http:
        figures = (await http.get("/queues/mail", params={"at": at})).json()
        assert figures["counts"] == msgspec.to_builtins(stats.counts())
        page = (await http.get("/jobs/mail", params={"at": at})).json()
        assert [it["id"] for it in page["jobs"]] == newest
    environ = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    run = penstock(
        "replay", "at", str(at), "--queue", "mail", "--limit", "50", "--archive", url, "--json", **environ
    )
    assert await exit_code(run) == 0, run.output
    answer = msgspec.json.decode(run.output)
    assert answer["queue"]["counts"] == msgspec.to_builtins(stats.counts())
    assert [it["id"] for it in answer["page"]["jobs"]] == newest
