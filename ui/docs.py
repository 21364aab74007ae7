"""The API's description for people and programs, with nothing fetched from elsewhere.

    GET /               where to find what
    GET /openapi.json   the OpenAPI document
    GET /docs           Swagger UI, its files out of the package openapi-ui-bundles

The page may load and ask this server only, and runs no script that is written into it.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.core.errors import NotFound

OPEN: Final = {"open": True}  # see gate.py

_PAGE: Final = "index.html"
_TYPES: Final = {
    _PAGE: "text/html; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_SAFETY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def docs_routes(document: Callable[[], dict[str, Any]]) -> list[HTTPRouteHandler]:
    """The handlers of this file; `document` makes the OpenAPI document when it is first asked for."""

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(document())

    @get("/", opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def index() -> dict[str, str]:
        return {
            "name": "penstock",
            "version": version("penstock"),
            "queues": "/queues",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": "/health/ready",
        }

    @get("/openapi.json", opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def openapi() -> Response[bytes]:
        return Response(encoded(), media_type="application/json")

    @get("/docs", opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def page() -> Response[bytes]:
        return _file(_PAGE)

    @get("/docs/{name:str}", opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def part(name: FromPath[str]) -> Response[bytes]:
        if name not in _TYPES:
            raise NotFound(f"no page {name[:100]!r}")
        return _file(name)

    return [index, openapi, page, part]


def _file(name: str) -> Response[bytes]:
    return Response(_content(name), media_type=_TYPES[name], headers=_SAFETY)


@cache
def _content(name: str) -> bytes:
    ours: Traversable = files("penstock.ui") / "static" / "docs" / name
    return (ours if ours.is_file() else files("openapi_ui_bundles.swagger_ui") / "vendor" / name).read_bytes()
