"""The gate: every request but those to open pages shows who asks, and is counted.

A handler with `opt={"open": True}` needs no key and has no limit (health, the API's description).
Behind the gate `request.user` is the Caller. Whoever has no valid key is counted by address, so that
keys cannot be guessed at full speed.
"""

from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from penstock.producer.auth import Caller, KeyRing, LocalOnly, client_address, pick_headers
from penstock.producer.ratelimit import RateLimit
from penstock.producer.refusals import RateLimited, Unauthorized


class Gate:
    """ASGI middleware around every route. `limit` is None where no rate limit is set."""

    def __init__(
        self, app: ASGIApp, doors: KeyRing | LocalOnly, limit: RateLimit | None, trusted_proxies: int
    ) -> None:
        self.app: Final = app
        self._doors: Final = doors
        self._limit: Final = limit
        self._trusted: Final = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["route_handler"].opt.get("open"):
            await self.app(scope, receive, send)
            return
        headers = pick_headers(scope["headers"])
        peer = scope["client"][0] if scope["client"] else ""
        try:
            caller = self._doors.admit(headers, peer)
        except Unauthorized:
            await self._count(f"address:{client_address(peer, headers, self._trusted)}")
            raise
        scope["user"] = caller
        told = await self._count(self._who(caller, peer, headers))
        await self.app(scope, receive, _with_headers(send, told) if told else send)

    def _who(self, caller: Caller, peer: str, headers: dict[str, str]) -> str:
        if isinstance(self._doors, KeyRing):
            return f"key:{caller.name}"
        return f"address:{client_address(peer, headers, self._trusted)}"

    async def _count(self, who: str) -> dict[str, str]:
        """The headers that say where `who` stands. Raises RateLimited."""
        if self._limit is None:
            return {}
        verdict = await self._limit.ask(who)
        told = self._limit.headers(verdict)
        if not verdict.allowed:
            raise RateLimited(verdict.retry_after, told)
        return told


def _with_headers(send: Send, told: dict[str, str]) -> Send:
    extra = [(name.lower().encode(), value.encode()) for name, value in told.items()]

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return add
