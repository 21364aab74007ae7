"""The pools behind thread and process handlers, used directly."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobs_for_tests
from jobs_for_tests import Block, Hang
from penstock.consumers.context import Context, Report
from penstock.consumers.executors import Executors, FailedElsewhere
from penstock.consumers.handlers import Handler, handlers
from processes import eventually


@pytest.fixture
def executors() -> Iterator[Executors]:
    executors = Executors(2)
    yield executors
    executors.close()


def context(type: str, reports: list[Report] | None = None) -> Context:
    return Context(
        job_id="test.0.1-0",
        type=type,
        attempt=1,
        attempts=1,
        artifacts=None,
        jobs=None,
        report=(reports if reports is not None else []).append,
    )


def known(type: str) -> Handler:
    assert jobs_for_tests.__name__ == "jobs_for_tests"  # imported, so that its handlers are known
    return handlers()[type]


async def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_threads_run_side_by_side(executors: Executors) -> None:
    began = time.monotonic()
    jobs = [executors.run(known("test.block"), Block(1.0), context("test.block")) for _ in range(2)]
    assert await asyncio.gather(*jobs) == ["woke", "woke"]
    assert time.monotonic() - began < 1.9, "one after the other takes 2 s"


async def test_a_cancelled_thread_is_stuck_until_it_returns(executors: Executors) -> None:
    task = asyncio.create_task(executors.run(known("test.block"), Block(0.4), context("test.block")))
    await asyncio.wait([task], timeout=0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(executors.stuck) == 1

    async def free() -> bool:
        return not executors.stuck

    await eventually(free, 30, "the thread returns")


async def test_a_process_is_another_one(executors: Executors, tmp_path: Path) -> None:
    pid = await executors.run(known("test.hang"), Hang(str(tmp_path / "pid")), context("test.hang"))
    assert int(pid) != os.getpid()


async def test_a_cancelled_process_is_killed_and_the_next_one_works(
    executors: Executors, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    run = executors.run(known("test.hang"), Hang(str(file), seconds=60), context("test.hang"))
    task = asyncio.create_task(run)

    async def told() -> int:
        return file.exists() and int(file.read_text() or 0)

    pid = await eventually(told, 30, "it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: gone(pid), 30, "it is gone")
    await executors.run(known("test.hang"), Hang(str(tmp_path / "other")), context("test.hang"))


async def test_a_process_that_dies_is_a_failure(executors: Executors, tmp_path: Path) -> None:
    with pytest.raises(FailedElsewhere) as caught:
        await executors.run(known("test.hang"), Hang(str(tmp_path / "pid"), die=True), context("test.hang"))
    why = executors.failure(caught.value)
    assert (why.error, why.permanent) == ("ProcessDied", False)


async def test_an_error_in_a_process_comes_back_with_its_traceback(executors: Executors) -> None:
    nowhere = Hang("/nowhere/at/all/pid")
    with pytest.raises(FailedElsewhere) as caught:
        await executors.run(known("test.hang"), nowhere, context("test.hang"))
    why = executors.failure(caught.value)
    assert why.error == "FileNotFoundError"
    assert "jobs_for_tests.py" in why.traceback


async def test_closing_ends_processes(tmp_path: Path) -> None:
    executors = Executors(1)
    file = tmp_path / "pid"
    run = executors.run(known("test.hang"), Hang(str(file), seconds=60), context("test.hang"))
    task = asyncio.create_task(run)

    async def told() -> int:
        return file.exists() and int(file.read_text() or 0)

    pid = await eventually(told, 30, "it runs")
    began = time.monotonic()
    executors.close()
    assert time.monotonic() - began < 5
    await eventually(lambda: gone(pid), 30, "it is gone")
    task.cancel()
