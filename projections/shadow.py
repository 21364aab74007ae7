"""The shadow: views of a partition that are made anew beside those in use, and then take their place.

    enter    begin one, or join who is at it: its checkpoint is where whoever comes next goes on
    hold     a sign of life, and how far the fold has come
    switch   all its views take the place of those in use, in one step with the checkpoint
    leave    the last one who needs it takes it away

It stands in keys of its own, in the same slot, and is folded by the same code as the views in use, whose
projectors and trimmers go on meanwhile. It is a reader of the log: nothing is trimmed that it has not seen,
so it is at each moment the fold of the log up to its checkpoint. Whoever is killed leaves it as it is; if
nobody goes on within LEASE_MS, a trimmer takes it away, so that it holds back retention no longer.
"""

import secrets
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command
from penstock.core.dispatch import Script
from penstock.core.keys import PartitionKeys
from penstock.core.lifecycle import STATES
from penstock.projections.base import read_base
from penstock.projections.views import read_stats

READER: Final = "shadow"
LEASE_MS: Final = 10 * 60_000

Switched = Literal["done", "behind", "gone"]


class Progress(msgspec.Struct, frozen=True):
    """How far a fold is, in events of the log, trimmed ones included."""

    done: int
    total: int


class Shadow:
    """The shadow of one partition, for one who makes it."""

    _enter: Final = Script("shadow_enter")
    _hold: Final = Script("shadow_hold")
    _leave: Final = Script("shadow_leave")
    _switch: Final = Script("shadow_switch")

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.redis: Final = redis
        self.keys: Final = keys
        self._token = secrets.token_hex(6)

    async def enter(self) -> tuple[bool, int]:
        """Begin, or join; answers whether there was one to go on with, and how often views had been begun
        or exchanged."""
        keys = self.keys
        names = [keys.readers, keys.folders, keys.base, *await self._names()]
        resumed, begun = await self._enter(self.redis, names, (READER, self._token, LEASE_MS))
        return resumed == 1, begun

    async def hold(self) -> bool:
        """Give a sign of life; False if there is no shadow any more."""
        names = (self.keys.readers, self.keys.folders, self.keys.shadow.checkpoint)
        return bool(await self._hold(self.redis, names, (READER, self._token, LEASE_MS)))

    async def leave(self, *, everybody: bool = False) -> bool:
        """Need the shadow no more; answers whether it was taken away: by the last one, or at once with
        `everybody`. May be called by who never entered, to take away what was abandoned."""
        keys = self.keys
        while True:
            checkpoint = await command(self.redis, "GET", keys.shadow.checkpoint)
            names = [keys.readers, keys.folders, *await self._names()]
            args = (READER, self._token, checkpoint or b"", "1" if everybody else "0")
            answer: int = await self._leave(self.redis, names, args)
            if answer >= 0:
                return answer == 1

    async def switch(self, strays: Iterable[str] = ()) -> Switched:
        """Put the shadow in the place of the views in use. `strays`: keys of these that may belong to
        nothing, and go too."""
        keys, shadow = self.keys, self.keys.shadow
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.get(shadow.checkpoint)
        pipeline.get(shadow.stats)
        checkpoint, raw = await pipeline.execute()
        types = read_stats(raw).types if raw else ()
        pairs = dict(zip(named(keys, types), named(shadow, types), strict=True))
        pairs |= {name: shadow.checkpoint + ":none" for name in strays if name not in pairs}
        names = [keys.readers, keys.folders, keys.base, keys.log, keys.checkpoint, shadow.checkpoint]
        for pair in pairs.items():
            names += pair
        answer: int = await self._switch(self.redis, names, (READER, checkpoint or b""))
        words: dict[int, Switched] = {1: "done", 0: "behind", -1: "gone"}
        return words[answer]

    async def progress(self) -> Progress:
        """How far the fold is."""
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.hmget(self.keys.base, ["stats"])
        pipeline.xlen(self.keys.log)
        pipeline.get(self.keys.shadow.stats)
        [trimmed], length, raw = await pipeline.execute()
        base = read_base({b"stats": trimmed} if trimmed else {})
        return Progress(read_stats(raw).events if raw else 0, base.stats.events + length)

    async def strays(self) -> list[str]:
        """The keys of the views in use, as they are found on the server. Of one that another program wrote
        and that is no text, what can be read."""
        found = self.redis.scan_iter(match=self.keys.views, count=1_000)
        return [name.decode(errors="replace") async for name in found]

    async def _names(self) -> list[str]:
        raw = await command(self.redis, "GET", self.keys.shadow.stats)
        return named(self.keys.shadow, read_stats(raw).types if raw else ())


def named(keys: PartitionKeys, types: Iterable[str]) -> list[str]:
    """The keys of all views, the checkpoint first, where there are jobs of these types."""
    fixed = [keys.checkpoint, keys.jobs, keys.stats, keys.minutes, keys.loose]
    return fixed + [keys.index(state, type) for type in types for state in STATES]


async def abandon(redis: Redis, keys: PartitionKeys) -> bool:
    """Take away a shadow that nobody has worked on for LEASE_MS; answers whether there was one."""
    if not await command(redis, "HEXISTS", keys.readers, READER):
        return False
    return await Shadow(redis, keys).leave()
