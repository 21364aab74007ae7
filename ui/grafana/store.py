"""What everything stands on: Redis, the log, and the views that are folded from it."""

from typing import Any

from penstock.core import telemetry as t
from penstock.ui.grafana import panels as p
from penstock.ui.grafana import queries as q
from penstock.ui.grafana.panels import Series


def store() -> Any:
    """The dashboard."""
    return p.page(
        "penstock-store",
        "Penstock: Redis and the log",
        "Whether Redis keeps what was accepted and has room; how the log and its views grow.",
        *_redis(),
        *_use(),
        *_log(),
    )


def _redis() -> list[Any]:
    return [
        p.row("Redis"),
        p.figure(
            "Answers",
            "Whether it answers the projector.",
            *(p.COUNT, q.most(t.REDIS_UP), p.BAD_AT_0),
            words={"0": "no", "1": "yes"},
        ),
        p.figure(
            "Append-only file",
            "Whether its last write and its last rewrite went well.",
            *(p.COUNT, q.least(t.AOF_OK), p.BAD_AT_0),
            words={"0": "cannot write", "1": "written"},
        ),
        p.figure(
            "Loss window",
            "How much accepted work a crash of Redis can lose: always 0 s, everysec 1 s, else no bound.",
            *(p.SECONDS, q.most(t.LOSS_WINDOW), ((None, p.GREEN), (1.5, p.RED))),
        ),
        p.figure(
            "Memory",
            "Share of maxmemory in use. At the limit submissions are refused; jobs that run still end.",
            *(p.SHARE, "penstock_redis_memory:ratio", ((None, p.GREEN), (0.75, p.YELLOW), (0.9, p.RED))),
            none="no limit",
        ),
        p.figure("Connections", "Clients that Redis serves.", p.COUNT, q.most(t.REDIS_CLIENTS)),
        p.figure(
            "Misfits",
            "Events of the shown time that fit no state: a foreign hand in the log, or a defect.",
            *(p.COUNT, q.growth(t.MISFITS), p.BAD_ABOVE_0),
        ),
    ]


def _use() -> list[Any]:
    return [
        p.chart(
            "Memory in use",
            "What Redis has allocated, and its limit.",
            p.BYTES,
            Series(q.most(t.REDIS_MEMORY), "in use", p.BLUE),
            Series(q.most(t.REDIS_LIMIT), "limit", p.RED),
            width=8,
        ),
        p.chart(
            "Time a script takes",
            "How long scripts keep Redis busy: all else waits so long.",
            p.SECONDS,
            *(
                Series(q.quantile(part, t.SCRIPTS), f"p{part * 100:g}", colour)
                for part, colour in p.QUANTILES
            ),
            width=8,
        ),
        p.chart(
            "Scripts a second",
            "Each finishes and gives out a batch of jobs: fewer and larger ones under load.",
            *(p.PER_SECOND, Series(q.observed(t.SCRIPTS), "scripts", p.BLUE)),
            width=8,
        ),
    ]


def _log() -> list[Any]:
    return [
        p.row("Log and views"),
        p.chart(
            "Events in the log, by queue",
            "It levels off where retention lets go as many as come.",
            *(p.COUNT, Series(q.most(t.LOG_EVENTS, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Memory of the log, by queue",
            "As Redis samples it.",
            *(p.BYTES, Series(q.most(t.LOG_SIZE, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Memory of the rows of jobs, by queue",
            "The largest view, as Redis samples it.",
            *(p.BYTES, Series(q.most(t.VIEWS_SIZE, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Events the views have not seen, by queue",
            "More than some hundreds for long: the projector cannot keep up, or does not run.",
            *(p.COUNT, Series(q.most(t.UNSEEN, "queue"), "{{queue}}")),
            width=8,
        ),
        p.chart(
            "Views and readers behind, by queue",
            "Age of the oldest event that the views have not seen; and how far the slowest of archives, "
            "webhook endpoints and a rebuild is behind: what it has not seen stays.",
            *(p.SECONDS, Series(q.most(t.LAG, "queue"), "{{queue}}")),
            Series(q.most(t.READER_LAG, "queue"), "{{queue}}, slowest reader"),
            width=8,
        ),
        p.chart(
            "Let go by retention",
            "Ended jobs a second that were old enough, by how they had ended.",
            *(p.PER_SECOND, Series(q.rate(t.TRIMMED, "outcome"), "{{outcome}}")),
            width=8,
        ),
    ]
