"""`penstock replay rebuild` and `verify` as a user meets them: real processes on a real server, in pipes."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from commands import Command
from histories import Author, dump, until
from penstock.core.keys import Keys
from penstock.core.positions import packed
from penstock.projections.rebuild import rebuild
from processes import exit_code
from servers import RealServer

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def author(redis: Redis, namespace: str) -> Author:
    author = Author(redis, Keys(namespace).partition("mail"), seed=5)
    await author.scene()
    await rebuild(redis, author.keys)
    return author


@pytest.fixture
def start(penstock: Callable[..., Command], server: RealServer, namespace: str) -> Callable[..., Command]:
    environ = {"PENSTOCK_REDIS_URL": server.url, "PENSTOCK_NAMESPACE": namespace}
    return lambda *words: penstock("replay", *words, **environ)


@pytest.fixture
def run(start: Callable[..., Command]) -> Run:
    """`penstock replay WORDS`: its output, when it has ended with the code."""

    async def ran(*words: str, code: int = 0) -> str:
        command = start(*words)
        assert await exit_code(command, 60) == code, command.output
        return command.output

    return ran


async def test_verify_says_that_all_is_as_the_log_says(author: Author, redis: Redis, run: Run) -> None:
    events = await redis.xlen(author.keys.log)
    assert f"mail: {events} events, {len(author.jobs)} jobs, " in await run("verify")
    [told] = json.loads(await run("verify", "--queue", "mail", "--json"))
    assert (told["queue"], told["events"], told["findings"], told["repaired"]) == ("mail", events, [], 0)


async def test_verify_lists_what_is_wrong_and_repair_puts_it_right(
    author: Author, redis: Redis, run: Run
) -> None:
    whole = await dump(redis, author.keys)
    await redis.hdel(author.keys.jobs, packed(author.jobs[0]))
    await redis.hset(author.keys.facts, "nobody", "{}")
    found = await run("verify", code=1)
    assert "2 found" in found
    assert f"mail.0.{author.jobs[0]}" in found
    assert "a worker that is there" in found
    told = await run("verify", "--repair", code=1)
    assert "will put the views that the log says in their place" in told
    assert "2 found, 2 put right" in told
    assert "all as the log says" in await run("verify")
    assert await dump(redis, author.keys) == whole


async def test_rebuild_says_what_it_put_right(author: Author, redis: Redis, run: Run) -> None:
    assert "the views in use were the same" in await run("rebuild")
    await redis.hset(author.keys.jobs, packed(author.jobs[0]), '["failed","x"]')
    told = await run("rebuild", "--queue", "mail")
    assert "1 differences put right" in told
    assert f"mail.0.{author.jobs[0]}" in told
    [again] = json.loads(await run("rebuild", "--json"))
    assert (again["compared"], again["switched"], again["differences"]) == (True, True, [])


async def test_a_queue_that_is_none_is_one_line(author: Author, run: Run) -> None:
    for words in (("rebuild", "--queue", "post"), ("verify", "--queue", "post")):
        assert await run(*words, code=1) == "penstock: there is no queue 'post'; there are: mail\n"


async def test_a_rebuild_that_is_stopped_changes_nothing_and_is_gone_on_with(
    author: Author, redis: Redis, start: Callable[..., Command], run: Run
) -> None:
    for _ in range(60):
        await author.submit(1000)
    await rebuild(redis, author.keys)
    before = await dump(redis, author.keys)
    command = start("rebuild")
    await until(lambda: redis.exists(author.keys.shadow.checkpoint), "it has begun", 60)
    command.signal(signal.SIGINT)
    assert await asyncio.to_thread(command.wait) == 130
    assert "Run it again" in command.output
    assert await dump(redis, author.keys) == before
    assert "went on with what was begun" in await run("rebuild")
    assert await dump(redis, author.keys) == before
