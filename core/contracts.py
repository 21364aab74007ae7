"""Contracts: what producers and consumers agree on, and the only thing they share.

A contract is a msgspec Struct that declares the payload of one job type, with the type's name,
its queue and its default options:

    @contract("image.resize", attempts=3, timeout=30)
    class ResizeImage(msgspec.Struct):
        source: str
        width: int

`@contract` enters it into the registry of this process; `declaration(ResizeImage)` and
`declared("image.resize")` look it up.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from penstock.core.errors import Misconfigured, UnknownType

Priority = Literal["high", "normal", "low"]

QUEUE_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
TYPE_NAME: Final = r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*){0,3}$"

MAX_ATTEMPTS: Final = 100
MAX_TIMEOUT_S: Final = 24 * 3600.0
MAX_DELAY_S: Final = 366 * 24 * 3600.0

T = TypeVar("T", bound=msgspec.Struct)
Payload: TypeAlias = type[msgspec.Struct]


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How long to wait before attempt n+1, in seconds.

    `fixed`: always `base`. `exponential`: `base * factor ** (n - 1)`, at most `cap`.
    `jitter` is the share of the wait drawn at random (0: none, 1: anywhere from 0 to the whole;
    "full jitter" in M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    kind: Literal["fixed", "exponential"] = "exponential"
    base: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)] = 1.0
    factor: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2.0
    cap: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)] = 300.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job may be told beside its payload; times in seconds.

    These defaults are part of the log's format: an event leaves out what equals them, so they
    never change. A contract that wants others says so, and its events then spell them out.
    """

    priority: Priority = "normal"
    attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)] = 5
    backoff: Backoff = Backoff()
    timeout: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] = 60.0


class Contract(msgspec.Struct, frozen=True):
    """One job type as declared: its name, queue, payload Struct and default options."""

    type: str
    queue: str
    payload: Payload
    options: Options
    summary: str


_by_type: dict[str, Contract] = {}
_by_payload: dict[Payload, Contract] = {}


def contract(
    name: str,
    *,
    queue: str | None = None,
    priority: Priority = "normal",
    attempts: int = Options().attempts,
    backoff: Backoff | None = None,
    timeout: float = Options().timeout,
) -> Callable[[type[T]], type[T]]:
    """Declare the decorated Struct as the payload of job type `name`.

    The queue is the type's first word unless given. Raises Misconfigured for a name or an option
    out of range, and for a second Struct under a name that is taken.
    """

    def declare(payload: type[T]) -> type[T]:
        home = queue if queue is not None else name.split(".", maxsplit=1)[0]
        if not re.fullmatch(TYPE_NAME, name) or not re.fullmatch(QUEUE_NAME, home):
            raise Misconfigured(
                f"contract {name!r} in queue {home!r}: names are lower-case words of a-z, 0-9, - and _"
            )
        try:
            options = msgspec.convert(
                {
                    "priority": priority,
                    "attempts": attempts,
                    "backoff": msgspec.to_builtins(backoff or Backoff()),
                    "timeout": timeout,
                },
                Options,
            )
        except msgspec.ValidationError as error:
            raise Misconfigured(f"contract {name!r}: {error}") from error
        summary = (payload.__doc__ or "").strip().split("\n")[0]
        register(Contract(type=name, queue=home, payload=payload, options=options, summary=summary))
        return payload

    return declare


def register(entry: Contract) -> None:
    """Enter a contract; loading the same declaration twice (a reload) replaces it."""
    known = _by_type.get(entry.type)
    if known is not None and _origin(known.payload) != _origin(entry.payload):
        raise Misconfigured(
            f"job type {entry.type!r} is declared twice: "
            f"{'.'.join(_origin(known.payload))} and {'.'.join(_origin(entry.payload))}"
        )
    _by_type[entry.type] = entry
    _by_payload[entry.payload] = entry


def declared(type: str) -> Contract:
    """The contract of a type's name. Raises UnknownType."""
    try:
        return _by_type[type]
    except KeyError:
        raise UnknownType(type, sorted(_by_type)) from None


def declaration(payload: Payload) -> Contract:
    """The contract of a payload Struct. Raises Misconfigured where `@contract` is missing."""
    try:
        return _by_payload[payload]
    except KeyError:
        raise Misconfigured(f"{payload.__qualname__} is no contract: decorate it with @contract") from None


def contracts() -> list[Contract]:
    """All contracts of this process, by type."""
    return [_by_type[name] for name in sorted(_by_type)]


def _origin(payload: type[Any]) -> tuple[str, str]:
    return payload.__module__, payload.__qualname__
