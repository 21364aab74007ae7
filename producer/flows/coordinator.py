"""The coordinator: carries out flows, as their ledger says.

    catch up ──► decide ──► submit what was called ──► watch what was submitted
       ▲            │                 │                          │
       └────────────┴─── facts ◄──────┴───────── ends ◄──────────┘

It keeps no state but a fold of the ledger (board.py), and changes nothing but by facts, each written
under the flow's version (`version_token`): whoever writes has seen all that was written of this flow
before. So any number of coordinators may run, and each may end between any two steps:

- a node is called once, and never after the flow's cancellation was written;
- a called node is submitted under the idempotency key `flow:<position>:<node>`: again after a crash, or
  by another coordinator, it is answered by the first job;
- an end is written once, whoever saw it, and what follows from it is decided from the ledger alone.

A lost connection is the same case: forget everything, begin again. A queue that takes no jobs now (its
backlog is full) is asked again a second later, and holds up nobody else.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.append import MAX_FACTS, Appender, Fact
from penstock.core.connection import check_server, command, connect, passing
from penstock.core.control import Control, standing
from penstock.core.dispatch import Submission
from penstock.core.errors import Misconfigured, Unavailable
from penstock.core.events import Cancelled, Completed, Event, Failed, decode, encode
from penstock.core.keys import Keys
from penstock.core.log import Log
from penstock.core.positions import parse_job_id
from penstock.core.sealing import is_sealed
from penstock.core.settings import Settings
from penstock.core.story import tell
from penstock.core.waiting import pause
from penstock.producer.flows.board import Board
from penstock.producer.flows.client import version_token
from penstock.producer.flows.course import ENDED, Course, due
from penstock.producer.flows.ends import Ends
from penstock.producer.flows.facts import LEDGER, TAG_OF, FlowFact, NodeEnded, NodeSubmitted
from penstock.producer.flows.handing import HandOver, Unfit
from penstock.producer.outlet import Outlet

MAX_WHY_CHARS: Final = 500
MAX_APPEND_BYTES: Final = 4 * 1024 * 1024
AT_ONCE: Final = 32  # calls under way, of each kind
# How long it is remembered that a node was submitted: longer than all coordinators are ever away.
ONCE_S: Final = 7 * 24 * 3600.0
# How long a version's first writer is remembered: longer than a coordinator ever stalls. What one would
# write still later fits nowhere, and is only counted.
TOKEN_MS: Final = 3600 * 1000
AGAIN_S: Final = 1.0
RETRY_S: Final = 0.5
RESTART_S: Final = 30.0
CUT_S: Final = 60.0

_log: Final = logging.getLogger("penstock.flows")

Facts = dict[str, list[FlowFact]]


class Coordinator:
    """Carries out the flows of one namespace, until it fails or is told to stop."""

    def __init__(self, redis: Redis, listening: Redis, settings: Settings) -> None:
        """`listening` is for blocking reads: one for each partition in which a flow's job is alive."""
        self._redis: Final = redis
        self._replicas: Final = settings.replicas
        self._keys: Final = Keys(settings.namespace)
        self._ledger: Final = self._keys.ledger(LEDGER)
        self._log: Final = Log(redis, self._ledger)
        self._board: Final = Board(redis, self._ledger, keep_s=settings.flow_retention)
        self._appender: Final = Appender(redis, self._ledger, life_ms=TOKEN_MS)
        self._ends: Final = Ends(redis, listening, self._keys, self._hear)
        self._outlets: Final[dict[str, Outlet]] = {}
        self._wake: Final = asyncio.Event()
        self._stop = asyncio.Event()
        self._busy: set[str] = set()  # flows in which something may be to do
        self._watched: Final[dict[str, tuple[str, str]]] = {}  # job id → its flow and node
        self._heard: Final[dict[str, dict[str, NodeEnded]]] = {}  # flow → ends to be written
        self._cancelling: Final[set[str]] = set()
        self._refusing: Final[dict[str, float]] = {}  # queue → when to ask it again
        self._cut_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Carry out flows until `stop`. Raises what Redis raises: make another coordinator then."""
        self._stop = stop
        while not stop.is_set():
            self._wake.clear()
            await self.settle()
            await self._rest()

    async def settle(self) -> None:
        """Do all that can be done now; no more once it was told to stop."""
        while not self._stop.is_set():
            self._busy |= await self._board.catch_up()
            await self._cut()
            for gone in self._heard.keys() - self._board.flows.keys():
                del self._heard[gone]
            courses = [course for it in self._busy if (course := self._board.flows.get(it))]
            if await self._write(courses, {it.position: self._due(it) for it in courses}):
                continue
            if await self._submit(courses):
                continue
            await self._cancel([course for course in courses if course.cancelled])
            await self._watch(courses)
            if not self._heard:
                self._busy = set()
                return

    async def close(self) -> None:
        """Stop listening."""
        await self._board.close()
        await self._ends.close()

    # The steps of `settle`

    def _due(self, course: Course) -> list[FlowFact]:
        """What is to be written of a flow, with the ends that were heard of."""
        heard = self._heard.pop(course.position, {})
        heard = {node: end for node, end in heard.items() if course.steps[node].state not in ENDED}
        if heard:
            self._heard[course.position] = heard
        return [*due(course, list(heard.values()))]

    async def _write(self, courses: Sequence[Course], facts: Facts) -> bool:
        """Write facts under their flows' versions; whether there were any. Those that there is no room
        for, or that came too late, are found due again."""
        told = [(course, facts[course.position]) for course in courses if facts.get(course.position)]
        await _all(self._append, told)
        return bool(told)

    async def _append(self, course: Course, facts: list[FlowFact]) -> None:
        batch: list[Fact] = []
        size = 0
        for fact in facts[:MAX_FACTS]:
            body = encode(fact)
            size += len(body)
            if batch and size > MAX_APPEND_BYTES:
                break
            batch.append(Fact(TAG_OF[type(fact)], body, course.position))
        await self._appender.append(batch, token=version_token(course))

    async def _submit(self, courses: Sequence[Course]) -> bool:
        """Submit what was called, and note the ids; whether there was anything to note."""
        notes: Facts = defaultdict(list)
        ready: defaultdict[str, list[tuple[Course, str, Submission]]] = defaultdict(list)
        now = asyncio.get_running_loop().time()
        for course in courses:
            hand_over = HandOver(self._log, course)
            for name in course.within("called"):
                queue = course.steps[name].queue
                if self._refusing.get(queue, 0) > now:
                    continue
                try:
                    ready[queue].append((course, name, await hand_over.submission(name)))
                except Unfit as error:
                    notes[course.position].append(NodeEnded(name, "failed", why=str(error)))
        await _all(self._submit_to, [(queue, rows, notes) for queue, rows in ready.items()])
        return await self._write(courses, notes)

    async def _submit_to(
        self, queue: str, rows: Sequence[tuple[Course, str, Submission]], notes: Facts
    ) -> None:
        keys = self._keys.partition(queue)
        outlet = self._outlets.get(queue)
        if outlet is None:
            outlet = Outlet(self._redis, keys, once_s=ONCE_S, replicas=self._replicas)
            self._outlets[queue] = outlet
        try:
            accepted = await outlet.submit([submission for _, _, submission in rows])
        except (Unavailable, RedisError) as error:
            if queue not in self._refusing:
                _log.warning("%s takes no jobs of flows: %s; asking again every %g s", queue, error, AGAIN_S)
            self._refusing[queue] = asyncio.get_running_loop().time() + AGAIN_S
            return
        if self._refusing.pop(queue, None):
            _log.warning("%s takes jobs again", queue)
        for (course, name, _), answer in zip(rows, accepted, strict=True):
            notes[course.position].append(NodeSubmitted(name, keys.job_id(answer.position)))

    async def _cancel(self, courses: Sequence[Course]) -> None:
        """Cancel what still runs of cancelled flows. The ends are heard of as all others are."""
        asked = [
            (job, course.cancelled_by)
            for course in courses
            for name in course.within("submitted")
            if (job := course.steps[name].job) not in self._cancelling
        ]
        await _all(self._cancel_one, asked)

    async def _cancel_one(self, job_id: str, by: str) -> None:
        queue, number, position = parse_job_id(job_id)
        keys = self._keys.partition(queue, number)
        found = standing(await tell(self._redis, keys, position))
        if found is not None:
            await Control(self._redis, keys).cancel([found], by=by, reason="its flow was cancelled")
        self._cancelling.add(job_id)

    async def _watch(self, courses: Sequence[Course]) -> None:
        """Watch the jobs that were submitted; the ends that are there already are heard of at once."""
        fresh = {
            course.steps[name].job: (course.position, name)
            for course in courses
            for name in course.within("submitted")
            if course.steps[name].job not in self._watched
        }
        self._watched.update(fresh)
        await self._ends.watch(list(fresh))

    def _hear(self, job_id: str, end: Event | None) -> None:
        """A watched job has ended."""
        flow, node = self._watched.pop(job_id)
        self._cancelling.discard(job_id)
        self._heard.setdefault(flow, {})[node] = _ended(node, end)
        self._busy.add(flow)
        self._wake.set()

    # Between

    async def _rest(self) -> None:
        """Wait until there may be something to do."""
        news = asyncio.ensure_future(self._board.news())
        woken = [asyncio.ensure_future(event.wait()) for event in (self._wake, self._stop)]
        waiting: list[asyncio.Future[Any]] = [news, *woken, *self._ends.readers]
        limit = AGAIN_S if self._refusing else None
        try:
            done, _ = await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (news, *woken):
                task.cancel()
            await asyncio.gather(news, *woken, return_exceptions=True)
        if self._refusing:
            held_up = {it for it, course in self._board.flows.items() if course.within("called")}
            self._busy |= held_up
            if not held_up:
                self._refusing.clear()

    async def _cut(self) -> None:
        """Drop what lies before the oldest flow that is remembered, and say how much that was."""
        now = asyncio.get_running_loop().time()
        if now < self._cut_at:
            return
        self._cut_at = now + CUT_S
        oldest = self._board.oldest
        count = await command(self._redis, "XTRIM", self._ledger.log, "MINID", "=", oldest)
        if count:
            _log.info("dropped %d facts before %s: of flows that ended long ago", count, oldest)


async def run_flows(settings: Settings, stop: asyncio.Event) -> None:
    """Carry out flows until `stop`, whatever happens. Raises Misconfigured for a server that could lose
    work."""
    lost = False
    async with connect(settings) as redis, connect(settings, max_connections=2**16) as listening:
        while not stop.is_set():
            coordinator = Coordinator(redis, listening, settings)
            try:
                await check_server(redis)
                _log.info("Redis is back" if lost else "ready")
                lost = False
                await coordinator.run(stop)
            except Misconfigured:
                raise
            except Exception as error:  # whatever it is, it begins again from the ledger
                if isinstance(error, Unavailable) or (
                    isinstance(error, RedisError | OSError) and passing(error)
                ):
                    if not lost:
                        _log.warning("lost Redis (%s); trying again", error)
                    lost = True
                    await pause(stop, RETRY_S)
                else:
                    _log.error("stopped; beginning again in %d s", RESTART_S, exc_info=error)
                    await pause(stop, RESTART_S)
            finally:
                await coordinator.close()


def _ended(node: str, end: Event | None) -> NodeEnded:
    """A job's terminal event as the end of its node."""
    match decode(end) if end is not None else None:
        case Completed() as body:
            return NodeEnded(node, "completed", body.result)
        case Failed() as body:
            told = body.message and not is_sealed(body.message)
            why = f"{body.error}: {body.message}" if told else body.error
            return NodeEnded(node, "failed", why=why[:MAX_WHY_CHARS])
        case Cancelled() as body:
            return NodeEnded(node, "cancelled", why=body.reason[:MAX_WHY_CHARS])
    return NodeEnded(node, "failed", why="lost: the log does not hold its job any more")


async def _all(do: Callable[..., Awaitable[None]], rows: Iterable[tuple[Any, ...]]) -> None:
    """Do it with each row, some of them at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(row: tuple[Any, ...]) -> None:
        async with gate:
            await do(*row)

    await asyncio.gather(*map(one, rows))
