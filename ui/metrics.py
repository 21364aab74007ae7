"""/metrics of a process: what its probes tell, in the names of core/telemetry.py, through OpenTelemetry's SDK
and its Prometheus exporter, on a port of its own.

    scrape     the probes are asked, on the event loop
    export     their samples as observable instruments, in a thread, so that the loop goes on
    beside it  histograms that were counted elsewhere (in the log, by Redis): OpenTelemetry has no observable
               histogram, so a collector in the same registry tells them

This module, and with it the SDK, is imported only where PENSTOCK_METRICS_PORT is set. Whoever reaches the
port may read it: it tells names of queues and job types and nothing of any job.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

import msgspec
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from penstock.core.probes import Distribution, Probes, Sample
from penstock.core.settings import Settings
from penstock.core.telemetry import INSTRUMENTS, LOOP_BOUNDS, LOOP_LAG, Instrument
from penstock.ui.process_metrics import process_samples
from penstock.ui.serving import serve

PATH: Final = "/metrics"
LAG_TICK_S: Final = 0.25
# Series of one instrument; beyond, the SDK adds up what it cannot tell apart.
MAX_SERIES: Final = 20_000

_log: Final = logging.getLogger(__name__)

Record = Callable[[float, Mapping[str, str]], None]


class Metrics:
    """What one process exports."""

    def __init__(self, role: str) -> None:
        self.probes: Final = Probes()
        self.probes.add(process_samples)
        self._registry: Final = CollectorRegistry()
        self._scraping: Final = asyncio.Lock()
        self._samples: dict[str, list[Sample]] = {}
        reader = PrometheusMetricReader(
            scope_info_enabled=False,
            registry=self._registry,
            cardinality_limits={ObservableCounter: MAX_SERIES, ObservableGauge: MAX_SERIES},
        )
        resource = Resource.create(
            {
                "service.namespace": "penstock",
                "service.name": f"penstock-{role}",
                "service.version": version("penstock"),
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )
        self._provider: Final = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._meter: Final = self._provider.get_meter("penstock", version("penstock"))
        for instrument in INSTRUMENTS:
            self._observe(instrument)
        self._registry.register(_Counted(self._of))

    def close(self) -> None:
        """Export no more."""
        self._provider.shutdown()

    def recorder(self, instrument: Instrument, bounds: Sequence[float]) -> Record:
        """A histogram that is counted in this process: call it with seconds and labels."""
        histogram = self._meter.create_histogram(
            instrument.name,
            instrument.unit,
            instrument.meaning,
            explicit_bucket_boundaries_advisory=list(bounds),
        )
        return histogram.record

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """All of it as text, and its content type; one scrape after the other."""
        async with self._scraping:
            found: dict[str, list[Sample]] = {}
            for sample in await self.probes.read():
                found.setdefault(sample.instrument.name, []).append(sample)
            self._samples = found
            encode, content_type = choose_encoder(accept)
            return await asyncio.to_thread(encode, self._registry), content_type

    def _of(self, instrument: Instrument) -> list[Sample]:
        return self._samples.get(instrument.name, [])

    def _observe(self, instrument: Instrument) -> None:
        def observed(_: CallbackOptions) -> Iterable[Observation]:
            for sample in self._of(instrument):
                if not isinstance(sample.value, Distribution):
                    yield Observation(sample.value, dict(zip(instrument.labels, sample.labels, strict=True)))

        words = (instrument.name, [observed], instrument.unit, instrument.meaning)
        if instrument.kind == "counter":
            self._meter.create_observable_counter(*words)
        elif instrument.kind == "gauge":
            self._meter.create_observable_gauge(*words)


class _Counted:
    """Tells the histograms that were counted elsewhere."""

    def __init__(self, samples_of: Callable[[Instrument], list[Sample]]) -> None:
        self._samples_of: Final = samples_of

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As prometheus-client asks for it."""
        for instrument in INSTRUMENTS:
            samples = self._samples_of(instrument)
            if samples and isinstance(samples[0].value, Distribution):
                labels = [label.replace(".", "_") for label in instrument.labels]
                family = HistogramMetricFamily(instrument.prometheus, instrument.meaning, labels=labels)
                for sample in samples:
                    if isinstance(sample.value, Distribution):
                        family.add_metric(sample.labels, _buckets(sample.value), sample.value.sum)
                yield family


def _buckets(told: Distribution) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    within = 0
    for bound, count in zip((*map(str, told.bounds), "+Inf"), told.counts, strict=True):
        within += count
        found.append((bound, within))
    return found


@asynccontextmanager
async def serving_metrics(settings: Settings, role: str) -> AsyncIterator[Metrics]:
    """Serve them while the block runs. A port that cannot be had is one line in the log, no more: the
    process is there for its work."""
    metrics = Metrics(role)
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(_serve(settings, _App(metrics), stop)),
        asyncio.create_task(_watch_loop(metrics.recorder(LOOP_LAG, LOOP_BOUNDS))),
    ]
    try:
        yield metrics
    finally:
        stop.set()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        metrics.close()


async def _serve(settings: Settings, app: "_App", stop: asyncio.Event) -> None:
    port = settings.metrics_port or 0
    ours = msgspec.structs.replace(settings, server="hypercorn")  # the others end the process over a port
    try:
        await serve(app, ours, stop, port=port)
    except OSError as error:
        _log.warning("no metrics on %s:%d: %s", settings.host, port, error.strerror or error)


async def _watch_loop(record: Record) -> None:
    """Measure how late the event loop is."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_TICK_S
        await asyncio.sleep(LAG_TICK_S)
        record(max(0.0, clock() - due), {})


class _App:
    """The ASGI app: GET /metrics, and nothing else."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics: Final = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        elif scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 404, b"GET /metrics\n", "text/plain")
        else:
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            await _answer(send, 200, *await self._metrics.scrape(accept))


async def _answer(send: Any, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
