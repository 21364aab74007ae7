"""`run_due`, the help for users' own tests: the worker's executor without its loop, on a real server."""

import time
from pathlib import Path
from typing import Any

import msgspec

from jobs_for_tests import Block, Echo, Elsewhere, Family, Flaky, Hopeless, Large, Nap, Odd, Talk
from penstock.consumers.testing import Counts, run_due
from penstock.core import Backoff
from penstock.core.artifacts import open_artifacts
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from processes import Site


async def run(site: Site, **options: Any) -> Counts:
    return await run_due(site.redis, namespace=site.settings.namespace, **options)


async def test_nothing_due_is_nothing_run(site: Site) -> None:
    assert await run(site, queues=["test"]) == Counts()


async def test_all_that_is_due_is_run_and_counted(site: Site, producer: Producer) -> None:
    handles = await producer.submit_many([Echo(number) for number in range(40)])
    await producer.submit_many([Hopeless(), Elsewhere(), Block(0.0)])
    await producer.submit(Flaky(times=1), backoff=Backoff(base=60))
    assert await run(site) == Counts(completed=42, failed=1, attempt_failed=1)
    assert [await handle.result(timeout=1) for handle in handles] == list(range(40))
    assert await run(site) == Counts()


async def test_it_leaves_nobody_behind(site: Site, producer: Producer) -> None:
    await producer.submit(Echo(1))
    await run(site, queues=["test"])
    assert await site.consumers() == set()
    assert await site.redis.zcard(site.keys.workers) == 0
    await site.consistent()


async def test_what_is_due_later_stays(site: Site, producer: Producer) -> None:
    later = await producer.submit(Echo(1), delay=60)
    assert await run(site, queues=["test"]) == Counts()
    assert await later.state() == "delayed"


async def test_a_retry_is_run_when_it_is_due(site: Site, producer: Producer) -> None:
    handle = await producer.submit(Flaky(times=1), backoff=Backoff(base=60))
    assert await run(site, queues=["test"]) == Counts(attempt_failed=1)
    await site.redis.zadd(site.keys.due, {f"2:{handle.id.rsplit('.', maxsplit=1)[1]}": 1})
    assert await run(site, queues=["test"]) == Counts(completed=1)
    assert await handle.result(timeout=1) == 2


async def test_jobs_that_a_handler_submits_are_run_too(site: Site, producer: Producer) -> None:
    class Submitter:
        async def submit(self, payload: msgspec.Struct, /, **options: Any) -> str:
            return (await own.submit(payload, **options)).id

    own = producer
    await producer.submit(Family(3))
    assert await run(site, queues=["test"], submitter=Submitter()) == Counts(completed=4)


async def test_what_a_handler_says_is_in_the_log(site: Site, producer: Producer) -> None:
    handle = await producer.submit(Talk(words=10))
    await run(site, queues=["test"])
    assert await site.bodies(handle, "logged") == [{"line": "line 10"}]
    assert (await site.bodies(handle, "progressed"))[-1]["fraction"] == 1.0


async def test_a_timeout_counts(site: Site, producer: Producer) -> None:
    await producer.submit(Nap(60), timeout=0.1, attempts=1)
    began = time.monotonic()
    assert await run(site, queues=["test"]) == Counts(failed=1)
    assert time.monotonic() - began < 30


async def test_an_odd_end_hurts_nobody(site: Site, producer: Producer) -> None:
    await producer.submit(Odd("exit"), attempts=1)
    await producer.submit(Echo(1))
    assert await run(site, queues=["test"]) == Counts(completed=1, failed=1)


async def test_a_result_too_large_for_the_log_is_an_artifact(
    site: Site, producer: Producer, tmp_path: Path
) -> None:
    artifacts = open_artifacts(Settings(data_dir=tmp_path))
    handle = await producer.submit(Large(site.settings.max_result))
    assert await run(site, queues=["test"], artifacts=artifacts) == Counts(completed=1)
    kept = await handle.result(timeout=1)
    content = await artifacts.aget(kept["artifact"])
    assert kept["content_type"] == "application/json"
    assert len(content) == kept["size"] == site.settings.max_result + 2
    assert len(msgspec.json.decode(content)) == site.settings.max_result
