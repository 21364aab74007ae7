"""A trace's context in an event is W3C's two headers; spans are made only where somebody wants them, and
of a page of the log only as many as are bounded."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.core import tracing
from penstock.core.errors import InvalidJob
from penstock.core.keys import Keys
from penstock.core.log import Entry
from penstock.core.tracing import carried, context_of, current_ids, from_headers, is_sampled
from penstock.producer.tracing import sending, tell_sent
from penstock.projections.tracing import MAX_SPANS, ProjectSpans

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
LATER = 2**42  # positions of events that come after this process began
KEYS = Keys("t").partition("test")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[trace.Tracer]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


@pytest.mark.parametrize(
    ("parent", "state", "kept"),
    [
        (PARENT, "", PARENT),
        (PARENT, "a=1,b=2", f"{PARENT} a=1,b=2"),
        (PARENT, "a=1\n", PARENT),
        (PARENT, "é=1", PARENT),
        (f"01-{TRACE}-{SPAN}-01", "", f"01-{TRACE}-{SPAN}-01"),
        (f"ff-{TRACE}-{SPAN}-01", "a=1", ""),
        (f"00-{'0' * 32}-{SPAN}-01", "", ""),
        (f"00-{TRACE}-{'0' * 16}-01", "", ""),
        (PARENT.upper(), "", ""),
        (f"{PARENT}-more", "", ""),
        (f"{PARENT}\n", "", ""),
        ("", "a=1", ""),
    ],
)
def test_headers_are_kept_if_they_are_right(parent: str, state: str, kept: str) -> None:
    assert from_headers(parent, state) == kept


def test_what_an_event_kept_is_the_context_it_came_from() -> None:
    assert carried() == ""
    assert current_ids() is None
    token = attach(context_of(f"{PARENT} a=1,b=2"))
    try:
        assert carried() == f"{PARENT} a=1,b=2"
        assert current_ids() == (TRACE, SPAN)
    finally:
        detach(token)


@pytest.mark.parametrize("told", ["", "x", f"00-{TRACE}", f"{PARENT}x"])
def test_a_wrong_text_is_no_context(told: str) -> None:
    assert not trace.get_current_span(context_of(told)).get_span_context().is_valid


def test_whether_a_context_is_sampled_is_its_last_bit() -> None:
    flags = {flag: is_sampled(f"00-{TRACE}-{SPAN}-{flag} a=1") for flag in ("00", "01", "02", "03", "ff")}
    assert flags == {"00": False, "01": True, "02": False, "03": True, "ff": True}
    assert not any(map(is_sampled, ("", "00", "x" * 55)))


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_or_switched_off_there_is_no_tracer(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracing.open_tracing("api")
    assert tracing.tracer() is None


def test_an_endpoint_without_the_extra_is_a_warning_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING):
        tracing.open_tracing("api")
    assert tracing.tracer() is None
    assert "pip install 'penstock[tracing]'" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_end_waits_for_the_last_spans_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            free.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Stuck())
    monkeypatch.setattr(tracing, "_ours", provider)
    monkeypatch.setattr(tracing, "FLUSH_S", 0.05)
    try:
        tracing.close_tracing()  # returns, though nobody has freed it
        assert tracing._ours is None
        assert [thread.name for thread in threading.enumerate() if thread.name == "last spans"]
    finally:
        free.set()


def test_a_submission_belongs_to_the_current_span_before_what_a_request_says(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    with sending(tracer, ["email"], PARENT) as span:
        tell_sent(span, ["email.0.1-0"])
    with tracer.start_as_current_span("request"), sending(tracer, ["email", "ai"], PARENT) as span:
        tell_sent(span, ["email.0.1-0"], refused=2)
    alone, within, request = exporter.get_finished_spans()
    assert (alone.name, within.name) == ("send email", "send")
    assert alone.parent is not None
    assert f"{alone.parent.trace_id:032x}-{alone.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert within.parent == request.context
    told = within.attributes or {}
    assert (told["messaging.batch.message_count"], told["penstock.refused"]) == (3, 2)
    assert "messaging.destination.name" not in told


def test_of_a_submission_that_fails_a_span_tells_the_class_and_nothing_more(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(InvalidJob), sending(tracer, ["email"]):
        raise InvalidJob([])
    [span] = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "InvalidJob"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.status.description, span.events) == (None, ())


def submitted(ms: int, told: str) -> Entry:
    body = b'{"type":"a","payload":{"trace":"mine"},"trace":"%b"}' % told.encode()
    return f"{ms}-0".encode(), [b"event", b"submitted", b"job", b"", b"body", body]


def test_of_a_page_so_many_are_told_and_history_is_not(
    tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    spans = ProjectSpans(tracer, KEYS)
    old, unsampled = submitted(1_000, PARENT), submitted(LATER, f"{PARENT[:-1]}0")
    others = [
        (b"%d-1" % LATER, [b"event", b"completed", b"job", b"1-0", b"body", b'{"trace":1}']),
        (b"%d-2" % LATER, [b"event", b"submitted", b"job", b"", b"body", b'{"trace":"\xff']),
        (b"%d-3" % LATER, [b"odd"]),
    ]
    spans.tell([old, unsampled, *others])
    assert exporter.get_finished_spans() == ()
    page = [submitted(LATER + number, PARENT) for number in range(1, 100)]
    spans.tell(page)
    told = exporter.get_finished_spans()
    ids = [(span.attributes or {})["messaging.message.id"] for span in told]
    assert ids == [f"test.0.{LATER + number}-0" for number in range(1, MAX_SPANS + 1)]
    assert {span.name for span in told} == {"project test"}
    spans.tell(page)
    assert len(exporter.get_finished_spans()) == MAX_SPANS, "a rebuild tells nothing again"
