"""The API for tests: the real app behind a real server in this process, on a free port."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from penstock.core.keys import Keys, PartitionKeys
from penstock.core.settings import Secret, Settings
from penstock.ui.api import serve_api
from servers import RealServer

START_S: Final = 30.0
KEY: Final = "0123456789abcdef-alice"
OTHER_KEY: Final = "0123456789abcdef-bob"
KEYS: Final = Secret(f"alice:{KEY},bob:{OTHER_KEY}")


def api_settings(server: RealServer, namespace: str, folder: Path, **others: Any) -> Settings:
    """Settings of an API on `server`, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Settings(
        redis_url=Secret(server.url), namespace=namespace, data_dir=folder, api_port=port, **others
    )


@asynccontextmanager
async def running_api(
    settings: Settings, stop: asyncio.Event | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API as `penstock api` does, until `stop` or the end; answers a client of it."""
    stop = stop or asyncio.Event()
    serving = asyncio.create_task(serve_api(settings, stop=stop))
    base, limits = f"http://127.0.0.1:{settings.api_port}", httpx.Limits(max_connections=600)
    try:
        async with httpx.AsyncClient(base_url=base, timeout=60, limits=limits) as client:
            await _until_it_serves(client, serving)
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(serving, START_S)


async def _until_it_serves(client: httpx.AsyncClient, serving: "asyncio.Task[None]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if serving.done():
            serving.result()
        try:
            await client.get("/health/live")
        except httpx.ConnectError:
            await asyncio.sleep(0.01)
        else:
            return
    raise AssertionError(f"the API does not serve within {START_S} s")


def partition(settings: Settings, queue: str) -> PartitionKeys:
    return Keys(settings.namespace).partition(queue)


def problems(answer: httpx.Response, status: int) -> dict[str, str]:
    """The wrong fields of a problem+json answer of this status, by path."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "instance"} <= problem.keys()
    return {error["path"]: error["message"] for error in problem.get("errors", [])}
