"""Looking around over HTTP: charts, failures by error, a search that tells how far it is.

A search is answered as lines of JSON (NDJSON), sent as they come; who has seen enough goes away.
"""

import time
from collections.abc import AsyncGenerator
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter
from litestar.response import Stream
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.errors import NotFound, Unavailable
from penstock.core.keys import Keys
from penstock.core.settings import Settings
from penstock.projections.children import Children, children
from penstock.projections.failures import FailureList, Failures
from penstock.projections.known import Known, Vocabulary
from penstock.projections.moments import moment
from penstock.projections.routes import JobIdentity, OfState, Queue
from penstock.projections.search import End, Match, Progress, Search, Sought
from penstock.projections.series import Series, read_series

LINES: Final = "application/x-ndjson"
MAX_MATCHES: Final = 1_000
SEARCHES: Final = 4  # at a time
HOUR_MS: Final = 3_600_000

_FRESH: Final = CacheControlHeader(no_store=True)
_encode: Final = msgspec.json.Encoder().encode

Words = Annotated[str, QueryParameter(max_length=300)]
Moment = Annotated[str, QueryParameter(max_length=40, description="ISO 8601 with a time zone, or Unix ms.")]
From = Annotated[str, QueryParameter(name="from", max_length=40, description="ISO 8601, or Unix ms.")]
Until = Annotated[str, QueryParameter(name="to", max_length=40, description="ISO 8601, or Unix ms.")]
Step = Annotated[int, QueryParameter(ge=0, description="Seconds a point; 0: chosen by the length.")]
Matches = Annotated[int, QueryParameter(ge=1, le=MAX_MATCHES, description="How many at most.")]
Cursor = Annotated[str, QueryParameter(max_length=120, description="The `next` of the search before.")]


class Explorer:
    """What the routes share."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis: Final = redis
        self.keys: Final = Keys(settings.namespace)
        self.failures: Final = Failures(redis)
        self.vocabulary: Final = Vocabulary(redis)
        self._searches = 0

    async def queues(self, wanted: str = "") -> list[str]:
        """The queues there are, or the one that is wanted. Raises NotFound."""
        names = sorted(name.decode() for name in await command(self.redis, "SMEMBERS", self.keys.queues))
        if wanted and wanted not in names:
            raise NotFound(f"no queue {wanted!r}")
        return [wanted] if wanted else names

    async def search(self, sought: Sought, limit: int, cursor: str) -> AsyncGenerator[bytes, None]:
        """A search begun: its lines. Raises what is wrong with it before the first line."""
        if self._searches >= SEARCHES:
            raise Unavailable(f"{SEARCHES} searches are under way already", retry_after=2.0)
        steps = Search(self.redis, self.keys, sought, limit).run(await self.queues(sought.queue), cursor)
        return self._lines(await anext(steps), steps)

    async def _lines(
        self, first: Match | Progress | End, steps: AsyncGenerator[Match | Progress | End, None]
    ) -> AsyncGenerator[bytes, None]:
        self._searches += 1
        try:
            yield line(first)
            async for step in steps:
                yield line(step)
        finally:
            self._searches -= 1
            await steps.aclose()


def line(step: Match | Progress | End) -> bytes:
    """One line of the answer: `match`, `progress` or `end`, and what there is to it."""
    return _encode({type(step).__name__.lower(): step}) + b"\n"


def exploring_routes(redis: Redis, settings: Settings) -> list[HTTPRouteHandler]:
    """The handlers of this file."""
    explorer = Explorer(redis, settings)
    return [*(_series(explorer), _failures(explorer), _search(explorer)), *_relations(explorer)]


def _series(explorer: Explorer) -> HTTPRouteHandler:
    @get(
        "/queues/{queue:str}/series",
        cache_control=_FRESH,
        summary="A queue's figures over time",
        operation_id="getSeries",
        tags=["queues"],
    )
    async def get_series(queue: Queue, since: From = "", until: Until = "", step: Step = 0) -> Series:
        """Columns for charts, out of minutes that go back 48 hours; the last hour if nothing is said."""
        await explorer.queues(queue)
        end = moment("to", until) if until else int(time.time() * 1000)
        begin = moment("from", since) if since else end - HOUR_MS
        return await read_series(explorer.redis, explorer.keys.partition(queue), begin, end, step)

    return get_series


def _failures(explorer: Explorer) -> HTTPRouteHandler:
    @get(
        "/queues/{queue:str}/failures",
        cache_control=_FRESH,
        summary="Failed jobs by error",
        operation_id="groupFailures",
        tags=["queues"],
    )
    async def group_failures(queue: Queue, type: Words = "") -> FailureList:
        """The failed jobs of a queue, grouped by error and message without what differs in it: numbers,
        ids, addresses, paths, quoted words. Of more than 10,000 the newest."""
        await explorer.queues(queue)
        return await explorer.failures.groups(explorer.keys.partition(queue), type)

    return group_failures


def _search(explorer: Explorer) -> HTTPRouteHandler:
    @get("/jobs", media_type=LINES, summary="Search jobs", operation_id="searchJobs", tags=["jobs"])
    async def search_jobs(
        queue: Words = "",
        in_state: OfState = None,
        type: Words = "",
        tag: Words = "",
        worker: Words = "",
        error: Words = "",
        text: Words = "",
        origin: Words = "",
        since: From = "",
        until: Until = "",
        limit: Matches = 200,
        cursor: Cursor = "",
    ) -> Stream:
        """All jobs that fit all that is said, newest first, as lines of JSON while they are found:
        `{"match": …}`, now and then `{"progress": …}`, and `{"end": …}`. `from` and `to`: when they were
        submitted. `error`: a part of the last error as `Class: message`. `text`: in payload, result,
        error, progress or log. `origin`: the job, flow or redrive that they were made from. Ends after
        `limit` matches or a minute, with a cursor to go on from."""
        sought = Sought(
            queue=queue,
            state=in_state,
            type=type,
            tag=tag,
            worker=worker,
            error=error,
            text=text,
            origin=origin,
            since=moment("from", since) if since else 0,
            until=moment("to", until) if until else 0,
        )
        lines = await explorer.search(sought, limit, cursor)
        return Stream(
            lines, media_type=LINES, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    return search_jobs


def _relations(explorer: Explorer) -> list[HTTPRouteHandler]:
    @get(
        "/jobs/{queue:str}/{job_id:str}/children",
        cache_control=_FRESH,
        summary="The jobs made from a job",
        operation_id="getJobChildren",
        tags=["jobs"],
    )
    async def get_children(queue: Queue, job_id: JobIdentity) -> Children:
        """Those that were made by running it again with another payload. Of the jobs of its type that came
        after its first end, the first 5,000 are looked at; `complete` says whether these were all."""
        return await children(explorer.redis, explorer.keys, queue, job_id)

    @get(
        "/known", cache_control=_FRESH, summary="Words to search by", operation_id="listKnown", tags=["jobs"]
    )
    async def list_known(queue: Words = "") -> Known:
        """Types, and the tags, workers and errors of the newest jobs, by which jobs can be found; up to
        15 s old."""
        queues = await explorer.queues(queue)
        return await explorer.vocabulary.known([explorer.keys.partition(name) for name in queues])

    return [get_children, list_known]
