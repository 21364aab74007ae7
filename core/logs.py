"""How our processes log: to standard error, a line for each record, as text or as JSON.

As JSON each line also says which process it is of, and what is logged while an attempt runs, by us or by
a handler, says of which job and, if there are traces, of which span.
"""

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from penstock.core.settings import Settings
from penstock.core.tracing import current_ids

# A line of a handler's own may be of any length; collectors cut or drop long ones.
MAX_CHARS: Final = 16_000


class Attempt(NamedTuple):
    """Which attempt of which job."""

    job: str
    number: int


# What the current task or thread works on.
current_attempt: Final[ContextVar[Attempt | None]] = ContextVar("current_attempt", default=None)


def configure_logging(settings: Settings, role: str = "") -> None:
    """Send all records from INFO on to standard error, in `settings.log_format`."""
    sink = logging.StreamHandler(sys.stderr)
    sink.setFormatter(_Json(role) if settings.log_format == "json" else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[sink], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd: each command


class _Text(logging.Formatter):
    """The message; before it the level where that says something."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


class _Json(logging.Formatter):
    """One object a line: time (RFC 3339), level, logger, process, message; and, where there are, job,
    attempt, trace_id, span_id and exception."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role: Final = role

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._role,
            "message": _legible(record.getMessage()),
        }
        if (running := current_attempt.get()) is not None:
            line["job"], line["attempt"] = running
        if (ids := current_ids()) is not None:
            line["trace_id"], line["span_id"] = ids
        if record.exc_info:
            line["exception"] = _legible(self.formatException(record.exc_info), end=True)
        return msgspec.json.encode(line).decode()


def _legible(text: str, *, end: bool = False) -> str:
    """At most MAX_CHARS of it (its end: where a traceback says what went wrong), and without the halves
    of characters that JSON cannot hold."""
    cut = text[-MAX_CHARS:] if end else text[:MAX_CHARS]
    return cut.encode("utf-8", "replace").decode()
