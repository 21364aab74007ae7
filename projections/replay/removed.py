"""Jobs that fit a filter, of those that retention has removed: told by the archive, a page at a time.

What `Search` of filters.py is for the jobs that are kept, this is for those that no view tells of any more:

    submitted   whatever was submitted in the stretch that is meant, fits, and has no row now, some at a time
    fates       each folded from its own events, from there on, until all have been let go
    pages       those that ended as is meant and fit, in the order in which they were submitted

The log is gone through anew for each `SLICE` of jobs: so memory stays bounded, and a filter that names a
time or a type is the faster for it. While nothing is found, pages with no job tell that it goes on.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import msgspec

from penstock.core.connection import command
from penstock.core.log import Log
from penstock.core.positions import order, packed
from penstock.projections.filters import PAGE, Found, Page, Reading, Search, Selection
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.grep import pages
from penstock.projections.replay.history import Fates, following, opened
from penstock.projections.replay.sieve import Sieve, Sought
from penstock.projections.replay.span import Span

SLICE: Final = 50_000  # jobs whose rows are in memory
SIGN_S: Final = 1.0  # how often a page with no job tells that it goes on
_SUBMITTED: Final = frozenset({"submitted"})


class Slice(msgspec.Struct):
    """Some of the jobs that are looked for, in order, and up to where they are all there are."""

    jobs: list[str]
    upto: str


class Removed:
    """What a search would find besides, if retention had removed nothing."""

    archived: Final = True

    def __init__(self, search: Search, archive: Archive) -> None:
        self.keys: Final = search.keys
        self.log: Log = search.log  # from the first page on, with the archive
        self._search: Final = search
        self._archive: Final = archive

    async def size(self) -> int:
        """How many jobs are to be looked at, about."""
        return await self._search.removed()

    async def pages(self, after: str = "", count: int = PAGE) -> AsyncIterator[Page]:
        """All that fits, from the job after a position on if one is given; up to `count` looked at at a time.
        Raises Refused: the archive cannot be read."""
        self.log, now = await opened(self._search.redis, self.keys, self._archive)
        since, until = self._search.bounds()
        reached, told = after or since, time.monotonic()
        while order(reached) < order(until):
            some, fates = Slice([], reached), Fates()
            async with aclosing(self._look(some, fates, until, now.last)) as looking:
                async for _ in looking:
                    if time.monotonic() - told > SIGN_S:
                        yield Page(0, reached, [])
                        told = time.monotonic()
            gone = [job for job in some.jobs if job in fates.gone and job in fates.rows]
            for start in range(0, len(gone), count):
                found = [Found(job, fates.rows[job]) for job in gone[start : start + count]]
                yield await self._fitting(found)
            reached = some.upto

    async def _look(self, some: Slice, fates: Fates, until: str, last: str) -> AsyncGenerator[None, None]:
        """Fill in the next jobs and what became of them, a page of the log at a time."""
        async with aclosing(self._submitted(some, until)) as reading:
            async for _ in reading:
                yield
        async with aclosing(following(self.log, some.jobs, fates, last)) as reading:
            async for _ in reading:
                yield

    async def _submitted(self, some: Slice, until: str) -> AsyncGenerator[None, None]:
        """Fill in the next jobs that were submitted and are no longer in the views."""
        wanted, after = self._search.filter, some.upto
        sieve = Sieve(Sought(type=wanted.type, tag=wanted.tag, events=_SUBMITTED), self.log, after)
        async with aclosing(pages(self.log, Span(after, until))) as reading:
            async for page in reading:
                jobs = [position.decode() for position, _ in await sieve.sift(page)]
                keys = [packed(job) for job in jobs]
                rows = await command(self.log.redis, "HMGET", self.keys.jobs, *keys) if jobs else []
                some.jobs += [job for job, row in zip(jobs, rows, strict=True) if row is None]
                some.upto = page[-1][0].decode()
                if len(some.jobs) >= SLICE:
                    return
                yield
        some.upto = until

    async def _fitting(self, jobs: list[Found]) -> Page:
        looked, last, search = len(jobs), jobs[-1].position, self._search
        ended = [it for it in jobs if it.row.state in search.states and search.is_settled(it)]
        if not (search.full and ended):
            return Page(looked, last, ended)
        fitting = await Reading(self.log, search.filter).fitting(ended)
        return Page(looked, last, fitting, gone=sum(job.standing is None for job in ended))


async def searches(
    selection: Selection, archive: Archive | None, *, full: bool
) -> AsyncIterator[Search | Removed]:
    """The searches of a selection, each followed by one through what was removed if there is an archive: so a
    job that is removed meanwhile is found by one of them."""
    async for search in selection.searches(full=full):
        yield search
        if archive is not None:
            yield Removed(search, archive)
