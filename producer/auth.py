"""Who asks: the API keys, or this machine alone.

    keys set     `Authorization: Bearer <key>` or `X-API-Key: <key>`; the key's name is the actor
    no keys      only this machine, as the actor "local"

Payloads that are sealed (penstock.core.sealing) are shown to those whose key has the right to see them, as
in `name:key:reveal`, and to nobody else.

Without keys a web page in a browser of this machine could be the one who asks. So the Host header must
name this machine (else a foreign name that resolves to 127.0.0.1 would do: DNS rebinding), and a request
that a browser sends for another origin is refused. Whoever comes through a proxy is not this machine.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import msgspec

from penstock.core.errors import Misconfigured
from penstock.core.settings import Settings
from penstock.producer.refusals import Forbidden, Unauthorized

MIN_KEY_CHARS: Final = 16
REVEAL: Final = ":reveal"
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HEADERS: Final = frozenset(
    {b"authorization", b"x-api-key", b"host", b"origin", b"sec-fetch-site", b"x-forwarded-for"}
)
_PORT: Final = re.compile(r"^(\[[^\]]*\]|[^:]*)(:\d+)?$")

Headers = Mapping[str, str]


class Caller(msgspec.Struct, frozen=True):
    """Who was let in: `name` becomes the actor of events; `reveal`: may see what is sealed."""

    name: str
    reveal: bool = False


LOCAL: Final = Caller("local")


class KeyRing:
    """Lets in whoever has one of the API keys of the settings."""

    def __init__(self, keys: str) -> None:
        """`keys` as in PENSTOCK_API_KEYS: "name:key,name2:key2:reveal". Raises Misconfigured.

        Several keys may have one name, so that a key can be changed without a gap.
        """
        self._callers: Final = [_entry(text.strip()) for text in keys.split(",") if text.strip()]
        if len({digest for digest, _ in self._callers}) < len(self._callers):
            raise Misconfigured("PENSTOCK_API_KEYS: the same key is there twice")

    def admit(self, headers: Headers, peer: str) -> Caller:
        """Raises Unauthorized. `peer` is not looked at."""
        key = _bearer(headers.get("authorization", "")) or headers.get("x-api-key", "")
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known, caller in self._callers:  # all of them: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthorized(
                "unknown API key" if key else "give an API key: `Authorization: Bearer <key>` or `X-API-Key`"
            )
        return found


class LocalOnly:
    """Lets in this machine's own programs and pages; the way without keys."""

    def admit(self, headers: Headers, peer: str) -> Caller:
        """Raises Forbidden."""
        if not all(is_loopback(address) for address in [peer, *_forwarded(headers)]):
            raise Forbidden("without PENSTOCK_API_KEYS only this machine is served")
        host = headers.get("host", "")
        if not is_loopback(_without_port(host)):
            raise Forbidden(f"Host {host[:100]!r} is not this machine")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Forbidden("without PENSTOCK_API_KEYS pages of other origins are not served")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Forbidden("without PENSTOCK_API_KEYS pages of other origins are not served")
        return LOCAL


def open_doors(settings: Settings) -> KeyRing | LocalOnly:
    """Who is let in by these settings. Raises Misconfigured: without keys on an address that
    others can reach, or for keys that are none."""
    if settings.api_keys:
        return KeyRing(settings.api_keys.reveal())
    if not is_loopback(settings.host):
        raise Misconfigured(
            f"PENSTOCK_HOST={settings.host} can be reached by others, and no API keys are set: "
            "set PENSTOCK_API_KEYS=name:key, or PENSTOCK_HOST=127.0.0.1"
        )
    return LocalOnly()


def pick_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Of an ASGI scope's headers the ones that say who asks."""
    found: dict[str, str] = {}
    for name, value in raw:
        if name in HEADERS:
            key, text = name.decode(), value.decode("latin-1")
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


def client_address(peer: str, headers: Headers, trusted_proxies: int) -> str:
    """The client's address for the rate limit: that of the socket or, behind that many proxies of
    ours, what the outermost of them wrote into X-Forwarded-For. Of IPv6 the /64, which is one client's.
    """
    chain = [*_forwarded(headers), peer] if trusted_proxies else [peer]
    return _network(chain[max(0, len(chain) - 1 - trusted_proxies)]) or _network(peer) or "unknown"


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def _network(host: str) -> str:
    address = _address(_without_port(host).strip("[]"))
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address or "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(host: str) -> str:
    match = _PORT.match(host)
    return match[1] if match else host


def _forwarded(headers: Headers) -> list[str]:
    found = headers.get("x-forwarded-for", "")
    return [_without_port(part.strip()) for part in found.split(",") if part.strip()]


def _bearer(header: str) -> str:
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def parse_key(text: str) -> tuple[str, str, bool]:
    """An entry of PENSTOCK_API_KEYS: name, key, and whether it may see what is sealed."""
    name, _, key = text.partition(":")
    return name, key.removesuffix(REVEAL), key.endswith(REVEAL)


def _entry(text: str) -> tuple[bytes, Caller]:
    name, key, reveal = parse_key(text)
    if not KEY_NAME.fullmatch(name):
        raise Misconfigured("PENSTOCK_API_KEYS: each entry is name:key, the name of letters, digits, . _ -")
    if len(key) < MIN_KEY_CHARS or not key.isascii():
        raise Misconfigured(
            f"PENSTOCK_API_KEYS: the key of {name!r} is not at least {MIN_KEY_CHARS} ASCII characters; "
            "make one with `openssl rand -hex 24`"
        )
    return hashlib.sha256(key.encode()).digest(), Caller(name, reveal)
