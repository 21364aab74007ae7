"""A flow is checked as a whole: every wrong field is named, and nodes come behind those they wait for."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs_for_tests import Echo, Nap
from penstock.core.errors import InvalidJob, Misconfigured, TooLarge
from penstock.producer.flows.facts import FlowSubmitted
from penstock.producer.flows.graph import Flow, batch, chain
from penstock.producer.flows.intake import FlowRequest, prepare_flow

BIG = 256 * 1024


def prepared(flow: Flow) -> FlowSubmitted:
    fact, encoded = prepare_flow(flow.request(), max_payload=BIG, by="ada", trace="t")
    assert msgspec.json.decode(encoded, type=FlowSubmitted) == fact
    return fact


def asked(*nodes: dict[str, Any]) -> FlowRequest:
    told = [{"type": "test.echo", "payload": {}, **node} for node in nodes]
    return msgspec.json.decode(msgspec.json.encode({"nodes": told}), type=FlowRequest)


def problems(request: FlowRequest) -> dict[str, str]:
    with pytest.raises(InvalidJob) as caught:
        prepare_flow(request, max_payload=BIG)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_a_node_is_the_whole_job_it_will_be() -> None:
    flow = Flow("report")
    first = flow.add(Nap(seconds=1), attempts=7, group="ada", ttl=60)
    flow.add(Echo("x"), after=[first], on_failure="run", priority="high", delay=5, name="last")
    fact = prepared(flow)
    assert (fact.name, fact.by, fact.trace) == ("report", "ada", "t")
    nap, last = fact.nodes
    assert (nap.name, nap.queue, nap.after, nap.on_failure) == ("nap", "test", (), "skip")
    assert (nap.job.type, nap.job.attempts, nap.job.group, nap.job.ttl) == ("test.nap", 7, "ada", 60)
    assert bytes(nap.job.payload) == b'{"seconds":1.0}' or bytes(nap.job.payload) == b'{"seconds":1}'
    assert (last.name, last.after, last.on_failure) == ("last", ("nap",), "run")
    assert (last.job.priority, last.job.delay, last.job.by) == ("high", 5, "ada")


def test_names_are_made_where_none_is_given() -> None:
    flow = Flow()
    assert [flow.add(Echo()) for _ in range(3)] == ["echo", "echo-2", "echo-3"]
    assert flow.add(Nap(seconds=1)) == "nap"


def test_chain_and_batch() -> None:
    diamond = prepared(chain(Echo(1), [Echo(2), Echo(3)], Echo(4)))
    assert {node.name: node.after for node in diamond.nodes} == {
        "echo": (),
        "echo-2": ("echo",),
        "echo-3": ("echo",),
        "echo-4": ("echo-2", "echo-3"),
    }
    all_then = prepared(batch([Echo(1), Echo(2)], then=Nap(seconds=1)))
    assert all_then.nodes[-1].after == ("echo", "echo-2")
    assert all_then.nodes[-1].on_failure == "run"


def test_every_wrong_node_is_named() -> None:
    found = problems(
        asked(
            {"name": "a", "type": "test.nap", "payload": {"seconds": "long"}},
            {"name": "a"},
            {"name": "b", "after": ["a", "nobody", "a"]},
            {"name": "c", "type": "no.such"},
            {"name": "d", "key": "mine", "unique": {"key": "k"}, "delay": 1, "run_at": 5},
        )
    )
    assert found.keys() == {
        *("nodes[0].payload.seconds", "nodes[1].name", "nodes[2].after[1]", "nodes[2].after[2]"),
        *("nodes[3].type", "nodes[4].key", "nodes[4].unique", "nodes[4].delay"),
    }


def test_a_circle_is_named() -> None:
    found = problems(
        asked({"name": "a", "after": ["c"]}, {"name": "b", "after": ["a"]}, {"name": "c", "after": ["b"]})
    )
    assert set(found["nodes"].rsplit(": ", maxsplit=1)[1].split(" → ")) == {"a", "b", "c"}
    assert "circle" in problems(asked({"name": "a", "after": ["a"]}))["nodes"]


def test_a_flow_is_bounded() -> None:
    wide = Flow()
    for number in range(1001):
        wide.add(Echo(number))
    with pytest.raises(InvalidJob, match=r"nodes: .*<= 1000"):
        wide.request()
    dense = [{"name": f"n{i}", "after": [f"n{j}" for j in range(i)]} for i in range(150)]
    assert "10000" in problems(asked(*dense))["nodes"]
    with pytest.raises(InvalidJob, match="nodes: "):
        Flow().request()
    large = Flow()
    for _ in range(5):
        large.add(Echo("x" * 250_000))
    with pytest.raises(TooLarge, match="flow, in bytes"):
        prepared(large)
    payload = Flow()
    payload.add(Echo("x" * 300_000))
    with pytest.raises(InvalidJob, match=r"nodes\[0\].payload: .*262144"):
        prepared(payload)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "ä", "x" * 65])
def test_a_name_is_short_and_plain(name: str) -> None:
    flow = Flow()
    flow.add(Echo(), name=name or " ")
    with pytest.raises(InvalidJob, match=r"nodes\[0\].name"):
        flow.request()


def test_wrong_options_are_named() -> None:
    flow = Flow()
    flow.add(Echo(), attempts=0, on_failure="panic")  # type: ignore[arg-type]
    with pytest.raises(InvalidJob) as caught:
        flow.request()
    assert {it.path for it in caught.value.problems} == {"nodes[0].attempts", "nodes[0].on_failure"}


def test_only_contracts_are_nodes() -> None:
    class Plain(msgspec.Struct):
        pass

    with pytest.raises(Misconfigured, match="Plain is no contract"):
        Flow().add(Plain())


def test_a_moment_may_be_given() -> None:
    flow = Flow()
    flow.add(Echo(), run_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert prepared(flow).nodes[0].job.run_at == 1893456000000


@given(st.permutations(range(8)), st.data())
def test_nodes_come_behind_those_they_wait_for_in_whatever_order_they_are_given(
    order: list[int], data: st.DataObject
) -> None:
    nodes = []
    for number in range(8):
        others = data.draw(st.lists(st.sampled_from(range(number)), unique=True)) if number else []
        nodes.append({"name": f"n{number}", "after": [f"n{other}" for other in others]})
    fact, _ = prepare_flow(asked(*(nodes[number] for number in order)), max_payload=BIG)
    seen: set[str] = set()
    for node in fact.nodes:
        assert set(node.after) <= seen
        seen.add(node.name)
    assert len(seen) == 8
