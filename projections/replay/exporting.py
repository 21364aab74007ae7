"""A stretch of a log, or one job's story, as a file that vouches for itself (wire.py, forms.py).

While a stretch is read, it is a reader of the log: retention removes nothing of it. A whole log comes with
its base, what its trimmed part had counted, so that its views can be made again from the file.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Final

import msgspec
from redis.asyncio import Redis

from penstock.core.connection import command, connect
from penstock.core.errors import NotFound, Unavailable
from penstock.core.keys import Keys, PartitionKeys
from penstock.core.lifecycle import positions
from penstock.core.log import Entry, Log
from penstock.core.positions import START
from penstock.core.settings import Settings
from penstock.core.story import find
from penstock.projections.replay.files import writing
from penstock.projections.replay.forms import check_form, sink
from penstock.projections.replay.grep import Way, pages
from penstock.projections.replay.holds import holding, let_go
from penstock.projections.replay.redaction import Redaction
from penstock.projections.replay.span import Span, Standing, partly, span, standing
from penstock.projections.replay.standing import IMPORTED
from penstock.projections.replay.wire import FORMAT, Manifest, Sum, write_line

_SLICE: Final = 400

Tell = Callable[[float, int], None]
"""Hears how much of the way is done (0 to 1), and how many more events have been written."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is exported: of a queue the stretch from one moment until before another (Unix ms), or one
    job's story (its position); less what `redact` names."""

    queue: str
    partition: int = 0
    job: str = ""
    since: int | None = None
    until: int | None = None
    redact: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.job and self.since is None and self.until is None


class Exported(msgspec.Struct, frozen=True):
    """What was written. `note`: a sentence where retention had removed a part of what was asked for."""

    manifest: Manifest
    note: str


async def export(settings: Settings, asked: Asked, name: str, tell: Tell) -> Exported:
    """Write to the file `name` (files.py). Raises Refused for what cannot be asked or written, NotFound for a
    job that is not there; then nothing is written."""
    redaction = Redaction(asked.redact)
    check_form(name)
    keys = Keys(settings.namespace).partition(asked.queue, asked.partition)
    async with connect(settings) as redis:
        log = Log(redis, keys)
        await let_go(redis, keys)
        begin = span(keys, await standing(log), asked.since, asked.until).after
        async with holding(redis, keys, begin if not asked.job else None):
            now = await standing(log)
            stretch = span(keys, now, asked.since, asked.until)
            base = await _base(redis, keys) if asked.whole else {}
            entries = _story(redis, log, asked.job) if asked.job else pages(log, stretch)
            total, way = Sum(), Way(stretch)
            with writing(name) as file, sink(name, file, keys) as out:
                async for page in entries:
                    for entry in map(redaction.of, page):
                        line = write_line(keys, entry)
                        total.add(entry[0], line)
                        out.write(entry, line)
                    tell(way.done(page), len(page))
                if (await standing(log)).epoch != now.epoch:
                    raise Unavailable(f"the log of {keys.queue} became another one while it was read")
                manifest = _manifest(keys, now, stretch, asked, total, redaction, base)
                out.finish(manifest)
    return Exported(manifest, "" if asked.job or base else partly(keys, now, stretch))


async def _story(redis: Redis, log: Log, job: str) -> AsyncGenerator[list[Entry], None]:
    """All events of one job."""
    row = await find(redis, log.keys, job)
    if row is None:
        raise NotFound(f"no job {log.keys.job_id(job)} in the log")
    told = positions(job, row)
    for start in range(0, len(told), _SLICE):
        page = await log.pick(told[start : start + _SLICE])
        if not page or (not start and page[0][0].decode() != job):
            raise NotFound(f"{log.keys.job_id(job)}: its beginning is no longer in the log")
        yield page


async def _base(redis: Redis, keys: PartitionKeys) -> dict[str, str]:
    fields: dict[bytes, bytes] = await command(redis, "HGETALL", keys.base)
    ours = (b"begun", IMPORTED.encode())  # of this log, wherever its events go
    return {name.decode(): value.decode() for name, value in sorted(fields.items()) if name not in ours}


def _manifest(
    keys: PartitionKeys,
    now: Standing,
    stretch: Span,
    asked: Asked,
    total: Sum,
    redaction: Redaction,
    base: dict[str, str],
) -> Manifest:
    return Manifest(
        format=FORMAT,
        queue=keys.queue,
        partition=keys.number,
        epoch=now.epoch,
        after=START if asked.job else stretch.after,
        upto=total.last if asked.job else stretch.upto,
        job=asked.job,
        events=total.events,
        first=total.first,
        last=total.last,
        sha256=total.sha256,
        redacted=redaction.paths,
        base=base,
    )
