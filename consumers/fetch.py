"""Fetch a file from a URL that a stranger gave, without reaching where strangers may not.

The danger is a worker that is made to ask its own network (server-side request forgery). So:

1. Only http and https, no user and password in the URL, ports 80, 443 and above 1023.
2. The name is resolved here, every address it has must be public, and the connection goes to an
   address that was checked. No second look-up is made that could answer something else ("DNS
   rebinding"); TLS still checks the certificate against the name.
3. Each redirect is a new request and passes 1 and 2 again; five are followed.
4. The body is counted while it streams, whatever Content-Length says, and must not be compressed:
   a small file that unpacks to a huge one never gets in. One clock bounds it all.

Proxies from the environment are not used: they would connect to addresses nobody checked.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import anyio.to_thread
import httpcore
import httpx
import msgspec

from penstock.consumers.remote import RemoteFailure, judge
from penstock.core.errors import Permanent

MAX_REDIRECTS: Final = 5
CONNECT_TIMEOUT_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 30.0
USER_AGENT: Final = "Penstock (job queue; fetches a file a user asked for)"

# What `is_global` of some Python versions takes for public and is not: IETF and relay ranges of
# IPv4; of IPv6, tunnels into IPv4 (6to4, Teredo) and documentation.
# https://www.iana.org/assignments/iana-ipv6-special-registry
GLOBAL_UNICAST_6: Final = ip_network("2000::/3")
NOT_PUBLIC_4: Final = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"))
NOT_PUBLIC_6: Final = (ip_network("2001::/23"), ip_network("2002::/16"), ip_network("3fff::/20"))


class Fetched(msgspec.Struct, frozen=True):
    """A file that was fetched; `url` is where the last redirect led."""

    data: bytes
    content_type: str
    url: str


async def fetch(
    url: str, *, max_bytes: int, allow_private: bool = False, timeout: float = FETCH_TIMEOUT_S
) -> Fetched:
    """The file at `url`, at most `max_bytes` long, within `timeout` seconds for everything.

    `allow_private` lifts rule 2 and the ports of rule 1, for development. Raises Permanent for an
    address that is refused, an answer of 4xx and a file too large; RetryLater and RemoteFailure for
    what may pass.
    """
    limits = httpx.Timeout(timeout, connect=CONNECT_TIMEOUT_S)

    async def check(request: httpx.Request) -> None:  # called for each redirect, too
        _check_url(request.url, allow_private)

    try:
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(
                transport=_CheckedTransport(allow_private),
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
        raise Permanent(f"{_short(url)}: {error}") from error
    except (httpx.TransportError, TimeoutError) as error:
        reason = str(error) or f"no whole answer within {timeout:g} s"
        raise RemoteFailure(f"{_short(url)}: {reason}") from error


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in NOT_PUBLIC_4)
    return ip in GLOBAL_UNICAST_6 and not any(ip in network for network in NOT_PUBLIC_6)


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over a pool that connects to checked addresses only."""

    def __init__(self, allow_private: bool) -> None:
        super().__init__(verify=_tls(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(), network_backend=_CheckedNetwork(allow_private)
        )


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once, refuses it when any of its addresses is not public, connects to those."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private: Final = allow_private
        self._network: Final = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await _resolve(host, port)
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise Permanent(f"{host} is at {address}, which is no public address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


async def _resolve(host: str, port: int) -> list[str]:
    """All addresses of a name. The look-up runs in a thread that a timeout leaves behind."""

    def look_up() -> list[Any]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    try:
        found = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} has no address: {error}") from error
    return list(dict.fromkeys(entry[4][0] for entry in found))


def _check_url(url: httpx.URL, allow_private: bool) -> None:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    if url.scheme not in {"http", "https"} or not url.host:
        raise Permanent(f"{_short(str(url))} is no http or https URL")
    if url.userinfo:
        raise Permanent(f"the URL of {url.host} holds a user or password: such URLs are refused")
    if not (port in {80, 443} or 1024 <= port <= 65535 or allow_private):
        raise Permanent(
            f"port {port} of {url.host} is refused: only 80, 443 and those above 1023 are fetched"
        )


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


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _short(url: str) -> str:
    return url if len(url) <= 100 else url[:99] + "…"
