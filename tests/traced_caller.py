"""A program with OpenTelemetry of its own that submits jobs, from async code and from other: prints the
jobs' ids, and its spans as `name trace id parent`."""

import asyncio
import json

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.producer import Producer
from penstock.producer.flows import Flows, chain
from penstock.producer.sync import SyncProducer
from traced_jobs import InThread, Order

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")


async def submit() -> list[str]:
    async with Producer() as producer, Flows(producer) as flows:
        with tracer.start_as_current_span("checkout"):
            one = await producer.submit(Order("4111"))
            many = await producer.submit_many([InThread(), InThread()], tags=["a"])
            flow = await flows.submit(chain(InThread(), InThread()))
        return [one.id, *(it.id for it in many), flow.id]


ids = asyncio.run(submit())
with SyncProducer() as sync, tracer.start_as_current_span("refund"):
    ids.append(sync.submit(Order("4222")).id)
spans = [
    {
        "name": span.name,
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else "",
        "attributes": dict(span.attributes or {}),
    }
    for span in exporter.get_finished_spans()
]
print(json.dumps({"ids": ids, "spans": spans}))
