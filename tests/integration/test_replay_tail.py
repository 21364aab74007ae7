"""`penstock replay tail`: all that happens is told once, in order, also when the server dies meanwhile."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from commands import Command
from histories import Author, until
from penstock.core.connection import command, connect
from penstock.core.errors import InvalidJob, NotFound, Refused, Unavailable
from penstock.core.events import Failed, Submitted, encode
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import before, milliseconds, preceding
from penstock.core.settings import Secret, Settings
from penstock.projections.feed_events import Told, Wanted, following
from penstock.projections.feed_tail import FIRST_PAGE
from penstock.projections.replay.asking import known_events, moment_of
from penstock.projections.replay.span import Span, partly, standing
from penstock.projections.replay.tail import Follow, follow_logs
from servers import RealServer


@pytest.fixture
def settings(server: RealServer, namespace: str) -> Settings:
    return Settings(redis_url=Secret(server.url), namespace=namespace)


class Heard:
    """A tail in this process, and what it told."""

    def __init__(self, settings: Settings, **follow: object) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.stop = asyncio.Event()
        asked = Follow(**follow)  # type: ignore[arg-type]
        self.task = asyncio.create_task(follow_logs(settings, asked, self._tell, self.stop))

    def _tell(self, keys: PartitionKeys, told: Told) -> None:
        event, _ = told.read
        self.events.append((keys.queue, event.position, event.tag))

    async def until(self, count: int) -> list[tuple[str, str, str]]:
        async def enough() -> bool:
            if self.task.done():
                self.task.result()
            return len(self.events) >= count

        await until(enough, f"{count} events are told")
        return self.events

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


async def test_from_a_moment_on_everything_is_told_once_and_followed(settings: Settings) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=2)
        for _ in range(6):
            await author.scene()
        await command(redis, "SADD", keys.queues, "mail")
        heard = Heard(settings, since=0)
        await heard.until(1)
        for _ in range(6):
            await author.scene()
        other = Author(redis, Keys(settings.namespace).partition("other"), seed=3)
        await other.scene()  # a queue that comes later is followed too, from its beginning
        await command(redis, "SADD", keys.queues, "other")
        logs = {"mail": Log(redis, keys), "other": Log(redis, other.keys)}
        written = {queue: await log.page("0-0", 100_000) for queue, log in logs.items()}
        events = await heard.until(sum(map(len, written.values())))
        await heard.end()
        for queue, log in written.items():
            told = [(position, tag) for name, position, tag in events if name == queue]
            assert told == [(event.position, event.tag) for event in log]


async def test_filters(settings: Settings) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys, seed=2)
        await author.dispatch.open()
        [job] = await author.submit(1, type="mail.send")
        for _ in range(4):
            await author.scene()
        events = await Log(redis, keys).page("0-0", 100_000)
        types = {it.position: it.body for it in events if it.tag == "submitted"}
        bulk = [it.position for it in events if b'"type":"mail.bulk"' in types.get(it.job, b"")]
        cases: list[tuple[Follow, list[str]]] = [
            (Follow(wanted=following("", "mail.bulk", "", "", "")), bulk),
            (Follow(wanted=Wanted(job=f"mail.0.{job}")), [it.position for it in events if it.job == job]),
            (Follow(events=known_events(["failed"])), [it.position for it in events if it.tag == "failed"]),
            (
                Follow(wanted=Wanted(state="completed")),
                [it.position for it in events if it.tag == "completed"],
            ),
            (Follow(queues=("mail",), wanted=Wanted(type="no.such")), []),
        ]
        for follow, expected in cases:
            fields = {name: getattr(follow, name) for name in Follow.__struct_fields__}
            heard = Heard(settings, **{**fields, "since": 0})
            told = await heard.until(len(expected))
            await heard.end()
            assert [position for _, position, _ in told] == expected


async def test_what_is_wrong_is_refused(settings: Settings) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        await author.dispatch.open()
        first, second, _ = await author.submit(3)
        with pytest.raises(Refused, match="no queue 'nosuch'; there are: mail"):
            await follow_logs(settings, Follow(queues=("nosuch",)), lambda *_: None, asyncio.Event())
        await command(redis, "XDEL", keys.log, first)
        early = Follow(since=milliseconds(second) - 60_000)
        with pytest.raises(Refused, match="is before the log of mail begins, at 20"):
            await follow_logs(settings, early, lambda *_: None, asyncio.Event())
    with pytest.raises(Refused, match="no event 'complete'; there are: submitted, "):
        known_events(["complete"])
    with pytest.raises(InvalidJob, match=r"--from: 'yesterday' is no moment"):
        moment_of("--from", "yesterday")
    assert moment_of("--from", "1000") == 1000
    assert before(0) == "0-0"


async def test_a_log_that_was_trimmed_by_hand_is_not_whole(settings: Settings) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        await author.dispatch.open()
        jobs = await author.submit(5)
        log = Log(redis, keys)
        assert (await standing(log)).removed == "0-0"
        await command(redis, "XTRIM", keys.log, "MAXLEN", 2)
        now = await standing(log)
        assert (now.first, now.removed) == (jobs[3], preceding(jobs[3]))
        assert partly(keys, now, Span("0-0", now.last)).startswith("mail: retention has removed")
        await command(redis, "XTRIM", keys.log, "MAXLEN", 0)
        assert (await standing(log)).removed == now.last


async def test_a_job_is_looked_for_where_it_can_be(settings: Settings) -> None:
    for job, says in (
        ("mail.0.5-5", "no job mail.0.5-5 in queue 'other'"),
        ("other.7.5-5", "no partition 7"),
    ):
        follow = Follow(wanted=Wanted(job=job), queues=("other",))
        with pytest.raises(NotFound, match=says):
            await follow_logs(settings, follow, lambda *_: None, asyncio.Event())


async def test_who_stops_in_the_past_waits_for_no_more_of_it(settings: Settings) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        await author.dispatch.open()
        await author.submit(3 * FIRST_PAGE)
    told, stop = [], asyncio.Event()

    def tell(_: PartitionKeys, one: Told) -> None:
        told.append(one)
        stop.set()

    await asyncio.wait_for(follow_logs(settings, Follow(since=0), tell, stop), 20)
    assert 1 <= len(told) <= FIRST_PAGE


async def test_what_goes_wrong_while_telling_ends_it(settings: Settings) -> None:
    def tell(*_: object) -> None:
        raise Unavailable("nobody can hear")

    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        await author.dispatch.open()
        following = asyncio.create_task(follow_logs(settings, Follow(), tell, asyncio.Event()))

        async def ended() -> bool:
            await author.submit(1)
            return following.done()

        await until(ended, "it ends")
        with pytest.raises(Unavailable, match="nobody can hear"):
            await following


def test_a_restarted_server_is_waited_for_and_said(
    make_server: Callable[..., RealServer], penstock: Callable[..., Command], namespace: str
) -> None:
    server = make_server("redis", fsync="always")
    keys = Keys(namespace).partition("mail")

    def append(tag: str, body: object) -> None:
        with server.client() as client:
            client.xadd(keys.log, {"event": tag, "job": "", "body": encode(body)})

    with server.client() as client:
        client.sadd(keys.queues, "mail")
        client.set(keys.epoch, "e1")
    append("submitted", Submitted("mail.send", msgspec.Raw(b"{}")))
    tail = penstock(
        *("replay", "tail", "--from", "1h"),
        PENSTOCK_REDIS_URL=server.url,
        PENSTOCK_NAMESPACE=namespace,
    )
    tail.says('"event":"submitted","state":"waiting"')
    server.kill()
    tail.says("mail.0: lost the log")
    server.start()
    append("failed", Failed("permanent", "ValueError", "no such mailbox"))
    tail.says("mail.0: the log is back")
    tail.says("no such mailbox")
    tail.signal(signal.SIGINT)
    assert tail.wait() == 0
    assert tail.output.count('"mail.send"') == 2, "once as the event's type, once in its body"
    assert "Traceback" not in tail.output


def piped(settings: Settings, folder: Path, pipe: int) -> "subprocess.Popen[bytes]":
    """`penstock replay tail --json` into a pipe."""
    environ = {"PENSTOCK_REDIS_URL": settings.redis_url.reveal(), "PENSTOCK_NAMESPACE": settings.namespace}
    words = [sys.executable, "-P", "-m", "penstock.ui", "replay", "tail", "--json", "--from", "1h"]
    with (folder / "errors").open("wb") as errors:
        return subprocess.Popen(words, env={**os.environ, **environ}, stdout=pipe, stderr=errors, cwd=folder)


async def test_a_closed_pipe_ends_it_quietly(settings: Settings, tmp_path: Path) -> None:
    keys = Keys(settings.namespace).partition("mail")
    async with connect(settings) as redis:
        author = Author(redis, keys)
        await author.dispatch.open()
        await author.submit(1, payload={"n": 1})
        reading, writing = os.pipe()
        process = piped(settings, tmp_path, writing)
        os.close(writing)
        try:
            with os.fdopen(reading, "rb") as pipe:
                line = await asyncio.to_thread(pipe.readline)
            event = json.loads(line)
            assert (event["queue"], event["event"], event["type"]) == ("mail", "submitted", event["type"])
            assert event["data"]["payload"] == {"n": 1}

            async def ended() -> bool:
                await author.submit(1)  # there is something to say, and nobody who reads it
                return process.poll() is not None

            await until(ended, "it ends")
            assert process.returncode == 0
            assert (tmp_path / "errors").read_text() == ""
        finally:
            process.kill()
            process.wait()
