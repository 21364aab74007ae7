"""A rehearsal: a past stretch of a queue (projections) run with the handlers of this process (consumers), and
compared with what really happened."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from penstock.consumers.handlers import handlers
from penstock.consumers.rehearsal import (
    VERDICTS,
    Recorded,
    Rehearsed,
    TypeReport,
    Verdict,
    by_type,
    hidden,
    recorded,
)
from penstock.consumers.rehearsal_stage import ACT, open_stage
from penstock.core.artifacts import open_artifacts
from penstock.core.connection import command, connect
from penstock.core.jobs.bulk import Filter
from penstock.core.keys import Keys
from penstock.core.lifecycle import State, positions
from penstock.core.positions import START, before
from penstock.core.sealing import is_sealed
from penstock.core.settings import Settings
from penstock.projections.filters import Selection
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.history import opened
from penstock.projections.replay.removed import searches
from penstock.projections.replay.span import Span, partitions, partly

MAX_JOBS: Final = 100_000
MAX_TOLD: Final = 100
_TOLD: Final[tuple[Verdict, ...]] = ("worse", "differs", "better", "not run")


class Stretch(msgspec.Struct, frozen=True):
    """Which jobs: those of the filter (which names the queue) and of `types`, if any, that completed or
    failed; the first `limit` of them in the order of submission. `archived`: also jobs that retention has
    removed, after the others."""

    filter: Filter
    types: tuple[str, ...] = ()
    limit: int = 1_000
    archived: bool = False

    def states(self) -> tuple[State, ...]:
        """A rehearsal compares ends."""
        state = self.filter.state
        return ("completed", "failed") if state is None else (state,)


class Report(msgspec.Struct):
    """How a rehearsal went: jobs by verdict, over all and by type; and the first hundred jobs that went
    otherwise than then, or were not run, those that went worse first. `partial`: a sentence where retention
    has removed some of the stretch, which were not looked for."""

    jobs: int
    verdicts: dict[Verdict, int]
    types: list[TypeReport]
    told: list[Rehearsed]
    partial: str = ""

    @property
    def worse(self) -> int:
        """How many jobs completed then and fail now."""
        return self.verdicts.get("worse", 0)


class Rehearsal:
    """One rehearsal, with the handlers that this process has loaded. `stage`: where its own keys are, if on
    another server. `unseal`: tell what is sealed in the log."""

    def __init__(self, settings: Settings, *, stage: Settings | None = None, unseal: bool = False) -> None:
        self._settings: Final = settings
        self._stage: Final = stage or settings
        self._unseal: Final = unseal
        self.stuck = False  # whether a handler's thread never came back, so that Python would wait for it

    async def run(self, stretch: Stretch, *, at_once: int, report: Callable[[int], None]) -> Report:
        """Rehearse; `report` gets the number of jobs that are done. Leaves nothing behind, also where it is
        cancelled. Raises NotFound: there is no such queue."""
        partial = await self._partial(stretch)
        found: list[Rehearsed] = []
        told: dict[Verdict, list[Rehearsed]] = {}
        stage_of = open_stage(
            self._stage,
            stretch.filter.queue,
            handlers(),
            artifacts=open_artifacts(self._settings),
            at_once=at_once,
        )
        async with stage_of as stage:
            async for act in self._acts(stretch):
                for job, rehearsed in zip(act, await stage.rehearse(act), strict=True):
                    shown = self._unseal or not is_sealed(job.spec.payload)
                    found.append(
                        Rehearsed(job.id, rehearsed.type, rehearsed.verdict, rehearsed.then, rehearsed.now)
                    )
                    alike = told.setdefault(rehearsed.verdict, [])
                    if len(alike) < MAX_TOLD:
                        alike.append(rehearsed if shown else hidden(rehearsed))
                report(len(found))
            self.stuck = stage.stuck
        return msgspec.structs.replace(_report(found, told), partial=partial)

    async def _partial(self, stretch: Stretch) -> str:
        """What is said of jobs of the stretch that are no longer there."""
        keys, since = Keys(self._settings.namespace), stretch.filter.since
        async with connect(self._settings) as redis:
            known = await command(redis, "SMEMBERS", keys.queues)
            [partition] = partitions(keys, known, [stretch.filter.queue])
            archive = Archive(self._settings.archive_url) if stretch.archived else None
            _, now = await opened(redis, partition, archive)
        after = before(round(since.timestamp() * 1000)) if since else START
        return partly(partition, now, Span(after, now.last))

    async def _acts(self, stretch: Stretch) -> AsyncIterator[list[Recorded]]:
        """The jobs of the stretch with what became of them, some at a time."""
        keys, left = Keys(self._settings.namespace), stretch.limit
        async with connect(self._settings) as redis:
            seconds, micros = await redis.time()
            now = seconds * 1000 + micros // 1000
            archive = Archive(self._settings.archive_url) if stretch.archived else None
            selection = Selection(redis, keys, stretch, asked=now, settled=False)
            async for search in searches(selection, archive, full=False):
                async for page in search.pages(count=ACT):
                    jobs = [job for job in page.found if not stretch.types or job.row.type in stretch.types]
                    stories = [await search.log.read(positions(job.position, job.row)) for job in jobs[:left]]
                    told = [
                        recorded(search.keys.job_id(job.position), events)
                        for job, events in zip(jobs, stories, strict=False)
                    ]
                    act = [job for job in told if job is not None]
                    left -= len(act)
                    if act:
                        yield act
                    if left <= 0:
                        return


def _report(found: list[Rehearsed], told: dict[Verdict, list[Rehearsed]]) -> Report:
    verdicts = Counter(job.verdict for job in found)
    first = [job for verdict in _TOLD for job in told.get(verdict, [])][:MAX_TOLD]
    return Report(len(found), {it: verdicts[it] for it in VERDICTS if verdicts[it]}, by_type(found), first)
