"""Intake: every wrong field is named and nothing else, and what is right is encoded once."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import msgspec
import pytest

from penstock.core.contracts import Backoff, contract
from penstock.core.dispatch import Submission
from penstock.core.errors import InvalidJob, Misconfigured, TooLarge, UnknownType
from penstock.core.events import Event, Submitted, decode
from penstock.core.validation import every_problem
from penstock.producer.client import Producer
from penstock.producer.intake import MAX_KEY_CHARS, MAX_TAGS, JobOptions, JobRequest, prepare


class Size(msgspec.Struct, forbid_unknown_fields=True):
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]


@contract("intake.plain")
class Plain(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    sizes: list[Size] = []


@contract("intake.told", queue="shelf", priority="low", attempts=2, backoff=Backoff(base=9), timeout=7)
class Told(msgspec.Struct):
    text: str


GOOD = b'{"source":"a"}'


def ask(
    payload: bytes = GOOD, *, type: str = "intake.plain", queue: str = "intake", **options: Any
) -> Submission:
    request = JobRequest(type=type, payload=msgspec.Raw(payload), **options)
    return prepare(queue, request, max_payload=1_000)


def event_of(submission: Submission) -> Submitted:
    body = decode(Event("1-0", "submitted", "1-0", submission.body))
    assert isinstance(body, Submitted)
    return body


def wrong_fields(call: Any) -> set[str]:
    with pytest.raises(InvalidJob) as caught:
        call()
    return {problem.path for problem in caught.value.problems}


def test_a_plain_job_is_its_type_and_payload_and_no_more() -> None:
    submission = ask()
    assert submission == Submission("normal", b'{"type":"intake.plain","payload":{"source":"a"}}')


def test_the_payload_passes_through_byte_for_byte() -> None:
    spaced = b'{ "source" : "a" , "sizes" : [ ] }'
    assert bytes(event_of(ask(spaced)).payload) == spaced


def test_what_a_contract_says_is_spelt_out() -> None:
    event = event_of(ask(b'{"text":"x"}', type="intake.told", queue="shelf"))
    assert (event.priority, event.attempts, event.backoff, event.timeout) == ("low", 2, Backoff(base=9), 7)


def test_what_a_request_says_overrules_the_contract() -> None:
    options = {"priority": "high", "attempts": 9, "backoff": Backoff(kind="fixed"), "timeout": 1.5}
    submission = ask(b'{"text":"x"}', type="intake.told", queue="shelf", **options)
    event = event_of(submission)
    assert submission.lane == "high"
    assert {name: getattr(event, name) for name in options} == options


def test_a_request_can_go_back_to_the_defaults() -> None:
    submission = ask(b'{"text":"x"}', type="intake.told", queue="shelf", priority="normal", attempts=5)
    assert submission.lane == "normal"
    assert (event_of(submission).priority, event_of(submission).attempts) == ("normal", 5)
    assert b"priority" not in submission.body


def test_tags_key_actor_and_trace_are_kept() -> None:
    request = JobRequest(type="intake.plain", payload=msgspec.Raw(GOOD), tags=("a", "b"), key="k1")
    submission = prepare("intake", request, max_payload=1_000, by="key:shop", trace="00-1-2-01")
    event = event_of(submission)
    assert (event.tags, event.key, event.by, event.trace) == (("a", "b"), "k1", "key:shop", "00-1-2-01")
    assert submission.key == "k1"


@pytest.mark.parametrize(("delay", "when"), [(1.5, "+1500"), (0.0004, "+0"), (3600, "+3600000")])
def test_a_delay_counts_from_the_servers_now(delay: float, when: str) -> None:
    submission = ask(delay=delay)
    assert (submission.when, event_of(submission).delay) == (when, delay)


def test_no_delay_is_now() -> None:
    assert ask(delay=0).when == ""


@pytest.mark.parametrize(
    "moment",
    [
        1_800_000_000_123,
        datetime.fromtimestamp(1_800_000_000.123, UTC),
        datetime.fromtimestamp(1_800_000_000.123, timezone(timedelta(hours=-7))),
    ],
)
def test_a_moment_is_kept_to_the_millisecond(moment: datetime | int) -> None:
    submission = ask(run_at=moment)
    assert (submission.when, event_of(submission).run_at) == ("1800000000123", 1_800_000_000_123)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_the_last_and_the_first_moment_are_refused_by_name(moment: datetime) -> None:
    """`9999-12-31T23:59:59-01:00` is good ISO 8601; in UTC it would be in the year 10000."""
    assert wrong_fields(lambda: ask(run_at=moment)) == {"run_at"}


@pytest.mark.parametrize(
    ("payload", "paths"),
    [
        (b"{}", {"payload.source"}),
        (b'{"source":1}', {"payload.source"}),
        (b'{"source":"a","colour":1}', {"payload.colour"}),
        (
            b'{"sizes":[{"width":0,"height":1},{"width":1,"heigth":1}]}',
            {
                "payload.source",
                "payload.sizes[0].width",
                "payload.sizes[1].height",
                "payload.sizes[1].heigth",
            },
        ),
        (b"[]", {"payload"}),
        (b"null", {"payload"}),
    ],
)
def test_every_wrong_field_of_a_payload_is_named_and_nothing_else(payload: bytes, paths: set[str]) -> None:
    assert wrong_fields(lambda: ask(payload)) == paths


NO_TEXT = b'{"source":"\xff"}'


@pytest.mark.parametrize("payload", [NO_TEXT, b'{"source":' + b"[" * 400 + b"]" * 400 + b"}"])
def test_bytes_that_are_no_text_and_nesting_without_end_are_refused(payload: bytes) -> None:
    assert all(path.startswith("payload") for path in wrong_fields(lambda: ask(payload)))


@contract("intake.anything")
class Anything(msgspec.Struct):
    value: Any


def test_nesting_too_deep_for_anyone_is_refused() -> None:
    deep = b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    request = JobRequest(type="intake.anything", payload=msgspec.Raw(deep))
    assert wrong_fields(lambda: prepare("intake", request, max_payload=10**6))


def test_a_wrong_queue_and_a_wrong_payload_are_named_together() -> None:
    assert wrong_fields(lambda: ask(b"{}", queue="shelf")) == {"type", "payload.source"}


def test_delay_and_moment_exclude_each_other() -> None:
    assert wrong_fields(lambda: ask(delay=1, run_at=1)) == {"delay"}


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnknownType, match=r"intake\.nothing"):
        ask(type="intake.nothing")


def test_the_bound_on_payloads_is_in_bytes() -> None:
    fits = b'{"source":"%b"}' % (b"x" * 987)
    assert len(fits) == 1_000
    assert ask(fits).lane == "normal"
    with pytest.raises(TooLarge) as caught:
        ask(fits + b" ")
    assert caught.value.limit == 1_000


OPTIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"priority": "urgent"}, {"priority"}),
    ({"delay": -1}, {"delay"}),
    ({"delay": "1"}, {"delay"}),
    ({"delay": 366 * 24 * 3600 + 1}, {"delay"}),
    ({"run_at": "2030-01-01T00:00:00"}, {"run_at"}),
    ({"run_at": "tomorrow"}, {"run_at"}),
    ({"run_at": -1}, {"run_at"}),
    ({"run_at": 2**43 + 1}, {"run_at"}),
    ({"attempts": 0}, {"attempts"}),
    ({"attempts": 101}, {"attempts"}),
    ({"attempts": 1.5}, {"attempts"}),
    ({"timeout": 0}, {"timeout"}),
    ({"timeout": 24 * 3600 + 1}, {"timeout"}),
    ({"backoff": {"kind": "linear"}}, {"backoff.kind"}),
    ({"backoff": {"base": -1, "jitter": 2, "caps": 3}}, {"backoff.base", "backoff.jitter", "backoff.caps"}),
    ({"tags": ["a"] * (MAX_TAGS + 1)}, {"tags"}),
    ({"tags": ["", "x" * 101, 3]}, {"tags[0]", "tags[1]", "tags[2]"}),
    ({"key": "x" * (MAX_KEY_CHARS + 1)}, {"key"}),
    ({"retries": 3}, {"retries"}),
    ({"attempts": 0, "timeout": 0, "priority": "x"}, {"attempts", "timeout", "priority"}),
]


@pytest.mark.parametrize(("options", "paths"), OPTIONS)
def test_every_wrong_option_is_named_and_nothing_else(options: dict[str, Any], paths: set[str]) -> None:
    found = every_problem(JobOptions, msgspec.json.encode(options), "")
    assert {problem.path for problem in found} == paths


@pytest.mark.parametrize(("options", "paths"), OPTIONS)
async def test_the_client_names_them_too_before_it_connects(
    options: dict[str, Any], paths: set[str], tmp_path: Any
) -> None:
    from penstock.core.settings import Secret, Settings

    async with Producer(Settings(redis_url=Secret(f"unix://{tmp_path}/nobody"))) as producer:
        with pytest.raises(InvalidJob) as caught:
            await producer.submit(Plain(source="a"), **options)
    assert {problem.path for problem in caught.value.problems} == {f"options.{path}" for path in paths}


async def test_a_struct_that_is_no_contract_is_refused_before_it_connects(tmp_path: Any) -> None:
    from penstock.core.settings import Secret, Settings

    async with Producer(Settings(redis_url=Secret(f"unix://{tmp_path}/nobody"))) as producer:
        with pytest.raises(Misconfigured, match="no contract"):
            await producer.submit(Size(1, 1))
        with pytest.raises(InvalidJob):
            await producer.submit(Plain(source=3))  # type: ignore[arg-type]
