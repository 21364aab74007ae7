"""A worker's work on one partition.

    loop     one cycle after the other: report what ended, take what the free slots can hold,
             start it; while the script runs, the attempts already taken run too
    listen   when the loop finds nothing, a blocking read on a connection of its own brings the
             next job within a millisecond
    beat     a sign of life twice a second; who gave none for a lease is reclaimed

What can go wrong on the way has one answer each: a lost connection is tried again for ever, then
everything this consumer holds and does not run is given back (`release`); a lost lease means a new
consumer name, and what still runs may complete but no longer fail.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.consumers.attempts import Attempts
from penstock.consumers.context import Report
from penstock.consumers.identity import Identity
from penstock.consumers.outbox import Outbox
from penstock.core.connection import BLOCK_S, command, passing
from penstock.core.dispatch import Arrival, Cycle, Delivery, Dispatch, Finished
from penstock.core.keys import GROUP, PartitionKeys
from penstock.core.line import Line

# One script call: enough to make the round trip cheap, little enough to keep the server's other
# callers waiting for less than a millisecond or two.
MAX_CYCLE: Final = 128
# How often an idle worker looks whether a parked entry is due: half of the 100 ms we promise.
DUE_TICK_S: Final = 0.05
BEAT_S: Final = 0.5
# How often a worker says anew what it is: its memory changes, the rest hardly ever.
FACTS_S: Final = 3.0

# A lane entry that has the job's body along, and nothing that the script must look at first.
_WITH_BODY: Final = [b"job", b"", b"spec", b"", b"body", b""]

_log: Final = logging.getLogger("penstock.worker")


class Slots:
    """How many attempts this process may run at once, over all its partitions."""

    def __init__(self, total: int, stuck: Callable[[], int]) -> None:
        self.total: Final = total
        self._running = 0
        self._stuck: Final = stuck
        self._starved: set[Callable[[], None]] = set()

    @property
    def free(self) -> int:
        return max(0, self.total - self._running - self._stuck())

    def take(self, most: int, tell: Callable[[], None]) -> int:
        """Take up to `most`, before it is known how many are needed, so that no two partitions count
        on the same ones. Answers how many; if none, `tell` is called when one is given back."""
        count = min(self.free, most)
        self._running += count
        if most and not count:
            self._starved.add(tell)
        return count

    def give(self, count: int = 1) -> None:
        """Give back; whoever had found none free is told."""
        self._running -= count
        if count and self._starved:
            starved, self._starved = self._starved, set()
            for tell in starved:
                tell()


class Lease(msgspec.Struct, frozen=True):
    """How long a consumer may be silent (s), and how often a job may lose its worker."""

    seconds: float
    crash_limit: int


class PartitionWorker:
    """Works one partition until told to stop."""

    def __init__(
        self,
        redis: Redis,
        keys: PartitionKeys,
        attempts: Attempts,
        slots: Slots,
        lease: Lease,
        identity: Identity,
    ) -> None:
        self.keys: Final = keys
        self._dispatch: Final = Dispatch(redis, keys)
        # The loop and the blocking read each make one call at a time.
        self._line: Final = Dispatch(Line(redis), keys)
        self._ear: Final = Line(redis)
        self._attempts: Final = attempts
        self._slots: Final = slots
        # Half of the slots at a time: while some run, the script brings others.
        self._most: Final = min(MAX_CYCLE, (slots.total + 1) // 2)
        self._lease: Final = lease
        self._identity: Final = identity
        self._entered = 0
        self._wake: Final = asyncio.Event()
        self._idle: Final = asyncio.Event()
        self._outbox: Final = Outbox(self._wake.set)
        self._arrivals: list[Arrival] = []
        self._taken: list[Delivery] = []
        self._running: Final[dict[Delivery, asyncio.Task[None]]] = {}
        # Held while the server may have given us what we have not noted yet.
        self._talking: Final = asyncio.Lock()
        self._entering: Final = asyncio.Lock()
        self._event_loop: Final = asyncio.get_running_loop()
        self._loop_thread: Final = threading.get_ident()
        self._consumer = ""
        self._stopping = False
        # What the last cycle said of the queue: paused or limited; and for how long it gives nothing
        # for that, 0 if it does.
        self._governed = True
        self._held_s = 0.0

    @property
    def running(self) -> int:
        """How many attempts run."""
        return len(self._running)

    async def run(self) -> None:
        """Work until `stop`, then until nothing runs any more; then leave the partition."""
        await self._persist(partial(self._enter, ""))
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(self._beat()), group.create_task(self._listen())]
            await self._loop()
            for task in helpers:
                task.cancel()
        await self.leave()

    async def leave(self) -> None:
        """Give back whatever is still held and stop being a consumer."""
        await self._persist(partial(self._dispatch.release, self._consumer, "its worker left", leave=True))

    def stop(self) -> None:
        """Take no more; `run` returns when what runs has ended and is reported."""
        self._stopping = True
        self._wake.set()

    def cut_short(self) -> None:
        """Cancel what still runs: it is given back, due now, no attempt spent."""
        loop = asyncio.get_running_loop()
        for task in self._running.values():
            # In the next turn: a task cancelled before its first step would never report.
            loop.call_soon(task.cancel)

    # The loop

    async def _loop(self) -> None:
        hungry = True
        while not (self._stopping and not self._taken and not self._running and not self._outbox.unreported):
            self._wake.clear()
            due = bool(self._outbox or self._arrivals)
            want = 0
            if not self._stopping and (hungry or due):
                want = self._slots.take(self._most, self._wake.set)
            if want or due:
                # What the last cycle brought begins once this one is on its way: both cores have work.
                self._event_loop.call_soon(self._start_taken)
                async with self._talking:
                    cycle = await self._cycle(want)
                    self._start_taken()
                    self._taken = cycle.deliveries
                self._slots.give(want - len(cycle.deliveries))
                self._governed, self._held_s = cycle.governed, cycle.again_ms / 1000
                hungry = len(cycle.deliveries) >= want > 0
            elif self._taken:
                self._start_taken()
            else:
                await self._rest()
                hungry = True

    async def _rest(self) -> None:
        """Wait until an attempt ends, a job arrives, or it is time to look at `due` again."""
        if not self._stopping and not self._held_s and self._slots.free > 0:
            self._idle.set()
        pause = min(DUE_TICK_S, self._held_s or DUE_TICK_S)
        timer = asyncio.get_running_loop().call_later(pause, self._wake.set)
        await self._wake.wait()
        timer.cancel()

    async def _cycle(self, want: int) -> Cycle:
        """One cycle; after a lost connection the same report once more, and nothing is taken."""
        finished = self._outbox.take_finished()
        notes = self._outbox.take_notes(finished)
        arrivals, self._arrivals = self._arrivals, []
        waiting = [it for it in arrivals if not it.job]
        if waiting and (self._stopping or want < len(waiting)):
            # Came while the last slot was given away: for a worker that has one.
            finished += [Finished("released", it.lane, it.entry, 1, b"", b"") for it in waiting]
            arrivals = [it for it in arrivals if it.job]
        consumer = self._consumer
        try:
            cycle = await self._line.cycle(consumer, want, notes=notes, finished=finished, arrivals=arrivals)
        except (RedisError, OSError) as error:
            if not passing(error):
                raise
            _log.warning("%s: lost Redis (%s); trying again", self.keys.name, error)
            cycle = await self._persist(partial(self._line.cycle, consumer, 0, finished=finished))
            await self._persist(self._give_back_unknown)
            _log.warning("%s: Redis is back", self.keys.name)
        if not cycle.alive:
            _log.warning("%s: lease of %s lost; entering anew", self.keys.name, consumer)
            await self._persist(partial(self._enter, consumer))
        return cycle

    def _start_taken(self) -> None:
        taken, self._taken = self._taken, []
        for delivery in taken:
            self._start(delivery)

    def _start(self, delivery: Delivery) -> None:
        self._running[delivery] = self._event_loop.create_task(self._attempt(delivery))

    async def _attempt(self, delivery: Delivery) -> None:
        finished = await self._attempts.execute(
            delivery, self.keys, self._consumer, partial(self._report, delivery)
        )
        del self._running[delivery]
        self._slots.give()
        self._outbox.finish(finished)

    def _report(self, delivery: Delivery, report: Report) -> None:
        """Called by handlers, from any thread."""
        if threading.get_ident() == self._loop_thread:
            self._hear(delivery, report)
        else:
            self._event_loop.call_soon_threadsafe(self._hear, delivery, report)

    def _hear(self, delivery: Delivery, report: Report) -> None:
        # A thread may outlive its attempt; what it says then counts no more.
        if delivery in self._running:
            self._outbox.say(delivery, report)

    # Listening and living

    async def _listen(self) -> None:
        """While the loop is idle, block on the lanes; each entry that comes goes to the loop.

        From a queue that is governed none is taken this way: what it gives now, and that jobs of a group
        come in order, is up to its script. There an entry only wakes the loop.
        """
        lanes = self.keys.lanes[:3]
        words = ("COUNT", 1, "BLOCK", int(BLOCK_S * 1000), "STREAMS", *lanes)
        while True:
            await self._idle.wait()
            consumer, looks = self._consumer, self._governed
            take = ("XREADGROUP", "GROUP", GROUP, consumer, *words, ">", ">", ">")
            look = ("XREAD", *words, "$", "$", "$")
            try:
                reply = await command(self._ear, *(look if looks else take))
            except (RedisError, OSError) as error:
                await self._mend(error)
                continue
            if consumer != self._consumer:
                # Dropped while the read was under way: what it brought is nobody's, so give it back.
                await self._persist(
                    partial(self._dispatch.release, consumer, "its worker's lease ran out", leave=True)
                )
                self._wake.set()
                continue
            if reply and looks:
                self._idle.clear()
                self._wake.set()
                continue
            for stream, entries in reply or ():
                number = lanes.index(stream.decode()) + 1
                for entry, fields in entries:
                    self._arrive(number, entry, fields)

    def _arrive(self, lane: int, entry: bytes, fields: list[bytes]) -> None:
        """Begin at once what came with its body to an idle worker; `started` goes with the next cycle.
        The rest, and all of a queue that is governed, waits for that cycle's answer."""
        plain = len(fields) == len(_WITH_BODY) and fields[::2] == _WITH_BODY[::2]
        now = plain and not self._governed and not self._stopping
        if now and self._slots.take(1, self._wake.set):
            job = fields[1] or entry
            self._arrivals.append(Arrival(lane, entry, job))
            self._start(Delivery(lane, entry, 1, job, fields[5]))
        else:
            self._arrivals.append(Arrival(lane, entry))
        self._idle.clear()
        self._wake.set()

    async def _mend(self, error: RedisError | OSError) -> None:
        """The blocking read failed: it may have been given an entry that nobody will ever see."""
        if not passing(error):
            # The lanes are gone (FLUSHALL, a restart without data): NOGROUP, UNBLOCKED.
            _log.warning("%s: %s; opening it again", self.keys.name, error)
            await self._persist(self._dispatch.open)
            await asyncio.sleep(DUE_TICK_S)
        async with self._talking:
            await self._persist(self._give_back_unknown)

    async def _beat(self) -> None:
        lease = self._lease
        lease_ms = round(lease.seconds * 1000)
        clock = asyncio.get_running_loop().time
        judge_from, say_at = 0.0, clock() + FACTS_S
        while True:
            await asyncio.sleep(min(BEAT_S, lease.seconds / 3))
            facts = b""
            if self._stopping or clock() >= say_at:
                facts, say_at = self._identity.facts(leaving=self._stopping), clock() + FACTS_S
            consumer = self._consumer
            try:
                beat = await self._dispatch.beat(consumer, lease_ms, facts=facts)
                self._cancel(beat.cancelled)
                if beat.leave:
                    self._identity.asked_to_leave.set()
                if not beat.alive:
                    await self._enter(consumer)
            except (RedisError, OSError) as error:
                if not passing(error):
                    raise
                # Others could not be heard either while the server was away: give them a lease.
                judge_from = clock() + lease.seconds
                continue
            if clock() >= judge_from:
                for consumer in beat.silent:
                    await self._reclaim(consumer, lease_ms)

    def _cancel(self, members: list[bytes]) -> None:
        """Cancel attempts whose jobs were; what they still report comes too late."""
        for delivery, task in self._running.items():
            if members and b"%d:%b" % (delivery.lane, delivery.entry) in members:
                self._event_loop.call_soon(task.cancel)

    async def _reclaim(self, consumer: str, lease_ms: int) -> None:
        parked, dead = await self._persist(
            partial(self._dispatch.reclaim, consumer, lease_ms, self._lease.crash_limit)
        )
        text = "%s: %s fell silent: %d jobs due again, %d given up"
        _log.warning(text, self.keys.name, consumer, parked, dead)
        self._wake.set()

    async def _enter(self, dropped: str) -> None:
        """Become a consumer under a new name: the worker's, and later with the number of the entry."""
        async with self._entering:
            if self._consumer != dropped:
                return  # the loop and the beat both found out, and the other one was faster
            await self._dispatch.open()
            self._entered += 1
            name = self._identity.name if self._entered == 1 else f"{self._identity.name}~{self._entered}"
            facts = self._identity.facts(leaving=self._stopping)
            await self._dispatch.beat(name, round(self._lease.seconds * 1000), enter=True, facts=facts)
            self._consumer = name

    async def _give_back_unknown(self) -> None:
        held: list[Delivery | Finished | Arrival] = [
            *self._taken,
            *self._running,
            *self._outbox.unreported,
            *self._arrivals,
        ]
        running = [b"%d:%b" % (it.lane, it.entry) for it in held]
        given = await self._dispatch.release(
            self._consumer, "its delivery was lost on the way", running=running
        )
        if given:
            _log.warning("%s: gave back %d jobs whose delivery was lost", self.keys.name, given)
            self._wake.set()

    async def _persist(self, call: Callable[[], Any]) -> Any:
        """Call until the server answers: with growing pauses up to two seconds, for ever."""
        pause = 0.05
        while True:
            try:
                return await call()
            except (RedisError, OSError) as error:
                if not passing(error):
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
