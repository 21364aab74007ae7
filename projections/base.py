"""The base: what the trimmed part of a log had counted, from which every fold of the rest begins.

    stats      totals, failures by reason, how the queue was governed; no jobs by state
    <minute>   what happened in that minute
    trimmed    position of the newest event `trimmed`: all before it is in the base
    begun      how often views were begun or exchanged (shadow.py): who goes on from others must load again

It is part of the log, not of the views: only `trim.lua` writes it, in one step with the events that go.
"""

from collections.abc import Mapping

import msgspec

from penstock.projections.views import Minute, Stats, read_minute, read_stats


class Base(msgspec.Struct):
    """What the trimmed events of a partition had counted."""

    stats: Stats
    minutes: dict[int, Minute]
    trimmed: str = ""
    begun: int = 0


def read_base(fields: Mapping[bytes, bytes]) -> Base:
    """The base from its hash; one that counts nothing where nothing was trimmed."""
    raw = fields.get(b"stats")
    return Base(
        read_stats(raw) if raw else Stats(),
        {int(name): read_minute(told) for name, told in fields.items() if name.isdigit()},
        fields.get(b"trimmed", b"").decode(),
        int(fields.get(b"begun", 0)),
    )
