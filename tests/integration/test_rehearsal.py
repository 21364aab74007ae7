"""Rehearsing a past stretch with another version of the handlers, on real servers: what is told, and that
nothing is touched."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from commands import Command
from penstock.consumers.email import send as send_mail
from penstock.consumers.handlers import handlers
from penstock.consumers.rehearsal import Ran, Recorded
from penstock.consumers.rehearsal_stage import open_stage
from penstock.core.artifacts import open_artifacts
from penstock.core.errors import NotFound
from penstock.core.events import Submitted
from penstock.core.jobs.bulk import Filter
from penstock.core.jobs.email import SendEmail
from penstock.core.settings import Secret, Settings
from penstock.producer.client import Producer
from penstock.projections.rebuild import rebuild
from penstock.ui.rehearsing import Rehearsal, Report, Stretch
from processes import Site, eventually, exit_code, producing, site_on, working
from rehearsal_jobs import EFFECTS, Apart, Curious, Letter, Slow, Square, Stuck, Wild
from servers import RealServer

QUEUE: Final = "rehearsed"
SEAL: Final = "b2xkIGtleSwgb2YgdGhpcnR5LXR3byBieXRlcyBvay4="


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the version of the handlers."""
    EFFECTS.clear()
    return lambda number: monkeypatch.setenv("REHEARSED_VERSION", number)


@pytest.fixture
async def site(server: RealServer, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    more: dict[str, Any] = {"queues": (QUEUE,), "data_dir": tmp_path}
    async with site_on(server, namespace, queue=QUEUE, **more) as site:
        yield site


class _Submitter:
    def __init__(self, producer: Producer) -> None:
        self.submit: Final = producer.submit


async def record(site: Site, *payloads: msgspec.Struct) -> list[str]:
    """Let a real worker run these jobs; answers their ids."""
    async with producing(site) as producer:
        handles = await producer.submit_many(payloads)
        store: Any = open_artifacts(site.settings)
        async with working(site.settings, artifacts=store, submitter=_Submitter(producer)):
            await site.until_ended(len(await site.jobs()), timeout=40)
    await rebuild(site.redis, site.keys)
    return [handle.id for handle in handles]


async def rehearse(
    site: Site, settings: Settings | None = None, *, unseal: bool = False, **words: Any
) -> Report:
    stretch = Stretch(Filter(queue=QUEUE), **words)
    rehearsal = Rehearsal(settings or site.settings, unseal=unseal)
    return await rehearsal.run(stretch, at_once=8, report=lambda _: None)


async def everything(site: Site) -> dict[bytes, Any]:
    """Every key of the server that is of this test or of a rehearsal of it, with its bytes."""
    prefix = site.settings.namespace[:12]
    return {
        name: await site.redis.dump(name)
        async for name in site.redis.scan_iter(match=f"{prefix}*", count=1_000)
    }


async def test_it_tells_what_would_go_otherwise_and_touches_nothing(
    site: Site, version: Callable[[str], None]
) -> None:
    version("0")
    numbers = [2, 3, 5, 6, 7, 8]
    squares = await record(site, *map(Square, numbers))
    version("1")
    letters = await record(site, Letter("ada@example.org"), Letter("bob"), Wild())
    assert EFFECTS == ["ada@example.org", "bob", "wild"]
    before, files = await everything(site), sorted(site.settings.data_dir.rglob("*"))
    report = await rehearse(site)
    assert report.verdicts == {"same": 7, "better": 1, "not run": 1}
    [better, wild] = report.told
    assert (better.id, better.verdict, better.why) == (squares[4], "better", "it was Permanent: seven")
    assert (wild.id, wild.why) == (letters[2], "its handler is not declared pure and has no dry mode")
    version("2")
    report = await rehearse(site)
    assert report.worse == 3
    assert {job.id for job in report.told if job.verdict == "worse"} == {squares[1], squares[2], letters[1]}
    odd = next(job for job in report.told if job.id == squares[1])
    assert odd.why == "ValueError: 3 is odd"
    assert odd.now is not None
    assert (odd.now.attempts, odd.now.error) == (2, "ValueError")
    even = next(job for job in report.told if job.id == squares[0])
    assert [msgspec.to_builtins(change) for change in even.changes] == [{"path": "version", "after": 2}]
    [letter, square, _] = report.types
    assert (letter.type, letter.verdicts) == ("rehearsed.letter", {"same": 1, "worse": 1})
    assert square.verdicts == {"worse": 2, "differs": 4}
    assert EFFECTS == ["ada@example.org", "bob", "wild"], "nothing was sent again"
    assert await everything(site) == before
    assert sorted(site.settings.data_dir.rglob("*")) == files


async def test_a_handler_sees_the_past_job_and_that_it_is_rehearsed(site: Site) -> None:
    [curious, apart] = await record(site, Curious("hello"), Apart())
    before, files = await everything(site), sorted(site.settings.data_dir.rglob("*"))
    report = await rehearse(site)
    told = {job.id: job for job in report.told}
    assert told[curious].why == "it took 2 attempts, and 1 then", "it wanted to come back in an hour"
    assert told[curious].changes == []
    assert [msgspec.to_builtins(it) for it in told[apart].changes] == [
        {"path": "", "before": False, "after": True}
    ]
    assert await everything(site) == before
    assert sorted(site.settings.data_dir.rglob("*")) == files, "artifacts are thrown away"


async def test_a_stretch_is_bounded_by_types_and_by_number(site: Site) -> None:
    squares = await record(site, *map(Square, range(5)), Letter("ada@example.org"))
    assert (await rehearse(site, types=("rehearsed.letter",))).jobs == 1
    report = await rehearse(site, types=("rehearsed.square",), limit=2)
    assert report.verdicts == {"same": 2}
    assert len(squares) == 6


async def test_a_queue_that_is_none_is_refused_and_what_has_gone_is_said(site: Site) -> None:
    stretch = Stretch(Filter(queue="nowhere"))
    with pytest.raises(NotFound, match="there is no queue 'nowhere'; there are: "):
        await Rehearsal(site.settings).run(stretch, at_once=1, report=lambda _: None)
    gone, _ = await record(site, Square(2), Square(3))
    assert (await rehearse(site)).partial == ""
    story = (await site.stories())[gone.partition(".0.")[2]]
    await site.redis.execute_command("XDEL", site.keys.log, *(event.position for event in story))
    assert (await rehearse(site)).partial.startswith(f"{QUEUE}: retention has removed jobs that ended")


async def test_the_stage_keeps_nothing_of_what_was_played(site: Site) -> None:
    payload = msgspec.Raw(msgspec.json.encode(Square(2)))
    job = Recorded(f"{QUEUE}.0.1-0", Submitted("rehearsed.square", payload), Ran("completed"))
    stage_of = open_stage(site.settings, QUEUE, handlers(), artifacts=open_artifacts(site.settings))
    async with stage_of as stage:
        for _ in range(2):
            assert [it.verdict for it in await stage.rehearse([job] * 3)] == ["differs"] * 3
        mine = f"{site.settings.namespace[:12]}-rehearsal-*:log"
        [log] = [name async for name in site.redis.scan_iter(match=mine, count=1_000)]
        assert await site.redis.xlen(log) == 0


async def test_the_stage_may_be_on_another_server(site: Site, make_server: Callable[..., RealServer]) -> None:
    await record(site, Square(2))
    before, other = await everything(site), make_server("redis", aof=False)
    stage = msgspec.structs.replace(site.settings, redis_url=Secret(other.url))
    rehearsal = Rehearsal(site.settings, stage=stage)
    report = await rehearsal.run(Stretch(Filter(queue=QUEUE)), at_once=1, report=lambda _: None)
    assert report.verdicts == {"same": 1}
    assert await everything(site) == before
    with other.client() as client:
        assert client.dbsize() == 0
        assert client.info("commandstats")["cmdstat_xadd"]["calls"] > 0, "it was there"


async def test_what_is_sealed_is_compared_and_told_only_if_asked(
    server: RealServer, namespace: str, tmp_path: Path, version: Callable[[str], None]
) -> None:
    more: dict[str, Any] = {"queues": (QUEUE,), "data_dir": tmp_path, "payload_keys": Secret(SEAL)}
    async with site_on(server, namespace, queue=QUEUE, **more) as site:
        await record(site, Square(2), Square(3))
        assert (await rehearse(site)).verdicts == {"same": 2}
        version("2")
        told, open_ = await rehearse(site), await rehearse(site, unseal=True)
        assert told.verdicts == open_.verdicts == {"worse": 1, "differs": 1}
        assert b"is odd" not in msgspec.json.encode(told)
        assert b"is odd" in msgspec.json.encode(open_)
        blind = await rehearse(site, msgspec.structs.replace(site.settings, payload_keys=Secret("")))
        assert blind.verdicts == {"not run": 2}
        assert "sealed" in blind.told[0].why


async def test_mails_are_composed_and_not_sent(server: RealServer, namespace: str, tmp_path: Path) -> None:
    """Nobody listens where mails go: sending one would fail."""
    more: dict[str, Any] = {"queues": ("email",), "data_dir": tmp_path, "mail_port": 1}
    assert send_mail is not None
    async with site_on(server, namespace, queue="email", **more) as site, producing(site) as producer:
        mail = SendEmail(to=("ada@example.org",), subject="Hello", text="x")
        await producer.submit(mail, attempts=1)
        async with working(site.settings):
            await site.until_ended(1, timeout=20)
        await rebuild(site.redis, site.keys)
        stretch = Stretch(Filter(queue="email"))
        report = await Rehearsal(site.settings).run(stretch, at_once=1, report=lambda _: None)
    assert report.verdicts == {"differs": 1}
    assert "finds nothing wrong; it was RemoteFailure" in report.told[0].why


async def staged(site: Site) -> list[bytes]:
    prefix = site.settings.namespace[:12]
    return [name async for name in site.redis.scan_iter(match=f"{prefix}-rehearsal-*", count=1_000)]


async def test_cut_short_it_leaves_nothing(site: Site, version: Callable[[str], None]) -> None:
    await record(site, Slow())
    version("2")
    task = asyncio.create_task(rehearse(site))
    await eventually(lambda: staged(site), 20, "it is under way")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await staged(site) == []


@pytest.fixture
def command(penstock: Callable[..., Command], site: Site) -> Callable[..., Command]:
    def start(*words: str, version: str) -> Command:
        tests = Path(__file__).parents[1]
        return penstock(
            *("replay", "rehearse", "--queue", QUEUE, "--jobs", "rehearsal_jobs", *words),
            PENSTOCK_REDIS_URL=site.settings.redis_url.reveal(),
            PENSTOCK_NAMESPACE=site.settings.namespace,
            PYTHONPATH=f"{tests}:{tests.parent / 'infra/src'}",
            REHEARSED_VERSION=version,
        )

    return start


async def test_the_command_says_no_by_its_exit_code(site: Site, command: Callable[..., Command]) -> None:
    await record(site, Square(2), Square(3))
    good, bad = command("--json", version="1"), command("--from", "1h", version="2")
    assert await exit_code(good, 40) == 0, good.output
    assert json.loads(good.output)["verdicts"] == {"same": 2}
    assert await exit_code(bad, 40) == 1, bad.output
    assert "No: 1 of 2 jobs fail now that had completed." in bad.output
    assert "version: (none) → 2" in bad.output
    wrong = command("--from", "yesterday", version="1")
    assert await exit_code(wrong, 40) == 2


async def test_a_thread_that_does_not_come_back_is_not_waited_for(
    site: Site, command: Callable[..., Command]
) -> None:
    await record(site, Stuck())
    running = command(version="2")
    assert await exit_code(running, 40) == 1, running.output
    assert "TimeoutError" in running.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_command_that_is_stopped_leaves_nothing_for_long(
    site: Site, command: Callable[..., Command], number: signal.Signals
) -> None:
    await record(site, Slow())
    running = command(version="2")
    await eventually(lambda: staged(site), 40, "it is under way")

    async def lane_taken() -> bool:
        names = [name for name in await staged(site) if name.endswith(b":workers")]
        return bool(names) and await site.redis.pttl(names[0]) > 0

    await eventually(lane_taken, 20, "its keys have a life")
    running.signal(number)
    assert (
        await exit_code(running, 40) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    )
    left = await staged(site)
    if number == signal.SIGKILL:
        assert all([await site.redis.pttl(name) > 0 for name in left])
    else:
        assert left == []
