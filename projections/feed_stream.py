"""One client of a feed: what it has still to be sent, bounded, and how that goes out as SSE.

A client that does not keep up is told so by `reset`, as its last message, and has to come again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

KEEP_ALIVE_S: Final = 15.0
# Bytes that wait for one client. They are shared by all who follow the same.
MAX_HELD: Final = 8 * 1024 * 1024
SENT_AT_ONCE: Final = 256 * 1024  # what is sent is a copy of the client's own

_encode: Final = msgspec.json.Encoder().encode


def message(event: str, data: Any, cursor: str) -> bytes:
    """One SSE message."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (cursor.encode(), event.encode(), _encode(data))


def reset(reason: str, cursor: str) -> bytes:
    """Tells a client that what it knows is not what was: load anew, and go on from `cursor`."""
    return message("reset", {"reason": reason}, cursor)


def opening(retry_ms: int = 1000) -> bytes:
    """What a stream begins with: when a browser comes again after it broke."""
    return b"retry: %d\n\n" % retry_ms


def keep_alive(cursor: str) -> bytes:
    """A comment, and an id without a message: the client learns how far it is, and no event fires."""
    return b": keep-alive\nid: %s\n\n" % cursor.encode()


class Outlet:
    """What waits for one client. `push` never waits."""

    def __init__(self, cursor: Callable[[], str]) -> None:
        """`cursor` answers where the client is once it has got all that was pushed."""
        self.dropped = False  # it did not keep up
        self._cursor: Final = cursor
        self._chunks: Final[deque[bytes]] = deque()
        self._held = 0
        self._ended = False
        self._news: Final = asyncio.Event()

    def push(self, chunk: bytes) -> None:
        """Send this too; too much for a slow client becomes a `reset`, and the end."""
        if self._ended:
            return
        if self._chunks and self._held + len(chunk) > MAX_HELD:
            self._chunks.clear()
            self._chunks.append(reset("this client is too slow", self._cursor()))
            self._held = 0
            self.dropped = True
            self.end()
            return
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._news.set()

    def end(self) -> None:
        """Send what waits, and no more."""
        self._ended = True
        self._news.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What was pushed, as much at a time as there is, and a sign of life when there is nothing."""
        while True:
            if self._chunks:
                yield self._take()
            elif self._ended:
                return
            else:
                self._news.clear()
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await self._news.wait()
                except TimeoutError:
                    yield keep_alive(self._cursor())

    def _take(self) -> bytes:
        """As many of the next chunks as are sent at once, but at least one."""
        size = count = 0
        for chunk in self._chunks:
            if count and size + len(chunk) > SENT_AT_ONCE:
                break
            size += len(chunk)
            count += 1
        self._held -= size
        taken = [self._chunks.popleft() for _ in range(count)]
        return taken[0] if count == 1 else b"".join(taken)
