"""The exact feed, on real servers: nothing is missed, nothing comes twice, and what cannot be kept is said.

Whatever is followed is compared with the log itself.
"""

import asyncio
import json
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from apis import api_settings, partition, running_api
from histories import Author
from penstock.core.connection import connect
from penstock.core.dispatch import Submission
from penstock.core.events import Event, Submitted, encode
from penstock.core.keys import PartitionKeys
from penstock.core.log import PAGE, Log
from penstock.core.settings import Settings
from penstock.projections import feed_routes, feed_stream
from penstock.projections.feed import Feed
from penstock.projections.feed_events import Wanted
from penstock.projections.feed_stream import Outlet
from servers import RealServer
from sse import Follower, following


async def whole(redis: Redis, keys: PartitionKeys) -> list[Event]:
    """All events in the log."""
    log, events = Log(redis, keys), list[Event]()
    while page := await log.page(events[-1].position if events else "0-0", PAGE):
        events += page
    return events


def leads(event: Event) -> str:
    """The state that an event leads to."""
    return {
        "submitted": "delayed" if json.loads(event.body).get("delay") else "waiting",
        "started": "active",
        "progressed": "active",
        "attempt_failed": "delayed",
        "released": "waiting",
        "lease_expired": "waiting",
        "completed": "completed",
        "failed": "failed",
    }[event.tag]


async def told(follower: Follower, events: list[Event]) -> None:
    """The follower gets exactly these."""
    await follower.count(len(events))
    assert follower.events() == [(event.tag, event.position) for event in events]


async def test_every_event_comes_once_in_order_and_says_what_it_is_of(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    async with following(api, "/events") as follower:
        await author.scene()
        await author.scene()
        events = await whole(redis, author.keys)
        await told(follower, events)
    for message, event in zip(follower.messages, events, strict=True):
        assert message.data["queue"] == "mail"
        assert message.data["job"] == author.keys.job_id(event.job)
        assert message.data["data"] == json.loads(event.body)
        assert message.data["type"].startswith("mail.")
        assert message.data["at"].endswith("Z")
    leads = {message.event: message.data["state"] for message in follower.messages}
    assert leads["started"] == "active"
    assert leads["completed"] == "completed"
    assert leads["attempt_failed"] == "delayed"
    assert {m.data["state"] for m in follower.messages if m.event == "submitted"} == {"waiting", "delayed"}
    assert len({message.id for message in follower.messages}) == len(events)


async def test_who_comes_back_gets_the_rest_wherever_the_stream_was_cut(
    api: httpx.AsyncClient, redis: Redis, author: Author, settings: Settings
) -> None:
    other = Author(redis, partition(settings, "post"), seed=2)
    await other.enter()
    async with following(api, "/events") as follower:
        for _ in range(3):
            await asyncio.gather(author.scene(15), other.scene(15))
        logs = {it.keys.queue: await whole(redis, it.keys) for it in (author, other)}
        await follower.count(sum(map(len, logs.values())))
    chance = random.Random(3)
    for cut in chance.sample(range(len(follower.messages)), 12):
        async with following(api, "/events", last=follower.messages[cut].id) as again:
            await again.count(len(follower.messages) - cut - 1)
        for queue, events in logs.items():
            before = [m.data["position"] for m in follower.messages[: cut + 1] if m.data["queue"] == queue]
            after = [m.data["position"] for m in again.messages if m.data["queue"] == queue]
            assert before + after == [event.position for event in events]


async def test_a_client_that_comes_and_goes_while_much_happens_misses_nothing(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    seen: list[tuple[str, str]] = []
    last, busy = "", True

    async def work() -> None:
        nonlocal busy
        for _ in range(25):
            await author.scene(60)
        busy = False

    async with following(api, "/events") as follower:
        await author.submit(1)
        await follower.count(1)
    last, seen = follower.last, follower.events()
    working = asyncio.create_task(work())
    while busy:
        async with following(api, "/events", last=last) as follower:
            await follower.until(lambda messages: len(messages) > 100 or not busy)
        last, seen = follower.last, seen + follower.events()
    await working
    events = await whole(redis, author.keys)
    async with following(api, "/events", last=last) as follower:
        await follower.count(len(events) - len(seen))
    assert seen + follower.events() == [(event.tag, event.position) for event in events]


@pytest.mark.parametrize(
    ("query", "of"),
    [
        ({"queue": "mail"}, lambda event, job: True),
        ({"queue": "none"}, lambda event, job: False),
        ({"type": "mail.send"}, lambda event, job: job["type"] == "mail.send"),
        ({"state": "completed"}, lambda event, job: event.tag == "completed"),
        ({"state": "active"}, lambda event, job: leads(event) == "active"),
        ({"tag": "blue"}, lambda event, job: "blue" in job.get("tags", ())),
        ({"tag": "green"}, lambda event, job: False),
        (
            {"type": "mail.bulk", "state": "failed"},
            lambda e, j: j["type"] == "mail.bulk" and e.tag == "failed",
        ),
    ],
)
async def test_filters_leave_out_what_is_not_asked_for_and_nothing_else(
    api: httpx.AsyncClient,
    redis: Redis,
    author: Author,
    query: dict[str, str],
    of: Callable[[Event, Any], bool],
) -> None:
    await tagged(author, 20)
    before = len(await whole(redis, author.keys))
    # What began before is read from the log, what begins now is remembered.
    async with following(api, "/events") as everything, following(api, "/events", **query) as follower:
        await author.scene()
        await tagged(author, 5)
        events = await whole(redis, author.keys)
        jobs = {event.position: json.loads(event.body) for event in events if event.tag == "submitted"}
        await told(everything, events[before:])
        await told(follower, [it for it in events[before:] if of(it, jobs[it.job])])


async def tagged(author: Author, count: int) -> None:
    """Submit jobs of which every other one has the tag blue."""
    batch = [
        Submission("normal", encode(Submitted("mail.send", msgspec.Raw(b"1"), tags=("blue",) * (it % 2))), "")
        for it in range(count)
    ]
    await author.dispatch.submit(batch, producer=f"of-{uuid4().hex}", batch=1, once_ms=60_000)


async def test_one_job_can_be_followed_even_before_much_else(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    [job] = await author.submit(1)
    async with following(api, "/events", job=author.keys.job_id(job)) as follower:
        await author.scene(80)
        events = [it for it in await whole(redis, author.keys) if it.job == job][1:]
        assert events
        await told(follower, events)


async def test_a_new_queue_appears_by_itself_from_its_first_event_on(
    api: httpx.AsyncClient, redis: Redis, author: Author, settings: Settings
) -> None:
    late = Author(redis, partition(settings, "late"))
    async with following(api, "/events") as follower:
        await author.submit(1)
        [first] = await follower.count(1)
        await late.enter()
        await late.submit(3)
        await redis.sadd(late.keys.queues, "late")
        await follower.count(4)
        assert [it.data["position"] for it in follower.messages[1:]] == late.jobs
    # A cursor from before the queue was there means: all of it is new.
    async with following(api, "/events", last=first.id) as follower:
        await follower.count(3)
        assert [it.data["position"] for it in follower.messages] == late.jobs


async def test_a_client_is_told_when_what_it_missed_is_gone(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    async with following(api, "/events") as follower:
        await author.submit(9)
        await follower.count(9)
    ids = [message.id for message in follower.messages]
    assert await redis.xtrim(author.keys.log, minid=author.jobs[3], approximate=False) == 3
    assert await redis.xdel(author.keys.log, author.jobs[5]) == 1
    for cut in (0, 3, 4):
        async with following(api, "/events", last=ids[cut]) as follower:
            [first] = await follower.count(1)
            assert (first.event, "trimmed" in first.data["reason"]) == ("reset", True)
            [job] = await author.submit(1)
            assert (await follower.count(2))[1].data["position"] == job
        # And its id goes on from there.
        async with following(api, "/events", last=first.id) as follower:
            assert (await follower.count(1))[0].data["position"] == job
    for cut in (5, 6, 8):
        async with following(api, "/events", last=ids[cut]) as follower:
            assert (await follower.count(1))[0].data["position"] == author.jobs[cut + 1]


@pytest.mark.parametrize("last", ["nonsense", "all.", "one.", "all.zzzzzzzz1-1", "all.zzzzzzzz1-1." * 600])
async def test_a_cursor_of_other_logs_is_answered_by_reset(
    api: httpx.AsyncClient, author: Author, last: str
) -> None:
    async with following(api, "/events", last=last) as follower:
        [first] = await follower.count(1)
        assert first.event == "reset"
        await author.submit(2)
        await follower.count(3)
        assert [it.data["position"] for it in follower.messages[1:]] == author.jobs


async def test_a_cursor_ahead_of_the_log_is_answered_by_reset(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    async with following(api, "/events") as follower:
        await author.submit(2)
        _, last = await follower.count(2)
    ahead = last.id.rsplit("-", 1)[0] + "-ffff"
    await author.submit(1)
    async with following(api, "/events", last=ahead) as follower:
        [first] = await follower.count(1)
        assert first.event == "reset"
        assert "back in time" in first.data["reason"]
        [job] = await author.submit(1)
        await follower.until(lambda messages: messages[-1].data.get("position") == job)


async def test_who_follows_is_told_when_the_log_becomes_another_one(
    api: httpx.AsyncClient, redis: Redis, author: Author
) -> None:
    async with following(api, "/events", queue="mail") as follower:
        await author.submit(2)
        [_, last] = await follower.count(2)
        await redis.delete(author.keys.log, author.keys.epoch, *author.keys.lanes)
        await author.dispatch.open()
        messages = await follower.count(3)
        assert messages[2].event == "reset"
        [job] = await author.submit(1)
        assert (await follower.count(4))[3].data["position"] == job
    async with following(api, "/events", queue="mail", last=last.id) as follower:
        assert (await follower.count(1))[0].event == "reset"


async def test_a_killed_server_costs_no_event(
    make_server: Callable[..., RealServer], namespace: str, tmp_path: Path
) -> None:
    server = make_server("redis", fsync="always")
    settings = api_settings(server, namespace, tmp_path)
    async with connect(settings) as redis, running_api(settings) as api:
        author = Author(redis, partition(settings, "mail"))
        await author.enter()
        await redis.sadd(author.keys.queues, "mail")
        async with following(api, "/events") as follower:
            await author.scene()
            await follower.count(60)
            server.restart()
            await redis.connection_pool.disconnect()
            await author.submit(5)
            events = await whole(redis, author.keys)
            await told(follower, events)


async def narrow_connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One for which the kernel holds little: left alone it grows to hold megabytes for who reads none."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=narrow, limit=2**16)


async def test_a_client_that_does_not_read_is_told_so_and_closed(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_stream, "MAX_HELD", 100_000)
    reader, writer = await narrow_connection(settings.api_port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"retry: ")
    transport: Any = writer.transport
    transport.pause_reading()
    async with following(api, "/events") as quick:
        for _ in range(60):
            await author.submit(10, payload={"text": "x" * 20_000})
        await told(quick, await whole(redis, author.keys))
    transport.resume_reading()
    async with asyncio.timeout(20):
        everything = await reader.read(2**26)
        while chunk := await reader.read(2**26):
            everything += chunk
    writer.close()
    assert everything.count(b"event: reset\n") == 1
    assert everything.index(b"event: reset") > len(everything) - 500
    assert b"too slow" in everything
    assert 0 < everything.count(b"event: submitted") < 600


async def test_a_client_that_never_reads_is_cut_off(
    api: httpx.AsyncClient, settings: Settings, redis: Redis, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_routes, "PATIENCE_S", 0.3)
    gone, leave = asyncio.Event(), Feed._leave

    def left(feed: Feed, wanted: Wanted, outlet: Outlet) -> None:
        leave(feed, wanted, outlet)
        if wanted.queue:
            gone.set()

    monkeypatch.setattr(Feed, "_leave", left)
    reader, writer = await narrow_connection(settings.api_port)
    writer.write(b"GET /events?queue=mail HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await reader.readuntil(b"retry: ")
    transport: Any = writer.transport
    transport.pause_reading()
    async with following(api, "/events") as quick:
        for _ in range(30):
            await author.submit(10, payload={"text": "x" * 50_000})
        await told(quick, await whole(redis, author.keys))
        await asyncio.wait_for(gone.wait(), 10)
    transport.resume_reading()
    async with asyncio.timeout(20):
        everything = b""
        while chunk := await reader.read(2**26):  # the connection was not asked to close: it was closed
            everything += chunk
    writer.close()
    assert not everything.endswith(b"0\r\n\r\n")


async def test_an_idle_stream_gives_signs_of_life_that_keep_its_place(
    api: httpx.AsyncClient, redis: Redis, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_stream, "KEEP_ALIVE_S", 0.1)
    async with following(api, "/events", tag="blue") as follower:
        await author.submit(50)

        async def further() -> bool:
            return bool(follower.last) and follower.comments > 2

        async with asyncio.timeout(10):
            while not await further():
                await asyncio.sleep(0.02)
    assert follower.messages == []
    await redis.xtrim(author.keys.log, maxlen=1, approximate=False)
    async with following(api, "/events", tag="blue", last=follower.last) as follower:
        await author.submit(1)
        async with asyncio.timeout(10):
            while follower.comments < 2:
                await asyncio.sleep(0.02)
    assert follower.messages == []  # no reset: its place is behind all that was trimmed


async def test_streams_end_in_order_when_the_api_leaves(settings: Settings, author: Author) -> None:
    stop = asyncio.Event()
    async with (
        running_api(settings, stop) as api,
        following(api, "/events") as exact,
        following(api, "/feed") as condensed,
    ):
        await author.submit(3)
        await exact.count(3)
        stop.set()
        await exact.end()
        await condensed.end()
        assert not exact.cut
        assert not condensed.cut
    assert [it.data["position"] for it in exact.messages] == author.jobs


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("state=lost", 400),
        ("job=nonsense", 404),
        ("job=mail.0.1-1&queue=post", 404),
        ("queue=" + "x" * 64, 400),
    ],
)
async def test_what_is_wrong_is_refused(api: httpx.AsyncClient, query: str, status: int) -> None:
    answer = await api.get(f"/events?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_without_redis_the_answer_is_503(settings: Settings, server: RealServer) -> None:
    async with running_api(settings) as api:
        server.kill()
        for path in ("/events", "/feed"):
            answer = await api.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
