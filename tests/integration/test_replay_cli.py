"""`penstock replay …` as a user meets it: real processes on a real server, in pipes."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from commands import Command
from histories import Author, completed, until
from penstock.core.connection import connect
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.settings import Secret, Settings
from penstock.ui.whatif import record
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


async def test_grep_in_a_pipe_answers_json_lines(author: Author, run: Run) -> None:
    await author.dispatch.open()
    for _ in range(3):
        await author.scene()
    events = await Log(author.redis, author.keys).page("0-0", 100_000)
    failed = [event.position for event in events if event.tag == "failed"]
    lines = [
        json.loads(line)
        for line in (await run("grep", "--event", "failed", "--queue", "mail")).split("\n")[:-1]
    ]
    assert [line["position"] for line in lines] == failed
    assert {line["data"]["error"] for line in lines} <= {"ValueError", "WorkerLost"}
    assert len((await run("grep", "MAIL\\.", "-i", "--limit", "7")).splitlines()) == 7
    [line] = (await run("grep", "--job", f"mail.0.{author.jobs[0]}", "--event", "submitted")).splitlines()
    assert json.loads(line)["job"] == f"mail.0.{author.jobs[0]}"
    assert await run("grep", "--where", "payload.nothing") == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["grep", "("], 2, "'(' is no regular expression"),
        (["grep", "--queue", "nosuch"], 1, "there is no queue 'nosuch'; there are: mail"),
        (["grep", "--queue", "mail", "--job", "post.0.5-5"], 1, "no job post.0.5-5 in queue 'mail'"),
        (["export", "-", "--job", "mail.0.5-5", "--from", "1h"], 2, "--from and --to are for a --queue"),
        (["tail", "--from", "yesterday"], 2, "--from: 'yesterday' is no moment"),
    ],
)
async def test_what_is_wrong_is_one_line(
    author: Author, run: Run, words: list[str], code: int, says: str
) -> None:
    await author.dispatch.open()
    output = await run(*words, code=code)
    assert output.startswith("penstock: ")
    assert output.count("\n") == 1
    assert says in output


FULL = Path("/dev/full")
PENSTOCK = f"{sys.executable} -P -m penstock.ui replay"


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("words", ["grep", "export - --queue mail"])
async def test_an_output_that_takes_nothing_is_said(
    author: Author, environ: dict[str, str], words: str
) -> None:
    await author.dispatch.open()
    await author.scene()
    said, code = await in_a_shell(environ, f"{PENSTOCK} {words} > {FULL}")
    assert said == "penstock: standard output: No space left on device\n"
    assert code == 1


async def test_an_export_that_nobody_reads_ends_quietly(author: Author, environ: dict[str, str]) -> None:
    await author.dispatch.open()
    await author.submit(50, payload={"text": "x" * 10_000})
    said, code = await in_a_shell(
        environ, f"{PENSTOCK} export - --queue mail | head -c 1; exit ${{PIPESTATUS[0]}}"
    )
    assert (said, code) == ("", 0)


async def in_a_shell(environ: dict[str, str], line: str) -> tuple[str, int | None]:
    """What a line of bash says on standard error, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", line),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)
    return said.decode(), process.returncode


async def test_export_and_import_from_the_command_line(author: Author, run: Run, tmp_path: Path) -> None:
    await author.dispatch.open()
    await author.scene()
    path = str(tmp_path / "mail.ndjson.zst")
    told = await run("export", path, "--queue", "mail", "--redact", "payload.to")
    assert re.search(r"^redacted +payload\.to$", told, re.MULTILINE)
    count = await author.redis.xlen(author.keys.log)
    assert re.search(rf"^events +{count}$", told, re.MULTILINE)
    piped = await run("export", "-", "--queue", "mail")
    assert len(piped.splitlines()) == count + 1
    assert "mail.0: " not in piped
    imported = json.loads(await run("import", path, "--queue", "copy", "--json"))
    assert (imported["queue"], imported["events"], imported["of"]["queue"]) == ("copy", count, "mail")
    assert "has a log already" in await run("import", path, "--queue", "copy", code=2)
    assert "say which log" in await run("export", path, code=2)
    assert "cannot be redacted" in await run("export", path, "--queue", "mail", "--redact", "type", code=2)


async def test_show_and_grep_read_archive_and_log_as_one(
    author: Author, run: Run, penstock: Callable[..., Command], environ: dict[str, str], tmp_path: Path
) -> None:
    url = str(tmp_path / "archive")
    await author.dispatch.open()
    await author.scene()
    await author.redis.sadd(author.keys.queues, "mail")
    archiver = penstock("archiver", "--to", url, "--every", "0.1", **environ)
    log = Log(author.redis, author.keys)

    async def archived() -> bool:
        return [(await log.tip()).encode()] == await author.redis.hvals(author.keys.readers)

    await until(archived, "all is archived")
    archiver.signal(signal.SIGTERM)
    assert await exit_code(archiver) == 0, archiver.output
    job = author.jobs[0]
    for event in await log.page("0-0", 100_000):
        if event.job == job:
            await author.redis.xdel(author.keys.log, event.position)
    await author.redis.delete(author.keys.jobs)
    assert f"no job mail.0.{job}" in await run("show", f"mail.0.{job}", code=1)
    assert re.search(
        rf"^job +mail\.0\.{job}$", await run("show", f"mail.0.{job}", "--archive", url), re.MULTILINE
    )
    assert (await run("grep", "--job", f"mail.0.{job}")).startswith("note: mail: retention has removed jobs")
    found = (await run("grep", "--job", f"mail.0.{job}", "--archive", url)).splitlines()
    assert json.loads(found[0])["event"] == "submitted"
    settings = Settings(
        redis_url=Secret(environ["PENSTOCK_REDIS_URL"]), namespace=environ["PENSTOCK_NAMESPACE"]
    )
    for archive, missing in (("", "mail: retention has removed jobs"), (url, "")):
        asked = msgspec.structs.replace(settings, archive_url=archive)
        stretch = await record(asked, "mail", since=None, until=None, tell=lambda *_: None)
        assert stretch.partial.startswith(missing)
        assert bool(stretch.partial) == bool(missing)
    assert "nosuch: there is no such folder" in await run(
        "grep", "--archive", str(tmp_path / "nosuch"), code=2
    )


async def test_without_a_server_it_says_how_to_have_one(penstock: Callable[..., Command]) -> None:
    for words in (["at", "1h"], ["grep"], ["verify"], ["show", "mail.0.5-5"]):
        command = penstock("replay", *words)
        assert await exit_code(command) == 2
        assert "start one with `penstock up`, or name one with PENSTOCK_REDIS_URL" in command.output
        assert "Traceback" not in command.output
