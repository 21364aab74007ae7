"""Every way an attempt can end in a real worker on a real server, and what the log then says."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs_for_tests import (
    Block,
    Busy,
    Echo,
    Family,
    Flaky,
    Hang,
    Hopeless,
    Large,
    Nap,
    Odd,
    Talk,
)
from penstock.consumers import Context, attempts, handler
from penstock.core import contract
from penstock.core.contracts import Backoff
from penstock.core.errors import JobFailed
from penstock.core.positions import milliseconds
from penstock.producer.client import Producer
from processes import JOB, Site, eventually, producing, working

WAIT = 30


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[None]:
    async with working(site.settings):
        yield


async def failure(handle: Any) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await handle.result(timeout=WAIT)
    return caught.value


@pytest.mark.usefixtures("worker")
class TestOutcomes:
    """A worker runs already."""

    async def test_a_result_comes_back(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Echo({"a": [1, "zwei", None]}))
        assert await handle.result(timeout=WAIT) == {"a": [1, "zwei", None]}
        assert await site.tags(handle) == ["submitted", "started", "completed"]
        assert await handle.state() == "completed"
        await site.consistent()

    async def test_a_failing_job_is_tried_again_until_it_succeeds(
        self, site: Site, producer: Producer
    ) -> None:
        handle = await producer.submit(Flaky(times=2))
        assert await handle.result(timeout=WAIT) == 3
        once = ["started", "attempt_failed"]
        assert await site.tags(handle) == ["submitted", *once, *once, "started", "completed"]
        first, second = await site.bodies(handle, "attempt_failed")
        assert (first["attempt"], first["error"], second["attempt"]) == (1, "ValueError", 2)
        assert first["message"] == "attempt 1 of 3 fails"
        assert "jobs_for_tests.py" in first["traceback"]

    async def test_a_job_waits_out_its_backoff(self, site: Site, producer: Producer) -> None:
        backoff = Backoff(base=0.2, factor=2, jitter=0)
        handle = await producer.submit(Flaky(times=2), backoff=backoff)
        await handle.result(timeout=WAIT)
        story = await site.story(handle)
        at = [milliseconds(it.position) for it in story if it.tag in ("started", "attempt_failed")]
        assert 200 <= at[2] - at[1] < 600
        assert 400 <= at[4] - at[3] < 800

    async def test_the_last_failure_is_final(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Flaky(times=99))
        error = await failure(handle)
        assert (error.reason, error.error) == ("exhausted", "ValueError")
        assert (await site.tags(handle)).count("started") == 3
        (failed,) = await site.bodies(handle, "failed")
        assert failed["attempt"] == 3
        await site.consistent()

    async def test_permanent_is_not_tried_again(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Hopeless())
        assert (await failure(handle)).reason == "permanent"
        assert await site.tags(handle) == ["submitted", "started", "failed"]

    async def test_a_job_comes_back_when_its_remote_service_says(
        self, site: Site, producer: Producer
    ) -> None:
        handle = await producer.submit(Busy(after=0.4))
        assert await handle.result(timeout=WAIT) == 2
        story = await site.story(handle)
        waited = milliseconds(story[3].position) - milliseconds(story[2].position)
        assert [it.tag for it in story][2:4] == ["attempt_failed", "started"]
        assert 400 <= waited < 800

    async def test_a_coroutine_out_of_time_is_cancelled(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Nap(60), timeout=0.1, attempts=1)
        error = await failure(handle)
        assert (error.reason, error.error) == ("exhausted", "TimeoutError")
        (failed,) = await site.bodies(handle, "failed")
        assert 90 <= failed["ms"] < 2_000

    async def test_a_thread_out_of_time_is_recorded_and_its_slot_comes_back(
        self, site: Site, producer: Producer
    ) -> None:
        handle = await producer.submit(Block(0.6), timeout=0.1, attempts=1)
        assert (await failure(handle)).error == "TimeoutError"
        assert await (await producer.submit(Block(0.0))).result(timeout=WAIT) == "woke"

    async def test_a_process_out_of_time_is_killed(
        self, site: Site, producer: Producer, tmp_path: Path
    ) -> None:
        file = tmp_path / "pid"
        handle = await producer.submit(Hang(str(file), seconds=60), timeout=3)
        assert (await failure(handle)).error == "TimeoutError"
        pid = int(file.read_text())

        async def gone() -> bool:
            return not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240 (looks, and reads nothing)

        await eventually(gone, 30, "its process is gone")

    async def test_a_process_answers_and_reports(
        self, site: Site, producer: Producer, tmp_path: Path
    ) -> None:
        handle = await producer.submit(Hang(str(tmp_path / "pid"), say=0.25))
        pid = await handle.result(timeout=30)
        assert pid != os.getpid()
        assert (await site.bodies(handle, "progressed"))[0] == {"fraction": 0.25}
        assert await site.bodies(handle, "logged") == [{"line": "from another process"}]

    async def test_a_process_that_dies_fails_its_job_and_nothing_else(
        self, site: Site, producer: Producer, tmp_path: Path
    ) -> None:
        handle = await producer.submit(Hang(str(tmp_path / "pid"), die=True))
        error = await failure(handle)
        assert (error.reason, error.error) == ("exhausted", "ProcessDied")
        again = await producer.submit(Hang(str(tmp_path / "pid")))
        assert await again.result(timeout=30) == int((tmp_path / "pid").read_text())

    async def test_a_payload_this_worker_cannot_read_fails_for_good(self, site: Site) -> None:
        """Submitted under another version of the contract."""
        (job,) = await site.put('{"type":"test.nap","payload":{"seconds":"soon"}}')
        failed = await site.until(job, "failed")
        assert (failed["reason"], failed["error"]) == ("permanent", "InvalidPayload")
        assert "seconds" in failed["message"]

    @pytest.mark.parametrize(
        "body", ["[]", "{", "", '{"type":3,"payload":1}', '{"payload":1}', '{"type":"test.echo"}']
    )
    async def test_an_event_nobody_can_read_fails_for_good(self, site: Site, body: str) -> None:
        (job,) = await site.put(body)
        failed = await site.until(job, "failed")
        assert (failed["reason"], failed["error"]) == ("permanent", "InvalidJob")
        (good,) = await site.put(JOB)
        await site.until(good, "completed")

    async def test_a_result_over_the_bound_fails_for_good(self, site: Site, producer: Producer) -> None:
        limit = site.settings.max_result
        assert len(await (await producer.submit(Large(limit - 2))).result(timeout=WAIT)) == limit - 2
        error = await failure(await producer.submit(Large(limit)))
        assert (error.reason, error.error) == ("permanent", "ResultTooLarge")

    async def test_progress_and_lines_are_in_the_history(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Talk(words=30))
        assert await handle.result(timeout=WAIT) is None
        last = (await site.bodies(handle, "progressed"))[-1]
        assert last == {"fraction": 1.0, "message": "word 30", "data": {"number": 30}}
        assert await site.bodies(handle, "logged") == [{"line": f"line {n}"} for n in (10, 20, 30)]
        tags = await site.tags(handle)
        assert (tags[:2], tags[-1]) == (["submitted", "started"], "completed")
        await site.consistent()

    async def test_a_talker_does_not_fill_the_log(self, site: Site, producer: Producer) -> None:
        handle = await producer.submit(Talk(words=5_000))
        await handle.result(timeout=WAIT)
        tags = await site.tags(handle)
        assert tags.count("logged") == 200
        assert tags.count("progressed") < 20

    @pytest.mark.parametrize(("how", "error"), [("exit", "SystemExit"), ("unencodable result", "TypeError")])
    async def test_an_odd_end_is_a_failed_attempt(
        self, site: Site, producer: Producer, how: str, error: str
    ) -> None:
        caught = await failure(await producer.submit(Odd(how)))
        assert (caught.reason, caught.error) == ("exhausted", error)
        assert await (await producer.submit(Echo(1))).result(timeout=WAIT) == 1


async def test_a_handler_that_is_cancelled_from_inside_is_a_failed_attempt(site: Site) -> None:
    """A coroutine that awaits a task somebody else cancelled raises CancelledError. Given back with no
    attempt spent, it would run again at once, for ever."""
    async with producing(site) as producer, working(site.settings):
        handle = await producer.submit(Odd("cancelled"))
        await site.until(handle, "failed", timeout=3)
        assert (await site.tags(handle)).count("started") == 2


ODD_WORDS = ["half a character", "mute", "unencodable progress", "progress of no number"]


@pytest.mark.parametrize("how", ODD_WORDS)
async def test_words_that_cannot_be_written_never_hurt_the_worker(site: Site, how: str) -> None:
    """The attempt ends, its job is readable, the slot comes back, other jobs go on."""
    settings = msgspec.structs.replace(site.settings, concurrency=1)
    async with producing(site) as producer, working(settings):
        odd = await producer.submit(Odd(how), attempts=1)
        assert await (await producer.submit(Echo(1))).result(timeout=3) == 1
        await eventually(lambda: _ended(site, odd), 3, "the odd one ends")
        await site.consistent()


async def _ended(site: Site, handle: Any) -> bool:
    return (await site.tags(handle))[-1] in ("completed", "failed")


async def test_a_type_nobody_here_knows_is_left_for_a_worker_that_does(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "UNKNOWN_TYPE_PAUSE_S", 0.3)
    unknown = f"test.{site.settings.namespace}"
    (job,) = await site.put(f'{{"type":"{unknown}","payload":{{"n":7}}}}')
    async with working(site.settings):
        released = await site.until(job, "released")
        assert released["reason"].endswith(f"has no handler for {unknown}")

    @contract(unknown)
    class New(msgspec.Struct):
        n: int

    @handler(New)
    async def new(job: New, context: Context) -> int:
        return job.n * 6

    async with working(site.settings):
        assert (await site.until(job, "completed"))["result"] == 42
    assert {body["attempt"] for body in await site.bodies(job, "started")} == {1}
    await site.consistent([job])


async def test_jobs_of_higher_priority_go_first(site: Site) -> None:
    async with producing(site) as producer:
        low = await producer.submit_many([Echo(n) for n in range(3)], priority="low")
        normal = await producer.submit_many([Echo(n) for n in range(3)])
        high = await producer.submit_many([Echo(n) for n in range(3)], priority="high")
    async with working(msgspec.structs.replace(site.settings, concurrency=1)):
        await site.until_ended(9, timeout=WAIT)
    started = [site.keys.job_id(it.job) for it in await site.events() if it.tag == "started"]
    assert started == [handle.id for handle in [*high, *normal, *low]]


async def test_a_handler_may_submit_more_jobs(site: Site) -> None:
    class Submitter:
        async def submit(self, payload: msgspec.Struct, /, **options: Any) -> str:
            return (await ours.submit(payload, **options)).id

    async with producing(site) as ours, working(site.settings, submitter=Submitter()):
        children = await (await ours.submit(Family(3))).result(timeout=WAIT)
        results = [await ours.handle(child).result(timeout=WAIT) for child in children]
    assert results == [0, 1, 2]


async def test_a_delayed_job_and_a_moment_wait_their_time(site: Site) -> None:
    async with producing(site) as producer, working(site.settings):
        seconds, _ = await site.redis.time()
        delayed = await producer.submit(Echo(1), delay=0.5)
        moment = await producer.submit(Echo(2), run_at=(seconds + 2) * 1_000)
        assert [await delayed.state(), await moment.state()] == ["delayed", "delayed"]
        await asyncio.gather(delayed.result(timeout=WAIT), moment.result(timeout=WAIT))
        began = [milliseconds((await site.story(it))[1].position) for it in (delayed, moment)]
        assert began[0] - milliseconds((await site.story(delayed))[0].position) >= 500
        assert began[1] >= (seconds + 2) * 1_000
    await site.consistent()
