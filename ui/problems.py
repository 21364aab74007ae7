"""Every error of the API as problem+json, and never a traceback to a client."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap
from redis.exceptions import RedisError

from penstock.core.connection import LOST, passing
from penstock.core.errors import FieldProblem, PenstockError, Unavailable
from penstock.producer.refusals import INTERNAL, MEDIA_TYPE, Problem, headers_of, problem_of

_log: Final = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode


def _answer(
    request: Request[Any, Any, Any], problem: Problem, headers: Mapping[str, str] = {}
) -> Response[bytes]:
    told = msgspec.structs.replace(problem, instance=request.url.path)
    return Response(
        _encode(told),
        status_code=problem.status,
        headers={"Cache-Control": "no-store", **headers},
        media_type=MEDIA_TYPE,
    )


def _ours(request: Request[Any, Any, Any], error: PenstockError) -> Response[bytes]:
    problem = problem_of(error)
    if problem is INTERNAL:
        return _internal(request, error)
    return _answer(request, problem, headers_of(error))


def _of_redis(request: Request[Any, Any, Any], error: RedisError | OSError) -> Response[bytes]:
    if passing(error) or str(error).startswith("OOM"):
        return _ours(request, Unavailable(f"Redis cannot serve now: {error}"))
    return _internal(request, error)


def _of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar itself refuses: an unknown path, a method, a query parameter."""
    if error.status_code >= 500:
        return _internal(request, error)
    title = HTTPStatus(error.status_code).phrase
    detail = "" if error.detail == title else error.detail
    errors = _fields(error.extra) if isinstance(error, ValidationException) else []
    problem = Problem(type="about:blank", title=title, status=error.status_code, detail=detail, errors=errors)
    return _answer(request, problem, error.headers or {})


def _fields(extra: Any) -> list[FieldProblem]:
    """The parameters that Litestar found wrong."""
    return [FieldProblem(row["key"], row["message"]) for row in extra or [] if "key" in row]


def _internal(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(request, INTERNAL)


EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {
    PenstockError: _ours,
    RedisError: _of_redis,
    **dict.fromkeys(LOST, _of_redis),
    HTTPException: _of_http,
    Exception: _internal,
}
