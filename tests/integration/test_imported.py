"""A queue that was imported: its jobs that had not ended are history. Nothing runs them and nobody takes them
for lost, until somebody asks for them to run; how the queue is governed is what its log says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from floor import Floor, done, ended, floor_on
from histories import dump, stats
from penstock.core.connection import command
from penstock.core.errors import Refused
from penstock.core.events import QueueLimited, QueueRetained
from penstock.core.log import Log
from penstock.core.positions import START
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.exporting import Asked, export
from penstock.projections.replay.files import reading
from penstock.projections.replay.findings import Finding
from penstock.projections.replay.importing import bring_in
from penstock.projections.replay.span import partly, span, standing
from penstock.projections.replay.verify import Verified, verify
from penstock.projections.replay.wire import write_manifest
from sagas import saga_on
from servers import RealServer

LATE = 99999999999000


@pytest.fixture
async def copy(server: RealServer, namespace: str) -> AsyncIterator[Floor]:
    """Another namespace, with a worker that takes whatever there is."""
    async with floor_on(server, f"{namespace}-copy", "w1") as copy:
        yield copy


async def past(floor: Floor) -> dict[str, str]:
    """Jobs that wait, are delayed, run, wait for their next attempt, and that ended; by what they do."""
    waits, group, runs, again, fails, ends = await floor.put(6, unique="", group="ada")
    [later] = await floor.put(1, when=str(LATE), unique="u1")
    taken = {it.job.decode(): it for it in await floor.take(want=6)}
    await floor.report(
        *(ended("released", taken[waits]), ended("released", taken[group])),
        *(ended("attempt_failed", taken[again], 3_600_000), ended("failed", taken[fails]), done(taken[ends])),
    )
    return {"waits": waits, "group": group, "runs": runs, "again": again, "later": later}


async def moved(floor: Floor, copy: Floor, path: Path) -> None:
    """Export the log of one, import it into the other."""
    await export(floor.site.settings, Asked(queue=floor.keys.queue), str(path), lambda *_: None)
    await bring_in(copy.site.settings, [str(path)], "", lambda *_: None)
    await rebuild(copy.redis, copy.keys)


async def log_of(floor: Floor) -> list[Any]:
    return await Log(floor.redis, floor.keys).entries(START, 10_000)


async def look(floor: Floor, **how: Any) -> Verified:
    return await verify(floor.redis, floor.keys, **how)


async def test_what_had_not_ended_is_history_for_verify_and_for_workers(
    floor: Floor, copy: Floor, tmp_path: Path
) -> None:
    jobs = await past(floor)
    await moved(floor, copy, tmp_path / "log.ndjson")
    log, views = await log_of(copy), await dump(copy.redis, copy.keys)
    told = await look(copy)
    assert (told.findings, told.more, told.history) == ([], 0, len(jobs))
    planned: list[Finding] = []
    again = await look(copy, mend=planned.extend)
    assert (planned, again.repaired, again.history) == ([], 0, len(jobs))
    assert await copy.take() == []
    assert (await log_of(copy), await dump(copy.redis, copy.keys)) == (log, views)


async def test_where_it_is_asked_for_they_run_at_their_time_and_with_their_attempts(
    floor: Floor, copy: Floor, tmp_path: Path
) -> None:
    jobs = await past(floor)
    await moved(floor, copy, tmp_path / "log.ndjson")
    log = await log_of(copy)
    found = (await look(copy, imported=True)).findings
    assert {it.where for it in found} == {copy.keys.job_id(job) for job in jobs.values()}
    assert {(it.kind, it.cause) for it in found} == {("job", "it was imported before it had ended")}
    assert await log_of(copy) == log
    told = await look(copy, imported=True, mend=lambda _: None)
    assert (told.repaired, told.history) == (len(jobs), 0)
    taken = await copy.take()
    attempts = {"waits": 1, "group": 1, "runs": 1, "again": 2}
    assert {it.job.decode(): it.attempt for it in taken} == {jobs[it]: n for it, n in attempts.items()}
    assert await copy.due(jobs["later"]) == LATE
    assert (await copy.site.tags(jobs["runs"]))[-3:] == ["released", "rescheduled", "started"]
    await copy.report(*map(done, taken))
    for how in (False, True):
        told = await look(copy, imported=how)
        assert (told.findings, told.history) == ([], 0)
    assert (await look(copy, imported=True, mend=lambda _: None)).repaired == 0
    await copy.check()


async def test_one_that_is_lost_after_that_is_found_like_any_other(
    floor: Floor, copy: Floor, tmp_path: Path
) -> None:
    await past(floor)
    await moved(floor, copy, tmp_path / "log.ndjson")
    [job] = await copy.put(1)
    await copy.redis.xdel(copy.keys.lanes[1], job)
    await look(copy, imported=True, mend=lambda _: None)
    for lane in copy.keys.lanes:
        await copy.redis.delete(lane)
    await copy.dispatch.open()
    found = {it.where for it in (await look(copy)).findings if it.kind == "job"}
    assert len(found) == 6


async def test_a_queue_is_governed_as_its_log_says(floor: Floor, copy: Floor, tmp_path: Path) -> None:
    await past(floor)
    await floor.control.limit(QueueLimited(rate=50, concurrency=3, by="ada"))
    await floor.control.retain(QueueRetained(failed=7, by="ada"))
    await floor.control.pause(by="ada")
    await moved(floor, copy, tmp_path / "log.parquet")
    assert (await look(copy)).findings == []
    assert await copy.hash("control") == await floor.hash("control")
    assert not await copy.control.pause(by="ada"), "it is paused"
    await copy.put(1)
    assert await copy.take() == []
    await copy.redis.hdel(copy.keys.control, "paused", "keep_failed")
    assert {it.where for it in (await look(copy)).findings} == {"paused", "keep_failed"}
    await look(copy, mend=lambda _: None)
    assert await copy.hash("control") == await floor.hash("control")


BASES = (
    {"stats": "{"},
    {"stats": '{"events":"many"}'},
    {"1": "no minute"},
    {"begun": "7"},
    {"imported": "9-9"},
    {"trimmed": "soon"},
    {"trimmed": "99999999999999-0"},
)


async def test_a_base_that_was_made_up_is_refused(floor: Floor, copy: Floor, tmp_path: Path) -> None:
    """It stands in the manifest, for which the checksum of the lines does not vouch."""
    await past(floor)
    path = tmp_path / "log.ndjson"
    told = await export(floor.site.settings, Asked(queue=floor.keys.queue), str(path), lambda *_: None)
    with reading(str(path)) as file:
        lines = file.readlines()[:-1]
    names = [name async for name in copy.redis.scan_iter(match=f"{copy.site.settings.namespace}*")]
    for number, base in enumerate(BASES):
        other = tmp_path / f"{number}.ndjson"
        made_up = write_manifest(msgspec.structs.replace(told.manifest, base=base))
        other.write_bytes(b"".join([*lines, made_up]))
        with pytest.raises(Refused):
            await bring_in(copy.site.settings, [str(other)], "", lambda *_: None)
        assert [it async for it in copy.redis.scan_iter(match=f"{copy.site.settings.namespace}*")] == names


async def test_of_a_log_that_was_trimmed_it_is_said_there_too(
    server: RealServer, namespace: str, copy: Floor, tmp_path: Path
) -> None:
    """How many events were in it, that some are gone, and how the queue was governed by those."""
    async with saga_on(server, namespace, ["limit", "work", "work", "trim", "limit", "trim"], 3) as saga:
        await moved(saga.floor, copy, tmp_path / "log.ndjson.zst")
        there = await info(copy)
        here = await info(saga.floor)
        assert here["entries-added"] > here["length"]
        assert {**there, "max-deleted-entry-id": here["max-deleted-entry-id"]} == here
        assert (await stats(copy.redis, copy.keys)).events == there["entries-added"]
        now = await standing(Log(copy.redis, copy.keys))
        assert "retention has removed jobs" in partly(copy.keys, now, span(copy.keys, now, None, None))
        assert (await look(copy)).findings == []
        # An import is exported like any log; up to where it was imported is not taken along.
        path = str(tmp_path / "again.ndjson")
        told = await export(copy.site.settings, Asked(queue=copy.keys.queue), path, lambda *_: None)
        assert told.manifest.base.keys() == {"stats", "trimmed"} | {
            it for it in told.manifest.base if it.isdigit()
        }


async def info(floor: Floor) -> dict[str, Any]:
    told = await command(floor.redis, "XINFO", "STREAM", floor.keys.log)
    names = ("length", "entries-added", "last-generated-id", "max-deleted-entry-id", "first-entry")
    return {name: dict(zip(told[::2], told[1::2], strict=True))[name.encode()] for name in names}
