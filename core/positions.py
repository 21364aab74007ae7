"""Positions and job ids.

A position is a place in a partition's log: a Redis stream id, `<ms>-<seq>`, given by the server's
clock. A job is named after its first event: `<queue>.<partition>.<position>`, so its id says where
to find it, sorts by time and needs no index.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from penstock.core.errors import NotFound

START: Final = "0-0"
LAST_SEQ: Final = 2**64 - 1

# Numbers as we write them, without zeros in front: a job has one id, so what its events call it is
# what people call it.
_JOB_ID: Final = re.compile(
    r"([a-z0-9][a-z0-9_-]{0,62})\.(0|[1-9][0-9]{0,3})\.((?:0|[1-9][0-9]{0,14})-(?:0|[1-9][0-9]{0,9}))"
)


class JobAddress(NamedTuple):
    """A job id taken apart."""

    queue: str
    partition: int
    position: str


def parse_job_id(text: str) -> JobAddress:
    """Take a job id apart. Raises NotFound: an id of another form names no job."""
    match = _JOB_ID.fullmatch(text)
    if match is None:
        raise NotFound(f"{text!r} is not a job id (like email.0.1795477369681-0)")
    return JobAddress(match[1], int(match[2]), match[3])


def milliseconds(position: str) -> int:
    """When it was appended: Unix time in ms, by the server's clock."""
    return int(position[: position.index("-")])


# When a job was submitted is asked at each of its events.
born: Final = lru_cache(maxsize=2**15)(milliseconds)


def order(position: str) -> tuple[int, int]:
    """A key that sorts positions as the log does."""
    ms, seq = position.split("-")
    return int(ms), int(seq)


def before(ms: int) -> str:
    """The last position there may be before a moment (Unix ms)."""
    return f"{ms - 1}-{LAST_SEQ}" if ms > 0 else START


def preceding(position: str) -> str:
    """The last position there may be before another one; before 0-0 there is none, and it stays."""
    ms, seq = order(position)
    return f"{ms}-{seq - 1}" if seq else before(ms)


def succeeding(position: str) -> str:
    """The first position there may be after another one."""
    ms, seq = order(position)
    return f"{ms}-{seq + 1}" if seq < LAST_SEQ else f"{ms + 1}-0"


def packed(position: str) -> bytes:
    """A position as the views hold it: 6 bytes of ms and 8 of seq, so that their order is that of the
    log. A few bytes more, as text takes, and the server's allocator gives sixteen more: of 500 bytes
    that a waiting job costs in all, 32. Raises ValueError, or OverflowError past the year 10889."""
    ms, seq = position.split("-")
    return (int(ms) << 64 | int(seq)).to_bytes(14, "big")


def unpacked(place: bytes) -> str:
    """The position that `packed` made."""
    number = int.from_bytes(place, "big")
    return f"{number >> 64}-{number & 0xFFFF_FFFF_FFFF_FFFF}"


def delta(base: str, position: str) -> str:
    """`position` as seen from `base`, shorter: `<ms after base>-<seq>`."""
    ms, _, seq = position.partition("-")
    return f"{int(ms) - born(base)}-{seq}"


def undelta(base: str, text: str) -> str:
    """The position that `delta` shortened."""
    ms, seq = text.split("-")
    return f"{int(ms) + milliseconds(base)}-{seq}"
