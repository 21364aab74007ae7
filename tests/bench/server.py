"""A fresh server for each measurement: real, private, with the append-only file that was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import redis

from servers import RealServer

Aof = Literal["off", "everysec"]
AOFS: Final[tuple[Aof, ...]] = ("off", "everysec")


@contextmanager
def fresh_server(kind: str, aof: Aof) -> Iterator[tuple[RealServer, redis.Redis]]:
    """A new, empty server on a unix socket, and a client of it; both end with the context.

    It never rewrites its append-only file, so that no rewrite falls into one measurement and not
    into the next.
    """
    server = RealServer(kind, aof=aof != "off")
    try:
        server.start()
        with server.client() as client:
            client.config_set("auto-aof-rewrite-percentage", 0)
            yield server, client
    finally:
        server.remove()
