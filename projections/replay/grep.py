"""A search through the log itself, from its beginning to its end: every event that fits.

Where the search through jobs (search.py) asks the views, this asks the log alone, so it also finds what
the views do not tell: each attempt, each word of a handler, facts about the queue. While a page is
looked through, the next one is read; memory stays that of two pages, whatever the log holds.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from penstock.core.log import Entry, Log
from penstock.core.positions import START, milliseconds, order
from penstock.projections.feed_events import Facts, Told
from penstock.projections.feed_tail import FIRST_PAGE, fitting
from penstock.projections.replay.sieve import Sieve, Sought
from penstock.projections.replay.span import Span
from penstock.projections.views import read


class Looked(msgspec.Struct):
    """A part of a search: how many events were looked at, how much of the way is done (0 to 1, by time),
    and what was found."""

    looked: int
    done: float
    found: list[Told]


async def pages(log: Log, asked: Span) -> AsyncGenerator[list[Entry], None]:
    """The entries of a stretch, page by page, the next one read while one is worked on."""
    upto = order(asked.upto)
    reading = asyncio.ensure_future(log.entries(asked.after, FIRST_PAGE))
    try:
        while page := await reading:
            last = page[-1][0].decode()
            if order(last) >= upto:
                if page := [entry for entry in page if order(entry[0].decode()) <= upto]:
                    yield page
                return
            reading = asyncio.ensure_future(log.entries(last, fitting(page)))
            await asyncio.sleep(0)  # it is sent now
            yield page
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def grep(log: Log, asked: Span, sought: Sought) -> AsyncGenerator[Looked, None]:
    """What is looked for in a stretch of a log, oldest first, a page at a time."""
    sieve, facts = Sieve(sought, log, asked.after), Facts(log)
    way = Way(asked)
    async for page in pages(log, asked):
        found = await sieve.sift(page)
        told = await facts.tell([read(entry) for entry in found]) if found else []
        yield Looked(len(page), way.done(page), told)


class Way:
    """How far somebody is who goes through a stretch, by time."""

    def __init__(self, asked: Span) -> None:
        self._begin = milliseconds(asked.after) if asked.after != START else None
        self._end: Final = milliseconds(asked.upto)

    def done(self, page: Sequence[Entry]) -> float:
        """From 0 to 1, after this page."""
        if self._begin is None:
            self._begin = milliseconds(page[0][0].decode())
        whole = self._end - self._begin
        return min(1.0, (milliseconds(page[-1][0].decode()) - self._begin) / whole) if whole > 0 else 1.0
