"""Handlers of Penstock's own jobs, which need more than a handler can ask of its context."""

from typing import Any

import msgspec

from penstock.consumers.context import Context
from penstock.consumers.handlers import handler
from penstock.core.connection import connect
from penstock.core.errors import Permanent
from penstock.core.events import Submitted, decode
from penstock.core.jobs.bulk import Bulk
from penstock.core.keys import Keys
from penstock.core.positions import milliseconds, parse_job_id
from penstock.core.settings import Settings
from penstock.core.story import tell
from penstock.projections.bulk import Operation, Outcome


def enter_handlers(settings: Settings) -> None:
    """Enter them for a worker with these settings."""

    @handler(Bulk)
    async def bulk(asked_for: Bulk, context: Context) -> Any:
        """Carry out an order, for whoever submitted it and as of that moment."""
        keys = Keys(settings.namespace)
        queue, number, position = parse_job_id(context.job_id)

        def report(fraction: float, so_far: Outcome) -> None:
            words = f"{so_far.done:,} of {so_far.matched:,} that fit"
            context.progress(fraction, words, msgspec.to_builtins(so_far))

        async with connect(settings, max_connections=4) as redis:
            events = await tell(redis, keys.partition(queue, number), position)
            first = decode(events[0]) if events else None
            if not isinstance(first, Submitted):
                raise Permanent("nobody knows who asked for it: its submission is not in the log")
            asked = milliseconds(position)
            return await Operation(redis, keys, asked_for, asked=asked, but=context.job_id).run(
                first.by, report
            )
