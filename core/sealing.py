"""Encryption at rest: what callers and handlers say can be sealed in the log.

With PENSTOCK_PAYLOAD_KEYS set, these fields of events are sealed before they reach Redis: payload,
result, the message and the traceback of an error, the message and data of progress, lines of a log.
All that the queue itself needs stays legible: type, queue, options, tags, keys, the class of an
error and why a job was given up, times, names of workers.

A sealed field is a text, `sealed:<key id>:<base64url of nonce and ciphertext>`, made by AES-256-GCM-SIV
(RFC 8452: a nonce drawn twice, as will happen after billions of jobs, tells no more than that two texts
were equal). What is sealed is bound to the job's type and the field's name: the payload of one type
cannot be passed off as that of another. The key id, a part of the key's hash, tells a key that is
not here from bytes that somebody changed.

Rotation: put the new key in front. The first key seals, all of them open; an old one may go when the
log no longer holds what it sealed. Without keys nothing is sealed, and the library is not loaded.
"""

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.core.errors import Misconfigured, PenstockError
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

KEY_BYTES: Final = 32
MARK: Final = "sealed:"
_NONCE_BYTES: Final = 12
_SEALED_JSON: Final = b'"' + MARK.encode()


class Unsealable(PenstockError):
    """A sealed text that cannot be opened here: its key is missing, or it was changed."""


class Seals:
    """Seals with the newest key, opens with any."""

    def __init__(self, keys: str) -> None:
        """`keys` as in PENSTOCK_PAYLOAD_KEYS: base64 of 32 bytes each, the newest first, separated by
        commas. Raises Misconfigured."""
        self._keys: Final = dict(_key(text.strip()) for text in keys.split(",") if text.strip())
        if not self._keys:
            raise Misconfigured("PENSTOCK_PAYLOAD_KEYS: no key is given")
        self._newest: Final = next(iter(self._keys))

    def seal(self, plain: bytes | msgspec.Raw, type: str, field: str) -> str:
        """`plain`, sealed as `field` of a job of this type."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._newest].encrypt(nonce, bytes(plain), _bound_to(type, field))
        return f"{MARK}{self._newest}:{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, text: str, type: str, field: str) -> bytes:
        """What was sealed as `field` of a job of this type. Raises Unsealable."""
        from cryptography.exceptions import InvalidTag

        key_id, _, data = text.removeprefix(MARK).partition(":")
        key = self._keys.get(key_id)
        if key is None:
            raise Unsealable(_unknown(field, key_id))
        try:
            raw = base64.b64decode(data, altchars=b"-_", validate=True)
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(type, field))
        except (InvalidTag, binascii.Error, ValueError):
            raise Unsealable(f"the sealed {field} was changed, or is that of something else") from None

    def seal_json(self, value: bytes | msgspec.Raw, type: str, field: str) -> msgspec.Raw:
        """JSON, sealed, as JSON."""
        return msgspec.Raw(b'"' + self.seal(value, type, field).encode() + b'"')


def open_seals(settings: Settings) -> Seals | None:
    """The seals of these settings; None where no keys are set. Raises Misconfigured."""
    return Seals(settings.payload_keys.reveal()) if settings.payload_keys else None


def is_sealed(value: msgspec.Raw | bytes | str) -> bool:
    """Whether a field, as text or as JSON, is sealed."""
    if isinstance(value, str):
        return value.startswith(MARK)
    return bytes(memoryview(value)[: len(_SEALED_JSON)]) == _SEALED_JSON


def opened(value: msgspec.Raw, type: str, field: str, seals: Seals | None) -> msgspec.Raw:
    """JSON as it was before it was sealed; unsealed JSON as it is. Raises Unsealable."""
    if not is_sealed(value):
        return value
    return msgspec.Raw(_open(bytes(value)[1:-1].decode(), type, field, seals))


def opened_text(value: str, type: str, field: str, seals: Seals | None) -> str:
    """The same for text."""
    return _open(value, type, field, seals).decode() if is_sealed(value) else value


def _open(text: str, type: str, field: str, seals: Seals | None) -> bytes:
    if seals is None:
        raise Unsealable(_unknown(field, text.removeprefix(MARK).partition(":")[0]))
    return seals.open(text, type, field)


def _unknown(field: str, key_id: str) -> str:
    return f"the {field} is sealed with key {key_id[:8]!r}, which is not among PENSTOCK_PAYLOAD_KEYS here"


def _bound_to(type: str, field: str) -> bytes:
    return f"{type} {field}".encode()


def _key(text: str) -> "tuple[str, AESGCMSIV]":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Misconfigured(
            f"PENSTOCK_PAYLOAD_KEYS: each key is base64 of {KEY_BYTES} random bytes; "
            "make one with `openssl rand -base64 32`"
        )
    try:
        return hashlib.sha256(raw).hexdigest()[:8], AESGCMSIV(raw)
    except UnsupportedAlgorithm:
        raise Misconfigured("PENSTOCK_PAYLOAD_KEYS needs `cryptography` with OpenSSL 3.2 or newer") from None
