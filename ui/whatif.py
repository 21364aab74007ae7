"""A what-if of one queue: its recorded stretch read from the log (core), and played again by another plan
(consumers)."""

from collections.abc import Callable

import msgspec

from penstock.consumers.whatif import ASSUMES, Figures, Plan, was, what_if
from penstock.consumers.whatif_past import Past
from penstock.core.connection import command, connect
from penstock.core.errors import NotFound
from penstock.core.events import QueueLimited
from penstock.core.keys import Keys
from penstock.core.log import PAGE, Log
from penstock.core.positions import milliseconds
from penstock.core.settings import Settings
from penstock.projections.views import read_stats


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be otherwise than it was: as in Plan; None is as it was."""

    concurrency: int | None = None
    rate: float | None = None
    burst: int | None = None
    plan: Plan = Plan(concurrency=1)


class WhatIf(msgspec.Struct):
    """How a stretch went: really (`was`), as the model has it with nothing changed (`model`: how far it is
    from `was` is how far to trust it), and changed (`what_if`, by `plan`). `left_out`: jobs that were
    cancelled, expired or lost; `unfinished`: that have not ended; `lost`: attempts given back or lost with
    their worker, which the model does not know."""

    was: Figures
    model: Figures
    what_if: Figures
    plan: Plan
    left_out: int
    unfinished: int
    lost: int
    assumes: tuple[str, ...] = ASSUMES


async def look(
    settings: Settings,
    queue: str,
    change: Change,
    *,
    since: int,
    until: int | None,
    report: Callable[[int], None],
) -> WhatIf:
    """Look at the jobs that came in [since, until), Unix ms (None: now); `report` gets the number of events
    read. Raises NotFound: there is no such queue. Raises TooLarge."""
    keys = Keys(settings.namespace).partition(queue)
    async with connect(settings) as redis:
        if not await command(redis, "SISMEMBER", keys.queues, queue):
            raise NotFound(f"no queue {queue!r}")
        seconds, _ = await redis.time()
        past = Past(since=since, until=until if until is not None else (seconds + 1) * 1000)
        raw = await command(redis, "GET", keys.stats)
        await _read(Log(redis, keys), past, since, report)
    limits = read_stats(raw).limits if raw else QueueLimited()
    as_it_was = Plan(concurrency=max(1, past.peak), rate=limits.rate, burst=limits.burst)
    told = {name: getattr(change, name) for name in ("concurrency", "rate", "burst")}
    if change.rate is not None and change.burst is None:
        told["burst"] = 0  # that of the other rate
    changed = {name: value for name, value in told.items() if value is not None}
    base = {name: getattr(as_it_was, name) for name in told}
    plan = msgspec.structs.replace(change.plan, **base | changed)
    lost = sum(run.lost for run in past.runs)
    runs = past.runs
    return WhatIf(
        was(runs), what_if(runs, as_it_was), what_if(runs, plan), plan, past.left_out, past.unfinished, lost
    )


async def _read(log: Log, past: Past, since: int, report: Callable[[int], None]) -> None:
    """The log from the stretch's beginning until all that came in it has ended, or to its end."""
    after, read = f"{since}-0", 0
    while page := await log.page(after, PAGE):
        past.add(page)
        after, read = page[-1].position, read + len(page)
        report(read)
        if milliseconds(after) >= past.until and not past.unfinished:
            return
