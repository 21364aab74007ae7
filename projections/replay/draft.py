"""A segment of an archive while it is being filled: lines, compressed as they come, and their checksum."""

import io
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.projections.replay.forms import sink
from penstock.projections.replay.wire import FORMAT, Manifest, Sum, write_line

SEGMENT_EVENTS: Final = 50_000
SEGMENT_BYTES: Final = 16 * 1024 * 1024  # of lines, before they are compressed


class Draft:
    """A segment that is being filled, from after a position on; it is full with so many `events`, or
    SEGMENT_BYTES."""

    def __init__(self, keys: PartitionKeys, epoch: str, after: str, events: int = SEGMENT_EVENTS) -> None:
        self.full = False
        self.reached = after
        self.total: Final = Sum()
        self._events: Final = events
        self._keys: Final = keys
        self._epoch: Final = epoch
        self._after: Final = after
        self._size = 0
        self._began = 0.0
        self._content: Final = io.BytesIO()
        self._open: Final = ExitStack()
        self._sink: Final = self._open.enter_context(sink(".zst", self._content, keys))

    def add(self, page: Sequence[Entry]) -> None:
        """Take entries, in order, as long as there is room."""
        self._began = self._began or time.monotonic()
        for entry in page:
            self.write(entry)
            if self.full:
                break

    def write(self, entry: Entry) -> None:
        """Take an entry, though there may be no room."""
        line = write_line(self._keys, entry)
        self.total.add(entry[0], line)
        self._sink.write(entry, line)
        self._size += len(line)
        self.full = self.total.events >= self._events or self._size >= SEGMENT_BYTES
        self.reached = self.total.last

    @property
    def age(self) -> float:
        """For how many seconds its first event has been here."""
        return time.monotonic() - self._began if self._began else 0.0

    def finish(self) -> tuple[Manifest, bytes]:
        """No more comes: what vouches for it, and the whole."""
        total = self.total
        manifest = Manifest(
            format=FORMAT,
            queue=self._keys.queue,
            partition=self._keys.number,
            epoch=self._epoch,
            after=self._after,
            upto=total.last,
            events=total.events,
            first=total.first,
            last=total.last,
            sha256=total.sha256,
        )
        self._sink.finish(manifest)
        self._open.close()
        return manifest, self._content.getvalue()
