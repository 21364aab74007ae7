"""What the answer of a remote HTTP service means for an attempt, said in one place.

2xx                    go on
429, 503 + Retry-After  RetryLater: when the service says
408, 425, 429, 5xx      RemoteFailure: tried again by the job's backoff
everything else         Permanent: asking again gets the same answer
"""

import time
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from penstock.core.errors import PenstockError, Permanent, RetryLater

MAX_RETRY_AFTER_S: Final = 6 * 3600.0
PASSING: Final = frozenset({408, 425, 429})
MAY_NAME_A_TIME: Final = frozenset({429, 503})


class RemoteFailure(PenstockError):
    """A remote service failed in a way that may pass: the attempt is retried by the job's backoff."""


def judge(response: httpx.Response, words: str = "") -> None:
    """Raise what a status other than 2xx means; `words` are the service's own, for the message."""
    if response.is_success:
        return
    status = response.status_code
    said = f"{response.url.host} answered {status} {response.reason_phrase}{': ' if words else ''}{words}"
    wait = retry_after(response.headers)
    if status in MAY_NAME_A_TIME and wait is not None:
        raise RetryLater(said, wait)
    if status in PASSING or status >= 500:
        raise RemoteFailure(said)
    raise Permanent(said)


def retry_after(headers: httpx.Headers, now: float | None = None) -> float | None:
    """Seconds to wait by the Retry-After header, as a number or a date (RFC 9110, 10.2.3).

    Between 0 and six hours; None without a header that makes sense.
    """
    raw = headers.get("retry-after", "").strip()
    if raw.isascii() and raw.isdigit():
        return min(float(raw[:12]), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(raw).timestamp()
    except (ValueError, OverflowError):
        return None
    wait = moment - (time.time() if now is None else now)
    return min(max(wait, 0.0), MAX_RETRY_AFTER_S)
