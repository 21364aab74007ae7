"""An archive: a log kept outside of Redis, for ever, as segments that nobody changes.

In a folder or an object store (files.py), for each partition and each epoch of its log:

    email.0/<epoch>/manifest.json                               where the archive begins (Beginning)
    email.0/<epoch>/<after>_<last>_<events>_<sha256>.ndjson.zst   a segment, an export as any other (wire.py)
    email.0/<epoch>/gap_<after>_<removed>.json                  events that were removed before they came here
    email.0/<epoch>/snapshots_<first>_<last>_<count>.json.zst   snapshots of the figures (copies.py)

A segment has every event after one position up to another, and its name says which: so one listing tells
what there is, and a segment is there whole, by one put, or not at all. Where two archivers were at
work, or small segments were put together (compacting.py), they overlap: each is a true stretch of the same
log, and a reader takes each event once.
"""

import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from hashlib import blake2s
from itertools import accumulate
from typing import Any, Final

import msgspec
import obstore

from penstock.core.errors import Refused
from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import START, order
from penstock.projections.replay.copies import Copy, read_copies, write_copies
from penstock.projections.replay.files import address, answering, open_store, put, settle
from penstock.projections.replay.forms import entries, mentioning
from penstock.projections.replay.holds import ARCHIVE
from penstock.projections.replay.wire import Manifest

_PLACE: Final = r"([0-9]{15})-([0-9]{20})"
_SEGMENT: Final = re.compile(rf"{_PLACE}_{_PLACE}_([0-9]+)_([0-9a-f]{{16}})\.ndjson\.zst")
_COPIES: Final = re.compile(rf"snapshots_{_PLACE}_{_PLACE}_([0-9]+)\.json\.zst")
_GAP: Final = re.compile(rf"gap_{_PLACE}_{_PLACE}\.json")
_DIGITS: Final = 16  # of a digest, in a name
_FIRST: Final = "manifest.json"


class SegmentGone(Refused):
    """A segment is not there any more. Who goes by a listing lists again: another segment has its events."""


class Beginning(msgspec.Struct, frozen=True):
    """Where the archive of a log begins: after `removed`, the newest position that had been removed by
    then (0-0: with the log itself); what that part had counted is `base`. `first`: the oldest event that
    was there (0-0 if there was none)."""

    queue: str
    partition: int
    epoch: str
    removed: str
    base: dict[str, str]
    first: str = START


class Segment(msgspec.Struct, frozen=True):
    """Every event after one position up to another."""

    after: str
    last: str
    events: int
    digest: str

    @property
    def name(self) -> str:
        return f"{_padded(self.after)}_{_padded(self.last)}_{self.events}_{self.digest}.ndjson.zst"


class Snapshots(msgspec.Struct, frozen=True):
    """All snapshots that were made from the first of these positions up to the last."""

    first: str
    last: str
    count: int

    @property
    def name(self) -> str:
        return f"snapshots_{_padded(self.first)}_{_padded(self.last)}_{self.count}.json.zst"


class Stored(msgspec.Struct, frozen=True):
    """A segment or snapshots as they lie there: how many bytes, and since when."""

    it: Segment | Snapshots
    size: int
    since: datetime

    @property
    def begin(self) -> tuple[int, int]:
        """After which place it has everything."""
        if isinstance(self.it, Segment):
            return order(self.it.after)
        ms, seq = order(self.it.first)
        return ms, seq - 1

    @property
    def end(self) -> tuple[int, int]:
        """Up to which place it has everything."""
        return order(self.it.last)

    @property
    def count(self) -> int:
        """How many events or snapshots."""
        return self.it.events if isinstance(self.it, Segment) else self.it.count


class Stock(msgspec.Struct, frozen=True, dict=True):
    """What an archive has of a log: its segments in order, the newest position that was `removed` before it
    came here (0-0 if the archive is complete), and the oldest event there was (0-0 if there was none)."""

    segments: list[Segment]
    removed: str
    first: str = START

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
            for name, _ in self._names(_folder(keys, epoch)):
                if match := _SEGMENT.fullmatch(name):
                    segments.append(_segment(match))
                elif match := _GAP.fullmatch(name):
                    removed = max(removed, _place(match[3], match[4]), key=order)
                begun = begun or name == _FIRST
            if not begun:
                return None
            beginning = self.beginning(keys, epoch)
        segments.sort(key=lambda it: (order(it.after), order(it.last)))
        return Stock(segments, max(removed, beginning.removed, key=order), beginning.first)

    def listing(self, keys: PartitionKeys, epoch: str) -> list[Stored]:
        """All segments and snapshots of a log. Raises Refused: the archive cannot be read."""
        found = []
        with answering(self.url):
            for name, told in self._names(_folder(keys, epoch)):
                if match := _SEGMENT.fullmatch(name):
                    found.append(Stored(_segment(match), told["size"], told["last_modified"]))
                elif match := _COPIES.fullmatch(name):
                    found.append(Stored(_copies(match), told["size"], told["last_modified"]))
        return found

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
        """The events of a segment. Raises SegmentGone; or Refused: it was changed, or cannot be read."""
        name, data = self._get(_folder(keys, epoch) + segment.name)
        found = []
        for entry in entries(name, io.BytesIO(data)):
            if not isinstance(entry, Manifest):
                found.append(entry)
            elif entry.epoch != epoch or not entry.sha256.startswith(segment.digest):
                raise Refused(f"{name}: is not the segment that its name says")
        return found

    def mentioning(
        self, keys: PartitionKeys, epoch: str, segment: Segment, texts: Sequence[bytes]
    ) -> list[Entry]:
        """As `read`, of the events only those whose lines contain one of these texts."""
        name, data = self._get(_folder(keys, epoch) + segment.name)
        found, manifest = mentioning(name, data, texts)
        if manifest.epoch != epoch or not manifest.sha256.startswith(segment.digest):
            raise Refused(f"{name}: is not the segment that its name says")
        return found

    def remove(self, keys: PartitionKeys, epoch: str, it: Segment | Snapshots) -> None:
        """Take away what another one has too. Raises Refused."""
        path = _folder(keys, epoch) + it.name
        with answering(f"{self.url}/{path}"), suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def settle(self, keys: PartitionKeys, epoch: str) -> None:
        """Make sure that what is listed of a log will be there after a power cut too, whoever put it."""
        with answering(self.url):
            settle(self._store, _folder(keys, epoch))

    def copied(self, keys: PartitionKeys, epoch: str) -> str:
        """The position of the newest snapshot there is; 0-0 if there is none. Raises Refused."""
        return max((it.last for it in self._snapshots(keys, epoch)), key=order, default=START)

    def copy(self, keys: PartitionKeys, epoch: str, copies: Sequence[Copy]) -> Snapshots:
        """Keep snapshots, in order: all there were from the first of them to the last."""
        those = Snapshots(copies[0][0], copies[-1][0], len(copies))
        self._put(_folder(keys, epoch) + those.name, write_copies(copies))
        return those

    def copies(self, keys: PartitionKeys, epoch: str, those: Snapshots) -> list[Copy]:
        """These snapshots. Raises SegmentGone; or Refused: they were changed, or cannot be read."""
        name, data = self._get(_folder(keys, epoch) + those.name)
        found = read_copies(name, data)
        if not found or Snapshots(found[0][0], found[-1][0], len(found)) != those:
            raise Refused(f"{name}: is not what its name says")
        return found

    def following(self, keys: PartitionKeys, epoch: str, position: str) -> Copy | None:
        """The first snapshot at or after a position: where it was made, and its figures as they are written
        (views.read_stats); None if there is none. Raises Refused."""
        here = order(position)
        later = [it for it in self._snapshots(keys, epoch) if order(it.last) >= here]
        if not later:
            return None
        those = min(later, key=lambda it: max(order(it.first), here))
        return next(it for it in self.copies(keys, epoch, those) if order(it[0]) >= here)

    def _snapshots(self, keys: PartitionKeys, epoch: str) -> list[Snapshots]:
        return [it.it for it in self.listing(keys, epoch) if isinstance(it.it, Snapshots)]

    def _names(self, folder: str) -> Iterator[tuple[str, Any]]:
        """The objects of a folder: the name of each, and what is told of it."""
        for page in obstore.list(self._store, prefix=folder):
            yield from ((str(it["path"]).rpartition("/")[2], it) for it in page)

    def _get(self, path: str) -> tuple[str, bytes]:
        """The full name of an object, and what is in it."""
        name = f"{self.url}/{path}"
        with answering(name):
            try:
                return name, obstore.get(self._store, path).bytes().to_bytes()
            except FileNotFoundError:
                raise SegmentGone(f"{name}: is not there any more") from None

    def _put(self, path: str, data: bytes) -> None:
        with answering(f"{self.url}/{path}"):
            put(self._store, path, data)


def reader_of(url: str) -> str:
    """The name of an archive among the readers of a log."""
    return f"{ARCHIVE}{blake2s(address(url).encode(), digest_size=6).hexdigest()}"


def _further(one: Segment, other: Segment) -> Segment:
    return other if order(other.last) > order(one.last) else one


def _segment(match: re.Match[str]) -> Segment:
    return Segment(_place(match[1], match[2]), _place(match[3], match[4]), int(match[5]), match[6])


def _copies(match: re.Match[str]) -> Snapshots:
    return Snapshots(_place(match[1], match[2]), _place(match[3], match[4]), int(match[5]))


def _folder(keys: PartitionKeys, epoch: str) -> str:
    return f"{keys.name}/{epoch}/"


def _padded(position: str) -> str:
    ms, seq = order(position)
    return f"{ms:015d}-{seq:020d}"


def _place(ms: str, seq: str) -> str:
    return f"{int(ms)}-{int(seq)}"
