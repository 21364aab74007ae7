"""Jobs that look at how their worker sees them: which span is the current one, what is imported; and
that log, as handlers do. Their queue is `traced`."""

import logging
import sys
from typing import Any, Final

import msgspec
from opentelemetry import trace

from penstock.consumers import Context, handler
from penstock.core import Backoff, contract

_log: Final = logging.getLogger("shop.orders")


def look(where: str) -> dict[str, Any]:
    """What the current span is, told and logged; and whether what makes and sends spans is loaded
    (redis-py itself loads the SDK's metrics, where it is installed)."""
    span = trace.get_current_span().get_span_context()
    _log.info("works in a %s", where)
    loaded = not sys.modules.keys().isdisjoint({"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp"})
    return {"trace": f"{span.trace_id:032x}", "span": f"{span.span_id:016x}", "loaded": loaded}


@contract("traced.order", attempts=3, backoff=Backoff(kind="fixed", base=0.05, jitter=0))
class Order(msgspec.Struct):
    """Fails once, with its payload in what it says; then looks around, and submits others."""

    card: str


@handler(Order)
async def order(job: Order, context: Context) -> dict[str, Any]:
    if context.attempt == 1:
        raise ValueError(f"declined: {job.card}")
    seen = look("coroutine")
    seen["jobs"] = [await context.jobs.submit(it) for it in (InThread(), InProcess())]
    return seen


@contract("traced.thread")
class InThread(msgspec.Struct):
    """Looks around in a thread."""


@handler(InThread)
def in_thread(job: InThread, context: Context) -> dict[str, Any]:
    return look("thread")


@contract("traced.process")
class InProcess(msgspec.Struct):
    """Looks around in a process."""


@handler(InProcess, mode="process")
def in_process(job: InProcess, context: Context) -> dict[str, Any]:
    return look("process")
