"""The views in use against a shadow that was folded from the log: every difference, and no other.

    walk      each view, a page at a time, on the server (compare.lua): what looks different is suspected
    settle    what is suspected is looked at once more, both sides told at the same position (sides.py)

Meanwhile the shadow is folded on (Anew.following), so little lies between the two. The memory it takes does
not grow with the views: at most BATCH suspects wait, and what is found is bounded too.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, cast, get_args

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.errors import Unavailable
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import Job, State, positions, read_row
from penstock.core.log import Log
from penstock.core.positions import order, unpacked
from penstock.projections.rebuild import Anew
from penstock.projections.replay.findings import Finding, Findings
from penstock.projections.replay.sides import Side, Sides, Suspects, TooFar
from penstock.projections.shadow import named
from penstock.projections.store import shape_of
from penstock.projections.views import SHAPE, read_stats

BATCH: Final = 500
STILL_S: Final = 10.0
_PAGE: Final = 500
_PAUSE_S: Final = 0.05

BY_HAND: Final = "it was written by a hand other than the fold's"
CUT: Final = "the log lost events: they were deleted by hand, or the server lost its newest ones"
REBUILD: Final = "put the views that the log says in their place"


class Comparison:
    """Compares one partition's views with the shadow that `anew` folds."""

    _compare: Final = Script("compare")

    def __init__(self, redis: Redis, keys: PartitionKeys, anew: Anew, findings: Findings) -> None:
        self.rows = 0
        self._redis: Final = redis
        self._keys: Final = keys
        self._anew: Final = anew
        self._findings: Final = findings
        self._sides: Final = Sides(redis, keys)
        self._suspects = Suspects()

    async def run(self) -> None:
        """Add each difference to the findings. Raises Gone; Unavailable where no projector brings the views
        in use near to the log's end."""
        if not await self._comparable():
            return
        await self._walk_rows()
        for name in await self._indexes():
            await self._walk_index(name)
        for walked, other in self._both("loose"):
            async for place in self._pages(walked, other):
                await self._suspect(self._suspects.loose, place)
        await self._settle(whole=True)

    async def _comparable(self) -> bool:
        """Whether the views in use can be told at another position at all; what speaks against it is told."""
        position, stats = await command(self._redis, "MGET", self._keys.checkpoint, self._keys.stats)
        newest = await Log(self._redis, self._keys).tip()
        text = position.decode(errors="replace") if position else "0-0"
        try:
            if order(text) > order(newest):
                self._tell("checkpoint", self._keys.checkpoint, text, f"at most {newest}", CUT)
                return False
            shape = shape_of(stats)
            if position and shape != SHAPE:
                found = f"shape {shape}"
                self._tell(
                    "stats", self._keys.stats, found, f"shape {SHAPE}", "another version made these views"
                )
                return False
        except msgspec.DecodeError as error:
            self._tell("stats", self._keys.stats, f"unreadable: {error}", "what the log counts", BY_HAND)
            return False
        except ValueError:
            self._tell("checkpoint", self._keys.checkpoint, text, "a position in the log", BY_HAND)
            return False
        return True

    async def _walk_rows(self) -> None:
        for walked, other in self._both("jobs"):
            async for place in self._pages(walked, other):
                await self._suspect(self._suspects.rows, place)
        self.rows = await command(self._redis, "HLEN", self._keys.shadow.jobs)

    async def _indexes(self) -> list[str]:
        """The indexes there are or should be, as `<state>:<type>`; what is no view at all is told."""
        raw = await command(self._redis, "MGET", self._keys.stats, self._keys.shadow.stats)
        types = {type for stats in raw if stats for type in read_stats(stats).types}
        prefix = self._keys.index("", "")[:-1]
        known = set(named(self._keys, types))
        for name in await self._anew.shadow.strays():
            state, _, type = name.removeprefix(prefix).partition(":")
            if name.startswith(prefix) and state in get_args(State) and type:
                types.add(type)
            elif name not in known:
                self._tell("key", name, "a key among the views", "nothing", BY_HAND)
        return [f"{state}:{type}" for type in sorted(types) for state in get_args(State)]

    async def _walk_index(self, name: str) -> None:
        text, _, type = name.partition(":")
        state = cast(State, text)
        used, shadow = self._keys.index(state, type), self._keys.shadow.index(state, type)
        for walked, other in ((used, shadow), (shadow, used)):
            async for place in self._pages(walked, other):
                await self._suspect(self._suspects.places, (state, type, place))

    def _both(self, view: str) -> Iterable[tuple[str, str]]:
        used, shadow = getattr(self._keys, view), getattr(self._keys.shadow, view)
        return ((used, shadow), (shadow, used))

    async def _pages(self, walked: str, other: str) -> AsyncIterator[bytes]:
        cursor = b"0"
        while True:
            try:
                cursor, _, *found = await self._compare(self._redis, (walked, other), (cursor, _PAGE))
            except ResponseError as error:
                self._tell("key", walked, str(error), "a view", BY_HAND)
                return
            for place in found:
                yield place
            if cursor == b"0":
                return

    async def _suspect(self, where: set[Any], what: Any) -> None:
        where.add(what)
        if len(self._suspects) >= BATCH:
            await self._settle()

    async def _settle(self, *, whole: bool = False) -> None:
        suspects, self._suspects = self._suspects, Suspects()
        try:
            used, shadow = await self._meet(suspects)
        except (ResponseError, msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
            what = f"cannot be folded on: {error}"
            self._tell("stats", self._keys.stats, what, "what the log counts", BY_HAND)
            return
        await self._tell_rows(suspects, used, shadow)
        self._tell_members(suspects, used, shadow)
        if whole:
            self._tell_counts(used, shadow)

    async def _meet(self, suspects: Suspects) -> tuple[Side, Side]:
        """As Sides.meet; where the views in use are far behind, as soon as they have come near."""
        since, moved = "", time.monotonic()
        while True:
            try:
                return await self._sides.meet(suspects)
            except TooFar:
                used, _ = await self._sides.checkpoints()
                if used != since:
                    since, moved = used, time.monotonic()
                if time.monotonic() - moved > STILL_S:
                    raise Unavailable(
                        f"the views of {self._keys.queue} are far behind the log, at {used}, and do not "
                        "move: start a projector, or rebuild them"
                    ) from None
                await asyncio.sleep(_PAUSE_S)

    async def _tell_rows(self, suspects: Suspects, used: Side, shadow: Side) -> None:
        for place in sorted(suspects.rows):
            found, expected = used.rows[place], shadow.rows[place]
            if found == expected:
                continue
            job = self._keys.job_id(unpacked(place)) if len(place) == 14 else repr(place)
            cause = CUT if await self._is_cut(place, found, expected) else BY_HAND
            self._tell("row", job, _text(found), _text(expected), cause)

    async def _is_cut(self, place: bytes, found: bytes | None, expected: bytes | None) -> bool:
        """Whether the row in use lists events that the log has not any more."""
        row, other = _row(found), _row(expected)
        if row is None or len(place) != 14:
            return False
        try:
            listed = positions(unpacked(place), row)
        except ValueError:  # a hand other than the fold's lists anything
            return False
        fewer = set(listed) - set(positions(unpacked(place), other) if other else ())
        there = await Log(self._redis, self._keys).pick(sorted(fewer)[:100])
        return bool(fewer) and len(there) < min(len(fewer), 100)

    def _tell_members(self, suspects: Suspects, used: Side, shadow: Side) -> None:
        for state, type, place in sorted(suspects.places):
            found, expected = used.places[state, type, place], shadow.places[state, type, place]
            if found != expected:
                where = f"{self._name(place)} in {state}:{type}"
                self._tell("index", where, _member(found), _member(expected), BY_HAND)
        for place in sorted(suspects.loose):
            found, expected = used.loose[place], shadow.loose[place]
            if found != expected:
                self._tell("loose", self._name(place), _member(found), _member(expected), BY_HAND)

    def _tell_counts(self, used: Side, shadow: Side) -> None:
        if used.stats != shadow.stats:
            fewer = _events(used.stats) > _events(shadow.stats)
            found, expected = _difference(used.stats, shadow.stats)
            self._tell("stats", self._keys.stats, found, expected, CUT if fewer else BY_HAND)
        for number in sorted(used.minutes.keys() | shadow.minutes.keys()):
            one, other = used.minutes.get(number), shadow.minutes.get(number)
            if one != other:
                self._tell("minute", number.decode(errors="replace"), _text(one), _text(other), BY_HAND)

    def _name(self, place: bytes) -> str:
        return self._keys.job_id(unpacked(place)) if len(place) == 14 else repr(place)

    def _tell(self, kind: str, where: str, found: str, expected: str, cause: str) -> None:
        self._findings.add(Finding(kind, where, found, expected, cause, REBUILD))


def _difference(found: bytes | None, expected: bytes | None) -> tuple[str, str]:
    """Of two stats the fields that differ, as text."""
    one, other = (msgspec.json.decode(raw) if raw else {} for raw in (found, expected))
    fields = [name for name in sorted(one | other) if one.get(name) != other.get(name)]
    told = [_text(msgspec.json.encode({name: it.get(name) for name in fields})) for it in (one, other)]
    return told[0], told[1]


def _events(raw: bytes | None) -> int:
    return read_stats(raw).events if raw else 0


def _row(raw: bytes | None) -> Job | None:
    try:
        return read_row(raw) if raw else None
    except msgspec.DecodeError:
        return None


def _text(raw: bytes | None) -> str:
    return raw.decode(errors="replace")[:300] if raw is not None else "nothing"


def _member(score: float | None) -> str:
    return "not listed" if score is None else "listed" if score == 0 else f"listed with score {score:g}"
