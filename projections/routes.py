"""Reading over HTTP. The app gives `queries: Queries` and `reveal: bool` (may the caller see what is
sealed?) by dependency injection, and turns our errors into problem+json.
"""

from typing import Annotated, Final

from litestar import get
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from penstock.core.errors import NotFound
from penstock.core.lifecycle import State
from penstock.core.positions import parse_job_id
from penstock.projections.details import JobDetail
from penstock.projections.figures import QueueDetail
from penstock.projections.moments import moment
from penstock.projections.queries import EventPage, JobPage, Queries, QueueList
from penstock.projections.scaling import Scaling
from penstock.projections.travel import Span

MAX_WAIT_S: Final = 60
MAX_LIMIT: Final = 500

_FRESH: Final = CacheControlHeader(no_store=True)

Asked = NamedDependency[Queries]
MayReveal = NamedDependency[bool]
Queue = Annotated[str, PathParameter(description="The queue's name.")]
JobIdentity = Annotated[str, PathParameter(description="The job's whole id, like email.0.1795477369681-0.")]
Wait = Annotated[
    float,
    QueryParameter(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the job's end before answering."),
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many at most.")]
After = Annotated[str, QueryParameter(description="The `next` of the page before.", max_length=40)]
Cursor = Annotated[str | None, QueryParameter(description="The `next` of the page before.", max_length=80)]
At = Annotated[
    str,
    QueryParameter(
        description="As of this moment: ISO 8601 with a time zone, or Unix ms; see /span.", max_length=40
    ),
]
# Litestar keeps the name `state` for itself: hence its own name in the code.
OfState = Annotated[State | None, QueryParameter(name="state", description="Only jobs in this state.")]
OfType = Annotated[str | None, QueryParameter(description="Only jobs of this type.", max_length=300)]


@get(
    "/jobs/{queue:str}/{job_id:str}",
    cache_control=_FRESH,
    summary="A job",
    operation_id="getJob",
    tags=["jobs"],
)
async def get_job(
    queries: Asked, reveal: MayReveal, queue: Queue, job_id: JobIdentity, wait: Wait = 0, at: At = ""
) -> JobDetail:
    """As the log has it at this moment, or with `wait` as soon as it has ended; or as it was."""
    _belongs(job_id, queue)
    if at:
        return await queries.job_at(job_id, moment("at", at))
    return await (queries.wait(job_id, wait, reveal=reveal) if wait else queries.job(job_id, reveal=reveal))


@get(
    "/jobs/{queue:str}/{job_id:str}/events",
    cache_control=_FRESH,
    summary="A job's history",
    operation_id="getJobEvents",
    tags=["jobs"],
)
async def get_events(
    queries: Asked,
    reveal: MayReveal,
    queue: Queue,
    job_id: JobIdentity,
    after: After = "",
    limit: Limit = 100,
) -> EventPage:
    """Its events straight from the log, oldest first."""
    _belongs(job_id, queue)
    return await queries.events(job_id, after=after, limit=limit, reveal=reveal)


@get(
    "/jobs/{queue:str}",
    cache_control=_FRESH,
    summary="The jobs of a queue",
    operation_id="listJobs",
    tags=["jobs"],
)
async def list_jobs(
    queries: Asked,
    queue: Queue,
    in_state: OfState = None,
    type: OfType = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    at: At = "",
) -> JobPage:
    """Newest first; as fresh as the queue's views, or as it was."""
    if at:
        past = moment("at", at)
        return await queries.jobs_at(queue, past, state=in_state, type=type, cursor=cursor, limit=limit)
    return await queries.jobs(queue, state=in_state, type=type, cursor=cursor, limit=limit)


@get(
    "/queues",
    cache_control=_FRESH,
    summary="All queues with their figures",
    operation_id="listQueues",
    tags=["queues"],
)
async def list_queues(queries: Asked, at: At = "") -> QueueList:
    """By name; now, or as they were."""
    return await (queries.queues_at(moment("at", at)) if at else queries.queues())


@get(
    "/queues/{queue:str}",
    cache_control=_FRESH,
    summary="A queue's figures",
    operation_id="getQueue",
    tags=["queues"],
)
async def get_queue(queries: Asked, queue: Queue, at: At = "") -> QueueDetail:
    """Counts by state, rates, how long jobs wait and run. All projected, never counted on request. With
    `at` as it was, rates and durations those of the whole minutes before."""
    return await (queries.queue_at(queue, moment("at", at)) if at else queries.queue(queue))


@get(
    "/queues/{queue:str}/scaling",
    cache_control=_FRESH,
    summary="How many workers a queue needs",
    operation_id="getScaling",
    tags=["queues"],
)
async def get_scaling(queries: Asked, queue: Queue) -> Scaling:
    """For a scaler: the load (by the jobs that a worker should have, it is how many workers), and how
    long the backlog takes. Counted from the queue itself, so true when no projector runs."""
    return await queries.scaling(queue)


@get(
    "/span",
    cache_control=_FRESH,
    summary="How far back one can look",
    operation_id="getSpan",
    tags=["queues"],
)
async def get_span(queries: Asked) -> Span:
    """From when on `at` can be answered, about, by queue: as far back as the log and the snapshots go, or
    as 300,000 events go."""
    return await queries.span()


def _belongs(job_id: str, queue: str) -> None:
    """Raises NotFound for a job of another queue."""
    if parse_job_id(job_id).queue != queue:
        raise NotFound(f"no job {job_id} in queue {queue!r}")


query_routes: Final[list[HTTPRouteHandler]] = [
    *(get_job, get_events, list_jobs, list_queues, get_queue, get_scaling, get_span),
]
"""The handlers of this file."""
