"""Seals: what was sealed comes back, by any of the keys, and nothing that was changed does."""

import base64
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Misconfigured
from penstock.core.sealing import Seals, Unsealable, is_sealed, open_seals, opened, opened_text
from penstock.core.settings import Secret, Settings, read_settings

OLD = base64.b64encode(b"old key, of thirty-two bytes ok.").decode()
NEW = base64.b64encode(b"new key, of thirty-two bytes ok.").decode()
# Sealed once and kept: what is in logs must open for ever.
GOLDEN = "sealed:717983d6:0a4ZaXEkuwlcSjonZ10pTYPmZNBTmqFc9x2QmLzXp0xBTB4mSCplGHpVIbNY4aEhcEQ61g=="
PAYLOAD = b'{"to":"ada@example.org","text":"\xc3\xa9t\xc3\xa9"}'


@given(plain=st.binary(max_size=500), type=st.text(max_size=20), field=st.sampled_from(["payload", "result"]))
def test_what_was_sealed_comes_back(plain: bytes, type: str, field: str) -> None:
    seals = Seals(NEW)
    text = seals.seal(plain, type, field)
    assert re.fullmatch(r"sealed:[0-9a-f]{8}:[A-Za-z0-9_=-]+", text)
    assert seals.open(text, type, field) == plain


def test_what_older_versions_sealed_opens() -> None:
    assert Seals(f"{NEW},{OLD}").open(GOLDEN, "email.send", "payload") == b'{"to":"ada@example.org"}'


def test_json_stays_json_and_text_stays_text() -> None:
    seals = Seals(NEW)
    value = seals.seal_json(PAYLOAD, "email.send", "payload")
    assert is_sealed(value)
    assert isinstance(msgspec.json.decode(value), str)
    assert bytes(opened(value, "email.send", "payload", seals)) == PAYLOAD
    words = seals.seal(b"no such mailbox", "email.send", "message")
    assert is_sealed(words)
    assert opened_text(words, "email.send", "message", seals) == "no such mailbox"


@pytest.mark.parametrize("value", [PAYLOAD, b"null", b'""', b'"sealed"', b"[]"])
def test_what_is_not_sealed_passes_with_keys_and_without(value: bytes) -> None:
    raw = msgspec.Raw(value)
    assert not is_sealed(raw)
    assert opened(raw, "t", "result", None) is raw
    assert opened(raw, "t", "result", Seals(NEW)) is raw


def test_nothing_sealed_is_legible_and_no_two_are_alike() -> None:
    seals = Seals(NEW)
    texts = {seals.seal(PAYLOAD, "email.send", "payload") for _ in range(100)}
    assert len(texts) == 100
    assert not any("ada" in text for text in texts)


def test_keys_rotate() -> None:
    """The newest key seals, all of them open, and one that was taken away is named."""
    before, rotated, after = Seals(OLD), Seals(f"{NEW}, {OLD}"), Seals(NEW)
    old = before.seal(PAYLOAD, "t", "payload")
    new = rotated.seal(PAYLOAD, "t", "payload")
    assert rotated.open(old, "t", "payload") == rotated.open(new, "t", "payload") == PAYLOAD
    assert after.open(new, "t", "payload") == PAYLOAD
    with pytest.raises(Unsealable, match=r"the payload is sealed with key '[0-9a-f]{8}', which is not among"):
        after.open(old, "t", "payload")
    with pytest.raises(Unsealable, match="is not among PENSTOCK_PAYLOAD_KEYS here"):
        opened_text(new, "t", "payload", None)


def test_what_was_changed_or_moved_does_not_open() -> None:
    seals = Seals(NEW)
    text = seals.seal(PAYLOAD, "vault.store", "payload")
    mark, key_id, data = text.split(":")
    raw = bytearray(base64.urlsafe_b64decode(data))
    for at in (0, 11, 12, len(raw) // 2, len(raw) - 1):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(Unsealable, match="was changed"):
            seals.open(
                f"{mark}:{key_id}:{base64.urlsafe_b64encode(changed).decode()}", "vault.store", "payload"
            )
    for broken in ("", "AAAA", data[:-5], "*" * 40):
        with pytest.raises(Unsealable, match="was changed"):
            seals.open(f"{mark}:{key_id}:{broken}", "vault.store", "payload")
    with pytest.raises(Unsealable, match="is that of something else"):
        seals.open(text, "email.send", "payload")
    with pytest.raises(Unsealable, match="is that of something else"):
        seals.open(text, "vault.store", "result")


@pytest.mark.parametrize("keys", ["short", "AAAA", "not base64 at all!", f"{NEW},AAAA", " , "])
def test_a_key_that_is_none_is_refused_and_not_quoted(keys: str) -> None:
    with pytest.raises(Misconfigured, match="PENSTOCK_PAYLOAD_KEYS") as refusal:
        Seals(keys)
    assert NEW not in str(refusal.value)


def test_seals_come_from_the_environment() -> None:
    assert open_seals(Settings()) is None
    settings = read_settings({"PENSTOCK_PAYLOAD_KEYS": f"{NEW},{OLD}"})
    assert NEW not in repr(settings)
    seals = open_seals(settings)
    assert seals is not None
    assert seals.open(Seals(OLD).seal(b"1", "t", "result"), "t", "result") == b"1"
    urlsafe = Secret(base64.urlsafe_b64encode(b"\xff\xfb" * 16).decode())
    assert open_seals(Settings(payload_keys=urlsafe)) is not None
