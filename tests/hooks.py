"""A receiver of webhooks, as somebody else would write one, and what sends to it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import msgspec
from standardwebhooks import Webhook

from penstock.core.endpoints import Endpoints, new_secret
from penstock.core.keys import Keys
from penstock.core.sealing import open_seals
from penstock.core.settings import Settings
from penstock.core.webhooks import Endpoint, WebhookSet
from penstock.ui.webhooks import serve_webhooks
from processes import Site, eventually
from webserver import reply, serving

SECRET: Final = new_secret()


class Received(msgspec.Struct):
    """One request: where, with which headers, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return msgspec.json.decode(self.body)

    def verified(self, secret: str = SECRET) -> Any:
        """The body, if its signature is right. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


def accept(request: BaseHTTPRequestHandler) -> None:
    reply(request, 204)


class Receiver:
    """Keeps what came in, in order; `answer` decides what is answered on a path, by default 204."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: Final[list[Received]] = []
        self.answers: Final[dict[str, Callable[[BaseHTTPRequestHandler], None]]] = {}
        self._lock: Final = threading.Lock()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["content-length"])
        body = request.rfile.read(length)
        if len(body) < length:  # its sender was killed in the middle: this request was never made
            request.close_connection = True
            return
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.requests.append(Received(request.path, headers, body))
        answer = self.answers.get(request.path, accept)
        with suppress(ConnectionError):  # the sender was killed before its answer
            answer(request)

    def at(self, path: str) -> list[Received]:
        return [it for it in self.requests if it.path == path]

    async def until(self, count: int, path: str = "/hook", timeout: float = 15.0) -> list[Received]:
        """Wait until so many requests have come to a path."""

        async def enough() -> bool:
            return len(self.at(path)) >= count

        await eventually(enough, timeout, f"{count} messages at {path}, not {len(self.at(path))}")
        return self.at(path)


@contextmanager
def receiving(*paths: str) -> Iterator[Receiver]:
    """A receiver on these paths, `/hook` if none is named."""
    receiver = Receiver()
    with serving(dict.fromkeys(paths or ("/hook",), receiver.take)) as base:
        receiver.url = base
        yield receiver


@asynccontextmanager
async def sending(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """`penstock webhooks` in this process while the block runs."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve_webhooks(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


def endpoints_of(site: Site) -> Endpoints:
    return Endpoints(site.redis, Keys(site.settings.namespace), open_seals(site.settings))


async def endpoint(site: Site, name: str, url: str, *events: str, **more: Any) -> Endpoint:
    """Make an endpoint for events (all if none is named)."""
    told = WebhookSet(url, SECRET, events or ("*",), by="tests", **more)
    found, _ = await endpoints_of(site).set(name, told)
    return found
