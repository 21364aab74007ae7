"""How an attempt can end, each way as the event that tells it.

returned                → completed
raised Permanent        → failed (permanent)
raised RetryLater       → attempt_failed, due when it says; failed (exhausted) on the last attempt
raised anything else    → attempt_failed, due by the backoff; failed (exhausted) on the last attempt
ran out of time         → as if it had raised TimeoutError
told to leave           → released: due now, the attempt not spent
"""

import random
import traceback
from typing import Any, Final

import msgspec

from penstock.consumers.retry import delay
from penstock.core.dispatch import Delivery, Finished
from penstock.core.errors import Permanent, RetryLater
from penstock.core.events import AttemptFailed, Failed, Released, Submitted, encode

MAX_MESSAGE_CHARS: Final = 2_000
MAX_TRACEBACK_CHARS: Final = 8_000
NO_ATTEMPT_LEFT: Final = "exhausted"


class Failure(msgspec.Struct, frozen=True):
    """What a handler's exception says, as plain values: it may come from another process."""

    error: str
    message: str
    traceback: str = ""
    permanent: bool = False
    after: float | None = None


def failure(error: BaseException, *, permanent: bool = False) -> Failure:
    """An exception as values, cut to their bounds."""
    try:
        message = str(error)
    except Exception:
        message = "(it cannot say what is wrong: its __str__ fails)"
    lines = "".join(traceback.format_exception(error))
    return Failure(
        error=type(error).__name__,
        message=_text(message[:MAX_MESSAGE_CHARS]),
        traceback=_text(lines[-MAX_TRACEBACK_CHARS:]),
        permanent=permanent or isinstance(error, Permanent),
        after=error.after if isinstance(error, RetryLater) else None,
    )


def completed(delivery: Delivery, ms: float, result: bytes) -> Finished:
    """The handler returned `result` (JSON). Written by hand: this is the hot path, and the bytes
    are those that encoding an events.Completed gives."""
    if delivery.attempt == 1:
        body = b'{"ms":%.3f,"result":%b}' % (ms, result) if result != b"null" else b'{"ms":%.3f}' % ms
    else:
        body = b'{"attempt":%d,"ms":%.3f,"result":%b}' % (delivery.attempt, ms, result)
    return Finished("completed", delivery.lane, delivery.entry, delivery.attempt, delivery.job, body)


def next_attempt(
    job: Submitted, attempt: int, why: Failure, *, draw: random.Random | None = None
) -> float | None:
    """In how many seconds the job is tried again after its attempt (1 is the first) failed; None where it is
    given up."""
    if why.permanent or attempt >= job.attempts:
        return None
    return why.after if why.after is not None else delay(job.backoff, attempt, draw=draw)


def failed(delivery: Delivery, job: Submitted, ms: float, why: Failure) -> Finished:
    """The attempt failed: for good, or until it is due again."""
    wait = next_attempt(job, delivery.attempt, why)
    if wait is None:
        reason = "permanent" if why.permanent else NO_ATTEMPT_LEFT
        body: Any = Failed(
            reason=reason,
            error=why.error,
            message=why.message,
            attempt=delivery.attempt,
            traceback=why.traceback,
            ms=round(ms, 3),
        )
        return _finished("failed", delivery, encode(body))
    body = AttemptFailed(
        attempt=delivery.attempt,
        error=why.error,
        message=why.message,
        delay=round(wait, 3),
        traceback=why.traceback,
        ms=round(ms, 3),
    )
    return _finished("attempt_failed", delivery, encode(body), round(wait * 1000))


def released(delivery: Delivery, worker: str, reason: str, *, delay_s: float = 0) -> Finished:
    """The worker gives the job back."""
    body = encode(Released(worker=worker, reason=reason))
    return _finished("released", delivery, body, round(delay_s * 1000))


def _finished(outcome: Any, delivery: Delivery, body: bytes, delay_ms: int = 0) -> Finished:
    return Finished(outcome, delivery.lane, delivery.entry, delivery.attempt, delivery.job, body, delay_ms)


def _text(words: str) -> str:
    """Without the halves of characters that JSON cannot hold (file names have them)."""
    return words.encode("utf-8", "replace").decode()
