"""From a request to a `submitted` event: check everything, then encode once.

JobRequest ── prepare ──► Submission (for the script)
                 └──────► InvalidJob: every wrong field with its path; nothing was written

What many jobs share is done once (Mould), and then each payload is cast.
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


class Mould:
    """What jobs of one type with the same options share, checked and encoded once: of each job's event
    only the payload is still missing.

    Raises UnknownType. Whatever else is wrong is told with the first payload's own problems.
    """

    def __init__(
        self,
        queue: str,
        type: str,
        options: JobOptions,
        *,
        max_payload: int,
        by: str = "",
        trace: str = "",
        origin: str = "",
        seals: Seals | None = None,
    ) -> None:
        contract = declared(type)
        self.queue: Final = queue
        self.type: Final = type
        self._max_payload: Final = max_payload
        self._seals: Final = seals
        self._payload: Final = contract.payload
        self._decode: Final = _decoder(contract.payload).decode
        self._problems: Final = _problems(queue, contract, options)
        told = dict(_told(contract.options))
        for name in ("priority", "attempts", "backoff", "timeout"):
            value = getattr(options, name)
            if value is not None:
                _say(told, name, value)
        self._lane: Final[str] = told.get("priority", "normal")
        self._when: Final = "" if self._problems else _say_when(told, options)
        if options.ttl:
            told["ttl"] = options.ttl
        if options.unique:
            told["unique"] = options.unique.key
        event = Submitted(
            type=type,
            payload=_GAP,
            tags=options.tags,
            group=options.group,
            key=options.key,
            by=by,
            trace=trace,
            origin=origin,
            **told,
        )
        self._key: Final = options.key
        self._extra: Final = _extra(event, options.unique)
        self._head: Final = _head(type)
        self._tail: Final = encode(event)[len(self._head) + len("0") :]

    def cast(self, payload: msgspec.Raw | bytes) -> Submission:
        """The submission of one payload (JSON), sealed if there are seals.

        Raises InvalidJob (every wrong field) or TooLarge.
        """
        size = len(memoryview(payload))
        if size > self._max_payload:
            raise TooLarge("payload, in bytes", size, self._max_payload)
        try:
            self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJob(self._problems + _payload_problems(self._payload, payload, error)) from None
        if self._problems:
            raise InvalidJob(self._problems)
        if self._seals is not None:
            payload = self._seals.seal_json(payload, self.type, "payload")
        body = b"%b%b%b" % (self._head, payload, self._tail)
        return Submission(self._lane, body, self._when, self._key, self._extra)


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
    mould = Mould(
        queue, request.type, request, max_payload=max_payload, by=by, trace=trace, origin=origin, seals=seals
    )
    return mould.cast(request.payload)


_GAP: Final = msgspec.Raw(b"0")


@lru_cache(maxsize=1024)
def _head(type: str) -> bytes:
    """What stands before the payload, the second field: the same for all jobs of a type."""
    return encode(Submitted(type, _GAP))[: -len("0}")]


def _extra(event: Submitted, unique: Unique | None) -> bytes:
    if unique is None:
        return extra_of(event)
    return extra_of(event, unique=unique.key, life=round(unique.life * 1000), replace=unique.replace)


def _problems(queue: str, contract: Contract, options: JobOptions) -> list[FieldProblem]:
    """What is wrong beside the payload."""
    problems = []
    if queue != contract.queue:
        problems.append(
            FieldProblem("type", f"{contract.type} belongs to queue {contract.queue!r}, not {queue!r}")
        )
    if options.delay is not None and options.run_at is not None:
        problems.append(FieldProblem("delay", "give delay or run_at, not both"))
    if options.run_at is not None and not 0 <= unix_ms(options.run_at) <= LATEST_MS:
        problems.append(FieldProblem("run_at", "is before 1970 or after 2248"))
    return problems


def _payload_problems(
    contract: type[msgspec.Struct], payload: msgspec.Raw | bytes, error: Exception
) -> list[FieldProblem]:
    if isinstance(error, UnicodeDecodeError):
        return [FieldProblem("payload", "is not UTF-8")]
    if isinstance(error, RecursionError):
        return [FieldProblem("payload", "is nested too deep")]
    return every_problem(contract, bytes(payload))


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


def _say_when(told: dict[str, Any], request: JobOptions) -> str:
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
