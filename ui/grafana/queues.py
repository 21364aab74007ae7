"""One queue or one type of job, or some of them: what it does, how long it takes, what goes wrong."""

from typing import Any

from penstock.core import telemetry as t
from penstock.ui.grafana import panels as p
from penstock.ui.grafana import queries as q
from penstock.ui.grafana.panels import Series

BY_TYPE = ("queue", "type")
NAME = "{{queue}} {{type}}"


def queues() -> Any:
    """The dashboard."""
    return p.page(
        "penstock-queues",
        "Penstock: queues and types",
        "What the chosen queues and types do, how long they take, what goes wrong.",
        *_now(),
        *_flow(),
        *_times(),
        *_failures(),
        *_with_workers(),
        choose=(
            ("queue", f"label_values({t.JOBS.prometheus}, queue)"),
            ("type", f'label_values({t.JOBS.prometheus}{{queue=~"$queue"}}, type)'),
        ),
    )


def _now() -> list[Any]:
    def state(name: str) -> str:
        return q.total(t.JOBS, of=f'{q.CHOSEN}, state="{name}"')

    return [
        p.row("Now"),
        p.figure(
            "Waiting", "Jobs that could run and have no worker yet.", p.COUNT, state("waiting"), width=3
        ),
        p.figure("Active", "Jobs that run.", p.COUNT, state("active"), width=3),
        p.figure(
            "Delayed", "Jobs that wait for their time, retries too.", p.COUNT, state("delayed"), width=3
        ),
        p.figure(
            "Dead letters",
            "Jobs that were given up and are kept until somebody decides, or retention lets them go.",
            *(p.COUNT, state("failed"), p.BAD_ABOVE_0),
            width=3,
        ),
        p.figure(
            "Oldest waiting",
            "How long ago the oldest waiting job of the queue was submitted.",
            p.SECONDS,
            q.most(t.OLDEST, of=q.CHOSEN_QUEUE),
            ((None, p.GREEN), (60, p.YELLOW), (300, p.RED)),
            width=3,
        ),
        p.figure(
            "Time to drain",
            "How long the backlog takes at the throughput of the last five minutes.",
            p.SECONDS,
            q.most(t.DRAIN_TIME, of=q.CHOSEN_QUEUE),
            ((None, p.GREEN), (300, p.YELLOW), (900, p.RED)),
            width=3,
        ),
        p.figure(
            "Backlog a worker",
            "What a scaler goes by: jobs that could run, by living worker.",
            *(p.COUNT, q.most(t.PER_WORKER, of=q.CHOSEN_QUEUE)),
            width=3,
        ),
        p.figure(
            "Paused",
            "Chosen queues that give out no jobs because somebody paused them.",
            p.COUNT,
            q.total(t.PAUSED, of=q.CHOSEN_QUEUE),
            ((None, p.GREEN), (1, p.YELLOW)),
            width=3,
        ),
    ]


def _flow() -> list[Any]:
    def of_types(title: str, description: str, counter: t.Instrument) -> Any:
        series = Series(q.rate(counter, *BY_TYPE, of=q.CHOSEN), NAME)
        return p.chart(title, description, p.PER_SECOND, series, width=8)

    return [
        p.row("Flow"),
        of_types("Submitted", "Jobs accepted a second.", t.SUBMITTED),
        of_types("Started", "Attempts given to workers a second; above submitted by the retries.", t.STARTED),
        of_types("Completed", "Jobs a second whose handler returned.", t.COMPLETED),
        p.chart(
            "By state",
            "Jobs that have not ended, of the chosen types.",
            p.COUNT,
            Series(q.total(t.JOBS, of=f'{q.CHOSEN}, state="active"'), "active", p.YELLOW),
            Series(q.total(t.JOBS, of=f'{q.CHOSEN}, state="waiting"'), "waiting", p.BLUE),
            Series(q.total(t.JOBS, of=f'{q.CHOSEN}, state="delayed"'), "delayed", p.PURPLE),
            width=8,
            stacked=True,
        ),
        p.chart(
            "Backlog and load, by queue",
            "What could run; and with what runs already, which is what workers are needed for.",
            p.COUNT,
            Series(q.most(t.BACKLOG, "queue", of=q.CHOSEN_QUEUE), "{{queue}} backlog"),
            Series(q.most(t.LOAD, "queue", of=q.CHOSEN_QUEUE), "{{queue}} load"),
            width=8,
        ),
        p.chart(
            "Ended, by queue",
            "Jobs that ended in the last minute, a second.",
            *(p.PER_SECOND, Series(q.most(t.THROUGHPUT, "queue", of=q.CHOSEN_QUEUE), "{{queue}}")),
            width=8,
        ),
    ]


def _times() -> list[Any]:
    def of_types(title: str, description: str, histogram: t.Instrument) -> list[Any]:
        series = [Series(q.quantile(0.5, histogram, of=q.CHOSEN), "p50 of all chosen", p.BLUE)]
        series.append(Series(q.quantile(0.95, histogram, *BY_TYPE, of=q.CHOSEN), f"p95 {NAME}"))
        return [p.chart(title, description, p.SECONDS, *series, width=8)]

    return [
        p.row("Times"),
        *of_types("Wait", "From when a job was ready to when its attempt started.", t.WAIT),
        *of_types("Run", "How long attempts ran, however they ended.", t.RUN),
        *of_types("From submission to end", "With all delays and retries.", t.WHOLE),
    ]


def _failures() -> list[Any]:
    return [
        p.row("What goes wrong"),
        p.chart(
            "Retried",
            "Attempts a second that failed and were repeated: what handlers call is not well.",
            *(p.PER_SECOND, Series(q.rate(t.RETRIED, *BY_TYPE, of=q.CHOSEN), NAME)),
            width=8,
        ),
        p.chart(
            "Given up",
            "Jobs a second whose attempts were spent, or whose error allowed no other.",
            *(p.PER_SECOND, Series(q.rate(t.FAILED, *BY_TYPE, of=q.CHOSEN), NAME)),
            width=8,
        ),
        p.chart(
            "Given up, by why",
            "permanent: the handler said so; exhausted: no attempts left; crashed: it killed its workers; "
            "expired: too old to start.",
            *(
                p.PER_SECOND,
                Series(q.rate(t.DEAD_LETTERS, "queue", "reason", of=q.CHOSEN_QUEUE), "{{queue}} {{reason}}"),
            ),
            width=8,
        ),
    ]


def _with_workers() -> list[Any]:
    return [
        p.row("With workers"),
        p.chart(
            "Attempts without an end",
            "Lease expired: the worker died or was silent; released: it gave the job back, as at a deploy.",
            p.PER_SECOND,
            Series(q.rate(t.LEASE_EXPIRED, of=q.CHOSEN), "lease expired", p.RED),
            Series(q.rate(t.RELEASED, of=q.CHOSEN), "released", p.GREY),
            width=8,
        ),
        p.chart(
            "On request",
            "Jobs that people or programs cancelled, or took up again after their end.",
            p.PER_SECOND,
            Series(q.rate(t.CANCELLED, of=q.CHOSEN), "cancelled", p.PURPLE),
            Series(q.rate(t.REQUEUED, of=q.CHOSEN), "requeued", p.BLUE),
            width=8,
        ),
        p.chart(
            "Delivered, by consumer",
            "Jobs delivered and not ended. `parked` holds retries and delayed jobs.",
            *(
                p.COUNT,
                Series(q.most(t.PENDING, "queue", "consumer", of=q.CHOSEN_QUEUE), "{{queue}} {{consumer}}"),
            ),
            width=8,
        ),
        p.chart(
            "Due and not taken",
            "Retries and delayed jobs whose time has come. More than a moment: no worker is free.",
            *(p.COUNT, Series(q.most(t.DUE, "queue", of=q.CHOSEN_QUEUE), "{{queue}}")),
        ),
        p.chart(
            "Lost a worker",
            "Jobs that have lost a worker at least once and have not ended: they may be what kills it.",
            *(p.COUNT, Series(q.most(t.CRASHED, "queue", of=q.CHOSEN_QUEUE), "{{queue}}")),
        ),
    ]
