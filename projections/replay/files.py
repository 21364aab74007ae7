"""Where exports and archives are kept: a local file or folder, or an object store that obstore speaks to.

A name is a path, `-` (standard input or output), or a URL: s3://bucket/folder/name, gs://…, az://…, file:///….
Credentials and endpoint of a store come from the variables that obstore reads, as for artifacts.

Nobody sees half a file: what is written appears when it is whole, and never in the place of another one.
"""

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from penstock.core.artifacts import REMOTE_PATIENCE, REMOTE_RETRIES, REMOTE_SCHEMES
from penstock.core.errors import Refused

STANDARD: Final = "-"
_CHUNK: Final = 1024 * 1024
_URL: Final = re.compile(r"[a-z0-9]+://")


def address(name: str) -> str:
    """A folder as it is called from anywhere: a path from the root, or a URL without a slash at its end."""
    return name.rstrip("/") if _URL.match(name) else str(Path(name).absolute())


def open_store(url: str, *, make: bool = False) -> ObjectStore:
    """The store in a folder: a path or a URL; a local folder that is not there is made if `make`. Raises
    Refused."""
    with answering(url):
        if (folder := _local(url)) is not None:
            if not make and not folder.is_dir():
                raise Refused(f"{url}: there is no such folder")
            is_new, store = not folder.is_dir(), LocalStore(folder.absolute(), mkdir=make)
            if is_new:
                _sync(folder.absolute().parent)
            return store
        parts = urlsplit(url)
        if parts.scheme not in REMOTE_SCHEMES:
            raise Refused(f"{url}: {parts.scheme!r} is none of file, {', '.join(REMOTE_SCHEMES)}")
        return from_url(url, retry_config={"max_retries": REMOTE_RETRIES, "retry_timeout": REMOTE_PATIENCE})


def put(store: ObjectStore, path: str, data: bytes) -> None:
    """Put an object, whole or not at all. In a local folder it is on the disk before it has its name, and
    its name is on the disk when this returns."""
    if not isinstance(store, LocalStore):
        obstore.put(store, path, data)
        return
    part = f"{path}.{token_hex(8)}.part"
    obstore.put(store, part, data)
    _sync(_place(store, part))
    obstore.rename(store, part, path)
    settle(store, path.rpartition("/")[0])


def settle(store: ObjectStore, folder: str) -> None:
    """Make sure that what has a name in a folder has it after a power cut too."""
    if isinstance(store, LocalStore):
        place = _place(store, folder)
        while place.is_relative_to(_place(store, "")):
            _sync(place)
            place = place.parent


@contextmanager
def writing(name: str) -> Iterator[BinaryIO]:
    """A file that appears under `name` when the block has ended well. Raises Refused where it cannot, or
    where there is one already."""
    if name == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif (path := _local(name)) is not None:
        with _local_file(path, name) as file:
            yield file
    else:
        store, last = _split(name)
        with answering(name), suppress(FileNotFoundError):
            obstore.head(store, last)
            raise Refused(f"{name} is there already: remove it, or choose another name")
        with tempfile.TemporaryFile() as file:
            yield cast(BinaryIO, file)
            file.seek(0)
            with answering(name):
                obstore.put(store, last, file)


@contextmanager
def reading(name: str) -> Iterator[BinaryIO]:
    """A file to read, from its beginning and as often as wanted. Raises Refused where there is none."""
    if name != STANDARD and (path := _local(name)) is not None:
        with answering(name):
            local = path.open("rb")
        with local:
            yield local
        return
    with tempfile.TemporaryFile() as file:
        with answering(name):
            if name == STANDARD:
                shutil.copyfileobj(sys.stdin.buffer, file, _CHUNK)
            else:
                store, last = _split(name)
                for chunk in obstore.get(store, last).stream(min_chunk_size=_CHUNK):
                    file.write(chunk)
        file.seek(0)
        yield cast(BinaryIO, file)


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Turn the errors of files and stores, which may span pages, into one line."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else None
        if isinstance(error, FileNotFoundError):
            told = "there is no such file"
        raise Refused(f"{name}: {told or str(error).partition(chr(10))[0]}") from None


@contextmanager
def _local_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file beside its place, moved there when it is whole and on the disk."""
    if path.exists():
        raise Refused(f"{name} is there already: remove it, or choose another name")
    with answering(name):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        with answering(name):
            os.link(temporary, path)
            _sync(path.absolute().parent)
    finally:
        Path(temporary).unlink()


def _place(store: LocalStore, path: str) -> Path:
    return Path(store.prefix or "/", path)


def _sync(path: Path) -> None:
    """What a file holds, or the names in a folder, is on the disk after this."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or path.is_file():  # there are file systems that cannot, with a folder
            raise
    finally:
        os.close(handle)


def _local(name: str) -> Path | None:
    if not _URL.match(name):
        return Path(name)
    parts = urlsplit(name)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _split(url: str) -> tuple[ObjectStore, str]:
    """The store of a URL's folder, and the last word of its path."""
    folder, _, last = url.rpartition("/")
    if not last or folder.endswith("/"):
        raise Refused(f"{url} names no file: say s3://bucket/folder/name.ndjson.zst")
    return open_store(folder), last
