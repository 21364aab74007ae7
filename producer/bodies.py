"""Reading a request's body: only of the right content type, and never more than is allowed.

The size is counted while the body comes in, so a Content-Length that lies does not help; and whoever
stops sending in the middle does not hold a place for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

from litestar import Request

from penstock.core.errors import TooLarge
from penstock.producer.refusals import TooSlow, UnsupportedMedia

AnyRequest: TypeAlias = Request[Any, Any, Any]

PAUSE_S: Final = 30.0  # how long a client may say nothing in mid-body


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
    if told.isdigit() and int(told[:20]) > limit:
        raise TooLarge(f"{what}, in bytes", int(told[:20]), limit)
    size = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(PAUSE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise TooSlow(f"nothing of the {what} came for {PAUSE_S:g} s") from None
        if chunk is None:
            return
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"{what}, in bytes so far", size, limit)
        yield chunk


async def whole(request: AnyRequest, limit: int, what: str) -> bytes:
    """The whole body. Raises TooLarge as soon as it is over `limit` bytes."""
    return b"".join([chunk async for chunk in chunks(request, limit, what)])
