"""Webhook endpoints: what is said about them in their ledger, and the one fold of it.

    webhook_set        there is this endpoint from now on, in place of what had its name
    webhook_removed    there is none of this name
    webhook_paused     nothing is sent to it; what happens meanwhile is passed over
    webhook_resumed    from now on things are sent again
    webhook_replayed   what happened since a moment is sent again, or at last
    webhooks_kept      all endpoints as they stood, said again so that older facts can go

Where an event of a queue names its job, these name their endpoint. Which events an endpoint is sent begins
for each queue at a `Start`; how far each got stands beside the log of the queue (projections/webhooks.py).
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from penstock.core.events import QUEUE_TAGS, TAGS, Body, Event
from penstock.core.jobs.webhook import QUEUE
from penstock.core.positions import milliseconds

LEDGER: Final = "webhooks"
EVERY_QUEUE: Final = ""
ALL: Final = "*"
READER: Final = "webhook:"
ENDS: Final = ("job.completed", "job.failed", "job.cancelled")
# For so long after its secret was changed an endpoint's messages bear both signatures.
FORMER_SECRET_MS: Final = 24 * 3600 * 1000


class WebhookSet(Body, frozen=True):
    """An endpoint as asked for. Empty `types` or `queues`: all. `secret` is sealed where keys are set."""

    url: str
    secret: str
    events: tuple[str, ...] = ENDS
    types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    by: str = ""


class WebhookRemoved(Body, frozen=True):
    """It is no more."""

    by: str = ""


class WebhookPaused(Body, frozen=True):
    """Nothing is sent to it."""

    by: str = ""
    reason: str = ""


class WebhookResumed(Body, frozen=True):
    """Things are sent again."""

    by: str = ""


class WebhookReplayed(Body, frozen=True):
    """What came after a position (compared with those of each log) is sent again."""

    after: str
    by: str = ""


class Start(Body, frozen=True):
    """From where an endpoint reads a queue's log: after a position. `mark` names this beginning: the same
    event is sent once for each."""

    mark: str
    after: str


class Endpoint(Body, frozen=True):
    """An endpoint as its facts tell it. `starts`: by queue, EVERY_QUEUE for those not named; `changed` and
    `rotated` in Unix ms; `former` is the secret before the present one."""

    name: str
    told: WebhookSet
    starts: dict[str, Start]
    changed: int
    former: str = ""
    rotated: int = 0
    paused: bool = False
    reason: str = ""

    def start(self, queue: str) -> Start | None:
        """Where it begins in a queue's log; None if it is not sent that queue's events. Those of deliveries
        are sent only to who names their queue."""
        if queue == QUEUE and queue not in self.told.queues:
            return None
        return self.starts.get(queue) or self.starts.get(EVERY_QUEUE)

    def hears(self, tag: str) -> bool:
        """Whether it is sent events of this kind."""
        return ALL in self.told.events or event_name(tag) in self.told.events

    def reader(self, queue: str) -> str:
        """The name under which its cursor stands beside a queue's log."""
        start = self.start(queue)
        return f"{READER}{self.name}:{start.mark}" if start else ""

    def secrets(self, now_ms: int) -> list[str]:
        """What its messages are signed with: the present secret, and for a day the former one."""
        both = self.former and now_ms - self.rotated < FORMER_SECRET_MS
        return [self.told.secret, self.former] if both else [self.told.secret]


class WebhooksKept(Body, frozen=True):
    """All endpoints as they stood."""

    endpoints: list[Endpoint]


Fact: TypeAlias = (
    WebhookSet | WebhookRemoved | WebhookPaused | WebhookResumed | WebhookReplayed | WebhooksKept
)
FACTS: Final[Mapping[str, type[Fact]]] = {
    "webhook_set": WebhookSet,
    "webhook_removed": WebhookRemoved,
    "webhook_paused": WebhookPaused,
    "webhook_resumed": WebhookResumed,
    "webhook_replayed": WebhookReplayed,
    "webhooks_kept": WebhooksKept,
}
TAG_OF: Final = {shape: tag for tag, shape in FACTS.items()}


def event_name(tag: str) -> str:
    """What a tag is called in webhooks: `job.completed`, `queue.paused`."""
    if tag not in QUEUE_TAGS:
        return f"job.{tag}"
    return tag.replace("_", ".", 1) if "_" in tag else f"queue.{tag}"


EVENT_NAMES: Final = frozenset(map(event_name, TAGS))


def read_fact(event: Event) -> Fact | None:
    """What an entry of the ledger says; None for a tag this version does not know."""
    shape = FACTS.get(event.tag)
    return msgspec.json.decode(event.body, type=shape) if shape else None


def fold(endpoints: Mapping[str, Endpoint], event: Event, fact: Fact | None) -> dict[str, Endpoint]:
    """The endpoints after a fact. Pure. What is said of an endpoint that is not there changes nothing."""
    if isinstance(fact, WebhooksKept):
        return {one.name: one for one in fact.endpoints}
    after = dict(endpoints)
    known = after.get(event.job)
    if isinstance(fact, WebhookSet):
        after[event.job] = _set(known, event, fact)
    elif known is None or fact is None:
        pass
    elif isinstance(fact, WebhookRemoved):
        del after[event.job]
    else:
        after[event.job] = _told(known, event, fact)
    return after


def _set(known: Endpoint | None, event: Event, fact: WebhookSet) -> Endpoint:
    now = milliseconds(event.position)
    here = Start(event.position, f"{now}-0")
    before = known.starts if known else {}
    # A queue that it was sent before goes on where it was; others begin now.
    starts = {queue: before.get(queue) or before.get(EVERY_QUEUE) or here for queue in fact.queues}
    if not starts:
        starts = {**before, EVERY_QUEUE: before.get(EVERY_QUEUE, here)}
    if known is None:
        return Endpoint(event.job, fact, starts, now)
    former, rotated = known.former, known.rotated
    if known.told.secret != fact.secret:
        former, rotated = known.told.secret, now
    return Endpoint(event.job, fact, starts, now, former, rotated, known.paused, known.reason)


def _told(known: Endpoint, event: Event, fact: Fact) -> Endpoint:
    now = milliseconds(event.position)
    if isinstance(fact, WebhookReplayed):
        starts = {queue: Start(event.position, fact.after) for queue in known.starts}
        return msgspec.structs.replace(known, starts=starts)
    if isinstance(fact, WebhookPaused):
        return msgspec.structs.replace(known, paused=True, reason=fact.reason, changed=now)
    return msgspec.structs.replace(known, paused=False, reason="", changed=now)
