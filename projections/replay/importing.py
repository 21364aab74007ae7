"""Exports put back: a log made again from files, in a queue or namespace where there is none.

All files are read and checked before anything is written. Then the events are brought in beside the log,
with the ids they had, and put in its place in one step (core/lua/restore.lua), so that nobody ever folds a
part of them, and who is killed meanwhile leaves nothing but a key that goes by itself.

What comes is history: views fold it, `show` and `grep` read it. Its jobs are in no lane, so what had not
ended is shown as it was and does not run; the base says up to where (IMPORTED), so that nobody takes these
jobs for lost ones, until they are asked for (standing.py).
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, BinaryIO, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from penstock.core.connection import command, connect
from penstock.core.contracts import QUEUE_NAME
from penstock.core.dispatch import Dispatch, Script
from penstock.core.errors import Refused
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.log import Entry
from penstock.core.settings import Settings
from penstock.projections.base import read_base
from penstock.projections.replay.files import reading
from penstock.projections.replay.forms import entries, verified
from penstock.projections.replay.keeping import expectation, heed
from penstock.projections.replay.standing import IMPORTED
from penstock.projections.replay.wire import Manifest

_PAGE: Final = 500
_PAGE_BYTES: Final = 4 * 1024 * 1024
_LIFE_S: Final = 600  # of what was brought and is not in its place, after the last page
_restore: Final = Script("restore")

Tell = Callable[[float, int], None]
"""Hears how much is in (0 to 1), and how many more events that is."""


class Imported(msgspec.Struct, frozen=True):
    """What was put where: the queue, its epoch from now on, how many events, and of which log they were."""

    queue: str
    epoch: str
    events: int
    of: Manifest


async def bring_in(settings: Settings, names: Sequence[str], queue: str, tell: Tell) -> Imported:
    """Put what is in these files into a queue (empty: the one they are of) that has no events yet.

    Raises Refused, and nothing is changed: a file that is no export, or was cut or changed; files that are of
    different logs or do not follow one another; a queue that has events.
    """
    with ExitStack() as opened:
        files = [(name, opened.enter_context(reading(name))) for name in names]
        manifests = [verified(name, file) for name, file in files]
        _belong_together(names, manifests)
        first = manifests[0]
        if not re.fullmatch(QUEUE_NAME, queue or first.queue):
            raise Refused(f"{queue!r} is no queue's name: lower-case words of a-z, 0-9, - and _")
        keys = Keys(settings.namespace).partition(queue or first.queue, first.partition)
        async with connect(settings) as redis:
            await _check_empty(redis, keys)
            count = sum(manifest.events for manifest in manifests)
            base = next((it for it in map(_base, names, manifests) if it), {})
            await _bring(redis, keys, files, base, count, tell)
            return Imported(keys.queue, await Dispatch(redis, keys).open(), count, first)


async def _bring(
    redis: Redis,
    keys: PartitionKeys,
    files: Sequence[tuple[str, BinaryIO]],
    base: dict[str, str],
    count: int,
    tell: Tell,
) -> None:
    # A log of the same name in a namespace that nobody has is in the same slot.
    aside = Keys(f"{keys.prefix.partition(':')[0]}:arriving:{secrets.token_hex(6)}")
    arriving = aside.partition(keys.queue, keys.number).log
    known, done, last = read_base({name.encode(): it.encode() for name, it in base.items()}), 0, b""
    counted, governed = known.stats.events, known.stats
    try:
        for page in _pages(files):
            await _add(redis, arriving, page)
            heed(governed, page)
            done, last = done + len(page), page[-1][0]
            tell(done / count, len(page))
        if known.trimmed:
            # As of a log that was trimmed: so many events were in it, and some are gone.
            words = ("ENTRIESADDED", counted + done, "MAXDELETEDID", known.trimmed)
            await _written(command(redis, "XSETID", arriving, last, *words))
        # The queue is known first: a log that nobody knows of would be in the way of the next try.
        await Dispatch(redis, keys).open()
        told = {**base, IMPORTED: last.decode()} if last else base
        args = [word for field in told.items() for word in field]
        if await _restore(redis, (keys.log, arriving, keys.base, keys.checkpoint), args) < 0:
            raise Refused(_not_empty(keys))
    finally:
        await command(redis, "UNLINK", arriving)
    # Workers heed what the log says of the queue. Who is killed before has that told, and set, by `verify`.
    if fields := [word for name, value in expectation(governed).items() if value for word in (name, value)]:
        await command(redis, "HSET", keys.control, *fields)


async def _add(redis: Redis, arriving: str, page: Sequence[Entry]) -> None:
    pipeline = redis.pipeline(transaction=False)
    for position, fields in page:
        pipeline.execute_command("XADD", arriving, position, *fields)
    pipeline.expire(arriving, _LIFE_S)
    await _written(pipeline.execute())


async def _written(answer: Awaitable[Any]) -> None:
    try:
        await answer
    except ResponseError as error:
        raise Refused(f"the server does not take the log as it is: {error}") from None


def _base(name: str, manifest: Manifest) -> dict[str, str]:
    """The base in a file, for which its checksum does not vouch. Raises Refused."""
    base = manifest.base
    try:
        read_base({field.encode(): value.encode() for field, value in base.items()})
        if not all(field in ("stats", "trimmed") or field.isdecimal() for field in base):
            raise ValueError("it has other fields than a base")
    except (ValueError, UnicodeEncodeError) as error:
        raise Refused(f"{name}: its base cannot be read: {error}") from None
    return base


async def _check_empty(redis: Redis, keys: PartitionKeys) -> None:
    if await command(redis, "XLEN", keys.log) or await command(redis, "EXISTS", keys.checkpoint):
        raise Refused(_not_empty(keys))


def _not_empty(keys: PartitionKeys) -> str:
    return (
        f"queue {keys.queue!r} has a log already, and nothing is put over it: choose another one with "
        "--queue, or another namespace with PENSTOCK_NAMESPACE"
    )


def _belong_together(names: Sequence[str], manifests: Sequence[Manifest]) -> None:
    """Raises Refused unless these are stretches of one log, each going on where the one before ended."""
    for (name, one), (other, next_) in pairwise(zip(names, manifests, strict=True)):
        if (one.queue, one.partition) != (next_.queue, next_.partition):
            raise Refused(f"{name} is of queue {one.queue!r}, {other} of {next_.queue!r}: import each alone")
        if one.epoch != next_.epoch:
            raise Refused(
                f"{name} is of the log with epoch {one.epoch}, {other} of that with {next_.epoch}: these are "
                "two logs, which are not mixed"
            )
        if one.job or next_.job or one.upto != next_.after:
            raise Refused(f"{other} does not go on where {name} ends: at {one.upto}, not {next_.after}")


def _pages(files: Sequence[tuple[str, BinaryIO]]) -> Iterator[list[Entry]]:
    page, size = list[Entry](), 0
    for name, file in files:
        for entry in entries(name, file):
            if isinstance(entry, Manifest):
                continue
            page.append(entry)
            size += sum(map(len, entry[1]))
            if len(page) >= _PAGE or size >= _PAGE_BYTES:
                yield page
                page, size = [], 0
    if page:
        yield page
