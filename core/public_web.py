"""Reaching the public web for a stranger, without reaching where strangers may not.

The danger is a process of ours that is made to ask its own network (server-side request forgery). So:

1. Only http and https, no user and password in the URL, ports 80, 443 and above 1023 (`check_url`).
2. The name is resolved here, every address it has must be public, and the connection goes to an
   address that was checked (`CheckedTransport`). No second look-up is made that could answer something
   else ("DNS rebinding"); TLS still checks the certificate against the name.

Proxies from the environment are not used: they would connect to addresses nobody checked. What is
refused raises Permanent: asking again gets the same answer.
"""

import socket
import ssl
from collections.abc import Iterable
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import anyio.to_thread
import httpcore
import httpx

from penstock.core.errors import Permanent

# What `is_global` of some Python versions takes for public and is not: IETF and relay ranges of
# IPv4; of IPv6, tunnels into IPv4 (6to4, Teredo) and documentation.
# https://www.iana.org/assignments/iana-ipv6-special-registry
GLOBAL_UNICAST_6: Final = ip_network("2000::/3")
NOT_PUBLIC_4: Final = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"))
NOT_PUBLIC_6: Final = (ip_network("2001::/23"), ip_network("2002::/16"), ip_network("3fff::/20"))


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


class CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over a pool that connects to checked addresses only; `allow_private` lifts rule 2,
    for development."""

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


def check_url(url: httpx.URL, allow_private: bool) -> None:
    """Rule 1; `allow_private` lifts that of the ports, for development. Raises Permanent."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    if url.scheme not in {"http", "https"} or not url.host:
        raise Permanent(f"{short_url(str(url))} is no http or https URL")
    if url.userinfo:
        raise Permanent(f"the URL of {url.host} holds a user or password: such URLs are refused")
    if not (port in {80, 443} or 1024 <= port <= 65535 or allow_private):
        raise Permanent(
            f"port {port} of {url.host} is refused: only 80, 443 and those above 1023 are fetched"
        )


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def short_url(url: str) -> str:
    """A URL for a message."""
    return url if len(url) <= 100 else url[:99] + "…"
