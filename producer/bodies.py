"""Reading a request's body: only of the right content type, and never more than is allowed.

The size is counted while the body comes in, so a Content-Length that lies does not help; and whoever
stops sending in the middle does not hold a place for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, TypeAlias

from litestar import Request
from litestar.exceptions import InternalServerException

from penstock.core.errors import TooLarge
from penstock.producer.refusals import TooSlow, UnsupportedMedia

AnyRequest: TypeAlias = Request[Any, Any, Any]

PAUSE_S: Final = 30.0  # how long a client may say nothing in mid-body
LINGER_S: Final = 5.0


def media_type(request: AnyRequest, *accepted: str) -> str:
    """The content type without parameters. Raises UnsupportedMedia if it is none of `accepted`."""
    told = request.headers.get("content-type", "")
    found = told.partition(";")[0].strip().lower()
    if found not in accepted:
        raise UnsupportedMedia(f"Content-Type is {found[:100] or 'missing'!r}, not {' or '.join(accepted)}")
    return found


async def chunks(request: AnyRequest, limit: int, what: str) -> AsyncIterator[bytes]:
    """The body as it comes in. Raises TooLarge as soon as it is over `limit` bytes, and TooSlow."""
    told = request.headers.get("content-length", "")
    stream = request.stream()
    size = int(told[:20]) if told.isdigit() else 0
    if size <= limit:
        size = 0
        while chunk := await _next(stream, what):
            size += len(chunk)
            if size > limit:
                break
            yield chunk
    if size > limit:
        await _linger(stream)
        raise TooLarge(f"{what}, in bytes", size, limit)


async def _next(stream: AsyncIterator[bytes], what: str) -> bytes:
    """The next chunk, empty at the end."""
    try:
        async with asyncio.timeout(PAUSE_S):
            return await anext(stream, b"")
    except TimeoutError:
        raise TooSlow(f"nothing of the {what} came for {PAUSE_S:g} s") from None
    except InternalServerException:  # Litestar's word for a client that went away
        raise TooSlow(f"the {what} ends in the middle") from None


async def _linger(stream: AsyncIterator[bytes]) -> None:
    """Let the rest come in and drop it, for a while: a client that still sends when the connection
    is closed gets a reset, and never reads why."""
    with suppress(TimeoutError, InternalServerException):
        async with asyncio.timeout(LINGER_S):
            async for _ in stream:
                pass


async def whole(request: AnyRequest, limit: int, what: str) -> bytes:
    """The whole body. Raises TooLarge as soon as it is over `limit` bytes."""
    return b"".join([chunk async for chunk in chunks(request, limit, what)])
