"""Fetch a file from a URL that a stranger gave, without reaching where strangers may not.

Which URLs and addresses are reached at all, `penstock.core.public_web` says. And here:

- Each redirect is a new request and is checked as the first one was; five are followed.
- The body is counted while it streams, whatever Content-Length says, and must not be compressed:
  a small file that unpacks to a huge one never gets in. One clock bounds it all.
"""

import asyncio
from typing import Final

import httpx
import msgspec

from penstock.consumers.remote import RemoteFailure, judge
from penstock.core.errors import Permanent
from penstock.core.public_web import CheckedTransport, check_url, short_url

MAX_REDIRECTS: Final = 5
CONNECT_TIMEOUT_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 30.0
USER_AGENT: Final = "Penstock (job queue; fetches a file a user asked for)"


class Fetched(msgspec.Struct, frozen=True):
    """A file that was fetched; `url` is where the last redirect led."""

    data: bytes
    content_type: str
    url: str


async def fetch(
    url: str, *, max_bytes: int, allow_private: bool = False, timeout: float = FETCH_TIMEOUT_S
) -> Fetched:
    """The file at `url`, at most `max_bytes` long, within `timeout` seconds for everything.

    `allow_private` lets it reach private addresses and all ports, for development. Raises Permanent for
    an address that is refused, an answer of 4xx and a file too large; RetryLater and RemoteFailure for
    what may pass.
    """
    limits = httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_S)

    async def check(request: httpx.Request) -> None:  # called for each redirect, too
        check_url(request.url, allow_private)

    try:
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(
                transport=CheckedTransport(allow_private),
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=limits,
                trust_env=False,
                headers={"accept-encoding": "identity", "user-agent": USER_AGENT},
                event_hooks={"request": [check]},
            ) as client,
            client.stream("GET", url) as response,
        ):
            judge(response)
            data = await _body(response, max_bytes)
            return Fetched(data, response.headers.get("content-type", ""), str(response.url))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise Permanent(f"{short_url(url)}: {error}") from error
    except (httpx.TransportError, TimeoutError) as error:
        reason = str(error) or f"no whole answer within {timeout:g} s"
        raise RemoteFailure(f"{short_url(url)}: {reason}") from error


async def _body(response: httpx.Response, max_bytes: int) -> bytes:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Permanent(f"{response.url.host} sent content encoded as {encoding!r} unasked")
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise Permanent(f"the file has {announced[:20]} bytes: the limit is {max_bytes}")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            raise Permanent(f"the file is larger than the limit of {max_bytes} bytes")
    return bytes(data)
