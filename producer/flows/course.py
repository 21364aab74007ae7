"""The course of a flow: the one fold of its facts, and what follows from it.

    waiting ──node_called──► called ──node_submitted──► submitted ──node_ended──► completed
       │                        │                                                 failed
       └───────node_ended───────┴── (skipped, cancelled; failed: not to be submitted)  cancelled, skipped

A node is decided about when all that it waits for has ended: it is called; or cancelled, if its flow
was; or skipped, if one of these did not complete and it does not say `on_failure="run"`. A called node is
submitted whatever happens: so of one that a cancellation finds called, it is known that there is a job, or
will be, which must be cancelled too.

Everything here is pure. `fold_flow` is the only code that computes a state.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from penstock.core.errors import NotFound
from penstock.core.events import Event
from penstock.core.positions import milliseconds
from penstock.producer.flows.facts import (
    FlowCancelled,
    FlowFact,
    FlowSubmitted,
    NodeCalled,
    NodeEnd,
    NodeEnded,
    NodeSubmitted,
    OnFailure,
)

NodeState = Literal["waiting", "called", "submitted"] | NodeEnd
FlowState = Literal["active", "completed", "failed", "cancelled"]

NODE_STATES: Final[tuple[NodeState, ...]] = (
    *("waiting", "called", "submitted"),
    *("completed", "failed", "cancelled", "skipped"),
)
ENDED: Final[frozenset[NodeState]] = frozenset({"completed", "failed", "cancelled", "skipped"})

# Which states a fact of each kind may find its node in.
_FITS: Final[Mapping[type[FlowFact], frozenset[NodeState]]] = {
    NodeCalled: frozenset({"waiting"}),
    NodeSubmitted: frozenset({"called"}),
    NodeEnded: frozenset({"waiting", "called", "submitted"}),
}
_FLOW_ID: Final = re.compile(r"flow\.((?:0|[1-9][0-9]{0,14})-(?:0|[1-9][0-9]{0,9}))")


class Step(msgspec.Struct, frozen=True):
    """A node as its facts tell it. `job` is its job's id, `end` the position of its end."""

    type: str
    queue: str
    after: tuple[str, ...]
    on_failure: OnFailure
    state: NodeState = "waiting"
    job: str = ""
    end: str = ""
    why: str = ""


class Course(msgspec.Struct, frozen=True):
    """A flow as its facts tell it. `version` counts them; `left` and `lost` count the nodes that have
    not ended, and those that ended without completing. `changed` is the newest fact's position."""

    position: str
    name: str
    by: str
    steps: Mapping[str, Step]
    left: int
    changed: str
    lost: int = 0
    version: int = 1
    cancelled: bool = False
    cancelled_by: str = ""
    misfits: int = 0

    @property
    def id(self) -> str:
        return f"flow.{self.position}"

    @property
    def state(self) -> FlowState:
        """Completed if every node completed, cancelled if one that did not was cancelled with the
        flow, else failed; active until all have ended."""
        if self.left:
            return "active"
        if not self.lost:
            return "completed"
        return "cancelled" if self.cancelled else "failed"

    @property
    def ended_ms(self) -> int:
        """When the last node ended, Unix time in ms; 0 while one has not."""
        return 0 if self.left else milliseconds(self.changed)

    def within(self, *states: NodeState) -> list[str]:
        """The names of the nodes in these states."""
        return [name for name, step in self.steps.items() if step.state in states]


def position_of(flow_id: str) -> str:
    """The position in a flow's id. Raises NotFound for what is none."""
    match = _FLOW_ID.fullmatch(flow_id)
    if match is None:
        raise NotFound(f"{flow_id!r} is not a flow's id (like flow.1795477369681-0)")
    return match[1]


def fold_flow(course: Course | None, event: Event, fact: FlowFact | None) -> Course | None:
    """The flow after `event`, whose body is `fact`. Pure.

    A fact that does not fit changes nothing but the counts. None stays None for a fact about a flow
    whose beginning was trimmed away.
    """
    if course is None:
        return _begin(event, fact) if isinstance(fact, FlowSubmitted) else None
    course = msgspec.structs.replace(course, version=course.version + 1)
    if isinstance(fact, FlowCancelled) and course.left and not course.cancelled:
        return msgspec.structs.replace(course, cancelled=True, cancelled_by=fact.by, changed=event.position)
    if isinstance(fact, NodeCalled | NodeSubmitted | NodeEnded):
        step = course.steps.get(fact.node)
        if step is not None and step.state in _FITS[type(fact)]:
            return _advance(course, event, fact, step)
    return msgspec.structs.replace(course, misfits=course.misfits + 1)


def _begin(event: Event, fact: FlowSubmitted) -> Course:
    steps = {node.name: Step(node.job.type, node.queue, node.after, node.on_failure) for node in fact.nodes}
    return Course(event.position, fact.name, fact.by, steps, len(steps), event.position)


def _advance(
    course: Course, event: Event, fact: NodeCalled | NodeSubmitted | NodeEnded, step: Step
) -> Course:
    left, lost = course.left, course.lost
    match fact:
        case NodeCalled():
            after = msgspec.structs.replace(step, state="called")
        case NodeSubmitted():
            after = msgspec.structs.replace(step, state="submitted", job=fact.id)
        case NodeEnded():
            after = msgspec.structs.replace(step, state=fact.state, end=event.position, why=fact.why)
            left, lost = left - 1, lost + (fact.state != "completed")
    steps = {**course.steps, fact.node: after}
    return msgspec.structs.replace(course, steps=steps, left=left, lost=lost, changed=event.position)


def due(course: Course, ends: Sequence[NodeEnded]) -> list[NodeCalled | NodeEnded]:
    """What is to be written of a flow: the ends that were heard of, and what is decided with them. Pure."""
    for end in ends:
        course = fold_flow(course, Event(course.changed, "node_ended", course.position, b""), end) or course
    return [*ends, *decisions(course)]


def decisions(course: Course) -> Iterator[NodeCalled | NodeEnded]:
    """What is to be written about the nodes that wait: called, skipped or cancelled. Pure.

    Nodes stand behind those they wait for, so whatever follows from a decision is decided with it.
    """
    states: dict[str, NodeState] = {name: step.state for name, step in course.steps.items()}
    for name, step in course.steps.items():
        if step.state != "waiting" or not all(states.get(other) in ENDED for other in step.after):
            continue
        lost = [other for other in step.after if states[other] != "completed"]
        if course.cancelled:
            states[name] = "cancelled"
            yield NodeEnded(name, "cancelled", why="its flow was cancelled")
        elif lost and step.on_failure == "skip":
            states[name] = "skipped"
            yield NodeEnded(name, "skipped", why=f"{lost[0]} {states[lost[0]]}")
        else:
            states[name] = "called"
            yield NodeCalled(name)
