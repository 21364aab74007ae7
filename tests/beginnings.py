"""What a test on a real server begins with.

A file whose tests want other settings changes just these, and all that is made of them follows:
`def settings(settings: Settings) -> Settings: return replace(settings, lease=1.0)`.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from apis import api_settings, running_api
from commands import Command
from floor import Floor, floor_on
from histories import Author
from penstock.core.connection import connect
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.settings import Settings
from penstock.producer.client import Producer
from processes import Site, producing, site_on, start_worker
from servers import RealServer


@pytest.fixture
def settings(server: RealServer, namespace: str, tmp_path: Path) -> Settings:
    """Those of a process on `server`, its files in the test's folder, its API on a port that is free."""
    return api_settings(server, namespace, tmp_path)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """The connections of such a process."""
    async with connect(settings) as client:
        yield client


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API of such a process, which runs in this one."""
    async with running_api(settings) as client:
        yield client


@pytest.fixture
def keys(namespace: str) -> PartitionKeys:
    """The keys of the queue `mail`, in which the histories of `histories.py` happen."""
    return Keys(namespace).partition("mail")


@pytest.fixture
async def site(server: RealServer, namespace: str) -> AsyncIterator[Site]:
    """The queue `test`, on which the workers of `processes.py` work."""
    async with site_on(server, namespace) as site:
        yield site


@pytest.fixture
async def producer(site: Site) -> AsyncIterator[Producer]:
    """A producer for `site`."""
    async with producing(site) as producer:
        yield producer


@pytest.fixture
async def floor(server: RealServer, namespace: str) -> AsyncIterator[Floor]:
    """A floor with two workers."""
    async with floor_on(server, namespace, "w1", "w2") as floor:
        yield floor


@pytest.fixture
async def author(redis: Redis, keys: PartitionKeys) -> Author:
    """Who writes histories: of a queue that is known, with a worker that entered."""
    author = Author(redis, keys)
    await author.enter()
    await redis.sadd(keys.queues, keys.queue)
    return author


@pytest.fixture
def operator(penstock: Callable[..., Command], server: RealServer, namespace: str) -> Callable[[], Command]:
    """Starts workers for operations."""
    return lambda: start_worker(penstock, server, namespace, queues="penstock", lease=1)
