"""An OTLP receiver of the test's own: real HTTP, real protobuf; it keeps every span it is sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from servers import wait_until
from webserver import reply, serving


class Seen(msgspec.Struct, frozen=True):
    """A span as it came: ids in hex, times in Unix ns, links as (trace, span)."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    start: int
    end: int
    status: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]


class Collector:
    """What came so far, and the variables that make a process send here."""

    def __init__(self) -> None:
        self.spans: Final[list[Seen]] = []
        self.bodies: Final[list[bytes]] = []
        self.environ: dict[str, str] = {}

    def receive(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {it.key: it.value.string_value for it in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self.spans.extend(_seen(service, span) for span in scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        reply(request, 200, answer, content_type="application/x-protobuf")

    def of(self, trace: str) -> list[Seen]:
        """The spans of a trace, in the order in which they began."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    def until(self, enough: Callable[["Collector"], bool], timeout: float = 30.0) -> None:
        """Wait until a condition holds of what came."""
        try:
            wait_until(lambda: enough(self), timeout, "spans come")
        except AssertionError as error:
            raise AssertionError(f"{error}; so far {self.spans}") from None


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port while the block runs."""
    collector = Collector()
    with serving({"/v1/traces": collector.receive}) as base:
        collector.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": base, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        yield collector


def _seen(service: str, span: Span) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status={0: "unset", 1: "ok", 2: "error"}[span.status.code],
        attributes={it.key: getattr(it.value, it.value.WhichOneof("value") or "") for it in span.attributes},
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )
