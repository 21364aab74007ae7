"""How our processes log: to standard error, a line for each record, as text or as JSON."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.core.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Send all records from INFO on to standard error, in `settings.log_format`."""
    sink = logging.StreamHandler(sys.stderr)
    sink.setFormatter(_Json() if settings.log_format == "json" else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[sink], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd: each command


class _Text(logging.Formatter):
    """The message; before it the level where that says something."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


class _Json(logging.Formatter):
    """One object a line: at (ISO 8601), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
