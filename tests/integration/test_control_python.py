"""The same commands from Python, with an event loop and without."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs_for_tests import Block, Echo, Flaky, Gate, Hopeless, Tidy
from penstock.core.contracts import Backoff
from penstock.core.errors import InvalidJob, JobFailed, NotFound, WrongState
from penstock.producer import Producer, SyncProducer
from processes import Site, eventually, site_on, working
from servers import RealServer

WAIT = 30


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    async with site_on(server, namespace, concurrency=2) as site:
        yield site


async def test_cancel_waiting_delayed_and_running(producer: Producer, site: Site, tmp_path: Path) -> None:
    waiting = await producer.submit(Echo(1))
    delayed = await producer.submit(Echo(1), delay=3600)
    assert await waiting.cancel(by="ada", reason="not needed") == "waiting"
    assert await delayed.cancel() == "waiting"
    async with working(site.settings):
        running = await producer.submit(Tidy(str(tmp_path / "note")))
        await site.until(running, "started")
        assert await running.cancel() == "running"
        with pytest.raises(JobFailed, match="cancelled"):
            await running.result(timeout=WAIT)

        async def noted() -> bool:
            return (tmp_path / "note").exists()

        await eventually(noted, WAIT, "the handler cleans up")
    assert await site.bodies(waiting, "cancelled") == [{"by": "ada", "reason": "not needed"}]
    with pytest.raises(WrongState, match="is over: cancelled"):
        await waiting.cancel()
    await site.consistent()


async def test_what_waits_for_its_next_attempt_is_promoted_or_cancelled(
    producer: Producer, site: Site
) -> None:
    slow = Backoff(kind="fixed", base=3600, jitter=0)
    promoted, dropped = [await producer.submit(Flaky(1), backoff=slow) for _ in range(2)]
    async with working(site.settings):
        for job in (promoted, dropped):
            await site.until(job, "attempt_failed")
        await promoted.promote()
        assert await promoted.result(timeout=WAIT) == 2
        assert await dropped.cancel() == "waiting"
    await site.consistent()


async def test_retry_as_it_was_and_with_another_payload(producer: Producer, site: Site) -> None:
    failed, wrong = await producer.submit(Hopeless()), await producer.submit(Block(-1), attempts=1)
    with pytest.raises(WrongState, match="has not ended"):
        await wrong.retry(Block(0))
    async with working(site.settings):
        for job in (failed, wrong):
            with pytest.raises(JobFailed):
                await job.result(timeout=WAIT)
        again = await failed.retry(by="ada")
        assert again is failed
        with pytest.raises(JobFailed):
            await again.result(timeout=WAIT)
        with pytest.raises(InvalidJob, match=r"that of test\.echo, and the job is test\.block"):
            await wrong.retry(Echo(1))
        with pytest.raises(InvalidJob, match=r"payload\.seconds"):
            await wrong.retry(Block("soon"))  # type: ignore[arg-type]
        changed = await wrong.retry(Block(0), key="once")
        assert changed.id != wrong.id
        assert (await wrong.retry(Block(0), key="once")).id == changed.id
        assert await changed.result(timeout=WAIT) == "woke"
    [submitted] = await site.bodies(changed, "submitted")
    assert submitted["origin"] == wrong.id
    assert (await site.bodies(failed, "requeued"))[0]["by"] == "ada"


async def test_two_who_retry_at_once_run_it_once(producer: Producer, site: Site) -> None:
    job = await producer.submit(Hopeless())
    async with working(site.settings):
        with pytest.raises(JobFailed):
            await job.result(timeout=WAIT)
    answers = await asyncio.gather(*(job.retry() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, WrongState) for answer in answers) == 9
    assert (await site.tags(job)).count("requeued") == 1


async def test_promote_reschedule_prioritize(producer: Producer, site: Site, tmp_path: Path) -> None:
    job = await producer.submit(Echo("soon"), delay=3600)
    await job.reschedule(run_at=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(InvalidJob, match="give delay or run_at, not both"):
        await job.reschedule(delay=1, run_at=5)
    with pytest.raises(InvalidJob, match="priority"):
        await job.prioritize("urgent")  # type: ignore[arg-type]
    await job.promote()
    with pytest.raises(WrongState, match="waits for a worker already"):
        await job.promote()
    last = await producer.submit(Gate(str(tmp_path / "gate")))
    await last.prioritize("high")
    async with working(site.settings):
        assert await job.result(timeout=WAIT) == "soon"
        await site.until(last, "started")
        with pytest.raises(WrongState, match="has started"):
            await last.prioritize("low")
        (tmp_path / "gate").touch()
        await last.result(timeout=WAIT)
    with pytest.raises(NotFound):
        await producer.handle("test.0.1795477369681-0").cancel()
    await site.consistent()


async def test_queues_are_paused_limited_and_drained(producer: Producer, site: Site) -> None:
    assert await producer.pause("test", by="ada")
    assert not await producer.pause("test")
    jobs = await producer.submit_many([Echo(n) for n in range(450)])
    async with working(site.settings):
        drained = await producer.drain_queue("test")
        assert (drained.cancelled, drained.more) == (450, False)
        assert await producer.resume("test")
        assert await producer.limit("test", rate=100, burst=1, concurrency=1)
        assert not await producer.limit("test", rate=100, burst=1, concurrency=1)
        with pytest.raises(InvalidJob, match="concurrency"):
            await producer.limit("test", concurrency=-1)
        assert await (await producer.submit(Echo(1))).result(timeout=WAIT) == 1
        assert await producer.limit("test")
    assert await jobs[0].state() == "cancelled"
    with pytest.raises(NotFound, match="no queue 'nosuch'"):
        await producer.pause("nosuch")
    await site.consistent()


async def test_without_an_event_loop(site: Site, tmp_path: Path) -> None:
    """Each command of the synchronous face, from a thread; a worker in this process does the work."""

    def commands() -> dict[str, Any]:
        found: dict[str, Any] = {}
        with SyncProducer(site.settings) as producer:
            job = producer.submit(Echo("done"), delay=3600)
            job.reschedule(delay=7200)
            job.promote()
            found["result"] = job.result(timeout=WAIT)
            found["too late"] = _refused(job.cancel)
            wrong = producer.submit(Block(-1), attempts=1)
            found["failed"] = _refused(lambda: wrong.result(timeout=WAIT))
            found["changed"] = wrong.retry(Block(0)).result(timeout=WAIT)
            wrong.retry(by="ada")
            found["failed again"] = _refused(lambda: wrong.result(timeout=WAIT))
            found["worker"] = [worker.queues for worker in producer.workers()]
            assert producer.pause("test")
            *_, waiting = producer.submit_many([Echo(1)] * 5)  # an idle worker may hold the first
            waiting.prioritize("low")
            assert producer.drain_queue("test").cancelled == 5
            assert waiting.state() == "cancelled"
            assert producer.limit("test", concurrency=5)
            assert producer.resume("test")
            producer.drain_worker(producer.workers()[0].name)
        return found

    async with working(site.settings) as worker:
        found = await asyncio.to_thread(commands)
        assert await asyncio.wait_for(worker.task, WAIT)
    assert found == {
        "result": "done",
        "too late": "WrongState",
        "failed": "JobFailed",
        "changed": "woke",
        "failed again": "JobFailed",
        "worker": [("test",)],
    }
    await site.consistent()


def _refused(call: Callable[[], Any]) -> str:
    try:
        return f"no, but {call()}"
    except (WrongState, JobFailed) as error:
        return type(error).__name__
