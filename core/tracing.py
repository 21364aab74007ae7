"""Traces: the story of a job as spans, in whatever backend speaks OTLP.

    send {queue}       the submission                          producer/tracing.py
    wait {queue}       from when the job was due to its start  consumers/observed.py
    process {queue}    each attempt                            consumers/observed.py
    project {queue}    until the views had seen the submission projections/tracing.py

All of a job is one trace: the submitted event keeps the context of who sent it, as one text, its
`traceparent` and after a space its `tracestate` (W3C Trace Context). The spans made from it are children
of it, so the decision to sample that was made when the job was submitted holds for all of them.

Off unless the process has a tracer provider: that of the program that uses the client, or the one that
`open_tracing` makes from OpenTelemetry's own variables. Until then we import nothing of OpenTelemetry.
No span has anything of a payload, a result, or the words of an error.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

SYSTEM: Final = "penstock"
# How long the end of a process may wait for a collector that does not answer.
FLUSH_S: Final = 5.0

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# What a receiver must pass on at least (W3C Trace Context, 3.3.1.5), and we at most.
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")

_log: Final = logging.getLogger("penstock.tracing")
_ours: Any = None  # the provider that `open_tracing` made


def open_tracing(role: str) -> None:
    """Send spans by OTLP over HTTP if OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set.

    All the rest is set by the standard variables too, which the SDK reads: OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_SERVICE_NAME (else `penstock-{role}`), …
    """
    global _ours
    if not _wanted(os.environ) or tracer() is not None:
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("an OTLP endpoint is set, but no traces are sent: pip install 'penstock[tracing]'")
        return
    ours = {"service.name": f"{SYSTEM}-{role}", "service.version": version(SYSTEM)}
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    _ours = TracerProvider(resource=resource, shutdown_on_exit=False)
    _ours.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_ours)


def close_tracing() -> None:
    """Send what has not been sent yet, for FLUSH_S at most."""
    global _ours
    provider, _ours = _ours, None
    if provider is not None:
        ending = threading.Thread(target=provider.shutdown, daemon=True, name="last spans")
        ending.start()
        ending.join(FLUSH_S)


def tracer() -> "Tracer | None":
    """Who makes our spans; None where this process has no tracer provider. For use at start: what
    asks it once and then finds None pays nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    made: Tracer = trace.get_tracer(SYSTEM, version(SYSTEM))
    return made


def from_headers(parent: str, state: str = "") -> str:
    """The context of a request's `traceparent` and `tracestate`, as events keep it; empty if it has
    none that is right."""
    if not _PARENT.fullmatch(parent):
        return ""
    return f"{parent} {state}" if _STATE.fullmatch(state) else parent


def carried() -> str:
    """The current context, as events keep it; empty without one."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return from_headers(headers.get("traceparent", ""), headers.get("tracestate", ""))


def context_of(trace: str) -> "Context":
    """The context that an event kept; one without a span for an empty or wrong text."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent, _, state = trace.partition(" ")
    return TraceContextTextMapPropagator().extract({"traceparent": parent, "tracestate": state})


def is_sampled(trace: str) -> bool:
    """Whether the spans of this context are kept."""
    return bool(_PARENT.fullmatch(trace[:55]) and int(trace[53:55], 16) & 1)


def current_ids() -> tuple[str, str] | None:
    """The ids of the current trace and span, as logs tell them."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def messaging(operation: str, queue: str, **more: str | int) -> dict[str, str | int]:
    """The attributes of a span, by OpenTelemetry's conventions for messaging; `more` are those of
    `messaging.`, with `_` for the dots."""
    told: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if queue:
        told["messaging.destination.name"] = queue
    return told | {f"messaging.{name.replace('_', '.')}": value for name, value in more.items()}


def _wanted(environ: Mapping[str, str]) -> bool:
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() == "none"
    return not off and any(environ.get(name) for name in _ENDPOINTS)
