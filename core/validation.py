"""Every wrong field of a JSON document, not only the first one.

msgspec stops at the first wrong field; whoever fills in a form or writes a client wants all of them.
This is the slow path, taken only after decoding failed. It goes down the type field by field and lets
msgspec itself judge each part, on the part's own bytes: so what is wrong here is exactly what decoding
refuses, and the answer is empty if and only if decoding succeeds.

    every_problem(MakeThumbnails, b'{"sizes": [{"width": 0, "heigth": 9}]}')
    payload.source            this field is required
    payload.sizes[0].width    expected `int` >= 1
    payload.sizes[0].heigth   unknown field; did you mean `height`?

It looks into Structs, lists, tuples, sets, dicts, optionals and unions. Of what it does not look into
(dataclasses, TypedDicts, Structs that are arrays, more than MAX_DEPTH levels) the first problem is named.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Raw

from penstock.core.errors import FieldProblem

MAX_PROBLEMS: Final = 100
MAX_DEPTH: Final = 32

_WHERE: Final = re.compile(r"^(.*?) - at (?:`key` in )?`\$(.*)`$", re.DOTALL)

# What msgspec or Python raise for bytes that are not JSON of the wanted type.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Problems: TypeAlias = Iterator[FieldProblem]
_Shell: TypeAlias = list[Raw] | dict[str, Raw]


def every_problem(payload_type: Any, raw_json: bytes, root: str = "payload") -> list[FieldProblem]:
    """The problems of a JSON document as a `payload_type`, at most MAX_PROBLEMS, paths from `root`.

    Empty if and only if `msgspec.json.decode(raw_json, type=payload_type)` succeeds.
    """
    return list(islice(_problems(payload_type, raw_json.lstrip(b" \t\r\n"), root, 0), MAX_PROBLEMS))


def _problems(type: Any, raw: bytes | Raw, path: str, depth: int) -> _Problems:
    """What is wrong inside of a value or, if nothing inside is, with the value itself."""
    own = _refusal(type, raw, path)
    if own is None:
        return
    inside = 0
    if depth < MAX_DEPTH:
        for problem in _parts(type, raw, path, depth):
            inside += 1
            yield problem
    if not inside:
        yield own


def _parts(type: Any, raw: bytes | Raw, path: str, depth: int) -> _Problems:
    type, bounds = _bare(type)
    shell_type = _SHELLS.get(bytes(memoryview(raw)[:1]))
    if shell_type is None or _refusal(shell_type, raw, path) is not None:
        return
    shell: _Shell = _decoder(shell_type).decode(raw)
    type, inner_bounds = _bare(_member(type, shell))
    for bound in bounds + inner_bounds:
        length = Meta(min_length=bound.min_length, max_length=bound.max_length)
        refused = _refusal(Annotated[shell_type, length], raw, path)
        if refused is not None:
            yield refused
    if isinstance(shell, dict):
        yield from _object(type, shell, path, depth)
    else:
        for number, (kind, part) in enumerate(zip(_item_types(type, len(shell)), shell, strict=False)):
            yield from _problems(kind, part, f"{path}[{number}]", depth + 1)


def _object(type: Any, shell: dict[str, Raw], path: str, depth: int) -> _Problems:
    if _is_struct(type):
        yield from _struct(type, shell, path, depth)
    elif _is_a(type, Mapping) and len(get_args(type)) == 2:
        key_type, value_type = get_args(type)
        for key, part in shell.items():
            here = _join(path, key)
            refused = _refusal(dict[key_type, Raw], msgspec.json.encode({key: None}), here)  # type: ignore[valid-type]
            if refused is not None:
                yield FieldProblem(here, f"as a key: {refused.message}")
            yield from _problems(value_type, part, here, depth + 1)


def _struct(type: Any, shell: dict[str, Raw], path: str, depth: int) -> _Problems:
    config = _origin(type).__struct_config__
    fields = {field.encode_name: field for field in msgspec.structs.fields(type)}
    if config.tag is not None and config.tag_field in shell and not _has_tag(config, shell):
        yield FieldProblem(_join(path, config.tag_field), f"expected {config.tag!r}")
    for name, field in fields.items():
        if name in shell:
            yield from _problems(field.type, shell[name], _join(path, name), depth + 1)
        elif field.default is NODEFAULT and field.default_factory is NODEFAULT:
            yield FieldProblem(_join(path, name), "this field is required")
    if config.forbid_unknown_fields:
        for name in [name for name in shell if name not in fields and name != config.tag_field]:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            yield FieldProblem(_join(path, name), f"unknown field{hint}")


def _refusal(type: Any, raw: bytes | Raw, path: str) -> FieldProblem | None:
    """msgspec's own words about a value, None if it decodes."""
    try:
        _decoder(type).decode(raw)
    except RecursionError:
        return FieldProblem(path, "nested too deeply")
    except UnicodeDecodeError:
        return FieldProblem(path, "text that is not UTF-8")
    except msgspec.DecodeError as error:
        match = _WHERE.match(str(error))
        message, below = (match[1], match[2]) if match else (str(error), "")
        where = path + below if path else below.removeprefix(".")
        return FieldProblem(where, _plain(message, type))
    return None


def _plain(message: str, type: Any) -> str:
    """msgspec's words, and what it leaves out: the choices, and what a pattern means."""
    if "matching regex" in message:
        for bound in _bare(type)[1]:
            if bound.description:
                return f"not of the form that is wanted: {bound.description}"
    choices = _choices(type)
    if message.startswith("Invalid enum value") and choices:
        return f"{message[:1].lower()}{message[1:]}, expected one of {', '.join(map(repr, choices))}"
    return message[:1].lower() + message[1:]


def _choices(type: Any) -> list[Any]:
    """The values that a Literal, an Enum or an optional one of these allows."""
    type = _bare(type)[0]
    if get_origin(type) in (Union, UnionType):
        return [choice for member in get_args(type) for choice in _choices(member)]
    if get_origin(type) is Literal:
        return list(get_args(type))
    return [member.value for member in type] if _is_a(type, Enum) else []


def _member(type: Any, shell: _Shell) -> Any:
    """The member of a union that an object or array is meant for; of a type that is none, itself.

    msgspec allows one array and one object in a union, or several Structs told apart by a tag.
    """
    if get_origin(type) not in (Union, UnionType):
        return type
    members = [_bare(member)[0] for member in get_args(type)]
    if isinstance(shell, list):
        return next((member for member in members if _holds_items(member)), None)
    structs = [member for member in members if _is_struct(member)]
    for member in structs:
        if _has_tag(_origin(member).__struct_config__, shell):
            return member
    if len(structs) == 1:
        return structs[0]
    return next((member for member in members if _is_a(member, Mapping)), None)


def _has_tag(config: msgspec.structs.StructConfig, shell: dict[str, Raw]) -> bool:
    if config.tag is None or config.tag_field not in shell:
        return False
    return _refusal(Literal[config.tag], shell[config.tag_field], "") is None


def _item_types(type: Any, count: int) -> list[Any]:
    """The types of the items of an array of `count`, none for what is not looked into."""
    args = get_args(type)
    if not _holds_items(type) or not args:
        return []
    if _is_a(type, tuple) and not (len(args) == 2 and args[1] is Ellipsis):
        return list(args) if len(args) == count else []
    return [args[0]] * count


def _bare(type: Any) -> tuple[Any, tuple[Meta, ...]]:
    """A type without its names and annotations, and the bounds that those set."""
    bounds: tuple[Meta, ...] = ()
    while True:
        if get_origin(type) is Annotated:
            type, *notes = get_args(type)
            bounds += tuple(note for note in notes if isinstance(note, Meta))
        elif hasattr(type, "__supertype__"):  # NewType
            type = type.__supertype__
        elif hasattr(type, "__value__"):  # type X = ...
            type = type.__value__
        else:
            return type, bounds


def _origin(type: Any) -> Any:
    return get_origin(type) or type


def _is_a(kind: Any, base: type | UnionType) -> bool:
    found = _origin(kind)
    return isinstance(found, type) and issubclass(found, base)


def _is_struct(kind: Any) -> bool:
    return _is_a(kind, msgspec.Struct) and not _origin(kind).__struct_config__.array_like


def _holds_items(kind: Any) -> bool:
    return _is_a(kind, Collection) and not _is_a(kind, Mapping) and not _is_a(kind, str | bytes)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=512)
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


_SHELLS: Final[Mapping[bytes, Any]] = {b"{": dict[str, Raw], b"[": list[Raw]}
