"""What is wrong, as a person asks it: failures by error, and a failed job; and moments, asked for in one way
by all commands."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from apis import partition
from commands import Command
from histories import Author
from penstock.core.dispatch import Finished
from penstock.core.errors import InvalidJob
from penstock.core.events import Failed, encode
from penstock.core.settings import Settings
from penstock.projections.rebuild import rebuild
from penstock.ui.asking import moment_asked
from processes import exit_code
from servers import RealServer

Type = Callable[..., Any]

pytestmark = pytest.mark.timeout(180)  # each command is a process, on a machine that may be busy

TRACEBACK: Final = 'Traceback (most recent call last):\n  File "shop.py", line 7\nTimeoutError: 9 s\x1b[2J\n'
REFUSED: Final = re.compile(r"penstock: --(\w+): 'soon' is no moment: .* or 15m, 2h, 3d (ago|from now)\n")


@pytest.fixture
def server(make_server: Callable[..., RealServer]) -> RealServer:
    """One will do: this is about words."""
    return make_server("redis", aof=False)


@pytest.fixture
def typed(penstock: Callable[..., Command], api: httpx.AsyncClient) -> Type:
    """Run `penstock WORDS`; answers its output, the exit code checked."""

    async def run(*words: str, code: int = 0) -> str:
        command = penstock(*words, PENSTOCK_API_URL=str(api.base_url))
        assert await exit_code(command, 60) == code, command.output
        return command.output

    return run


async def failed(redis: Redis, settings: Settings, queue: str, messages: Sequence[str]) -> list[str]:
    """Jobs of a queue that is new, each failed with its message; answers their ids, the first one first."""
    author = Author(redis, partition(settings, queue))
    worker = await author.enter()
    await redis.sadd(author.keys.queues, queue)
    await author.submit(len(messages), type=f"{queue}.send")
    taken = await author.take(worker, len(messages))
    told = [Failed("permanent", "TimeoutError", message, 1, traceback=TRACEBACK) for message in messages]
    ends = [
        Finished("failed", it.lane, it.entry, it.attempt, it.job, encode(body))
        for it, body in zip(taken, told, strict=True)
    ]
    await author.finish(worker, ends)
    await rebuild(redis, author.keys)
    return [author.keys.job_id(it.job.decode()) for it in taken]


@pytest.fixture
async def jobs(redis: Redis, settings: Settings) -> dict[str, list[str]]:
    mail = [*(f"no answer after {n} s" for n in range(3)), "no mailbox 'ada'"]
    return {
        "mail": await failed(redis, settings, "mail", mail),
        "post": await failed(redis, settings, "post", [f"no stamp {n}\nand more" for n in range(2)]),
    }


async def test_failures_are_told_by_error_the_most_frequent_first(
    typed: Type, jobs: dict[str, list[str]], api: httpx.AsyncClient
) -> None:
    head, *rows = (await typed("failures")).splitlines()
    assert re.split(r"\s{2,}", head) == ["failed", "last", "for example", "error"]
    told = [re.split(r"\s{2,}", row) for row in rows]
    assert [(row[0], row[3]) for row in told] == [
        ("3", "TimeoutError: no answer after # s"),
        ("2", "TimeoutError: no stamp # and more"),
        ("1", "TimeoutError: no mailbox '…'"),
    ]
    assert told[0][2] in jobs["mail"]
    assert told[1][2] in jobs["post"]
    mail, post = [(await api.get(f"/queues/{queue}/failures")).json() for queue in ("mail", "post")]
    assert told[1][1] == post["groups"][0]["last_at"]
    assert json.loads(await typed("failures", "--json")) == [mail, post]
    assert json.loads(await typed("failures", "post", "--json")) == [post]
    assert (await typed("failures", "mail")).count("\n") == 3
    assert await typed("failures", "mail", "--type", "no.such") == (
        "No job of queue 'mail' of type 'no.such' is failed.\n"
    )
    for words in (("failures", "none"), ("bulk", "retry", "--queue", "none", "--dry-run")):
        assert await typed(*words, code=1) == "penstock: there is no queue 'none'; there are: mail, post\n"


async def test_where_nothing_is_failed_that_is_what_is_said(typed: Type) -> None:
    assert await typed("failures") == "No job is failed.\n"
    assert await typed("failures", "--json") == "[]\n"


async def test_a_queue_that_is_paused_is_seen_among_the_queues(
    typed: Type, jobs: dict[str, list[str]], redis: Redis, settings: Settings
) -> None:
    assert "paused" not in await typed("queues")
    await typed("pause", "post")
    await rebuild(redis, partition(settings, "post"))
    _, mail, post = (await typed("queues")).splitlines()
    assert (mail.split(), post.split()) == (["mail", *"000040"], ["post", *"000020", "paused"])


async def test_a_failed_job_tells_its_error_in_a_line_and_the_traceback_below(
    typed: Type, jobs: dict[str, list[str]]
) -> None:
    told = await typed("job", jobs["mail"][3])
    facts, traceback = told.split("\n\n")
    assert re.search(r"^error +TimeoutError: no mailbox 'ada'$", facts, re.MULTILINE)
    assert traceback == TRACEBACK.replace("\x1b", "")
    assert json.loads(await typed("job", jobs["mail"][3], "--json"))["error"]["traceback"] == TRACEBACK


async def test_all_commands_take_moments_in_one_way(typed: Type, jobs: dict[str, list[str]]) -> None:
    looked = await typed("bulk", "retry", "--queue", "mail", "--since", "1h", "--dry-run")
    assert re.search(r"^count +4$", looked, re.MULTILINE)
    assert "count     0" in await typed("bulk", "retry", "--queue", "mail", "--to", "1h", "--dry-run")
    every = ("schedules", "set", "hourly", "ai.language", '{"text": "x"}', "--every", "3600")
    told = json.loads(await typed(*every, "--start", "2d", "--json"))
    away = datetime.fromisoformat(told["start"]) - datetime.now(UTC)
    assert timedelta(days=1, hours=23) < away <= timedelta(days=2)
    words = {
        ("bulk", "retry", "--queue", "mail", "--since", "soon"): ("since", "ago"),
        ("reschedule", jobs["mail"][0], "--at", "soon"): ("at", "from now"),
        (*every, "--end", "soon"): ("end", "from now"),
        ("webhook", "replay", "crm", "--since", "soon"): ("since", "ago"),
    }
    for typing, said in words.items():
        refused = REFUSED.fullmatch(await typed(*typing, code=2))
        assert refused is not None, typing
        assert refused.groups() == said


def test_so_long_ago_and_so_long_from_now_are_moments() -> None:
    now = datetime.now(UTC)
    for text, length in (
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("3d", timedelta(3)),
    ):
        for ahead, expected in ((False, now - length), (True, now + length)):
            found = datetime.fromisoformat(moment_asked("--at", text, ahead=ahead))
            assert abs(found - expected) < timedelta(seconds=60)
    assert moment_asked("--at", "") == ""
    assert moment_asked("--at", "2026-01-31T09:00:00+01:00") == "2026-01-31T08:00:00.000Z"
    assert moment_asked("--at", "999999999d") == "1970-01-01T00:00:00.000Z"
    assert moment_asked("--at", "999999999d", ahead=True).startswith("2286-")
    with pytest.raises(InvalidJob, match="'2026-01-31' is no moment"):
        moment_asked("--at", "2026-01-31")
