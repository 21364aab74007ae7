"""Many jobs at once: an order (core/jobs/bulk.py) looked at beforehand, and carried out.

Every act is a script that looks again at each job (core/control.py); who has moved on meanwhile is
passed over. An order acts on what was so when it was asked for: on no job that was submitted later,
and, but for `cancel`, on none to which something has happened since. So it comes to an end however much
goes on meanwhile, and can be carried out again from its beginning.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.control import Control, Standing
from penstock.core.jobs.bulk import QUEUE, Bulk
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START, order
from penstock.projections.details import JobSummary, summary
from penstock.projections.filters import Found, Search

SAMPLES: Final = 10
PREVIEW_S: Final = 10.0  # how long a dry run counts
# How long to wait for views that lag behind, so that what was done before the order counts too.
CATCH_UP_S: Final = 5.0
_LOOK_S: Final = 0.01


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
        self._keys: Final = keys
        self._order: Final = asked_for
        self._asked: Final = asked
        self._but: Final = but
        self._patience = CATCH_UP_S

    async def preview(self) -> Preview:
        """Count, for ten seconds at most."""
        told, began = Preview(0, True, []), time.monotonic()
        async for search in self._searches(full=False):
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
        searches = [search async for search in self._searches(full=True)]
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

    async def _searches(self, *, full: bool) -> AsyncIterator[Search]:
        """One for each queue that is meant, once its views have seen what its log holds now. Operations
        like this one are meant only by the name of their queue."""
        for name in sorted(await command(self._redis, "SMEMBERS", self._keys.queues)):
            queue = name.decode()
            if queue == self._order.filter.queue or (not self._order.filter.queue and queue != QUEUE):
                keys = self._keys.partition(queue)
                await self._seen(keys)
                settled = self._order.act != "cancel"
                yield Search(self._redis, keys, self._order, asked=self._asked, settled=settled, full=full)

    async def _seen(self, keys: PartitionKeys) -> None:
        tip = order(await Log(self._redis, keys).tip())
        while self._patience > 0:
            seen: bytes | None = await command(self._redis, "GET", keys.checkpoint)
            if order(seen.decode() if seen else START) >= tip:
                return
            self._patience -= _LOOK_S
            await asyncio.sleep(_LOOK_S)
