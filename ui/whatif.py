"""A what-if of one queue: its recorded stretch is read from the log (projections), then played again by
another plan (consumers). The second takes no server and no event loop, so it can be interrupted."""

from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from penstock.consumers.whatif import ASSUMES, Figures, Plan, was, what_if
from penstock.consumers.whatif_past import Past, Run
from penstock.core.connection import command, connect
from penstock.core.errors import Refused
from penstock.core.events import QueueLimited
from penstock.core.keys import Keys
from penstock.core.positions import milliseconds
from penstock.core.settings import Settings
from penstock.projections.replay.archive import Archive
from penstock.projections.replay.grep import Way, pages
from penstock.projections.replay.history import opened
from penstock.projections.replay.span import Span, partitions, partly, span
from penstock.projections.views import read, read_stats


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be otherwise than it was: as in Plan; None is as it was."""

    concurrency: int | None = None
    rate: float | None = None
    burst: int | None = None
    plan: Plan = Plan(concurrency=1)


class Recording(msgspec.Struct):
    """A stretch as the log has it, and the queue's limits as they are now. `partial`: a sentence where
    retention has removed some of its jobs."""

    past: Past
    limits: QueueLimited
    partial: str


class WhatIf(msgspec.Struct):
    """How a stretch went: really (`was`), as the model has it with nothing changed (`model`: how far it is
    from `was` is how far to trust it), and changed (`what_if`, by `plan`). `left_out`: jobs that were
    cancelled, expired or lost; `unfinished`: that have not ended; `lost`: attempts given back or lost with
    their worker, which the model does not know. `partial`: as in Recording."""

    was: Figures
    model: Figures
    what_if: Figures
    plan: Plan
    left_out: int
    unfinished: int
    lost: int
    partial: str
    assumes: tuple[str, ...] = ASSUMES


async def record(
    settings: Settings,
    queue: str,
    *,
    since: int | None,
    until: int | None,
    tell: Callable[[float, int], None],
) -> Recording:
    """The jobs that came in [since, until), Unix ms (None: all, up to now), out of the log, with the archive
    if one is set. `tell` hears how much of the way is done (0 to 1), and how many more events were read.
    Raises NotFound: there is no such queue. Raises Refused: the log begins later. Raises TooLarge."""
    keys, archive = Keys(settings.namespace), settings.archive_url
    async with connect(settings) as redis:
        [partition] = partitions(keys, await command(redis, "SMEMBERS", keys.queues), [queue])
        log, now = await opened(redis, partition, Archive(archive) if archive else None)
        asked = span(partition, now, since, until)
        past = Past(since=since or 0, until=milliseconds(now.last) + 1 if until is None else until)
        # What came later tells how the jobs of the stretch ended.
        rest = Span(asked.after, now.last)
        way = Way(rest)
        async with aclosing(pages(log, rest)) as reading:
            async for page in reading:
                past.add(map(read, page))
                tell(way.done(page), len(page))
                if milliseconds(page[-1][0].decode()) >= past.until and not past.unfinished:
                    break
        raw = await command(redis, "GET", partition.stats)
    limits = read_stats(raw).limits if raw else QueueLimited()
    return Recording(past, limits, partly(partition, now, asked))


def compare(found: Recording, change: Change) -> WhatIf:
    """Play it again as it was, and changed. Raises Refused: there are no jobs of a type that is named, or a
    rate is too low."""
    past, limits, runs = found.past, found.limits, found.past.runs
    _check_types(runs, change.plan.types)
    as_it_was = Plan(concurrency=max(1, past.peak), rate=limits.rate, burst=limits.burst)
    told = {name: getattr(change, name) for name in ("concurrency", "rate", "burst")}
    if change.rate is not None and change.burst is None:
        told["burst"] = 0  # that of the other rate
    changed = {name: value for name, value in told.items() if value is not None}
    base = {name: getattr(as_it_was, name) for name in told}
    plan = msgspec.structs.replace(change.plan, **base | changed)
    return WhatIf(
        was=was(runs),
        model=what_if(runs, as_it_was),
        what_if=what_if(runs, plan),
        plan=plan,
        left_out=past.left_out,
        unfinished=past.unfinished,
        lost=sum(run.lost for run in runs),
        partial=found.partial,
    )


def _check_types(runs: Sequence[Run], types: Sequence[str]) -> None:
    known = {run.spec.type for run in runs}
    for type in types:
        if type not in known:
            there = ", ".join(sorted(known)) or "none"
            raise Refused(f"no job of type {type!r} came and ended in that time; there are: {there}")
