"""An archive: a log kept outside of Redis, for ever, as segments that nobody changes.

In a folder or an object store (files.py), for each partition and each epoch of its log:

    email.0/<epoch>/manifest.json                               where the archive begins (Beginning)
    email.0/<epoch>/<after>_<last>_<events>_<sha256>.ndjson.zst   a segment, an export as any other (wire.py)
    email.0/<epoch>/gap_<after>_<removed>.json                  events that were removed before they came here

A segment has every event after one position up to another, and its name says which: so one listing tells
what there is, and a segment is there whole, by one put, or not at all. Where two archivers were at
work segments may overlap: each is a true stretch of the same log, and a reader takes each event once.
"""

import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2s
from itertools import accumulate
from typing import Final

import msgspec
import obstore

from penstock.core.errors import Refused
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import START, order
from penstock.projections.replay.files import address, answering, open_store
from penstock.projections.replay.forms import entries
from penstock.projections.replay.wire import Manifest

_PLACE: Final = r"([0-9]{15})-([0-9]{20})"
_SEGMENT: Final = re.compile(rf"{_PLACE}_{_PLACE}_([0-9]+)_([0-9a-f]{{16}})\.ndjson\.zst")
_GAP: Final = re.compile(rf"gap_{_PLACE}_{_PLACE}\.json")
_DIGITS: Final = 16  # of a digest, in a name
_FIRST: Final = "manifest.json"


class Beginning(msgspec.Struct, frozen=True):
    """Where the archive of a log begins: after `removed`, the newest position that had been removed by
    then (0-0: with the log itself); what that part had counted is `base`."""

    queue: str
    partition: int
    epoch: str
    removed: str
    base: dict[str, str]


class Segment(msgspec.Struct, frozen=True):
    """Every event after one position up to another."""

    after: str
    last: str
    events: int
    digest: str

    @property
    def name(self) -> str:
        return f"{_padded(self.after)}_{_padded(self.last)}_{self.events}_{self.digest}.ndjson.zst"


class Stock(msgspec.Struct, frozen=True, dict=True):
    """What an archive has of a log: its segments in order, and the newest position that was `removed`
    before it came here (0-0 if the archive is complete)."""

    segments: list[Segment]
    removed: str

    @property
    def end(self) -> str:
        """Up to where it reaches."""
        return self._furthest[-1].last if self.segments else START

    def after(self, position: str) -> Segment | None:
        """The segment to go on with after a position: of those that have events from there on, the one
        that reaches furthest; else the next one, behind a gap."""
        begun = bisect_right(self._begins, order(position))
        if begun and order(self._furthest[begun - 1].last) > order(position):
            return self._furthest[begun - 1]
        return self.segments[begun] if begun < len(self.segments) else None

    def upto(self, position: str) -> Segment | None:
        """The segment to go back with from a position, that included: of those that begin before it the one
        that reaches furthest."""
        begun = bisect_left(self._begins, order(position))
        return self._furthest[begun - 1] if begun else None

    def holding(self, position: str) -> Segment | None:
        """A segment that has the event at a position, if there was one."""
        found = self.upto(position)
        return found if found is not None and order(found.last) >= order(position) else None

    @cached_property
    def _begins(self) -> list[tuple[int, int]]:
        return [order(it.after) for it in self.segments]

    @cached_property
    def _furthest(self) -> list[Segment]:
        """Of each segment and those before it, the one that reaches furthest."""
        return list(accumulate(self.segments, _further))


class Archive:
    """One archive. Its calls block; whoever has an event loop uses a thread."""

    def __init__(self, url: str, *, make: bool = False) -> None:
        """Raises Refused for an address that is none, or a folder that is not there unless `make`."""
        self.url: Final = address(url)
        self._store: Final = open_store(url, make=make)

    def is_empty(self) -> bool:
        """Whether there is nothing at all. Raises Refused: the archive cannot be read."""
        with answering(self.url):
            return not any(page for page in obstore.list(self._store, chunk_size=1))

    def stock(self, keys: PartitionKeys, epoch: str) -> Stock | None:
        """What there is of a log; None if nothing is. Raises Refused: the archive cannot be read."""
        segments, removed, begun = [], START, False
        with answering(self.url):
            for name in self._names(_folder(keys, epoch)):
                if match := _SEGMENT.fullmatch(name):
                    after, last = _place(match[1], match[2]), _place(match[3], match[4])
                    segments.append(Segment(after, last, int(match[5]), match[6]))
                elif match := _GAP.fullmatch(name):
                    removed = max(removed, _place(match[3], match[4]), key=order)
                begun = begun or name == _FIRST
            if not begun:
                return None
            beginning = self.beginning(keys, epoch)
        segments.sort(key=lambda it: (order(it.after), order(it.last)))
        return Stock(segments, max(removed, beginning.removed, key=order))

    def beginning(self, keys: PartitionKeys, epoch: str) -> Beginning:
        """Where the archive of a log begins. Raises Refused: it does not, or cannot be read."""
        path = f"{_folder(keys, epoch)}{_FIRST}"
        with answering(f"{self.url}/{path}"):
            return msgspec.json.decode(obstore.get(self._store, path).bytes(), type=Beginning)

    def begin(self, keys: PartitionKeys, beginning: Beginning) -> None:
        """Write where the archive of a log begins, before its first segment."""
        self._put(f"{_folder(keys, beginning.epoch)}{_FIRST}", msgspec.json.encode(beginning))

    def add(self, keys: PartitionKeys, manifest: Manifest, data: bytes) -> Segment:
        """Keep a segment: an export, and its manifest."""
        digest = manifest.sha256[:_DIGITS]
        segment = Segment(manifest.after, manifest.upto, manifest.events, digest)
        self._put(_folder(keys, manifest.epoch) + segment.name, data)
        return segment

    def note_gap(self, keys: PartitionKeys, epoch: str, after: str, removed: str) -> None:
        """Write down that events between two positions never came here."""
        self._put(f"{_folder(keys, epoch)}gap_{_padded(after)}_{_padded(removed)}.json", b"{}")

    def read(self, keys: PartitionKeys, epoch: str, segment: Segment) -> list[Entry]:
        """The events of a segment. Raises Refused: it is gone, or was changed."""
        path = _folder(keys, epoch) + segment.name
        name = f"{self.url}/{path}"
        with answering(name):
            data = obstore.get(self._store, path).bytes().to_bytes()
        found = []
        for entry in entries(name, io.BytesIO(data)):
            if not isinstance(entry, Manifest):
                found.append(entry)
            elif entry.epoch != epoch or not entry.sha256.startswith(segment.digest):
                raise Refused(f"{name}: is not the segment that its name says")
        return found

    def _names(self, folder: str) -> Iterator[str]:
        for page in obstore.list(self._store, prefix=folder):
            yield from (str(it["path"]).rpartition("/")[2] for it in page)

    def _put(self, path: str, data: bytes) -> None:
        with answering(f"{self.url}/{path}"):
            obstore.put(self._store, path, data)


def reader_of(url: str) -> str:
    """The name of an archive among the readers of a log."""
    return f"archive:{blake2s(address(url).encode(), digest_size=6).hexdigest()}"


def _further(one: Segment, other: Segment) -> Segment:
    return other if order(other.last) > order(one.last) else one


def _folder(keys: PartitionKeys, epoch: str) -> str:
    return f"{keys.name}/{epoch}/"


def _padded(position: str) -> str:
    ms, seq = order(position)
    return f"{ms:015d}-{seq:020d}"


def _place(ms: str, seq: str) -> str:
    return f"{int(ms)}-{int(seq)}"
