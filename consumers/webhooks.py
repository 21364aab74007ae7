"""Sending webhooks: the handler of `penstock.webhook`, by the rules of Standard Webhooks 1.0.0.

    POST url   webhook-id          the same in every attempt: receivers tell copies by it
               webhook-timestamp   of this attempt
               webhook-signature   v1,<base64 of HMAC-SHA256>; after a change of secret two of them

    2xx                      delivered
    429, 503 + Retry-After   tried again when it says
    410                      the endpoint wants no more: it is paused, and this delivery given up
    any other, or no answer  tried again by the job's backoff; redirects are not followed

Only the public web is reached (penstock.core.public_web). The secret is looked up when sending, never
part of a job. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import httpx
from standardwebhooks import Webhook

from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.consumers.remote import MAY_NAME_A_TIME, RemoteFailure, retry_after
from penstock.core.endpoints import Endpoints
from penstock.core.errors import NotFound, Permanent, RetryLater
from penstock.core.jobs.webhook import Delivered, DeliverWebhook
from penstock.core.public_web import CheckedTransport, check_url
from penstock.core.sealing import Unsealable
from penstock.core.webhooks import Endpoint, WebhookPaused

SEND_TIMEOUT_S: Final = 15.0
MAX_WORDS: Final = 200
USER_AGENT: Final = "Penstock-Webhooks/1"


class Sender:
    """Sends deliveries to their endpoints."""

    def __init__(self, endpoints: Endpoints, *, allow_private: bool) -> None:
        """`allow_private`: reach private addresses and all ports, for development."""
        self._endpoints: Final = endpoints
        self._allow_private: Final = allow_private

    async def deliver(self, job: DeliverWebhook, context: Context) -> Delivered:
        """Send one event. Raises RemoteFailure, RetryLater, Permanent."""
        try:
            endpoint = await self._endpoints.get(job.endpoint)
            headers = self._signed(endpoint, job)
        except (NotFound, Unsealable) as error:
            raise Permanent(str(error)) from error
        if endpoint.paused:
            raise RemoteFailure(f"webhook endpoint {endpoint.name!r} is paused")
        status, words, wait = await self._post(endpoint.told.url, headers, bytes(job.event))
        said = f"{httpx.URL(endpoint.told.url).host} answered {status}{': ' if words else ''}{words}"
        if 200 <= status < 300:
            return Delivered(status)
        if status == httpx.codes.GONE:
            gone = WebhookPaused(by="webhooks", reason="it answered 410 Gone")
            await self._endpoints.say(endpoint.name, gone)
            raise Permanent(said)
        if status in MAY_NAME_A_TIME and wait is not None:
            raise RetryLater(said, wait)
        raise RemoteFailure(said)

    def _signed(self, endpoint: Endpoint, job: DeliverWebhook) -> dict[str, str]:
        now = datetime.now(UTC).replace(microsecond=0)
        seconds = int(now.timestamp())
        body = bytes(job.event).decode()
        found = self._endpoints.secrets(endpoint, seconds * 1000)
        signatures = [Webhook(secret).sign(job.id, now, body) for secret in found]
        return {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": job.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(signatures),
        }

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str, float | None]:
        """The answer's status, the beginning of its words, and when to come again."""
        check_url(httpx.URL(url), self._allow_private)
        transport = CheckedTransport(self._allow_private)
        try:
            async with (
                asyncio.timeout(SEND_TIMEOUT_S),
                httpx.AsyncClient(transport=transport, timeout=SEND_TIMEOUT_S, trust_env=False) as client,
                client.stream("POST", url, headers=headers, content=body) as answer,
            ):
                words = "" if answer.is_success else await _beginning(answer)
                return answer.status_code, words, retry_after(answer.headers)
        except (httpx.TransportError, TimeoutError) as error:
            reason = str(error) or f"no answer within {SEND_TIMEOUT_S:g} s"
            raise RemoteFailure(f"{httpx.URL(url).host}: {reason}") from error


def register(sender: Sender) -> None:
    """Make deliveries a type that workers of this process know."""
    handler(DeliverWebhook)(sender.deliver)


async def _beginning(answer: httpx.Response) -> str:
    """The first words of an answer, on one line; the rest is not read."""
    async for chunk in answer.aiter_raw():
        return " ".join(chunk[: 4 * MAX_WORDS].decode(errors="replace").split())[:MAX_WORDS]
    return ""
