"""A queue on a real server as tests look at it, and workers on it, in this process and in others.

`Site` is one namespace: it submits, reads the whole log, and `consistent` is the promise that all
tests of crashes end with: every job ended in exactly one terminal event, and nothing is left over.
"""

import asyncio
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from commands import Command
from penstock.consumers.worker import run_worker
from penstock.core.connection import connect
from penstock.core.dispatch import Dispatch, Submission
from penstock.core.events import QUEUE_TAGS, Event, as_builtins
from penstock.core.keys import GROUP, LANES, PARKED, Keys
from penstock.core.lifecycle import TERMINAL, Job, fold_all
from penstock.core.log import Log
from penstock.core.settings import Secret, Settings
from penstock.producer.client import Handle, Producer
from servers import RealServer

QUEUE: Final = "test"
LEASE_S: Final = 1.0
PAGE: Final = 5_000
# The ends of a job: one a run, but that a failure may be laid to rest; a requeue begins the next run.
_OF_RUNS: Final = {*TERMINAL, "requeued"}
_END: Final = "(?:completed|cancelled|failed(?: cancelled)?)"
_RUNS: Final = re.compile(f"{_END}(?: requeued {_END})*")
TESTS: Final = Path(__file__).parent
JOB: Final = '{"type":"test.echo","payload":{}}'


async def eventually(
    condition: Callable[[], Awaitable[Any]], timeout: float, what: str, *, pause: float = 0.01
) -> Any:
    """The first true answer of `condition`; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(pause)


class Site:
    """One namespace on a server, seen through its queue `test` (or another one)."""

    def __init__(self, settings: Settings, redis: Redis, queue: str) -> None:
        self.settings: Final = settings
        # Any: the types of redis-py are unions of all that it could answer.
        self.redis: Final[Any] = redis
        self.keys: Final = Keys(settings.namespace).partition(queue)
        self.dispatch: Final = Dispatch(redis, self.keys)
        self.log: Final = Log(redis, self.keys)
        self._batches = 0

    async def put(self, *bodies: str, lane: str = "normal", when: str = "", key: str = "") -> list[str]:
        """Submit bodies as they are, past the producer; answers the jobs' positions."""
        self._batches += 1
        jobs = [Submission(lane, body.encode(), when, key) for body in bodies]
        accepted = await self.dispatch.submit(jobs, producer="tests", batch=self._batches, once_ms=60_000)
        return [it.position for it in accepted]

    async def events(self) -> list[Event]:
        """The whole log."""
        found: list[Event] = []
        while True:
            page = await self.log.page(found[-1].position if found else "0-0", PAGE)
            found += page
            if len(page) < PAGE:
                return found

    async def stories(self) -> dict[str, list[Event]]:
        """The events of each job, by its position."""
        told: dict[str, list[Event]] = defaultdict(list)
        for event in await self.events():
            if event.tag not in QUEUE_TAGS:
                told[event.job].append(event)
        return told

    async def jobs(self) -> dict[str, Job | None]:
        """Each job as its events tell it."""
        return {job: fold_all(events) for job, events in (await self.stories()).items()}

    async def tags(self, job: str | Handle) -> list[str]:
        """What happened to a job, in order."""
        return [event.tag for event in await self.story(job)]

    async def story(self, job: str | Handle) -> list[Event]:
        """The events of a job."""
        position = job.id.rsplit(".", maxsplit=1)[1] if isinstance(job, Handle) else job
        return (await self.stories())[position]

    async def bodies(self, job: str | Handle, tag: str) -> list[dict[str, Any]]:
        """What the job's events of a kind say."""
        return [as_builtins(event) for event in await self.story(job) if event.tag == tag]

    async def until(self, job: str | Handle, tag: str, *, timeout: float = 30.0) -> dict[str, Any]:
        """Wait for a job's first event of a kind; answers what it says."""

        async def happened() -> list[dict[str, Any]]:
            return await self.bodies(job, tag)

        found: list[dict[str, Any]] = await eventually(happened, timeout, f"{tag} of {job}")
        return found[0]

    async def until_ended(self, count: int, *, timeout: float) -> None:
        """Wait until so many jobs have ended."""
        position, ended = "0-0", 0

        async def enough() -> bool:
            nonlocal position, ended
            page = await self.log.page(position, PAGE)
            if page:
                position = page[-1].position
                ended += sum(event.tag in TERMINAL for event in page)
            return ended >= count

        await eventually(enough, timeout, f"{count} jobs end", pause=0.02)

    async def pending(self) -> list[tuple[str, str, str, int]]:
        """Every pending entry: lane, entry, consumer, deliveries."""
        rows = []
        for name, lane in zip(LANES, self.keys.lanes, strict=True):
            found = await self.redis.xpending_range(lane, GROUP, "-", "+", 100_000)
            for row in found:
                entry, consumer = row["message_id"].decode(), row["consumer"].decode()
                rows.append((name, entry, consumer, row["times_delivered"]))
        return rows

    async def alive(self) -> set[str]:
        """Who gives signs of life."""
        return {name.decode() for name in await self.redis.zrange(self.keys.workers, 0, -1)}

    async def consumers(self) -> set[str]:
        """Who the lanes' groups know, but for the parked."""
        found = set()
        for lane in self.keys.lanes:
            rows = await self.redis.xinfo_consumers(lane, GROUP)
            found |= {row["name"].decode() for row in rows}
        return found - {PARKED}

    async def consistent(self, accepted: Collection[str] = ()) -> dict[str, list[Event]]:
        """Everything ended, once a run: no misfit, no run without an end or with two, nothing left in a
        lane, pending, due, counted as crashed or held by a group or a unique key; and every job of
        `accepted` (positions) is there."""
        stories = await self.stories()
        missing = set(accepted) - set(stories)
        assert not missing, f"{len(missing)} accepted jobs are not in the log: {sorted(missing)[:5]}"
        for position, events in stories.items():
            tags = [event.tag for event in events]
            job = fold_all(events)
            assert job is not None, (position, tags)
            assert job.misfits == 0, (position, tags)
            assert _RUNS.fullmatch(" ".join(tag for tag in tags if tag in _OF_RUNS)), (position, tags)
            assert job.state in TERMINAL, (position, tags)
        assert await self.pending() == []
        left = {key: await self.redis.xlen(key) for key in self.keys.lanes}
        assert not any(left.values()), left
        assert await self.redis.zrange(self.keys.due, 0, -1) == []
        remains = [key for key in self.keys.entries[6:] if key not in (self.keys.workers, self.keys.control)]
        assert not [key for key in remains if await self.redis.exists(key)]
        return stories


def settings_for(server: RealServer, namespace: str, **more: Any) -> Settings:
    """Settings of a process on this server; a short lease, and only the queue of these tests."""
    more.setdefault("lease", LEASE_S)
    more.setdefault("queues", (QUEUE,))
    return Settings(redis_url=Secret(server.url), namespace=namespace, **more)


@asynccontextmanager
async def site_on(
    server: RealServer, namespace: str, *, queue: str = QUEUE, **more: Any
) -> AsyncIterator[Site]:
    """A site, and the connections that belong to it."""
    settings = settings_for(server, namespace, **more)
    async with connect(settings) as redis:
        yield Site(settings, redis, queue)


class Running:
    """A worker in this process."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        self.stop: Final = asyncio.Event()
        self.task: Final = asyncio.create_task(run_worker(settings, self.stop, **more))

    async def end(self) -> bool:
        """Ask it to leave and wait until it has; whether everything ended."""
        self.stop.set()
        return await self.task


@asynccontextmanager
async def working(settings: Settings, **more: Any) -> AsyncIterator[Running]:
    """A worker in this process while the block runs."""
    running = Running(settings, **more)
    try:
        yield running
    finally:
        await running.end()


@asynccontextmanager
async def producing(site: Site) -> AsyncIterator[Producer]:
    """A producer with connections of its own."""
    async with Producer(site.settings) as producer:
        yield producer


def start_worker(
    penstock: Callable[..., Command], server: RealServer, namespace: str, **settings: Any
) -> Command:
    """`penstock worker` on the queue of these tests, ready: a process of its own."""
    environ = {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    ours = {"LEASE": 1, "GRACE": 2, "QUEUES": QUEUE, "JOBS": "jobs_for_tests"}
    environ = {**{f"PENSTOCK_{name}": value for name, value in ours.items()}, **environ}
    worker = penstock(
        "worker",
        PENSTOCK_REDIS_URL=server.url,
        PENSTOCK_NAMESPACE=namespace,
        PYTHONPATH=os.pathsep.join(str(folder) for folder in (TESTS, TESTS.parent / "infra/src")),
        **environ,
    )
    worker.says("ready: ")
    return worker


async def exit_code(command: Command, timeout: float = 30.0) -> int:
    """Wait for the end of a process, beside whatever else runs; answers its exit code."""

    async def ended() -> bool:
        return command.process.poll() is not None

    await eventually(ended, timeout, f"it ends:\n{command.output}")
    return command.wait()


async def dismiss(*commands: Command) -> None:
    """Ask processes to leave, all at once; each must end in order."""
    for command in commands:
        command.signal(signal.SIGTERM)
    for command in commands:
        assert await exit_code(command) == 0, command.output
