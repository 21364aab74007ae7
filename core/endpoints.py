"""The webhook endpoints of a namespace: read from their ledger, changed by facts appended to it.

Whoever needs them (who sends, who reads logs for them, the API) has an `Endpoints` of its own, which
folds what is new in the ledger before it answers: there is nothing to rebuild and nothing to lose. A change
is written only if the ledger has not moved on since it was decided; else it is decided anew.
"""

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from penstock.core import append
from penstock.core.connection import command
from penstock.core.errors import NotFound, Refused
from penstock.core.events import encode
from penstock.core.keys import Keys
from penstock.core.log import PAGE, Log
from penstock.core.positions import START
from penstock.core.sealing import Seals, opened_text
from penstock.core.webhooks import (
    LEDGER,
    TAG_OF,
    Endpoint,
    Fact,
    WebhookRemoved,
    WebhookSet,
    WebhooksKept,
    fold,
    read_fact,
)

MAX_ENDPOINTS: Final = 100
# After so many facts all endpoints are said again, and the older facts go: reading stays short.
FACTS_KEPT: Final = 200
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (of secrets, none itself)
SECRET_BYTES: Final = range(24, 65)
_NEW_SECRET_BYTES: Final = 32
_SEALED_AS: Final = ("webhook", "secret")


class Endpoints:
    """All endpoints, as of now. Safe to share between tasks."""

    def __init__(self, redis: Redis, keys: Keys, seals: Seals | None) -> None:
        self.keys: Final = keys.ledger(LEDGER)
        self._namespace: Final = keys
        self._redis: Final = redis
        self._log: Final = Log(redis, self.keys)
        self._appender: Final = append.Appender(redis, self.keys)
        self._seals: Final = seals
        self.position = START
        self._known: Mapping[str, Endpoint] = {}
        self._facts = 0
        self._reading: Final = asyncio.Lock()

    async def all(self) -> Mapping[str, Endpoint]:
        """Every endpoint by name."""
        async with self._reading:
            while not await self._catch_up():
                pass
            return self._known

    async def _catch_up(self) -> bool:
        """Fold a page of what is new; whether that was all."""
        page = await self._log.page(self.position)
        if not page and self.position != START and await self._log.tip() != self.position:
            # The ledger was lost, and may have begun anew: so do we.
            self.position, self._known, self._facts = START, {}, 0
            return False
        for event in page:
            fact = read_fact(event)
            self._known, self.position = fold(self._known, event, fact), event.position
            self._facts = 0 if isinstance(fact, WebhooksKept) else self._facts + 1
        return len(page) < PAGE

    async def get(self, name: str) -> Endpoint:
        """Raises NotFound."""
        found = (await self.all()).get(name)
        if found is None:
            raise NotFound(f"no webhook endpoint {name!r}")
        return found

    def secrets(self, endpoint: Endpoint, now_ms: int) -> list[str]:
        """What the endpoint's messages are signed with now, in clear. Raises Unsealable."""
        return [self._clear(secret) for secret in endpoint.secrets(now_ms)]

    async def reached(self, endpoint: Endpoint) -> dict[str, str]:
        """How far the logs of the queues it is sent events of were read for it: the positions, by queue."""
        redis, keys = self._redis, self._namespace
        queues = sorted(it.decode() for it in await command(redis, "SMEMBERS", keys.queues))
        sent = [queue for queue in queues if endpoint.start(queue)]
        pipeline = redis.pipeline(transaction=False)
        for queue in sent:
            pipeline.hget(keys.partition(queue).readers, endpoint.reader(queue))
        found = await pipeline.execute() if sent else []
        return {queue: place.decode() for queue, place in zip(sent, found, strict=True) if place}

    async def set(self, name: str, told: WebhookSet) -> tuple[Endpoint, str]:
        """Make an endpoint, or change it. `told.secret` is in clear; if empty the endpoint keeps its secret,
        and a new one is given one. Answers the endpoint and, if it got another one, its secret in clear.

        Raises Refused when there would be too many.
        """
        secret = ""

        def decide(known: Endpoint | None) -> WebhookSet | None:
            nonlocal secret
            if known is None and len(self._known) >= MAX_ENDPOINTS:
                raise Refused(f"there are {MAX_ENDPOINTS} webhook endpoints already")
            kept = known.told.secret if known else ""
            secret = told.secret or ("" if kept else new_secret())
            if secret and kept and self._clear(kept) == secret:
                secret = ""
            fact = WebhookSet(
                told.url,
                self._stored(secret) if secret else kept,
                told.events,
                told.types,
                told.queues,
                told.by,
            )
            return None if known and _alike(known.told, fact) else fact

        await self._write(name, decide)
        return await self.get(name), secret

    async def remove(self, name: str, *, by: str) -> None:
        """Raises NotFound."""
        await self.say(name, WebhookRemoved(by=by))

    async def say(self, name: str, fact: Fact) -> None:
        """Write a fact about an endpoint that is there. Raises NotFound."""

        def decide(known: Endpoint | None) -> Fact:
            if known is None:
                raise NotFound(f"no webhook endpoint {name!r}")
            return fact

        await self._write(name, decide)

    async def _write(self, name: str, decide: Callable[[Endpoint | None], Fact | None]) -> None:
        written = False
        while not written:
            fact = decide((await self.all()).get(name))
            written = fact is None or await self._append(name, fact)
        if self._facts >= FACTS_KEPT:
            await self._keep()

    async def _keep(self) -> None:
        """Say all endpoints again, and let what was said before go."""
        known = WebhooksKept(list((await self.all()).values()))
        if await self._append("", known):
            await command(self._redis, "XTRIM", self.keys.log, "MINID", self.position)

    async def _append(self, name: str, fact: Fact) -> bool:
        """Whether it was written: not if the ledger has moved on."""
        said = append.Fact(TAG_OF[type(fact)], encode(fact), name)
        written = await self._appender.append([said], token=secrets.token_hex(8), after=self.position)
        await self.all()
        return bool(written)

    def _stored(self, secret: str) -> str:
        return self._seals.seal(secret.encode(), *_SEALED_AS) if self._seals else secret

    def _clear(self, secret: str) -> str:
        return opened_text(secret, *_SEALED_AS, self._seals)


def new_secret() -> str:
    """A secret as Standard Webhooks writes them."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_NEW_SECRET_BYTES)).decode()


def secret_problem(secret: str) -> str:
    """What is wrong with a secret; empty if nothing is."""
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith(SECRET_PREFIX) or size not in SECRET_BYTES:
        return f"give {SECRET_PREFIX} and base64 of {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes"
    return ""


def _alike(one: WebhookSet, other: WebhookSet) -> bool:
    fields = ("url", "secret", "events", "types", "queues")
    return all(getattr(one, field) == getattr(other, field) for field in fields)
