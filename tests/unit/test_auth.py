"""Who is let in: keys in constant time, this machine without keys, and the address that is counted."""

import pytest

from penstock.core.errors import Misconfigured
from penstock.core.settings import Secret, Settings
from penstock.producer.auth import (
    LOCAL,
    Caller,
    KeyRing,
    LocalOnly,
    client_address,
    is_loopback,
    open_doors,
    pick_headers,
)
from penstock.producer.refusals import Forbidden, Unauthorized

ALICE, BOB, NEW = "a" * 16, "b" * 16, "n" * 16
RING = KeyRing(f"alice:{ALICE}, bob:{BOB},alice:{NEW}")
HERE = {"host": "127.0.0.1:3001"}


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": f"Bearer {ALICE}"}, "alice"),
        ({"authorization": f"bearer  {BOB} "}, "bob"),
        ({"x-api-key": NEW}, "alice"),
        ({"authorization": "Basic eDp5", "x-api-key": BOB}, "bob"),
    ],
)
def test_a_key_is_its_name(headers: dict[str, str], name: str) -> None:
    assert RING.admit(headers, "192.0.2.1") == Caller(name)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": f"Bearer {ALICE}x"},
        {"x-api-key": "alice"},
        {"x-api-key": ""},
        {"x-api-key": "\xff" * 16},
        {"x-api-key": f"{ALICE},{ALICE}"},  # the header was there twice
    ],
)
def test_anything_else_is_unauthorized(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as refusal:
        RING.admit(headers, "127.0.0.1")
    assert ALICE not in str(refusal.value)


@pytest.mark.parametrize(
    "keys",
    ["alice", f":{ALICE}", "alice:short", f"al ice:{ALICE}", f"alice:{ALICE},bob:{ALICE}", "x:" + "é" * 20],
)
def test_keys_that_are_none_are_misconfigured_and_not_shown(keys: str) -> None:
    with pytest.raises(Misconfigured, match="PENSTOCK_API_KEYS") as refusal:
        KeyRing(keys)
    assert ALICE not in str(refusal.value)


def test_without_keys_only_a_loopback_address_is_served() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"):
        assert isinstance(open_doors(Settings(host=host)), LocalOnly)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):  # noqa: S104
        with pytest.raises(Misconfigured, match="PENSTOCK_API_KEYS"):
            open_doors(Settings(host=host))
        assert isinstance(open_doors(Settings(host=host, api_keys=Secret(f"me:{ALICE}"))), KeyRing)


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", HERE),
        ("::1", {"host": "[::1]:3001"}),
        ("::ffff:127.0.0.1", {"host": "localhost"}),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {**HERE, "sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:3001"}),
        ("127.0.0.1", {**HERE, "sec-fetch-site": "none"}),
    ],
)
def test_this_machine_is_local(peer: str, headers: dict[str, str]) -> None:
    assert LocalOnly().admit(headers, peer) == LOCAL


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("192.0.2.1", HERE),
        ("", HERE),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "192.0.2.1, 127.0.0.1"}),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "unknown"}),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"host": "rebound.example.org:3001"}),
        ("127.0.0.1", {"host": "127.0.0.1.example.org"}),
        ("127.0.0.1", {**HERE, "origin": "http://example.org"}),
        ("127.0.0.1", {**HERE, "origin": "http://127.0.0.1:8000"}),
        ("127.0.0.1", {**HERE, "origin": "null"}),
        ("127.0.0.1", {**HERE, "sec-fetch-site": "cross-site"}),
        ("127.0.0.1", {**HERE, "sec-fetch-site": "same-site"}),
    ],
)
def test_others_and_their_pages_are_not(peer: str, headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        LocalOnly().admit(headers, peer)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "counted"),
    [
        ("192.0.2.1", "203.0.113.9", 0, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", 1, "203.0.113.9"),
        ("192.0.2.1", "1.2.3.4, 203.0.113.9", 1, "203.0.113.9"),
        ("192.0.2.1", "1.2.3.4, 203.0.113.9, 198.51.100.1", 2, "203.0.113.9"),
        ("192.0.2.1", "203.0.113.9", 5, "203.0.113.9"),
        ("192.0.2.1", "", 1, "192.0.2.1"),
        ("192.0.2.1", "nonsense", 1, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9:4711", 1, "203.0.113.9"),
        ("192.0.2.1", "[2001:db8:1:2:3:4:5:6]:80", 1, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "", 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", 0, "192.0.2.1"),
        ("", "", 0, "unknown"),
    ],
)
def test_the_address_counted_is_the_one_that_trusted_proxies_vouch_for(
    peer: str, forwarded: str, trusted: int, counted: str
) -> None:
    assert client_address(peer, {"x-forwarded-for": forwarded}, trusted) == counted


def test_headers_are_picked_and_repeated_ones_joined() -> None:
    raw = [(b"x-forwarded-for", b"1.1.1.1"), (b"accept", b"*/*"), (b"x-forwarded-for", b"2.2.2.2")]
    assert pick_headers(raw) == {"x-forwarded-for": "1.1.1.1,2.2.2.2"}


def test_names_of_this_machine() -> None:
    assert all(map(is_loopback, ["localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "[::1]"]))
    assert not any(map(is_loopback, ["", "localhost.example.org", "0.0.0.0", "128.0.0.1", "[::2]"]))  # noqa: S104


def test_only_a_key_with_the_right_may_see_what_is_sealed() -> None:
    ring = KeyRing(f"alice:{ALICE}:reveal,bob:{BOB}")
    assert ring.admit({"x-api-key": ALICE}, "192.0.2.1") == Caller("alice", reveal=True)
    assert ring.admit({"x-api-key": BOB}, "192.0.2.1") == Caller("bob", reveal=False)
    with pytest.raises(Unauthorized):
        ring.admit({"x-api-key": f"{ALICE}:reveal"}, "192.0.2.1")
    with pytest.raises(Unauthorized):
        ring.admit({"x-api-key": f"{BOB}:reveal"}, "192.0.2.1")
    assert not LOCAL.reveal
    with pytest.raises(Misconfigured, match="not at least 16"):
        KeyRing(f"alice:{'a' * 10}:reveal")
