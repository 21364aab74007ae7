"""The vocabulary of metrics: every instrument, its name, unit, labels and meaning, in one place.

Nothing is measured or exported here: rooms that measure give samples of these instruments (core/probes.py),
and the process that runs them exports them (ui/metrics.py). `core/METRICS.md` is this list as a table.

Names and units are those of the OpenTelemetry semantic conventions where these have a metric of the same
meaning (`http.server.*`, `process.*`, `messaging.process.duration`), and `penstock.*` else. The attribute
that the conventions call messaging.destination.name is `queue` in all of them, so that they can be joined.
Labels are bounded: of each queue the 50 job types that came first are told apart, and 100 consumers; the
rest is told as `other`. No label is ever made of a job.

Two kinds of truth. What is counted from the log is exact, whatever crashed, and the same in each projector
that runs: `max by (queue, type)`, never a sum over projectors. What a process measures of itself begins
anew with it: sum those.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]

MAX_TYPES: Final = 50
MAX_CONSUMERS: Final = 100
OTHER: Final = "other"

# In s. As the conventions advise for HTTP servers; and for how late an event loop is.
HTTP_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
LOOP_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Instrument(msgspec.Struct, frozen=True):
    """One metric. `unit` as UCUM has it; `told_by`: the processes that export it, `log` for what each
    projector reads of the log and of Redis; `query`: an example in PromQL."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    told_by: str
    meaning: str
    query: str

    @property
    def prometheus(self) -> str:
        """The name that Prometheus knows it by."""
        plain = self.name.replace(".", "_")
        unit = {"s": "seconds", "By": "bytes", "{job}/s": "per_second"}.get(self.unit, "")
        if unit and not plain.endswith(f"_{unit}"):
            plain = f"{plain}_{unit}"
        return f"{plain}_total" if self.kind == "counter" else plain


_Q: Final = ("queue",)
_QT: Final = ("queue", "type")


def _jobs(name: str, meaning: str) -> Instrument:
    """A counter of what happened to jobs, from the log."""
    full = f"penstock.jobs.{name}"
    series = f"{full.replace('.', '_')}_total"
    query = f"sum by (queue) (max by (queue, type) (rate({series}[5m])))"
    return Instrument(full, "counter", "{job}", _QT, "log", meaning, query)


def _duration(name: str, meaning: str) -> Instrument:
    """A histogram of durations, from the log."""
    series = f"{name.replace('.', '_')}_seconds_bucket"
    query = f"histogram_quantile(0.99, sum by (le) (max by (queue, type, le) (rate({series}[5m]))))"
    return Instrument(name, "histogram", "s", _QT, "log", meaning, query)


def _state(name: str, unit: str, labels: tuple[str, ...], meaning: str, query: str = "") -> Instrument:
    """A gauge of how things stand, read from the log, its views and Redis."""
    made = Instrument(name, "gauge", unit, labels, "log", meaning, "")
    by = f" by ({', '.join(labels)})" if labels else ""
    return msgspec.structs.replace(made, query=query or f"max{by} ({made.prometheus})")


# What happened to jobs.

SUBMITTED: Final = _jobs("submitted", "jobs accepted")
STARTED: Final = _jobs("started", "attempts given to workers")
COMPLETED: Final = _jobs("completed", "jobs whose handler returned")
FAILED: Final = _jobs("failed", "jobs given up (dead letters)")
RETRIED: Final = _jobs("retried", "attempts that failed and were repeated")
LEASE_EXPIRED: Final = _jobs("lease_expired", "attempts whose worker fell silent")
RELEASED: Final = _jobs("released", "attempts that a worker gave back, none spent")
CANCELLED: Final = _jobs("cancelled", "jobs ended on request")
REQUEUED: Final = _jobs("requeued", "jobs that had ended and were taken up again")
DEAD_LETTERS: Final = Instrument(
    *("penstock.jobs.dead_letters", "counter", "{job}", ("queue", "reason"), "log"),
    "jobs given up, by why: permanent, exhausted, crashed, expired, lost",
    "max by (queue, reason) (increase(penstock_jobs_dead_letters_total[1h])) > 0",
)
TRIMMED: Final = Instrument(
    *("penstock.jobs.trimmed", "counter", "{job}", ("queue", "outcome"), "log"),
    "ended jobs that retention let go, by how they had ended",
    "sum by (queue) (max by (queue, outcome) (rate(penstock_jobs_trimmed_total[1h])))",
)
MISFITS: Final = Instrument(
    *("penstock.events.misfits", "counter", "{event}", _Q, "log"),
    "events that could not be read or fit no state: written by a foreign hand, or a defect",
    "max by (queue) (increase(penstock_events_misfits_total[1h])) > 0",
)
WAIT: Final = _duration("penstock.job.wait.duration", "from when a job was ready to when its attempt started")
RUN: Final = _duration(
    "messaging.process.duration", "how long attempts ran, however they ended; not of those whose worker died"
)
WHOLE: Final = _duration(
    "penstock.job.duration",
    "from a job's submission to its end (completed or failed), with all delays and retries",
)

# How queues stand.

JOBS: Final = _state(
    *("penstock.jobs", "{job}", ("queue", "type", "state")),
    "jobs that are kept, by state: waiting, delayed, active, completed, failed, cancelled",
    'sum by (queue) (max by (queue, type) (penstock_jobs{state="waiting"}))',
)
PAUSED: Final = _state("penstock.queue.paused", "", _Q, "1 while the queue gives out no jobs, else 0")
OLDEST: Final = _state(
    *("penstock.queue.oldest_waiting", "s", _Q),
    "how long ago the oldest waiting job was submitted; 0 if none waits",
    "max by (queue) (penstock_queue_oldest_waiting_seconds) > 300",
)
DUE: Final = _state(
    *("penstock.queue.due", "{job}", _Q),
    "retries and delayed jobs whose time has come and that no worker has taken yet",
)
CRASHED: Final = _state(
    *("penstock.queue.crashed", "{job}", _Q),
    "jobs that have lost a worker at least once and have not ended",
)
WORKERS: Final = _state(
    *("penstock.queue.workers", "{worker}", _Q),
    "workers that gave a sign of life within their lease",
    "max by (queue) (penstock_queue_workers) == 0",
)
PENDING: Final = _state(
    *("penstock.consumer.pending", "{job}", ("queue", "consumer")),
    "jobs delivered to a worker and not ended; the consumer `parked` holds retries and delayed jobs",
)

# What a scaler goes by.

BACKLOG: Final = _state(
    *("penstock.queue.backlog", "{job}", _Q),
    "jobs that could run now and do not: waiting, and due; 0 while the queue is paused",
)
LOAD: Final = _state(
    *("penstock.queue.load", "{job}", _Q),
    "backlog, and what runs: what workers are needed for; scale to this by jobs a worker",
)
THROUGHPUT: Final = _state(
    *("penstock.queue.throughput", "{job}/s", _Q),
    "jobs that ended in the last minute, a second",
)
PER_WORKER: Final = _state(
    *("penstock.queue.backlog_per_worker", "{job}", _Q),
    "backlog by living worker; with none, the backlog",
)
DRAIN_TIME: Final = _state(
    *("penstock.queue.drain_time", "s", _Q),
    "how long the backlog takes at the throughput of the last five minutes; 0 without a backlog, "
    "+Inf where nothing has ended",
    "max by (queue) (penstock_queue_drain_time_seconds) > 600",
)

# The log, its views, the server.

LOG_EVENTS: Final = _state("penstock.log.events", "{event}", _Q, "events in the log")
LOG_SIZE: Final = _state("penstock.log.size", "By", _Q, "memory of the log, sampled by Redis")
VIEWS_SIZE: Final = _state("penstock.views.size", "By", _Q, "memory of the rows of jobs, sampled by Redis")
LAG: Final = _state(
    *("penstock.projection.lag", "s", _Q),
    "age of the oldest event that the views have not seen; 0 if none",
    "max by (queue) (penstock_projection_lag_seconds) > 5",
)
UNSEEN: Final = _state("penstock.projection.unseen", "{event}", _Q, "events that the views have not seen")
READER_LAG: Final = _state(
    *("penstock.log.reader_lag", "s", _Q),
    "how far the slowest reader of the log (an archive, a webhook endpoint, a rebuild) is behind its newest "
    "event; retention removes nothing that a reader has not seen",
    "max by (queue) (penstock_log_reader_lag_seconds) > 3600",
)
REDIS_UP: Final = _state(
    *("penstock.redis.up", "", ()),
    "1 if Redis answered the projector in this scrape, 0 if not; then nothing else is told of log and Redis",
    "max(penstock_redis_up) == 0",
)
REDIS_MEMORY: Final = _state("penstock.redis.memory.usage", "By", (), "memory that Redis has allocated")
REDIS_LIMIT: Final = _state(
    *("penstock.redis.memory.limit", "By", ()),
    "maxmemory; absent where none is set",
    "max(penstock_redis_memory_usage_bytes) / max(penstock_redis_memory_limit_bytes) > 0.8",
)
LOSS_WINDOW: Final = _state(
    *("penstock.redis.loss_window", "s", ()),
    "how much accepted work a crash of Redis can lose, by appendfsync: always 0, everysec 1; +Inf for no, "
    "or without an append-only file; absent where the server does not say",
    "max(penstock_redis_loss_window_seconds) > 1",
)
AOF_OK: Final = _state(
    *("penstock.redis.aof.ok", "", ()),
    "1 if the last write and the last rewrite of the append-only file went well, else 0",
    "min(penstock_redis_aof_ok) == 0",
)
REDIS_CLIENTS: Final = _state("penstock.redis.clients", "{connection}", (), "connections that Redis serves")
SCRIPTS: Final = Instrument(
    *("penstock.redis.script.duration", "histogram", "s", (), "log"),
    "how long scripts kept Redis busy, by its own clock (LATENCY HISTOGRAM evalsha), since it started",
    "histogram_quantile(0.99, max by (le) (rate(penstock_redis_script_duration_seconds_bucket[5m])))",
)

# What a process measures of itself.

HTTP_DURATION: Final = Instrument(
    *("http.server.request.duration", "histogram", "s"),
    ("http.request.method", "http.response.status_code", "http.route"),
    "api, dashboard",
    "how long requests took; a live feed counts until its first byte. The route is the template, never "
    "the path, and empty where there is none",
    "histogram_quantile(0.9, sum by (le, http_route) "
    "(rate(http_server_request_duration_seconds_bucket[5m])))",
)
HTTP_ACTIVE: Final = Instrument(
    *("http.server.active_requests", "gauge", "{request}", (), "api, dashboard"),
    "requests under way, live feeds among them",
    "sum(http_server_active_requests)",
)
SSE_CLIENTS: Final = Instrument(
    *("penstock.feed.clients", "gauge", "{client}", ("feed",), "api"),
    "clients that follow a live feed: exact or condensed",
    "sum by (feed) (penstock_feed_clients)",
)
SSE_DROPS: Final = Instrument(
    *("penstock.feed.drops", "counter", "{client}", ("feed",), "api"),
    "clients of a live feed that did not keep up and were told to begin anew",
    "sum by (feed) (rate(penstock_feed_drops_total[5m]))",
)
BUFFERED: Final = Instrument(
    *("penstock.submissions.buffered", "gauge", "{job}", _Q, "api"),
    "submissions that wait for the script call before them",
    "sum by (queue) (penstock_submissions_buffered)",
)
SLOTS: Final = Instrument(
    *("penstock.worker.slots", "gauge", "{slot}", ("state",), "workers"),
    "slots of this worker: busy, free, or stuck (a thread outlived its attempt)",
    'sum(penstock_worker_slots{state="busy"}) / sum(penstock_worker_slots)',
)
LOOP_LAG: Final = Instrument(
    *("penstock.event_loop.lag", "histogram", "s", (), "every process"),
    "how much later than asked for the event loop woke, asked four times a second",
    "histogram_quantile(0.99, sum by (le, job) (rate(penstock_event_loop_lag_seconds_bucket[5m])))",
)
CPU_TIME: Final = Instrument(
    *("process.cpu.time", "counter", "s", ("cpu.mode",), "every process"),
    "processor time, user and system",
    "sum by (instance) (rate(process_cpu_time_seconds_total[5m]))",
)
MEMORY: Final = Instrument(
    *("process.memory.usage", "gauge", "By", (), "every process"),
    "resident memory",
    "max by (instance) (process_memory_usage_bytes)",
)
THREADS: Final = Instrument(
    *("process.thread.count", "gauge", "{thread}", (), "every process"),
    "threads of Python",
    "max by (instance) (process_thread_count)",
)
FILES: Final = Instrument(
    *("process.unix.file_descriptor.count", "gauge", "{file_descriptor}", (), "every process"),
    "open files and sockets; absent where the system does not tell (no /proc)",
    "max by (instance) (process_unix_file_descriptor_count)",
)
UPTIME: Final = Instrument(
    *("process.uptime", "gauge", "s", (), "every process"),
    "how long the process runs",
    "min by (instance) (process_uptime_seconds) < 60",
)

INSTRUMENTS: Final = tuple(it for it in list(globals().values()) if isinstance(it, Instrument))
"""All of them, in the order of this file."""


def table() -> Iterator[str]:
    """The lines of core/METRICS.md."""
    yield from ("# Metrics", "")
    yield from (__doc__ or "").split("\n\n", 2)[2].rstrip().splitlines()
    yield from ("", "| in Prometheus | name | kind | unit | labels | told by | meaning | for example |")
    yield "|---" * 8 + "|"
    for it in INSTRUMENTS:
        labels = ", ".join(label.replace(".", "_") for label in it.labels)
        cells = (
            *(f"`{it.prometheus}`", f"`{it.name}`", it.kind, it.unit, labels, it.told_by, it.meaning),
            f"`{it.query}`",
        )
        yield f"| {' | '.join(cells)} |"
