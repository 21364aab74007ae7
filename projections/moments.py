"""Moments as people and programs write them: ISO 8601 with a time zone, or Unix milliseconds."""

from datetime import datetime
from typing import Final

from penstock.core.errors import FieldProblem, InvalidJob

LATEST_MS: Final = 10**13  # the year 2286


def moment(name: str, text: str) -> int:
    """Unix ms. Raises InvalidJob that names the parameter."""
    try:
        at = datetime.fromisoformat(text) if not text.isdigit() else None
    except ValueError:
        at = None
    if at is not None and at.tzinfo is not None:
        ms = round(at.timestamp() * 1000)
    else:
        ms = int(text[:20]) if text.isdigit() else -1
    if not 0 <= ms < LATEST_MS:
        words = f"{text[:40]!r} is no moment: ISO 8601 with a time zone (2026-11-24T07:45:00Z), or Unix ms"
        raise InvalidJob([FieldProblem(name, words)])
    return ms
