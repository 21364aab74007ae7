"""What is written about flows: the facts of their ledger.

    flow_submitted   the whole graph; its position is the flow's
    node_called      all that the node waits for has ended: it is going to be submitted
    node_submitted   the id of its job
    node_ended       how it ended, with its result; or that it never was submitted, and why
    flow_cancelled   no further node is called, and what runs is cancelled

The entries are those of every log (`penstock.core.events`): tag, flow (in the field `job`), body. The
rules of growth are the same too. A node's job is kept as the whole `submitted` event that it will be, so
whoever submits it need not know its contract.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.core.events import Body, Event, Submitted

LEDGER: Final = "flows"

OnFailure = Literal["skip", "run"]
NodeEnd = Literal["completed", "failed", "cancelled", "skipped"]


class Node(Body, frozen=True):
    """A node as submitted: its job, the names of the nodes it waits for, and what becomes of it if one
    of these does not complete."""

    name: str
    queue: str
    job: Submitted
    after: tuple[str, ...] = ()
    on_failure: OnFailure = "skip"


class FlowSubmitted(Body, frozen=True):
    """A flow was accepted. Every node stands behind those it waits for."""

    nodes: tuple[Node, ...]
    name: str = ""
    by: str = ""
    trace: str = ""


class FlowCancelled(Body, frozen=True):
    """The flow was cancelled."""

    by: str = ""
    reason: str = ""


class NodeCalled(Body, frozen=True):
    """The node is going to be submitted, come what may."""

    node: str


class NodeSubmitted(Body, frozen=True):
    """The node's job is in its lane; `id` is the job's."""

    node: str
    id: str


class NodeEnded(Body, frozen=True):
    """The node ended. `why` it did not complete, in words."""

    node: str
    state: NodeEnd
    result: msgspec.Raw = msgspec.Raw(b"null")
    why: str = ""


FlowFact: TypeAlias = FlowSubmitted | FlowCancelled | NodeCalled | NodeSubmitted | NodeEnded

TAGS: Final[Mapping[str, type[FlowFact]]] = {
    "flow_submitted": FlowSubmitted,
    "flow_cancelled": FlowCancelled,
    "node_called": NodeCalled,
    "node_submitted": NodeSubmitted,
    "node_ended": NodeEnded,
}
TAG_OF: Final = {shape: tag for tag, shape in TAGS.items()}

_decoders: Final[dict[str, Callable[[bytes], FlowFact]]] = {
    tag: msgspec.json.Decoder(shape).decode for tag, shape in TAGS.items()
}


def read_fact(event: Event) -> FlowFact | None:
    """The event's body; None for what this version cannot read (it fits no state)."""
    decoder = _decoders.get(event.tag)
    try:
        return decoder(event.body) if decoder else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
