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
    """A function `(payload, context) -> result`, where it runs, and what may be run of it in a rehearsal."""

    contract: Contract
    run: Callable[[Any, Context], Any]
    mode: Mode
    pure: bool = False
    dry: Callable[[Any, Context], Any] | None = None

    def rehearsed(self) -> "Handler | None":
        """What runs in its place in a rehearsal; None where nothing may."""
        if self.dry is not None:
            return Handler(contract=self.contract, run=self.dry, mode=_mode(self.dry), dry=self.dry)
        return self if self.pure else None


_handlers: dict[str, Handler] = {}


def handler(
    payload: type[P],
    *,
    mode: Mode | None = None,
    pure: bool = False,
    dry: Callable[[P, Context], Any] | None = None,
) -> Callable[[Callable[[P, Context], R]], Callable[[P, Context], R]]:
    """Make the decorated function the handler of a contract.

    An `async def` runs on the event loop, a `def` in a thread. `mode="process"` runs a `def` in a
    process of its own, which a timeout really ends: for code that may hang or crash. The result
    is anything msgspec can encode as JSON.

    A rehearsal (`penstock replay rehearse`) runs past jobs with this code. It runs the handler itself only if
    it is `pure`: it reads its payload and artifacts, and changes nothing but by what it returns (or stores as
    artifacts). `dry` is a function that a rehearsal runs in its place: it does all but what has effects, and
    raises what the handler would raise. A handler with neither is not rehearsed.
    """
    if pure and dry is not None:
        raise Misconfigured(f"the handler of {payload.__qualname__}: pure, or with a dry mode, not both")

    def enter(function: Callable[[P, Context], R]) -> Callable[[P, Context], R]:
        chosen = mode or _mode(function)
        if chosen not in get_args(Mode):
            raise Misconfigured(
                f"handler {function.__qualname__}: mode {chosen!r} is none of {get_args(Mode)}"
            )
        if (chosen == "async") != inspect.iscoroutinefunction(function):
            raise Misconfigured(f"handler {function.__qualname__}: mode {chosen!r} does not fit its def")
        entry: Final = declaration(payload)
        _handlers[entry.type] = Handler(contract=entry, run=function, mode=chosen, pure=pure, dry=dry)
        return function

    return enter


def _mode(function: Callable[..., Any]) -> Mode:
    return "async" if inspect.iscoroutinefunction(function) else "thread"


def handlers() -> dict[str, Handler]:
    """All handlers of this process, by job type."""
    return dict(_handlers)
