"""The span around a submission; the jobs carry its context, and their attempts become its children.

One span a call, also for many jobs: OpenTelemetry's conventions allow a span for each message of a batch,
but what would be told of a thousand of them is the same.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.core.tracing import context_of, messaging

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


@contextmanager
def sending(tracer: "Tracer", queues: Collection[str], trace: str = "") -> "Iterator[Span]":
    """The current span is `send {queue}` while the block runs. It belongs to the current span, else to
    the context that a request brought along (`trace`)."""
    from opentelemetry.trace import SpanKind, StatusCode, get_current_span

    within = get_current_span().get_span_context().is_valid
    queue = next(iter(queues)) if len(queues) == 1 else ""
    with tracer.start_as_current_span(
        f"send {queue}".rstrip(),
        context=None if within else context_of(trace),
        kind=SpanKind.PRODUCER,
        attributes=messaging("send", queue),
        record_exception=False,  # its words may tell of payloads
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise


def tell_sent(span: "Span", ids: Collection[str], *, refused: int = 0) -> None:
    """What became of the call: the id of its job, or how many it was for."""
    if len(ids) == 1 and not refused:
        span.set_attribute("messaging.message.id", next(iter(ids)))
    else:
        span.set_attribute("messaging.batch.message_count", len(ids) + refused)
        if refused:
            span.set_attribute("penstock.refused", refused)
