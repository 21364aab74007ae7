"""Is all well? What one looks at first, at any hour: the figures that say so, then where and since when."""

from typing import Any

from penstock.core import telemetry as t
from penstock.ui.grafana import panels as p
from penstock.ui.grafana import queries as q
from penstock.ui.grafana.panels import Series


def overview() -> Any:
    """The dashboard."""
    return p.page(
        "penstock-overview",
        "Penstock: overview",
        "Is all well? Throughput, failures, times, backlog, workers, views.",
        *_now(),
        *_standing(),
        *_flow(),
        *_backlog(),
        *_workers(),
    )


def _now() -> list[Any]:
    ended = f"{q.rate(t.COMPLETED)} + {q.rate(t.FAILED)}"
    failing = q.share_of_failures(t.COMPLETED, t.FAILED, "1h")
    return [
        p.row("Now"),
        p.figure(
            "Alerts",
            "Alerts that fire. What to do about each stands in infra/RUNBOOK.md.",
            *(p.COUNT, 'count(ALERTS{alertstate="firing", alertname=~"Penstock.*"}) or vector(0)'),
            p.BAD_ABOVE_0,
            width=3,
        ),
        p.figure(
            "Ended", "Jobs that ended in a second: completed or given up.", p.PER_SECOND, ended, width=3
        ),
        p.figure(
            "Given up",
            "Of the jobs that ended in the last hour, the share that was given up (dead letters).",
            *(p.SHARE, failing, ((None, p.GREEN), (0.01, p.YELLOW), (0.06, p.RED))),
            width=3,
        ),
        p.figure(
            "Backlog",
            "Jobs that could run now and do not: waiting, and retries and delayed jobs that are due.",
            *(p.COUNT, q.total(t.BACKLOG)),
            width=3,
        ),
    ]


def _standing() -> list[Any]:
    idle = f"count(({q.most(t.WORKERS, 'queue')}) < 1 and ({q.most(t.BACKLOG, 'queue')}) > 0) or vector(0)"
    return [
        p.figure(
            "Oldest waiting",
            "How long ago the oldest waiting job of any queue was submitted.",
            *(p.SECONDS, q.most(t.OLDEST), ((None, p.GREEN), (60, p.YELLOW), (300, p.RED))),
            width=3,
        ),
        p.figure(
            "Queues nobody serves",
            "Queues with a backlog and without a living worker.",
            *(p.COUNT, idle, p.BAD_ABOVE_0),
            width=3,
        ),
        p.figure(
            "Views behind",
            "Age of the oldest event that the views have not seen; lists and figures are that old.",
            *(p.SECONDS, q.most(t.LAG), ((None, p.GREEN), (2, p.YELLOW), (10, p.RED))),
            width=3,
        ),
        p.figure(
            "Redis memory",
            "Share of maxmemory in use. At the limit submissions are refused; jobs that run still end.",
            *(p.SHARE, "penstock_redis_memory:ratio", ((None, p.GREEN), (0.75, p.YELLOW), (0.9, p.RED))),
            width=3,
            none="no limit",
        ),
    ]


def _flow() -> list[Any]:
    return [
        p.row("Flow"),
        p.chart(
            "Jobs a second",
            "What happens to jobs, in all queues. Submitted above completed for long: the backlog grows.",
            p.PER_SECOND,
            Series(q.rate(t.SUBMITTED), "submitted", p.BLUE),
            Series(q.rate(t.COMPLETED), "completed", p.GREEN),
            Series(q.rate(t.RETRIED), "retried", p.ORANGE),
            Series(q.rate(t.FAILED), "given up", p.RED),
            Series(q.rate(t.CANCELLED), "cancelled", p.PURPLE),
        ),
        p.chart(
            "Given up, by queue",
            "Dead letters a second. Which types and why: dashboard of queues and types.",
            *(p.PER_SECOND, Series(q.rate(t.FAILED, "queue"), "{{queue}}")),
        ),
        p.chart(
            "Wait",
            "From when a job was ready to when its attempt started, in all queues.",
            p.SECONDS,
            *_quantiles(t.WAIT),
        ),
        p.chart(
            "Run",
            "How long attempts ran, in all queues, however they ended.",
            p.SECONDS,
            *_quantiles(t.RUN),
        ),
    ]


def _backlog() -> list[Any]:
    return [
        p.row("What waits"),
        p.chart(
            "Depth",
            "Jobs that have not ended, by state.",
            p.COUNT,
            Series(q.total(t.JOBS, of='state="active"'), "active", p.YELLOW),
            Series(q.total(t.JOBS, of='state="waiting"'), "waiting", p.BLUE),
            Series(q.total(t.JOBS, of='state="delayed"'), "delayed", p.PURPLE),
            width=8,
            stacked=True,
        ),
        p.chart(
            "Oldest waiting, by queue",
            "It should come down whenever workers are free. Of a paused queue it grows, and should.",
            *(p.SECONDS, Series(q.most(t.OLDEST, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Time to drain, by queue",
            "How long the backlog takes at the throughput of the last five minutes.",
            *(p.SECONDS, Series(q.most(t.DRAIN_TIME, "queue"), "{{queue}}")),
            width=8,
        ),
    ]


def _workers() -> list[Any]:
    return [
        p.row("Workers and views"),
        p.chart(
            "Workers, by queue",
            "Workers that gave a sign of life within their lease.",
            *(p.COUNT, Series(q.most(t.WORKERS, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Slots",
            "All busy: more workers help. Stuck: a handler's thread outlived its attempt.",
            p.COUNT,
            Series(q.total(t.SLOTS, of='state="busy"'), "busy", p.YELLOW),
            Series(q.total(t.SLOTS, of='state="free"'), "free", p.GREEN),
            Series(q.total(t.SLOTS, of='state="stuck"'), "stuck", p.RED),
            width=8,
            stacked=True,
        ),
        p.chart(
            "Views behind, by queue",
            "Age of the oldest event that the views have not seen.",
            *(p.SECONDS, Series(q.most(t.LAG, "queue"), "{{queue}}")),
            width=8,
        ),
    ]


def _quantiles(histogram: t.Instrument) -> list[Series]:
    return [Series(q.quantile(part, histogram), f"p{part * 100:g}", colour) for part, colour in p.QUANTILES]
