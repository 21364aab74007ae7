"""Compaction: a day's many small segments become few, so that an archive of years is soon listed and read.

    look      at days that ended a day ago: nobody adds to them any more
    merge     a run of RUN or more segments that touch, as far as a segment may go, is put as one
    wait      for GRACE: whoever still goes by a listing without it finds all that this listing says
    remove    what a larger one covers, once that was read back and has each of its events

Killed at any point, no event is missing: what was merged covers what is still there, and the next round,
whoever's, goes on with that. A gap stays one: it is written down beside the segments. Snapshots are put
together likewise.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, passing
from penstock.core.errors import Refused
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.positions import order
from penstock.core.waiting import pause
from penstock.projections.replay.archive import Archive, Segment, Snapshots, Stored
from penstock.projections.replay.draft import SEGMENT_EVENTS, Draft

RUN: Final = 8
MERGED_BYTES: Final = 2 * 1024 * 1024  # compressed: more are not put together
MAX_SNAPSHOTS: Final = 500  # in one object
GRACE: Final = timedelta(hours=1)
ROUND_S: Final = 6 * 3600.0
_DAY_MS: Final = 24 * 3600 * 1000

_log: Final = logging.getLogger("penstock.archiver")


class Compaction:
    """One round over one log. Its calls block."""

    def __init__(
        self, archive: Archive, keys: PartitionKeys, epoch: str, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._archive: Final = archive
        self._keys: Final = keys
        self._epoch: Final = epoch
        self._stopped: Final = stopped

    def run(self, now: datetime) -> None:
        """Remove what is covered, and merge what is small and older than a day `now`. Raises Refused."""
        today = round(now.timestamp() * 1000) // _DAY_MS
        found = self._archive.listing(self._keys, self._epoch)
        for kind, most in ((Segment, SEGMENT_EVENTS), (Snapshots, MAX_SNAPSHOTS)):
            covers = covering([it for it in found if isinstance(it.it, kind)])
            for whole, parts in covers:
                if parts and now - whole.since >= GRACE and not self._stopped():
                    self._remove(whole, parts)
            for run in runs([whole for whole, _ in covers], most, today):
                self._merge([it.it for it in run])

    def _merge(self, run: Sequence[Segment | Snapshots]) -> None:
        """Put a run as one, or as a few where that would be too large."""
        while len(run) >= RUN and not self._stopped():
            if isinstance(run[0], Segment):
                merged = self._merge_segments([it for it in run if isinstance(it, Segment)])
            else:
                merged = self._merge_snapshots([it for it in run if isinstance(it, Snapshots)])
            run = run[merged:]

    def _merge_segments(self, run: Sequence[Segment]) -> int:
        """Answers how many there was room for."""
        draft, taken = Draft(self._keys, self._epoch, run[0].after), 0
        while taken < len(run) and not draft.full and not self._stopped():
            for entry in self._archive.read(self._keys, self._epoch, run[taken]):
                if order(entry[0].decode()) > order(draft.reached):  # where segments overlap
                    draft.write(entry)
            taken += 1
        if taken >= RUN:
            merged = self._archive.add(self._keys, *draft.finish())
            _log.debug("%s: %d segments are one: %s", self._keys.name, taken, merged.name)
        return taken

    def _merge_snapshots(self, run: Sequence[Snapshots]) -> int:
        copies = [it for those in run for it in self._archive.copies(self._keys, self._epoch, those)]
        once = dict(copies)
        self._archive.copy(self._keys, self._epoch, [(it, once[it]) for it in sorted(once, key=order)])
        return len(run)

    def _remove(self, whole: Stored, parts: Sequence[Stored]) -> None:
        """Remove parts, each if the whole has all that its name says."""
        if isinstance(whole.it, Segment):
            there = [it.decode() for it, _ in self._archive.read(self._keys, self._epoch, whole.it)]
        else:
            there = [it for it, _ in self._archive.copies(self._keys, self._epoch, whole.it)]
        places = [order(it) for it in there]
        for part in parts:
            if sum(part.begin < place <= part.end for place in places) == part.count:
                self._archive.remove(self._keys, self._epoch, part.it)
            else:
                _log.warning("%s: %s is not what %s has", self._keys.name, part.it.name, whole.it.name)


def covering(found: Sequence[Stored]) -> list[tuple[Stored, list[Stored]]]:
    """In order, all that no other one covers, each with those that it covers."""
    covers: list[tuple[Stored, list[Stored]]] = []
    for it in sorted(found, key=lambda it: (it.begin, (-it.end[0], -it.end[1]), it.it.name)):
        if not covers or it.end > covers[-1][0].end:
            covers.append((it, []))
        elif (it.begin, it.end) != (covers[-1][0].begin, covers[-1][0].end):
            covers[-1][1].append(it)
    return covers


def runs(found: Sequence[Stored], most: int, today: int) -> Iterator[list[Stored]]:
    """Of segments or snapshots in order those to merge: RUN or more that touch and end on the same day
    (since 1970), which is over for a day, with at most so many events and MERGED_BYTES."""
    run: list[Stored] = []
    for it in (it for it in found if _day(it) < today - 1):
        if run and not (
            _day(it) == _day(run[-1])
            and (isinstance(it.it, Snapshots) or it.begin <= run[-1].end)
            and sum(one.count for one in run) + it.count <= most
            and sum(one.size for one in run) + it.size <= MERGED_BYTES
        ):
            if len(run) >= RUN:
                yield run
            run = []
        run.append(it)
    if len(run) >= RUN:
        yield run


async def compact(redis: Redis, keys: Keys, archive: Archive, stop: asyncio.Event) -> None:
    """Go round the logs of all queues until `stop`, whatever happens: the next round may do better."""
    while not stop.is_set():
        try:
            for name in sorted(await command(redis, "SMEMBERS", keys.queues)):
                await _round(redis, keys.partition(name.decode()), archive, stop)
        except Exception as error:  # archiving goes on
            lost = isinstance(error, RedisError | OSError) and passing(error)
            level = logging.DEBUG if lost else logging.ERROR
            _log.log(level, "compaction: %s", error, exc_info=None if lost else error)
        await pause(stop, ROUND_S)


async def _round(redis: Redis, keys: PartitionKeys, archive: Archive, stop: asyncio.Event) -> None:
    epoch: bytes | None = await command(redis, "GET", keys.epoch)
    if epoch is None:
        return
    try:
        compaction = Compaction(archive, keys, epoch.decode(), stop.is_set)
        await asyncio.to_thread(compaction.run, datetime.now(UTC))
    except Refused as error:
        _log.warning("%s: could not put small segments together: %s", keys.name, error)


def _day(it: Stored) -> int:
    return it.end[0] // _DAY_MS
