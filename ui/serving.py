"""Serving an ASGI app over HTTP until asked to stop: hypercorn, or uvicorn or granian where installed.

All three get the same limits: headers of at most 16 KiB, an idle connection for KEEP_ALIVE_S, and at the
end GRACE_S for requests under way. None of them believes X-Forwarded-For: that is the gate's business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final

from penstock.core.errors import Misconfigured
from penstock.core.settings import Settings

KEEP_ALIVE_S: Final = 75
GRACE_S: Final = 5
BACKLOG: Final = 1024

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI app."""
Serve = Callable[[App, str, int, asyncio.Event], Awaitable[None]]


async def serve(app: App, settings: Settings, stop: asyncio.Event, *, port: int) -> None:
    """Serve `app` on the settings' host and a port until `stop` is set. Raises Misconfigured for a
    server that is not installed, OSError for an address that cannot be had."""
    await _SERVERS[settings.server](app, settings.host, port, stop)


async def _hypercorn(app: App, host: str, port: int, stop: asyncio.Event) -> None:
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 100_000
    config.graceful_timeout = GRACE_S
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)  # our own line says where we are
    await run(app, config, shutdown_trigger=stop.wait)


async def _uvicorn(app: App, host: str, port: int, stop: asyncio.Event) -> None:
    uvicorn = _extra("uvicorn", "uvicorn")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=16 * 1024,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # signals are ours
    serving = asyncio.create_task(server.serve())
    await _until(stop, serving)
    server.should_exit = True
    await serving


async def _granian(app: App, host: str, port: int, stop: asyncio.Event) -> None:
    embed = _extra("granian", "granian.server.embed")
    interface = _extra("granian", "granian.constants").Interfaces.ASGI
    server = embed.Server(
        app, address=host, port=port, interface=interface, backlog=BACKLOG, log_access=False
    )
    serving = asyncio.create_task(server.serve())
    await _until(stop, serving)
    server.stop()
    await serving


async def _until(stop: asyncio.Event, serving: "asyncio.Task[Any]") -> None:
    """Wait to be asked to stop, or for the server to end by itself."""
    asked = asyncio.create_task(stop.wait())
    await asyncio.wait({asked, serving}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()


def _extra(server: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise Misconfigured(
            f"PENSTOCK_SERVER={server}: it is not installed; pip install 'penstock[servers]'"
        ) from None


_SERVERS: Final[dict[str, Serve]] = {"hypercorn": _hypercorn, "uvicorn": _uvicorn, "granian": _granian}
