"""The scheduler: decides on ticks, submits their jobs, writes down which.

    step = settle what is owed, decide what is due, settle that

Any number of them run, and none leads. Deciding is serialised by the ledger; submitting is idempotent
by the key `schedule:<name>:<tick>`; writing down happens only for what is still owed. So a scheduler
may be killed between any two lines: another one, or the next run, finds the tick owed and goes on.

The key is remembered for ONCE_S, and what could not be submitted within STALE_S of its decision is given
up, with an event that says so: so no tick is ever submitted under a key that was forgotten.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from penstock.core.append import MAX_FACTS, Fact
from penstock.core.connection import BLOCK_S, LOST, check_server, connect, passing
from penstock.core.control import Control, extra_of, standing
from penstock.core.dispatch import Submission
from penstock.core.errors import PenstockError, Unavailable
from penstock.core.events import Submitted, encode
from penstock.core.keys import Keys
from penstock.core.lifecycle import TERMINAL
from penstock.core.positions import parse_job_id
from penstock.core.settings import Settings
from penstock.core.story import find, tell
from penstock.producer.outlet import Outlet
from penstock.producer.schedules.clock import Clock, server_clock
from penstock.producer.schedules.deciding import decide, is_due
from penstock.producer.schedules.declaring import synchronise
from penstock.producer.schedules.facts import Owed, Schedule, ScheduleFired, ScheduleSkipped, Standing, fact
from penstock.producer.schedules.fold import Book
from penstock.producer.schedules.keeping import keep
from penstock.producer.schedules.ledger import Ledger
from penstock.producer.schedules.timing import after

STALE_S: Final = 24 * 3600.0
ONCE_S: Final = 2 * STALE_S
LOOK_S: Final = 0.5  # how often it is looked whether the job is over that a tick waits for
PAUSE_S: Final = 1.0

_log: Final = logging.getLogger(__name__)
_spec: Final = msgspec.json.Decoder(Submitted).decode


class Scheduler:
    """One scheduler of a namespace."""

    def __init__(self, redis: Redis, settings: Settings, *, clock: Clock | None = None) -> None:
        self.ledger: Final = Ledger(redis, settings.namespace)
        self._redis: Final = redis
        self._keys: Final = Keys(settings.namespace)
        self._clock: Final = clock or server_clock(redis)
        self._outlets: Final[dict[str, Outlet]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Step after step, until `stop`. A server that is away is waited for."""
        turning = asyncio.create_task(self._turn_on())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({turning, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if turning.done():
                turning.result()
        finally:
            turning.cancel()  # between any two lines, as by a crash
            stopping.cancel()
            await asyncio.gather(turning, stopping, return_exceptions=True)

    async def step(self) -> float:
        """Everything that can be done now; answers in how many seconds there may be more."""
        await self.ledger.refresh()
        patience = await self._settle()
        while await self._decide():
            patience = min(patience, await self._settle())
        await keep(self.ledger)
        return min(patience, await self._until_next())

    async def _turn_on(self) -> None:
        while True:
            try:
                seconds = await self.step()
                if seconds > 0:
                    await self.ledger.wait(seconds)
            except (RedisError, OSError, Unavailable) as error:
                if not isinstance(error, Unavailable | OutOfMemoryError) and not passing(error):
                    raise
                _log.warning("no ticks at the moment: %s", error)
                await asyncio.sleep(PAUSE_S)

    async def _until_next(self) -> float:
        now = await self._clock()
        soonest = BLOCK_S
        for it in self.ledger.book.standings.values():
            tick = None if it.paused else after(it.schedule, it.cursor)
            if tick is not None:
                soonest = min(soonest, (tick - now) / 1000)
        return max(0.0, soonest)

    # Deciding.

    async def _decide(self) -> bool:
        """Decide on what is due, as much as one append takes; whether anything was decided."""
        now = await self._clock()
        due = [name for name, it in self.ledger.book.standings.items() if is_due(it, now)]
        if not due:
            return False
        jobs = {name: self.ledger.book.standings[name].last_job for name in due}
        running = {name: await self._running(job) for name, job in jobs.items()}

        def compose(book: Book) -> list[Fact]:
            facts: list[Fact] = []
            for name in due:
                it = book.standings.get(name)
                if it is None or it.last_job != jobs[name]:
                    continue  # somebody went on meanwhile: the next round looks again
                bodies = decide(it, now, busy=running[name])
                if len(facts) + len(bodies) > MAX_FACTS:
                    break
                facts += [fact(name, body) for body in bodies]
            return facts

        await self.ledger.commit(compose)
        return True

    async def _running(self, job_id: str) -> bool:
        """Whether a job is not over; one that the log does not hold any more is."""
        if not job_id:
            return False
        queue, number, position = parse_job_id(job_id)
        job = await find(self._redis, self._keys.partition(queue, number), position)
        return job is not None and job.state not in TERMINAL

    # Settling.

    async def _settle(self) -> float:
        """Submit what is owed; answers after how many seconds to look again, BLOCK_S where nothing
        waits."""
        patience = BLOCK_S
        while True:
            now = await self._clock()
            ready: list[tuple[str, Owed, Schedule]] = []
            for name, it in list(self.ledger.book.standings.items()):
                found = await self._ready(it, now)
                if len(found) < len(it.owed) and it.schedule.overlap == "queue":
                    patience = LOOK_S
                ready += [(name, owed, owed.schedule or it.schedule) for owed in found]
            if not ready:
                return patience
            facts = await self._fire(ready, now)
            if not facts:
                return PAUSE_S
            await self._write(facts)

    async def _ready(self, it: Standing, now: int) -> Sequence[Owed]:
        """Of the ticks owed those whose job can be submitted now (or that are to be given up)."""
        match it.schedule.overlap:
            case "skip" | "allow":
                return it.owed
            case "queue":
                stale = it.owed and _is_stale(it.owed[0], now)
                return it.owed[:1] if it.owed and (stale or not await self._running(it.last_job)) else ()
            case "cancel":
                return it.owed[:1]

    async def _fire(self, ready: list[tuple[str, Owed, Schedule]], now: int) -> list[tuple[str, Fact]]:
        """Submit, a queue at a time; answers what is to be written, each with its tick. A queue that
        takes no jobs now holds up no other."""
        told: list[tuple[str, Fact]] = []
        queues: dict[str, list[tuple[str, Owed, Schedule]]] = {}
        for name, owed, schedule in ready:
            if _is_stale(owed, now):
                told.append((owed.tick, fact(name, ScheduleSkipped("stale", tick=owed.tick))))
            else:
                queues.setdefault(schedule.queue, []).append((name, owed, schedule))
        for queue, rows in queues.items():
            await self._cancel_old(rows)
            try:
                accepted = await self._outlet(queue).submit([submission_of(*row) for row in rows])
            except PenstockError as error:
                _log.warning("%d ticks wait for queue %s: %s", len(rows), queue, error)
                continue
            for (name, owed, _), answer in zip(rows, accepted, strict=True):
                job = self._keys.partition(queue).job_id(answer.position)
                told.append((owed.tick, fact(name, ScheduleFired(owed.tick, job))))
        return told

    async def _cancel_old(self, rows: list[tuple[str, Owed, Schedule]]) -> None:
        for name, _, _ in rows:
            it = self.ledger.book.standings.get(name)
            if it is None or it.schedule.overlap != "cancel" or not await self._running(it.last_job):
                continue
            queue, number, position = parse_job_id(it.last_job)
            keys = self._keys.partition(queue, number)
            old = standing(await tell(self._redis, keys, position))
            if old is not None:
                reason = "its schedule runs again"
                await Control(self._redis, keys).cancel([old], by=f"schedule:{name}", reason=reason)

    async def _write(self, told: list[tuple[str, Fact]]) -> None:
        """Write down what became of ticks, of those that are still owed."""
        for at in range(0, len(told), MAX_FACTS):
            rows = told[at : at + MAX_FACTS]

            def compose(book: Book, rows: list[tuple[str, Fact]] = rows) -> list[Fact]:
                return [one for tick, one in rows if _is_owed(book, one.job, tick)]

            await self.ledger.commit(compose)
            for tick, one in rows:
                _log.info("%s %s: %s %s", one.job, tick, one.tag, one.body.decode())

    def _outlet(self, queue: str) -> Outlet:
        if queue not in self._outlets:
            self._outlets[queue] = Outlet(self._redis, self._keys.partition(queue), once_s=ONCE_S)
        return self._outlets[queue]


async def run_scheduler(settings: Settings, stop: asyncio.Event) -> None:
    """Run a scheduler until `stop`, after the schedules of the code were set. Raises Misconfigured."""
    async with connect(settings) as redis:
        while not stop.is_set():
            try:
                await check_server(redis)
                await synchronise(redis, settings)
                break
            except (Unavailable, *LOST) as error:
                _log.warning("waiting for Redis: %s", error)
                await asyncio.sleep(PAUSE_S)
        scheduler = Scheduler(redis, settings)
        _log.info("ready: %d schedules", len((await scheduler.ledger.refresh()).standings))
        await scheduler.run(stop)


def submission_of(name: str, owed: Owed, schedule: Schedule) -> Submission:
    """The job of a tick. With jitter it waits, for a share of it that only the tick decides."""
    key = f"schedule:{name}:{owed.tick}"
    run_at = 0
    if schedule.jitter:
        share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
        run_at = int(owed.tick.partition("-")[0]) + round(share * schedule.jitter * 1000)
    spec = msgspec.structs.replace(
        _spec(schedule.job), key=key, by=f"schedule:{name}", run_at=run_at, delay=0
    )
    return Submission(spec.priority, encode(spec), str(run_at) if run_at else "", key, extra_of(spec))


def _is_stale(owed: Owed, now: int) -> bool:
    return now - owed.decided > STALE_S * 1000


def _is_owed(book: Book, name: str, tick: str) -> bool:
    it = book.standings.get(name)
    return it is not None and any(owed.tick == tick for owed in it.owed)
