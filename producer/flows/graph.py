"""Building flows in Python.

    flow = Flow("report")
    pages = [flow.add(Fetch(url=url)) for url in urls]          # at once
    total = flow.add(Sum(), after=pages)                         # when all have completed
    flow.add(Tell(), after=[total], on_failure="run")            # whatever happened

    chain(Fetch(url=url), [Resize(width=320), Resize(width=640)], Publish())
    batch([Send(to=to) for to in people], then=Tell())

`add` answers the node's name. A handler finds the results of what it waited for in `context.needs`, by
these names. What the options are is said at `SubmitOptions`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Unpack

import msgspec

from penstock.core.contracts import declaration
from penstock.core.errors import InvalidJob
from penstock.core.validation import every_problem
from penstock.producer.client import SubmitOptions
from penstock.producer.flows.facts import OnFailure
from penstock.producer.flows.intake import FlowRequest

Stage = msgspec.Struct | Sequence[msgspec.Struct]


class Flow:
    """A graph of jobs to be."""

    def __init__(self, name: str = "") -> None:
        self.name: Final = name
        self._nodes: Final[list[dict[str, Any]]] = []
        self._names: Final[set[str]] = set()

    def add(
        self,
        payload: msgspec.Struct,
        /,
        *,
        name: str = "",
        after: Iterable[str] = (),
        on_failure: OnFailure = "skip",
        **options: Unpack[SubmitOptions],
    ) -> str:
        """Add a node that runs after others; answers its name (from the type's last word, if none is
        given). Raises Misconfigured for a payload that is no contract."""
        type = declaration(payload.__class__).type
        name = name or self._free(type.rsplit(".", maxsplit=1)[-1])
        self._names.add(name)
        self._nodes.append(
            {
                **msgspec.to_builtins(options),
                "name": name,
                "type": type,
                "payload": msgspec.Raw(msgspec.json.encode(payload)),
                "after": tuple(after),
                "on_failure": on_failure,
            }
        )
        return name

    def request(self, *, key: str = "") -> FlowRequest:
        """The flow as asked for. Raises InvalidJob naming every wrong option."""
        told = {"name": self.name, "key": key, "nodes": self._nodes}
        encoded = msgspec.json.encode(told)
        try:
            return msgspec.json.decode(encoded, type=FlowRequest)
        except msgspec.ValidationError:
            raise InvalidJob(every_problem(FlowRequest, encoded, root="")) from None

    def _free(self, word: str) -> str:
        """A name that no node has: `resize`, `resize-2`, …"""
        word = word[:48]
        if word not in self._names:
            return word
        number = 2
        while f"{word}-{number}" in self._names:
            number += 1
        return f"{word}-{number}"


def chain(*stages: Stage, name: str = "") -> Flow:
    """Each stage after the one before: a payload, or several that run at the same time."""
    flow = Flow(name)
    before: list[str] = []
    for stage in stages:
        payloads = [stage] if isinstance(stage, msgspec.Struct) else stage
        before = [flow.add(payload, after=before) for payload in payloads] or before
    return flow


def batch(payloads: Iterable[msgspec.Struct], *, then: msgspec.Struct, name: str = "") -> Flow:
    """All at once, and `then` when all have ended, however they did."""
    flow = Flow(name)
    flow.add(then, after=[flow.add(payload) for payload in payloads], on_failure="run")
    return flow
