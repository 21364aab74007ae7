"""Jobs against their entries: each job that has not ended stands in a lane, and what stands there has not
ended.

The shadow, which is folded from the log and follows it, names the suspects; then the job's own story is read
to the log's end, and decides. A job that is under way all the while is no finding: every step of it is an
event, written in one step with what it does to the entry.

A job that was imported (importing.py) before it had ended is history, and belongs in no lane, until somebody
asks for these to run.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.control import Standing, extra_of, standing
from penstock.core.dispatch import Script
from penstock.core.events import Event, Failed, Released, Rescheduled, encode
from penstock.core.keys import GROUP, LANES, PARKED, PartitionKeys
from penstock.core.lifecycle import TERMINAL, Job, fold_all, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import START, order, packed, unpacked
from penstock.core.story import tell
from penstock.projections.replay.auditing import PAGE, Audit, packed_or_none
from penstock.projections.replay.findings import Finding, Findings
from penstock.projections.views import read_stats

BY: Final = "verify"
IMPORTED: Final = "imported"  # field of the base: up to which position the log was imported
_LIVE: Final = ("waiting", "delayed", "active")
_LOST: Final = Failed("lost", "LogTrimmed", "its submitted event is no longer in the log")

_log: Final = logging.getLogger("penstock.verify")


class Standings:
    """Looks at the jobs of one partition, by a shadow that is folded on meanwhile."""

    _mend: Final = Script("mend", entries=True)

    def __init__(
        self, redis: Redis, keys: PartitionKeys, audit: Audit, findings: Findings, *, imported: bool
    ) -> None:
        """With `imported`, jobs that came before they had ended are to run, like others."""
        self.entries = self.history = 0
        self._redis: Final = redis
        self._keys: Final = keys
        self._audit: Final = audit
        self._findings: Final = findings
        self._log: Final = Log(redis, keys)
        self._imported: Final = imported
        self._brought = START

    async def run(self, *, mend: bool = False) -> None:
        """Add each finding; with `mend` it is put right."""
        await self.run_entries(mend=mend)
        await self.run_jobs(mend=mend)

    async def run_entries(self, *, mend: bool) -> None:
        """What stands in a lane belongs to a job that has not ended, and says where to read what to do."""
        async for lane, page in self._audit.entries():
            self.entries += len(page)
            jobs = [(job or entry).decode(errors="replace") for entry, job, *_ in page]
            specs = [(spec or entry).decode(errors="replace") for entry, _, spec, *_ in page]
            rows = await self._rows(jobs)
            known = {place for job, row in rows.items() for place in positions(job, row)}
            known |= await self._there([spec for spec in specs if spec not in known])
            for (entry, *_), job, spec in zip(page, jobs, specs, strict=True):
                row = rows.get(job)
                if spec not in known:
                    await self._tell_entry(lane, entry.decode(), job, "lost", mend=mend)
                elif row is None or row.state in TERMINAL:
                    await self._tell_entry(lane, entry.decode(), job, "over", mend=mend)

    async def _tell_entry(self, lane: int, entry: str, job: str, how: str, *, mend: bool) -> None:
        story = await self._story(job)
        row = fold_all(story)
        over = row is None or row.state in TERMINAL
        if (how == "over" and not over) or not await self._stands(lane, entry):
            return
        where = f"{entry} in {LANES[lane - 1]}, of {self._keys.job_id(job)}"
        state = "that the log does not know" if row is None else f"that is {row.state}"
        if over:
            told = (f"an entry of a job {state}", "none", "its end was written by hand, or the log was cut")
            repair = "take the entry away"
        else:
            told = ("what it is to do is not in the log", "its event", "the log was trimmed by hand")
            repair = "dead-letter the job as lost"
        self._findings.add(Finding("entry", where, *told, repair))
        if mend:
            newest = story[-1].position if story else await self._log.tip()
            body = b"" if over else encode(_LOST)
            await self._do(job, newest, repair, "withdraw", lane, entry, body)

    async def run_jobs(self, *, mend: bool) -> None:
        """Each job that has not ended stands in a lane."""
        if brought := await command(self._redis, "HGET", self._keys.base, IMPORTED):
            self._brought = brought.decode()
        raw = await command(self._redis, "GET", self._keys.shadow.stats)
        for type in read_stats(raw).types if raw else ():
            for state in _LIVE:
                after = b"-"
                while places := await command(
                    *(self._redis, "ZRANGEBYLEX", self._keys.shadow.index(state, type)),
                    *(after, "+", "LIMIT", 0, PAGE),
                ):
                    await self._look(places, mend=mend)
                    after = b"(" + places[-1]

    async def _look(self, places: Sequence[bytes], *, mend: bool) -> None:
        rows = await command(self._redis, "HMGET", self._keys.shadow.jobs, *places)
        jobs = [(unpacked(it), read_row(raw)) for it, raw in zip(places, rows, strict=True) if raw]
        stories = {job: positions(job, row) for job, row in jobs}
        if not self._imported:
            known = len(stories)
            stories = {job: told for job, told in stories.items() if not self._is_history(told[-1])}
            self.history += known - len(stories)
        # The newest first, as that is the likely one after the very first.
        entries = [[job, *reversed(told[1:][-1_000:])] for job, told in stories.items()]
        suspects = list(stories)
        for number in await self._audit.absent(entries):
            await self._tell_job(suspects[number], mend=mend)

    def _is_history(self, newest: str) -> bool:
        """Whether a job came by an import, and nothing has happened to it since."""
        return order(newest) <= order(self._brought)

    async def _tell_job(self, job: str, *, mend: bool) -> None:
        story = await self._story(job)
        stands, row = standing(story), fold_all(story)
        if stands is None or row is None or row.state in TERMINAL:
            return
        if not await self._audit.absent([stands.entries]) or len(await self._story(job)) != len(story):
            return
        cause = "its entry was deleted by hand, or the server lost its newest writes"
        if self._is_history(story[-1].position):
            cause = "it was imported before it had ended"
        repair = "put it into a lane again, as a rescheduled job"
        where = self._keys.job_id(job)
        self._findings.add(Finding("job", where, f"{row.state}, in no lane", "an entry", cause, repair))
        if mend:
            await self._do(job, story[-1].position, repair, "place", *_placing(stands, row, story))

    async def _do(self, job: str, newest: str, what: str, *args: Any) -> None:
        done = await self._mend(self._redis, self._keys.entries, (GROUP, PARKED, job, newest, *args))
        words = what if done else "it has moved on by itself"
        _log.warning("%s: %s: %s", self._keys.name, self._keys.job_id(job), words)

    async def _story(self, job: str) -> list[Event]:
        try:
            return await tell(self._redis, self._keys.shadow, job)
        except ValueError:  # a foreign hand may write anything into a lane
            return []

    async def _stands(self, lane: int, entry: str) -> bool:
        return bool(await command(self._redis, "XRANGE", self._keys.lanes[lane - 1], entry, entry))

    async def _there(self, places: Sequence[str]) -> set[str]:
        """Which of these events are in the log. (Those that a row lists were there a moment ago: their bodies
        need not be read for that.)"""
        sound = [it for it in places if packed_or_none(it)]
        return {event[0].decode() for event in await self._log.pick(sound)}

    async def _rows(self, jobs: Sequence[str]) -> dict[str, Job]:
        sound = [it for it in jobs if packed_or_none(it)]
        if not sound:
            return {}
        rows = await command(self._redis, "HMGET", self._keys.shadow.jobs, *map(packed, sound))
        return {job: read_row(raw) for job, raw in zip(sound, rows, strict=True) if raw}


def _placing(stands: Standing, row: Job, story: Sequence[Event]) -> list[Any]:
    """What mend.lua must know to put a job into a lane again. An attempt that was under way is not spent."""
    spent = row.attempt if row.state == "delayed" else max(row.attempt - 1, 0)
    specs = [it.position for it in story if it.tag in ("submitted", "requeued")]
    waits = row.state == "delayed"
    rescheduled = Rescheduled(at_once=not waits, run_at=row.ready if waits else 0, by=BY)
    return [
        *(row.state, spent, row.ready, specs[-1], extra_of(stands.spec), stands.spec.unique),
        *(encode(Released(BY, "its entry was lost")), encode(rescheduled)),
        *stands.entries,
    ]
