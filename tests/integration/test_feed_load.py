"""300 clients follow 3,000 jobs a second, and each gets every event of what it follows, in order.

For 10 s, 60 of them following everything and the others a thirtieth of it each; with FEED_LOAD_SECONDS=30
for that long, and then all 300 follow everything: 2.7 million messages a second.

The clients are one process, the API and a worker are others. Each client keeps length and checksum of
what it got; the first one of each kind keeps it all, and that is compared with the log.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest
from redis.asyncio import Redis

from commands import Command
from penstock.core.connection import connect
from penstock.core.dispatch import Dispatch, Submission
from penstock.core.events import Event, Submitted, as_builtins, encode
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import PAGE, Log
from penstock.core.settings import Secret, Settings
from processes import eventually, start_worker
from servers import RealServer, free_port, listens

CLIENTS: Final = 300
RATE: Final = 3_000
BATCH: Final = 100
TAGS: Final = tuple(f"t{number}" for number in range(30))
SECONDS: Final = float(os.environ.get("FEED_LOAD_SECONDS", "10"))
FULL: Final = SECONDS >= 30
PROGRAM: Final = Path(__file__).parents[1] / "feed_clients.py"


@pytest.mark.load
@pytest.mark.timeout(SECONDS + 110)
async def test_each_of_many_clients_gets_every_event_in_order(
    make_server: Callable[..., RealServer], penstock: Callable[..., Command], namespace: str, tmp_path: Path
) -> None:
    server, port = make_server("redis", aof=False), free_port()
    settings = Settings(redis_url=Secret(server.url), namespace=namespace)
    start_worker(penstock, server, namespace)
    penstock("api", PENSTOCK_REDIS_URL=server.url, PENSTOCK_NAMESPACE=namespace, PENSTOCK_API_PORT=port)
    await eventually(lambda: listens(port), 30, "the API listens")
    queries = [f"*{CLIENTS}"] if FULL else ["*60", *(f"tag={tag}*8" for tag in TAGS)]
    async with connect(settings) as redis:
        keys = Keys(namespace).partition("test")
        clients = await _clients(port, tmp_path, queries)
        assert clients.stdout is not None
        assert await asyncio.wait_for(clients.stdout.readline(), 30) == b"open\n"
        dispatch, total = Dispatch(redis, keys), int(RATE * SECONDS)
        took = await _submit(dispatch, total)
        await eventually(lambda: _done(redis, keys, 3 * total), 60, "all jobs end")
        # The event of this one has all tags, so it reaches everyone; it is the last one.
        await dispatch.submit([_body("test.end", TAGS, delay=3600)], producer="end", batch=1, once_ms=60_000)
        ended = time.monotonic()
        answer = await asyncio.wait_for(clients.stdout.readline(), 60)
        late = time.monotonic() - ended
        assert await clients.wait() == 0
        assert took < SECONDS * 1.5, "the machine is too busy to say anything"
        told = json.loads(answer)
        print(f"{told['bytes'] / 1e9:.1f} GB; submitted in {took:.1f} s, all told {late:.1f} s after")
        assert sum(told["same"]) == CLIENTS
        events = await _whole(Log(redis, keys))
    assert len(events) == 3 * total + 1
    tags = {it.position: set(as_builtins(it)["tags"]) for it in events if it.tag == "submitted"}
    for number, query in enumerate(queries):
        tag = query.partition("*")[0].removeprefix("tag=")
        got = re.findall(rb'"position":"([0-9-]+)"', (tmp_path / str(number)).read_bytes())
        assert got == [it.position.encode() for it in events if not tag or tag in tags[it.job]]


async def _clients(port: int, folder: Path, queries: list[str]) -> asyncio.subprocess.Process:
    program = [sys.executable, str(PROGRAM), str(port), str(folder), *queries]
    return await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)


async def _done(redis: Redis, keys: PartitionKeys, events: int) -> bool:
    return bool(await redis.xlen(keys.log) >= events)


async def _submit(dispatch: Dispatch, total: int) -> float:
    """Submit at the rate; answers how long it took, in s."""
    began = time.monotonic()
    for first in range(0, total, BATCH):
        await asyncio.sleep(max(0, began + first / RATE - time.monotonic()))
        bodies = [_body("test.echo", TAGS[number % 30 :][:1]) for number in range(first, first + BATCH)]
        await dispatch.submit(bodies, producer="load", batch=first // BATCH + 1, once_ms=60_000)
    return time.monotonic() - began


def _body(type: str, tags: tuple[str, ...], delay: float = 0) -> Submission:
    payload = msgspec.Raw(b'{"value":"twenty bytes of JSON"}')
    body = encode(Submitted(type, payload, tags=tags, delay=delay))
    return Submission("normal", body, f"+{delay * 1000:.0f}" if delay else "")


async def _whole(log: Log) -> list[Event]:
    events: list[Event] = []
    while page := await log.page(events[-1].position if events else "0-0", PAGE):
        events += page
    return events
