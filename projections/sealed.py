"""Sealed fields (penstock.core.sealing) as people see them: opened for whoever has the right, and else
only that they are sealed. `seals` is None for whoever has not.
"""

from typing import Any, Final

import msgspec

from penstock.core.events import Event
from penstock.core.sealing import MARK, Seals, Unsealable, is_sealed, opened, opened_text

HIDDEN: Final = msgspec.Raw(b'{"sealed":true}')
HIDDEN_TEXT: Final = "(sealed)"

_read_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_needs: Final = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]]).decode


def shown(value: msgspec.Raw, type: str, field: str, seals: Seals | None) -> msgspec.Raw:
    """A field that is JSON: `{"sealed": true}` where it cannot be shown, with the problem for whoever has
    the right to see it."""
    if not is_sealed(value):
        return value
    if seals is None:
        return HIDDEN
    try:
        return opened(value, type, field, seals)
    except Unsealable as error:
        return msgspec.Raw(msgspec.json.encode({"sealed": True, "problem": str(error)}))


def shown_text(value: str, type: str, field: str, seals: Seals | None) -> str:
    """The same for a field that is text."""
    if not is_sealed(value):
        return value
    try:
        return opened_text(value, type, field, seals)
    except Unsealable as error:
        return HIDDEN_TEXT if seals is None else f"(sealed: {error})"


def shown_body(event: Event, type: str, seals: Seals | None) -> bytes:
    """An event's body with its sealed fields shown or hidden; as it is where none is sealed."""
    if MARK.encode() not in event.body:
        return event.body
    try:
        fields: dict[str, Any] = _read_fields(event.body)
        for name, value in fields.items():
            if name == "needs":
                fields[name] = _shown_needs(value, seals)
            elif is_sealed(value):
                fields[name] = _shown_field(value, type, name, seals)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event.body
    return msgspec.json.encode(fields)


def _shown_field(value: msgspec.Raw, type: str, name: str, seals: Seals | None) -> Any:
    if name in ("payload", "result", "data"):
        return shown(value, type, name, seals)
    return shown_text(msgspec.json.decode(value, type=str), type, name, seals)


def _shown_needs(value: msgspec.Raw, seals: Seals | None) -> Any:
    needs = _read_needs(value)
    types = {name: msgspec.json.decode(raw, type=str) for name, raw in needs.get("types", {}).items()}
    results = needs.get("results", {})
    return needs | {
        "results": {n: shown(raw, types.get(n, ""), "result", seals) for n, raw in results.items()}
    }
