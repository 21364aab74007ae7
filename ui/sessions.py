"""Who uses the dashboard: sessions as signed cookies, roles, and passwords.

A session is a cookie that this server has signed (itsdangerous), good for LIFE_S; nothing is kept here,
so it survives a restart. The signing key lies in the data folder. It is mixed with the passwords:
changing one ends all sessions. Every session carries a nonce; its CSRF token is derived from that and
must come back in a header with each request that changes something.

    operate   may do what the API key of the dashboard may
    read      may look
"""

import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
from itsdangerous import BadSignature, URLSafeTimedSerializer

from penstock.core.errors import Misconfigured
from penstock.core.settings import Settings
from penstock.producer.refusals import RateLimited

COOKIE: Final = "penstock_session"
LIFE_S: Final = 12 * 3600
_KEY_BYTES: Final = 32

TRIES: Final = 5  # at once, of one address
TRY_AGAIN_S: Final = 10.0  # and then one in so many seconds
TRIES_OF_ALL: Final = 30
_ADDRESSES: Final = 10_000

Role = Literal["operate", "read"]


class Session(msgspec.Struct, frozen=True):
    """Who came in, as what, and the token that his changes must carry."""

    user: str
    role: Role
    csrf: str


class _Signed(msgspec.Struct, array_like=True, frozen=True):
    """What a cookie says."""

    user: str
    role: Role
    nonce: str


class Sessions:
    """Opens sessions and knows them again. Raises Misconfigured where the key cannot be kept."""

    def __init__(self, settings: Settings) -> None:
        given = (settings.dashboard_password.reveal(), settings.dashboard_read_password.reveal())
        self._operate, self._read = map(_digest, given)
        self.login_needed: Final = any(given)
        secret = hmac.digest(signing_key(settings.data_dir), "\n".join(given).encode(), "sha256")
        self._key: Final = secret
        self._signer: Final = URLSafeTimedSerializer(
            secret, salt="penstock-session", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def role_of(self, password: str) -> Role | None:
        """What this password opens; takes as long for any."""
        digest = _digest(password)
        operate = hmac.compare_digest(digest, self._operate)
        read = hmac.compare_digest(digest, self._read)
        if not password:
            return None
        return "operate" if operate else "read" if read else None

    def open(self, user: str, role: Role) -> tuple[str, Session]:
        """A new session, and its cookie's value."""
        signed = _Signed(user, role, secrets.token_urlsafe(16))
        return str(self._signer.dumps(msgspec.to_builtins(signed))), self._session(signed)

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None if it is none of ours, or too old."""
        with suppress(BadSignature, msgspec.ValidationError):
            signed = msgspec.convert(self._signer.loads(cookie, max_age=LIFE_S), _Signed)
            return self._session(signed)
        return None

    def _session(self, signed: _Signed) -> Session:
        token = hmac.new(self._key, b"csrf:" + signed.nonce.encode(), hashlib.sha256).hexdigest()
        return Session(signed.user, signed.role, token)


class Tries:
    """How often a password may be tried: by each address, and by all together. A token bucket each."""

    def __init__(self) -> None:
        self._left: Final[OrderedDict[str, tuple[float, float]]] = OrderedDict()

    def count(self, address: str) -> None:
        """One more try. Raises RateLimited."""
        self._take("", TRIES_OF_ALL, 1.0)
        self._take(f"of {address}", TRIES, TRY_AGAIN_S)

    def forget(self, address: str) -> None:
        """It was the right one."""
        self._left.pop(f"of {address}", None)

    def _take(self, who: str, burst: int, again: float) -> None:
        now = time.monotonic()
        left, at = self._left.pop(who, (float(burst), now))
        left = min(burst, left + (now - at) / again)
        self._left[who] = (left - (left >= 1), now)
        while len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        if left < 1:
            raise RateLimited((1 - left) * again, {})


def signing_key(folder: Path) -> bytes:
    """The key in the data folder, made at first use, for its owner's eyes only. Raises Misconfigured."""
    path = folder / "dashboard.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = folder / f"dashboard.key.{os.getpid()}"
        if not path.exists():
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):  # somebody else was first: his is the key
                os.link(fresh, path)
            fresh.unlink()
        key = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"PENSTOCK_DATA_DIR: the dashboard keeps its key there: {error}") from None
    if len(key) != _KEY_BYTES:
        raise Misconfigured(f"{path} is not a key; remove it, and a new one is made")
    return key


def _digest(password: str) -> bytes:
    """Of one length whatever the password; what is not set is something that nobody can enter."""
    return hashlib.sha256(password.encode() or secrets.token_bytes(_KEY_BYTES)).digest()
