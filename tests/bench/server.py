"""A fresh server for each measurement: real, private, with the append-only file that was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import pytest
import redis

from servers import RealServer

Aof = Literal["off", "everysec"]
AOFS: Final[tuple[Aof, ...]] = ("off", "everysec")


class ServerMissing(Exception):
    """The kind of server asked for is not on this machine."""


@contextmanager
def fresh_server(kind: str, aof: Aof) -> Iterator[tuple[RealServer, redis.Redis]]:
    """A new, empty server on a unix socket, and a client of it; both end with the context.

    It never rewrites its append-only file, so that no rewrite falls into one measurement and not
    into the next. Raises ServerMissing.
    """
    server = RealServer(kind, aof=aof != "off", fsync="everysec")
    try:
        try:
            server.start()
        except pytest.skip.Exception as missing:  # what the same servers mean to a test
            raise ServerMissing(str(missing)) from None
        with server.client() as client:
            client.config_set("auto-aof-rewrite-percentage", 0)
            yield server, client
    finally:
        server.remove()
