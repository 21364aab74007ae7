"""What of a log is looked for, and which of its entries are it.

The cheap tests come first, on the bytes as Redis gives them: the event's name, the job. What type a job
has, and what tags, stands in the event that submitted it: the sieve remembers the jobs that fit as
they pass by, and looks up only those that were submitted before its search began. Only what has passed
all that is looked into: the text first, then the decoded body.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import jmespath  # type: ignore[import-untyped]
import msgspec
from jmespath.exceptions import (  # type: ignore[import-untyped]
    ArityError,
    JMESPathError,
    UnknownFunctionError,
)
from jmespath.functions import Functions  # type: ignore[import-untyped]

from penstock.core.errors import Refused
from penstock.core.events import Submitted, encode
from penstock.core.log import Entry, Log
from penstock.core.positions import START, order
from penstock.projections.views import read

MAX_KNOWN: Final = 200_000  # jobs that fit, of those that passed by
_LOOKED_UP: Final = 20_000
_AT_ONCE: Final = 200  # bodies are up to a few hundred KB
_FIELDS: Final = 6  # of an entry: three names, three values
_POSITION: Final = re.compile(rb"[0-9]{1,15}-[0-9]{1,19}")
# A body that is no JSON, an expression that has no answer for it. jmespath lets some errors of Python out:
# contains('text', null), [::0], ceil(avg(huge)).
_NO_ANSWER: Final = (
    *(msgspec.DecodeError, RecursionError, JMESPathError),
    *(TypeError, ValueError, ArithmeticError),
)


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for: events that fit all that is said. `type` and `tag` are those of their jobs, `job`
    is a position; `text`: found in the body, as it stands in the log; `where`: a JMESPath expression that
    the body makes true."""

    type: str = ""
    tag: str = ""
    job: str = ""
    events: frozenset[str] = frozenset()
    text: re.Pattern[str] | None = None
    where: Any = None


def pattern(text: str, *, ignore_case: bool = False) -> re.Pattern[str] | None:
    """A regular expression; None for no text. Raises Refused."""
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else 0) if text else None
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(f"{text!r} is no regular expression: {error}") from None


def expression(text: str) -> Any:
    """A JMESPath expression; None for no text. Raises Refused, also for a function that does not exist: the
    library would find that out at each event."""
    try:
        found = jmespath.compile(text) if text else None
        if found is not None:
            _check_functions(found.parsed)
    except RecursionError:
        raise Refused(f"{text[:40]!r}… is too deep for a JMESPath expression") from None
    except JMESPathError as error:
        reason = " ".join(str(error).split("\n", maxsplit=1)[0].split())
        reason = reason.removesuffix(" for expression:").removesuffix(":").rstrip(",")
        hint = "; a number is written `40`" if getattr(error, "token_type", "") == "NUMBER" else ""
        raise Refused(f"{text!r} is no JMESPath expression: {reason}{hint}") from None
    return found


def _check_functions(node: Any) -> None:
    """Raises JMESPathError for one that does not exist, or takes another number of arguments."""
    if not isinstance(node, dict):
        return
    if node["type"] == "function_expression":
        try:
            Functions().call_function(node["value"], [None] * len(node["children"]))
        except (UnknownFunctionError, ArityError):
            raise
        except JMESPathError:
            pass  # nothing is none of the values that it takes
    for part in node["children"]:
        _check_functions(part)


class Sieve:
    """Takes the pages of one log, one after another, and keeps what is looked for."""

    def __init__(self, sought: Sought, log: Log, after: str = START) -> None:
        """`after`: where in the log the first page begins."""
        self._sought: Final = sought
        self._log: Final = log
        self._events: Final = frozenset(name.encode() for name in sought.events)
        self._job: Final = sought.job.encode()
        self._needles: Final = [encode(text) for text in (sought.type, sought.tag) if text]
        # Of the jobs submitted after `_floor` those that fit are known; the others are looked up.
        self._floor = order(after)
        self._known: Final[dict[bytes, None]] = {}
        self._looked_up: Final[OrderedDict[bytes, bool]] = OrderedDict()

    async def sift(self, page: Sequence[Entry]) -> list[Entry]:
        """The entries of a page that are looked for."""
        found = [entry for entry in page if len(entry[1]) == _FIELDS]
        if self._needles:
            self._learn(found)
        if self._events:
            events = self._events
            found = [entry for entry in found if entry[1][1] in events]
        if self._job:
            job = self._job
            found = [entry for entry in found if entry[1][3] == job or entry[0] == job]
        if self._needles and found:
            found = await self._of_such_jobs(found)
        if (text := self._sought.text) is not None:
            search = text.search
            found = [entry for entry in found if search(entry[1][5].decode(errors="replace"))]
        if self._sought.where is not None:
            found = [entry for entry in found if self._is_true_of(entry[1][5])]
        return found

    def _learn(self, page: Sequence[Entry]) -> None:
        """Remember which of the jobs that are submitted in this page fit."""
        for position, fields in page:
            if fields[1] == b"submitted" and self._submits_such(position, fields):
                self._known[position] = None
        while len(self._known) > MAX_KNOWN:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._floor = order(oldest.decode())

    def _submits_such(self, position: bytes, fields: list[bytes]) -> bool:
        body = fields[5]
        if any(needle not in body for needle in self._needles):
            return False
        told = read((position, fields))[1]
        sought = self._sought
        return (
            isinstance(told, Submitted)
            and (not sought.type or told.type == sought.type)
            and (not sought.tag or sought.tag in told.tags)
        )

    async def _of_such_jobs(self, entries: Sequence[Entry]) -> list[Entry]:
        unknown = dict[bytes, None]()
        for position, fields in entries:
            job = fields[3] or position
            if job not in self._known and job not in self._looked_up and self._is_older(job):
                unknown[job] = None
        if unknown:
            await self._look_up(list(unknown))
        known, looked_up = self._known, self._looked_up
        found = []
        for entry in entries:
            job = entry[1][3] or entry[0]
            if job in known or looked_up.get(job):
                found.append(entry)
        while len(looked_up) > _LOOKED_UP:
            looked_up.popitem(last=False)
        return found

    def _is_older(self, job: bytes) -> bool:
        """Whether it was submitted before what is known; an event by a foreign hand may name anything."""
        return _POSITION.fullmatch(job) is not None and order(job.decode()) <= self._floor

    async def _look_up(self, jobs: Sequence[bytes]) -> None:
        self._looked_up.update(dict.fromkeys(jobs, False))
        for start in range(0, len(jobs), _AT_ONCE):
            wanted = [job.decode() for job in jobs[start : start + _AT_ONCE]]
            for position, fields in await self._log.pick(wanted):
                if len(fields) == _FIELDS:
                    self._looked_up[position] = self._submits_such(position, fields)

    def _is_true_of(self, body: bytes) -> bool:
        """As JMESPath has it: false are null, false, and empty texts, lists and objects."""
        try:
            found = self._sought.where.search(msgspec.json.decode(body))
        except _NO_ANSWER:
            return False
        return found is not None and found is not False and found not in ("", [], {})
