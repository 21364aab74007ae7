"""Many jobs at once: an order (core/jobs/bulk.py) looked at beforehand, and carried out.

Every act is a script that looks again at each job (core/control.py); who has moved on meanwhile is
passed over. An order acts on what was so when it was asked for: on no job that was submitted later,
and, but for `cancel`, on none to which something has happened since. So it comes to an end however much
goes on meanwhile, and can be carried out again from its beginning.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.control import Control, Standing
from penstock.core.jobs.bulk import Bulk
from penstock.core.keys import Keys, PartitionKeys
from penstock.projections.details import JobSummary, summary
from penstock.projections.filters import Found, Selection

SAMPLES: Final = 10
PREVIEW_S: Final = 10.0  # how long a dry run counts


class Preview(msgspec.Struct):
    """What an order would act on: how many jobs, and the first ten. `complete` is false where counting
    took too long, and there may be more."""

    count: int
    complete: bool
    samples: list[JobSummary]


class Outcome(msgspec.Struct):
    """What an order has done so far: jobs looked at, those that fit, and those acted on. The others had
    moved on in between, or had been acted on before."""

    looked: int = 0
    matched: int = 0
    done: int = 0


class Operation:
    """One order, asked for at a moment (Unix ms). `but`: id of a job to leave alone."""

    def __init__(self, redis: Redis, keys: Keys, asked_for: Bulk, *, asked: int, but: str = "") -> None:
        self._redis: Final = redis
        self._order: Final = asked_for
        self._but: Final = but
        settled = asked_for.act != "cancel"
        self._selection: Final = Selection(redis, keys, asked_for, asked=asked, settled=settled)

    async def preview(self) -> Preview:
        """Count, for ten seconds at most."""
        told, began = Preview(0, True, []), time.monotonic()
        async for search in self._selection.searches(full=False):
            async for page in search.pages():
                told.count += len(page.found)
                for job in page.found[: SAMPLES - len(told.samples)]:
                    told.samples.append(summary(search.keys, job.position, job.row))
                if time.monotonic() - began > PREVIEW_S:
                    told.complete = False
                    return told
        return told

    async def run(self, by: str, report: Callable[[float, Outcome], None]) -> Outcome:
        """Carry it out; `report` gets how far it is (0 to 1) after each page. Stops between two pages
        when it is cancelled: what is done is done."""
        outcome = Outcome()
        searches = [search async for search in self._selection.searches(full=True)]
        total = sum([await search.size() for search in searches])
        for search in searches:
            control = Control(self._redis, search.keys)
            async for page in search.pages():
                outcome.looked += page.looked
                stands = self._meant(search.keys, page.found)
                outcome.matched += len(stands)
                outcome.done += sum(await self._act(control, stands, by)) if stands else 0
                report(min(1.0, outcome.looked / max(total, 1)), outcome)
        return outcome

    def _meant(self, keys: PartitionKeys, found: list[Found]) -> list[Standing]:
        return [
            job.standing
            for job in found
            if job.standing is not None and keys.job_id(job.position) != self._but
        ]

    async def _act(self, control: Control, jobs: list[Standing], by: str) -> list[bool]:
        match self._order.act:
            case "retry":
                return await control.requeue(jobs, by=by)
            case "cancel":
                return [was != "over" for was in await control.cancel(jobs, by=by, reason="many at once")]
            case "discard":
                return await control.dismiss(jobs, by=by, reason="many at once")
            case "promote":
                return await control.reschedule(jobs, by=by, at_once=True)
            case "reprioritize":
                return await control.reschedule(jobs, by=by, priority=self._order.priority or "")
