"""Waiting that ends when a process is asked to stop."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from redis.asyncio import Redis

from penstock.core.connection import check_server
from penstock.core.errors import Unavailable

LOOK_S: Final = 0.5


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `stop`, but no longer than `seconds`."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def server_ready(redis: Redis, stop: asyncio.Event, log: logging.Logger) -> bool:
    """Wait for the server; False if told to stop meanwhile. Raises Misconfigured for one that could lose
    work."""
    while not stop.is_set():
        try:
            await check_server(redis)
        except Unavailable as error:
            log.warning("%s; trying again", error)
            await pause(stop, LOOK_S)
        else:
            return True
    return False
