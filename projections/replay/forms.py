"""The forms an export may have: lines of JSON (wire.py), plain or compressed by zstd, and Parquet.

A form is chosen by the name when it is written, and found by the first bytes when it is read.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, Protocol

import zstandard

from penstock.core.errors import Refused
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.projections.replay.files import STANDARD
from penstock.projections.replay.wire import Manifest, read_line, read_lines, read_manifest, write_manifest

MAX_LINE: Final = 64 * 1024 * 1024
MAX_TEXT: Final = 256 * 1024 * 1024  # of a segment, which has a quarter of it at most
_LEVEL: Final = 3
_MAX_WINDOW: Final = 128 * 1024 * 1024
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"


class Sink(Protocol):
    """Takes what is exported, in the order of the log, and at last what vouches for it."""

    def write(self, entry: Entry, line: bytes) -> None:
        """An entry, and its line."""

    def finish(self, manifest: Manifest) -> None:
        """All entries have come."""


class Lines:
    """Lines of JSON."""

    def __init__(self, file: BinaryIO | zstandard.ZstdCompressionWriter) -> None:
        self._file: Final = file

    def write(self, entry: Entry, line: bytes) -> None:
        self._file.write(line)

    def finish(self, manifest: Manifest) -> None:
        self._file.write(write_manifest(manifest))


def check_form(name: str) -> None:
    """Raises Refused for a name that says no form, or where the form's library is missing."""
    if name != STANDARD and not name.endswith((".ndjson", ".ndjson.zst", ".parquet")):
        raise Refused(f"{name}: the name says the form: .ndjson.zst, .ndjson or .parquet")
    if name.endswith(".parquet"):
        from penstock.projections.replay import parquet

        parquet.library()


@contextmanager
def sink(name: str, file: BinaryIO, keys: PartitionKeys) -> Iterator[Sink]:
    """What writes to `file` in the form that `name` says."""
    if name.endswith(".parquet"):
        from penstock.projections.replay.parquet import Table

        with Table(file, keys) as table:
            yield table
    elif name.endswith(".zst"):
        with zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).stream_writer(
            file, closefd=False
        ) as compressed:
            yield Lines(compressed)
    else:
        yield Lines(file)


def entries(name: str, file: BinaryIO) -> Iterator[Entry | Manifest]:
    """The entries of an export, and at last its manifest, once all agree with it. Raises Refused for what
    is no export, or was cut or changed: who acts on entries acts once the manifest has come."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic == _PARQUET:
        from penstock.projections.replay.parquet import read_table

        yield from read_table(name, file)
    else:
        yield from read_lines(_lines(name, file, compressed=magic == _ZSTD), name)


def mentioning(name: str, data: bytes, texts: Sequence[bytes]) -> tuple[list[Entry], Manifest]:
    """As `entries`, of a compressed export, but only those whose lines contain one of these texts: the rest
    is summed up, and not taken apart. Raises Refused."""
    frames = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
        data, read_across_frames=True
    )
    try:
        lines = io.BufferedReader(frames).read(MAX_TEXT + 1)
    except zstandard.ZstdError as error:
        raise Refused(f"{name}: it was damaged: {error}") from None
    if len(lines) > MAX_TEXT:
        raise Refused(f"{name}: it has more than {MAX_TEXT:,} bytes: it is no segment")
    end = lines.rfind(b"\n", 0, -1) + 1
    manifest = read_manifest(lines[end:], name)
    if hashlib.sha256(memoryview(lines)[:end]).hexdigest() != manifest.sha256:
        raise Refused(f"{name}: the checksum is wrong: it was changed")
    return [read_line(line) for line in _lines_with(lines, end, texts)], manifest


def _lines_with(lines: bytes, end: int, texts: Sequence[bytes]) -> list[bytes]:
    """The lines before `end` that contain one of these texts, in order."""
    found: dict[int, int] = {}
    for text in texts:
        place = lines.find(text, 0, end)
        while place >= 0:
            begin, stop = lines.rfind(b"\n", 0, place) + 1, lines.index(b"\n", place) + 1
            found[begin] = stop
            place = lines.find(text, stop, end)
    return [lines[begin : found[begin]] for begin in sorted(found)]


def verified(name: str, file: BinaryIO) -> Manifest:
    """The manifest of an export, all of which was read and agrees with it. Raises Refused."""
    found = None
    for found in entries(name, file):  # noqa: B007 - the last one is the manifest
        pass
    assert isinstance(found, Manifest)  # noqa: S101 - `entries` promises it
    return found


def _lines(name: str, file: BinaryIO, *, compressed: bool) -> Iterator[bytes]:
    reader: BinaryIO | io.BufferedReader = file
    if compressed:
        unpacked = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        # What stands behind the first frame would not be seen else.
        frames = unpacked.stream_reader(file, read_across_frames=True, closefd=False)
        reader = io.BufferedReader(frames)
    try:
        while line := reader.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise Refused(f"{name}: a line has more than {MAX_LINE:,} bytes: it is no export")
            yield line
    except zstandard.ZstdError as error:
        raise Refused(f"{name}: it was damaged: {error}") from None
