"""The fold of a flow's facts, and what follows from them: on random graphs with random outcomes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Event, Submitted, encode
from penstock.producer.flows.course import ENDED, Course, decisions, due, fold_flow
from penstock.producer.flows.facts import (
    TAG_OF,
    FlowCancelled,
    FlowFact,
    FlowSubmitted,
    Node,
    NodeCalled,
    NodeEnded,
    NodeSubmitted,
    read_fact,
)

JOB = Submitted(type="test.echo", payload=msgspec.Raw(b"{}"))


def graph(**after: str) -> FlowSubmitted:
    """Nodes by name, with what they wait for; a `!` in front of these: run whatever happened."""
    nodes = [
        Node(name, "test", JOB, tuple(others.lstrip("!").split()), "run" if others[:1] == "!" else "skip")
        for name, others in after.items()
    ]
    return FlowSubmitted(tuple(nodes), "a flow", "ada")


class Ledger:
    """Facts of one flow, folded as they are written and as they are read back."""

    def __init__(self, flow: FlowSubmitted) -> None:
        self.facts: list[FlowFact] = []
        self.course: Course | None = None
        self.write(flow)

    def write(self, fact: FlowFact) -> Course:
        position = f"{1000 + len(self.facts)}-0"
        event = Event(position, TAG_OF[type(fact)], "1000-0", encode(fact))
        self.facts.append(fact)
        self.course = fold_flow(self.course, event, read_fact(event))
        assert self.course is not None
        return self.course

    def decide(self) -> list[NodeCalled | NodeEnded]:
        assert self.course is not None
        made = list(decisions(self.course))
        for fact in made:
            self.write(fact)
        return made

    def run(self, name: str, state: str, why: str = "") -> Course:
        self.write(NodeSubmitted(name, f"test.0.{len(self.facts)}-0"))
        return self.write(msgspec.convert({"node": name, "state": state, "why": why}, NodeEnded))

    def states(self) -> dict[str, str]:
        assert self.course is not None
        return {name: step.state for name, step in self.course.steps.items()}


def test_a_flow_begins_with_its_graph() -> None:
    course = Ledger(graph(a="", b="a")).course
    assert course is not None
    assert (course.id, course.name, course.by) == ("flow.1000-0", "a flow", "ada")
    assert (course.state, course.left, course.version) == ("active", 2, 1)
    assert course.steps["b"].after == ("a",)


def test_a_chain_goes_on_as_its_nodes_complete() -> None:
    ledger = Ledger(graph(a="", b="a"))
    assert ledger.decide() == [NodeCalled("a")]
    assert ledger.decide() == []
    ledger.run("a", "completed")
    assert ledger.decide() == [NodeCalled("b")]
    course = ledger.run("b", "completed")
    assert (course.state, course.left, course.misfits, course.version) == ("completed", 0, 0, 7)
    assert course.ended_ms == 1006


def test_what_an_end_leads_to_is_written_with_it() -> None:
    ledger = Ledger(graph(a="", b="", c="a", d="a b"))
    ledger.decide()
    for name in "ab":
        ledger.write(NodeSubmitted(name, f"test.0.{name}"))
    assert ledger.course is not None
    ends = [NodeEnded("a", "completed"), NodeEnded("b", "failed")]
    skipped = NodeEnded("d", "skipped", why="b failed")
    assert due(ledger.course, ends) == [*ends, NodeCalled("c"), skipped]
    assert due(ledger.course, []) == []
    for fact in due(ledger.course, ends):
        ledger.write(fact)
    assert ledger.course.misfits == 0
    assert due(ledger.course, []) == []


def test_a_failure_skips_what_waits_for_it_down_the_line_at_once() -> None:
    ledger = Ledger(graph(a="", b="", c="a", d="c b", e="!d"))
    ledger.decide()
    ledger.run("a", "failed", "ValueError: no")
    assert ledger.decide() == [NodeEnded("c", "skipped", why="a failed")]
    ledger.run("b", "completed")
    assert ledger.decide() == [NodeEnded("d", "skipped", why="c skipped"), NodeCalled("e")]
    assert ledger.run("e", "completed").state == "failed"


def test_a_node_is_decided_when_all_it_waits_for_have_ended() -> None:
    ledger = Ledger(graph(a="", b="", c="a b", d="!a b"))
    ledger.decide()
    ledger.run("a", "failed")
    assert ledger.decide() == []
    ledger.run("b", "completed")
    assert ledger.decide() == [NodeEnded("c", "skipped", why="a failed"), NodeCalled("d")]


def test_a_cancelled_flow_calls_no_more_and_lets_the_called_be_submitted() -> None:
    ledger = Ledger(graph(a="", b="a", c="!a"))
    ledger.decide()
    course = ledger.write(FlowCancelled("bob", "enough"))
    assert (course.cancelled, course.cancelled_by) == (True, "bob")
    assert ledger.decide() == []
    ledger.run("a", "cancelled")
    ended = [NodeEnded(name, "cancelled", why="its flow was cancelled") for name in "bc"]
    assert ledger.decide() == ended
    assert ledger.course is not None
    assert ledger.course.state == "cancelled"
    assert ledger.write(FlowCancelled("eve")).misfits == 1


def test_a_cancellation_that_stopped_nothing_leaves_the_flow_completed() -> None:
    ledger = Ledger(graph(a=""))
    ledger.decide()
    ledger.write(FlowCancelled("bob"))
    assert ledger.run("a", "completed").state == "completed"


def test_facts_that_do_not_fit_change_nothing_but_the_counts() -> None:
    ledger = Ledger(graph(a=""))
    ledger.decide()
    before = ledger.run("a", "completed")
    unfit: list[FlowFact] = [NodeCalled("a"), NodeSubmitted("a", "test.0.7-0"), NodeEnded("a", "failed")]
    for number, fact in enumerate([*unfit, NodeCalled("nobody")], 1):
        after = ledger.write(fact)
        assert (after.misfits, after.version) == (number, before.version + number)
        assert (after.steps, after.left, after.state) == (before.steps, 0, "completed")


def test_a_fact_about_a_flow_whose_beginning_is_gone_is_nothing() -> None:
    event = Event("5-0", "node_called", "1-0", b'{"node":"a"}')
    assert fold_flow(None, event, read_fact(event)) is None


def test_what_cannot_be_read_is_counted() -> None:
    ledger = Ledger(graph(a=""))
    for tag, body in (("node_called", b'{"node"'), ("node_named", b"{}"), ("node_ended", b"\xff")):
        event = Event("2000-0", tag, "1000-0", body)
        ledger.course = fold_flow(ledger.course, event, read_fact(event))
    assert ledger.course is not None
    assert (ledger.course.misfits, ledger.states()) == (3, {"a": "waiting"})


@st.composite
def graphs(draw: st.DrawFn) -> FlowSubmitted:
    """Up to ten nodes, each waiting for some of those before it."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 10)))]
    after = {}
    for number, name in enumerate(names):
        others = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        after[name] = ("!" if draw(st.booleans()) else "") + " ".join(others)
    return graph(**after)


@given(flow=graphs(), data=st.data())
def test_whatever_happens_every_node_ends_once_and_after_those_it_waits_for(
    flow: FlowSubmitted, data: st.DataObject
) -> None:
    ledger = Ledger(flow)
    order: list[str] = []
    while ledger.course and ledger.course.left:
        if not ledger.course.cancelled and data.draw(st.integers(0, 20)) == 0:
            ledger.write(FlowCancelled("bob"))
        order += [fact.node for fact in ledger.decide() if isinstance(fact, NodeEnded)]
        assert ledger.course is not None
        running = ledger.course.within("called", "submitted")
        assert running or not ledger.course.left, "nothing goes on"
        if running:
            name = data.draw(st.sampled_from(running))
            ledger.run(name, data.draw(st.sampled_from(["completed", "failed", "cancelled"])))
            order.append(name)
    course = ledger.course
    assert course is not None
    assert sorted(order) == sorted(course.steps)
    assert course.misfits == 0
    assert set(ledger.states().values()) <= ENDED
    for node in flow.nodes:
        place = order.index(node.name)
        assert all(order.index(other) < place for other in node.after)
        if course.steps[node.name].state == "skipped":
            assert node.on_failure == "skip"
            assert any(course.steps[other].state != "completed" for other in node.after)
    assert (course.state == "completed") == all(it.state == "completed" for it in course.steps.values())
