"""Fetching from a real server: what is read, what is bounded, and that nothing private is reached."""

import gzip
import itertools
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from handling import Desk
from penstock.consumers.fetch import MAX_REDIRECTS, Fetched, fetch
from penstock.consumers.remote import RemoteFailure
from penstock.consumers.sources import read_source
from penstock.core import public_web
from penstock.core.errors import Permanent, RetryLater
from webserver import Route, reply, serving, stream

FILE = os.urandom(100_000)
LIMIT = 200_000


def endless(pause: float = 0) -> Iterator[bytes]:
    for _ in itertools.count():
        time.sleep(pause)
        yield b"x" * (1 if pause else 10_000)


def hop(request: Any) -> None:
    """/hops?3 redirects to /hops?2, and so on to the file."""
    left = int(request.path.partition("?")[2])
    reply(request, 302, location=f"/hops?{left - 1}" if left > 1 else "/file")


ROUTES: dict[str, Route] = {
    "/file": lambda request: reply(request, 200, FILE, content_type="image/x-test"),
    "/chunked": lambda request: stream(request, iter([FILE[:50_000], FILE[50_000:]]), "image/x-test"),
    "/hops": hop,
    "/to": lambda request: reply(request, 307, location=request.path.partition("?")[2]),
    "/endless": lambda request: stream(request, endless(), "image/x-test"),
    "/drip": lambda request: stream(request, endless(0.01), "image/x-test"),
    "/announced": lambda request: reply(request, 200, b"x", content_length="999999999999"),
    "/cut": lambda request: reply(request, 200, b"only this", content_length="1000", connection="close"),
    "/gzip": lambda request: reply(request, 200, gzip.compress(bytes(10**7)), content_encoding="gzip"),
    "/later": lambda request: reply(request, 429, retry_after="17"),
    "/broken": lambda request: reply(request, 500),
    "/echo": lambda request: reply(request, 200, str(request.headers).encode()),
}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving(ROUTES) as base:
        yield base


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def get(url: str, **options: Any) -> Fetched:
    return await fetch(url, **{"max_bytes": LIMIT, "allow_private": True, "timeout": 10, **options})


@pytest.mark.parametrize("path", ["/file", "/chunked", f"/hops?{MAX_REDIRECTS}"])
async def test_a_file_comes_whole_with_its_type(site: str, path: str) -> None:
    fetched = await get(site + path)
    assert fetched.data == FILE
    assert fetched.content_type == "image/x-test"
    assert fetched.url == site + ("/file" if "hops" in path else path)


async def test_nothing_of_the_environment_goes_along(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    headers = (await get(site + "/echo")).data.decode().lower()
    assert "accept-encoding: identity" in headers
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        (f"/hops?{MAX_REDIRECTS + 1}", Permanent, "redirects"),
        ("/to?ftp://127.0.0.1/x", Permanent, "no http or https|protocol"),
        ("/to?file:///etc/passwd", Permanent, "no http or https|protocol"),
        ("/to?http://user:word@127.0.0.1/", Permanent, "user or password"),
        ("/endless", Permanent, "larger than the limit of 200000"),
        ("/announced", Permanent, "999999999999 bytes: the limit is 200000"),
        ("/gzip", Permanent, "encoded as 'gzip'"),
        ("/missing", Permanent, "answered 404"),
        ("/cut", RemoteFailure, "closed"),
        ("/broken", RemoteFailure, "answered 500"),
        ("/later", RetryLater, "answered 429"),
    ],
)
async def test_what_is_no_file_in_bounds_is_refused(
    site: str, path: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        await get(site + path)


async def test_one_clock_bounds_a_server_that_drips(site: str) -> None:
    started = time.monotonic()
    with pytest.raises(RemoteFailure, match=r"within 0\.3 s"):
        await get(site + "/drip", timeout=0.3)
    assert time.monotonic() - started < 15


async def test_a_server_that_does_not_answer_may_be_back_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteFailure):
            await get(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    with pytest.raises(RemoteFailure, match="has no address"):
        await get("http://no-such-host.invalid/")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "10.1.2.3",
    ],
)
async def test_a_private_address_is_refused_however_it_is_written(site: str, host: str) -> None:
    port = site.rpartition(":")[2]
    with pytest.raises(Permanent, match="no public address"):
        await get(f"http://{host}:{port}/file", allow_private=False)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/x", "no http or https|protocol"),
        ("file:///etc/passwd", "no http or https|protocol"),
        ("http://user:word@example.org/", "user or password"),
        ("http://example.org:22/", "port 22"),
        ("http://example.org:25/", "port 25"),
        ("http:///nowhere", "no http or https"),
        ("http://[::1/", "Invalid"),
        ("http://example.org:99999/", "port 99999|Invalid port"),
    ],
)
async def test_a_url_is_refused_before_anything_is_looked_up(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_look_up(*args: object, **options: object) -> None:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", no_look_up)
    with pytest.raises(Permanent, match=reason) as refusal:
        await get(url, allow_private=False)
    assert "word" not in str(refusal.value).replace("password", "")


@pytest.mark.parametrize("target", ["127.0.0.2", "[::1]", "169.254.169.254", "localhost.:22"])
async def test_a_redirect_to_a_private_address_is_refused(
    site: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's own server stands for a public one; every other address is judged as always."""
    judged: list[str] = []

    def only_the_site(address: str) -> bool:
        judged.append(address)
        return address == "127.0.0.1"

    monkeypatch.setattr(public_web, "is_public", only_the_site)
    assert (await get(site + "/file", allow_private=False)).data == FILE
    with pytest.raises(Permanent, match=r"no public address|port 22"):
        await get(f"{site}/to?http://{target}/", allow_private=False)
    assert judged[0] == "127.0.0.1"


async def test_one_private_address_among_public_ones_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mixed(host: str, port: int, **options: object) -> list[Any]:
        return [(2, 1, 6, "", ("93.184.216.34", port)), (2, 1, 6, "", ("192.168.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(Permanent, match=r"mixed\.example is at 192\.168\.0\.1"):
        await get("http://mixed.example/", allow_private=False)


async def test_the_address_that_was_checked_is_the_one_connected_to(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers differently the second time ("DNS rebinding") is asked once only."""
    asked: list[str] = []

    def rebinding(host: str, port: int, **options: object) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.9", port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = site.rpartition(":")[2]
    assert (await get(f"http://rebinding.example:{port}/file")).data == FILE
    assert asked == ["rebinding.example"]


async def test_tls_is_checked_against_the_name_though_the_address_is_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "files.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(public_web, "_tls", lambda: trusting)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **options: [(2, 1, 6, "", ("127.0.0.1", port))]
    )
    with serving(ROUTES, tls=context) as site:
        port = site.rpartition(":")[2]
        assert (await get(f"https://files.example:{port}/file")).data == FILE
        with pytest.raises(RemoteFailure, match="certificate"):
            await get(f"https://other.example:{port}/file")


def test_a_handler_in_a_thread_reads_urls_as_the_settings_allow(
    site: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_FETCH_PRIVATE", raising=False)
    with pytest.raises(Permanent, match="no public address"):
        read_source(site + "/file", desk.context())
    monkeypatch.setenv("PENSTOCK_FETCH_PRIVATE", "true")
    source = read_source(site + "/file", desk.context())
    assert (source.data, source.filename) == (FILE, "file")
