"""A JSON merge patch does what RFC 7396 says, and differences are told by their paths."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.merge_patch import MAX_DEPTH, Change, differences, merged

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


# The test cases of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_cases_of_the_rfc(original: Any, patch: Any, result: Any) -> None:
    before = msgspec.json.encode(original)
    assert merged(original, patch) == result
    assert msgspec.json.encode(original) == before, "the original stays as it was"


@given(JSON, JSON)
def test_a_patch_applied_twice_is_applied_once(value: Any, patch: Any) -> None:
    once = merged(value, patch)
    assert merged(once, patch) == once


@given(JSON, JSON)
def test_what_differs_is_told_and_what_is_equal_is_not(before: Any, after: Any) -> None:
    assert differences(before, before) == []
    equal = msgspec.json.encode(before, order="sorted") == msgspec.json.encode(after, order="sorted")
    assert (differences(before, after) == []) == equal


def test_differences_have_paths_and_say_what_was_not_there() -> None:
    before = {"to": [{"name": "Ada"}, "b"], "cc": None, "n": 1, "on": True}
    after = {"to": [{"name": "Eve"}], "n": 1.0, "on": 1, "new": {"a": 1}}
    found = differences(before, after)
    assert found == [
        Change("to[0].name", "Ada", "Eve"),
        Change("to[1]", before="b"),
        Change("cc", before=None),
        Change("on", True, 1),
        Change("new", after={"a": 1}),
    ]
    assert msgspec.json.encode(found[1:3]) == b'[{"path":"to[1]","before":"b"},{"path":"cc","before":null}]'


def test_what_is_nested_too_deep_differs_as_a_whole() -> None:
    before: Any = 1
    after: Any = 2
    for _ in range(2 * MAX_DEPTH):
        before, after = {"a": before}, {"a": after}
    [change] = differences(before, after)
    assert change.path.count("a") == MAX_DEPTH
