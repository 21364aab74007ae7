"""How long the views took to know of a job: a span `project {queue}` in the job's own trace.

From the moment the submission was in the log until the page with it was in the views. Of each page at
most 32 are told: a page has up to 1,000 events, and their lag is much the same. A span for the page
with links to its jobs would be one in their place, but a link cannot be followed backwards in most
backends, and its trace would be sampled whatever was decided for the jobs.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.core.keys import PartitionKeys
from penstock.core.log import Entry
from penstock.core.positions import milliseconds, order
from penstock.core.tracing import context_of, is_sampled, messaging, tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

MAX_SPANS: Final = 32
_BEGAN_MS: Final = round(time.time() * 1000)


class _Told(msgspec.Struct, frozen=True):
    """What a span needs of a `submitted` event."""

    trace: str = ""


_told: Final = msgspec.json.Decoder(_Told).decode


def projecting(keys: PartitionKeys) -> "ProjectSpans | None":
    """What tells of projected pages; None where this process has no traces."""
    made = tracer()
    return None if made is None else ProjectSpans(made, keys)


class ProjectSpans:
    """The spans of one partition. What is older than this process, or was told before, is history that
    a rebuild reads again, and no news to any trace."""

    def __init__(self, tracer: "Tracer", keys: PartitionKeys) -> None:
        self._tracer: Final = tracer
        self._keys: Final = keys
        self._told = (_BEGAN_MS, 0)

    def tell(self, page: Sequence[Entry]) -> None:
        """The views have seen this page."""
        now = time.time_ns()
        told = 0
        for entry, fields in page:
            trace, position = _trace_of(fields), entry.decode()
            if is_sampled(trace) and order(position) > self._told:
                self._tell(position, trace, now)
                told += 1
            if told == MAX_SPANS:
                break
        if page:
            self._told = max(self._told, order(page[-1][0].decode()))

    def _tell(self, position: str, trace: str, now: int) -> None:
        queue = self._keys.queue
        attributes = messaging("project", queue, message_id=self._keys.job_id(position))
        began = min(milliseconds(position) * 1_000_000, now)
        span = self._tracer.start_span(
            f"project {queue}", context_of(trace), attributes=attributes, start_time=began
        )
        span.end(now)


def _trace_of(fields: list[bytes]) -> str:
    """The trace of a `submitted` entry; empty if it has none."""
    if len(fields) < 6 or fields[1] != b"submitted" or b'"trace":' not in fields[5]:
        return ""
    try:
        return _told(fields[5]).trace
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
