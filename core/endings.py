"""Waiting for a job's end, for everyone in this process, with one blocking read a partition."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from redis.exceptions import RedisError

from penstock.core.connection import passing
from penstock.core.events import Event, read_entry
from penstock.core.lifecycle import TERMINAL
from penstock.core.log import Entry, Log, follow

_RETRY_S: Final = 0.2


class Endings:
    """Tells when jobs of a partition end: one blocking reader, however many wait.

    The reader runs while somebody waits. It goes on from its own position after a lost
    connection, so no ending is missed.
    """

    def __init__(self, log: Log) -> None:
        self._log: Final = log
        self._waiting: Final[dict[bytes, set[asyncio.Future[Event]]]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._began: asyncio.Future[None]

    @asynccontextmanager
    async def watch(self, job: str) -> AsyncIterator["asyncio.Future[Event]"]:
        """A future that gets the terminal event when the job ends after this call. Read the job's
        state inside the context, then wait: an ending between the two is not missed."""
        ended: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job.encode(), set()).add(ended)
        try:
            await self._start()
            yield ended
        finally:
            waiters = self._waiting.get(job.encode(), set())
            waiters.discard(ended)
            if not waiters:
                self._waiting.pop(job.encode(), None)
            ended.cancel()

    async def close(self) -> None:
        """Stop reading; whoever still waits is cancelled."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            for future in self._everyone():
                future.cancel()

    async def _start(self) -> None:
        """Return once the reader knows where the log ended at or after this call."""
        if self._reader is None or self._reader.done():
            self._began = asyncio.get_running_loop().create_future()
            self._reader = asyncio.create_task(self._read(self._began))
        await asyncio.shield(self._began)

    async def _read(self, began: "asyncio.Future[None]") -> None:
        position = ""
        while self._waiting:
            try:
                if not position:
                    position = await self._log.tip()
                    began.set_result(None)
                for entry in await follow(self._log.redis, self._log.keys, position):
                    position = entry[0].decode()
                    self._tell(entry)
            except (RedisError, OSError) as error:
                if not passing(error):
                    for future in self._everyone():
                        future.set_exception(error)
                    return
                await asyncio.sleep(_RETRY_S)

    def _tell(self, entry: Entry) -> None:
        waiters = self._waiting.get(entry[1][3])
        if waiters and entry[1][1].decode() in TERMINAL:
            for ended in waiters:
                if not ended.done():
                    ended.set_result(read_entry(*entry))

    def _everyone(self) -> list[asyncio.Future[Any]]:
        futures: list[asyncio.Future[Any]] = [self._began]
        for waiters in self._waiting.values():
            futures += waiters
        return [future for future in futures if not future.done()]
