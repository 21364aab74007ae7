"""From a request to a `submitted` event: check everything, then encode once.

JobRequest ── prepare ──► Submission (for the script)
                 └──────► InvalidJob: every wrong field with its path; nothing was written
"""

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from penstock.core.contracts import (
    MAX_ATTEMPTS,
    MAX_DELAY_S,
    MAX_TIMEOUT_S,
    Backoff,
    Contract,
    Options,
    Priority,
    declared,
)
from penstock.core.control import extra_of
from penstock.core.dispatch import Submission
from penstock.core.errors import FieldProblem, InvalidJob, TooLarge
from penstock.core.events import Submitted, encode
from penstock.core.sealing import Seals
from penstock.core.validation import every_problem

MAX_TAGS: Final = 20
MAX_KEY_CHARS: Final = 255
LATEST_MS: Final = 2**43
NO_CONTROLS: Final = r"^[^\x00-\x1f]*$"

Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Delay = Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)]
RunAt = Annotated[datetime, msgspec.Meta(tz=True)] | Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]


class Unique(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most one live job holds `key`: while it does, submitting another answers with the holder.

    It is held until the job ends, however it ends, but no longer than `life` seconds. `replace`
    (debounce): a holder that is still delayed makes way for the newer job.
    """

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_CHARS)]
    life: Annotated[float, msgspec.Meta(gt=0, le=MAX_DELAY_S)] = 24 * 3600.0
    replace: bool = False


class JobOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a submission may say beside its payload; the rest comes from the type's contract.

    Times in seconds. `run_at` is a moment (ISO 8601 with a time zone, or Unix time in ms) and
    excludes `delay`. `key` is the idempotency key. `ttl`: give up unless started within this time
    (after `delay` or `run_at`). `group`: the concurrency key, like a tenant.
    """

    priority: Priority | None = None
    delay: Delay | None = None
    run_at: RunAt | None = None
    attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)] | None = None
    backoff: Backoff | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] | None = None
    tags: Annotated[tuple[Tag, ...], msgspec.Meta(max_length=MAX_TAGS)] = ()
    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)] = ""
    ttl: Annotated[float, msgspec.Meta(gt=0, le=MAX_DELAY_S)] | None = None
    group: Annotated[str, msgspec.Meta(max_length=100, pattern=NO_CONTROLS)] = ""
    unique: Unique | None = None


class JobRequest(JobOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job as asked for."""

    type: str
    payload: msgspec.Raw


def prepare(
    queue: str,
    request: JobRequest,
    *,
    max_payload: int,
    by: str = "",
    trace: str = "",
    origin: str = "",
    seals: Seals | None = None,
) -> Submission:
    """Check a request against its contract and encode its event, the payload sealed with `seals`.

    Raises UnknownType, InvalidJob (every wrong field) or TooLarge.
    """
    contract = declared(request.type)
    problems = _problems(queue, contract, request, max_payload)
    if problems:
        raise InvalidJob(problems)
    told = dict(_told(contract.options))
    for name in ("priority", "attempts", "backoff", "timeout"):
        value = getattr(request, name)
        if value is not None:
            _say(told, name, value)
    when = _say_when(told, request)
    if request.ttl:
        told["ttl"] = request.ttl
    if request.unique:
        told["unique"] = request.unique.key
    event = Submitted(
        type=request.type,
        payload=seals.seal_json(request.payload, request.type, "payload") if seals else request.payload,
        tags=request.tags,
        group=request.group,
        key=request.key,
        by=by,
        trace=trace,
        origin=origin,
        **told,
    )
    extra = b""
    if request.unique or request.ttl or request.group:
        extra = _extra(event, request.unique)
    return Submission(told.get("priority", "normal"), encode(event), when, request.key, extra)


def _extra(event: Submitted, unique: Unique | None) -> bytes:
    if unique is None:
        return extra_of(event)
    return extra_of(event, unique=unique.key, life=round(unique.life * 1000), replace=unique.replace)


def _problems(queue: str, contract: Contract, request: JobRequest, max_payload: int) -> list[FieldProblem]:
    problems = []
    size = len(memoryview(request.payload))
    if size > max_payload:
        raise TooLarge("payload, in bytes", size, max_payload)
    if queue != contract.queue:
        problems.append(
            FieldProblem("type", f"{contract.type} belongs to queue {contract.queue!r}, not {queue!r}")
        )
    if request.delay is not None and request.run_at is not None:
        problems.append(FieldProblem("delay", "give delay or run_at, not both"))
    if request.run_at is not None and not 0 <= unix_ms(request.run_at) <= LATEST_MS:
        problems.append(FieldProblem("run_at", "is before 1970 or after 2248"))
    try:
        _decoder(contract.payload).decode(request.payload)
    except msgspec.DecodeError:
        problems += every_problem(contract.payload, bytes(request.payload))
    except UnicodeDecodeError:
        problems.append(FieldProblem("payload", "is not UTF-8"))
    except RecursionError:
        problems.append(FieldProblem("payload", "is nested too deep"))
    return problems


@lru_cache(maxsize=1024)
def _decoder(payload: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(payload)


@lru_cache(maxsize=1024)
def _told(options: Options) -> dict[str, Any]:
    """What a contract's options say beyond the defaults of the log's format."""
    told: dict[str, Any] = {}
    for name in Options.__struct_fields__:
        _say(told, name, getattr(options, name))
    return told


_DEFAULTS: Final = Options()


def _say(told: dict[str, Any], name: str, value: Any) -> None:
    """Put an option in, or leave it out where it equals the default: the event stays small."""
    if value == getattr(_DEFAULTS, name):
        told.pop(name, None)
    else:
        told[name] = value


def _say_when(told: dict[str, Any], request: JobRequest) -> str:
    """Put the job's time in; answers it as the script takes it."""
    if request.run_at is not None:
        told["run_at"] = run_at = unix_ms(request.run_at)
        return str(run_at)
    if request.delay:
        told["delay"] = request.delay
        return f"+{round(request.delay * 1000)}"
    return ""


def unix_ms(moment: datetime | int) -> int:
    """A moment in Unix ms."""
    return moment if isinstance(moment, int) else int(moment.timestamp() * 1000)
