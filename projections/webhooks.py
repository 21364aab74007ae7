"""Webhooks: turns what the logs say into deliveries, for each endpoint what it asked for.

    log of a queue ──► who wants this event? ──► a job `penstock.webhook` for each ──► cursors move

A delivery is an ordinary job of the queue `webhooks`: its retries, its dead letter, its history and its
place in the dashboard are those of all jobs. What happens here is only that events become such jobs:

- For each endpoint and partition there is a cursor, beside the log (`readers`, so that retention keeps what
  is not read yet). It moves on when the deliveries of a page are accepted. A crash between the two
  submits the page again, and each delivery's idempotency key is answered by the first job: so any
  number of these processes may run, and no leader is needed.
- Endpoints at the same place read together. One that replays last week reads its own pages, in turn with
  the others, and holds up nobody; nor does one that is slow or dead, for its deliveries run in eight groups
  of their own, one at a time in each.
- All events of one job go to the same group, which is worked in order. So they arrive in order while
  all goes well; after a failed attempt the later ones do not wait for it.
- What is sealed is not sent. Events of the queue `webhooks` are sent only to who names that queue, and never
  those of deliveries that tell of it themselves: there is no loop.
"""

import asyncio
import logging
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.core.connection import command, passing
from penstock.core.errors import Unavailable
from penstock.core.events import QUEUE_TAGS, Event, Submitted, decode
from penstock.core.jobs.webhook import QUEUE, DeliverWebhook
from penstock.core.keys import PartitionKeys
from penstock.core.log import Log, follow
from penstock.core.positions import milliseconds, order
from penstock.core.webhooks import READER, Endpoint, event_name
from penstock.projections.details import instant
from penstock.projections.sealed import shown_body

PAGE: Final = 500
SHARDS: Final = 8
RETRY_S: Final = 0.2
RESTART_S: Final = 30.0
MAX_DETAILS: Final = 16 * 1024
KEPT_WHOLE: Final = 1024
ABOUT_WEBHOOKS: Final = f"about:{QUEUE}"
_ORIGINS: Final = 10_000

_read_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_log: Final = logging.getLogger("penstock.webhooks")


class Delivery(msgspec.Struct, frozen=True):
    """A job to be: what to send, its idempotency key, group and tags."""

    payload: DeliverWebhook
    key: str
    group: str
    tags: tuple[str, ...]


HandOver = Callable[[Sequence[Delivery]], Awaitable[Sequence[str]]]
"""Submits deliveries; answers the jobs' ids. Raises Unavailable."""


class Origin(msgspec.Struct, frozen=True):
    """What an event's job was submitted as."""

    type: str = ""
    tags: tuple[str, ...] = ()


class Line(msgspec.Struct):
    """An endpoint's way through one log: the field of its cursor, and the last position it has seen."""

    endpoint: Endpoint
    reader: str
    mark: str
    position: str


class Roster:
    """The endpoints as last seen, and a way to wait until they are others."""

    def __init__(self) -> None:
        self.endpoints: Mapping[str, Endpoint] = {}
        self.changed = asyncio.Event()

    def update(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Tell whoever waits."""
        self.endpoints = endpoints
        self.changed.set()
        self.changed = asyncio.Event()


class PartitionWebhooks:
    """Reads one partition for all endpoints."""

    def __init__(self, redis: Redis, keys: PartitionKeys, roster: Roster, hand_over: HandOver) -> None:
        self.keys: Final = keys
        self._redis: Final = redis
        self._events: Final = Log(redis, keys)
        self._roster: Final = roster
        self._hand_over: Final = hand_over
        self._origins: Final[dict[str, Origin]] = {}

    async def run(self) -> None:
        """Read for ever; a lost server is waited for, and any other error stops this partition alone."""
        while True:
            try:
                await self._follow()
            except Unavailable as error:  # the queue of deliveries takes no more, for a while
                await asyncio.sleep(min(error.retry_after, 5.0))
            except Exception as error:  # whatever it is, the other partitions go on
                lost = isinstance(error, RedisError | OSError) and passing(error)
                if not lost:
                    _log.error("%s: stopped; next try in %d s", self.keys.name, RESTART_S, exc_info=error)
                await asyncio.sleep(RETRY_S if lost else RESTART_S)

    async def _follow(self) -> None:
        """Read until the endpoints are others, or the log is."""
        changed = self._roster.changed
        lines = await self.lines()
        while not changed.is_set():
            if not await self.step(lines) and not await self._news(lines, changed):
                return

    async def lines(self) -> list[Line]:
        """Where each endpoint is in this log; the cursors of those that are no more are dropped."""
        raw: dict[bytes, bytes] = await command(self._redis, "HGETALL", self.keys.readers)
        cursors = {reader.decode(): position.decode() for reader, position in raw.items()}
        lines = []
        for endpoint in self._roster.endpoints.values():
            start = endpoint.start(self.keys.queue)
            if start is not None:
                reader = endpoint.reader(self.keys.queue)
                lines.append(Line(endpoint, reader, start.mark, cursors.get(reader, start.after)))
        gone = {it for it in cursors if it.startswith(READER)} - {line.reader for line in lines}
        if gone:
            await command(self._redis, "HDEL", self.keys.readers, *gone)
        return lines

    async def step(self, lines: Iterable[Line]) -> bool:
        """A page for each place at which endpoints are; False if all have seen all."""
        places: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            places[line.position].append(line)
        moved = False
        for position, group in places.items():
            page = await self._events.page(position, PAGE)
            if page:
                await self._deliver(page, group)
                moved = True
        return moved

    async def _deliver(self, page: Sequence[Event], group: Sequence[Line]) -> None:
        awake = [line for line in group if not line.endpoint.paused]
        heard = [it for it in page if any(line.endpoint.hears(it.tag) for line in awake)]
        origins = await self._origins_of(heard)
        deliveries = [
            self._delivery(line, event, origins[event.job])
            for event in heard
            for line in awake
            if self._wants(line.endpoint, event, origins[event.job])
        ]
        if deliveries:
            await self._hand_over(deliveries)
        reached = page[-1].position
        moves = [word for line in group for word in (line.reader, reached)]
        await command(self._redis, "HSET", self.keys.readers, *moves)
        for line in group:
            line.position = reached

    async def _origins_of(self, events: Iterable[Event]) -> Mapping[str, Origin]:
        """What the events' jobs were submitted as; nothing is known of a beginning that was trimmed."""
        jobs = {event.job for event in events}
        unknown = sorted(jobs - self._origins.keys())
        if len(self._origins) + len(unknown) > _ORIGINS:
            self._origins.clear()
            unknown = sorted(jobs)
        for event in await self._events.read(unknown):
            body = _submitted(event)
            if body is not None:
                self._origins[event.position] = Origin(body.type, body.tags)
        return {job: self._origins.get(job, Origin()) for job in jobs}

    def _wants(self, endpoint: Endpoint, event: Event, origin: Origin) -> bool:
        if not endpoint.hears(event.tag) or (self.keys.queue == QUEUE and ABOUT_WEBHOOKS in origin.tags):
            return False
        types = endpoint.told.types
        return not types or event.tag in QUEUE_TAGS or origin.type in types

    def _delivery(self, line: Line, event: Event, origin: Origin) -> Delivery:
        name, tags = line.endpoint.name, [f"endpoint:{line.endpoint.name}"]
        if event.tag not in QUEUE_TAGS:
            tags.append(f"job:{self.keys.job_id(event.job)}"[:100])
        if self.keys.queue == QUEUE:
            tags.append(ABOUT_WEBHOOKS)
        message = DeliverWebhook(
            endpoint=name,
            id=message_id(self.keys, event.position),
            event=message_body(self.keys, event, origin),
        )
        key = f"webhook:{name}:{line.mark}:{self.keys.name}:{event.position}"
        shard = zlib.crc32(event.job.encode()) % SHARDS
        return Delivery(message, key, f"{name}/{shard}", tuple(tags))

    async def _news(self, lines: Sequence[Line], changed: asyncio.Event) -> bool:
        """Wait until the log goes on or the endpoints are others. False if the log was lost: it ends before
        what was read."""
        changing = asyncio.create_task(changed.wait())
        if not lines:
            return await changing
        newest = max((line.position for line in lines), key=order)
        hearing = asyncio.create_task(follow(self._redis, self.keys, newest, 1))
        try:
            await asyncio.wait([changing, hearing], return_when=asyncio.FIRST_COMPLETED)
            if changing.done() or await hearing:
                return True
            return order(await self._events.tip()) >= order(newest)
        finally:
            for task in (changing, hearing):
                task.cancel()
            await asyncio.gather(changing, hearing, return_exceptions=True)


def message_id(keys: PartitionKeys, position: str) -> str:
    """An event's id for receivers: unique in the namespace, and without the dots that signatures use."""
    return f"msg_{keys.queue}_{keys.number}_{position.replace('-', '_')}"


def message_body(keys: PartitionKeys, event: Event, origin: Origin) -> msgspec.Raw:
    """What receivers get: type, timestamp and data, as Standard Webhooks has them."""
    data: dict[str, object] = {"queue": keys.queue}
    if event.tag not in QUEUE_TAGS:
        data |= {"job": keys.job_id(event.job), "type": origin.type}
    data["details"] = _details(event, origin)
    stamp = instant(milliseconds(event.position))
    return msgspec.Raw(msgspec.json.encode({"type": event_name(event.tag), "timestamp": stamp, "data": data}))


def _details(event: Event, origin: Origin) -> dict[str, msgspec.Raw]:
    """The event's own words. Where they are many, the large ones are left out, and their size is told."""
    try:
        fields = _read_fields(shown_body(event, origin.type, None))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if len(event.body) > MAX_DETAILS:
        for name, value in fields.items():
            size = len(memoryview(value))
            if size > KEPT_WHOLE:
                fields[name] = msgspec.Raw(msgspec.json.encode({"left_out": size}))
    return fields


def _submitted(event: Event) -> Submitted | None:
    try:
        body = decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body if isinstance(body, Submitted) else None
