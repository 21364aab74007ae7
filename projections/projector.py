"""The projector: one process that folds the logs of all partitions into their views.

Each partition is folded up to the end of its log (folding.py). There it waits for news in a blocking
read, then for LINGER_S more, so that a busy log is folded in pages and not event by event; who reads a
job meanwhile folds the rest himself (queries.py). A refused write means that another projector was
faster, that the views were exchanged or that the server went back in time: the partition forgets all
it knows and begins again from the checkpoint. A lost connection is the same case, tried again for ever.
Any other error stops the partition where it is, says so, and is tried again every RESTART_S: nothing
is skipped. Views of another version's shape are made anew beside those there are (rebuild.py).

Beside each fold runs a trimmer, which lets go of what is kept no longer (retention.py).
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, connect, passing
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import follow
from penstock.core.settings import Settings
from penstock.core.waiting import pause, server_ready
from penstock.projections.folding import Folding, Overtaken, ended
from penstock.projections.rebuild import rebuild
from penstock.projections.retention import Trimmer
from penstock.projections.store import OtherShape
from penstock.projections.tracing import projecting
from penstock.projections.views import Views

LINGER_S: Final = 0.02
LOOK_S: Final = 1.0
RESTART_S: Final = 30.0
RETRY_S: Final = 0.2
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log: Final = logging.getLogger("penstock.projector")


class PartitionProjector:
    """Folds one partition."""

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.keys: Final = keys
        self._redis: Final = redis
        self._folding: Final = Folding(redis, keys, projecting(keys))
        self._store: Final = self._folding.store
        self._lost = False

    async def run(self, stop: asyncio.Event) -> None:
        """Fold, whatever happens, until `stop`; a page begun is finished."""
        while not stop.is_set():
            try:
                await self._follow(stop)
            except Overtaken:
                _log.debug("%s: the views changed under this projector; going on from them", self.keys.name)
            except OtherShape:
                await self._renew(stop)
            except Exception as error:  # whatever it is, the other partitions go on
                await pause(stop, self._say(error))

    async def _renew(self, stop: asyncio.Event) -> None:
        """Make the views anew in the shape of this version; those there are go on serving until then."""
        _log.info("%s: the views have the shape of another version; making them anew", self.keys.name)
        renewing = asyncio.create_task(rebuild(self._redis, self.keys))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([renewing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
                _log.info("%s: the views are made anew", self.keys.name)
        except Exception as error:  # as of a fold
            await pause(stop, self._say(error))
        finally:
            await ended(renewing, stopping)

    def _say(self, error: Exception) -> float:
        """Log why this partition does not go on; answers after how many seconds to try again."""
        if isinstance(error, RedisError | OSError) and passing(error):
            if not self._lost:
                _log.warning("%s: lost Redis (%s); trying again", self.keys.name, error)
            self._lost = True
            return RETRY_S
        _log.error(
            "%s: stopped; its views stay as they are, next try in %d s",
            *(self.keys.name, RESTART_S),
            exc_info=error,
        )
        return RESTART_S

    async def _follow(self, stop: asyncio.Event) -> None:
        views = await self._store.load()
        if self._lost:
            _log.warning("%s: Redis is back", self.keys.name)
        self._lost = False
        while not stop.is_set():
            await self.catch_up(views, stop)
            await self._news(views, stop)

    async def catch_up(self, views: Views, stop: asyncio.Event) -> None:
        """Fold and write, page by page, up to the end of the log. Raises Overtaken."""
        await self._folding.catch_up(views, stop)

    async def _news(self, views: Views, stop: asyncio.Event) -> None:
        """Wait until the log goes on. Raises Overtaken where the views are not there any more."""
        listening = asyncio.create_task(follow(self._redis, self.keys, views.position, 1))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([listening, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return
            if await listening:
                await pause(stop, LINGER_S)
            elif await self._store.checkpoint() != views.position:
                raise Overtaken
        finally:
            await ended(listening, stopping)


async def run_projector(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Fold and trim all partitions of all queues until `stop` is set, or without one until a signal asks
    for it; a second signal ends the process at once, and the checkpoints lose nothing.

    Raises Misconfigured for a server that could lose work.
    """
    if stop is None:
        stop = _on_signals()
    # A page makes objects by the thousand and no cycles: the default threshold costs a fifth of the time.
    gc.set_threshold(50_000, 20, 20)
    keys = Keys(settings.namespace)
    running: dict[str, tuple[Redis, asyncio.Task[None]]] = {}
    async with connect(settings) as redis:
        await server_ready(redis, stop, _log)
        _log.info("ready")
        while not stop.is_set():
            with suppress(RedisError, OSError):  # the partitions say so themselves
                for name in await command(redis, "SMEMBERS", keys.queues):
                    queue = name.decode()
                    if queue not in running:
                        running[queue] = _start(settings, keys.partition(queue), stop)
            await pause(stop, LOOK_S)
    for client, task in running.values():
        await task
        await client.aclose()


def _start(
    settings: Settings, partition: PartitionKeys, stop: asyncio.Event
) -> tuple[Redis, asyncio.Task[None]]:
    _log.info("folding %s", partition.name)
    redis = connect(settings, max_connections=8)
    projector, trimmer = PartitionProjector(redis, partition), Trimmer(redis, partition, settings)
    return redis, asyncio.create_task(_both(projector.run(stop), trimmer.run(stop)))


async def _both(*runs: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*runs)


def _on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, first)
    return stop
