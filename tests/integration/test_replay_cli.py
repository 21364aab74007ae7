"""`penstock replay …` as a user meets it: real processes on a real server, in pipes."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from commands import Command
from histories import Author, completed
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.settings import Secret, Settings
from processes import exit_code
from servers import RealServer

Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def redis(server: RealServer, namespace: str) -> AsyncIterator[Redis]:
    async with connect(Settings(redis_url=Secret(server.url), namespace=namespace)) as client:
        yield client


@pytest.fixture
def author(redis: Redis, namespace: str) -> Author:
    return Author(redis, Keys(namespace).partition("mail"), seed=5)


@pytest.fixture
def environ(server: RealServer, namespace: str) -> dict[str, str]:
    return {"PENSTOCK_REDIS_URL": server.url, "PENSTOCK_NAMESPACE": namespace}


@pytest.fixture
def run(penstock: Callable[..., Command], environ: dict[str, str]) -> Run:
    """`penstock replay WORDS`: its output, when it has ended with the code."""

    async def ran(*words: str, code: int = 0) -> str:
        command = penstock("replay", *words, **environ)
        assert await exit_code(command, 30) == code, command.output
        return command.output

    return ran


async def test_show_tells_one_jobs_story(author: Author, run: Run) -> None:
    [job] = await author.submit(1, type="mail.send")
    worker = await author.enter()
    await author.finish(worker, [completed(one, 4.5, "sent") for one in await author.take(worker, 1)])
    id = f"mail.0.{job}"
    told = await run("show", id)
    assert re.search(rf"^job +{id}$", told, re.MULTILINE)
    assert re.search(r'^\S+Z  .* submitted +waiting +mail.send {"to":"ada@example.org"}$', told, re.MULTILINE)
    assert re.search(r"^\S+Z  .* completed +completed +after 4.5 ms result sent$", told, re.MULTILINE)
    story = json.loads(await run("show", id, "--json"))
    assert story["job"]["state"] == "completed"
    assert [step["event"] for step in story["events"]] == ["submitted", "started", "completed"]
    assert "no job mail.0.5-5" in await run("show", "mail.0.5-5", code=1)
    assert "is not a job id" in await run("show", "nonsense", code=1)
