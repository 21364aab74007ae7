"""The Python producer on real servers: submit, await, coalesce, and come through a server's absence."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest

from jobs_for_tests import Echo, Elsewhere, Flaky, Hopeless, Nap
from penstock.core.errors import InvalidJob, JobFailed, NotFound, TooLarge, Unavailable
from penstock.core.events import Submitted, decode
from penstock.producer import SyncProducer
from penstock.producer.client import Producer
from penstock.producer.outlet import PATIENCE_S
from processes import Site, producing, site_on, working
from servers import RealServer

WAIT = 30


async def script_calls(site: Site) -> int:
    stats = await site.redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_job_is_in_the_log_and_in_its_lane_when_submit_returns(
    site: Site, producer: Producer
) -> None:
    handle = await producer.submit(Echo("x"), priority="high", tags=["a"], attempts=2, timeout=5)
    (event,) = await handle.events()
    body = decode(event)
    assert isinstance(body, Submitted)
    assert handle.id == f"test.0.{event.position}"
    assert (handle.queue, handle.type, handle.known) == ("test", "test.echo", False)
    assert (body.type, bytes(body.payload), body.priority) == ("test.echo", b'{"value":"x"}', "high")
    assert (body.tags, body.attempts, body.timeout) == (("a",), 2, 5)
    assert await site.redis.xlen(site.keys.lanes[0]) == 1
    assert await handle.state() == "waiting"


async def test_many_jobs_of_several_queues_come_back_in_order(producer: Producer) -> None:
    handles = await producer.submit_many([Echo(1), Elsewhere(), Echo(2), Elsewhere(), Nap(0)])
    assert [it.queue for it in handles] == ["test", "other", "test", "other", "test"]
    assert [it.type for it in handles] == ["test.echo", "other.echo", "test.echo", "other.echo", "test.nap"]
    assert len({it.id for it in handles}) == 5


async def test_no_jobs_are_no_handles(site: Site, producer: Producer) -> None:
    assert await producer.submit_many([]) == []
    assert await site.events() == []


async def test_one_wrong_job_and_none_is_submitted(site: Site, producer: Producer) -> None:
    with pytest.raises(InvalidJob, match=r"payload\.seconds"):
        await producer.submit_many([Nap(1), Nap("long"), Nap(2)])  # type: ignore[arg-type]
    with pytest.raises(TooLarge):
        await producer.submit(Echo("x" * 300_000))
    assert await site.redis.exists(site.keys.log) == 0


async def test_an_idempotency_key_names_one_job(site: Site, producer: Producer) -> None:
    first = await producer.submit(Echo(1), key="order-17")
    again = await producer.submit(Echo(2), key="order-17")
    assert (again.id, first.known, again.known) == (first.id, False, True)
    with pytest.raises(ValueError, match="one job"):
        await producer.submit_many([Echo(1), Echo(2)], key="order-18")
    assert len(await site.events()) == 1


async def test_a_moment_is_given_as_a_datetime_or_in_ms(site: Site, producer: Producer) -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, 678_000, UTC)
    one = await producer.submit(Echo(1), run_at=moment)
    two = await producer.submit(Echo(1), run_at=round(moment.timestamp() * 1_000))
    assert [it["run_at"] for job in (one, two) for it in await site.bodies(job, "submitted")] == [
        1_893_553_445_678
    ] * 2
    assert await one.state() == "delayed"
    with pytest.raises(InvalidJob, match="run_at"):
        await producer.submit(Echo(1), run_at=datetime(2030, 1, 1))  # noqa: DTZ001 (that is the point)


async def test_a_result_is_awaited_before_and_after_the_end(site: Site, producer: Producer) -> None:
    early = await producer.submit(Echo([1]))
    waiting = asyncio.create_task(early.result(timeout=WAIT))
    async with working(site.settings):
        assert await waiting == [1]
        assert await early.result(timeout=WAIT) == [1]
        assert await producer.handle(early.id).result(timeout=WAIT) == [1]


async def test_a_result_can_be_asked_for_as_a_type(site: Site, producer: Producer) -> None:
    class Size(msgspec.Struct):
        width: int

    async with working(site.settings):
        handle = await producer.submit(Echo({"width": 3}))
        assert await handle.result(timeout=WAIT, type=Size) == Size(3)
        with pytest.raises(msgspec.ValidationError):
            await handle.result(timeout=WAIT, type=int)


async def test_a_job_that_failed_says_why(site: Site, producer: Producer) -> None:
    async with working(site.settings):
        for payload, reason in ((Hopeless(), "permanent"), (Flaky(times=9), "exhausted")):
            handle = await producer.submit(payload)
            with pytest.raises(JobFailed) as caught:
                await handle.result(timeout=WAIT)
            assert (caught.value.job_id, caught.value.reason) == (handle.id, reason)
            assert await handle.state() == "failed"


async def test_waiting_ends_with_its_time(producer: Producer) -> None:
    handle = await producer.submit(Echo(1))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.2)
    assert 0.15 < time.monotonic() - began < 10


@pytest.mark.parametrize("id", ["test.0.1-0", "test.5.1795477369681-0", "nowhere.0.1795477369681-0"])
async def test_a_job_that_never_was_is_not_found(producer: Producer, id: str) -> None:
    handle = producer.handle(id)
    assert await handle.events() == []
    with pytest.raises(NotFound):
        await handle.state()
    with pytest.raises(NotFound):
        await handle.result(timeout=WAIT)


async def test_an_id_of_another_form_is_not_found(producer: Producer) -> None:
    with pytest.raises(NotFound):
        producer.handle("order-17")


async def test_a_crowd_shares_few_script_calls(own_server: RealServer, namespace: str) -> None:
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        await producer.submit(Echo(0))
        before = await script_calls(site)
        handles = await asyncio.gather(*(producer.submit(Echo(number)) for number in range(500)))
        assert await script_calls(site) - before <= 3
        assert len({it.id for it in handles}) == 500
        assert len(await site.events()) == 501


async def test_each_of_a_crowd_gets_its_own_job(site: Site, producer: Producer) -> None:
    handles = await asyncio.gather(*(producer.submit(Echo(number)) for number in range(300)))
    stories = await site.stories()
    for number, handle in enumerate(handles):
        body = decode(stories[handle.id.rsplit(".", maxsplit=1)[1]][0])
        assert isinstance(body, Submitted)
        assert msgspec.json.decode(body.payload) == {"value": number}


async def test_a_lone_submission_is_one_script_call(own_server: RealServer, namespace: str) -> None:
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        await producer.submit(Echo(0))
        before = await script_calls(site)
        for number in range(10):
            await producer.submit(Echo(number))
        assert await script_calls(site) - before == 10


async def test_more_than_a_batch_goes_in_pieces(site: Site, producer: Producer) -> None:
    handles = await producer.submit_many([Echo(number) for number in range(2_500)])
    assert [handle.id.rsplit(".", maxsplit=1)[1] for handle in handles] == [
        event.position for event in await site.events()
    ]


async def test_hundreds_may_await_their_results_at_once(site: Site, producer: Producer) -> None:
    async with working(msgspec.structs.replace(site.settings, concurrency=50)):
        handles = await producer.submit_many([Nap(0.01)] * 300)
        results = await asyncio.gather(*(handle.result(timeout=WAIT) for handle in handles))
    assert results == ["rested"] * 300


async def test_one_who_gives_up_takes_nobody_along(make_server: Callable[..., RealServer]) -> None:
    """Of a crowd that shares a script call, the one whose task makes it is cancelled."""
    server = make_server("redis")
    async with site_on(server, "crowd") as site, producing(site) as producer:
        await producer.submit(Echo(0))
        server.freeze()
        crowd = [asyncio.create_task(producer.submit(Echo(number))) for number in range(5)]
        await asyncio.wait(crowd, timeout=0.2)
        for hasty in crowd[:2]:  # the first makes a call for itself, the second for all the others
            hasty.cancel()
            await asyncio.wait(crowd, timeout=0.2)
        server.thaw()
        answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert [isinstance(it, asyncio.CancelledError) for it in answers[:2]] == [True, True]
    assert [it for it in answers[2:] if isinstance(it, BaseException)] == []


async def test_a_restart_is_waited_out_and_nothing_is_submitted_twice(
    make_server: Callable[..., RealServer], namespace: str
) -> None:
    server = make_server("redis")
    async with site_on(server, namespace) as site, producing(site) as producer:
        handles = [await producer.submit(Echo(0))]
        for _ in range(3):
            crowd = [asyncio.create_task(producer.submit_many([Echo(1)] * 50)) for _ in range(10)]
            await asyncio.sleep(0)
            server.restart()
            for answer in await asyncio.gather(*crowd):
                handles += answer
        accepted = [handle.id.rsplit(".", maxsplit=1)[1] for handle in handles]
        assert len(set(accepted)) == 1_501
        await site.redis.ping()
        assert sorted(accepted) == sorted(event.position for event in await site.events())


async def test_a_server_that_stays_away_is_said_within_the_patience(
    make_server: Callable[..., RealServer], namespace: str
) -> None:
    server = make_server("redis")
    async with site_on(server, namespace) as site, producing(site) as producer:
        handle = await producer.submit(Echo(0))
        server.kill()
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await producer.submit(Echo(1))
        assert time.monotonic() - began < 4 * PATIENCE_S
        assert caught.value.retry_after > 0
        server.start()
        assert await handle.state() == "waiting"
        await producer.submit(Echo(2))


async def test_reading_while_the_server_is_away_is_unavailable_too(
    make_server: Callable[..., RealServer], namespace: str
) -> None:
    server = make_server("redis")
    async with site_on(server, namespace) as site, producing(site) as producer:
        handle = await producer.submit(Echo(0))
        server.kill()
        with pytest.raises(Unavailable):
            await handle.state()


async def test_after_flushall_submitting_goes_on(own_server: RealServer, namespace: str) -> None:
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        await producer.submit(Echo(1))
        await site.redis.flushall()
        handle = await producer.submit(Echo(2))
        async with working(site.settings):
            assert await handle.result(timeout=WAIT) == 2
        assert await site.redis.smembers(site.keys.queues) == {b"test"}


async def test_memory_that_is_short_refuses_submissions_and_lets_work_finish(
    own_server: RealServer, namespace: str
) -> None:
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        async with working(msgspec.structs.replace(site.settings, concurrency=2)):
            handles = await producer.submit_many([Nap(0.05)] * 20)
            await site.until(handles[0], "completed")
            await site.redis.config_set("maxmemory", 1)
            with pytest.raises(Unavailable):
                await producer.submit(Echo(0))
            await site.until_ended(20, timeout=WAIT)
        await site.redis.config_set("maxmemory", 0)
        await site.consistent()


async def test_a_worker_may_start_when_memory_is_short(own_server: RealServer, namespace: str) -> None:
    """So that a crash then is no dead end: only workers make room."""
    async with site_on(own_server, namespace) as site, producing(site) as producer:
        await producer.submit_many([Echo(number) for number in range(20)])
        await site.redis.config_set("maxmemory", 1)
        async with working(site.settings):
            await site.until_ended(20, timeout=WAIT)


async def test_the_synchronous_face_is_the_same(site: Site) -> None:
    def use() -> list[object]:
        with SyncProducer(site.settings) as producer:
            handles = producer.submit_many([Echo(1), Echo(2)])
            failing = producer.submit(Hopeless())
            found: list[object] = [handle.result(timeout=WAIT) for handle in handles]
            with pytest.raises(JobFailed):
                failing.result(timeout=WAIT)
            return [*found, handles[0].state(), producer.handle(handles[1].id).state()]

    async with working(site.settings):
        assert await asyncio.to_thread(use) == [1, 2, "completed", "completed"]
