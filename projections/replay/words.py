"""An event in a few words, for a line on a terminal: what it says, without what the line says anyway."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.projections.details import EventDetail

MAX_CHARS: Final = 400  # of one value
MAX_LINE: Final = 2_000
_LOOKED_AT: Final = 4 * MAX_CHARS
_MOST: Final = 10**12
_Data = Mapping[str, Any]


def words(event: EventDetail) -> str:
    """What the event says, in one line; empty where its name says it all. Sealed values are as hidden or
    shown as in `event`."""
    data = msgspec.json.decode(event.data)
    if not isinstance(data, dict):
        return plain(data)
    speak = _SPEAKERS.get(event.event)
    return _cut(" ".join(filter(None, speak(data))) if speak else _rest(data), MAX_LINE)


def duration(ms: float) -> str:
    """A length of time as people read it: 3 ms, 4.2 s, 2 min 5 s, 3 h 4 min, 2 d 3 h."""
    if ms < 999.5:  # which three digits round to 1000
        return f"{ms:.3g} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    whole = round(ms / 1000)
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"


def _asked(data: _Data) -> list[str]:
    """A job as it was submitted or requeued."""
    rest = {name: value for name, value in data.items() if name not in ("type", "payload", "trace", "needs")}
    return [plain(data.get("type")), plain(data.get("payload")), _rest(rest)]


def _started(data: _Data) -> list[str]:
    return [f"attempt {plain(data.get('attempt'))} on {plain(data.get('worker'))}"]


def _progressed(data: _Data) -> list[str]:
    done = f"{_number(data, 'fraction'):.0%}"
    return [done, plain(data.get("message", "")), plain(data["data"]) if "data" in data else ""]


def _attempt_failed(data: _Data) -> list[str]:
    again = f"again in {duration(1000 * _number(data, 'delay'))}" if "delay" in data else ""
    return [
        f"attempt {plain(data.get('attempt'))}:",
        error(data),
        ", ".join(filter(None, (_ran(data), again))),
    ]


def _failed(data: _Data) -> list[str]:
    return [f"{plain(data.get('reason'))}:", error(data), _ran(data)]


def _completed(data: _Data) -> list[str]:
    return [_ran(data), f"result {plain(data['result'])}" if "result" in data else ""]


def _lease_expired(data: _Data) -> list[str]:
    crashes = f"(lost {plain(data['crashes'])} times)" if data.get("crashes", 1) != 1 else ""
    return [f"{plain(data.get('worker'))} fell silent", crashes]


def _released(data: _Data) -> list[str]:
    return [f"by {plain(data.get('worker'))}: {plain(data.get('reason'))}"]


def _trimmed(data: _Data) -> list[str]:
    jobs = len(str(data.get("jobs", "")).split())
    return [f"{jobs} jobs, from {plain(data.get('first', ''))} to {plain(data.get('last', ''))}"]


_SPEAKERS: Final[Mapping[str, Callable[[_Data], list[str]]]] = {
    "submitted": _asked,
    "requeued": _asked,
    "started": _started,
    "progressed": _progressed,
    "logged": lambda data: [plain(data.get("line"))],
    "attempt_failed": _attempt_failed,
    "failed": _failed,
    "completed": _completed,
    "lease_expired": _lease_expired,
    "released": _released,
    "trimmed": _trimmed,
}


def error(data: _Data) -> str:
    """A failure as `Class: message`, the message's first line."""
    message = plain(str(data.get("message", "")).strip().split("\n", maxsplit=1)[0])
    return f"{plain(data.get('error'))}: {message}" if message else plain(data.get("error"))


def _ran(data: _Data) -> str:
    ms = _number(data, "ms")
    return f"after {duration(ms)}" if ms else ""


def _number(data: _Data, name: str) -> float:
    """0 for what is no number, or none that a length of time has."""
    found = data.get(name)
    return found if isinstance(found, int | float) and 0 <= found < _MOST else 0


def _rest(data: _Data) -> str:
    return " ".join(f"{plain(name)}={plain(value)}" for name, value in data.items())


def plain(value: Any) -> str:
    """A value as people read it: text as it is, but in one line and without control characters, so that no
    payload can tell a terminal what to do; all else as JSON."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _cut("".join(char if char.isprintable() else "�" for char in " ".join(text[:_LOOKED_AT].split())))


def _cut(text: str, most: int = MAX_CHARS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
