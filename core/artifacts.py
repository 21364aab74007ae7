"""Artifacts: the files that jobs read and write, kept outside the log.

An artifact is immutable and named by its content: `sha256-` and the 64 hex digits of its digest.
Two objects hold it, in a local folder or in any object store that obstore speaks to:

    ab/ab12…ef         the bytes, written first
    ab/ab12…ef.json    the Artifact below, written once: an artifact exists when this does

So the same bytes are kept once, under the name they first came with, and nobody sees half a file:
both kinds of store make an object visible only when it is whole.

`PENSTOCK_ARTIFACTS_URL` chooses the store: `s3://bucket/prefix` (also `gs://`, `az://`, `file:///path`);
empty is the folder `artifacts` in the data directory. Credentials and endpoint come from the variables
obstore itself reads: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and for MinIO and other
S3-compatible servers AWS_ENDPOINT (with AWS_ALLOW_HTTP=true where it has no TLS).
"""

import asyncio
import hashlib
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from penstock.core.errors import Misconfigured, NotFound, PenstockError, TooLarge, Unavailable
from penstock.core.settings import Settings

ARTIFACT_ID: Final = re.compile(r"sha256-([0-9a-f]{64})")
CONTENT_TYPE: Final = re.compile(
    r"[\w.+!#$&^-]{1,63}/[\w.+!#$&^-]{1,63}(; ?[\w-]{1,32}=[\w.+-]{1,64}){0,3}", re.ASCII
)
MAX_FILENAME_CHARS: Final = 150
CHUNK: Final = 256 * 1024

REMOTE_SCHEMES: Final = ("s3", "s3a", "gs", "az", "adl", "abfs", "abfss")
REMOTE_RETRIES: Final = 3
REMOTE_PATIENCE: Final = timedelta(seconds=20)


class Damaged(PenstockError):
    """The stored bytes no longer match their digest."""


class Artifact(msgspec.Struct, frozen=True):
    """What is known of an artifact: `size` in bytes, `created` in Unix ms, `filename` may be empty."""

    id: str
    content_type: str
    filename: str
    size: int
    sha256: str
    created: int


class Artifacts:
    """A store of artifacts. `put`, `get` and `describe` block; their async faces run them in a thread.

    A store that does not answer raises Unavailable.
    """

    def __init__(self, store: ObjectStore, max_size: int) -> None:
        self._store: Final = store
        self.max_size: Final = max_size

    def put(self, data: bytes, *, content_type: str = "", filename: str = "") -> Artifact:
        """Store `data`; answers the artifact as first stored. Raises TooLarge.

        A content type that is none is kept as application/octet-stream, of a filename its last part.
        """
        self._check_size(len(data))
        digest = hashlib.sha256(data).hexdigest()
        id = f"sha256-{digest}"
        try:
            return self.describe(id)
        except NotFound:
            pass
        artifact = Artifact(
            id=id,
            content_type=content_type if CONTENT_TYPE.fullmatch(content_type) else "application/octet-stream",
            filename=clean_filename(filename),
            size=len(data),
            sha256=digest,
            created=time.time_ns() // 1_000_000,
        )
        with _answering():
            obstore.put(self._store, _path(id), data)
            try:
                obstore.put(self._store, _path(id) + ".json", msgspec.json.encode(artifact), mode="create")
            except AlreadyExistsError:  # another put of the same bytes was faster: its name counts
                return self.describe(id)
        return artifact

    def describe(self, id: str) -> Artifact:
        """What is known of an artifact. Raises NotFound, also for what is no artifact's id."""
        path = _path(id) + ".json"
        with _answering():
            try:
                found = obstore.get(self._store, path).bytes()
            except FileNotFoundError:
                raise NotFound(f"no artifact {id}") from None
        return msgspec.json.decode(found, type=Artifact)

    def get(self, id: str) -> bytes:
        """The whole content, its digest checked. Raises NotFound, TooLarge, Damaged."""
        path = _path(id)
        with _answering():
            try:
                found = obstore.get(self._store, path)
                self._check_size(found.meta["size"])
                data = found.bytes().to_bytes()
            except FileNotFoundError:
                raise NotFound(f"no artifact {id}") from None
        _check_digest(id, hashlib.sha256(data).hexdigest())
        return data

    async def aput(self, data: bytes, *, content_type: str = "", filename: str = "") -> Artifact:
        """`put` from an event loop."""
        return await asyncio.to_thread(self.put, data, content_type=content_type, filename=filename)

    async def adescribe(self, id: str) -> Artifact:
        """`describe` from an event loop."""
        return await asyncio.to_thread(self.describe, id)

    async def aget(self, id: str) -> bytes:
        """`get` from an event loop."""
        return await asyncio.to_thread(self.get, id)

    async def astream(self, id: str) -> AsyncIterator[bytes]:
        """The content in chunks of at least 256 KiB, for downloads: memory stays flat.

        Raises NotFound before the first chunk, and Damaged after the last when the digest is wrong,
        so that a server breaks the connection off instead of ending it well.
        """
        path = _path(id)
        digest = hashlib.sha256()
        with _answering():
            try:
                found = await obstore.get_async(self._store, path)
            except FileNotFoundError:
                raise NotFound(f"no artifact {id}") from None
            async for chunk in found.stream(min_chunk_size=CHUNK):
                digest.update(chunk)
                yield chunk
        _check_digest(id, digest.hexdigest())

    def _check_size(self, size: int) -> None:
        if size > self.max_size:
            raise TooLarge("artifact in bytes", size, self.max_size)


class Overlay(Artifacts):
    """A store seen through a folder: reads from both, writes into the folder alone."""

    def __init__(self, below: Artifacts, folder: Path) -> None:
        super().__init__(LocalStore(folder, mkdir=True), below.max_size)
        self._below: Final = below
        self.folder: Final = folder

    def describe(self, id: str) -> Artifact:
        try:
            return self._below.describe(id)
        except NotFound:
            return super().describe(id)

    def get(self, id: str) -> bytes:
        try:
            return self._below.get(id)
        except NotFound:
            return super().get(id)

    async def astream(self, id: str) -> AsyncIterator[bytes]:
        try:
            await self._below.adescribe(id)
            chunks = self._below.astream(id)
        except NotFound:
            chunks = super().astream(id)
        async for chunk in chunks:
            yield chunk


def open_artifacts(settings: Settings) -> Artifacts:
    """The store that the settings name. Raises Misconfigured."""
    try:
        store = _open_store(settings)
    except (BaseError, ValueError, OSError) as error:
        raise Misconfigured(f"PENSTOCK_ARTIFACTS_URL: {_first_line(error)}") from None
    return Artifacts(store, settings.max_artifact)


def clean_filename(name: str) -> str:
    """The last part of a path given by a user, without control and direction characters."""
    last = re.split(r"[/\\]", name)[-1]
    printable = "".join(
        char for char in last if not unicodedata.category(char).startswith(("C", "Z")) or char == " "
    )
    return printable.strip(" .")[:MAX_FILENAME_CHARS]


def _open_store(settings: Settings) -> ObjectStore:
    url = urlsplit(settings.artifacts_url)
    if not settings.artifacts_url:
        return LocalStore(settings.data_dir.absolute() / "artifacts", mkdir=True)
    if url.scheme == "file":
        return LocalStore(Path(unquote(url.path)), mkdir=True)
    if url.scheme not in REMOTE_SCHEMES:
        raise ValueError(f"{url.scheme!r} is none of file, {', '.join(REMOTE_SCHEMES)}")
    return from_url(
        settings.artifacts_url,
        retry_config={"max_retries": REMOTE_RETRIES, "retry_timeout": REMOTE_PATIENCE},
    )


def _path(id: str) -> str:
    """Where an id's bytes are. Nothing but hex digits of a valid id ever becomes part of a path."""
    match = ARTIFACT_ID.fullmatch(id)
    if match is None:
        raise NotFound(f"{id[:100]!r} is no artifact's id")
    return f"{match[1][:2]}/{match[1]}"


def _check_digest(id: str, digest: str) -> None:
    if id != f"sha256-{digest}":
        raise Damaged(f"artifact {id} was changed in its store: its bytes now have the digest {digest}")


@contextmanager
def _answering() -> Iterator[None]:
    """Turn the store's own errors, which span pages, into Unavailable with their first line."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise Unavailable(f"artifact store: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
