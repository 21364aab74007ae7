"""From a request to a `flow_submitted` fact: check everything, then encode once.

FlowRequest ── prepare_flow ──► FlowSubmitted, every node behind those it waits for
                   └──────────► InvalidJob: every wrong field with its path; nothing was written
"""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Final

import msgspec

from penstock.core.contracts import declared
from penstock.core.errors import FieldProblem, InvalidJob, Refused, TooLarge
from penstock.core.events import Submitted
from penstock.core.sealing import Seals
from penstock.producer.flows.facts import FlowSubmitted, Node, OnFailure
from penstock.producer.intake import MAX_KEY_CHARS, NO_CONTROLS, JobRequest, prepare

MAX_NODES: Final = 1_000
MAX_NEEDED: Final = 10_000
MAX_FLOW_BYTES: Final = 1024 * 1024
NODE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"

_NAME_WORDS: Final = "1 to 64 of A-Z, a-z, 0-9, _, . and -, a letter or digit first"
NodeName = Annotated[str, msgspec.Meta(pattern=NODE_NAME, description=_NAME_WORDS)]

_decode_job: Final = msgspec.json.Decoder(Submitted).decode
_encode: Final = msgspec.json.Encoder().encode


class NodeRequest(JobRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node as asked for: a job, its name in the flow, the names of the nodes it waits for, and what
    becomes of it if one of these does not complete: `skip` it, or `run` it all the same.

    Its delay counts from when it is submitted. `key` and `unique` are not for nodes.
    """

    name: NodeName
    after: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_NODES)] = ()
    on_failure: OnFailure = "skip"


class FlowRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flow as asked for. `key` is the idempotency key: while it is remembered, submitting again
    answers with the first flow."""

    nodes: Annotated[tuple[NodeRequest, ...], msgspec.Meta(min_length=1, max_length=MAX_NODES)]
    name: Annotated[str, msgspec.Meta(max_length=100, pattern=NO_CONTROLS)] = ""
    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)] = ""


def prepare_flow(
    request: FlowRequest, *, max_payload: int, by: str = "", trace: str = "", seals: Seals | None = None
) -> tuple[FlowSubmitted, bytes]:
    """Check a request against the contracts; answers the fact and its bytes, payloads sealed with `seals`.

    Raises InvalidJob (every wrong field, or the nodes of a circle), or TooLarge over MAX_FLOW_BYTES.
    """
    problems = _graph_problems(request.nodes)
    nodes: dict[str, Node] = {}
    for number, asked in enumerate(request.nodes):
        try:
            nodes[asked.name] = _prepare(asked, max_payload=max_payload, by=by, trace=trace, seals=seals)
        except (Refused, UnicodeDecodeError) as refusal:
            problems += _under(f"nodes[{number}]", refusal)
    if problems:
        raise InvalidJob(problems)
    ordered = tuple(nodes[name] for name in _in_order(nodes))
    fact = FlowSubmitted(ordered, request.name, by, trace)
    encoded = _encode(fact)
    if len(encoded) > MAX_FLOW_BYTES:
        raise TooLarge("flow, in bytes", len(encoded), MAX_FLOW_BYTES)
    return fact, encoded


def _prepare(asked: NodeRequest, **more: Any) -> Node:
    queue = declared(asked.type).queue
    told: dict[str, Any] = {name: getattr(asked, name) for name in JobRequest.__struct_fields__}
    submission = prepare(queue, JobRequest(**told), **more)
    return Node(asked.name, queue, _decode_job(submission.body), asked.after, asked.on_failure)


def _graph_problems(nodes: Sequence[NodeRequest]) -> list[FieldProblem]:
    """What is wrong with the nodes as a graph, but for circles."""
    problems: list[FieldProblem] = []
    places: dict[str, int] = {}
    for number, node in enumerate(nodes):
        first = places.setdefault(node.name, number)
        if first != number:
            problems.append(FieldProblem(f"nodes[{number}].name", f"is that of nodes[{first}] too"))
        for field in ("key", "unique"):
            if getattr(node, field):
                words = "not for a node: it is submitted once, whatever happens"
                problems.append(FieldProblem(f"nodes[{number}].{field}", words))
    for number, node in enumerate(nodes):
        for at, other in enumerate(node.after):
            path = f"nodes[{number}].after[{at}]"
            if other not in places:
                problems.append(FieldProblem(path, f"no node {other[:64]!r} in this flow"))
            elif other in node.after[:at]:
                problems.append(FieldProblem(path, f"{other!r} is named twice"))
    needed = sum(len(node.after) for node in nodes)
    if needed > MAX_NEEDED:
        problems.append(
            FieldProblem("nodes", f"wait for one another {needed} times, over the limit of {MAX_NEEDED}")
        )
    return problems


def _in_order(nodes: Mapping[str, Node]) -> list[str]:
    """The names, each behind those it waits for. Raises InvalidJob naming the nodes of a circle."""
    sorter = TopologicalSorter({name: node.after for name, node in nodes.items()})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise InvalidJob([FieldProblem("nodes", f"wait for one another in a circle: {circle}")]) from None


def _under(path: str, refusal: Refused | UnicodeDecodeError) -> list[FieldProblem]:
    """A node's refusal as problems of the flow."""
    if isinstance(refusal, InvalidJob):
        return [FieldProblem(f"{path}.{problem.path}", problem.message) for problem in refusal.problems]
    field = "payload" if isinstance(refusal, TooLarge) else "type"
    return [FieldProblem(f"{path}.{field}", str(refusal))]
