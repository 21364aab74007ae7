"""The log outside of Redis: each entry as one line of JSON, and a last line that vouches for them all.

    {"position":"1795…-0","at":"2026-…Z","queue":"email","event":"started","job":"email.0.1795…-0","data":{…}}
    …
    {"manifest":{"queue":"email","events":2,"sha256":"…",…}}

From a line the entry is made again byte by byte, so `data` is the body as it stands in the log. An entry
that such a line cannot hold (a foreign hand wrote it, or its body is no JSON) has its fields, base64,
in `fields` instead. `sha256` is that of all lines before the last one.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from penstock.core.contracts import QUEUE_NAME
from penstock.core.errors import Refused
from penstock.core.events import QUEUE_TAGS
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import milliseconds, order
from penstock.projections.details import instant

FORMAT: Final = 1
_MANIFEST: Final = b'{"manifest":'
_NAMES: Final = [b"event", b"job", b"body"]
_TAG: Final = re.compile(rb"[a-z0-9_/]{1,64}")
_PLACE: Final = re.compile(rb"(?:0|[1-9][0-9]{0,14})-(?:0|[1-9][0-9]{0,19})")
_QUEUE_TAGS: Final = frozenset(tag.encode() for tag in QUEUE_TAGS)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lines are: of which log (`epoch` tells it from others of its name), after which position and up
    to which, how many, from the `first` to the `last`. `job`: only that one's, a position. `redacted`: what
    was taken out of bodies. `base`: of a whole log that was trimmed, what the rest had counted."""

    format: int
    queue: str
    partition: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 0
    epoch: str
    after: str
    upto: str
    job: str = ""
    events: int
    first: str = ""
    last: str = ""
    sha256: str
    redacted: tuple[str, ...] = ()
    base: dict[str, str] = {}


class _Line(msgspec.Struct):
    position: str
    event: str = ""
    job: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    fields: list[str] = []


class _Last(msgspec.Struct):
    manifest: Manifest


_read_line: Final = msgspec.json.Decoder(_Line).decode
_read_last: Final = msgspec.json.Decoder(_Last, strict=True).decode
_any_json: Final = msgspec.json.Decoder(msgspec.Raw).decode
_at: Final = lru_cache(maxsize=4096)(instant)


def write_line(keys: PartitionKeys, entry: Entry) -> bytes:
    """An entry as a line, its end included."""
    position, fields = entry
    at = _at(milliseconds(position.decode())).encode()
    head = b'{"position":"%b","at":"%b","queue":"%b",' % (position, at, keys.queue.encode())
    if not _is_plain(position, fields):
        raw = msgspec.json.encode([base64.b64encode(field).decode() for field in fields])
        return b'%b"fields":%b}\n' % (head, raw)
    tag, job, body = fields[1], fields[3], fields[5]
    if not job and tag not in _QUEUE_TAGS:
        job = position
    id = b"%b.%b" % (keys.name.encode(), job) if job else b""
    return b'%b"event":"%b","job":"%b","data":%b}\n' % (head, tag, id, body)


def read_line(line: bytes) -> Entry:
    """The entry that `write_line` wrote. Raises ValueError for what is no such line."""
    told = _read_line(line)
    position = told.position.encode()
    if not _PLACE.fullmatch(position):
        raise ValueError(f"{told.position[:40]!r} is no position")
    if told.fields:
        return position, [_raw(field) for field in told.fields]
    job = told.job.rpartition(".")[2].encode()
    body = bytes(told.data)
    if not told.event or not body or (job and not _PLACE.fullmatch(job)):
        raise ValueError("it is no event")
    return position, [b"event", told.event.encode(), b"job", b"" if job == position else job, b"body", body]


def write_manifest(manifest: Manifest) -> bytes:
    """The last line."""
    return msgspec.json.encode({"manifest": manifest}) + b"\n"


class Sum:
    """Adds up entries as they are written or read, in order."""

    def __init__(self) -> None:
        self.events = 0
        self.first = self.last = ""
        self._digest: Final = hashlib.sha256()

    def add(self, position: bytes, line: bytes) -> None:
        """The next one. Raises ValueError where it does not come after the one before."""
        last = position.decode()
        if self.events and order(last) <= order(self.last):
            raise ValueError(f"{last} comes after {self.last}")
        self.events += 1
        self.first, self.last = self.first or last, last
        self._digest.update(line)

    @property
    def sha256(self) -> str:
        """Of all lines."""
        return self._digest.hexdigest()

    def agrees(self, manifest: Manifest) -> bool:
        """Whether these are the entries that a manifest vouches for."""
        said = (manifest.events, manifest.first, manifest.last, manifest.sha256)
        return said == (self.events, self.first, self.last, self.sha256)


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[Entry | Manifest]:
    """The entries of a file, and at last its manifest, once all agree with it.

    Raises Refused (with the file's `name`) for lines that are no export, that were cut or changed: who acts
    on entries acts only once the manifest has come.
    """
    total, number = Sum(), 0
    manifest: Manifest | None = None
    for number, line in enumerate(lines, 1):
        if manifest is not None:
            raise Refused(f"{name}: there is more after the manifest, in line {number}")
        if not line.endswith(b"\n"):
            break
        if line.startswith(_MANIFEST):
            manifest = read_manifest(line, name)
            continue
        try:
            entry = read_line(line)
            total.add(entry[0], line)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{name}: line {number} is no event of a log: {error}") from None
        yield entry
    if manifest is None:
        raise Refused(
            f"{name}: the end is missing: it was cut after {total.events:,} events, or is no export"
        )
    if not total.agrees(manifest):
        raise Refused(
            f"{name}: the checksum is wrong: {manifest.events:,} events with SHA-256 {manifest.sha256[:12]}… "
            f"were written, {total.events:,} with {total.sha256[:12]}… are there"
        )
    yield manifest


def read_manifest(text: bytes, name: str) -> Manifest:
    """A manifest, from its line. Raises Refused."""
    try:
        manifest = _read_last(text).manifest
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{name}: its manifest cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise Refused(f"{name}: is of format {manifest.format}; this version reads {FORMAT}")
    if not re.fullmatch(QUEUE_NAME, manifest.queue):
        raise Refused(f"{name}: {manifest.queue[:80]!r} is no queue's name")
    return manifest


def _is_plain(position: bytes, fields: list[bytes]) -> bool:
    """Whether a line holds the entry as it is."""
    if len(fields) != 6 or fields[::2] != _NAMES:
        return False
    job, body = fields[3], fields[5]
    if not _TAG.fullmatch(fields[1]) or (job and (job == position or not _PLACE.fullmatch(job))):
        return False
    try:
        return (
            b"\n" not in body
            and b"\r" not in body
            and (body.isascii() or bool(body.decode()))
            and bytes(_any_json(body)) == body
        )
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return False


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a field is no base64") from None
