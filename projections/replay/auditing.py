"""What the scripts keep beside the log: each pending entry, time, turn, count and key has its reason, or is
told. All that belongs to one entry is looked at in one step, and put right in one (audit.lua)."""

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from penstock.core.connection import command
from penstock.core.dispatch import Dispatch, Script
from penstock.core.keys import GROUP, LANES, PARKED, PartitionKeys
from penstock.core.lifecycle import read_row
from penstock.core.positions import milliseconds, packed
from penstock.projections.replay.findings import Finding, Findings

PAGE: Final = 200

_log: Final = logging.getLogger("penstock.verify")


class Wrong(msgspec.Struct, frozen=True):
    """One way in which something of a section can be wrong."""

    kind: str
    found: str
    expected: str
    cause: str
    repair: str


_GONE: Final = "its entry was deleted by hand"
_HAND: Final = "it was written or deleted by hand"

# (section, how) → what that is. The sections are in the order in which they are looked at: what goes in one
# may be what another counts.
WRONGS: Final[dict[tuple[str, str], Wrong]] = {
    ("pending", "orphan"): Wrong(
        "pending", "pending", "an entry in its lane", _GONE, "acknowledge it, and forget what was kept of it"
    ),
    ("pending", "asleep"): Wrong(
        "parked", "parked, with no time and no turn", "a time in due", _HAND, "make it due when the log says"
    ),
    ("due", "orphan"): Wrong("due", "a time", "an entry that is parked", _GONE, "take the time away"),
    ("due", "awake"): Wrong(
        *("due", "a time, though it is not parked", "no time", _HAND),
        "take the time away, so that nobody takes it from who runs it",
    ),
    ("held", "orphan"): Wrong(
        "held", "waits for its group's turn", "an entry that is parked", _GONE, "take it out of the turns"
    ),
    ("held", "twice"): Wrong(
        "held", "waits for a turn, and has a time", "one of both", _HAND, "keep the time only"
    ),
    ("held", "turnless"): Wrong(
        "held", "waits in a group that takes no turns", "a turn", _HAND, "give its group a turn"
    ),
    ("turns", "orphan"): Wrong(
        "turn", "a group that takes turns", "an entry of it that waits", _HAND, "take the group out"
    ),
    ("group_of", "orphan"): Wrong(
        "group_of", "counts for a group", "an entry of it that runs or waits", _GONE, "count it no more"
    ),
    ("unique", "orphan"): Wrong(
        "unique", "a key that is held", "an entry that holds it", _GONE, "free the key"
    ),
    ("unique_of", "orphan"): Wrong(
        "unique_of", "holds a unique key", "an entry in its lane", _GONE, "forget it"
    ),
    ("crashes", "orphan"): Wrong("crashes", "counted crashes", "an entry in its lane", _GONE, "forget them"),
    ("told", "orphan"): Wrong(
        "told", "word for a worker", "a worker that is there", "the worker was deleted by hand", "forget it"
    ),
    ("facts", "orphan"): Wrong(
        *("facts", "what a worker said of itself", "a worker that is there"),
        *("the worker was deleted by hand", "forget it"),
    ),
}
_COUNT: Final = Wrong("groups", "", "", _HAND, "count once more")
_BY_LANE: Final = "pending"
_SECTIONS: Final = (*dict.fromkeys(section for section, _ in WRONGS), "groups")


class Audit:
    """Looks through one partition."""

    _audit: Final = Script("audit", entries=True)

    def __init__(self, redis: Redis, keys: PartitionKeys, findings: Findings) -> None:
        self._redis: Final = redis
        self._keys: Final = keys
        self._findings: Final = findings

    async def opened(self, *, mend: bool = False) -> bool:
        """Whether the partition takes work; what is missing for that is told, and made with `mend`."""
        keys = self._keys
        missing = []
        if not await command(self._redis, "SISMEMBER", keys.queues, keys.queue):
            missing.append(("registry", keys.queues, "the queue is not listed"))
        if not await command(self._redis, "EXISTS", keys.epoch):
            missing.append(("epoch", keys.epoch, "nothing"))
        lanes = [lane for lane in keys.lanes if not await self._has_group(lane)]
        missing += (("lane", lane, f"no group {GROUP}") for lane in lanes)
        for kind, where, found in missing:
            repair = "open the partition"
            self._findings.add(Finding(kind, where, found, "what open.lua makes", _HAND, repair))
        if missing and mend:
            await Dispatch(self._redis, keys).open()
            _log.warning("%s: opened the partition again", keys.name)
        return mend or {kind for kind, _, _ in missing} <= {"registry"}

    async def _has_group(self, lane: str) -> bool:
        try:
            groups = await command(self._redis, "XINFO", "GROUPS", lane)
        except ResponseError:  # no such key, or no stream
            return False
        return any(GROUP.encode() in group for group in groups)

    async def run(self, *, mend: bool = False) -> None:
        """Add each thing that is wrong to the findings; with `mend` it is put right in the same step."""
        for section in _SECTIONS:
            for lane in range(1, 5) if section == _BY_LANE else (0,):
                async for wrong in self._pages(section, lane, mend=mend):
                    for name, how in zip(wrong[::2], wrong[1::2], strict=True):
                        self._tell(section, name, how.decode(), mended=mend)
                        if mend and how == b"asleep":
                            await self._wake(lane, name)

    async def entries(self) -> AsyncIterator[tuple[int, list[list[Any]]]]:
        """All lane entries, by page: lane's number, and of each entry what audit.lua says."""
        for lane in range(1, len(LANES) + 1):
            async for page in self._pages("lane", lane):
                yield lane, page

    async def absent(self, jobs: Sequence[Sequence[str]]) -> list[int]:
        """Which of these jobs (each: the entries it may stand in) stand in no lane."""
        args: list[Any] = []
        for places in jobs:
            args += (len(places), *places)
        _, _, *found = await self._call("absent", "", 0, False, args)
        return [int(it) for it in found]

    async def _wake(self, lane: int, member: bytes) -> None:
        """Give a parked entry the time that its job's row says, one from the past if it says none."""
        entry = member.partition(b":")[2].decode()
        found = await command(self._redis, "XRANGE", self._keys.lanes[lane - 1], entry, entry)
        if found:
            place = packed_or_none(found[0][1][1].decode(errors="replace") or entry)
            raw = await command(self._redis, "HGET", self._keys.shadow.jobs, place) if place else None
            ready = read_row(raw).ready if raw else 0
            await self._call("wake", "", lane, True, (member, ready or milliseconds(entry)))

    async def _pages(self, section: str, lane: int = 0, *, mend: bool = False) -> AsyncIterator[list[Any]]:
        cursor = b""
        while True:
            cursor, _, *page = await self._call(section, cursor, lane, mend, ())
            yield page
            if not cursor:
                return

    async def _call(
        self, section: str, cursor: bytes | str, lane: int, mend: bool, more: Sequence[Any]
    ) -> list[Any]:
        args = (GROUP, PARKED, section, cursor, PAGE, "1" if mend else "0", lane, *more)
        answer: list[Any] = await self._audit(self._redis, (*self._keys.entries, self._keys.facts), args)
        return answer

    def _tell(self, section: str, name: bytes, how: str, *, mended: bool) -> None:
        where = name.decode(errors="replace").replace("\x1f", " ")
        if section == "groups":
            found, _, expected = how.partition(" of ")
            wrong = msgspec.structs.replace(_COUNT, found=f"{found} run", expected=expected)
        else:
            wrong = WRONGS[section, how]
        self._findings.add(Finding(wrong.kind, where, wrong.found, wrong.expected, wrong.cause, wrong.repair))
        if mended:
            _log.warning("%s: %s %s: %s", self._keys.name, wrong.kind, where, wrong.repair)


def packed_or_none(position: str) -> bytes | None:
    """As `packed`; None for what is no position, as a foreign hand may write into a lane."""
    try:
        return packed(position)
    except (ValueError, OverflowError):
        return None
