"""Taking out of bodies what may not leave: fields that callers and handlers filled, by dotted paths.

`payload.to` takes `to` out of each payload; lists are gone through, so `payload.items.price` takes the price
of each item. In place of what was there stands REDACTED, so the shape stays. A sealed field stays sealed.
What the queue itself needs cannot be taken out: the log would be another one.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.core.errors import Refused
from penstock.core.log import Entry
from penstock.core.sealing import is_sealed

REDACTED: Final = msgspec.Raw(b'"[redacted]"')
_NONE: Final = msgspec.Raw(b"{}")
_JSON: Final = ("payload", "result", "data")
_TEXT: Final = ("message", "traceback", "line")

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_texts: Final = msgspec.json.Decoder(dict[str, str]).decode
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Redaction:
    """Takes what some paths name out of entries."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises Refused for a path that begins in no field that callers or handlers fill."""
        self.paths: Final = tuple(dict.fromkeys(paths))
        self._paths: Final = [path.split(".") for path in self.paths]
        for path, words in zip(self.paths, self._paths, strict=True):
            if words[0] not in (*_JSON, *_TEXT) or "" in words or (words[0] in _TEXT and len(words) > 1):
                raise Refused(
                    f"{path!r} cannot be redacted: a path begins with {', '.join(_JSON)}, like payload.to, "
                    f"or is {', '.join(_TEXT)}"
                )

    def of(self, entry: Entry) -> Entry:
        """The entry without it; of one whose body cannot be read, nothing of the body is left."""
        position, fields = entry
        if not self._paths:
            return entry
        if len(fields) != 6:
            return position, [_kept(fields, index) for index in range(len(fields))]
        try:
            body = _fields(fields[5])
            changed = [self._apply(body, words) for words in self._paths]
        except (ValueError, RecursionError):
            return position, [*fields[:5], bytes(REDACTED)]
        return (position, [*fields[:5], _encode(body)]) if any(changed) else entry

    def _apply(self, body: dict[str, msgspec.Raw], words: Sequence[str]) -> bool:
        found = words[0] in body
        if found:
            body[words[0]] = _without(body[words[0]], words[1:])
        # What a node of a flow was handed over are results of other jobs, and why others failed.
        if words[0] in ("result", "message") and "needs" in body:
            needs = _fields(body["needs"])
            if words[0] == "result":
                results = _fields(needs.get("results", _NONE))
                needs["results"] = msgspec.Raw(
                    _encode({it: _without(results[it], words[1:]) for it in results})
                )
            else:
                needs["unmet"] = msgspec.Raw(_encode(_unexplained(needs.get("unmet", _NONE))))
            body["needs"] = msgspec.Raw(_encode(needs))
            return True
        return found


def _unexplained(unmet: msgspec.Raw) -> dict[str, str]:
    """States of jobs, without what stands behind them."""
    told = {name: state.partition(": ") for name, state in _texts(unmet).items()}
    return {name: f"{state}: [redacted]" if why else state for name, (state, _, why) in told.items()}


def _kept(fields: Sequence[bytes], index: int) -> bytes:
    """Of an entry by a foreign hand the names, the event and the job."""
    name = fields[index] if index % 2 == 0 else fields[index - 1]
    return fields[index] if index % 2 == 0 or name in (b"event", b"job") else bytes(REDACTED)


def _without(value: msgspec.Raw, words: Sequence[str]) -> msgspec.Raw:
    """JSON without what the path names."""
    if is_sealed(value):
        return value
    if not words:
        return REDACTED
    match bytes(memoryview(value)[:1]):
        case b"{":
            fields = _fields(value)
            if words[0] not in fields:
                return value
            fields[words[0]] = _without(fields[words[0]], words[1:])
            return msgspec.Raw(_encode(fields))
        case b"[":
            return msgspec.Raw(_encode([_without(item, words) for item in _items(value)]))
    return value
