"""Where a reader of the feed is: a place in the log of every partition, as one short text.

The text is what the feed gives as the id of each of its messages, and what comes back as
Last-Event-ID. It begins with the scope, `all` queues or `one`, and has an entry for each partition:

    all.<mark><ms>-<seq>.<mark><ms>-<seq>

A mark is eight characters that stand for the partition's name and its epoch, ms and seq are those of
the position in hexadecimal digits. A partition that a cursor does not name did not exist when it was
given, so all that is in its log is new to whoever brings it. A mark that nobody has is one of another
epoch: whoever brings it has read a log that is no more.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2s
from typing import Final, NamedTuple

from penstock.core.positions import START, order

MAX_PARTITIONS: Final = 500  # of one cursor: about 11 KB, where servers take headers of 16 KiB
_MARK_BYTES: Final = 6
_ENTRY: Final = re.compile(r"([A-Za-z0-9_-]{8})([0-9a-f]{1,12})-([0-9a-f]{1,16})")


class Place(NamedTuple):
    """How far a log was read: the partition's mark, and the position of the last event."""

    mark: str
    position: str


Places = dict[str, Place]
"""By the partition's name."""


@lru_cache(maxsize=4 * MAX_PARTITIONS)
def mark_of(name: str, epoch: str) -> str:
    """What stands for a partition in one of its epochs."""
    digest = blake2s(f"{name}\n{epoch}".encode(), digest_size=_MARK_BYTES).digest()
    return urlsafe_b64encode(digest).decode()


def write_place(place: Place) -> str:
    """One entry of a cursor."""
    ms, seq = order(place.position)
    return f"{place.mark}{ms:x}-{seq:x}"


def write_cursor(places: Iterable[Place], *, whole: bool) -> str:
    """The cursor of these places."""
    return ".".join(["all" if whole else "one", *map(write_place, places)])


def scoped(scope: str, places: Places) -> Places:
    """Of these places the ones in a partition; all of them for the empty scope."""
    if not scope:
        return dict(places)
    return {scope: places[scope]} if scope in places else {}


def resumed(text: str, now: Places, *, whole: bool) -> Places | None:
    """Where a reader who brings this cursor is in the partitions there are `now`. None: the text is
    no cursor, or one of another scope, or knows a log that is no more."""
    scope, *entries = text.split(".")
    matches = [_ENTRY.fullmatch(entry) for entry in entries]
    if scope != ("all" if whole else "one") or len(entries) > MAX_PARTITIONS or None in matches:
        return None
    positions = {it[1]: f"{int(it[2], 16)}-{int(it[3], 16)}" for it in matches if it is not None}
    if positions.keys() - {place.mark for place in now.values()}:
        return None
    return {name: Place(place.mark, positions.get(place.mark, START)) for name, place in now.items()}
