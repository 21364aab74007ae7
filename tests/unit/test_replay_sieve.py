"""What `grep` looks for: what is no pattern or expression is refused at once, and nothing that a foreign hand
wrote into the log stops a search."""

from typing import Any, cast

import msgspec
import pytest

from penstock.core.errors import Refused
from penstock.core.log import Entry, Log
from penstock.projections.replay.sieve import Sieve, Sought, expression, pattern

NOWHERE = cast(Log, None)  # nothing is looked up: all jobs are in the page


def entry(position: str, event: bytes, job: bytes, body: bytes) -> Entry:
    return position.encode(), [b"event", event, b"job", job, b"body", body]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ms > 40", 'Parse error at column 5, token "40" (NUMBER); a number is written `40`'),
        ("payload ==", "is no JMESPath expression: Invalid jmespath expression: Incomplete expression"),
        ("nosuch(payload)", "is no JMESPath expression: Unknown function: nosuch()"),
        ("payload[?nosuch(to)]", "is no JMESPath expression: Unknown function: nosuch()"),
        ("abs(ms, ms)", "is no JMESPath expression: Expected 1 argument for function abs(), received 2"),
        ("not_null()", "is no JMESPath expression: Expected at least 1 argument for function not_null()"),
        ("(" * 10_000, "is too deep for a JMESPath expression"),
    ],
)
def test_an_expression_that_no_event_can_answer_is_refused(text: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        expression(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not str(refused.value).endswith((":", ","))


@pytest.mark.parametrize("text", ["(", "[z-a]", "a{99999999999999999999}"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is no regular expression"):
        pattern(text)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("payload.n", True),
        ("length(payload.words) > `1`", True),
        ("max_by(payload.words, &@)", True),
        ("contains(payload.text, payload.n)", False),  # TypeError in the library
        ("payload.words[::0]", False),  # ValueError
        ("ceil(avg(payload.huge))", False),  # OverflowError
        ("sort_by(payload.words, &length(@))", True),
        ("abs(payload.text)", False),
    ],
)
async def test_an_expression_without_an_answer_is_not_true(text: str, fits: bool) -> None:
    huge = [1e308] * 3
    payload = {"n": 0, "text": "x", "words": ["a", "b"], "huge": huge}
    page = [
        entry("1-0", b"submitted", b"", msgspec.json.encode({"type": "a.b", "payload": payload})),
        entry("2-0", b"submitted", b"", b"no json \xff"),
        entry("3-0", b"submitted", b"", b"[" * 100_000),
    ]
    found = await Sieve(Sought(where=expression(text)), NOWHERE).sift(page)
    assert [position for position, _ in found] == [b"1-0"] * fits


async def test_what_a_foreign_hand_wrote_does_not_stop_a_search() -> None:
    body = b'{"type":"a.b","payload":{}}'
    page: list[Any] = [
        entry("1-0", b"submitted", b"", body),
        entry("2-0", b"submitted", b"\xff\xfe", body),  # a job that is no text
        (b"3-0", [b"other", b"fields"]),
        entry("4-0", b"completed", b"\xff", b"{}"),
        entry("5-0", b"completed", b"1-0", b"{}"),
    ]
    found = await Sieve(Sought(type="a.b"), NOWHERE).sift(page)
    assert [position for position, _ in found] == [b"1-0", b"5-0"]
