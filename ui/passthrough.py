"""From the dashboard to the API: requests as they are, and the feed without a break.

The browser talks to the dashboard alone and never sees the API key. Of a request only what is named here
goes on, of an answer only what is named here comes back.

The feed is more than passed on: an EventSource gives up for good on any answer but 200, so while the API
is away the browser's stream stays open, and goes on from where it was when the API is back.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final
from urllib.parse import unquote

import httpx
from litestar import Response
from litestar.response import Stream

from penstock.core.errors import NotFound, Unavailable
from penstock.core.positions import parse_job_id
from penstock.core.settings import Settings
from penstock.producer.bodies import AnyRequest, chunks
from penstock.projections.feed_stream import opening
from penstock.ui.remote import api_headers, api_url, checked

PREFIX: Final = "/app/api"
MAX_FEEDS: Final = 500
AGAIN_S: Final = 0.5
_MAX_MESSAGE: Final = 16 * 1024 * 1024

_SENT: Final = (
    *("accept", "content-type", "content-disposition", "idempotency-key"),
    *("if-none-match", "last-event-id", "prefer"),
)
_ANSWERED: Final = (
    *("content-type", "content-length", "content-disposition", "etag", "cache-control"),
    *("retry-after", "idempotency-replayed", "last-modified"),
)
# What comes through is data: opened as a page, it may do nothing with this origin.
_SAFETY: Final = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TIMEOUT: Final = httpx.Timeout(connect=5.0, read=90.0, write=60.0, pool=5.0)
_ID: Final = re.compile(rb"^id: (.*)$", re.MULTILINE)


class Passthrough:
    """A client of the API on behalf of browsers; `end` the feeds, then `close` it."""

    def __init__(self, settings: Settings, url: str = "") -> None:
        """`url`: where the API is, if not where these settings would have it."""
        headers, base = api_headers(settings), url or api_url(settings)
        self._limit: Final = max(settings.max_body, settings.max_artifact) + 1024 * 1024
        options: dict[str, Any] = {
            "base_url": base,
            "headers": headers,
            "timeout": _TIMEOUT,
            "trust_env": False,
        }
        self._client: Final = httpx.AsyncClient(limits=httpx.Limits(max_connections=200), **options)
        self._feeds: Final = httpx.AsyncClient(limits=httpx.Limits(max_connections=MAX_FEEDS), **options)
        self._open = 0
        self._ending: Final = asyncio.Event()

    def end(self) -> None:
        """End all feeds."""
        self._ending.set()

    async def close(self) -> None:
        """Close all connections."""
        self.end()
        await self._client.aclose()
        await self._feeds.aclose()

    async def request(self, request: AnyRequest) -> Response[Any]:
        """The API's answer to a request below PREFIX. Raises Unavailable where there is none."""
        headers = {name: value for name in _SENT if (value := request.headers.get(name)) is not None}
        body = None if request.method in ("GET", "HEAD") else chunks(request, self._limit, "body")
        ours = self._client.build_request(request.method, _target(request), headers=headers, content=body)
        ours.headers["accept-encoding"] = "identity"
        try:
            answer = await self._client.send(ours, stream=True)
        except httpx.HTTPError as error:
            raise _away(error) from None
        told = {name: value for name in _ANSWERED if (value := answer.headers.get(name)) is not None}
        if location := answer.headers.get("location"):
            told["location"] = PREFIX + location if location.startswith("/") else location
        return Stream(_body(answer), status_code=answer.status_code, headers={**told, **_SAFETY})

    async def job(self, job_id: str) -> Any:
        """A job as the API tells it. Raises NotFound, Unavailable."""
        queue = parse_job_id(job_id).queue
        try:
            answer = await self._client.get(f"/jobs/{queue}/{job_id}")
        except httpx.HTTPError as error:
            raise _away(error) from None
        return checked(answer)

    def feed(self, watch: str, last: str) -> AsyncGenerator[bytes, None]:
        """The condensed feed from `last` on, with the events of the job `watch` if that is given.
        Raises Unavailable."""
        if self._open >= MAX_FEEDS or self._ending.is_set():
            raise Unavailable(f"{self._open} feeds are open already", retry_after=5.0)
        return self._follow({"watch": watch} if watch else {}, last)

    async def _follow(self, query: dict[str, str], last: str) -> AsyncGenerator[bytes, None]:
        self._open += 1
        away = False
        try:
            yield opening()
            while not self._ending.is_set():
                try:
                    async for messages in self._messages(query, last):
                        if away:
                            away = False
                            yield _link(up=True)
                        last = ([last.encode(), *_ID.findall(messages)])[-1].decode()
                        yield messages
                except httpx.HTTPError:
                    yield b": away\n\n" if away else _link(up=False)
                    away = True
                await self._pause(AGAIN_S)
        finally:
            self._open -= 1

    async def _messages(self, query: dict[str, str], last: str) -> AsyncIterator[bytes]:
        """Whole messages only: what the API was cut off in would be glued to what comes next."""
        headers = {"Last-Event-ID": last} if last else {}
        async with self._feeds.stream("GET", "/feed", params=query, headers=headers) as answer:
            answer.raise_for_status()
            rest = b""
            stream = answer.aiter_raw()
            while (chunk := await self._unless_ending(stream)) is not None:
                whole, end, rest = (rest + chunk).rpartition(b"\n\n")
                if whole:
                    yield whole + end
                if len(rest) > _MAX_MESSAGE:
                    raise httpx.ReadError("a message without an end")

    async def _unless_ending(self, stream: AsyncIterator[bytes]) -> bytes | None:
        """The next chunk; None at the end of the stream, or of this server."""
        chunk = asyncio.ensure_future(anext(stream, None))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({chunk, ending}, return_when=asyncio.FIRST_COMPLETED)
            return chunk.result() if chunk.done() else None
        finally:
            for task in (chunk, ending):
                task.cancel()
            await asyncio.gather(chunk, ending, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return


def _away(error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"the API does not answer ({str(error) or type(error).__name__})")


def _target(request: AnyRequest) -> httpx.URL:
    """What follows PREFIX, byte for byte; a path that climbs is none."""
    raw: bytes = request.scope["raw_path"].partition(b"?")[0].removeprefix(PREFIX.encode())
    if ".." in unquote(raw.decode("latin-1")).split("/") or not raw.startswith(b"/") or raw[1:2] == b"/":
        raise NotFound("no such path")
    query: bytes = request.scope["query_string"]
    return httpx.URL(raw_path=raw + (b"?" + query if query else b""))


async def _body(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _link(*, up: bool) -> bytes:
    """Tells the page whether the API answers; it has no id, so the place is kept."""
    return b'event: link\ndata: {"up": %s}\n\n' % (b"true" if up else b"false")
