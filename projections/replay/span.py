"""Which stretch of a log is meant, and whether the log still has it."""

from collections.abc import Iterable, Sequence

import msgspec

from penstock.core.connection import command
from penstock.core.errors import NotFound, Refused
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Log
from penstock.core.positions import START, before, milliseconds, order, preceding
from penstock.projections.details import instant


class Span(msgspec.Struct, frozen=True):
    """A stretch of a log: what came after one position, up to another one, that included."""

    after: str
    upto: str


class Standing(msgspec.Struct, frozen=True):
    """A log as it stands: its epoch, the positions of its oldest and newest event (0-0 in an empty log),
    and of the newest one that was ever removed (0-0 if none was)."""

    epoch: str
    first: str
    last: str
    removed: str


async def standing(log: Log) -> Standing:
    """Look at a log. Raises NotFound: there is no such queue."""
    epoch: bytes | None = await command(log.redis, "GET", log.keys.epoch)
    if epoch is None:
        raise NotFound(f"there is no queue {log.keys.queue!r} here, or its log was lost")
    if not await command(log.redis, "EXISTS", log.keys.log):
        return Standing(epoch.decode(), START, START, START)
    told = await command(log.redis, "XINFO", "STREAM", log.keys.log)
    info = dict(zip(told[::2], told[1::2], strict=True))
    first = info[b"first-entry"][0].decode() if info[b"first-entry"] else START
    last, removed = info[b"last-generated-id"].decode(), info[b"max-deleted-entry-id"].decode()
    if info[b"entries-added"] == info[b"length"]:
        removed = START
    elif removed == START:  # somebody trimmed it (XTRIM), which the server does not count as deleting
        removed = preceding(first) if first != START else last
    return Standing(epoch.decode(), first, last, removed)


def span(keys: PartitionKeys, now: Standing, since: int | None, until: int | None) -> Span:
    """The stretch from one moment to before another (Unix ms), as far as the log goes now.

    Raises Refused: it begins before the log does, and something has gone there; or it ends before it begins.
    """
    if since is not None and until is not None and since >= until:
        raise Refused(f"from {instant(since)} until {instant(until)}: that is no time at all")
    if since is not None:
        in_reach(keys, now, since)
    upto = now.last if until is None else min(now.last, before(until), key=order)
    return Span(START if since is None else before(since), upto)


def in_reach(keys: PartitionKeys, now: Standing, at: int) -> None:
    """Raises Refused: a moment (Unix ms) is before the log begins, and something has gone there."""
    if order(now.removed) <= order(before(at)):
        return
    first = milliseconds(now.first if now.first != START else now.removed)
    if at < first:
        raise Refused(
            f"{instant(at)} is before the log of {keys.queue} begins, at {instant(first)}: "
            "what was before has been removed by retention"
        )


def partly(keys: PartitionKeys, now: Standing, asked: Span) -> str:
    """A sentence where retention has removed some jobs of the stretch; empty where all is there."""
    if order(now.removed) <= order(asked.after):
        return ""
    return (
        f"{keys.queue}: retention has removed jobs that ended, and their events, up to "
        f"{instant(milliseconds(now.removed))}"
    )


def partitions(keys: Keys, known: Iterable[bytes], queues: Sequence[str]) -> list[PartitionKeys]:
    """The partitions of these queues of the known ones (the members of `keys.queues`), of all if none is
    named, in order. Raises NotFound for one that is not there."""
    names = sorted(name.decode() for name in known)
    for queue in queues:
        if queue not in names:
            raise NotFound(f"there is no queue {queue!r}; there are: {', '.join(names) or 'none'}")
    return [keys.partition(queue) for queue in dict.fromkeys(queues or names)]
