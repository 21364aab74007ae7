"""Which function does which job: `@handler(Contract)` and the registry of this process."""

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec

from penstock.consumers.context import Context
from penstock.core.contracts import Contract, declaration
from penstock.core.errors import Misconfigured

Mode = Literal["async", "thread", "process"]

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")


class Handler(msgspec.Struct, frozen=True):
    """A function `(payload, context) -> result`, and where it runs."""

    contract: Contract
    run: Callable[[Any, Context], Any]
    mode: Mode


_handlers: dict[str, Handler] = {}


def handler(
    payload: type[P], *, mode: Mode | None = None
) -> Callable[[Callable[[P, Context], R]], Callable[[P, Context], R]]:
    """Make the decorated function the handler of a contract.

    An `async def` runs on the event loop, a `def` in a thread. `mode="process"` runs a `def` in a
    process of its own, which a timeout really ends: for code that may hang or crash. The result
    is anything msgspec can encode as JSON.
    """

    def enter(function: Callable[[P, Context], R]) -> Callable[[P, Context], R]:
        chosen = mode or ("async" if inspect.iscoroutinefunction(function) else "thread")
        if chosen not in get_args(Mode):
            raise Misconfigured(
                f"handler {function.__qualname__}: mode {chosen!r} is none of {get_args(Mode)}"
            )
        if (chosen == "async") != inspect.iscoroutinefunction(function):
            raise Misconfigured(f"handler {function.__qualname__}: mode {chosen!r} does not fit its def")
        entry: Final = declaration(payload)
        _handlers[entry.type] = Handler(contract=entry, run=function, mode=chosen)
        return function

    return enter


def handlers() -> dict[str, Handler]:
    """All handlers of this process, by job type."""
    return dict(_handlers)
