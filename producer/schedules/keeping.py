"""Keeping the ledger short: schedules are said again, so that older events can go.

After KEEP events each schedule is said as it stands (`schedule_kept`), then that all were
(`schedules_kept`). What lies before the round of the time before goes: of a busy ledger the last KEEP to
2 * KEEP events stay, and any of its ends folds to what the whole would. Two schedulers that do this at
once say things twice, and break nothing.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from penstock.core.append import Fact
from penstock.core.events import encode
from penstock.producer.schedules.facts import ScheduleKept, SchedulesKept, fact
from penstock.producer.schedules.fold import Book
from penstock.producer.schedules.ledger import Ledger

KEEP: Final = 20_000
_CHUNK_BYTES: Final = 1024 * 1024
_CHUNK: Final = 500


async def keep(ledger: Ledger, limit: int = KEEP) -> bool:
    """Say all again and let go of what is too old, if it is time; whether it was."""
    if ledger.book.events <= limit:
        return False
    before, said = ledger.book.kept_since, []
    for names in _chunks(ledger.book):
        said += await ledger.commit(partial(_say, names=names))
    since = said[0] if said else ledger.position
    await ledger.commit(lambda _: [fact("", SchedulesKept(since))])
    if before:
        await ledger.redis.xtrim(ledger.keys.log, minid=before, approximate=False)
    return True


def _say(book: Book, names: list[str]) -> list[Fact]:
    """What is there of these; some may have been removed meanwhile."""
    return [fact(name, ScheduleKept(book.standings[name])) for name in names if name in book.standings]


def _chunks(book: Book) -> Iterator[list[str]]:
    """All names, those together that fit into one script call."""
    names: list[str] = []
    size = 0
    for name, standing in list(book.standings.items()):
        length = len(encode(standing))
        if names and (len(names) >= _CHUNK or size + length > _CHUNK_BYTES):
            yield names
            names, size = [], 0
        names.append(name)
        size += length
    if names:
        yield names
