"""What people ask for, checked: moments, jobs, names of events. Whatever is wrong is Refused, in one line."""

import re
import time
from collections.abc import Sequence
from typing import Final

from penstock.core.errors import FieldProblem, InvalidJob, NotFound, Refused
from penstock.core.events import TAGS
from penstock.core.positions import JobAddress, parse_job_id
from penstock.projections.moments import LATEST_MS, moment

_AWAY: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def moment_of(name: str, text: str, *, ahead: bool = False) -> int | None:
    """A moment as Unix ms: ISO 8601 with a time zone, Unix ms, or so long ago (90s, 15m, 2h, 3d), with
    `ahead` so long from now; None for no text. Raises InvalidJob."""
    if not text:
        return None
    away = _AWAY.fullmatch(text)
    if away is not None:
        now, ms = time.time_ns() // 1_000_000, int(away[1]) * _UNIT_MS[away[2]]
        return min(now + ms, LATEST_MS - 1) if ahead else max(0, now - ms)
    try:
        return moment(name, text)
    except InvalidJob:
        words = f"{text[:40]!r} is no moment: 2026-11-24T07:45:00Z (ISO 8601 with a time zone), Unix ms, or "
        words += "15m, 2h, 3d from now" if ahead else "15m, 2h, 3d ago"
        raise InvalidJob([FieldProblem(name, words)]) from None


def known_events(names: Sequence[str] | None) -> frozenset[str]:
    """Names of events. Raises Refused for one that no event has."""
    for name in names or ():
        if name not in TAGS:
            raise Refused(f"there is no event {name!r}; there are: {', '.join(TAGS)}")
    return frozenset(names or ())


def job_in(text: str, queues: Sequence[str]) -> JobAddress:
    """A job's id, taken apart. Raises NotFound for what is none, and for a job that is not of these queues
    (any, if none is named): a queue has one partition."""
    address = parse_job_id(text)
    if queues and address.queue not in queues:
        raise NotFound(f"no job {text} in queue {' or '.join(map(repr, queues))}")
    if address.partition:
        raise NotFound(f"no job {text}: queue {address.queue!r} has no partition {address.partition}")
    return address
