"""Histories of anything: a queue to which all that may happen does, in an order that is drawn, written by the
real scripts. Beside it stands what such a history is compared with: the log as if nothing had ever been
removed from it, and a fold of that which stops wherever one likes.

    work     submitted at once, later, for groups, with keys; taken, ended in every way, lost, given back
    commands cancel, requeue, dismiss, reschedule, pause, limit, retain, drain a queue or a worker
    others   entries of foreign hands: of no shape, of no tag, of no job, that fit no state
    readers  projectors that end and begin again, or race; rebuilds; retention; archivers that are killed
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from floor import Floor, done, ended, floor_on, submission
from histories import progress
from penstock.core.connection import command
from penstock.core.control import Standing, standing
from penstock.core.dispatch import Delivery, Note
from penstock.core.events import Logged, QueueLimited, QueueRetained, encode
from penstock.core.keys import Keys
from penstock.core.lifecycle import Job
from penstock.core.log import Entry, Log
from penstock.core.positions import START, order
from penstock.core.settings import Secret, Settings
from penstock.core.story import tell
from penstock.core.workers import Workers
from penstock.projections.folding import Overtaken
from penstock.projections.rebuild import rebuild
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.archiver import PartitionArchiver
from penstock.projections.views import Rows, Stats, Views, read
from projectors import fold, soon, sweep
from servers import RealServer

WORKERS: Final = ("w1", "w2")
READER: Final = "saga"  # what it has not written down is removed by nobody
ACTS: Final = (
    *("submit", "submit", "work", "work", "work", "lose", "release"),
    *("cancel", "requeue", "dismiss", "reschedule", "pause", "limit", "retain", "drain", "send_off"),
    *("foreign", "fold", "race", "renew", "trim"),
)
_PAYLOADS: Final = (
    b"{}",
    b'{"to":"ada@example.org"}',
    '{"größe":"\u2028 {}"}'.encode(),
    b'"sealed:12ab:AAAA"',
    b'{"n": 1.50, "list" : [ ]}',
)
_LARGE: Final = b'{"text":"%b"}' % (b"x" * (256 * 1024 - 11))  # as large as there may be


class Saga:
    """One queue, and what happens to it. `written` is its log, with all that was ever removed."""

    def __init__(self, floor: Floor, settings: Settings, seed: int, archive: str = "") -> None:
        self.floor: Final = floor
        self.settings: Final = settings
        self.keys: Final = floor.keys
        self.redis: Final = floor.redis
        self.jobs: Final[list[str]] = []
        self.written: Final[dict[bytes, list[bytes]]] = {}
        self.archive: Final = archive
        self._archiver: PartitionArchiver | None = None
        self._chance: Final = random.Random(seed)

    async def act(self, what: str) -> None:
        """Let it happen, and write down what it left in the log."""
        await getattr(self, what)(self._chance.choice(WORKERS))
        await self.note()

    async def note(self) -> None:
        """Write down what has come; from here on it may be removed."""
        after = next(reversed(self.written), START.encode()).decode()
        self.written.update(await Log(self.redis, self.keys).entries(after, 100_000))
        await command(self.redis, "HSET", self.keys.readers, READER, next(reversed(self.written)))

    async def end(self) -> None:
        """All is folded, and nothing of this saga is left among the readers."""
        await self.fold("")
        await command(self.redis, "HDEL", self.keys.readers, READER)

    async def live(self) -> list[Entry]:
        """The log as it is."""
        return list(await Log(self.redis, self.keys).entries(START, 100_000))

    # Work

    async def submit(self, _: str) -> None:
        chance = self._chance
        batch = [
            submission(
                type=chance.choice(("mail.send", "mail.bulk", "mail.check")),
                payload=_LARGE if chance.random() < 0.02 else chance.choice(_PAYLOADS),
                group=chance.choice(("", "", "ada", "bob")),
                when=chance.choice(("", "", "", "+1", "+3600000")),
                lane=chance.choice(("high", "normal", "low")),
                unique=chance.choice(("", "", "u1", "u2")),
                replace=chance.random() < 0.5,
                ttl=chance.choice((0, 0, 0, 0.001)),
                tags=chance.choice(((), ("odd",))),
                key=chance.choice(("", "", "k1", "k2")),
            )
            for _ in range(chance.randint(1, 8))
        ]
        self.jobs.extend(await self.floor.send(batch))

    async def work(self, worker: str) -> None:
        """Take some, say something, and end most of them."""
        taken = await self.floor.take(worker, self._chance.randint(1, 6))
        notes = [self._note(it) for it in taken if self._chance.random() < 0.4]
        await self.floor.dispatch.cycle(worker, 0, notes=notes)
        ends = [self._end(it) for it in taken if self._chance.random() < 0.8]
        await self.floor.report(*ends, worker=worker)

    def _note(self, it: Delivery) -> Note:
        if self._chance.random() < 0.5:
            return progress(it, self._chance.random(), "on the way")
        return Note(it.lane, it.entry, it.job, "logged", encode(Logged("a line: größe\n")))

    def _end(self, it: Delivery) -> Any:
        outcome = self._chance.choice(("completed", "completed", "failed", "attempt_failed", "released"))
        if outcome == "completed":
            return done(it, b'{"ms":%d,"result":{"n":[1,2.50,"\\u00e9"]}}' % self._chance.randint(0, 90))
        return ended(outcome, it, 1 if outcome == "attempt_failed" else 0)

    async def lose(self, worker: str) -> None:
        """The worker was killed while it ran some, and another one found out."""
        await self.floor.take(worker, 2)
        await self.floor.reclaim(worker, self._chance.choice((1, 3)))
        await self.floor.enter(worker)

    async def release(self, worker: str) -> None:
        await self.floor.dispatch.release(worker, "it lost its connection")

    # Commands

    async def cancel(self, _: str) -> None:
        await self.floor.control.cancel(await self._some(), by="ada", reason="not wanted")

    async def requeue(self, _: str) -> None:
        await self.floor.control.requeue([it for it in await self._some(9) if it.end], by="ada")

    async def dismiss(self, _: str) -> None:
        await self.floor.control.dismiss([it for it in await self._some(9) if it.end], by="ada")

    async def reschedule(self, _: str) -> None:
        ways: tuple[dict[str, Any], ...] = (
            *({"at_once": True}, {"delay": 60.0}, {"delay": 0.001}, {"run_at": 1}),
            *({"priority": "high"}, {"priority": "low", "at_once": True}),
        )
        await self.floor.control.reschedule(await self._some(), by="ada", **self._chance.choice(ways))

    async def pause(self, worker: str) -> None:
        await self.floor.control.pause(by="ada")
        await self.floor.take(worker, 3)
        if self._chance.random() < 0.8:
            await self.floor.control.resume(by="ada")

    async def limit(self, _: str) -> None:
        limits = {"per_group": self._chance.randrange(3), "concurrency": self._chance.choice((0, 9))}
        await self.floor.control.limit(QueueLimited(**limits, rate=100_000, by="ada"))

    async def retain(self, _: str) -> None:
        kept = self._chance.choice((0.001, 0.002, 3600))
        await self.floor.control.retain(QueueRetained(completed=kept, by="ada"))

    async def drain(self, _: str) -> None:
        if self._chance.random() < 0.3:
            await self.floor.control.drain(by="ada")

    async def send_off(self, worker: str) -> None:
        """The worker is asked to leave, does so, and comes back."""
        await Workers(self.redis, Keys(self.settings.namespace)).drain(worker, by="ada")
        await self.floor.dispatch.release(worker, "it was asked to leave", leave=True)
        await self.floor.enter(worker)

    async def _some(self, count: int = 3) -> list[Standing]:
        found = []
        for job in self._chance.sample(self.jobs, min(count, len(self.jobs))):
            stands = standing(await tell(self.redis, self.keys, job))
            if stands is not None:  # else retention has removed it
                found.append(stands)
        return found

    # Others

    async def foreign(self, _: str) -> None:
        """What another program might write into a log, and no script would."""
        job = self._chance.choice(self.jobs)
        started = '{"attempt":1,"worker":"w"}'
        ways: tuple[tuple[Any, ...], ...] = (
            ("foreign", "entry"),
            ("event", "melted", "job", job, "body", "{}"),
            ("event", "completed/9", "job", job, "body", "{}"),
            ("event", "", "job", job, "body", "{}"),
            ("event", "progressed", "job", job, "body", "no json"),
            ("event", "completed", "job", job, "body", b"\xff\xfe"),
            ("event", "started", "job", "12-0", "body", started),
            ("event", "started", "job", "who?", "body", started),
            ("event", "submitted", "job", "", "body", '{"type":"mail.send"}'),
            ("event", "submitted", "job", job, "body", '{"type":"mail.send","payload":{}}'),
            ("event", "queue_limited", "job", "", "body", '{"rate":"fast"}'),
        )
        await command(self.redis, "XADD", self.keys.log, "*", *self._chance.choice(ways))

    # Readers

    async def fold(self, _: str) -> None:
        """A projector that begins anew, and ends when all is folded."""
        await fold(self.redis, self.keys)

    async def race(self, _: str) -> None:
        """Several at once; who comes second begins again."""

        async def one() -> None:
            with suppress(Overtaken):
                await self.fold("")

        await asyncio.gather(one(), one(), one())

    async def renew(self, _: str) -> None:
        await rebuild(self.redis, self.keys)

    async def trim(self, _: str) -> None:
        """Retention, with a projector at work."""
        await self.note()
        await sweep(self.settings, self.redis, self.keys)

    async def store(self, _: str) -> None:
        """The archiver puts some segments; or it is killed, and another one goes on."""
        if self._archiver is None or self._chance.random() < 0.3:
            self._archiver = PartitionArchiver(self.redis, self.keys, Archive(self.archive, make=True), 3600)
            await self._archiver.enter()
        for _number in range(self._chance.randrange(4)):
            await self._archiver.step(due=self._chance.random() < 0.6)


def fold_until(entries: Sequence[Entry], last: str) -> tuple[Stats, dict[str, Job]]:
    """A fold of a log that stops at a position: what it counts, and the rows."""
    events = [it for it in map(read, entries) if order(it[0].position) <= order(last)]
    views, rows = Views(), Rows(dict.fromkeys(event.job for event, _ in events))
    if events:
        views.fold(events, rows)
    return views.stats, {position: row for position, row in rows.items() if row is not None}


@asynccontextmanager
async def saga_on(
    server: RealServer, namespace: str, acts: Sequence[str], seed: int, archive: str = ""
) -> AsyncIterator[Saga]:
    """A saga that has come to its end: `acts` have happened, in this order."""
    settings = soon(Settings(redis_url=Secret(server.url), namespace=namespace))
    async with floor_on(server, namespace, *WORKERS) as floor:
        saga = Saga(floor, settings, seed, archive)
        for what in ("submit", *acts):
            await saga.act(what)
        await saga.end()
        yield saga


def drawn(seed: int, count: int, acts: Sequence[str] = ACTS) -> list[str]:
    """So many acts in an order that follows from a seed."""
    return random.Random(seed).choices(acts, k=count)
