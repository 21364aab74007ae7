"""Where a handler's bytes come from: an artifact of the store, or a URL that is fetched safely."""

import asyncio
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from penstock.consumers.context import Context
from penstock.consumers.fetch import fetch
from penstock.core.artifacts import Artifacts, clean_filename
from penstock.core.errors import Misconfigured, NotFound, Permanent, TooLarge, Unrehearsed
from penstock.core.settings import read_settings

ARTIFACT_PREFIX: Final = "sha256-"


class Source(msgspec.Struct, frozen=True):
    """What was read, and the name it had there (may be empty)."""

    data: bytes
    filename: str


def store_of(context: Context) -> Artifacts:
    """The worker's artifact store. Raises Misconfigured where it has none."""
    if context.artifacts is None:
        raise Misconfigured("this worker was started without an artifact store")
    return context.artifacts


def read_source(source: str, context: Context) -> Source:
    """All bytes of an artifact's id or an http(s) URL, for handlers that run in a thread.

    Raises Permanent for what is not there, refused or too large; see `fetch` for the rest. A rehearsal
    fetches nothing.
    """
    store = store_of(context)
    if source.startswith(ARTIFACT_PREFIX):
        try:
            return Source(data=store.get(source), filename=store.describe(source).filename)
        except (NotFound, TooLarge) as error:
            raise Permanent(str(error)) from error
    if context.rehearsal:
        raise Unrehearsed(f"its source is an address: {source[:200]}")
    private = read_settings().fetch_private
    fetched = asyncio.run(fetch(source, max_bytes=store.max_size, allow_private=private))
    name = PurePosixPath(unquote(urlsplit(fetched.url).path)).name
    return Source(data=fetched.data, filename=clean_filename(name))
