"""Many at once, on real servers: what a filter finds, what each act does, and that an order can be carried
out again, cut short, or meet a job that moves, and does nothing twice."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from redis.asyncio import Redis

from histories import Author, completed, folded, progress, stats, until
from penstock.core.connection import connect
from penstock.core.control import Control
from penstock.core.dispatch import Finished, Submission
from penstock.core.events import Failed, Submitted, encode
from penstock.core.jobs.bulk import Bulk
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import Job
from penstock.core.positions import milliseconds
from penstock.core.settings import Secret, Settings
from penstock.core.story import find, tell
from penstock.projections import bulk as module
from penstock.projections.bulk import Operation, Outcome
from penstock.projections.filters import PAGE
from projectors import fold, folding
from servers import RealServer

BATCHES: Final = itertools.count(1)


@pytest.fixture
def all_keys(namespace: str) -> Keys:
    return Keys(namespace)


async def submit(author: Author, count: int, **body: Any) -> list[str]:
    """Jobs of type mail.send, with these fields in their `submitted` event."""
    told = encode(Submitted(type="mail.send", payload=msgspec.Raw(b"{}"), **body))
    rows = [Submission("normal", told)] * count
    made = await author.dispatch.submit(rows, producer="bulk", batch=next(BATCHES), once_ms=1000)
    return [one.position for one in made]


async def fail(
    author: Author, count: int, error: str = "ValueError", message: str = "no such mailbox"
) -> None:
    """Take jobs that wait, and give them up."""
    worker, body = await author.enter(), encode(Failed("permanent", error, message, 1))
    while count > 0:
        taken = await author.take(worker, min(count, 500))
        ends = [Finished("failed", it.lane, it.entry, it.attempt, it.job, body) for it in taken]
        await author.finish(worker, ends)
        count -= len(taken)
        assert taken


async def now(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds * 1000 + micros // 1000)


async def script_calls(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def order(redis: Redis, **words: Any) -> tuple[Bulk, int]:
    """An order as it would come in, asked for now."""
    priority = words.pop("priority", None)
    act = words.pop("act")
    told: dict[str, Any] = {"act": act, "filter": words} | ({"priority": priority} if priority else {})
    return msgspec.convert(told, Bulk), await now(redis)


async def preview(redis: Redis, all_keys: Keys, **words: Any) -> module.Preview:
    asked_for, asked = await order(redis, **words)
    return await Operation(redis, all_keys, asked_for, asked=asked).preview()


async def run(redis: Redis, all_keys: Keys, **words: Any) -> Outcome:
    asked_for, asked = await order(redis, **words)
    return await Operation(redis, all_keys, asked_for, asked=asked).run("ada", lambda *_: None)


async def states(redis: Redis, keys: PartitionKeys, jobs: Sequence[str]) -> list[str]:
    found: list[Job | None] = [await find(redis, keys, job) for job in jobs]
    return [job.state if job else "none" for job in found]


async def test_a_dry_run_counts_what_fits_shows_the_first_ten_and_changes_nothing(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        red = await submit(author, 230, tags=("red",))
        await fail(author, 230, "ConnectionError", "mx1.example.org is away")
        blue = await submit(author, 15, tags=("blue", "red"))
        await fail(author, 15, "ValueError", "no such mailbox")
        waiting = await submit(author, 3, tags=("blue",))
        found = await preview(redis, all_keys, act="retry", queue="mail")
        assert (found.count, found.complete, len(found.samples)) == (245, True, 10)
        assert [job.id for job in found.samples] == [keys.job_id(job) for job in red[:10]]
        counts = {
            "class": await preview(redis, all_keys, act="retry", error="ConnectionError"),
            "text": await preview(redis, all_keys, act="retry", error="such mailbox"),
            "both": await preview(redis, all_keys, act="retry", error="ConnectionError: mx1"),
            "tag": await preview(redis, all_keys, act="retry", tag="blue"),
            "tag and error": await preview(redis, all_keys, act="retry", tag="red", error="ValueError"),
            "type": await preview(redis, all_keys, act="cancel", type="mail.send"),
            "another type": await preview(redis, all_keys, act="cancel", type="mail.other"),
            "another queue": await preview(redis, all_keys, act="cancel", queue="image"),
        }
    assert {name: told.count for name, told in counts.items()} == {
        "class": 230,
        "text": 15,
        "both": 230,
        "tag": 15,
        "tag and error": 15,
        "type": 3,
        "another type": 0,
        "another queue": 0,
    }
    assert await states(redis, keys, [red[0], blue[0], waiting[0]]) == ["failed", "failed", "waiting"]


async def test_a_filter_by_time_takes_what_was_submitted_in_it(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        [first] = await submit(author, 1)
        while await now(redis) <= milliseconds(first):
            await asyncio.sleep(0)
        [second] = await submit(author, 1)
        moment = datetime.fromtimestamp(milliseconds(second) / 1000, UTC).isoformat()
        late = await preview(redis, all_keys, act="cancel", queue="mail", since=moment)
        early = await preview(redis, all_keys, act="cancel", queue="mail", until=moment)
    assert [job.id for job in late.samples] == [keys.job_id(second)]
    assert [job.id for job in early.samples] == [keys.job_id(first)]


async def test_counting_ends_in_time_and_says_that_there_may_be_more(
    redis: Redis, keys: PartitionKeys, all_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREVIEW_S", 0.0)
    async with folding(redis, keys):
        await submit(Author(redis, keys), 2 * PAGE)
        found = await preview(redis, all_keys, act="cancel", queue="mail")
    assert (found.count, found.complete) == (PAGE, False)


async def test_failed_jobs_are_retried_each_end_once(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        jobs = await submit(author, 450)
        await fail(author, 450)
        asked_for, asked = await order(redis, act="retry", queue="mail")
        both = [Operation(redis, all_keys, asked_for, asked=asked) for _ in range(2)]
        first, second = await asyncio.gather(*(it.run("ada", lambda *_: None) for it in both))
        assert first.done + second.done == 450
        assert set(await states(redis, keys, jobs)) == {"waiting"}
        await fail(author, 450)
        # The same order again, as after a crash: those have failed since, which was not its business.
        again = await Operation(redis, all_keys, asked_for, asked=asked).run("ada", lambda *_: None)
        assert (again.matched, again.done) == (0, 0)
        assert (await run(redis, all_keys, act="retry", queue="mail")).done == 450
    assert [event.tag for event in await tell(redis, keys, jobs[0])] == [
        *("submitted", "started", "failed", "requeued", "started", "failed", "requeued"),
    ]


async def test_waiting_delayed_and_running_jobs_are_cancelled_and_no_later_one(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        running = await submit(author, 5)
        await author.take(await author.enter(), 5)
        delayed = await author.submit(5, delay=3600)
        waiting = await submit(author, 400)
        asked_for, asked = await order(redis, act="cancel", queue="mail")
        while await now(redis) <= asked:
            await asyncio.sleep(0)
        later = await submit(author, 2)
        done = await Operation(redis, all_keys, asked_for, asked=asked).run("ada", lambda *_: None)
        assert (done.matched, done.done) == (410, 410)
    assert set(await states(redis, keys, [*running, *delayed, *waiting])) == {"cancelled"}
    assert await states(redis, keys, later) == ["waiting"] * 2
    event = (await tell(redis, keys, running[0]))[-1]
    assert msgspec.json.decode(event.body) == {"by": "ada", "reason": "many at once"}


async def test_failed_jobs_are_discarded_and_delayed_ones_promoted_and_waiting_ones_reprioritized(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        dead = await submit(author, 3)
        await fail(author, 3)
        delayed = await author.submit(3, delay=3600)
        assert (await run(redis, all_keys, act="discard", queue="mail")).done == 3
        assert (await run(redis, all_keys, act="promote", queue="mail")).done == 3
        assert (await run(redis, all_keys, act="promote", queue="mail")).matched == 0
        waiting = await submit(author, 3)
        asked_for, asked = await order(redis, act="reprioritize", state="waiting", priority="high")
        for expected in (3, 0):  # those promoted have a time: no priority helps them any more
            outcome = await Operation(redis, all_keys, asked_for, asked=asked).run("ada", lambda *_: None)
            assert outcome.done == expected
        taken = await author.take(await author.enter(), 10)
        assert {one.job.decode() for one in taken} == {*delayed, *waiting}
    assert await states(redis, keys, [*dead, *delayed]) == ["cancelled"] * 3 + ["active"] * 3
    assert (await tell(redis, keys, waiting[0]))[1].tag == "rescheduled"


async def test_all_queues_are_meant_where_none_is_named_but_not_that_of_operations(
    redis: Redis, all_keys: Keys
) -> None:
    partitions = [all_keys.partition(name) for name in ("mail", "image", "penstock")]
    async with folding(redis, *partitions):
        jobs = [await submit(Author(redis, keys), 2) for keys in partitions]
        assert (await run(redis, all_keys, act="cancel", state="waiting")).done == 4
        assert await states(redis, partitions[2], jobs[2]) == ["waiting"] * 2
        asked_for, asked = await order(redis, act="cancel", queue="penstock")
        own = partitions[2].job_id(jobs[2][0])
        done = await Operation(redis, all_keys, asked_for, asked=asked, but=own).run("ada", lambda *_: None)
    assert done.done == 1
    assert await states(redis, partitions[2], jobs[2]) == ["waiting", "cancelled"]


async def test_progress_is_told_and_an_operation_that_is_stopped_has_done_what_it_says(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author, told = Author(redis, keys), []
    async with folding(redis, keys):
        await submit(author, 5 * PAGE)
        asked_for, asked = await order(redis, act="cancel", queue="mail")
        reached = asyncio.Event()

        def report(fraction: float, outcome: Outcome) -> None:
            told.append((round(fraction, 2), outcome.done))
            if len(told) == 2:
                reached.set()

        task = asyncio.create_task(Operation(redis, all_keys, asked_for, asked=asked).run("ada", report))
        await reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert told[:2] == [(0.2, PAGE), (0.4, 2 * PAGE)]
        rest = await Operation(redis, all_keys, asked_for, asked=asked).run("ada", lambda *_: None)
        done = 5 * PAGE - rest.done  # the page under way when it was stopped may count too
        assert done in (told[-1][1], told[-1][1] + PAGE)
        await until(lambda: folded(redis, keys), "all is folded")
    assert (await stats(redis, keys)).totals.cancelled == 5 * PAGE


async def test_jobs_with_long_stories_are_found_by_their_ends(
    redis: Redis, keys: PartitionKeys, all_keys: Keys
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        [job] = await submit(author, 1, tags=("long",))
        worker = await author.enter()
        [one] = await author.take(worker, 1)
        for _ in range(5):
            await author.finish(worker, [], [progress(one, 0.5)] * 300)
        body = encode(Failed("permanent", "LongError", "at last", 1))
        await author.finish(worker, [Finished("failed", one.lane, one.entry, 1, one.job, body)])
        assert (await run(redis, all_keys, act="retry", tag="long", error="LongError")).done == 1
    assert await states(redis, keys, [job]) == ["waiting"]


async def test_a_job_that_was_told_otherwise_in_between_is_passed_over(
    redis: Redis, keys: PartitionKeys, all_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = Author(redis, keys)
    async with folding(redis, keys):
        jobs = await submit(author, 3)
        worker = await author.enter()
        taken = await author.take(worker, 3)
        cancel = Control.cancel

        async def late(self: Control, *words: Any, **options: Any) -> Any:
            await author.finish(worker, [completed(taken[0])])
            return await cancel(self, *words, **options)

        monkeypatch.setattr(Control, "cancel", late)
        done = await run(redis, all_keys, act="cancel", queue="mail")
    assert (done.matched, done.done) == (3, 2)
    assert await states(redis, keys, jobs) == ["completed", "cancelled", "cancelled"]


@pytest.mark.timeout(180)
async def test_fifty_thousand_jobs_are_retried_in_seconds(
    make_server: Callable[..., RealServer], namespace: str
) -> None:
    settings, all_keys = Settings(redis_url=Secret(make_server().url), namespace=namespace), Keys(namespace)
    keys = all_keys.partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        for _ in range(50):
            await submit(author, 1000)
        await fail(author, 50_000)
        await fold(redis, keys)
        before = await script_calls(redis)
        done = await run(redis, all_keys, act="retry", error="no such mailbox")
        asked = await script_calls(redis) - before
    assert done.done == 50_000
    assert asked < 1_000, "whole pages in one call each, so seconds it is on a machine that is not busy"
