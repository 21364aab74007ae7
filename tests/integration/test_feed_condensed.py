"""The condensed feed: few messages however busy the log is, and in the end the truth."""

import time

import httpx
import pytest
from redis.asyncio import Redis

from apis import partition
from histories import Author, completed, progress
from penstock.core.log import Log
from penstock.core.settings import Settings
from penstock.projections.rebuild import rebuild
from projectors import projecting
from sse import Message, following


def states(messages: list[Message]) -> dict[str, str]:
    """What a page that applies these messages shows: each job's state, by position."""
    return {
        row["id"].rsplit(".", 1)[1]: row["state"]
        for it in messages
        if it.event == "changes"
        for row in it.data["jobs"]
    }


def counts(messages: list[Message], queue: str = "mail") -> dict[str, int]:
    """The last counts that were told of a queue."""
    found = [it.data["queues"][queue]["counts"] for it in messages if queue in it.data.get("queues", {})]
    return dict(found[-1]) if found else {}


async def listed(api: httpx.AsyncClient) -> dict[str, str]:
    """The same from the lists."""
    page = (await api.get("/jobs/mail", params={"limit": 500})).json()
    return {row["id"].rsplit(".", 1)[1]: row["state"] for row in page["jobs"]}


async def test_a_page_that_applies_what_comes_shows_what_is(
    api: httpx.AsyncClient, author: Author, settings: Settings
) -> None:
    async with projecting(settings), following(api, "/feed") as follower:
        await follower.count(1)
        for _ in range(4):
            await author.scene(30)
        figures = (await api.get("/queues/mail")).json()
        while sum(figures["counts"].values()) < len(author.jobs) or figures["lag_s"] > 0:
            figures = (await api.get("/queues/mail")).json()
        truth = figures["counts"]
        rows = await listed(api)
        await follower.until(lambda it: states(it) == rows and counts(it) == truth, "the page is right")
        rates = [it.data["queues"]["mail"]["rates"] for it in follower.messages[1:] if it.data["queues"]]
        assert max(it["submitted"] for it in rates) > 0
        await follower.until(
            lambda it: (
                it[-1].data["queues"]["mail"]["rates"]
                == {"submitted": 0, "started": 0, "completed": 0, "failed": 0}
            ),
            "the rates fall back to nothing",
        )


async def test_a_busy_log_makes_few_messages_with_few_rows(
    api: httpx.AsyncClient, author: Author, settings: Settings
) -> None:
    async with projecting(settings), following(api, "/feed") as follower:
        await follower.count(1)
        began = time.monotonic()
        for _ in range(40):
            await author.submit(250)
        await follower.until(lambda it: counts(it).get("waiting") == 10_000)
        took = time.monotonic() - began
        assert len(follower.messages) <= 3 + took * 10
        assert all(len(it.data["jobs"]) <= 200 for it in follower.messages)
        assert sum(len(it.data["jobs"]) + it.data["more"] for it in follower.messages) == 10_000


async def test_who_comes_back_is_told_what_changed_meanwhile(
    api: httpx.AsyncClient, author: Author, redis: Redis
) -> None:
    async with following(api, "/feed") as follower:
        await author.scene(20)
        await rebuild(redis, author.keys)
        await follower.until(lambda it: states(it).keys() == set(author.jobs))
    before = len(author.jobs)
    await author.scene(20)
    await rebuild(redis, author.keys)
    async with following(api, "/feed", last=follower.last) as again:
        await again.until(lambda it: states(it).keys() >= set(author.jobs[before:]))
        assert states(follower.messages) | states(again.messages) == await listed(api)
        assert counts(again.messages) == (await api.get("/queues/mail")).json()["counts"]
    async with following(api, "/feed", last="all.") as lost:
        assert (await lost.count(1))[0].event == "reset"


async def test_nothing_is_told_before_the_views_have_seen_it(
    api: httpx.AsyncClient, author: Author, redis: Redis
) -> None:
    async with following(api, "/feed") as follower:
        await follower.count(1)
        await author.submit(5)
        async with following(api, "/events") as exact:
            await author.submit(1)
            await exact.count(1)
        assert states(follower.messages) == {}
        await rebuild(redis, author.keys)
        await follower.until(lambda it: states(it).keys() == set(author.jobs))
    # And whoever comes before the views have seen the log is told as well.
    await author.submit(3)
    async with following(api, "/feed") as follower:
        await follower.count(1)
        await rebuild(redis, author.keys)
        await follower.until(lambda it: states(it).keys() >= set(author.jobs[-3:]))


async def test_one_job_is_followed_with_its_events(
    api: httpx.AsyncClient, author: Author, redis: Redis, settings: Settings
) -> None:
    worker = await author.enter()
    [job] = await author.submit(1)
    async with projecting(settings), following(api, "/feed", job=author.keys.job_id(job)) as follower:
        await follower.count(1)
        [taken] = await author.take(worker, 1)
        for step in range(3):
            await author.finish(worker, [], [progress(taken, step / 3)])
        await author.submit(50)
        events = [it for it in await Log(redis, author.keys).page("0-0", 1000) if it.job == job][1:]

        await follower.until(lambda it: told(it) == [event.position for event in events])
        assert states(follower.messages) == {job: "active"}


def told(messages: list[Message]) -> list[str]:
    """The positions of the events of the job that is watched."""
    return [one["position"] for it in messages for one in it.data.get("job_events") or []]


async def test_a_job_is_watched_beside_all_the_rest_by_one_stream(
    api: httpx.AsyncClient, author: Author, redis: Redis, settings: Settings
) -> None:
    other = Author(redis, partition(settings, "post"))
    await redis.sadd(other.keys.queues, "post")
    worker = await author.enter()
    [job] = await author.submit(1)
    watch = author.keys.job_id(job)
    async with projecting(settings):
        async with following(api, "/feed") as follower:
            await author.submit(1)
            await follower.until(lambda it: author.jobs[-1] in states(it))
        [taken] = await author.take(worker, 1)
        async with following(api, "/feed", watch=watch, after=follower.last) as follower:
            await author.finish(worker, [], [progress(taken, 0.5)])
            await author.submit(20)
            await other.submit(5)
            story = [it.position for it in await Log(redis, author.keys).page("0-0", 1000) if it.job == job]
            await follower.until(lambda it: set(told(it)) == set(story[1:]))
            await follower.until(lambda it: states(it).keys() >= {*author.jobs[2:], *other.jobs})
            assert states(follower.messages)[job] == "active"
            assert not any(it.event == "reset" for it in follower.messages)
            async with following(api, "/feed") as plain:
                await author.finish(worker, [completed(taken)])
                await follower.until(
                    lambda it: states(it)[job] == "completed" and len(set(told(it))) == len(story)
                )
                await plain.until(lambda it: states(it).get(job) == "completed")
                assert told(plain.messages) == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"watch": "nonsense"}, 404),
        ({"watch": "mail.0.1-1", "queue": "post"}, 422),
        ({"watch": "mail.0.1-1", "job": "mail.0.1-1"}, 422),
        ({"after": "x" * 9000}, 400),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    api: httpx.AsyncClient, query: dict[str, str], status: int
) -> None:
    assert (await api.get("/feed", params=query)).status_code == status


async def test_a_type_and_a_queue_can_be_followed(
    api: httpx.AsyncClient, author: Author, redis: Redis, settings: Settings
) -> None:
    other = Author(redis, partition(settings, "post"))
    await other.enter()
    async with (
        projecting(settings),
        following(api, "/feed", type="mail.bulk") as of_type,
        following(api, "/feed", queue="post") as of_queue,
    ):
        await author.submit(4, type="mail.send")
        bulk = await author.submit(4, type="mail.bulk")
        await other.submit(3)
        await redis.sadd(other.keys.queues, "post")
        await of_queue.until(lambda it: states(it).keys() == set(other.jobs))
        await of_type.until(lambda it: states(it).keys() >= set(bulk))
        assert not states(of_type.messages).keys() & set(author.jobs) - set(bulk)
        assert all(it.data["queues"].keys() <= {"post"} for it in of_queue.messages)


async def test_a_log_that_became_another_one_is_told(
    api: httpx.AsyncClient, author: Author, redis: Redis
) -> None:
    async with following(api, "/feed") as follower:
        await author.submit(2)
        await rebuild(redis, author.keys)
        await follower.until(lambda it: states(it).keys() == set(author.jobs))
        await redis.delete(*[key async for key in redis.scan_iter(match=f"*{{{author.keys.name}}}*")])
        await author.dispatch.open()
        await follower.until(lambda it: it[-1].event == "reset")
        [job] = await author.submit(1)
        await rebuild(redis, author.keys)
        await follower.until(lambda it: job in states(it))
