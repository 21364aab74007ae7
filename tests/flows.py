"""Flows on a real server for tests: random graphs, a worker whose outcomes are drawn, coordinators that
die at any command, and what must be true of a flow that has ended."""

import random
from collections import Counter
from typing import Any, Final

from redis.asyncio import Redis

from histories import completed
from jobs_for_tests import Echo, Elsewhere
from penstock.core.dispatch import Dispatch, Finished
from penstock.core.events import Completed, Event, Failed, Submitted, decode, encode
from penstock.core.keys import Keys
from penstock.core.lifecycle import TERMINAL, fold_all
from penstock.core.log import Log
from penstock.core.positions import milliseconds, order
from penstock.producer.flows import Flow
from penstock.producer.flows.course import ENDED, Course, fold_flow
from penstock.producer.flows.facts import (
    LEDGER,
    FlowFact,
    NodeCalled,
    NodeEnded,
    NodeSubmitted,
    OnFailure,
    read_fact,
)

QUEUES: Final = ("test", "other")


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """Lets a client die at the nth command: before it is sent, or before its answer is read."""

    def __init__(self, redis: Redis, chance: random.Random, longest: int) -> None:
        self._send: Final = redis.execute_command
        self._left = chance.randint(1, longest)
        self._chance: Final = chance
        redis.execute_command = self._execute  # type: ignore[method-assign]

    async def _execute(self, *words: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Killed
        if self._left == 0 and self._chance.random() < 0.5:
            await self._send(*words, **options)  # type: ignore[no-untyped-call]
            raise Killed
        return await self._send(*words, **options)  # type: ignore[no-untyped-call]


def random_flow(chance: random.Random, size: int) -> Flow:
    """A graph on two queues."""
    flow = Flow("random")
    names: list[str] = []
    for number in range(chance.randint(1, size)):
        count = min(len(names), chance.choice((0, 1, 1, 2, 3)))
        payload = Echo(number) if chance.random() < 0.7 else Elsewhere(0)
        on_failure: OnFailure = "run" if chance.random() < 0.3 else "skip"
        names.append(flow.add(payload, after=chance.sample(names, count), on_failure=on_failure))
    return flow


class Crowd:
    """A worker on both queues: takes some jobs, and ends them as it is drawn."""

    def __init__(self, redis: Redis, keys: Keys, chance: random.Random, failing: float) -> None:
        self._dispatch: Final = {name: Dispatch(redis, keys.partition(name)) for name in QUEUES}
        self._chance: Final = chance
        self._failing: Final = failing

    async def work(self, most: int = 3) -> int:
        """End up to so many jobs of each queue; answers how many."""
        count = 0
        for dispatch in self._dispatch.values():
            await dispatch.beat("crowd", 60_000, enter=True)
            cycle = await dispatch.cycle("crowd", self._chance.randint(0, most))
            ends = [
                completed(one, result=f"result of {one.job.decode()}")
                if self._chance.random() >= self._failing
                else Finished("failed", one.lane, one.entry, one.attempt, one.job, _FAILED)
                for one in cycle.deliveries
            ]
            await dispatch.cycle("crowd", 0, finished=ends)
            count += len(ends)
        return count


_FAILED: Final = encode(Failed("permanent", "ValueError", "drawn"))


class Record:
    """All that the logs say of one flow."""

    def __init__(
        self, course: Course, facts: list[tuple[str, FlowFact]], jobs: dict[str, list[Event]]
    ) -> None:
        self.course: Final = course
        self.facts: Final = facts
        self.jobs: Final = jobs  # node → the events of its job
        self._places = {
            (type(fact), fact.node): number
            for number, (_, fact) in enumerate(facts)
            if isinstance(fact, NodeCalled | NodeSubmitted | NodeEnded)
        }

    def check(self) -> None:
        """Every node ended once; parents after children; each was handed over what it waited for."""
        course = self.course
        assert (course.left, course.misfits) == (0, 0)
        counted = Counter((type(fact), getattr(fact, "node", "")) for _, fact in self.facts)
        assert set(counted.values()) == {1}, counted
        for name, step in course.steps.items():
            assert step.state in ENDED
            for other in step.after:
                self._after(name, other)
            if step.job:
                self._ran(name)
            else:
                assert name not in self.jobs, f"{name} has a job that nobody noted"
                assert step.state in ("skipped", "cancelled")
                assert (NodeCalled, name) not in self._places

    def _after(self, name: str, other: str) -> None:
        ended = self._places[NodeEnded, other]
        assert all(ended < place for (_, node), place in self._places.items() if node == name)
        if name in self.jobs and other in self.jobs:
            end = [event for event in self.jobs[other] if event.tag in TERMINAL][-1]
            begin = self.jobs[name][0]
            # Two queues are two logs: their order is that of the server's clock.
            assert milliseconds(end.position) <= milliseconds(begin.position)

    def _ran(self, name: str) -> None:
        step, events = self.course.steps[name], self.jobs[name]
        job = fold_all(events)
        assert job is not None
        assert (job.state, job.misfits) == (step.state, 0)
        assert sum(event.tag in TERMINAL for event in events) == 1
        body = decode(events[0])
        assert isinstance(body, Submitted)
        assert body.origin == self.course.id
        results = {
            other: self._result(other)
            for other in step.after
            if self.course.steps[other].state == "completed"
        }
        unmet = set(step.after) - set(results)
        if not step.after:
            assert body.needs is None
        else:
            assert body.needs is not None
            assert {other: bytes(result) for other, result in body.needs.results.items()} == results
            assert body.needs.unmet.keys() == unmet
            assert body.needs.types == {other: self.course.steps[other].type for other in results}
        if unmet:
            assert step.on_failure == "run"

    def _result(self, name: str) -> bytes:
        """What its job returned, by the log of its queue."""
        [end] = [decode(event) for event in self.jobs[name] if event.tag == "completed"]
        assert isinstance(end, Completed)
        return bytes(end.result)


async def read_record(redis: Redis, keys: Keys, position: str) -> Record:
    """Read back what was written of a flow, in its ledger and in the logs of the queues. A key that
    has two jobs fails here."""
    course: Course | None = None
    facts: list[tuple[str, FlowFact]] = []
    for event in await _all(redis, keys, LEDGER):
        if event.job == position:
            fact = read_fact(event)
            assert fact is not None
            facts.append((event.position, fact))
            course = fold_flow(course, event, fact)
    assert course is not None
    jobs: dict[str, list[Event]] = {}
    for queue in QUEUES:
        events = await _all(redis, keys, queue)
        for event in events:
            body = decode(event) if event.tag == "submitted" else None
            if isinstance(body, Submitted) and body.key.startswith(f"flow:{position}:"):
                name = body.key.rsplit(":", maxsplit=1)[1]
                assert name not in jobs, f"{name} was submitted twice"
                jobs[name] = [it for it in events if it.job == event.position]
                assert course.steps[name].job in ("", keys.partition(queue).job_id(event.position))
    return Record(course, facts, jobs)


async def _all(redis: Redis, keys: Keys, name: str) -> list[Event]:
    """A whole log."""
    log = Log(redis, keys.ledger(name) if name == LEDGER else keys.partition(name))
    found: list[Event] = []
    while page := await log.page(found[-1].position if found else "0-0"):
        found += page
    assert found == sorted(found, key=lambda event: order(event.position))
    return found
