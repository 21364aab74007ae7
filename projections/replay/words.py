"""An event in a few words, for a line on a terminal: what it says, without what the line says anyway."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.projections.details import EventDetail

MAX_CHARS: Final = 400  # of one value
_LOOKED_AT: Final = 4 * MAX_CHARS
_Data = Mapping[str, Any]


def words(event: EventDetail) -> str:
    """What the event says, in one line; empty where its name says it all. Sealed values are as hidden or
    shown as in `event`."""
    data = msgspec.json.decode(event.data)
    if not isinstance(data, dict):
        return _value(data)
    speak = _SPEAKERS.get(event.event)
    return " ".join(filter(None, speak(data))) if speak else _rest(data)


def duration(ms: float) -> str:
    """A length of time as people read it: 3 ms, 4.2 s, 2 min 5 s, 3 h 4 min, 2 d 3 h."""
    if ms < 1000:
        return f"{ms:.3g} ms" if ms else "0 ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def _asked(data: _Data) -> list[str]:
    """A job as it was submitted or requeued."""
    rest = {name: value for name, value in data.items() if name not in ("type", "payload", "trace", "needs")}
    return [_value(data.get("type")), _value(data.get("payload")), _rest(rest)]


def _started(data: _Data) -> list[str]:
    return [f"attempt {data.get('attempt')} on {_value(data.get('worker'))}"]


def _progressed(data: _Data) -> list[str]:
    fraction = data.get("fraction", 0)
    done = f"{fraction:.0%}" if isinstance(fraction, int | float) else ""
    return [done, _value(data.get("message", "")), _value(data["data"]) if "data" in data else ""]


def _attempt_failed(data: _Data) -> list[str]:
    again = f"again in {duration(1000 * data['delay'])}" if "delay" in data else ""
    return [f"attempt {data.get('attempt')}:", error(data), _ran(data), again]


def _failed(data: _Data) -> list[str]:
    return [f"{_value(data.get('reason'))}:", error(data), _ran(data)]


def _completed(data: _Data) -> list[str]:
    return [_ran(data), f"result {_value(data['result'])}" if "result" in data else ""]


def _lease_expired(data: _Data) -> list[str]:
    crashes = f"(lost {data['crashes']} times)" if data.get("crashes", 1) != 1 else ""
    return [f"{_value(data.get('worker'))} fell silent", crashes]


def _released(data: _Data) -> list[str]:
    return [f"by {_value(data.get('worker'))}: {_value(data.get('reason'))}"]


def _trimmed(data: _Data) -> list[str]:
    jobs = len(str(data.get("jobs", "")).split())
    return [f"{jobs} jobs, from {data.get('first', '')} to {data.get('last', '')}"]


_SPEAKERS: Final[Mapping[str, Callable[[_Data], list[str]]]] = {
    "submitted": _asked,
    "requeued": _asked,
    "started": _started,
    "progressed": _progressed,
    "logged": lambda data: [_value(data.get("line"))],
    "attempt_failed": _attempt_failed,
    "failed": _failed,
    "completed": _completed,
    "lease_expired": _lease_expired,
    "released": _released,
    "trimmed": _trimmed,
}


def error(data: _Data) -> str:
    """A failure as `Class: message`, the message's first line."""
    message = _value(str(data.get("message", "")).strip().split("\n", maxsplit=1)[0])
    return f"{_value(data.get('error'))}: {message}" if message else _value(data.get("error"))


def _ran(data: _Data) -> str:
    ms = data.get("ms", 0)
    return f"after {duration(ms)}" if isinstance(ms, int | float) and ms else ""


def _rest(data: _Data) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in data.items())


def _value(value: Any) -> str:
    """Text as it is, but in one line; all else as JSON. Of the control characters that a payload may have,
    none reaches a terminal."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _cut("".join(char if char.isprintable() else "�" for char in " ".join(text[:_LOOKED_AT].split())))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
