"""Artifacts over HTTP: files in for jobs to read, files out that jobs wrote.

    POST /artifacts         the bytes as the body, with their Content-Type and `?filename=`;
                            or multipart/form-data with one file, as an HTML form sends it
    GET  /artifacts/{id}    a stream; it never changes, so it may be kept for ever

What is stored came from somebody, so it is never run: a browser gets anything but plain pictures and
text as a download, may not guess another type, and a page inside gets a sandbox.
"""

import asyncio
from collections.abc import AsyncIterator
from email.message import Message
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, TypeAlias
from urllib.parse import quote

import msgspec
from litestar import Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from penstock.core.artifacts import Artifact, Artifacts
from penstock.core.errors import FieldProblem, InvalidJob, TooLarge
from penstock.producer.bodies import AnyRequest, chunks
from penstock.producer.refusals import Malformed

SHOWN: Final = frozenset(
    {"image/png", "image/jpeg", "image/webp", "image/avif", "image/gif", "text/plain", "application/json"}
)
SPOOL: Final = 1024 * 1024  # what one upload takes of memory while it comes in
AT_ONCE: Final = 2  # uploads that are hashed and stored at the same time, whole in memory
FORM_ROOM: Final = 64 * 1024  # what a form may take beside its file
MAX_FORM_PARTS: Final = 20

_Named: TypeAlias = tuple[str, str]  # content type, filename
_SAFETY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def artifact_routes(artifacts: Artifacts) -> list[HTTPRouteHandler]:
    """The handlers of this file."""
    turn = asyncio.Semaphore(AT_ONCE)

    @post("/artifacts", include_in_schema=False)
    async def store_artifact(request: AnyRequest, filename: FromQuery[str] = "") -> Response[bytes]:
        with SpooledTemporaryFile(max_size=SPOOL) as spool:
            content_type, name = await _receive(request, spool, artifacts.max_size)
            async with turn:
                spool.seek(0)
                stored = await artifacts.aput(
                    spool.read(), content_type=content_type, filename=filename or name
                )
        return Response(
            msgspec.json.encode(stored),
            status_code=201,
            headers={"Location": f"/artifacts/{stored.id}"},
            media_type="application/json",
        )

    @route("/artifacts/{id:str}", http_method=["GET", "HEAD"], include_in_schema=False)
    async def fetch_artifact(request: AnyRequest, id: FromPath[str]) -> Response[Any]:
        artifact = await artifacts.adescribe(id)
        headers = _headers(artifact)
        if _has_it(request.headers.get("if-none-match", ""), artifact):
            return Response(b"", status_code=304, headers=headers)
        headers |= {"Content-Type": artifact.content_type, "Content-Length": str(artifact.size)}
        if request.method == "HEAD":
            return Response(b"", status_code=200, headers=headers)
        return Stream(_behind(artifacts.astream(id)), status_code=200, headers=headers)

    return [store_artifact, fetch_artifact]


async def _behind(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, each only when the one after it is there: so the last is not sent before the
    digest was found right, and a damaged file breaks off."""
    held: bytes | None = None
    async for chunk in stream:
        if held is not None:
            yield held
        held = chunk
    if held is not None:
        yield held


async def _receive(request: AnyRequest, spool: IO[bytes], limit: int) -> _Named:
    """Write the file into `spool` as it comes in. Raises TooLarge, Malformed, InvalidJob."""
    told = request.headers.get("content-type", "")
    kind, options = parse_options_header(told)
    if kind == "multipart/form-data":
        return await _receive_form(request, spool, limit, options.get("boundary", ""))
    async for chunk in chunks(request, limit, "artifact"):
        spool.write(chunk)
    disposition = Message()
    disposition["Content-Disposition"] = request.headers.get("content-disposition", "")
    return told, disposition.get_filename("")


async def _receive_form(request: AnyRequest, spool: IO[bytes], limit: int, boundary: str) -> _Named:
    named: _Named | None = None
    inside = False
    async for event in _form_events(request, limit + FORM_ROOM, boundary):
        if isinstance(event, MultipartSegment):
            inside = event.filename is not None
            if inside and named is not None:
                raise InvalidJob([FieldProblem("form", "more than one file: send them one by one")])
            if inside:
                named = event.content_type or "", event.filename or ""
        elif event is not None and inside:
            spool.write(event)
    if named is None:
        raise InvalidJob([FieldProblem("form", "no file in it")])
    if spool.tell() > limit:
        raise TooLarge("artifact, in bytes", spool.tell(), limit)
    return named


async def _form_events(request: AnyRequest, limit: int, boundary: str) -> AsyncIterator[Any]:
    """The parser's events: a MultipartSegment, its bytes, None at its end. Raises Malformed."""
    try:
        with PushMultipartParser(boundary, max_segment_count=MAX_FORM_PARTS) as parser:
            async for chunk in chunks(request, limit, "form"):
                for event in parser.parse(chunk):
                    yield event
    except (MultipartError, ValueError) as error:
        raise Malformed(f"the body is not multipart/form-data: {error}") from None


def _headers(artifact: Artifact) -> dict[str, str]:
    shown = artifact.content_type.partition(";")[0] in SHOWN
    name = f"; filename*=UTF-8''{quote(artifact.filename, safe='')}" if artifact.filename else ""
    return {
        "ETag": f'"{artifact.sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": ("inline" if shown else "attachment") + name,
        **_SAFETY,
    }


def _has_it(told: str, artifact: Artifact) -> bool:
    """If-None-Match (RFC 9110, 13.1.2): a list of tags, weak ones count as well, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in told.split(",")]
    return "*" in tags or f'"{artifact.sha256}"' in tags
