"""The contract of `penstock.webhook`: one event, to be sent to one endpoint (penstock.core.webhooks).

Deliveries are ordinary jobs: retried by the backoff below for three and a half days, then dead letters,
which can be listed, looked at and run again like all others.
"""

from typing import Annotated, Final

import msgspec

from penstock.core.contracts import Backoff, contract

QUEUE: Final = "webhooks"
ENDPOINT_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(?![\s\S])"
MESSAGE_ID: Final = r"^msg_[A-Za-z0-9_-]{1,120}(?![\s\S])"

EndpointName = Annotated[str, msgspec.Meta(pattern=ENDPOINT_NAME)]


# After 5 s, 30 s, 3 min, 18 min, 1.8 h, 11 h, then daily.
@contract(
    "penstock.webhook",
    queue=QUEUE,
    attempts=10,
    backoff=Backoff(base=5, factor=6, cap=24 * 3600.0),
    timeout=20,
)
class DeliverWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send an event to a webhook endpoint, signed with its secret.

    `id` is the same in every attempt, and whenever the same event is sent again; `event` is the body,
    byte by byte.
    """

    endpoint: EndpointName
    id: Annotated[str, msgspec.Meta(pattern=MESSAGE_ID)]
    event: msgspec.Raw


class Delivered(msgspec.Struct, frozen=True):
    """What the endpoint answered."""

    status: int
