"""How a refusal is said over HTTP: RFC 9457, "Problem Details for HTTP APIs".

    InvalidJob, UnknownType   422   errors: every wrong field; of a batch: all jobs were refused
    Malformed                 400   not JSON, or not UTF-8
    Unauthorized              401   no valid key
    Forbidden                 403   a request that this server does not serve
    NotFound                  404
    WrongState                409   the job is over, has started, does not wait
    TooSlow                   408   the body stopped coming
    TooLarge                  413
    UnsupportedMedia          415
    RateLimited               429   Retry-After
    Unavailable               503   Retry-After
    anything else             500   the log has it, the client does not

The type is a URN that stays the same; title and detail are for people.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.core.errors import (
    BacklogFull,
    FieldProblem,
    InvalidJob,
    NotFound,
    PenstockError,
    Refused,
    TooLarge,
    Unavailable,
    UnknownType,
    WrongState,
)

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:penstock:problem:"


class Malformed(Refused):
    """The body is not what its content type says."""


class UnsupportedMedia(Refused):
    """A body of a content type that is not taken here."""


class AllRefused(InvalidJob):
    """No job of a batch was right; `items` is the answer to each."""

    def __init__(self, problems: list[FieldProblem], items: list[Any]) -> None:
        super().__init__(problems)
        self.items: Final = items

    def __str__(self) -> str:
        return f"all {len(self.items)} jobs were refused"


class TooSlow(Refused):
    """The body stopped coming."""


class Unauthorized(PenstockError):
    """No valid API key came with the request."""


class Forbidden(PenstockError):
    """A request that this server does not serve, whoever asks."""


class RateLimited(PenstockError):
    """Too many requests; the next one is served `retry_after` seconds later. `headers` say the rest."""

    def __init__(self, retry_after: float, headers: Mapping[str, str]) -> None:
        self.retry_after: Final = retry_after
        self.headers: Final = headers
        super().__init__(f"too many requests; the next one is served in {retry_after:.3g} s")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A refusal as JSON. `errors` names every wrong field; `known` the job types there are; `items`
    is what became of each job of a batch that was refused as a whole."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    errors: list[FieldProblem] = []
    known: list[str] = []
    items: list[Any] = []


_KINDS: Final[Mapping[type[PenstockError], tuple[int, str, str]]] = {
    InvalidJob: (422, "invalid-job", "Not valid"),
    UnknownType: (422, "unknown-type", "No job type of this name"),
    Malformed: (400, "malformed", "The body cannot be read"),
    Unauthorized: (401, "unauthorized", "A valid API key is needed"),
    Forbidden: (403, "forbidden", "Not served"),
    NotFound: (404, "not-found", "Not found"),
    WrongState: (409, "wrong-state", "Not in a state for this"),
    TooSlow: (408, "too-slow", "The body stopped coming"),
    TooLarge: (413, "too-large", "Too large"),
    UnsupportedMedia: (415, "unsupported-media", "Content type not taken here"),
    RateLimited: (429, "rate-limited", "Too many requests"),
    Refused: (422, "refused", "Refused"),
    BacklogFull: (429, "backlog-full", "The queue is full"),
    Unavailable: (503, "unavailable", "Not available at the moment"),
}

INTERNAL: Final = Problem(
    type=_URN + "internal",
    title="Internal error",
    status=500,
    detail="the server's log says what happened",
)


def problem_of(error: PenstockError) -> Problem:
    """What an error of ours is, in the words of HTTP; INTERNAL for what is no answer to a client."""
    kind = next((base for base in type(error).__mro__ if base in _KINDS), None)
    if kind is None:
        return INTERNAL
    status, name, title = _KINDS[kind]
    return Problem(
        type=_URN + name,
        title=title,
        status=status,
        detail=str(error),
        errors=_errors(error),
        known=error.known if isinstance(error, UnknownType) else [],
        items=error.items if isinstance(error, AllRefused) else [],
    )


def headers_of(error: PenstockError) -> dict[str, str]:
    """The headers that the answer to an error carries."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="penstock"'}
    if isinstance(error, RateLimited):
        return {"Retry-After": _seconds(error.retry_after), **error.headers}
    if isinstance(error, Unavailable):
        return {"Retry-After": _seconds(error.retry_after)}
    return {}


def _errors(error: PenstockError) -> list[FieldProblem]:
    if isinstance(error, InvalidJob):
        return error.problems
    if isinstance(error, UnknownType):
        return [FieldProblem("type", f"no job type {error.name!r}")]
    return []


def _seconds(delay: float) -> str:
    return str(max(1, math.ceil(delay)))
