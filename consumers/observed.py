"""Attempts, as logs and traces see them.

A worker that logs JSON or sends traces runs its attempts by this class; any other one runs plain Attempts
and pays nothing.

The span of an attempt is a child of the submission's and has a link to it too. The conventions for
messaging ask for the link, because a consumer may handle many messages at once; here an attempt is of
one job, and then they allow the parent. It is what makes one story of it in every backend (few show links
well), and what makes the decision to sample, taken when the job was submitted, hold for its attempts.
"""

from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.consumers.attempts import Attempts
from penstock.consumers.context import Report
from penstock.core.dispatch import Delivery, Finished
from penstock.core.keys import GROUP, PartitionKeys
from penstock.core.logs import Attempt, current_attempt
from penstock.core.positions import milliseconds
from penstock.core.settings import Settings
from penstock.core.tracing import context_of, messaging, tracer

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span


class _Told(msgspec.Struct, frozen=True):
    """What a span needs of a `submitted` event."""

    type: str = ""
    trace: str = ""
    delay: float = 0
    run_at: int = 0


class _End(msgspec.Struct, frozen=True):
    """What a span needs of how an attempt ended."""

    error: str = ""


_told: Final = msgspec.json.Decoder(_Told).decode
_end: Final = msgspec.json.Decoder(_End).decode


def attempts_class(settings: Settings) -> type[Attempts]:
    """The class by which this worker runs its attempts."""
    return ObservedAttempts if settings.log_format == "json" or tracer() else Attempts


class ObservedAttempts(Attempts):
    """Attempts whose logs name the job, each in a span if this process has traces."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._tracer: Final = tracer()

    async def execute(
        self, delivery: Delivery, keys: PartitionKeys, worker: str, report: Callable[[Report], None]
    ) -> Finished:
        job_id = keys.job_id(delivery.job.decode())
        current_attempt.set(Attempt(job_id, delivery.attempt))  # each attempt is a task of its own
        if self._tracer is None:
            return await super().execute(delivery, keys, worker, report)

        from opentelemetry.trace import Link, SpanKind, get_current_span

        told = _read(delivery.body)
        sent = context_of(told.trace)
        sender = get_current_span(sent).get_span_context()
        self._tell_wait(delivery, keys.queue, told, sent, job_id)
        with self._tracer.start_as_current_span(
            f"process {keys.queue}",
            context=sent,
            kind=SpanKind.CONSUMER,
            links=[Link(sender)] if sender.is_valid else [],
            attributes={
                **messaging("process", keys.queue, message_id=job_id, client_id=worker),
                "messaging.consumer.group.name": GROUP,
                "penstock.job.type": told.type,
                "penstock.job.attempt": delivery.attempt,
            },
            record_exception=False,  # its words may tell of payloads
            set_status_on_exception=False,
        ) as span:
            finished = await super().execute(delivery, keys, worker, report)
            _tell_end(span, finished)
            return finished

    def _tell_wait(self, delivery: Delivery, queue: str, told: _Told, sent: "Context", job_id: str) -> None:
        """A span from when the job was due, by the server's clock, to now. A later attempt's wait is its
        backoff, which the span of the one before tells."""
        if self._tracer is None or delivery.attempt > 1:
            return
        due_ms = max(milliseconds(delivery.entry.decode()) + told.delay * 1000, told.run_at)
        due, now = round(due_ms * 1_000_000), time_ns()
        if due < now:
            attributes = messaging("wait", queue, message_id=job_id)
            self._tracer.start_span(f"wait {queue}", sent, attributes=attributes, start_time=due).end(now)


def _read(body: bytes) -> _Told:
    try:
        return _told(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Told()  # the attempt says so itself


def _tell_end(span: "Span", finished: Finished) -> None:
    """How it ended; of an error its class alone."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("penstock.job.outcome", finished.outcome)
    if finished.outcome in ("failed", "attempt_failed"):
        span.set_attribute("error.type", _end(finished.body).error)
        span.set_status(StatusCode.ERROR)
    if finished.outcome == "attempt_failed":
        span.set_attribute("penstock.job.backoff", finished.delay_ms / 1000)
