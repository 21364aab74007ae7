"""Which addresses are public, what a status means for an attempt, and when a service says to come back."""

import httpx
import pytest

from penstock.consumers.remote import RemoteFailure, judge, retry_after
from penstock.core.errors import Permanent, RetryLater
from penstock.core.public_web import is_public

PRIVATE = """
    0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
    64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254
    fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1
"""
PUBLIC = "1.1.1.1 8.8.8.8 93.184.216.34 172.32.0.1 ::ffff:1.1.1.1 2606:4700::1111 2a00:1450:4001::200e"


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (400, None, Permanent),
        (401, None, Permanent),
        (404, "5", Permanent),
        (410, None, Permanent),
        (304, None, Permanent),
        (408, None, RemoteFailure),
        (429, None, RemoteFailure),
        (429, "7", RetryLater),
        (500, "7", RemoteFailure),
        (502, None, RemoteFailure),
        (503, None, RemoteFailure),
        (503, "7", RetryLater),
        (503, "soon", RemoteFailure),
    ],
)
def test_what_a_status_means(status: int, header: str | None, expected: type[Exception]) -> None:
    headers = {} if header is None else {"Retry-After": header}
    request = httpx.Request("GET", "https://files.example.org/a")
    with pytest.raises(expected, match=rf"files\.example\.org answered {status}.*: busy") as raised:
        judge(httpx.Response(status, headers=headers, request=request), "busy")
    if isinstance(raised.value, RetryLater):
        assert raised.value.after == 7


def test_success_means_go_on() -> None:
    judge(httpx.Response(204, request=httpx.Request("GET", "https://files.example.org/a")))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("99999999999999999999999", 6 * 3600.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2035 07:28:00 GMT", 6 * 3600.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("tomorrow", None),
        ("²", None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_bounded(header: str, seconds: float | None) -> None:
    now = 1_445_412_480.0  # 2015-10-21 07:28:00 UTC
    assert retry_after(httpx.Headers([(b"retry-after", header.encode())]), now) == seconds
