"""The feeds over HTTP, as server-sent events.

A stream is answered with 200 only when it can be served: a browser's EventSource comes again after a
broken stream, and never after another status.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Message, Receive, Send

from penstock.core.lifecycle import State
from penstock.projections.feed_events import following
from penstock.projections.feeds import Feeds

MEDIA_TYPE: Final = "text/event-stream"
PATIENCE_S: Final = 30.0  # how long a client may leave unread what it was sent

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

OfQueue = Annotated[str, QueryParameter(description="Only this queue's.", max_length=63)]
OfType = Annotated[str, QueryParameter(description="Only of jobs of this type.", max_length=300)]
OfJob = Annotated[str, QueryParameter(description="Only of this job (its whole id).", max_length=120)]
Watch = Annotated[
    str, QueryParameter(description="Beside all the rest, each event of this job.", max_length=120)
]
After = Annotated[
    str,
    QueryParameter(
        description="The id of the last message that came, for whoever cannot send a header.",
        max_length=8_000,
    ),
]
OfTag = Annotated[str, QueryParameter(description="Only of jobs with this tag.", max_length=300)]
# Litestar keeps the name `state` for itself: hence its own name in the code.
IntoState = Annotated[
    State | None, QueryParameter(name="state", description="Only events that lead to this state.")
]
LastId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID", description="The id of the last message that came.", max_length=16_000
    ),
]


class EventStream(Stream):
    """An answer of server-sent events."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(chunks, media_type=MEDIA_TYPE, headers=_HEADERS)
        self._chunks: Final = chunks

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **options: Any) -> ASGIResponse:
        """As Litestar asks for it."""
        return _Timely(iterator=self._chunks, headers=self.headers, media_type=MEDIA_TYPE)


class _Timely(ASGIStreamingResponse):
    """Ends with a client that reads no more, and ends the iterator with the stream."""

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await super().send_body(partial(_in_time, send), receive)
        except* TimeoutError:
            pass  # an answer without its end: the server closes the connection
        finally:
            chunks: Any = self.iterator
            await chunks.aclose()


def feed_routes(feeds: Feeds) -> list[HTTPRouteHandler]:
    """The handlers of this file."""

    @get(
        "/events",
        media_type=MEDIA_TYPE,
        summary="The live feed",
        operation_id="followEvents",
        tags=["feed"],
    )
    async def follow_events(
        queue: OfQueue = "",
        type: OfType = "",
        job: OfJob = "",
        in_state: IntoState = None,
        tag: OfTag = "",
        last_event_id: LastId = "",
    ) -> Stream:
        """Every event as it happens, as server-sent events: from now on, or from the `Last-Event-ID` on,
        with nothing missed and nothing twice. `reset` says that this cannot be kept: load anew. The
        message's event is the event's name, its data a FeedEvent."""
        wanted = following(queue, type, job, in_state or "", tag)
        await feeds.exact.ready(wanted)
        return EventStream(feeds.exact.stream(wanted, last_event_id))

    @get(
        "/feed",
        media_type=MEDIA_TYPE,
        summary="The live feed for screens",
        operation_id="followChanges",
        tags=["feed"],
    )
    async def follow_changes(
        queue: OfQueue = "",
        type: OfType = "",
        job: OfJob = "",
        watch: Watch = "",
        after: After = "",
        last_event_id: LastId = "",
    ) -> Stream:
        """What changed, at most ten times a second, however busy the log is: messages `changes`, whose
        data are a Changes. Connect first, then load: what changes in between is told. `reset`: load
        anew."""
        wanted = following(queue, type, job, "", "", watch)
        await feeds.condensed.ready(wanted)
        return EventStream(feeds.condensed.stream(wanted, last_event_id or after))

    return [follow_events, follow_changes]


async def _in_time(send: Send, message: Message) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await send(message)
