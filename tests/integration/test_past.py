"""Time travel: as of any moment the API answers what it would have answered then.

What it would have answered is found by folding the log up to that moment, from its beginning.
"""

import asyncio
import random
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from apis import partition, problems, running_api
from histories import Author
from penstock.core.control import Control
from penstock.core.events import QueueLimited
from penstock.core.keys import PartitionKeys
from penstock.core.log import PAGE, Entry, Log
from penstock.core.positions import milliseconds, order
from penstock.core.settings import Settings
from penstock.projections import past
from penstock.projections.rebuild import rebuild
from penstock.projections.views import Rows, Stats, Views, read


@pytest.fixture
async def author(redis: Redis, settings: Settings) -> Author:
    """A queue with a past: jobs of all kinds, the queue paused and limited on the way."""
    found = Author(redis, partition(settings, "mail"))
    control = Control(redis, found.keys)
    for act in (
        control.pause(by="ada"),
        control.limit(QueueLimited(rate=5, by="ada")),
        control.resume(by="ada"),
        control.limit(QueueLimited(concurrency=7, by="ada")),
    ):
        await found.scene(25)
        await act
        await asyncio.sleep(0.003)  # so that there is a moment in between
    await redis.sadd(found.keys.queues, "mail")
    await rebuild(redis, found.keys)
    return found


async def whole(redis: Redis, keys: PartitionKeys) -> list[Entry]:
    log, entries = Log(redis, keys), list[Entry]()
    while page := await log.entries(entries[-1][0].decode() if entries else "0-0", PAGE):
        entries += page
    return entries


def then(entries: list[Entry], at: int) -> tuple[Stats, Rows]:
    """The views as they were."""
    views, rows = Views(), Rows()
    events = [it for it in map(read, entries) if milliseconds(it[0].position) <= at]
    rows.update(dict.fromkeys(event.job for event, _ in events))
    if events:
        views.fold(events, rows)
    return views.stats, {position: row for position, row in rows.items() if row is not None}


async def listed(http: httpx.AsyncClient, at: int, **query: Any) -> list[dict[str, Any]]:
    """A list at a moment, by pages of 7."""
    found, cursor = list[dict[str, Any]](), ""
    while True:
        params = {"at": at, "limit": 7, **query, **({"cursor": cursor} if cursor else {})}
        answer = await http.get("/jobs/mail", params=params)
        assert answer.status_code == 200, answer.text
        found += answer.json()["jobs"]
        cursor = answer.json()["next"]
        if not cursor:
            return found


async def test_figures_lists_and_jobs_are_as_they_were(
    author: Author, redis: Redis, settings: Settings
) -> None:
    entries = await whole(redis, author.keys)
    times = sorted({milliseconds(it[0].decode()) for it in entries})
    async with running_api(settings) as http:
        for at in [times[0] - 1, *random.Random(5).sample(times, 9), times[-1] + 1]:
            stats, rows = then(entries, at)
            told = (await http.get("/queues/mail", params={"at": at})).json()
            assert told["counts"] == {state: getattr(stats.counts(), state) for state in told["counts"]}
            assert told["totals"] == {name: getattr(stats.totals, name) for name in told["totals"]}
            assert told["failures"] == stats.reasons
            assert told["paused"] == stats.paused
            assert told["limits"] == msgspec.to_builtins(stats.limits)
            newest = sorted(rows, key=order, reverse=True)
            everything = await listed(http, at)
            assert [it["id"] for it in everything] == [author.keys.job_id(it) for it in newest]
            for row in everything:
                was = rows[row["id"].rpartition(".")[2]]
                assert was is not None
                assert (row["state"], row["attempt"], row["type"]) == (was.state, was.attempt, was.type)
            for state in ("waiting", "completed", "failed"):
                some = await listed(http, at, state=state, type="mail.send")
                wanted = [
                    it for it in newest if (r := rows[it]) and r.state == state and r.type == "mail.send"
                ]
                assert [it["id"] for it in some] == [author.keys.job_id(it) for it in wanted]
            for position in newest[:3]:
                job = (await http.get(f"/jobs/mail/{author.keys.job_id(position)}", params={"at": at})).json()
                assert job["state"] == getattr(rows[position], "state", None)


async def test_the_past_stays_while_the_present_goes_on(
    author: Author, redis: Redis, settings: Settings
) -> None:
    entries = await whole(redis, author.keys)
    at = milliseconds(entries[len(entries) // 2][0].decode())
    stats, rows = then(entries, at)
    async with running_api(settings) as http:
        for _ in range(4):
            told = (await http.get("/queues", params={"at": at})).json()["queues"][0]
            assert told["counts"]["active"] == stats.counts().active
            assert told["totals"]["submitted"] == stats.totals.submitted
            assert {it["id"] for it in await listed(http, at)} == {author.keys.job_id(it) for it in rows}
            await author.scene(20)
            await rebuild(redis, author.keys)


async def test_a_moment_before_a_job_knows_nothing_of_it(author: Author, settings: Settings) -> None:
    job = author.keys.job_id(author.jobs[0])
    async with running_api(settings) as http:
        answer = await http.get(f"/jobs/mail/{job}", params={"at": milliseconds(author.jobs[0]) - 1})
        problems(answer, 404)
        span = (await http.get("/span")).json()
        told = (await http.get("/queues/mail", params={"at": span["queues"]["mail"]})).json()
        assert told["totals"]["submitted"] > 0
        assert span["from_at"] == span["queues"]["mail"] < span["to_at"]


@pytest.mark.parametrize("at", ["yesterday", "2026-11-24", "2026-11-24T07:45:00", "-1", "9" * 30])
async def test_what_is_no_moment_is_refused(author: Author, settings: Settings, at: str) -> None:
    async with running_api(settings) as http:
        for path in (
            "/queues",
            "/queues/mail",
            "/jobs/mail",
            f"/jobs/mail/{author.keys.job_id(author.jobs[0])}",
        ):
            assert "at" in problems(await http.get(path, params={"at": at}), 422)


async def test_too_far_back_is_said(
    author: Author, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MAX_BACK", 100)
    async with running_api(settings) as http:
        answer = await http.get("/queues/mail", params={"at": milliseconds(author.jobs[0])})
        problems(answer, 422)
        assert "too far back" in answer.json()["detail"]


async def test_what_a_foreign_hand_wrote_is_in_nobodys_way(
    author: Author, redis: Redis, settings: Settings
) -> None:
    await redis.xadd(author.keys.log, {"foreign": "entry"})
    await author.submit(1)
    at = milliseconds(author.jobs[-1])
    await asyncio.sleep(0.003)  # so that there is a moment in between
    await Control(redis, author.keys).pause(by="ada")
    await rebuild(redis, author.keys)
    async with running_api(settings) as http:
        told = (await http.get("/queues/mail", params={"at": at})).json()
        assert (told["paused"], told["limits"]["concurrency"]) == (False, 7)
