"""Every wrong field is named, and nothing is called wrong that decoding accepts."""

import enum
from typing import Annotated, Any, Literal, NewType, Union

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core.jobs.email import SendEmail
from penstock.core.jobs.image import MakeThumbnails
from penstock.core.validation import MAX_PROBLEMS, UNDECODABLE, every_problem


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: Annotated[int, msgspec.Meta(ge=1)]
    word: Annotated[str, msgspec.Meta(max_length=3)] = ""


class Cat(msgspec.Struct, tag="cat", tag_field="kind"):
    lives: int


class Dog(msgspec.Struct, tag="dog", tag_field="kind", forbid_unknown_fields=True):
    bark: str


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


class Tree(msgspec.Struct):
    value: int
    below: "list[Tree]" = []


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class Hinted(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is over high")


Number = NewType("Number", int)

SCALARS = st.sampled_from(
    [
        *(int, float, str, bool, None, Any, msgspec.Raw, Number, Colour, Inner, Cat, Pair, Tree, Renamed),
        *(Hinted, Cat | Dog, Literal["a", "b"], Literal[1, 2], Literal["a"] | None),
        *(Annotated[str, msgspec.Meta(pattern="^a")], Annotated[float, msgspec.Meta(le=2)]),
    ]
)
KEYS = st.sampled_from(["a", "b", "n", "word", "kind", "lives", "bark", "value", "below", "low", "high", "1"])


def structs(fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def define(types: dict[str, Any], required: int, forbid: bool) -> Any:
        rows = [
            (name, kind) if number < required else (name, kind, msgspec.field(default=None))
            for number, (name, kind) in enumerate(types.items())
            if name.isidentifier()
        ]
        return msgspec.defstruct("Made", rows, forbid_unknown_fields=forbid)

    return st.builds(
        define, st.dictionaries(KEYS, fields, min_size=1, max_size=4), st.integers(0, 4), st.booleans()
    )


def of(generic: Any, *parts: Any) -> Any:
    """A type made while the test runs: `of(list, int)` is `list[int]`."""
    return generic[parts]


TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda kind: of(list, kind)),
        inner.map(lambda kind: of(tuple, kind, ...)),
        st.tuples(inner, inner).map(lambda kinds: of(tuple, *kinds)),
        inner.map(lambda kind: of(Annotated, of(list, kind), msgspec.Meta(min_length=1, max_length=2))),
        inner.map(lambda kind: of(dict, str, kind)),
        inner.map(lambda kind: of(dict, int, kind)),
        inner.map(lambda kind: of(Union, of(list, kind), None)),
        inner.map(lambda kind: of(Union, of(dict, str, kind), of(list, kind), int)),
        structs(inner),
    ),
    max_leaves=6,
)
DOCUMENTS = st.recursive(
    st.one_of(
        st.sampled_from([None, True, 0, 1, 2, 2.5, "", "a", "b", "red", "cat", "dog", "too long"]),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


def decodes(raw: bytes, kind: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=kind)
    except UNDECODABLE:
        return False
    return True


@settings(max_examples=600, deadline=None)
@given(kind=TYPES, document=DOCUMENTS)
@example(kind=dict[int, int], document={"x": 1})
@example(kind=list[Cat | Dog], document=[{"kind": "dog"}, {"kind": "cow"}])
@example(kind=Annotated[list[int], msgspec.Meta(max_length=1)] | None, document=[1, "a"])
def test_empty_exactly_when_it_decodes(kind: Any, document: Any) -> None:
    raw = msgspec.json.encode(document)
    problems = every_problem(kind, raw, "here")
    assert (problems == []) == decodes(raw, kind)
    assert all(problem.path.startswith("here") and problem.message for problem in problems)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=30), kind=SCALARS)
def test_empty_exactly_when_any_bytes_decode(raw: bytes, kind: Any) -> None:
    assert (every_problem(kind, raw) == []) == decodes(raw, kind)


def told(kind: Any, raw: str, root: str = "payload") -> dict[str, str]:
    return {problem.path: problem.message for problem in every_problem(kind, raw.encode(), root)}


def test_names_every_wrong_field_with_its_path() -> None:
    assert told(
        MakeThumbnails, ' {"sizes": [{"width": 0, "heigth": 9}, {"fit": "x"}, {}], "quality": "good"}'
    ) == {
        "payload.source": "this field is required",
        "payload.quality": "expected `int`, got `str`",
        "payload.sizes[0].width": "expected `int` >= 1",
        "payload.sizes[0].heigth": "unknown field; did you mean `height`?",
        "payload.sizes[1].fit": "invalid enum value 'x', expected one of "
        "'inside', 'contain', 'cover', 'fill'",
        "payload.sizes[2]": "give width, height or both",
    }


def test_says_what_a_pattern_means() -> None:
    problems = told(SendEmail, '{"to": ["ada", "ada@example.org"], "subject": "s", "text": "t"}')
    assert problems == {
        "payload.to[0]": "not of the form that is wanted: ada@example.org or Ada <ada@example.org>"
    }


def test_names_a_bound_of_the_list_beside_its_items() -> None:
    kind = Annotated[list[int], msgspec.Meta(max_length=1)]
    assert told(kind, '[1, "two"]', "") == {
        "": "expected `array` of length <= 1",
        "[1]": "expected `int`, got `str`",
    }


@pytest.mark.parametrize(
    ("kind", "raw", "problems"),
    [
        (Hinted, '{"low": 2, "high": 1}', {"payload": "low is over high"}),
        (Renamed, "{}", {"payload.firstName": "this field is required"}),
        (Cat | Dog, '{"kind": "dog"}', {"payload.bark": "this field is required"}),
        (Cat | Dog, '{"kind": "cow"}', {"payload.kind": "invalid value 'cow'"}),
        (dict[int, int], '{"1": 2, "x": "y"}', None),
        (Pair, '[1, "x"]', {"payload[1]": "expected `int`, got `str`"}),
        (Colour | None, '"green"', {"payload": "invalid enum value 'green', expected one of 'red', 'blue'"}),
    ],
)
def test_each_kind_of_type(kind: Any, raw: str, problems: dict[str, str] | None) -> None:
    expected = problems or {"payload.x": "expected `int`, got `str`"}
    assert told(kind, raw) == expected


def test_is_bounded() -> None:
    assert len(every_problem(list[int], b"[" + b'"x",' * 5_000 + b"1]")) == MAX_PROBLEMS
    deep = b'{"value": "x", "below": [' * 200 + b"]}" * 200
    assert len(every_problem(Tree, deep)) <= MAX_PROBLEMS
    assert [problem.message for problem in every_problem(Any, b"[" * 100_000)] == ["nested too deeply"]


def test_a_later_key_of_the_same_name_does_not_hide_an_earlier_wrong_one() -> None:
    problems = every_problem(Inner, b'{"n": 0, "n": 1}')
    assert [(problem.path, problem.message) for problem in problems] == [("payload.n", "expected `int` >= 1")]
