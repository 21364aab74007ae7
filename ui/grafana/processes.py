"""The processes themselves: requests, live feeds, event loops, processor and memory."""

from typing import Any

from penstock.core import telemetry as t
from penstock.ui.grafana import panels as p
from penstock.ui.grafana import queries as q
from penstock.ui.grafana.panels import Series

WHO = "{{process}} {{instance}}"


def processes() -> Any:
    """The dashboard."""
    return p.page(
        "penstock-processes",
        "Penstock: processes and requests",
        "Which processes run, how they answer, and whether one of them is blocked or grows.",
        *_requests(),
        *_machines(),
    )


def _requests() -> list[Any]:
    code, route = "http_response_status_code", "http_route"
    return [
        p.row("Requests"),
        p.chart(
            "Requests, by status",
            "5xx: the API or Redis is not well; 429: a rate limit; 503: no room, or Redis is away.",
            *(p.PER_SECOND, Series(q.observed(t.HTTP_DURATION, code), f"{{{{{code}}}}}")),
            width=8,
        ),
        p.chart(
            "Time to answer",
            "In all processes that answer requests; a live feed counts until its first byte.",
            p.SECONDS,
            *(Series(q.quantile(part, t.HTTP_DURATION), f"p{part * 100:g}", c) for part, c in p.QUANTILES),
            width=8,
        ),
        p.chart(
            "Time to answer, by route",
            "p95. GET with `wait` takes as long as it was asked to.",
            *(p.SECONDS, Series(q.quantile(0.95, t.HTTP_DURATION, route), f"{{{{{route}}}}}")),
            width=8,
        ),
        p.chart(
            "Requests under way",
            "Live feeds among them.",
            *(p.COUNT, Series(q.total(t.HTTP_ACTIVE, "process"), "{{process}}")),
            width=8,
        ),
        p.chart(
            "Followers of the live feeds",
            "And how many a second did not keep up and were told to begin anew.",
            p.COUNT,
            Series(q.total(t.SSE_CLIENTS, "feed"), "{{feed}}"),
            Series(q.rate(t.SSE_DROPS, "feed"), "{{feed}} dropped a second"),
            width=8,
        ),
        p.chart(
            "Submissions that wait for Redis, by queue",
            "More than a batch for long: submissions come faster than Redis takes them.",
            *(p.COUNT, Series(q.total(t.BUFFERED, "queue"), "{{queue}}")),
            width=8,
        ),
    ]


def _machines() -> list[Any]:
    return [
        p.row("Processes"),
        p.chart(
            "Answering",
            "1 while Prometheus can read the metrics of a process.",
            *(p.COUNT, Series('up{job="penstock"}', WHO)),
            width=8,
        ),
        p.chart(
            "Event loop late",
            "p99 of how much later than asked for the loop woke. Past the lease a worker loses its jobs.",
            *(p.SECONDS, Series(q.quantile(0.99, t.LOOP_LAG, "process", "instance"), WHO)),
            width=8,
        ),
        p.chart(
            "Processor",
            "Processors in use; an event loop cannot use more than one.",
            *(p.COUNT, Series(q.rate(t.CPU_TIME, "process", "instance"), WHO)),
            width=8,
        ),
        p.chart(
            "Memory",
            "Resident. It is flat under a steady load.",
            *(p.BYTES, Series(q.most(t.MEMORY, "process", "instance"), WHO)),
            width=8,
        ),
        p.chart(
            "Threads and files",
            "Both are bounded; what only grows is a leak.",
            p.COUNT,
            Series(q.most(t.THREADS, "process", "instance"), f"{WHO} threads"),
            Series(q.most(t.FILES, "process", "instance"), f"{WHO} files"),
            width=8,
        ),
        p.chart(
            "Up for",
            "Since the process began; what falls back to 0 was started again.",
            *(p.SECONDS, Series(q.least(t.UPTIME, "process", "instance"), WHO)),
            width=8,
        ),
    ]
