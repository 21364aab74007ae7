"""Flows as their users meet them: submit one, look at it, wait for its end, cancel it.

    async with Producer() as producer, Flows(producer) as flows:
        handle = await flows.submit(chain(Fetch(url=url), Resize(width=640), Publish()))
        results = await handle.result(timeout=60)        # {"publish": …}

A process `penstock flows` (coordinator.py) carries them out.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Self

import msgspec
from redis.exceptions import OutOfMemoryError, RedisError

from penstock.core.append import Appender, Fact
from penstock.core.connection import passing
from penstock.core.errors import JobFailed, NotFound, Unavailable
from penstock.core.events import encode
from penstock.core.log import Log
from penstock.core.positions import milliseconds, order
from penstock.core.sealing import opened
from penstock.core.tracing import carried, tracer
from penstock.producer.client import Producer
from penstock.producer.flows.board import Board
from penstock.producer.flows.course import NODE_STATES, Course, FlowState, NodeState, position_of
from penstock.producer.flows.facts import LEDGER, FlowCancelled, NodeEnded, OnFailure, read_fact
from penstock.producer.flows.graph import Flow
from penstock.producer.flows.intake import FlowRequest, prepare_flow
from penstock.producer.tracing import sending, tell_sent

PATIENCE_S: Final = 5.0
RETRY_S: Final = 0.2


class NodeDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node. `job` is the id of its job, once there is one; `why` it did not complete."""

    name: str
    type: str
    queue: str
    state: NodeState
    after: tuple[str, ...] = ()
    on_failure: OnFailure = "skip"
    job: str = ""
    why: str = ""


class FlowSummary(msgspec.Struct, frozen=True):
    """A flow, and how many of its nodes are in which state. Times in ISO 8601, UTC, by the clock of
    Redis; `progress` from 0 to 1."""

    id: str
    name: str
    state: FlowState
    by: str
    submitted_at: str
    ended_at: str | None
    progress: float
    counts: dict[str, int]


class FlowDetail(FlowSummary, frozen=True):
    """A flow with its nodes, each behind those it waits for. `cancelled`: it was asked to end early."""

    cancelled: bool
    nodes: list[NodeDetail]


class FlowPage(msgspec.Struct, frozen=True):
    """Some flows, newest first. `next`: `before` of the page after this one, if any."""

    flows: list[FlowSummary]
    next: str | None


class Flows:
    """Flows over the connections of a producer. Share it between tasks; close it, or use `async with`."""

    def __init__(self, producer: Producer) -> None:
        self._settings: Final = producer.settings
        self._seals: Final = producer.seals
        self._tracer: Final = tracer()
        self._closing = False
        keys = producer.keys.ledger(LEDGER)
        self._appender: Final = Appender(
            producer.redis, keys, life_ms=round(producer.settings.idempotency_ttl * 1000)
        )
        self._log: Final = Log(producer.redis, keys)
        self._board: Final = Board(producer.redis, keys, keep_s=producer.settings.flow_retention)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop waiting: who waits is answered with what there is. The producer stays open."""
        self._closing = True
        await self._board.close()

    async def submit(
        self, flow: Flow | FlowRequest, *, by: str = "", trace: str = "", key: str = ""
    ) -> "FlowHandle":
        """Submit a flow as a whole. `key` is an idempotency key, and answers with the first flow.

        Raises InvalidJob (every wrong field), TooLarge, or Unavailable.
        """
        if self._tracer is None:
            return await self._submit(flow, by, trace, key)
        with sending(self._tracer, ["flow"], trace) as span:
            handle = await self._submit(flow, by, carried(), key)
            tell_sent(span, [handle.id])
            return handle

    async def _submit(self, flow: Flow | FlowRequest, by: str, trace: str, key: str) -> "FlowHandle":
        request = flow.request(key=key) if isinstance(flow, Flow) else flow
        limit = self._settings.max_payload
        _, body = prepare_flow(request, max_payload=limit, by=by, trace=trace, seals=self._seals)
        token = f"key:{request.key}" if request.key else f"once:{secrets.token_hex(16)}"
        fact = Fact("flow_submitted", body)
        [position] = await _patiently(partial(self._appender.append, [fact], token=token))
        return FlowHandle(self, f"flow.{position}")

    def handle(self, flow_id: str) -> "FlowHandle":
        """A handle on a flow submitted elsewhere. Raises NotFound for a malformed id."""
        position_of(flow_id)
        return FlowHandle(self, flow_id)

    async def get(self, flow_id: str) -> FlowDetail:
        """A flow as it is now. Raises NotFound."""
        return _detail(await self._course(flow_id))

    async def list(self, *, state: FlowState | None = None, before: str = "", limit: int = 50) -> FlowPage:
        """Up to `limit` flows, newest first, of one state if given, from before a flow's id. Raises
        NotFound for a `before` that is no flow's id."""
        end = order(position_of(before)) if before else None
        await self._board.catch_up()
        found = []
        for position, course in reversed(self._board.flows.items()):
            if (end is None or order(position) < end) and state in (None, course.state):
                found.append(course)
                if len(found) > limit:
                    break
        shown = found[:limit]
        return FlowPage([_summary(course) for course in shown], shown[-1].id if len(found) > limit else None)

    async def cancel(self, flow_id: str, *, by: str = "", reason: str = "") -> bool:
        """Cancel what runs and submit no more. False if it had ended, or was cancelled before.

        Raises NotFound.
        """
        fact = Fact("flow_cancelled", encode(FlowCancelled(by, reason)), position_of(flow_id))
        asked = False
        while True:
            course = await self._course(flow_id)
            if course.cancelled or not course.left:
                return asked and course.cancelled
            # Somebody else's fact may have come first under this version of the flow: then look again.
            await _patiently(partial(self._appender.append, [fact], token=version_token(course)))
            asked = True

    async def wait(self, flow_id: str, seconds: float | None = None) -> FlowDetail:
        """A flow once it has ended, or as it is after `seconds`. Raises NotFound."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self._over(flow_id):
                    pass
        return await self.get(flow_id)

    async def results(self, flow_id: str) -> dict[str, Any]:
        """What the last nodes of a flow (those that no other waits for) returned, so far as they
        have completed. Raises NotFound, or Unsealable (keys are missing here)."""
        course = await self._course(flow_id)
        waited_for = {name for step in course.steps.values() for name in step.after}
        last = [step for name, step in course.steps.items() if name not in waited_for]
        ends = [step.end for step in last if step.state == "completed"]
        facts = [read_fact(event) for event in await self._log.read(ends)]
        plain = {
            fact.node: opened(fact.result, course.steps[fact.node].type, "result", self._seals)
            for fact in facts
            if isinstance(fact, NodeEnded)
        }
        return {name: msgspec.json.decode(result) for name, result in plain.items()}

    async def _over(self, flow_id: str) -> bool:
        """Whether it has ended; if not, this returns when the ledger has gone on. A lost connection is
        waited out."""
        try:
            if not (await self._course(flow_id)).left or self._closing:
                return True
            await self._board.news()
        except (RedisError, OSError) as error:
            if not passing(error):
                raise
            await asyncio.sleep(RETRY_S)
        return False

    async def _course(self, flow_id: str) -> Course:
        position = position_of(flow_id)
        await self._board.catch_up(since=position)
        course = self._board.flows.get(position)
        if course is None:
            raise NotFound(f"no flow {flow_id}")
        return course


class FlowHandle:
    """A submitted flow: its id, and ways to learn what becomes of it, read from the ledger."""

    def __init__(self, flows: Flows, flow_id: str) -> None:
        self._flows: Final = flows
        self.id: Final = flow_id

    def __repr__(self) -> str:
        return f"<FlowHandle {self.id}>"

    async def detail(self) -> FlowDetail:
        """The flow and its nodes, now. Raises NotFound where the ledger does not hold it."""
        return await self._flows.get(self.id)

    async def result(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the end; answers what the last nodes (those that no other waits for) returned.

        Raises JobFailed if any node did not complete, NotFound, or TimeoutError after `timeout` seconds.
        """
        flow = await self._flows.wait(self.id, timeout)
        if flow.state == "active":
            raise TimeoutError(f"{self.id} has not ended within {timeout} s")
        if flow.state != "completed":
            lost = next(node for node in flow.nodes if node.state != "completed")
            raise JobFailed(self.id, flow.state, f"{lost.name} {lost.state}", lost.why)
        return await self._flows.results(self.id)

    async def cancel(self, *, by: str = "", reason: str = "") -> bool:
        """See Flows.cancel."""
        return await self._flows.cancel(self.id, by=by, reason=reason)


def version_token(course: Course) -> str:
    """Under which token the next facts of a flow are written: the first to write under it has seen all
    that was written before, and nobody else writes under it."""
    return f"{course.position}:{course.version}"


def _summary(course: Course) -> FlowSummary:
    return FlowSummary(**_told(course))


def _detail(course: Course) -> FlowDetail:
    nodes = [
        NodeDetail(name, it.type, it.queue, it.state, it.after, it.on_failure, it.job, it.why)
        for name, it in course.steps.items()
    ]
    return FlowDetail(**_told(course), cancelled=course.cancelled, nodes=nodes)


def _told(course: Course) -> dict[str, Any]:
    counted = Counter(step.state for step in course.steps.values())
    return {
        "id": course.id,
        "name": course.name,
        "state": course.state,
        "by": course.by,
        "submitted_at": _iso(milliseconds(course.position)),
        "ended_at": _iso(course.ended_ms) if course.ended_ms else None,
        "progress": 1 - course.left / len(course.steps),
        "counts": {state: counted[state] for state in NODE_STATES if counted[state]},
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _patiently(append: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Append under a token, again and again until it is answered or patience ends."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    pause = 0.05
    while True:
        try:
            return await append()
        except OutOfMemoryError as error:
            words = "Redis has reached its maxmemory: no new flows until there is room"
            raise Unavailable(words, retry_after=10) from error
        except (RedisError, OSError) as error:
            if not passing(error):
                raise
            if loop.time() + pause > deadline:
                words = f"Redis does not answer ({error}); with an idempotency key a flow is safe to resend"
                raise Unavailable(words) from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)
