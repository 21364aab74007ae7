"""Changing a JSON value by a merge patch (RFC 7396), and telling how two values differ.

Values are as a JSON decoder gives them: dict, list, str, int, float, bool, None.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

# How deep differences are looked for; what is nested deeper differs as a whole.
MAX_DEPTH: Final = 30

_ABSENT: Final = object()  # no value: not the same as null


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place where two values differ: `path` as in `to[0].name`, empty for the whole; `before` and
    `after` are left out where there is no value."""

    path: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


def merged(value: Any, patch: Any) -> Any:
    """`value` after the patch: members of objects are set, null takes a member out, and all that is no
    object is put in place of what was there. Neither is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), part)
    return result


def differences(before: Any, after: Any) -> list[Change]:
    """Where two values differ, in the order of `before`, what is new after it. `1` and `1.0` are the same
    number; `true` is none."""
    return list(_differences(before, after, "", 0))


def _differences(before: Any, after: Any, path: str, depth: int) -> Iterator[Change]:
    if depth < MAX_DEPTH and isinstance(before, dict) and isinstance(after, dict):
        pairs = {name: (value, after.get(name, _ABSENT)) for name, value in before.items()}
        pairs |= {name: (_ABSENT, value) for name, value in after.items() if name not in before}
        for name, (old, new) in pairs.items():
            yield from _differences(old, new, f"{path}.{name}" if path else name, depth + 1)
    elif depth < MAX_DEPTH and isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            old = before[number] if number < len(before) else _ABSENT
            new = after[number] if number < len(after) else _ABSENT
            yield from _differences(old, new, f"{path}[{number}]", depth + 1)
    elif not _same(before, after):
        told = {"before": before, "after": after}
        yield Change(path, **{side: value for side, value in told.items() if value is not _ABSENT})


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    return bool(before == after)
