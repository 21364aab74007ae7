"""Verify a partition: fold its log once more, and compare with it all that stands beside the log.

    views       rows, indexes, counts, minutes, events of no job      comparing.py
    jobs        each that has not ended stands in a lane, and none else   standing.py
    scripts     pending entries, times, turns, groups, unique keys, ...  auditing.py
    the rest    how the queue is governed, keys that never end        keeping.py

Nothing has to stand still for it, and nothing is found on a system that is in order, however busy. The memory
it takes here does not grow with the log; on the server the shadow takes as much as the views, for as long as
it lasts.

What is repaired is made to agree with the log, by scripts that look once more. Each repair is a line in the
program's log, not an event: nothing has happened to a job whose index was mended. Only where a job is moved
(into a lane again, or to its end) its own story tells it, as of any other move.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.errors import Unavailable
from penstock.core.keys import PartitionKeys
from penstock.projections.rebuild import Anew, Gone, Tell, shadowing
from penstock.projections.replay.auditing import Audit
from penstock.projections.replay.comparing import Comparison
from penstock.projections.replay.findings import Finding, Findings
from penstock.projections.replay.keeping import Keeping
from penstock.projections.replay.standing import Standings
from penstock.projections.snapshots import forget

_TRIES: Final = 5

Plan = Callable[[Sequence[Finding]], None]


class Verified(msgspec.Struct, frozen=True):
    """What was looked at (events of the log, trimmed ones included, rows, lane entries), and what was found:
    the first 1,000 findings and how many more there are. `repaired`: how many of them were put right.
    `history`: jobs that were imported before they had ended, and are in no lane for that."""

    queue: str
    events: int
    rows: int
    entries: int
    seconds: float
    findings: list[Finding]
    more: int
    repaired: int
    history: int


async def verify(
    redis: Redis,
    keys: PartitionKeys,
    *,
    tell: Tell | None = None,
    mend: Plan | None = None,
    imported: bool = False,
) -> Verified:
    """Look at a partition; with `mend` put right what is wrong, after telling it what will be done. With
    `imported` that is also the case of jobs that were imported before they had ended: they are to run.

    `tell` hears how far the fold is. Raises Unavailable where no projector brings the views near to the log's
    end, or where rebuilds take the shadow away again and again; RedisError or OSError as `rebuild`.
    """
    for _ in range(_TRIES):
        began = time.monotonic()
        try:
            async with shadowing(redis, keys, tell) as anew:
                return await _Look(redis, keys, anew, began, imported=imported).run(mend)
        except Gone:
            continue
    raise Unavailable(f"the views of {keys.queue} are rebuilt again and again: verify them when that is over")


class _Look:
    """One look at a partition, beside a shadow."""

    def __init__(
        self, redis: Redis, keys: PartitionKeys, anew: Anew, began: float, *, imported: bool
    ) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._anew: Final = anew
        self._began: Final = began
        self._imported: Final = imported
        self._rows = self._entries = self._history = 0

    async def run(self, plan: Plan | None) -> Verified:
        await self._anew.fold()
        views, work = Findings(), Findings()
        async with self._anew.following():
            await self._compare(views)
            await self._look(work)
        found = [*views.listed, *work.listed]
        events = (await self._anew.shadow.progress()).done
        repaired = 0
        if plan is not None and (planned := [it for it in found if it.repair]):
            plan(planned)
            repaired = await self._mend(views)
        else:
            await self._anew.shadow.leave()
        took = time.monotonic() - self._began
        counts = (events, self._rows, self._entries, took)
        return Verified(self._keys.queue, *counts, found, views.more + work.more, repaired, self._history)

    async def _compare(self, findings: Findings) -> None:
        comparison = Comparison(self._redis, self._keys, self._anew, findings)
        await comparison.run()
        self._rows = comparison.rows

    async def _look(self, findings: Findings, *, mend: bool = False) -> None:
        audit = Audit(self._redis, self._keys, findings)
        await Keeping(self._redis, self._keys, findings).run(mend=mend)
        if await audit.opened(mend=mend):
            standings = Standings(self._redis, self._keys, audit, findings, imported=self._imported)
            await standings.run(mend=mend)
            await audit.run(mend=mend)
            self._entries, self._history = standings.entries, standings.history

    async def _mend(self, views: Findings) -> int:
        """Put the work right, then the views; answers how many things."""
        done = Findings()
        async with self._anew.following():
            await self._look(done, mend=True)
        count = sum(1 for it in done.listed if it.repair) + done.more
        if views.listed:
            await forget(self._redis, self._keys)
            await self._anew.switch()
            count += len(views.listed) + views.more
        else:
            await self._anew.shadow.leave()
        return count
