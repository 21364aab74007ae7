"""What the views answer on real servers: jobs at once and never backwards (I7), pages that are exact,
figures that agree with plain counting."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis

from histories import Author, completed, folded, progress, rows
from penstock.core.connection import command
from penstock.core.dispatch import Delivery, Finished
from penstock.core.errors import InvalidJob, NotFound
from penstock.core.events import AttemptFailed, Failed, encode
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES
from penstock.core.log import Log
from penstock.core.positions import milliseconds
from penstock.core.settings import Settings
from penstock.projections.details import MAX_EVENTS
from penstock.projections.figures import quantiles, rates
from penstock.projections.histogram import RELATIVE_ERROR, bucket, merge
from penstock.projections.queries import Queries
from penstock.projections.tally import Totals
from penstock.projections.views import Minute
from projectors import fold

RANK = {"delayed": 0, "waiting": 0, "active": 1, "completed": 2, "failed": 2}


@pytest.fixture
async def queries(redis: Redis, settings: Settings) -> AsyncIterator[Queries]:
    queries = Queries(redis, settings)
    yield queries
    await queries.close()


async def fold_all(redis: Redis, keys: PartitionKeys) -> None:
    await fold(redis, keys)
    assert await folded(redis, keys)


def failed(one: Delivery, *, again: bool, ms: float = 4.0) -> Finished:
    if again:
        body = AttemptFailed(one.attempt, "TimeoutError", "no answer", 30, "Traceback …", ms)
        return Finished("attempt_failed", one.lane, one.entry, one.attempt, one.job, encode(body), 30_000)
    end = Failed("permanent", "ValueError", "no such mailbox", one.attempt, "Traceback …", ms)
    return Finished("failed", one.lane, one.entry, one.attempt, one.job, encode(end))


class TestJob:
    async def test_is_there_at_once_with_no_projector_at_all(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        [position] = await Author(redis, keys).submit(1, type="mail.send", payload={"a": [1, 2.50]})
        job = await queries.job(keys.job_id(position))
        assert (job.id, job.queue, job.type, job.state) == (
            keys.job_id(position),
            "mail",
            "mail.send",
            "waiting",
        )
        assert (job.priority, job.attempt, job.attempts, job.timeout) == ("normal", 0, 5, 60)
        assert bytes(job.payload) == b'{"a":[1,2.5]}'
        assert job.submitted_at == job.ready_at
        assert job.submitted_at.endswith("Z")
        assert (job.started_at, job.finished_at, job.result, job.error, job.progress) == (None,) * 5

    async def test_tells_its_whole_story_whether_views_have_seen_all_some_or_none(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        [position] = await author.submit(1)
        worker = await author.enter()
        [one] = await author.take(worker, 1)
        await author.finish(worker, [], [progress(one, 0.5, "half")])
        half = await queries.job(keys.job_id(position))
        assert (half.state, half.attempt) == ("active", 1)
        assert half.progress is not None
        assert (half.progress.fraction, half.progress.message) == (0.5, "half")
        assert half.started_at is not None
        assert half.wait_ms is not None
        assert half.wait_ms >= 0
        await fold_all(redis, keys)
        assert await queries.job(keys.job_id(position)) == half

        await author.finish(worker, [completed(one, 12.5, {"to": 1})])
        done = await queries.job(keys.job_id(position))
        assert (done.state, done.run_ms, done.result, done.error) == (
            "completed",
            12.5,
            msgspec.Raw(b'{"to":1}'),
            None,
        )
        assert done.finished_at is not None
        await fold_all(redis, keys)
        assert await queries.job(keys.job_id(position)) == done

    async def test_tells_why_it_failed_and_when_it_is_tried_again(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        again, lost = await author.submit(2)
        worker = await author.enter()
        first, second = await author.take(worker, 2)
        await author.finish(worker, [failed(first, again=True), failed(second, again=False)])
        retried, dead = await queries.job(keys.job_id(again)), await queries.job(keys.job_id(lost))
        assert (retried.state, retried.finished_at, retried.run_ms) == ("delayed", None, 4.0)
        assert retried.error is not None
        assert (retried.error.error, retried.error.reason) == ("TimeoutError", "")
        assert retried.ready_at > retried.submitted_at
        assert dead.state == "failed"
        assert dead.error is not None
        assert (dead.error.message, dead.error.reason) == ("no such mailbox", "permanent")
        assert dead.error.traceback.startswith("Traceback")

    async def test_never_goes_backwards_while_views_lag_and_catch_up(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        await author.submit(200)
        watched = [keys.job_id(position) for position in author.jobs[::20]]
        seen: dict[str, list[int]] = {job: [] for job in watched}
        over, looked = asyncio.Event(), asyncio.Event()

        async def look() -> None:
            while not over.is_set():
                for job in watched:
                    seen[job].append(RANK[(await queries.job(job)).state])
                    looked.set()

        async def project() -> None:
            while not over.is_set():
                await fold(redis, keys)

        tasks = [asyncio.create_task(look()), asyncio.create_task(project())]
        worker = await author.enter()
        while taken := await author.take(worker, 10):
            looked.clear()
            await looked.wait()
            await author.finish(worker, [completed(one) for one in taken])
        over.set()
        await asyncio.gather(*tasks)
        for job in watched:
            seen[job].append(RANK[(await queries.job(job)).state])
            assert seen[job] == sorted(seen[job])
            assert seen[job][-1] == 2
        assert {rank for ranks in seen.values() for rank in ranks} == {0, 1, 2}

    async def test_what_no_log_holds_is_not_found(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        [position] = await author.submit(1)
        worker = await author.enter()
        await author.take(worker, 1)
        [_, started] = await Log(redis, keys).page("0-0")
        for wrong in ("mail.0.1795477369681-0", "none.0.1795477369681-0", "mail.9." + position, "x", ""):
            with pytest.raises(NotFound):
                await queries.job(wrong)
        for _ in range(2):  # before and after the views have seen it
            with pytest.raises(NotFound):
                await queries.job(keys.job_id(started.position))
            await fold_all(redis, keys)

    async def test_of_a_very_long_story_the_first_and_the_last_events_count(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        [position] = await author.submit(1)
        worker = await author.enter()
        [one] = await author.take(worker, 1)
        for tens in range(0, MAX_EVENTS + 100, 100):
            await author.finish(worker, [], [progress(one, (tens + it) / 10_000) for it in range(100)])
        await author.finish(worker, [completed(one, 5)])
        job = await queries.job(keys.job_id(position))
        assert (job.state, job.attempt, job.run_ms, job.type) == ("completed", 1, 5, job.type)
        assert job.progress is not None
        assert job.progress.fraction == pytest.approx(0.1099)


class TestWait:
    async def test_answers_as_soon_as_the_job_ends(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        one, other = await author.submit(2)
        worker = await author.enter()
        taken = await author.take(worker, 2)
        waits = [asyncio.create_task(queries.wait(keys.job_id(it), 20)) for it in (one, one, other)]
        await queries.wait(keys.job_id(one), 0.05)
        await author.finish(worker, [completed(taken[0]), failed(taken[1], again=False)])
        ended = time.monotonic()
        jobs = await asyncio.gather(*waits)
        assert time.monotonic() - ended < 15
        assert [job.state for job in jobs] == ["completed", "completed", "failed"]

    async def test_answers_with_the_job_as_it_is_when_time_is_up(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        [position] = await Author(redis, keys).submit(1)
        begun = time.monotonic()
        job = await queries.wait(keys.job_id(position), 0.2)
        assert job.state == "waiting"
        assert 0.2 <= time.monotonic() - begun < 15

    async def test_of_no_job_is_refused_at_once(self, queries: Queries) -> None:
        with pytest.raises(NotFound):
            await queries.wait("mail.0.1795477369681-0", 20)


class TestEvents:
    async def test_come_straight_from_the_log_in_pages(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        position, _ = await author.submit(2)
        worker = await author.enter()
        one, _ = await author.take(worker, 2)
        await author.finish(worker, [], [progress(one, it / 10) for it in range(5)])
        await fold_all(redis, keys)
        await author.finish(worker, [completed(one, 3.0, "ok")])
        whole = await queries.events(keys.job_id(position))
        assert [event.event for event in whole.events] == [
            *("submitted", "started", *["progressed"] * 5, "completed")
        ]
        assert whole.next is None
        assert whole.events[-1].data == msgspec.Raw(b'{"ms":3.0,"result":"ok"}')
        assert whole.events[0].position == position
        paged, after = [], ""
        while True:
            page = await queries.events(keys.job_id(position), after=after, limit=3)
            paged += page.events
            if page.next is None:
                break
            after = page.next
        assert paged == whole.events

    async def test_a_body_that_is_no_json_is_shown_as_text(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        [position] = await Author(redis, keys).submit(1)
        await command(redis, "XADD", keys.log, "*", "event", "started", "job", position, "body", b'{"a\xff')
        page = await queries.events(keys.job_id(position))
        assert msgspec.json.decode(msgspec.json.encode(page.events[1]))["data"] == '{"a\ufffd'
        assert (await queries.job(keys.job_id(position))).misfits == 1

    async def test_an_after_that_is_no_position_is_refused_by_name(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        [position] = await Author(redis, keys).submit(1)
        with pytest.raises(InvalidJob) as refused:
            await queries.events(keys.job_id(position), after="yesterday")
        assert [problem.path for problem in refused.value.problems] == ["after"]


class TestJobs:
    async def test_pages_hold_every_job_once_newest_first_while_others_come_and_move(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        for _ in range(4):
            await author.submit(700)
        await fold_all(redis, keys)
        old = list(author.jobs)
        worker = await author.enter()
        listed: list[str] = []
        cursor = None
        while True:
            page = await queries.jobs("mail", cursor=cursor, limit=300)
            listed += [job.id for job in page.jobs]
            cursor = page.next
            if cursor is None:
                break
            await author.submit(50)
            await author.finish(worker, [completed(one) for one in await author.take(worker, 100)])
            await fold_all(redis, keys)
        assert listed == [keys.job_id(position) for position in reversed(old)]

    async def test_are_picked_by_state_and_type(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys, seed=6)
        for _ in range(8):
            await author.scene()
        await fold_all(redis, keys)
        found = await rows(redis, keys)
        for state in (None, *STATES):
            for type in (None, "mail.send", "mail.none"):
                page = await queries.jobs("mail", state=state, type=type, limit=500)
                wanted = {
                    keys.job_id(job)
                    for job, row in found.items()
                    if state in (None, row.state) and type in (None, row.type)
                }
                assert {job.id for job in page.jobs} == wanted
                assert page.next is None
                for job in page.jobs:
                    assert state in (None, job.state)
                    assert job.submitted_at <= job.updated_at

    async def test_exactly_one_full_page_has_no_next(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        await Author(redis, keys).submit(10)
        await fold_all(redis, keys)
        page = await queries.jobs("mail", limit=10)
        assert (len(page.jobs), page.next) == (10, None)

    async def test_a_queue_that_nobody_used_is_not_found(self, queries: Queries) -> None:
        with pytest.raises(NotFound):
            await queries.jobs("none")
        with pytest.raises(NotFound):
            await queries.queue("none")
        assert (await queries.queues()).queues == []

    @pytest.mark.parametrize("cursor", ["x", "!!!", "MTIzNA", "ä", "A" * 80])
    async def test_a_cursor_of_no_page_is_refused_by_name(
        self, redis: Redis, keys: PartitionKeys, queries: Queries, cursor: str
    ) -> None:
        await Author(redis, keys).submit(1)
        with pytest.raises(InvalidJob) as refused:
            await queries.jobs("mail", cursor=cursor)
        assert [problem.path for problem in refused.value.problems] == ["cursor"]


class TestFigures:
    async def test_agree_with_counting_the_log(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys, seed=8)
        for _ in range(10):
            await author.scene()
        await fold_all(redis, keys)
        queue = await queries.queue("mail")
        events = await Log(redis, keys).page("0-0", 100_000)
        tags = Counter(event.tag for event in events)
        found = await rows(redis, keys)
        states = Counter(row.state for row in found.values())
        assert msgspec.structs.asdict(queue.counts) == {state: states[state] for state in STATES}
        assert queue.totals.submitted == tags["submitted"] == len(author.jobs)
        assert queue.totals.retried == tags["attempt_failed"]
        assert sum(queue.failures.values()) == queue.totals.failed == tags["failed"]
        assert queue.wait_ms is not None
        assert queue.rates is not None
        assert queue.wait_ms.last_5_minutes.count == tags["started"]
        assert queue.lag_s == 0
        assert queue.rates.last_5_minutes.started == pytest.approx(tags["started"] / 300, abs=0.001)
        oldest = min(milliseconds(job) for job, row in found.items() if row.state == "waiting")
        seconds, _ = await redis.time()
        assert queue.oldest_waiting_s == pytest.approx(seconds - oldest / 1000, abs=5)
        assert (await queries.queues()).queues[0].counts == queue.counts

    async def test_run_quantiles_are_those_of_the_sorted_durations(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        await author.submit(300)
        worker = await author.enter()
        taken = await author.take(worker, 300)
        durations = [round(0.2 * 1.04**number, 3) for number in range(len(taken))]
        await author.finish(worker, [completed(one, ms) for one, ms in zip(taken, durations, strict=True)])
        await fold_all(redis, keys)
        run_ms = (await queries.queue("mail")).run_ms
        assert run_ms is not None
        told = run_ms.last_60_minutes
        assert told.count == 300
        for answer, share in ((told.p50, 0.5), (told.p95, 0.95), (told.p99, 0.99)):
            assert answer == pytest.approx(durations[math.ceil(share * 300) - 1], rel=RELATIVE_ERROR * 1.001)

    async def test_lag_is_the_age_of_the_oldest_event_not_seen(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        author = Author(redis, keys)
        await author.submit(1)
        await fold_all(redis, keys)
        assert (await queries.queue("mail")).lag_s == 0
        [unseen] = await author.submit(1)
        deadline = time.monotonic() + 20
        while (lag := (await queries.queue("mail")).lag_s) < 0.05:
            assert time.monotonic() < deadline
        seconds, micros = await redis.time()
        assert lag <= seconds + micros / 1e6 - milliseconds(unseen) / 1000
        await fold_all(redis, keys)
        assert (await queries.queue("mail")).lag_s == 0

    async def test_a_queue_whose_views_are_not_there_yet_has_empty_figures(
        self, redis: Redis, keys: PartitionKeys, queries: Queries
    ) -> None:
        await Author(redis, keys).submit(3)
        queue = await queries.queue("mail")
        assert (queue.counts.waiting, queue.oldest_waiting_s) == (0, None)
        assert queue.wait_ms is not None
        assert queue.wait_ms.last_60_minutes.p99 is None
        assert queue.lag_s >= 0


def test_rates_weigh_the_minute_on_the_edge() -> None:
    minutes = [Minute(Totals(submitted=30)), *[Minute(Totals(submitted=60)) for _ in range(5)]]
    assert rates(minutes, 1, 0.5).submitted == 1.0
    assert rates(minutes, 5, 0.5).submitted == 1.0
    assert rates(minutes, 1, 0.0).submitted == 0.5


def test_quantiles_over_minutes_are_those_of_all_durations_together() -> None:
    values = [float(2**power) for power in range(12)]
    parts = [{bucket(value): 1} for value in values]
    assert quantiles(parts) == quantiles([merge(parts)])
