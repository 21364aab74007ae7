"""Handing over: from a called node to the job that is submitted, with what it waited for.

The job stands in the flow's first fact, results stand in the facts of the nodes' ends: the ledger alone
says what is submitted, so whoever submits a node submits the same.
"""

from typing import Final

import msgspec

from penstock.core.control import extra_of
from penstock.core.dispatch import Submission
from penstock.core.events import Needs, Submitted, encode
from penstock.core.log import Log
from penstock.producer.flows.course import Course
from penstock.producer.flows.facts import FlowSubmitted, Node, NodeEnded, read_fact

MAX_NEEDS_BYTES: Final = 1024 * 1024
MAX_HELD_BYTES: Final = 8 * 1024 * 1024
PAGE: Final = 20


class Unfit(Exception):
    """The node cannot be submitted; says why."""


class HandOver:
    """Makes the submissions of one flow's nodes."""

    def __init__(self, log: Log, course: Course) -> None:
        self._log: Final = log
        self._course: Final = course
        self._nodes: dict[str, Node] = {}
        self._held: dict[str, NodeEnded] = {}
        self._held_bytes = 0

    async def submission(self, name: str) -> Submission:
        """The submission of a called node. Raises Unfit."""
        if not self._nodes:
            found = await self._log.read([self._course.position])
            fact = read_fact(found[0]) if found else None
            if not isinstance(fact, FlowSubmitted):
                raise Unfit("the flow's beginning is not in its ledger any more")
            self._nodes = {node.name: node for node in fact.nodes}
        key = f"flow:{self._course.position}:{name}"
        node = self._nodes[name]
        needs = await self._needs(node) if node.after else None
        spec = msgspec.structs.replace(node.job, key=key, origin=self._course.id, needs=needs)
        return Submission(spec.priority, encode(spec), _when(spec), key, extra_of(spec))

    async def _needs(self, node: Node) -> Needs:
        steps = {other: self._course.steps[other] for other in node.after}
        completed = {other: step.end for other, step in steps.items() if step.state == "completed"}
        results: dict[str, msgspec.Raw] = {}
        size = 0
        for other, end in completed.items():
            results[other] = (await self._end(end, list(completed.values()))).result
            size += len(memoryview(results[other]))
            if size > MAX_NEEDS_BYTES:
                words = f"the results it needs have over {MAX_NEEDS_BYTES} bytes: make large ones artifacts"
                raise Unfit(words)
        unmet = {
            other: f"{step.state}: {step.why}" if step.why else step.state
            for other, step in steps.items()
            if step.state != "completed"
        }
        return Needs(results, {other: steps[other].type for other in results}, unmet)

    async def _end(self, position: str, others: list[str]) -> NodeEnded:
        """The end at a position; some of the others are read along, for they will be asked for next."""
        if position not in self._held:
            if self._held_bytes > MAX_HELD_BYTES:
                self._held, self._held_bytes = {}, 0
            at = others.index(position)
            for event in await self._log.read(others[at : at + PAGE]):
                fact = read_fact(event)
                if isinstance(fact, NodeEnded):
                    self._held[event.position] = fact
                    self._held_bytes += len(event.body)
        if position not in self._held:
            raise Unfit("the result it needs is not in the ledger any more")
        return self._held[position]


def _when(spec: Submitted) -> str:
    """Its time, as submit.lua takes it."""
    return str(spec.run_at) if spec.run_at else f"+{round(spec.delay * 1000)}" if spec.delay else ""
