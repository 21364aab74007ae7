"""The views in use and the shadow at one moment, the one that has seen less folded on to where the other is.

On a system at work the two are hardly ever at the same checkpoint. But what lies between is in the log, and
the fold is pure: so both can be told at the same position, whatever goes on meanwhile, and anything that is
not the same there is a difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.events import Trimmed
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, Read, State, read_row
from penstock.core.log import PAGE, Log
from penstock.core.positions import START, order, packed
from penstock.projections.base import read_base
from penstock.projections.feed_tail import FIRST_PAGE, fitting
from penstock.projections.rebuild import Gone
from penstock.projections.shadow import READER
from penstock.projections.views import (
    Changes,
    Minute,
    Rows,
    Stats,
    Views,
    listed,
    minute_of,
    read,
    read_minute,
    read_stats,
)

MAX_GAP: Final = 50_000
MAX_GAP_BYTES: Final = 64 * 1024 * 1024

Place = tuple[State, str, bytes]
"""A member of an index: state, type, job."""


class Suspects(msgspec.Struct):
    """What did not look the same at first sight: jobs, members of indexes, and of `loose`."""

    rows: set[bytes] = msgspec.field(default_factory=set)
    places: set[Place] = msgspec.field(default_factory=set)
    loose: set[bytes] = msgspec.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows) + len(self.places) + len(self.loose)


class TooFar(Exception):
    """More than MAX_GAP events lie between the two, or MAX_GAP_BYTES of them."""


class Side(msgspec.Struct):
    """One of the two: its checkpoint, stats and minutes as written, and of what was asked for the rows, and
    the scores in indexes and in `loose`."""

    position: str
    stats: bytes | None
    minutes: dict[bytes, bytes]
    rows: dict[bytes, bytes | None]
    places: dict[Place, float | None]
    loose: dict[bytes, float | None]

    def forward(self, events: Sequence[Read], base: Mapping[bytes, bytes]) -> None:
        """Fold on by events that come after its position. Raises msgspec.DecodeError, or what a fold raises
        of views that are none."""
        if not events:
            return
        rows: Rows = dict.fromkeys(event.job for event, _ in events)
        rows.update((job, _row(self.rows.get(packed(job)))) for job in jobs_of(events))
        self._take(self._views(base).fold(events, rows))

    def _views(self, raw: Mapping[bytes, bytes]) -> Views:
        base = read_base(raw)
        if self.position == START:
            return Views(START, base.stats, base.minutes, None, base.minutes)
        now = minute_of(self.position)
        newest = self.minutes.get(b"%d" % now)
        ahead = {number: told for number, told in base.minutes.items() if number > now}
        return Views(
            *(self.position, read_stats(self.stats) if self.stats else Stats(), map(int, self.minutes)),
            *(read_minute(newest) if newest else Minute(), ahead),
        )

    def _take(self, changes: Changes) -> None:
        self.position, self.stats = changes.position, changes.stats
        for number, told in zip(changes.minutes[::2], changes.minutes[1::2], strict=True):
            self.minutes[b"%d" % int(number)] = bytes(told)
        for number in changes.pruned:
            self.minutes.pop(b"%d" % number, None)
        self.rows.update(zip(changes.rows[::2], changes.rows[1::2], strict=True))
        self.rows.update(dict.fromkeys(changes.forgotten))
        for (state, type), move in changes.moves.items():
            self.places.update(dict.fromkeys((state, type, it) for it in move.removed))
            self.places.update(dict.fromkeys(((state, type, it) for it in move.added), 0.0))
        self.loose.update(dict.fromkeys(changes.loose.removed))
        self.loose.update(dict.fromkeys(changes.loose.added, 0.0))


class Sides:
    """Reads both, of one partition."""

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.keys: Final = keys
        self._redis: Final = redis
        self._log: Final = Log(redis, keys)

    async def checkpoints(self) -> tuple[str, str]:
        """Where the views in use and the shadow are."""
        found = await command(self._redis, "MGET", self.keys.checkpoint, self.keys.shadow.checkpoint)
        return tuple(it.decode(errors="replace") if it else START for it in found)  # type: ignore[return-value]

    async def meet(self, suspects: Suspects) -> tuple[Side, Side]:
        """Both at the position that the further one has seen, with all that the suspects name. Raises TooFar;
        Gone; ResponseError where a view is of no type a view has; or as `Side.forward`."""
        last = min(await self.checkpoints(), key=order)
        events: list[Read] = []
        while True:
            last = await self._go_on(events, last)
            base, used, shadow = await self._moment(suspects, [packed(it) for it in jobs_of(events)])
            top = max(used.position, shadow.position, key=order)
            if order(top) <= order(last):
                break
        for side in (used, shadow):
            since, upto = order(side.position), order(top)
            side.forward([it for it in events if since < order(it[0].position) <= upto], base)
        return used, shadow

    async def _go_on(self, events: list[Read], position: str) -> str:
        """Add what has come after a position; answers the last one there is. Raises TooFar."""
        size, count = sum(len(event.body) for event, _ in events), FIRST_PAGE
        while entries := await self._log.entries(position, count):
            events += map(read, entries)
            position, count = events[-1][0].position, fitting(entries)
            size += sum(len(fields[-1]) for _, fields in entries)
            if len(events) > MAX_GAP or size > MAX_GAP_BYTES:
                raise TooFar
        return position

    async def _moment(
        self, suspects: Suspects, jobs: Iterable[bytes]
    ) -> tuple[dict[bytes, bytes], Side, Side]:
        wanted = list(suspects.rows | {place for _, _, place in suspects.places} | set(jobs))
        places, loose = list(suspects.places), list(suspects.loose)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hexists(self.keys.readers, READER)
        pipeline.hgetall(self.keys.base)
        for keys in (self.keys, self.keys.shadow):
            pipeline.get(keys.checkpoint)
            pipeline.get(keys.stats)
            pipeline.hgetall(keys.minutes)
            for at in range(0, len(wanted), PAGE):
                pipeline.hmget(keys.jobs, wanted[at : at + PAGE])
            for state, type, place in places:
                pipeline.zscore(keys.index(state, type), place)
            for place in loose:
                pipeline.zscore(keys.loose, place)
        there, base, *answers = await pipeline.execute()
        if not there:
            raise Gone
        half = len(answers) // 2
        used, shadow = (_side(answers[at : at + half], wanted, places, loose) for at in (0, half))
        return base, used, shadow


def jobs_of(events: Iterable[Read]) -> set[str]:
    """The jobs that events change, if there are such jobs."""
    found: set[str] = set()
    for event, body in events:
        if isinstance(body, Trimmed):
            found.update(listed(body.first, body.jobs))
        found.add(event.job)
    return {job for job in found if _is_position(job)}


def _is_position(job: str) -> bool:
    try:
        packed(job)
    except (ValueError, OverflowError):  # an event written by a foreign hand may name anything
        return False
    return True


def _side(answers: list[Any], wanted: list[bytes], places: list[Place], loose: list[bytes]) -> Side:
    checkpoint, stats, minutes, *rest = answers
    pages = -(-len(wanted) // PAGE)
    rows = [row for page in rest[:pages] for row in page]
    scores = rest[pages:]
    return Side(
        checkpoint.decode() if checkpoint else START,
        stats,
        minutes,
        dict(zip(wanted, rows, strict=True)),
        dict(zip(places, scores[: len(places)], strict=True)),
        dict(zip(loose, scores[len(places) :], strict=True)),
    )


def _row(raw: bytes | None) -> Job | None:
    try:
        return read_row(raw) if raw else None
    except msgspec.DecodeError:
        return None
