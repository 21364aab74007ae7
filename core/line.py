"""A connection of its own for who makes one call at a time: the way out of a producer, a worker's cycle.

redis-py connects (TLS, login, database), and hands the socket over: from then on a call is one write
and one future, which hiredis fulfils as soon as the reply is whole. Between call and socket stands
nothing else: no pool, no stream reader, no callbacks, no measuring, which together are half of a
short call's time.
"""

import asyncio
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

TIMEOUT_S: Final = 10.0


class Line:
    """Calls on one connection, made at the first call, and again at the next one after it was lost."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Final = redis.connection_pool
        self._connection: Any = None
        self._wire: _Wire | None = None

    async def execute_command(self, *words: Any) -> Any:
        """The reply as it comes. Raises what redis-py's clients raise; whether a call whose answer was
        lost has been carried out, nobody knows."""
        wire = self._wire
        if wire is None or wire.lost:
            wire = await self._connect()
        try:
            reply = await wire.ask(hiredis.pack_command(words))
        except BaseException:
            # Its answer may still come, and must be nobody else's.
            wire.cut()
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        """Give the connection back; the next call takes one again."""
        connection, self._connection, self._wire = self._connection, None, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _connect(self) -> "_Wire":
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        else:
            await self._connection.disconnect(nowait=True)
        await self._connection.connect()
        self._wire = _Wire(self._connection)
        return self._wire


class _Wire(asyncio.Protocol):
    """One socket: a call's bytes go out, and its reply comes back."""

    def __init__(self, connection: Any) -> None:
        """Take the socket over from a connection of redis-py."""
        self.lost = False
        self._loop: Final = asyncio.get_running_loop()
        self._reader: Final = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error
        )
        self._reply: asyncio.Future[Any] | None = None
        self._transport: Final[asyncio.Transport] = connection._writer.transport
        # It is told of the end too: redis-py waits for that when it closes.
        self._former: Final = self._transport.get_protocol()
        self._transport.set_protocol(self)

    async def ask(self, call: bytes) -> Any:
        """Send a call; answers the reply, an error as a value."""
        self._reply = reply = self._loop.create_future()
        self._transport.write(call)
        timer = self._loop.call_later(TIMEOUT_S, self._give_up, reply)
        try:
            return await reply
        finally:
            timer.cancel()

    def cut(self) -> None:
        self.lost = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._reply is None or self._reply.done():
            return
        try:
            reply = self._reader.gets()
        except InvalidResponse as error:
            self._reply.set_exception(error)
            return
        if reply is not False:  # hiredis for: not yet whole
            self._reply.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(RedisConnectionError("the server closed the connection"))
        self._former.connection_lost(error)

    @staticmethod
    def _give_up(reply: "asyncio.Future[Any]") -> None:
        if not reply.done():
            reply.set_exception(RedisTimeoutError("the server does not answer"))
