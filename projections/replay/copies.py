"""Copies of the snapshots (projections/snapshots.py) that an archive keeps: some of them, as lines of JSON.

    {"position":"1795…-0","stats":{…}}
    …

Nothing depends on them, as nothing depends on the snapshots: whoever looks back is faster with them.
"""

import io
from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from penstock.core.errors import Refused

Copy = tuple[str, bytes]  # a position, and what had been counted up to there, as it is written

MAX_BYTES: Final = 64 * 1024 * 1024  # of lines
_LEVEL: Final = 3
_MAX_WINDOW: Final = 128 * 1024 * 1024


class _Line(msgspec.Struct):
    position: str
    stats: msgspec.Raw


_read: Final = msgspec.json.Decoder(_Line).decode_lines
_any_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


def legible(copies: Sequence[Copy]) -> list[Copy]:
    """Those that can be written: a foreign hand may have left what is no JSON, or spans lines."""
    return [it for it in copies if _is_plain(it[1])]


def write_copies(copies: Sequence[Copy]) -> bytes:
    """Snapshots as lines, compressed, with a checksum."""
    lines = msgspec.json.Encoder().encode_lines(
        [_Line(position, msgspec.Raw(stats)) for position, stats in copies]
    )
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(lines)


def read_copies(name: str, data: bytes) -> list[Copy]:
    """What `write_copies` wrote. Raises Refused (with the file's `name`) for what is none."""
    unpacked = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(io.BytesIO(data))
    try:
        lines = unpacked.read(MAX_BYTES + 1)
        if len(lines) > MAX_BYTES:
            raise Refused(f"{name}: has more than {MAX_BYTES:,} bytes: it is no copy of snapshots")
        return [(it.position, bytes(it.stats)) for it in _read(lines)]
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{name}: it was damaged: {error}") from None


def _is_plain(stats: bytes) -> bool:
    try:
        return b"\n" not in stats and bytes(_any_json(stats)) == stats and bool(stats.decode())
    except (ValueError, RecursionError):
        return False
