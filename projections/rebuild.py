"""The views of a partition, made anew from its log while those there are go on serving.

    fold      the log into a shadow (shadow.py), beginning from what its trimmed part had counted
    compare   if asked: what of the views in use is not what the fold says
    switch    at once, when the shadow has seen all that the views in use have

Projectors, trimmers and other rebuilds go on meanwhile: two rebuilds share one shadow and its work. One that
was stopped, by whatever, is gone on with by the next. A lost connection is tried again for PATIENCE_S.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, passing
from penstock.core.keys import PartitionKeys
from penstock.projections.folding import Folding, Overtaken, ended
from penstock.projections.shadow import Progress, Shadow
from penstock.projections.store import OtherShape

PATIENCE_S: Final = 60.0
HOLD_S: Final = 0.5
FOLLOW_S: Final = 0.05
_AGAIN_S: Final = 0.2

Tell = Callable[[Progress], None]


class Gone(Exception):
    """The shadow is not there any more: another has switched, or it was given up."""


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild did. `events`: how many the views have seen now, trimmed ones included. `resumed`: it
    went on with what another had begun. `switched`: false if another one switched first."""

    queue: str
    events: int
    seconds: float
    resumed: bool
    switched: bool


async def rebuild(redis: Redis, keys: PartitionKeys, tell: Tell | None = None) -> Rebuilt:
    """Fold the log of a partition into fresh views and put them in the place of those in use.

    `tell` hears about twice a second how far it is. Raises RedisError or OSError where the server stays away
    for PATIENCE_S; whatever ends this, the views in use go on serving and the next call goes on with it.
    """
    began = time.monotonic()
    async with shadowing(redis, keys, tell) as anew:
        switched = await anew.switch()
        events = (await anew.shadow.progress()).total
    return Rebuilt(keys.queue, events, time.monotonic() - began, anew.resumed, switched)


class Anew:
    """A shadow that is being folded."""

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.shadow: Final = Shadow(redis, keys)
        self.resumed = False
        self._redis: Final = redis
        self._folding: Final = Folding(redis, keys.shadow)
        self._begun = 0

    async def enter(self) -> None:
        self.resumed, self._begun = await self.shadow.enter()

    async def close(self) -> None:
        await self._folding.close()

    async def fold(self) -> None:
        """Fold up to the end of the log. Raises Gone."""
        lost, reached = 0.0, ""
        while True:
            try:
                views = await self._folding.store.load()
                if views.position != reached:  # it has gone on since the server was lost
                    lost, reached = 0.0, views.position
                await self._folding.catch_up(views, asyncio.Event())
                return
            except Overtaken:
                if not await self.shadow.hold():
                    raise Gone from None
            except OtherShape:
                await self.shadow.leave(everybody=True)
                await self.enter()
            except (RedisError, OSError) as error:
                lost = lost or time.monotonic()
                if not passing(error) or time.monotonic() - lost > PATIENCE_S:
                    raise
                await asyncio.sleep(_AGAIN_S)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """The shadow follows the log as long as this lasts; an error of that fold is raised at the end."""

        async def follow() -> None:
            while True:
                await self.fold()
                await asyncio.sleep(FOLLOW_S)

        following = asyncio.create_task(follow())
        try:
            yield
            if following.done():
                following.result()
        finally:
            await ended(following)

    async def switch(self) -> bool:
        """Fold to the end and switch, until it is done; False if another was faster."""
        strays = await self.shadow.strays()
        while True:
            with suppress(Gone):
                await self.fold()
                if (switched := await self.shadow.switch(strays)) == "done":
                    return True
                if switched == "behind":
                    continue
            if await self._begun_since():
                return False
            await self.enter()

    async def _begun_since(self) -> bool:
        """Whether other views were put in the place of those in use since this one entered."""
        found = await command(self._redis, "HGET", self.shadow.keys.base, "begun")
        return int(found or 0) > self._begun


@asynccontextmanager
async def shadowing(redis: Redis, keys: PartitionKeys, tell: Tell | None = None) -> AsyncIterator[Anew]:
    """A shadow, entered and held as long as this lasts."""
    anew = Anew(redis, keys)
    await anew.enter()
    holding = asyncio.create_task(_hold(anew.shadow, tell))
    try:
        yield anew
    finally:
        await ended(holding)
        await anew.close()


async def _hold(shadow: Shadow, tell: Tell | None) -> None:
    while True:
        with suppress(RedisError, OSError):  # the fold says so itself
            await shadow.hold()
            if tell is not None:
                tell(await shadow.progress())
        await asyncio.sleep(HOLD_S)
